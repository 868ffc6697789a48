"""`TwinEditor` without a browser, and in a real JupyterLab."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from clipgs_lib.applications.scene_twin import compose, crop, load_pool, make_twin
from clipgs_lib.applications.scene_twin.composer import catalogue_assets
from clipgs_lib.widgets import SplatView, TwinEditor
from clipgs_lib.widgets.still import MAX_BYTES

from .browser import chromium
from .jupyter import COMMAND, ROOT, jupyterlab


@pytest.fixture(scope="module")
def pool():
    return load_pool(["data/triplets/sample"], encoder="bag-mean")


@pytest.fixture(scope="module")
def twin(pool):
    scene = compose(4, catalogue_assets(), width=240, height=180)
    return make_twin(replace(scene, objects=scene.objects[:2]), pool)


@pytest.fixture
def editor(twin, pool):
    return TwinEditor(twin, pool)


def test_buttons_swap_and_move_the_object_that_is_chosen(editor, twin):
    second = twin.scene.objects[1].number
    editor._object.value = second
    shown = np.array(Image.open(io.BytesIO(editor._crop.value)).convert("RGB"), float)
    assert np.abs(shown - crop(twin.scene, twin.scene.objects[1])).mean() < 3  # 256 colours
    candidates = [match.key for match in twin.matches[second]]
    assert [key for _, key in editor._shape.options] == candidates and editor._shape.value == twin.chosen[second]
    before, fields = editor.view, editor._row.children[0].children
    editor._shape.value = candidates[2]
    fields[3].click()
    assert editor.twin.chosen == {**twin.chosen, second: candidates[2]}
    assert isinstance(editor.view, SplatView) and editor.view is not before and editor._row.children[1] is editor.view
    x, _, z = editor.twin.poses[second].position
    for field, value in zip(editor._steps, (0.5, -0.25, 90.0), strict=True):
        field.value = value
    yaw = editor.twin.poses[second].yaw
    fields[-1].click()
    pose = editor.twin.poses[second]
    assert pose.position[0] == pytest.approx(x + 0.5, abs=0.3) and pose.position[2] == pytest.approx(z - 0.25, abs=0.3)
    assert pose.yaw == pytest.approx(yaw + 90)


def test_what_cannot_be_becomes_a_sentence(editor):
    editor._try(editor.swap, 99, "nothing")
    assert "objects to change must be among 1, 2, got 99" in editor._text.value
    with pytest.raises(ValueError, match="must be one of the pool's 248"):
        editor.swap(1, "nothing")


def test_a_saved_notebook_holds_the_picture_and_the_twin(editor):
    data, _ = editor._repr_mimebundle_()
    png = base64.b64decode(data["image/png"])
    assert len(png) <= MAX_BYTES and Image.open(io.BytesIO(png)).width > 600
    assert data["text/plain"].startswith("TwinEditor('scene-0004'") and "text/html" not in data


MAKE = """from dataclasses import replace
from clipgs_lib.applications.scene_twin import compose, load_pool, make_twin, placement
from clipgs_lib.applications.scene_twin.composer import catalogue_assets
from clipgs_lib.widgets import TwinEditor
placement.YAWS, placement.STARTS, placement.STEPS = 8, 1, 2
pool = load_pool(["SAMPLE"], encoder="bag-mean")
scene = compose(4, catalogue_assets(), width=240, height=180)
editor = TwinEditor(make_twin(replace(scene, objects=scene.objects[:2]), pool), pool)"""


@pytest.mark.browser
def test_a_person_changes_a_twin_in_jupyterlab(tmp_path, shots):
    with jupyterlab(tmp_path) as lab, chromium() as browser:
        lab.write("twin.ipynb", MAKE.replace("SAMPLE", str(ROOT / "data/triplets/sample")), "editor")
        page = lab.open(browser, "twin.ipynb", viewport={"width": 1280, "height": 1000})
        log: list[str] = []
        page.on("pageerror", lambda error: log.append(str(error)))
        page.evaluate(COMMAND, ["notebook:run-all-cells"])

        def drawn(name):
            page.wait_for_selector(".clipgs-sv[data-state=ready]")
            page.wait_for_timeout(500)
            page.screenshot(path=shots / f"twin-{name}.png")
            return np.asarray(Image.open(io.BytesIO(page.locator(".sv-surface").screenshot())).convert("RGB"), float)

        def press(name):
            former = page.query_selector(".clipgs-sv")
            page.get_by_role("button", name=name, exact=True).click()
            page.wait_for_function("former => !former.isConnected", arg=former)

        fields, choices = page.locator(".widget-text input"), page.locator(".widget-dropdown select")
        first = drawn("first")
        assert (first.std(axis=2) > 8).mean() > 0.01, "the twin is drawn, in its colours"
        choice, view = (page.locator(one).first.bounding_box() for one in (".widget-dropdown", ".clipgs-sv"))
        assert choice["width"] > 250 and choice["x"] + choice["width"] <= view["x"], "fields are whole beside the view"
        assert choices.nth(1).evaluate("one => one.value"), "what stands there is named"
        crop_before = page.locator("img.widget-image").get_attribute("src")
        choices.nth(0).select_option("2 piano")
        page.wait_for_function("before => document.querySelector('img.widget-image').src !== before", arg=crop_before)
        choices.nth(1).select_option(index=2)
        press("Take this shape")
        swapped = drawn("swapped")
        assert np.abs(swapped - first).mean() > 1, "another shape stands there"
        for place, value in enumerate(("0.4", "0.3", "60")):
            fields.nth(place).fill(value)
            fields.nth(place).press("Tab")
        press("Move")
        assert np.abs(drawn("moved") - swapped).mean() > 1, "it stands elsewhere, turned"
        assert "overlaps: none" in page.locator(".jp-OutputArea-output").first.inner_text()
        assert not log
