"""A real Chromium page around a `SplatView`, with the notebook's part played by a small stand-in model.

The page runs exactly the script, style and packed bytes that Python hands to a notebook. Messages of the page wait in
an outbox until `WidgetPage.pump` carries them to the widget and the answers back, so tests are deterministic.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipgs_lib.widgets import SplatView

from ..conftest import CHROMIUM

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ADDRESS = "http://splats.test/"
_HTML = """<!doctype html><meta charset="utf-8"><title>viewer</title>
<style>body { margin: 0; STYLE }</style><div id="cell" style="width: CELLpx"></div>"""
_MODEL = """
class StandInModel {
  constructor(state) { this.state = state; this.handlers = []; this.changed = {}; this.outbox = []; }
  get(name) { return this.state[name]; }
  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = value;
    this.changed[name] = value;
    this.emit(`change:${name}`);
  }
  save_changes() {
    if (Object.keys(this.changed).length) this.outbox.push({ state: this.changed });
    this.changed = {};
  }
  send(content, callbacks, buffers) {
    const bytes = (buffers ?? []).map((view) => {
      let text = "";
      for (let i = 0; i < view.byteLength; i++) text += String.fromCharCode(view.getUint8(i));
      return btoa(text);
    });
    this.outbox.push({ content, buffers: bytes });
  }
  on(event, handler) { this.handlers.push([event, handler]); }
  off(event, handler) { this.handlers = this.handlers.filter(([e, h]) => e !== event || h !== handler); }
  emit(event, ...values) { for (const [e, h] of this.handlers.slice()) if (e === event) h(...values); }
}
window.mount = async (state, poster) => {
  const bytes = await (await fetch("/poster")).arrayBuffer();
  window.model = new StandInModel({ ...state, poster: new DataView(bytes) });
  const module = await import("/widget.js");
  const widget = await module.default();
  await widget.initialize({ model });
  window.cell = document.getElementById("cell");
  window.errors = [];
  window.addEventListener("error", (event) => errors.push(String(event.message)));
  window.close_view = await widget.render({ model, el: cell });
  const root = cell.querySelector("[data-state]");
  new MutationObserver(() => {
    if (root.dataset.state !== "ready" || window.ready_at) return;
    const gl = cell.querySelector(".sv-canvas")?.getContext("webgl2");
    gl?.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits until it is drawn
    window.ready_at = performance.now();
  }).observe(root, { attributes: true, attributeFilter: ["data-state"] });
};
window.deliver = async (content, count) => {
  const buffers = [];
  for (let i = 0; i < count; i++) {
    const bytes = await (await fetch(`/buffer/${i}?${Math.random()}`)).arrayBuffer();
    buffers.push(new DataView(bytes));
  }
  window.delivered = performance.now();
  model.emit("msg:custom", content, buffers);
};
window.from_python = (state) => {
  for (const [name, value] of Object.entries(state)) { model.state[name] = value; model.emit(`change:${name}`); }
};
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A running headless Chromium with software WebGL2."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class WidgetPage:
    """One page with one view; `close` it, or use it as a context.

    Args:
        browser: from `chromium`.
        view: the widget.
        cell: width of the notebook cell, CSS pixels.
        style: CSS of the page's body, such as JupyterLab's theme variables.
        ratio: device pixels per CSS pixel.
        poster: whether the page gets the still picture, as in a notebook.
        load: let the page get its data and wait for the first picture.
    """

    def __init__(
        self,
        browser: Any,
        view: SplatView,
        *,
        cell: int = 1000,
        style: str = "",
        ratio: float = 1.0,
        poster: bool = False,
        load: bool = True,
    ) -> None:
        self.view = view
        self.buffers: list[Any] = []
        self.queue: list[tuple[dict[str, Any], list[Any] | None]] = []
        self.poster = view.still() if poster else b""
        self.html = _HTML.replace("CELL", str(cell)).replace("STYLE", style)
        self.context = browser.new_context(viewport={"width": cell, "height": 900}, device_scale_factor=ratio)
        self.page = self.context.new_page()
        self.log: list[str] = []
        self.page.on("console", lambda message: self.log.append(message.text))
        self.page.on("pageerror", lambda error: self.log.append(f"page error: {error}"))
        self.page.route("**/*", self._serve)
        view.send = lambda content, buffers=None: self.queue.append((content, buffers or []))
        self._applied: dict[str, Any] = {}
        view.observe(self._changed)
        self.page.goto(ADDRESS)
        self.page.add_style_tag(content=view._css)
        self.page.add_script_tag(content=_MODEL)
        state = {name: getattr(view, name) for name in view.keys if not name.startswith("_") or name in _PRIVATE}
        self.page.evaluate("state => mount(state)", {k: v for k, v in state.items() if _plain(v)})
        if load:
            self.settle()

    def _serve(self, route: Any) -> None:
        path = route.request.url.removeprefix(ADDRESS).split("?")[0]
        if path == "":
            route.fulfill(body=self.html, content_type="text/html")
        elif path == "widget.js":
            route.fulfill(body=self.view._esm, content_type="text/javascript")
        elif path == "poster":
            route.fulfill(body=self.poster, content_type="image/png")
        elif path.startswith("buffer/"):
            route.fulfill(body=bytes(self.buffers[int(path[7:])]), content_type="application/octet-stream")
        else:
            route.abort()

    def _changed(self, change: Any) -> None:
        name, new = change["name"], change["new"]
        echo = name in self._applied and self._applied[name] == new  # anything else is sent, as ipywidgets do
        if not echo and name in self.view.keys and _plain(new):
            self.queue.append(({name: new}, None))

    def pump(self) -> int:
        """Carry waiting messages both ways; returns how many there were."""
        sent = self.page.evaluate("() => { const box = model.outbox; model.outbox = []; return box; }")
        for message in sent:
            if "state" in message:
                self._applied = message["state"]
                self.view.set_state(message["state"])
                self._applied = {}
            else:
                carried = [memoryview(base64.b64decode(text)) for text in message["buffers"]]
                self.view._handle_custom_msg(message["content"], carried)
        queue, self.queue = self.queue, []
        for content, buffers in queue:
            if buffers is None:
                self.page.evaluate("state => from_python(state)", content)
            else:
                self.buffers = buffers
                self.page.evaluate("([content, count]) => deliver(content, count)", [content, len(buffers)])
        return len(sent) + len(queue)

    @property
    def state(self) -> str:
        return self.page.evaluate("() => document.querySelector('[data-state]').dataset.state")

    def settle(self, seconds: float = 30.0) -> None:
        """Pump until the picture is at rest and no message waits."""
        end = time.monotonic() + seconds
        quiet = 0
        while quiet < 3:
            busy = self.pump()
            quiet = quiet + 1 if busy == 0 and self.state == "ready" else 0
            if self.state == "failed":
                raise AssertionError(f"the view failed: {self.text('.sv-status')} {self.log}")
            if time.monotonic() > end:
                raise AssertionError(f"the page did not come to rest in {seconds} s: {self.state} {self.log}")
            self.page.wait_for_timeout(15 if busy else 50)

    def snapshot(self) -> np.ndarray:
        """The picture of all viewports that the PNG button saves: ``[H, W, 3]`` in 0..1."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Download the picture as PNG").click()
        return np.asarray(Image.open(download.value.path()).convert("RGB")) / 255.0

    def text(self, selector: str) -> str:
        return self.page.evaluate("s => document.querySelector(s).textContent", selector)

    def box(self, viewport: int = 0) -> dict[str, float]:
        """Place of a viewport on the page."""
        return self.page.locator(".sv-surface").nth(viewport).bounding_box()

    def shoot(self, path: Path | str) -> None:
        self.page.screenshot(path=str(path))

    def close(self) -> None:
        self.view.unobserve(self._changed)
        self.context.close()

    def __enter__(self) -> WidgetPage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_PRIVATE = ("_info", "_legend")


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | dict)
