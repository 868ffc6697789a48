"""Time to the first picture, and pictures per second while orbiting, of `SplatView` in headless Chromium.

    python tests/benchmarks/bench_viewer.py [COUNT ...]

Chromium runs here without a GPU: WebGL2 is SwiftShader, on the same CPU cores that `cg.render` uses, so the ratio to
`cg.render` (the named peer, same picture, same machine, same run) is what carries over, not the times.
"First picture" is the time in the page from the bytes' arrival to the sharp, sorted picture: unpacking, compiling
the shaders, upload, sorting, drawing; "packing" is what Python takes to make the bytes. The transfer between them is
left out: the harness is much slower at it than a notebook's socket.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from clipgs_lib.rendering import render
from clipgs_lib.splats import Splats
from clipgs_lib.widgets import SplatView
from clipgs_lib.widgets.wire import pack

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the page harness lives with the tests
from tests.conftest import CHROMIUM
from tests.widgets.browser import WidgetPage, chromium

COUNTS = (10_000, 100_000, 200_000)
WIDTH, HEIGHT = 640, 480
# Turn by a constant step each frame until `seconds` have passed; reading a pixel back waits for the picture itself.
_ORBIT = """
async (seconds) => {
  const surface = document.querySelector(".sv-surface");
  const gl = document.querySelector(".sv-canvas").getContext("webgl2");
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
  const pixel = new Uint8Array(4);
  const start = performance.now();
  let frames = 0;
  while (performance.now() - start < 1000 * seconds) {
    surface.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
    await frame();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    frames++;
  }
  return (1000 * frames) / (performance.now() - start);
}
"""
# One still picture at full resolution, sorted already: the same work as one call of render.
_STILL = """
async (repeats) => {
  const gl = document.querySelector(".sv-canvas").getContext("webgl2");
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
  const pixel = new Uint8Array(4);
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    model.emit("change:sh_degree");
    await frame();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    times.push(performance.now() - start);
  }
  return times;
}
"""


def shell(count: int, degree: int = 3) -> Splats:
    """Flat gaussians on a wavy sphere that cover it about four times, whatever their number."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    radius = 1 + 0.1 * torch.sin(6 * directions).prod(dim=1, keepdim=True)
    size = 2.0 / count**0.5
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1)
    return Splats(
        means=radius * directions,
        quats=quats,
        scales=size * torch.tensor([1.0, 0.8, 0.2]).expand(count, 3).contiguous(),
        opacities=0.3 + 0.7 * torch.rand(count, generator=g),
        sh0=directions[:, None, :].contiguous(),
        shN=0.1 * torch.randn(count, (degree + 1) ** 2 - 1, 3, generator=g),
    )


def measure(browser: Any, count: int) -> dict[str, float]:
    splats = shell(count)
    view = SplatView(splats, width=WIDTH, height=HEIGHT, max_gaussians=max(count, 1))
    render(splats, *view.camera)  # numba compiles outside the timing
    drawn = []
    for _ in range(5):
        start = time.perf_counter()
        render(splats, *view.camera)
        drawn.append(time.perf_counter() - start)
    start = time.perf_counter()
    size = len(pack(view._shown[0]))
    packing = time.perf_counter() - start
    with WidgetPage(browser, view, load=False) as page:
        page.settle(120)
        first = page.page.evaluate("() => (ready_at - delivered) / 1000")
        still = statistics.median(page.page.evaluate(_STILL, 5)) / 1000
        pace = page.page.evaluate(_ORBIT, 6)
        page.settle(120)
    return {
        "render": statistics.median(drawn),
        "packing": packing,
        "bytes": size,
        "first": first,
        "still": still,
        "pace": pace,
    }


def main(counts: tuple[int, ...]) -> None:
    if not CHROMIUM.exists():
        raise SystemExit(f"no browser at {CHROMIUM}; install Debian's chromium")
    print(f"SplatView, headless Chromium, software GL (SwiftShader), {WIDTH} x {HEIGHT}, SH 3, {os.cpu_count()} cores")
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    head = ("gaussians", "bytes", "packing", "first picture", "still picture", "cg.render", "still / render", "orbit")
    print(" | ".join(f"{name:>14}" for name in head))
    with chromium() as browser:
        for count in counts:
            r = measure(browser, count)
            times = [
                f"{r['bytes'] / 1e6:.1f} MB",
                f"{1e3 * r['packing']:.0f} ms",
                f"{r['first']:.2f} s",
                f"{1e3 * r['still']:.0f} ms",
            ]
            ratios = [f"{1e3 * r['render']:.0f} ms", f"{r['still'] / r['render']:.1f} x", f"{r['pace']:.1f} fps"]
            print(" | ".join(f"{c:>14}" for c in [f"{count:,}", *times, *ratios]))


if __name__ == "__main__":
    main(tuple(int(argument) for argument in sys.argv[1:]) or COUNTS)
