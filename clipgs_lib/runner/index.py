"""``index.html``: one card per notebook with its question, picture, status and key numbers."""

from __future__ import annotations

import base64
import html
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import runtime
from .._version import __version__
from .catalogue import Notebook
from .state import Outcome, load_outcome

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #5b6672; --line: #dfe3e8;
  --good: #1a7f37; --bad: #c42b1c; --accent: #2457c5; --well: #eef1f5; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --ink: #e8ebee; --soft: #9aa5b1;
  --line: #30363d; --good: #56d364; --bad: #ff7b72; --accent: #7aa7ff; --well: #262b31; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, sans-serif; }
header, main, footer { max-width: 1160px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
header p, footer { color: var(--soft); margin: 6px 0 28px; }
h1 { font-size: 28px; margin: 0; }
h2 { font-size: 18px; line-height: 1.3; margin: 0; }
h2 a { color: inherit; text-decoration: none; }
h2 a:hover, h2 a:focus-visible { color: var(--accent); text-decoration: underline; }
main { display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden;
  display: flex; flex-direction: column; }
.picture { display: block; background: var(--well); height: 190px; border-bottom: 1px solid var(--line);
  color: var(--soft); text-decoration: none; }
.picture img { width: 100%; height: 100%; object-fit: contain; display: block; }
.picture span { display: grid; place-items: center; height: 100%; font-size: 40px; opacity: .45; }
.text { padding: 16px 18px 18px; display: flex; flex-direction: column; gap: 10px; flex: 1; }
.question, .state { margin: 0; color: var(--soft); }
.state, dl, ul, .links, footer { font-size: 14px; }
.state b { font-weight: 600; }
.passed b { color: var(--good); }
.failed b { color: var(--bad); }
.error { margin: 0; padding: 10px 12px; border-radius: 8px; background: var(--well); overflow-wrap: anywhere;
  font: 13px/1.45 ui-monospace, monospace; }
dl { display: grid; grid-template-columns: 1fr auto; gap: 2px 14px; margin: 0; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
ul { margin: 0; padding-left: 18px; }
.links { margin-top: auto; display: flex; flex-wrap: wrap; gap: 4px 16px; }
.links a { color: var(--accent); }
footer { margin: 28px auto 40px; }
"""
_METRICS_SHOWN = 8


def write_index(notebooks: Sequence[Notebook], out: Path) -> Path:
    """Write ``index.html`` over the last outcome of every notebook; returns its path.

    Args:
        notebooks: all that the page lists, in order, whether run or not.
        out: the folder with executed notebooks and pages.
    """
    cards = "\n".join(_card(notebook, load_outcome(out, notebook.name), out) for notebook in notebooks)
    outcomes = [load_outcome(out, notebook.name) for notebook in notebooks]
    counts = {word: sum(o is not None and o.status == word for o in outcomes) for word in ("passed", "failed")}
    counts["not run"] = outcomes.count(None)
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    out.mkdir(parents=True, exist_ok=True)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>CLIP-GS workbench: notebooks</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head>
<body><header><h1>CLIP-GS workbench</h1><p>{html.escape(summary)}</p></header>
<main>
{cards}
</main>
<footer>clipgs_lib {html.escape(__version__)} · written {time.strftime("%Y-%m-%d %H:%M")}</footer></body></html>
"""
    path = out / "index.html"
    runtime.write_text_atomically(path, page)
    return path


def _card(notebook: Notebook, outcome: Outcome | None, out: Path) -> str:
    name = notebook.name
    page = out / f"{name}.html"
    link = quote(page.name) if page.is_file() else ""
    heading = html.escape(_plain(notebook.title))
    picture = _thumbnail(out / f"{name}.ipynb")
    inner = f'<img src="{picture}" alt="">' if picture else f"<span>{html.escape(name.split('_')[0])}</span>"
    if link:
        heading = f'<a href="{link}">{heading}</a>'
        inner = f'<a class="picture" href="{link}" tabindex="-1" aria-hidden="true">{inner}</a>'
    else:
        inner = f'<div class="picture">{inner}</div>'
    parts = [f"<h2>{heading}</h2>"]
    if notebook.question:
        parts.append(f'<p class="question">{html.escape(_plain(notebook.question))}</p>')
    parts.append(_state(outcome))
    if outcome is not None and outcome.status == "passed":
        parts += [_metrics(outcome.metrics), _findings(outcome.findings)]
    parts.append(_links(name, out))
    return f'<article>{inner}<div class="text">{"".join(parts)}</div></article>'


def _state(outcome: Outcome | None) -> str:
    if outcome is None:
        return '<p class="state">not run yet</p>'
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(outcome.finished))
    text = f'<p class="state {outcome.status}"><b>{outcome.status}</b> in {outcome.seconds:.1f} s · {when}</p>'
    if outcome.status == "failed":
        words = " — ".join(word for word in (outcome.place, outcome.error) if word)
        text += f'<p class="error">{html.escape(words)}</p>'
    return text


def _metrics(metrics: dict[str, Any]) -> str:
    """The first few plain values; nested ones stay in metrics.json."""
    plain = [(key, value) for key, value in metrics.items() if isinstance(value, int | float | str)]
    rows = [
        f"<dt>{html.escape(key.replace('_', ' '))}</dt><dd>{html.escape(_short(value))}</dd>"
        for key, value in plain[:_METRICS_SHOWN]
    ]
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def _findings(findings: list[str]) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in findings)
    return f"<ul>{items}</ul>" if items else ""


def _links(name: str, out: Path) -> str:
    """Links to what exists: notebook, its failed run, log."""
    there = [("notebook", f"{name}.ipynb"), ("failed run", f"{name}.failed.ipynb"), ("log", f"logs/{name}.log")]
    links = [f'<a href="{quote(file)}">{label}</a>' for label, file in there if (out / file).is_file()]
    return f'<div class="links">{"".join(links)}</div>' if links else ""


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
