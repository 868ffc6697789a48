"""`PatchPicker` without a browser, and one click in a real Chromium."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.tokenizer import Patches, collate, patchify
from clipgs_lib.widgets import PatchPicker, SplatView
from clipgs_lib.widgets.colormap import LUMA, NOT_A_NUMBER, red_colormap
from clipgs_lib.widgets.patch_picker import HINT

from .browser import WidgetPage, chromium


def picker_of(splats, groups: int = 12, size: int = 16, **view) -> tuple[PatchPicker, Patches]:
    patches = patchify(collate([splats]), groups, size)
    return PatchPicker(splats, patches, **view), patches


def test_pick_tells_the_patch_and_colours_it(splats_factory):
    splats = splats_factory(300, seed=2)
    picker, patches = picker_of(splats)
    for token in (0, 5, 11):
        center = int(patches.indices[0, token, 0])
        found = picker.pick(center)
        assert (found["token"], found["inside"], found["center_gaussian"]) == (token, True, center)
        assert found["distance"] == 0 and found["size"] == 16
        assert np.allclose(found["center"], splats.means[center].numpy(), atol=1e-7)
        members = patches.indices[0, token]
        apart = (splats.means[members] - splats.means[center]).norm(dim=1)
        assert found["radius"] == pytest.approx(float(apart.max()), rel=1e-5)
        colored = picker.view._indices[0] != NOT_A_NUMBER
        assert set(np.flatnonzero(colored)) == set(members.tolist())
        assert picker.view._legend["label"] == f"distance to the centre of token {token}"
        assert picker.view._indices[0][center] == 0 == picker.view._indices[0].min()  # the darkest
        assert picker.view._legend["colormap"] == red_colormap().ravel().tolist()
        assert picker.view.selected == [0, center] and picker.view.color_mode == "value"
        assert json.loads(json.dumps(found)) == found == picker.picked


def test_of_several_patches_the_nearest_centre_wins_and_all_are_named(splats_factory):
    splats = splats_factory(120)
    picker, patches = picker_of(splats, 12, 30)
    shared = [g for g in range(120) if (patches.indices[0] == g).any(dim=1).sum() > 1]
    assert shared
    for gaussian in shared:
        found = picker.pick(gaussian)
        holds = (patches.indices[0] == gaussian).any(dim=1).nonzero()[:, 0]
        assert found["tokens"] == holds.tolist() and found["token"] in found["tokens"]
        apart = (splats.means[patches.indices[0, holds, 0]] - splats.means[gaussian]).norm(dim=1)
        assert found["distance"] == pytest.approx(float(apart.min()), rel=1e-5)
        assert "also in" in picker._text.value


def test_a_gaussian_in_no_patch_gets_the_nearest(splats_factory):
    splats = splats_factory(300)
    picker, patches = picker_of(splats, 4, 8)
    loose = next(g for g in range(300) if not (patches.indices == g).any())
    found = picker.pick(loose)
    centers = splats.means[patches.indices[0, :, 0]]
    assert not found["inside"] and found["tokens"] == []
    assert found["token"] == int((centers - splats.means[loose]).norm(dim=1).argmin())
    assert found["distance"] > found["radius"] and "is in no patch" in picker._text.value


def test_a_click_picks_and_escape_clears(splats_factory):
    picker, _ = picker_of(splats_factory(200))
    picker.view.selected = [0, 17]
    assert picker.picked["gaussian"] == 17 and "gaussian 17 is in" in picker._text.value
    picker.view.selected = None
    assert picker.picked is None and picker.view.color_mode == "color" and picker._text.value == HINT
    picker.pick(3)
    picker.clear()
    assert picker.view.selected is None and picker.view._indices is None


def test_rows_are_those_of_the_splats_as_passed(splats_factory):
    splats = splats_factory(100)
    means = splats.means.clone()
    means[:5] = torch.nan
    splats = replace(splats, means=means)
    with pytest.warns(UserWarning, match="left out 5"):
        picker, patches = picker_of(splats, 6, 10)
    center = int(patches.indices[0, 2, 0])
    assert center >= 5 and picker.pick(center)["token"] == 2
    with pytest.raises(ValueError, match="gaussian 3 must have a finite position"):
        picker.pick(3)
    assert picker.picked["token"] == 2  # what was picked stays


def test_a_splat_smaller_than_the_patches_shows_each_patch_once(splats_factory):
    picker, _ = picker_of(splats_factory(5), 8, 16)
    assert {picker.pick(g)["token"] for g in range(5)} <= set(range(5)) and picker.picked["size"] == 5


@pytest.mark.parametrize("index", [-1, 300])
def test_there_is_no_such_gaussian(splats_factory, index):
    picker, _ = picker_of(splats_factory(300))
    with pytest.raises(IndexError, match=rf"0\.\.299, the gaussians there are, got {index}"):
        picker.pick(index)
    assert picker.picked is None


def test_patches_of_another_splat_are_refused(splats_factory):
    patches = patchify(collate([splats_factory(300)]), 4, 8)
    with pytest.raises(ValueError, match="of another splat"):
        PatchPicker(splats_factory(20), patches)
    two = patchify(collate([splats_factory(30), splats_factory(30)]), 4, 8)
    with pytest.raises(ValueError, match="of one splat"):
        PatchPicker(splats_factory(30), two)


def test_a_saved_notebook_holds_the_picture_of_the_patch(splats_factory):
    picker, _ = picker_of(splats_factory(200), width=160, height=120)
    plain = picker._repr_mimebundle_()[0]["image/png"]
    picker.pick(10)
    data, _ = picker._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and "gaussian 10 is in token" in data["text/plain"]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB"))
    assert picture.shape == (120, 160, 3) and data["image/png"] != plain


def test_the_whole_has_its_own_colours_and_beside_a_patch_they_fade(splats_factory):
    splats = splats_factory(400, seed=3)
    splats = replace(splats, opacities=torch.ones(400))
    picker, _ = picker_of(splats, 10, 12, width=320, height=240)
    own = pixels_of(picker.still())
    assert np.array_equal(own, pixels_of(SplatView(splats, width=320, height=240).still()))
    picker.pick(7)
    seen = pixels_of(picker.still())
    drawn, chroma = own.min(axis=2) < 0.95, np.ptp(seen, axis=2)
    rest = drawn & (chroma < 0.1)
    assert 0.002 < (chroma > 0.25).mean() < 0.3 and rest.sum() > 0.5 * drawn.sum()
    assert np.corrcoef((own @ LUMA)[rest], (seen @ LUMA)[rest])[0, 1] > 0.9  # the form is still there


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) / 255


@pytest.mark.browser
def test_a_click_in_chromium_picks_the_patch_under_it(splats_factory):
    splats = splats_factory(150, seed=4)
    splats = replace(splats, opacities=torch.full((150,), 0.95))
    picker, _ = picker_of(splats, 10, 12, width=240, height=180, background=(1, 1, 1))
    with chromium() as browser, WidgetPage(browser, picker.view) as page:
        before = page.snapshot()
        box = page.box()
        page.page.mouse.click(box["x"] + 120, box["y"] + 90)
        page.settle()
        assert picker.picked is not None and picker.view.selected == [0, picker.picked["gaussian"]]
        assert picker.picked["token"] in range(10)
        assert np.abs(page.snapshot() - before).mean() > 0.02  # faded but for the patch
        assert page.text(".sv-name") == f"distance to the centre of token {picker.picked['token']}"
        page.page.locator(".sv-surface").first.focus()
        page.page.keyboard.press("Escape")
        page.settle()
        assert picker.picked is None and np.allclose(page.snapshot(), before, atol=0.01)
        assert not page.log
