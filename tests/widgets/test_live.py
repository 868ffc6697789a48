"""Viewers in an exported page: no kernel, no network, and they can be turned."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib import geometry
from clipgs_lib.runner.page import VIEW, notebook_page
from clipgs_lib.widgets import SplatView, live
from clipgs_lib.widgets.live import ASKED, MIME

from .browser import chromium


def page_of(*views: SplatView) -> str:
    outputs = [nbformat.v4.new_output("display_data", data=view._repr_mimebundle_()[0]) for view in views]
    cell = nbformat.v4.new_code_cell("view", execution_count=1, outputs=outputs)
    return notebook_page(nbformat.v4.new_notebook(cells=[cell]), "t")


def test_only_an_export_asks_for_the_data(splats_factory, monkeypatch):
    view = SplatView(splats_factory(80), width=160, height=120)
    monkeypatch.delenv(ASKED, raising=False)
    assert MIME == VIEW and MIME not in view._repr_mimebundle_()[0]
    assert "clipgsLive" not in page_of(view)
    monkeypatch.setenv(ASKED, "1")
    data, _ = view._repr_mimebundle_()
    assert set(data) >= {MIME, "image/png", "text/plain"} and json.loads(json.dumps(data[MIME])) == data[MIME]
    two = page_of(view, view)
    assert two.count("class SplatViewer") == 1 and 'id="clipgs-view-1"' in two
    assert "http://" not in data[MIME]["script"].replace("http://www.w3.org/2000/svg", "")


def test_a_large_splat_is_thinned_and_says_so(splats_factory):
    splats = splats_factory(30_000, 3)
    data = live.live_data(SplatView(splats, values=np.arange(30_000.0), max_gaussians=20_000))
    count = data["views"][0]["count"]
    assert count == live.WORDS // (12 + 24) and len(json.dumps(data)) < 800_000
    assert data["state"]["_info"]["views"][0]["note"] == f"{count:,} of 30,000 gaussians, some of every part · SH 3"
    assert data["sizes"] == [4 * (12 + 24 + 1) * count, count]


@pytest.mark.browser
def test_in_a_browser_black_splats_stay_visible_when_the_page_turns_dark(splats_factory, monkeypatch, tmp_path):
    monkeypatch.setenv(ASKED, "1")
    colored = splats_factory(60)
    black = replace(colored, sh0=torch.full_like(colored.sh0, -0.5 / geometry.SH_C0))
    path = tmp_path / "page.html"
    path.write_text(page_of(SplatView({"black": black, "colored": colored}, width=120, height=90)), encoding="utf-8")
    grounds = "[...document.querySelectorAll('.sv-surface')].map((s) => getComputedStyle(s).backgroundColor)"
    grey, white = "rgb(115, 115, 115)", "rgb(255, 255, 255)"
    with chromium() as browser:
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(120_000)
        page.goto(path.as_uri())
        page.wait_for_selector(".clipgs-sv[data-state=ready]")
        assert page.evaluate(grounds) == [white, white]
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"{grounds}[0] === {grey!r}")
        assert page.evaluate(grounds) == [grey, "rgb(17, 17, 17)"]
        page.emulate_media(color_scheme="light")
        page.wait_for_function(f"{grounds}[0] === {white!r}")


@pytest.mark.browser
def test_in_a_browser_the_page_can_be_turned(splats_factory, monkeypatch, tmp_path):
    monkeypatch.setenv(ASKED, "1")
    splats = splats_factory(400, 1)
    view = SplatView(splats, values=splats.means[:, 0], width=240, height=180, background=(1, 1, 1))
    path = tmp_path / "page.html"
    path.write_text(page_of(view), encoding="utf-8")
    expected = np.asarray(Image.open(io.BytesIO(view.still())).convert("RGB")) / 255
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.set_default_timeout(60_000)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())

        def picture() -> np.ndarray:
            page.wait_for_selector(".clipgs-sv[data-state=ready]")
            with page.expect_download() as download:
                page.get_by_role("button", name="Download the picture as PNG").click()
            return np.asarray(Image.open(download.value.path()).convert("RGB")) / 255

        first = picture()
        assert first.shape == expected.shape and np.abs(first - expected).mean() < 0.02
        assert page.locator("#clipgs-view-0 > img").count() == 0
        page.locator(".sv-surface").focus()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        assert np.abs(picture() - first).mean() > 0.02
        assert page.evaluate("document.documentElement.scrollWidth") <= 900
    assert said == []
