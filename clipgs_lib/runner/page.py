"""One executed notebook as one HTML file that asks no network for anything.

nbconvert's pages load require.js, MathJax, mermaid and the widget manager from public servers. Here its template is
cut down: plotly figures are drawn by the plotly.js that the installed plotly package carries, embedded once;
formulas become MathML, which browsers draw themselves; widgets leave the picture that they put beside their view.
A content security policy in the page has the browser refuse whatever an output might still try to load.
"""

from __future__ import annotations

import html
import importlib.util
import json
from pathlib import Path
from typing import Any

import latex2mathml.converter
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; media-src data: blob:; worker-src blob: data:; connect-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}
<meta http-equiv="Content-Security-Policy" content="__POLICY__">
<link rel="icon" href="data:,">
{%- endblock html_head_js -%}
{%- block jupyter_widgets -%}{%- endblock jupyter_widgets -%}
{%- block html_head_js_mathjax -%}{%- endblock html_head_js_mathjax -%}
{%- block html_head_js_mermaidjs -%}{%- endblock html_head_js_mermaidjs -%}
{%- block html_head_css -%}
<style>
body.jp-Notebook { max-width: 1080px; margin: 0 auto; padding: 16px 20px 64px; }
.clipgs-home { font: 14px/1.6 system-ui, sans-serif; }
math[display="block"] { margin: 0.8em 0; overflow-x: auto; }
</style>
{%- endblock html_head_css -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true" data-jp-theme-name="JupyterLab Light">
<nav class="clipgs-home"><a href="index.html">← All notebooks</a></nav>
<main>
{%- endblock body_header -%}
""".replace("__POLICY__", _POLICY)


def freeze_widgets(notebook: NotebookNode) -> NotebookNode:
    """Drop what only a live kernel can show: widget state, and widget views that have a picture or HTML beside them.

    A widget view without such a stand-in is kept in the notebook; `notebook_page` puts a sentence in its place.

    Args:
        notebook: changed in place and returned.
    """
    notebook.metadata.pop("widgets", None)
    for output in _outputs(notebook):
        data = output.get("data", {})
        if WIDGET in data and any(mime.startswith("image/") or mime == "text/html" for mime in data):
            del data[WIDGET]
    return notebook


def notebook_page(notebook: NotebookNode, title: str) -> str:
    """The HTML page of an executed notebook, self-contained.

    Args:
        notebook: executed; not changed.
        title: for the browser's tab.
    """
    copy = freeze_widgets(NotebookNode(json.loads(json.dumps(notebook), object_hook=NotebookNode)))
    copy.metadata["title"] = title
    figures = _take_figures(copy)
    for output in _outputs(copy):
        if WIDGET in output.get("data", {}):
            output["data"] = NotebookNode({"text/html": "<p><em>Live widget: run the notebook to use it.</em></p>"})
    page, _ = _Exporter(raw_template=_TEMPLATE).from_notebook_node(copy)
    head, end, tail = page.rpartition("</body>")
    return head + _figure_scripts(figures) + end + tail


class _Exporter(HTMLExporter):
    """nbconvert's HTML exporter with formulas as MathML."""

    def default_filters(self) -> Any:
        """nbconvert's filters, with the one for Markdown replaced."""
        yield from super().default_filters()
        yield "markdown2html", _markdown


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


def _markdown(source: str) -> str:
    return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


def _mathml(body: str, display: str) -> str:
    """A TeX formula as MathML; one that the converter does not know stays readable as code."""
    try:
        return latex2mathml.converter.convert(body.strip(), display=display)
    except Exception:  # its parser raises many kinds, none of them more than "not understood"
        return f"<code>{html.escape(body)}</code>"


def _take_figures(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Replace each plotly output by an empty element; return the elements' ids with the figures as JSON."""
    figures: list[tuple[str, str]] = []
    for output in _outputs(notebook):
        figure = output.get("data", {}).get(PLOTLY)
        if figure is None:
            continue
        name = f"clipgs-figure-{len(figures)}"
        figures.append((name, json.dumps(figure)))
        height = figure.get("layout", {}).get("height")
        pixels = height if isinstance(height, int | float) else 450  # plotly's own default
        element = f'<div id="{name}" style="height:{pixels:g}px"></div>'
        output["data"] = NotebookNode({"text/html": element})
    return figures


def _figure_scripts(figures: list[tuple[str, str]]) -> str:
    if not figures:
        return ""
    parts = [f"<script>{plotly_javascript()}</script>"]
    for name, figure in figures:
        safe = figure.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        parts.append(
            f"<script>(f => Plotly.newPlot({json.dumps(name)}, f.data || [], f.layout || {{}}, "
            f"Object.assign({{responsive: true}}, f.config || {{}})))({safe});</script>"
        )
    return "\n".join(parts)


def plotly_javascript() -> str:
    """The plotly.js that the installed plotly package carries (read as a file; plotly itself is not imported).

    Raises:
        FileNotFoundError: when plotly is not installed or carries no plotly.min.js.
    """
    spec = importlib.util.find_spec("plotly")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder, "package_data", "plotly.min.js")
        if path.is_file():
            return path.read_text(encoding="utf-8").replace("</script", "<\\/script")
    raise FileNotFoundError("plotly must be installed with its plotly.min.js; run: pip install plotly")


def _outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]
