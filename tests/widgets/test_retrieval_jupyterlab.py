"""The explorer in a real JupyterLab: typed, mixed, opened, explained, restarted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from .browser import chromium
from .jupyter import COMMAND, IDLE, jupyterlab

SETUP = """import torch

import clipgs_lib as cg
from clipgs_lib import triplets
from clipgs_lib.vectors import unit
shards = triplets.open_set("")
some = [shards[number] for number in range(0, len(shards), 6)]
encoder, teacher = cg.load_encoder("clipgs-mini"), cg.load_teacher("mini")
meta = [{"caption": one.caption, "category": one.category, "split": one.split} for one in some]
facts = {"teacher": teacher.identity, "thumbnails": [one.views[1] for one in some]}
keys, views = [one.key for one in some], [torch.from_numpy(one.image_embeds).float().mean(dim=0) for one in some]
gallery = cg.Gallery(encoder.encode([one.splats for one in some]), keys, meta, encoder=encoder.identity, **facts)
galleries = {"clipgs-mini": gallery, "mean of views": cg.Gallery(unit(torch.stack(views)), keys, meta, **facts)}"""
SHOW = """explorer = cg.RetrievalExplorer(galleries, teacher, encoder=encoder,
    open_splats=lambda key: shards[key].splats, examples=["a vehicle", "a plant"], per_page=8, file="session.json")
explorer"""
KEYS = "[...document.querySelectorAll('.clipgs-re .re-columns .re-grid > li')].map((item) => item.dataset.row).join()"
WIDE = """() => {
  const root = document.querySelector('.clipgs-re'), right = root.getBoundingClientRect().right;
  const out = [...root.querySelectorAll('*')].filter((one) => one.getBoundingClientRect().right > right + 1);
  return root.scrollWidth > root.clientWidth ? out.map((one) => one.className) : [];
}"""
READY = ".clipgs-re[data-state=ready]"


@pytest.mark.browser
def test_a_person_explores_in_jupyterlab(tmp_path, shots):
    Image.new("RGB", (3000, 2000), (30, 120, 40)).save(tmp_path / "green.png")
    with jupyterlab(tmp_path) as lab, chromium() as browser:
        lab.write("explore.ipynb", SETUP, SHOW)
        page = lab.open(browser, "explore.ipynb", viewport={"width": 1280, "height": 1100})
        log: list[str] = []
        page.on("pageerror", lambda error: log.append(str(error)))

        def changed(before):
            page.wait_for_function(f"before => {KEYS} !== before && document.querySelector('{READY}')", arg=before)
            return page.evaluate(KEYS)

        def run():
            page.evaluate(COMMAND, ["notebook:run-all-cells"])
            page.wait_for_selector(READY)
            page.evaluate("document.querySelector('.clipgs-re').scrollIntoView({ block: 'start' })")

        def shoot(name):
            page.screenshot(path=shots / f"explorer-{name}.png")

        run()
        field = page.get_by_label("text to search for").first
        field.press_sequentially("a plant in a pot", delay=20)
        words = changed("")
        shoot("typed")

        # a second text, and its slider to the other side
        page.get_by_role("button", name="+ words").click()
        page.get_by_label("text to search for").nth(1).fill("red")
        mixed = changed(words)
        page.get_by_label("weight").nth(1).fill("-1")
        against = changed(mixed)
        assert page.locator(".re-share").count() == 16, "two bars a card"
        page.get_by_label("picture to search by").set_input_files(tmp_path / "green.png")
        changed(against)
        assert page.locator(".re-part").count() == 3
        shoot("mixed")

        # open a hit beside the grid, and have it explained
        page.locator(".re-hit").first.click()
        page.wait_for_selector(".re-aside .clipgs-sv[data-state=ready]")
        place, grid = (page.locator(one).first.bounding_box() for one in (".re-aside .sv-surface", ".re-body .re-grid"))
        assert place["x"] > grid["x"] + grid["width"] and place["y"] < 1100, "beside the hits, not below"

        def drawn():
            picture = page.locator(".re-aside .sv-surface").screenshot()
            return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)

        plain = drawn()
        assert (plain.std(axis=2) > 8).mean() > 0.01, "the splat is drawn, in its colours"
        page.get_by_role("button", name="why “a plant in a pot”?").click()
        page.wait_for_selector(".re-aside .sv-legend:not([hidden])")
        page.wait_for_selector(".re-aside .clipgs-sv[data-state=ready]")
        page.wait_for_function("document.querySelector('.re-aside .sv-name')?.textContent.includes('speaks for')")
        page.wait_for_timeout(500)
        assert np.abs(drawn() - plain).mean() > 1, "and painted over by what speaks for it"
        shoot("why")

        # the map: a lasso leaves fewer objects
        page.get_by_role("button", name="map", exact=True).click()
        canvas = page.locator(".re-map canvas")
        canvas.wait_for()
        page.wait_for_selector(READY)
        box = canvas.bounding_box()
        left, top, right, bottom = box["x"] + 4, box["y"] + 4, box["x"] + box["width"] / 2, box["y"] + box["height"] - 4
        page.mouse.move(left, top)
        page.mouse.down()
        for x, y in ((right, top), (right, bottom), (left, bottom)):
            page.mouse.move(x, y, steps=4)
        page.mouse.up()
        page.wait_for_function(
            "document.querySelector('.clipgs-re .re-status').textContent.includes('the filter lets')"
        )
        shoot("map")
        page.get_by_role("button", name="chosen on the map").click()
        page.wait_for_selector(READY)

        # the hits of another index beside them
        page.get_by_label("compare").select_option("mean of views")
        page.wait_for_selector(f"{READY} .re-columns section + section li")
        assert page.locator(".re-columns h4").all_text_contents() == ["clipgs-mini", "mean of views"]
        assert page.locator(".re-columns li").count() == 16
        shoot("compare")

        page.evaluate(COMMAND, ["apputils:change-theme", {"theme": "JupyterLab Dark"}])
        page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        page.wait_for_timeout(1000)
        shoot("dark")
        page.set_viewport_size({"width": 620, "height": 1100})
        page.wait_for_timeout(1000)
        shoot("narrow")
        wide = page.evaluate(WIDE)
        assert wide == [], "nothing sticks out of a narrow page"

        # a restarted kernel knows nothing of the page, which says so; the next run goes on where the person was
        before = page.get_by_label("text to search for").first.input_value()
        kernel = lab.ask("/api/kernels")[0]["id"]
        lab.ask(f"/api/kernels/{kernel}/restart", "POST")
        page.wait_for_function(IDLE)
        field.fill("something else")
        page.wait_for_selector(".clipgs-re[data-state=wrong]")
        assert "was restarted" in page.locator(".clipgs-re > .re-status").first.inner_text()
        shoot("restarted")
        page.evaluate(COMMAND, ["notebook:run-all-cells"])
        page.wait_for_function("document.querySelectorAll('.clipgs-re[data-state=ready] .re-part').length === 3")
        assert page.get_by_label("text to search for").first.input_value() == before
        assert not log
