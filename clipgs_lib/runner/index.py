"""``index.html``, the front page: what this is, where to start, and a card per notebook."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..files import write_text
from ..pages import fill
from .console import span
from .notebooks import Notebook
from .state import Outcome, load_outcome

TEMPLATES = Path(__file__).parent / "templates"
_METRICS_SHOWN = 8
_CARD = 340 / 190  # width of a card's picture over its height
_WHEN = "%Y-%m-%d %H:%M"


def write_index(notebooks: Sequence[Notebook], out: Path) -> Path:
    """Write ``index.html`` over the last outcomes of all notebooks that it lists, run or not; returns its path."""
    cards = [_card(notebook, out) for notebook in notebooks]
    counts = Counter(card["outcome"].status if card["outcome"] else "not run" for card in cards)
    words = [f"{counts[word]} {word}" for word in ("passed", "failed", "not run") if counts[word]]
    seconds = sum(card["outcome"].seconds for card in cards if card["outcome"])
    facts = {
        "cards": cards,
        "pages": [card for card in cards if card["page"]],
        "summary": f"{', '.join(words)}; {span(seconds)} of computing",
        "version": __version__,
        "written": time.strftime(_WHEN),
    }
    page = fill(TEMPLATES / "index.html.j2", facts, {"markdown": _markdown})
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    write_text(path, page)
    return path


def _card(notebook: Notebook, out: Path) -> dict[str, Any]:
    """What the template shows of one notebook."""
    name, outcome = notebook.name, load_outcome(out, notebook.name)
    files = {"notebook": f"{name}.ipynb", "failed run": f"{name}.failed.ipynb", "log": f"logs/{name}.log"}
    return {
        "number": name.split("_")[0],
        "title": notebook.title,
        "question": notebook.question,
        "outcome": outcome,
        "finished": time.strftime(_WHEN, time.localtime(outcome.finished)) if outcome else "",
        "page": f"{name}.html" if (out / f"{name}.html").is_file() else "",
        **_thumbnail(out / f"{name}.ipynb"),
        "metrics": _metrics(outcome) if outcome else {},
        "links": {label: file for label, file in files.items() if (out / file).is_file()},
    }


def _metrics(outcome: Outcome) -> dict[str, str]:
    """What a metric is -> its number with its unit: those with labels, or else the first few plain ones."""
    shown = {}
    plain = [name for name, value in outcome.metrics.items() if isinstance(value, int | float | str)]
    for name in list(outcome.labels) or plain[:_METRICS_SHOWN]:
        what, _, unit = outcome.labels.get(name, name.replace("_", " ") + ",").rpartition(",")
        value, unit = outcome.metrics[name], unit.strip()
        if unit == "share":
            value, unit = 100 * value, "%"
        if isinstance(value, float):
            value = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        elif not isinstance(value, bool | str):
            value = f"{value:,}"
        shown[what] = f"{str(value)[:60]}\N{NO-BREAK SPACE}{unit}".strip()
    return shown


def _thumbnail(executed: Path) -> dict[str, Any]:
    """The PNG of an executed notebook that fits a card best, as a data address or "", and how much of it it fills."""
    best: dict[str, Any] = {"picture": "", "fills": 0.0}
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
        for output in (output for cell in cells for output in cell.get("outputs", [])):
            data = base64.b64decode("".join(output.get("data", {}).get("image/png", "")))
            if data[:8] == b"\x89PNG\r\n\x1a\n":
                shape = int.from_bytes(data[16:20]) / int.from_bytes(data[20:24]) / _CARD
                fills = min(shape, 1 / shape)
                if fills > best["fills"]:
                    address = "data:image/png;base64," + base64.b64encode(data).decode()
                    best = {"picture": address, "fills": fills}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        pass  # a notebook that cannot be read has no picture
    return best


def _markdown(text: str) -> str:
    """A line of Markdown as HTML; HTML in it is shown as it stands."""
    from .page import markdown  # nbconvert takes a second to import

    return markdown(text, escape=True).strip().removeprefix("<p>").removesuffix("</p>")
