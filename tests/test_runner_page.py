"""The HTML page of an executed notebook: complete without a network, and asking none."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import nbformat
import plotly.graph_objects as go
import pytest
from PIL import Image

from clipgs_lib.plots.style import titled
from clipgs_lib.runner.page import PLOTLY, WIDGET, freeze_widgets, notebook_page, plotly_javascript

from .widgets.browser import chromium

FIGURE = {"data": [{"type": "scatter", "x": [1, 2], "y": [3, 4], "name": "</script><b>"}], "layout": {"height": 300}}
LOADS = re.compile(r"<(?:script|img|iframe|link|source|video)\b[^>]*?\b(?:src|href)=[\"']?(?!data:)([^\"'\s>]+)")


def png() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 80, 20)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def executed(*outputs: dict, markdown: str = "# Title") -> nbformat.NotebookNode:
    """A notebook with one code cell that shows the given mime bundles."""
    made = [nbformat.v4.new_output("display_data", data=data) for data in outputs]
    notebook = nbformat.v4.new_notebook(
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}
    )
    cell = nbformat.v4.new_code_cell("show()", execution_count=1, outputs=made)
    notebook.cells = [nbformat.v4.new_markdown_cell(markdown), cell]
    return notebook


def test_nothing_is_loaded_from_elsewhere():
    page = notebook_page(
        executed({PLOTLY: FIGURE, "text/html": "<script src='https://cdn.plot.ly/x.js'></script>"}), "t"
    )
    assert page.count("Plotly.newPlot(") >= 1 and "</script><b>" not in page
    ours = page.replace(plotly_javascript(), "")
    assert LOADS.findall(ours) == []
    assert "Content-Security-Policy" in ours
    assert [word for word in ("cdn.", "cdnjs", "unpkg", "jsdelivr") if word in ours] == []


def test_plotly_is_embedded_once_and_only_when_needed():
    script = plotly_javascript()
    assert len(script) > 1e6
    two = notebook_page(executed({PLOTLY: FIGURE}, {PLOTLY: FIGURE}), "t")
    assert two.count(script) == 1 and 'id="clipgs-figure-1"' in two
    assert len(notebook_page(executed({"text/plain": "x"}), "t")) < 600_000


def test_widgets_leave_their_picture():
    both = executed({WIDGET: {"model_id": "a"}, "image/png": png(), "text/plain": "SplatView()"})
    page = notebook_page(both, "t")
    assert f"data:image/png;base64,{png()}" in page and "model_id" not in page
    assert WIDGET in both.cells[1].outputs[0].data, "the given notebook is not changed"
    frozen = freeze_widgets(both)
    assert "widgets" not in frozen.metadata and WIDGET not in frozen.cells[1].outputs[0].data
    alone = executed({WIDGET: {"model_id": "a"}, "text/plain": "IntSlider()"})
    assert "Live widget: run the notebook" in notebook_page(alone, "t")
    assert WIDGET in freeze_widgets(alone).cells[1].outputs[0].data


def test_formulas_become_mathml():
    page = notebook_page(executed(markdown="# T\n\n$a_1 < b_2 * c$ costs 5 dollars\n\n$$\\frac{1}{2}$$"), "t")
    assert page.count("<math") == 2 and "<mfrac>" in page and "<em>" not in page


def test_titles_are_escaped():
    assert "<title>a &lt;b&gt; &amp; c</title>" in notebook_page(executed(), "a <b> & c")


CONTRAST = """() => {  // of every text with what lies behind it, the least: [ratio, text]
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0.5) return light(color);
    }
    return 1;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), seen = [];
  while (texts.nextNode()) {
    const { parentElement: element, data } = texts.currentNode, style = getComputedStyle(element), word = data.trim();
    if (!word || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.getBoundingClientRect().width) continue;
    const of = light(numbers(element.closest("svg") ? style.fill : style.color)), on = behind(element);
    seen.push([(Math.max(of, on) + 0.05) / (Math.min(of, on) + 0.05), word]);
  }
  return seen.sort((a, b) => a[0] - b[0])[0].concat(seen.map(([, word]) => word).join(" "), behind(document.body));
}"""


@pytest.mark.browser
def test_in_a_browser_a_dark_system_gets_a_dark_page_and_all_words_can_be_read(tmp_path, shots):
    table = "<table><thead><tr><th>head</th></tr></thead><tbody><tr><td>entry</td></tr></tbody></table>"
    figure = titled(go.Figure(go.Scatter(x=[1, 2], y=[3, 4])), "A curve", "below it").update_xaxes(title="steps")
    figure.add_hline(3.5)
    outputs = [
        {PLOTLY: json.loads(figure.to_json())},
        {"text/html": table},
        {"image/png": png()},
        {"text/plain": "said"},
    ]
    notebook = executed(*outputs, markdown="# Heading\n\nText, `code`, $x^2$ and a [link](#a).\n\n> quoted")
    notebook.cells[1].source = 'def f(x):  # a comment\n    return "text" + str(x > 1.5)' + " + str(x)" * 30
    path = tmp_path / "page.html"
    path.write_text(notebook_page(notebook, "t"), encoding="utf-8")
    with chromium() as browser:
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            page.set_default_timeout(120_000)
            page.goto(path.as_uri())
            page.wait_for_selector(".main-svg .xtitle")
            least, where, words, ground = page.evaluate(CONTRAST)
            assert least >= 3, (scheme, least, where)
            assert all(word in words for word in ("Heading", "code", "entry", "comment", "steps", "below it", "said"))
            assert ground < 0.03 if scheme == "dark" else ground > 0.9
            assert page.evaluate("[...document.querySelectorAll('pre')].every((e) => e.scrollWidth <= e.clientWidth)")
            line = "getComputedStyle(document.querySelector('.shapelayer path')).stroke"
            assert page.evaluate(line) == "rgb(122, 128, 138)", "not plotly's black"
            white = "getComputedStyle(document.querySelector('.jp-RenderedImage img')).backgroundColor"
            assert page.evaluate(white) == "rgb(255, 255, 255)"
            page.screenshot(path=shots / f"notebook-{scheme}.png")


class _Counter(BaseHTTPRequestHandler):
    hits: list[str]

    def do_GET(self):
        self.hits.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.browser
def test_in_a_browser_figures_are_drawn_and_no_server_is_asked(tmp_path):
    _Counter.hits = []
    server = HTTPServer(("127.0.0.1", 0), _Counter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = f"http://127.0.0.1:{server.server_port}"
    nosy = (
        f"<img src='{there}/img'><script src='{there}/script'></script><iframe src='{there}/frame'></iframe>"
        f"<link rel='stylesheet' href='{there}/css'><style>p {{ background: url({there}/url) }}</style><p>x</p>"
        f"<script>fetch('{there}/fetch'); new Image().src = '{there}/image'; window.ran = true;</script>"
    )
    figures = [{PLOTLY: FIGURE}, {PLOTLY: {"data": [{"type": "scattergl", "x": [1], "y": [2]}]}}, {"text/html": nosy}]
    path = tmp_path / "page with space.html"
    path.write_text(notebook_page(executed(*figures, {"image/png": png()}, markdown=f"# T\n\n![x]({there}/md)"), "t"))
    try:
        with chromium() as browser:
            page = browser.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(path.as_uri())
            page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 4")
            page.wait_for_timeout(300)
            assert page.evaluate("window.ran") is True, "inline scripts run"
            assert page.evaluate("document.querySelector('#clipgs-figure-0').offsetHeight") == 300
            assert page.evaluate("document.querySelector('#clipgs-figure-1').offsetHeight") == 450
            assert page.locator(".legendtext, .trace").count() >= 1
            assert page.evaluate("[...document.images].some(i => i.naturalWidth === 8)")
    finally:
        server.shutdown()
        server.server_close()
    assert _Counter.hits == []
    assert [error for error in errors if "fetch" not in error.lower()] == []
