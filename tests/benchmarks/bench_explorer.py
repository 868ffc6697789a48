"""From a keystroke to the drawn grid of the explorer, in a real JupyterLab and Chromium, text tower included.

    python tests/benchmarks/bench_explorer.py [GALLERY] [--rounds 3]

Types the beginnings of everyday questions letter by letter, a letter when the hits of the one before are drawn, and
prints percentiles in ms; beside them, in the same run, what a search takes in Python alone. Without GALLERY it embeds
the embedded sample first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import clipgs_lib as cg
from clipgs_lib.gallery import Session
from clipgs_lib.gallery.embedding import embed_gallery
from clipgs_lib.triplets import sample_set

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the page harness lives with the tests
from tests.widgets.browser import chromium
from tests.widgets.jupyter import COMMAND, jupyterlab

CELL = """import clipgs_lib as cg
explorer = cg.RetrievalExplorer(cg.Gallery.open({folder!r}), cg.load_teacher("mini"))
explorer"""
WATCH = """() => {
  window.times = [];
  const field = document.querySelector(".re-text"), grid = document.querySelector(".re-columns");
  field.addEventListener("input", () => (window.began = performance.now()), true);
  const drawn = () => requestAnimationFrame(() => setTimeout(() => {
    if (window.began) window.times.push(performance.now() - window.began);
    window.began = 0;
  }));
  new MutationObserver(drawn).observe(grid, { childList: true });
}"""
QUESTIONS = ("a red car", "something to sit on", "a striped mug", "food", "a tall tree", "a wooden boat")


def told(name: str, times: list[float]) -> None:
    cuts = statistics.quantiles(times, n=20)
    print(f"{name}: p50 {cuts[9]:.0f} ms, p95 {cuts[18]:.0f} ms of {len(times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("gallery", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gallery = given.gallery
        if gallery is None:
            gallery = Path(folder) / "gallery"
            embed_gallery(sample_set().folder, gallery)
        measure(gallery.resolve(), Path(folder), given.rounds)


def measure(gallery: Path, folder: Path, rounds: int) -> None:
    with jupyterlab(folder) as lab, chromium() as browser:
        lab.write("bench.ipynb", CELL.format(folder=str(gallery)))
        page = lab.open(browser, "bench.ipynb", viewport={"width": 1280, "height": 1000})
        page.evaluate(COMMAND, ["notebook:run-all-cells"])
        page.wait_for_selector(".clipgs-re[data-state=ready]")
        field = page.locator(".re-text").first
        field.fill("warm up")
        page.wait_for_selector(".re-hit")
        page.evaluate(WATCH)
        for round_ in range(rounds):
            for question in QUESTIONS:
                field.fill(question[:4])  # shorter ones say nothing, and change nothing
                page.wait_for_timeout(1000)
                for letter in f"{question[4:]} {round_}":
                    page.evaluate("window.before = window.times.length")
                    field.press_sequentially(letter)
                    page.wait_for_function("window.times.length > window.before", timeout=20_000)
        times = page.evaluate("times")
    told(f"keystroke to drawn grid, {len(cg.Gallery.open(gallery)):,} objects", times)
    session, alone = Session(cg.Gallery.open(gallery), cg.load_teacher("mini")), []
    session.search("warm up")
    for question in QUESTIONS:
        for number in range(len(question)):
            began = time.perf_counter()
            session.search(f"{question} {number}")
            alone.append(1000 * (time.perf_counter() - began))
    told("a search in Python alone", alone)


if __name__ == "__main__":
    main()
