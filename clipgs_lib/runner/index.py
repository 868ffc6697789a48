"""``index.html``: one card per notebook with its question, picture, status and key numbers."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from .._version import __version__
from ..files import write_text
from .notebooks import Notebook
from .state import load_outcome

TEMPLATES = Path(__file__).parent / "templates"
_METRICS_SHOWN = 8
_WHEN = "%Y-%m-%d %H:%M"


def write_index(notebooks: Sequence[Notebook], out: Path) -> Path:
    """Write ``index.html`` over the last outcome of every notebook; returns its path.

    Args:
        notebooks: all that the page lists, in order, whether run or not.
        out: the folder with executed notebooks and pages.
    """
    cards = [_card(notebook, out) for notebook in notebooks]
    counts = Counter(card["outcome"].status if card["outcome"] else "not run" for card in cards)
    words = [f"{counts[word]} {word}" for word in ("passed", "failed", "not run") if counts[word]]
    loader = jinja2.FileSystemLoader(TEMPLATES)
    template = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "index.html.j2"
    )
    page = template.render(cards=cards, summary=", ".join(words), version=__version__, written=time.strftime(_WHEN))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    write_text(path, page)
    return path


def _card(notebook: Notebook, out: Path) -> dict[str, Any]:
    """What the template shows of one notebook; its metrics are the first few plain ones."""
    name, outcome = notebook.name, load_outcome(out, notebook.name)
    files = {"notebook": f"{name}.ipynb", "failed run": f"{name}.failed.ipynb", "log": f"logs/{name}.log"}
    metrics = outcome.metrics.items() if outcome else ()
    plain = [(key.replace("_", " "), _short(value)) for key, value in metrics if isinstance(value, int | float | str)]
    return {
        "number": name.split("_")[0],
        "title": _plain(notebook.title),
        "question": _plain(notebook.question),
        "outcome": outcome,
        "finished": time.strftime(_WHEN, time.localtime(outcome.finished)) if outcome else "",
        "page": f"{name}.html" if (out / f"{name}.html").is_file() else "",
        "picture": _thumbnail(out / f"{name}.ipynb"),
        "metrics": dict(plain[:_METRICS_SHOWN]),
        "links": {label: file for label, file in files.items() if (out / file).is_file()},
    }


def _thumbnail(executed: Path) -> str:
    """The first PNG of an executed notebook as a data address, or ""."""
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
        for output in (output for cell in cells for output in cell.get("outputs", [])):
            picture = output.get("data", {}).get("image/png")
            if picture:
                data = base64.b64decode("".join(picture), validate=False)
                return "data:image/png;base64," + base64.b64encode(data).decode()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return ""


def _short(value: float | str) -> str:
    if isinstance(value, bool | str):
        return str(value)[:60]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _plain(markdown: str) -> str:
    """Markdown's marks taken off a line of text."""
    return markdown.replace("**", "").replace("`", "")
