"""A notebook with a viewer in a real JupyterLab: run, saved, and opened again when its kernel is gone."""

from __future__ import annotations

import json
import time

import pytest

from .browser import chromium
from .jupyter import COMMAND, MINUTES, jupyterlab

SOURCE = """import torch, clipgs_lib as cg
count = 50
splats = cg.Splats.from_colors(
    torch.rand(count, 3), torch.rand(count, 3), quats=torch.ones(count, 4), scales=torch.full((count, 3), 0.1),
    opacities=torch.full((count,), 0.9))
cg.SplatView(splats, width=120, height=90)"""


@pytest.mark.browser
def test_a_notebook_opened_without_its_kernel_shows_the_still(tmp_path):
    with jupyterlab(tmp_path) as lab, chromium() as browser:
        path, end = lab.write("view.ipynb", SOURCE), time.monotonic() + 120 * MINUTES
        page = lab.open(browser, "view.ipynb")
        page.evaluate(COMMAND, ["notebook:run-all-cells"])
        page.wait_for_selector(".clipgs-sv[data-state=ready]")
        page.evaluate(COMMAND, ["docmanager:save"])
        page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
        while not (saved := json.loads(path.read_text(encoding="utf-8")))["cells"][0]["outputs"]:
            assert time.monotonic() < end, "JupyterLab does not save the outputs"
            time.sleep(0.2)
        assert saved["cells"][0]["outputs"][0]["data"]["image/png"]
        page.close()
        page = lab.open(browser, "view.ipynb")  # the kernel runs: its widget comes before the notebook's still
        page.wait_for_selector(".clipgs-sv[data-state=ready]")
        page.close()
        for session in lab.ask("/api/sessions"):
            lab.ask(f"/api/sessions/{session['id']}", "DELETE")
        page = lab.open(browser, "view.ipynb")
        page.wait_for_selector(".jp-OutputArea-output img.widget-image")
        assert page.evaluate("document.querySelector('.widget-image').naturalWidth") == 120
        assert "not found" not in page.evaluate("document.querySelector('.jp-OutputArea').innerText")
