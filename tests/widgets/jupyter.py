"""A JupyterLab of its own settings, and pages in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
COMMAND = "([name, options]) => { window.jupyterapp.commands.execute(name, options); }"
MINUTES = 4  # for each step, on a busy machine


class Lab:
    """A running JupyterLab over a folder."""

    def __init__(self, address: str, books: Path) -> None:
        self.address, self.books = address, books

    def ask(self, path: str, method: str = "GET") -> Any:
        """JSON of the server's answer; None where it is empty."""
        request = urllib.request.Request(f"{self.address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
        return json.loads(data) if data else None

    def write(self, name: str, *sources: str) -> Path:
        """A notebook with these code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.books / name)
        return self.books / name

    def open(self, browser: Any, name: str, **options: Any) -> Any:
        """A page with the notebook, its kernel idle."""
        page = browser.new_page(**options)
        page.set_default_timeout(60_000 * MINUTES)
        page.goto(f"{self.address}/lab/tree/{name}?reset")
        page.wait_for_function(IDLE)
        return page


@contextmanager
def jupyterlab(folder: Path) -> Iterator[Lab]:
    """A JupyterLab over ``folder / "books"``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{kind}_DIR": str(folder / kind) for kind in ("SETTINGS", "WORKSPACES")}
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--IdentityProvider.token=", f"--port={port}"]
    options += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder / 'books'}"]
    options += ["--ServerApp.disable_check_xsrf=True", "--LabApp.news_url="]
    (folder / "books").mkdir()
    news = folder / "SETTINGS" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # else a dialog lies over the pictures of the page
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        environment = os.environ | places | {"PYTHONPATH": str(ROOT)}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            lab, end = Lab(f"http://127.0.0.1:{port}", folder / "books"), time.monotonic() + 60 * MINUTES
            while True:
                try:
                    lab.ask("/api")
                    break
                except OSError:
                    assert time.monotonic() < end, (folder / "log").read_text()
                    time.sleep(0.5)
            yield lab
        finally:
            server.terminate()
            server.wait(60)
