"""Every figure in an exported page, in Chromium: it fits the page, hides no text and leaves the console silent."""

from __future__ import annotations

import json

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from clipgs_lib import geometry, plots
from clipgs_lib.runner.page import PLOTLY, notebook_page
from clipgs_lib.tokenizer import TokenizerConfig, attribute_channels, collate, patchify

from ..conftest import make_splats
from ..widgets.browser import chromium
from .test_labels import curves
from .test_learning import ablation

MEASURE = """() => [...document.querySelectorAll("[id^=clipgs-figure]")].map((figure) => {
  const room = figure.closest(".jp-OutputArea-output").getBoundingClientRect();
  const texts = [...figure.querySelectorAll(".main-svg text")].filter((t) => t.textContent.trim());
  const outside = (box, frame) => box.width > 0 && (box.left < frame.left - 1 || box.right > frame.right + 1 ||
    box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
  const drawn = figure.querySelector(".main-svg").getBoundingClientRect();
  return {
    over: drawn.right - room.right,
    cut: texts.filter((t) => outside(t.getBoundingClientRect(), drawn)).map((t) => t.textContent),
    words: texts.map((t) => t.textContent).join(" "),
  };
})"""
SETTLED = """() => [...document.querySelectorAll("[id^=clipgs-figure]")].every((figure) =>
  figure.layout.width || Math.abs(figure._fullLayout.width - figure.clientWidth) < 2)"""
WORDS = ["a light brown wooden keg", "a maroon paintbrush", "a beige paper windmill", "a red chest of drawers"]


def figures() -> dict[str, go.Figure]:
    """One of each kind, as wide as the notebooks need it."""
    splats = make_splats(800, 2, seed=1)
    batch = collate([splats])
    patches = patchify(batch, 48, 24)
    objects, random = torch.zeros(48, 1, dtype=torch.int64), np.random.default_rng(0)
    offsets = batch.means[objects, patches.indices[0]] - patches.centers[0][:, None]
    channels = attribute_channels(batch, objects, patches.indices[0], offsets, TokenizerConfig())
    points = splats.means[patches.indices[0, 3]]
    pictures = [random.random((64, 64, 3)) for _ in range(12)]
    steps = [{"step": k, "loss": 1 / (k + 1), "logit_scale": 14.25} for k in range(40)]
    cells = [
        {"start": start, "n": n, "iterations": k, "psnr": 20.0 + k, "psnr_worst": 15.0, "cpu_seconds": k, "objects": 4}
        for start in ("mesh", "points", "random") for n in (256, 512, 1024, 2048, 4096) for k in (0, 60, 600)
    ]  # fmt: skip
    cosines = {name: random.random((12, 12)) for name in ("step 0", "step 30", "shipped clipgs-mini")}
    return {
        "splat": plots.splat_figure(splats, ellipsoids=20),
        "patches": plots.patch_figure(splats, patches.indices, max_points=600),
        "coverage": plots.coverage_figure(points, {"farthest points": torch.arange(24)}),
        "tokens": plots.token_coverage_figure(patches.indices, 800),
        "orders": plots.order_figure(points, {name: order(points) for name, order in geometry.ORDERS.items()}),
        "channels": plots.channels_figure(channels),
        "attributes": plots.attribute_histograms(splats),
        "values": plots.value_histograms({f"quantity {k}, with its unit": random.random(99) for k in range(6)}),
        "row": plots.image_row(pictures[:6], [f"{WORDS[k % 4]}: 2{k}.7 dB" for k in range(6)], title="A row"),
        "many": plots.image_row(pictures, [WORDS[k % 4] for k in range(12)], title="More than a row holds"),
        "difference": plots.difference_figure(*pictures[:2], names=("knot.ply", "knot.splat")),
        "similarity": plots.similarity_figure(cosines, (3 * WORDS), (3 * WORDS), title="Splats against their texts"),
        "few": plots.similarity_figure({"": random.random((4, 4))}, WORDS, WORDS),
        "curves": plots.curves_figure({"one": steps, "two": steps}, {"loss": "loss", "logit_scale": "logit scale"}),
        "ablation": plots.ablation_figure(ablation(WORDS), "test", "text_r1", title="What each step brings"),
        "labels": plots.labels_figure({name: curves() for name in ("food", "buildings", "things to sit on", "lamps")}),
        "trade-off": plots.fitting_tradeoff(cells),
    }  # fmt: skip


@pytest.mark.browser
def test_every_figure_fits_the_page_with_all_its_words(tmp_path, shots):
    made = figures()
    outputs = [nbformat.v4.new_output("display_data", {PLOTLY: json.loads(f.to_json())}) for f in made.values()]
    cell = nbformat.v4.new_code_cell("figures()", execution_count=1, outputs=outputs)
    path = tmp_path / "figures.html"
    path.write_text(notebook_page(nbformat.v4.new_notebook(cells=[cell]), "figures"), encoding="utf-8")
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 1006, "height": 900})
        opened.set_default_timeout(180_000)  # a software renderer draws the 3D scenes
        said: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto(path.as_uri())
        opened.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {2 * len(made)}")
        for width in (1006, 900):
            opened.set_viewport_size({"width": width, "height": 900})
            opened.wait_for_function(SETTLED)
            opened.wait_for_timeout(500)
            seen = dict(zip(made, opened.evaluate(MEASURE), strict=True))
            opened.screenshot(path=shots / f"figures-{width}.png", full_page=True)
            assert {name: one["over"] for name, one in seen.items() if one["over"] > 0} == {}, width
            assert {name: one["cut"] for name, one in seen.items() if one["cut"]} == {}, width
    assert said == []
    words = {name: one["words"] for name, one in seen.items()}
    assert "ring: its nearest text" in words["similarity"] and "bold: its nearest text" in words["few"]
    assert "dots: single runs" in words["ablation"] and "error, 1 = full range" in words["difference"]


def test_captions_stand_below_their_pictures():
    figure = plots.image_row([np.zeros((8, 8))] * 3, ["one", "two", "three"], title="t")
    notes = figure.layout.annotations
    assert [(note.text, note.y, note.yanchor) for note in notes] == [(w, 0, "top") for w in ("one", "two", "three")]
    assert [note.xref for note in notes] == ["x domain", "x2 domain", "x3 domain"]
