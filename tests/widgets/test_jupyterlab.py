"""A notebook with a viewer in a real JupyterLab: run, saved, and opened again when its kernel is gone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from .browser import CHROMIUM, chromium

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """import torch, clipgs_lib as cg
count = 50
splats = cg.Splats.from_colors(
    torch.rand(count, 3), torch.rand(count, 3), quats=torch.ones(count, 4), scales=torch.full((count, 3), 0.1),
    opacities=torch.full((count,), 0.9))
cg.SplatView(splats, width=120, height=90)"""
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
COMMAND = "name => { window.jupyterapp.commands.execute(name); }"
MINUTES = 4  # for each step, on a busy machine


@pytest.fixture
def lab(tmp_path) -> Iterator[str]:
    """Address of a JupyterLab of its own settings over ``tmp_path / "books"``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{kind}_DIR": str(tmp_path / kind) for kind in ("SETTINGS", "WORKSPACES")}
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--IdentityProvider.token=", f"--port={port}"]
    options += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={tmp_path / 'books'}"]
    options += ["--ServerApp.disable_check_xsrf=True", "--LabApp.news_url="]
    (tmp_path / "books").mkdir()
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        environment = os.environ | places | {"PYTHONPATH": str(ROOT)}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


def ask(address: str, method: str = "GET") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=60) as answer:
        return answer.read()


@pytest.mark.browser
def test_a_notebook_opened_without_its_kernel_shows_the_still(lab, tmp_path):
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; install Debian's chromium")
    pytest.importorskip("playwright", reason="playwright drives the browser")
    path = tmp_path / "books" / "view.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    end = time.monotonic() + 60 * MINUTES
    while True:
        try:
            ask(f"{lab}/api")
            break
        except OSError:
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.5)
    with chromium() as browser:

        def opened():
            page = browser.new_page()
            page.set_default_timeout(60_000 * MINUTES)
            page.goto(f"{lab}/lab/tree/view.ipynb?reset")
            page.wait_for_function(IDLE)
            return page

        page = opened()
        page.evaluate(COMMAND, "notebook:run-all-cells")
        page.wait_for_selector(".clipgs-sv[data-state=ready]")
        page.evaluate(COMMAND, "docmanager:save")
        page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
        while not (saved := json.loads(path.read_text(encoding="utf-8")))["cells"][0]["outputs"]:
            assert time.monotonic() < end + 60 * MINUTES, "JupyterLab does not save the outputs"
            time.sleep(0.2)
        assert saved["cells"][0]["outputs"][0]["data"]["image/png"]
        page.close()
        page = opened()  # the kernel runs: its widget comes before what the notebook brings along
        page.wait_for_selector(".clipgs-sv[data-state=ready]")
        page.close()
        for session in json.loads(ask(f"{lab}/api/sessions")):
            ask(f"{lab}/api/sessions/{session['id']}", "DELETE")
        page = opened()
        page.wait_for_selector(".jp-OutputArea-output img.widget-image")
        assert page.evaluate("document.querySelector('.widget-image').naturalWidth") == 120
        assert "not found" not in page.evaluate("document.querySelector('.jp-OutputArea').innerText")
