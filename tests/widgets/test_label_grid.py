"""`LabelGrid` without a browser, two windows on one file, and a page of labels in a real Chromium."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.applications.curation import Curation, curated
from clipgs_lib.shards import ShardSet
from clipgs_lib.vectors import unit
from clipgs_lib.widgets import LabelGrid
from clipgs_lib.widgets.still import MAX_BYTES

from ..training.samples import KINDS, TEACHER, make_set
from .browser import WidgetPage, chromium

MARKUP = "<img src=x onerror=\"document.title='run'\">"


class Teacher:
    """Says of any text the direction of the first kind."""

    def encode_text(self, texts):
        return unit(torch.from_numpy(np.random.default_rng(0).normal(size=(1, TEACHER.dim))))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return ShardSet(make_set(tmp_path_factory.mktemp("sets") / "kinds"))


@pytest.fixture
def start(shards, tmp_path, monkeypatch):
    """Make a grid with its labels in a temporary folder."""
    monkeypatch.setattr(curated, "load_teacher_of", lambda *_, **__: Teacher())

    def made(who="ada", **changes):
        curation = Curation(shards, f"a {KINDS[0]} {MARKUP}", tmp_path / "labels", encoder="bag-mean", labeller=who)
        picture = lambda key: np.full((40, 40, 3), 60 + 10 * (int(key[-4:]) % 15), np.uint8)  # noqa: E731
        captions = {key: f"{key} {MARKUP}" for key in curation.keys}
        return LabelGrid(curation, changes.pop("thumbnails", picture), captions, **changes)

    return made


def sent(grid):
    messages = []
    grid.send = lambda content, buffers=None: messages.append((content, buffers or []))
    return messages


def ask(grid, content):
    messages = sent(grid)
    grid._handle_custom_msg(content, [])
    assert len(messages) == 1, "each message has one reply"
    return messages[0]


def test_answers_are_saved_at_every_stroke_and_the_cursor_goes_on(start):
    grid = start()
    first, second, third = grid.page[:3]
    grid.answer("yes")
    grid.answer("no")
    assert grid.at == 2 and {key: one.answer for key, one in grid.curation.answers().items()} == {
        first: "yes",
        second: "no",
    }
    grid.answer("skip", third)
    assert "1 yes, 1 no, 1 skipped of 70; the text ranks this page" in grid.note
    for _ in range(20):
        grid.answer("no")
    assert grid.at == 11, "the cursor stays on the page"


def test_undo_goes_back_to_the_object_also_of_an_earlier_page(start):
    grid = start(count=4)
    before = grid.next_page()
    grid.answer("yes")
    grid.answer("yes")
    grid.undo()
    assert grid.at == 1 and set(grid.curation.answers()) == {before[0]}
    after = grid.next_page()
    assert not set(after) & {before[0]}
    grid.undo()
    assert grid.page == [before[0], *after] and grid.at == 0 and grid.curation.answers() == {}
    content, _ = ask(grid, {"type": "undo"})
    assert content == {"type": "say", "text": "There is nothing to take back.", "wrong": False}


def test_a_page_of_rounds_ends_with_everything_answered(start):
    grid = start(count=30)
    for _ in range(3):
        for key in grid.page:
            grid.answer("yes" if int(key[-4:]) % len(KINDS) == 0 else "no", key)
        grid.next_page()
    assert grid.page == [] and "AP 1.00" in grid.note and "of 70" in grid.note
    with pytest.raises(ValueError, match="the object must be on the page, got ''"):
        grid.answer("yes")


def test_two_windows_see_each_others_answers(start):
    one, two = start("ada", count=5), start("bob", count=5)
    one.answer("yes")
    two.answer("no", two.page[1])
    assert set(one.curation.answers()) == {one.page[0], two.page[1]}
    assert not set(one.next_page()) & set(one.curation.answers())


def test_messages_of_the_page_do_what_the_methods_do(start):
    grid = start()
    content, buffers = ask(grid, {"type": "load"})
    assert content["type"] == "page" and len(content["cells"]) == 12
    assert content["cells"][0]["caption"] == f"{grid.page[0]} {MARKUP}"
    strip = np.asarray(Image.open(io.BytesIO(buffers[0])))
    assert strip.shape == (160, 12 * 160, 3)
    for place, key in enumerate(grid.page):  # each has its picture
        assert abs(int(strip[80, 160 * place + 80, 0]) - (60 + 10 * (int(key[-4:]) % 15))) <= 2
    content, _ = ask(grid, {"type": "answer", "answer": "yes", "key": grid.page[3]})
    assert content["answers"][3] == "yes" and content["at"] == 4
    content, _ = ask(grid, {"type": "undo"})
    assert content["answers"][3] == "" and content["at"] == 3
    assert ask(grid, {"type": "next"})[0]["type"] == "page"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "answer", "answer": "maybe", "key": ""}, "a label must be yes, no or skip"),
        ({"type": "answer", "answer": "yes", "key": "stranger"}, "must be on the page, got 'stranger'"),
        ({"type": "answer"}, "a label must be yes, no or skip for a key of the set, got None"),
    ],
)
def test_bad_messages_become_a_sentence(start, content, words):
    grid = start()
    reply, _ = ask(grid, content)
    assert reply["wrong"] and words in reply["text"] and grid.curation.answers() == {}


@pytest.mark.parametrize("content", [None, 3, {}, {"type": "else"}])
def test_messages_of_strangers_are_ignored(start, content):
    grid = start()
    messages = sent(grid)
    grid._handle_custom_msg(content, [])
    assert messages == []


def test_a_file_that_another_set_took_over_is_told(start):
    grid = start()
    grid.answer("yes")
    path = grid.curation.labels.path
    path.write_text(path.read_text().replace(grid.curation.labels.gallery, "cd" * 32))
    reply, _ = ask(grid, {"type": "answer", "answer": "yes", "key": grid.page[1]})
    assert reply["wrong"] and "labels must be of the set with the content" in reply["text"]


def test_wrong_arguments_are_refused(start):
    with pytest.raises(ValueError, match=r"count must lie in 1\.\.60, got 61"):
        start(count=61)
    with pytest.raises(ValueError, match="must be PNG, JPEG or WebP bytes"):
        start(thumbnails=lambda key: b"GIF89a")


def test_a_saved_notebook_holds_a_sheet_of_the_page(start):
    grid = start()
    grid.answer("yes")
    data, _ = grid._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data
    assert "1 yes, 0 no, 0 skipped of 70" in data["text/plain"]
    png = base64.b64decode(data["image/png"])
    assert len(png) <= MAX_BYTES and Image.open(io.BytesIO(png)).width > 300


@pytest.mark.browser
def test_a_person_labels_in_chromium(start, shots):
    grid = start()
    keys = list(grid.page)
    with chromium() as browser, WidgetPage(browser, grid) as page:
        found = page.page
        current = lambda: found.evaluate("() => document.querySelector('[aria-selected=true]').dataset.key")  # noqa: E731
        marked = "() => [...document.querySelectorAll('.re-hit')].map((cell) => cell.dataset.answer)"
        answers = lambda: found.evaluate(marked)  # noqa: E731
        assert found.locator(".re-hit").count() == 12 and current() == keys[0] and found.title() == "viewer"
        assert MARKUP in page.text(".re-caption") and MARKUP in page.text(".clipgs-lg > b")  # text, never markup
        found.get_by_role("listbox").focus()
        for letter in "yns":  # faster than Python answers
            found.keyboard.press(letter)
        assert current() == keys[3]
        page.settle()
        assert current() == keys[3] and answers()[:4] == ["yes", "no", "skip", ""]
        assert {key: one.answer for key, one in grid.curation.answers().items()} == dict(
            zip(keys, ("yes", "no", "skip"), strict=False)
        )
        assert page.text(".re-status").startswith("1 yes, 1 no, 1 skipped of 70")
        found.keyboard.press("u")
        page.settle()
        assert current() == keys[2] and answers()[2] == ""
        found.keyboard.press("ArrowRight")
        found.keyboard.press("ArrowDown")
        columns = found.evaluate(
            "() => getComputedStyle(document.querySelector('.re-grid')).gridTemplateColumns.split(' ').length"
        )
        assert current() == keys[min(3 + columns, 11)]
        found.locator(".re-hit").nth(5).click()
        found.get_by_role("button", name="Yes (y)").click()
        page.settle()
        assert (
            grid.curation.answers()[keys[5]].answer == "yes"
            and found.evaluate("() => document.activeElement.role") == "listbox"
        )
        found.keyboard.press("n")
        page.settle()
        assert grid.curation.answers()[keys[6]].answer == "no", "the keyboard goes on after a click"
        grid.theme = "dark"
        page.settle()
        page.shoot(shots / "labels-dark.png")
        found.keyboard.press("Enter")
        page.settle()
        assert not set(grid.page) & set(grid.curation.answers()) and "AP" in page.text(".re-status")
        assert found.locator(".re-hit").count() == 12 and not page.log
        found.evaluate("() => close_view()")
        assert found.locator(".clipgs-lg").count() == 0 and found.evaluate("() => model.handlers.length") == 0
