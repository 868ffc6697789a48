"""One executed notebook as one HTML file that asks no network for anything.

nbconvert's pages load require.js, MathJax, mermaid and the widget manager from public servers. Here its template is
cut down: plotly figures are drawn by the plotly.js that the installed plotly package carries, embedded once and
deflated; formulas become MathML, which browsers draw themselves; splat viewers bring their own script and data and can
be turned, other widgets leave the picture that they put beside their view. Where the reader's system is dark, so is the
page, in the colours of JupyterLab's dark theme.
A content security policy in the page has the browser refuse whatever an output might still try to load.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import latex2mathml.converter
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
VIEW = "application/vnd.clipgs.view+json"
_TEMPLATE = Path(__file__).parent / "templates" / "notebook.html.j2"


def freeze_widgets(notebook: NotebookNode) -> NotebookNode:
    """Drop in place what needs a live kernel: widget state, and widget views with a picture or HTML beside them.

    A widget view without such a stand-in is kept in the notebook; `notebook_page` puts a sentence in its place.
    """
    notebook.metadata.pop("widgets", None)
    for output in _outputs(notebook):
        data = output.get("data", {})
        if WIDGET in data and any(mime.startswith("image/") or mime == "text/html" for mime in data):
            del data[WIDGET]
    return notebook


def notebook_page(notebook: NotebookNode, title: str) -> str:
    """The HTML page of an executed notebook, self-contained; ``title`` is for the browser's tab."""
    copy = freeze_widgets(NotebookNode(json.loads(json.dumps(notebook), object_hook=NotebookNode)))
    copy.metadata["title"] = title
    views = _take(copy, VIEW, "view", lambda _, more: f'><img src="data:image/png;base64,{more["image/png"]}" alt="">')
    figures = _take(copy, PLOTLY, "figure", _room)
    for output in _outputs(copy):
        if WIDGET in output.get("data", {}):
            output["data"] = NotebookNode({"text/html": "<p><em>Live widget: run the notebook to use it.</em></p>"})
    resources = {"figures": figures, "views": views, "plotly": plotly_javascript() if figures else ""}
    page, _ = _Exporter(raw_template=_TEMPLATE.read_text(encoding="utf-8")).from_notebook_node(copy, resources)
    return page


class _Exporter(HTMLExporter):
    """nbconvert's HTML exporter with formulas as MathML."""

    def default_filters(self) -> Any:
        """nbconvert's filters, with the one for Markdown replaced."""
        yield from super().default_filters()
        yield "markdown2html", markdown


class _Renderer(IPythonRenderer):
    """Markdown to HTML, formulas to MathML."""

    def inline_math(self, body: str) -> str:
        """A formula within a line."""
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        """A formula on lines of its own."""
        return _mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        """``\\begin{name} ... \\end{name}``."""
        return _mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


def markdown(source: str, *, escape: bool = False) -> str:
    """Markdown as HTML; with ``escape``, HTML in it is shown as it stands."""
    return MarkdownWithMath(renderer=_Renderer(escape=escape)).render(source)


def _mathml(body: str, display: str) -> str:
    """A TeX formula as MathML; one that the converter does not know stays readable as code."""
    try:
        return latex2mathml.converter.convert(body.strip(), display=display)
    except Exception:  # its parser raises many kinds, none of them more than "not understood"
        return f"<code>{html.escape(body)}</code>"


def _take(notebook: NotebookNode, mime: str, kind: str, element: Callable[[Any, Any], str]) -> dict[str, Any]:
    """Replace each output of a type by the ``element`` of its data and other data; the data by the elements' ids."""
    taken: dict[str, Any] = {}
    for output in _outputs(notebook):
        data = output.get("data", {}).pop(mime, None)
        if data is not None:
            name = f"clipgs-{kind}-{len(taken)}"
            taken[name] = data
            output["data"] = NotebookNode({"text/html": f'<div id="{name}"{element(data, output["data"])}</div>'})
    return taken


def _room(figure: Any, _: Any) -> str:
    """Style of the empty element that plotly draws a figure into."""
    height = figure.get("layout", {}).get("height")
    return f' style="height:{height if isinstance(height, int | float) else 450:g}px">'  # plotly's own default


def plotly_javascript() -> str:
    """The plotly.js that the installed plotly package carries, deflated, in base64: 2 MB in the place of 4.8."""
    script = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    return base64.b64encode(zlib.compress(script.read_bytes())).decode("ascii")


def _outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]
