"""The HTML page of an executed notebook: complete without a network, and asking none."""

from __future__ import annotations

import base64
import io
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from clipgs_lib.runner.page import PLOTLY, WIDGET, freeze_widgets, notebook_page, plotly_javascript

CHROMIUM = Path("/usr/bin/chromium")
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


class _Counter(BaseHTTPRequestHandler):
    hits: list[str]

    def do_GET(self):
        self.hits.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium")
def test_in_a_browser_figures_are_drawn_and_no_server_is_asked(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
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
        with sync_api.sync_playwright() as playwright:
            flags = ["--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
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
            browser.close()
    finally:
        server.shutdown()
        server.server_close()
    assert _Counter.hits == []
    assert [error for error in errors if "fetch" not in error.lower()] == []
