"""`RetrievalExplorer` without a browser, and a search in a real Chromium; test_retrieval_jupyterlab has the rest."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.gallery import Gallery, hits_sheet
from clipgs_lib.widgets import RetrievalExplorer, SplatView
from clipgs_lib.widgets.still import MAX_BYTES

from ..conftest import make_splats
from ..gallery.test_session import COLORS, MARKUP, TEACHER, ColorTeacher, file_of, gallery_of, tile
from .browser import WidgetPage, chromium


def explorer_of(times: int = 1, galleries=None, **options) -> RetrievalExplorer:
    options = {"open_splats": lambda key: make_splats(20, seed=int(key))} | options
    return RetrievalExplorer(galleries or gallery_of(times), ColorTeacher(), **options)


def sent(explorer) -> list[tuple[dict, list]]:
    messages: list[tuple[dict, list]] = []
    explorer.send = lambda content, buffers=None: messages.append((content, buffers or []))
    return messages


def ask(explorer, content: dict) -> tuple[dict, list]:
    """What the page gets for a message of its own."""
    messages = sent(explorer)
    explorer._handle_custom_msg(content, [])
    assert len(messages) == 1, "each message has one reply"
    return messages[0]


def change(explorer, seq: int = 1, **changes) -> tuple[dict, list]:
    return ask(explorer, {"type": "change", "seq": seq, "changes": changes})


def hits_of(content: dict, column: int = 0) -> list[dict]:
    return content["columns"][column]["hits"]


def text(words: str, weight: float = 1.0) -> dict:
    return {"kind": "text", "name": words, "weight": weight}


# ---- messages ------------------------------------------------------------------------------------------------------


def test_the_page_gets_hits_with_their_pictures_on_one_strip():
    explorer = explorer_of()
    content, (pictures, scores) = change(explorer, seq=7, parts=[text("red")])
    assert (content["type"], content["seq"], content["note"]) == ("show", 7, "1 to 4 of 4 splats")
    first = hits_of(content)[0]
    assert (first["key"], first["category"], first["caption"], first["split"]) == (
        "0",
        "red kind",
        "a red thing",
        "train",
    )
    assert first["shares"] == pytest.approx([first["score"]])
    strip = np.asarray(Image.open(io.BytesIO(pictures))).astype(int)
    assert strip.shape == (160, 4 * 160, 3)
    for place, hit in enumerate(hits_of(content)):
        assert np.abs(strip[80, 160 * place + 80] - list(COLORS.values())[hit["row"]]).max() < 12
    assert np.frombuffer(scores, "<f4") == pytest.approx(explorer.session.answer.background.numpy())
    again, buffers = ask(explorer, {"type": "load", "seq": 8})
    assert again | {"seq": 7} == content and buffers == [pictures, scores], "also when it opens again"
    empty, buffers = change(explorer, parts=[])
    assert hits_of(empty) == [] and empty["note"] == "4 splats; no search yet" and buffers == [b"", b""]


def test_a_picture_and_a_shape_come_as_parts():
    picture = base64.b64encode(file_of(tile((0, 0, 255)))).decode()
    explorer = explorer_of()
    content, _ = change(explorer, parts=[{"kind": "picture", "name": MARKUP, "weight": 1, "picture": picture}])
    assert hits_of(content)[0]["key"] == "2" and content["terms"] == [{"name": MARKUP, "weight": 1.0}]
    content, _ = change(explorer, parts=[{"kind": "shape", "name": "1"}])
    caption, thumb = content["thumbs"]["1"]
    assert hits_of(content)[0]["key"] == "1" and caption == "a green thing" and base64.b64decode(thumb)[:4] == b"RIFF"


def test_each_hit_gets_the_nearest_of_a_persons_labels():
    explorer, calls = explorer_of(labels=["a red one", MARKUP + " blue"]), []
    embed = explorer.session.teacher.zero_shot_weights
    explorer.session.teacher.zero_shot_weights = lambda *given: calls.append(given) or embed(*given)
    content, _ = change(explorer, parts=[text("red")])
    labels = {hit["key"]: hit["label"] for hit in hits_of(content)}
    assert labels["0"] == "a red one" and labels["2"] == MARKUP + " blue" and len(labels) == 4
    change(explorer, parts=[text("green")])
    assert len(calls) == 1, "labels are embedded once"
    assert "label" not in hits_of(change(explorer_of(), parts=[text("red")])[0])[0]


def test_a_cell_shows_what_it_asks_for_and_the_page_keeps_it():
    explorer = explorer_of(3)
    messages = sent(explorer)
    assert [hit.key for hit in explorer.search("blue")][:1] == ["2"] and messages[-1][0]["seq"] is None
    explorer.change(more=["0"])
    assert messages[-1][0]["state"]["more"] == ["0"] and len(messages) == 2


def test_two_indexes_answer_side_by_side():
    some = gallery_of(3)
    other = Gallery(some.embeds[[5, 2, 0]], ["5", "2", "only here"], [some.meta[i] for i in (5, 2, 0)], teacher=TEACHER)
    explorer = explorer_of(galleries={"plain": gallery_of(3), "other": other}, per_page=5)
    change(explorer, parts=[text("red")])
    content, buffers = change(explorer, compare="other")
    assert content["state"]["compare"] == "other" and [one["index"] for one in content["columns"]] == ["plain", "other"]
    left, right = hits_of(content), hits_of(content, 1)
    assert [hit["key"] for hit in left] == [hit.key for hit in explorer.session.hits]
    assert [(hit["key"], hit["row"]) for hit in right[:2]] == [("only here", -1), ("5", 5)], "rows are the first one's"
    places = {hit["key"]: place for place, hit in enumerate(right, start=1)}
    assert [hit["beside"] for hit in left] == [[places.get(hit["key"], 0)] for hit in left]
    strips = [Image.open(io.BytesIO(strip)).size for strip in buffers[:2]]
    assert strips == [(160 * 5, 160), (160 * 3, 160)] and len(buffers) == 3
    answers = explorer.session.answers.items()
    sheets = [hits_sheet(explorer.session.galleries[name], answer, name=name) for name, answer in answers]
    sheet, at = np.asarray(explorer.picture()), sheets[0].width
    assert (sheet[:, :at] == np.asarray(sheets[0])).all(), "the other stands beside it, behind a line"
    assert (sheet[: sheets[1].height, -sheets[1].width :] == np.asarray(sheets[1])).all()
    assert (sheet[20:-20, at : -sheets[1].width] < 240).any(axis=(1, 2)).all()
    content, _ = change(explorer, compare="")
    assert len(content["columns"]) == 1 and all(hit["beside"] == [] for hit in hits_of(content))
    reply, _ = change(explorer, compare="nobody")
    assert reply["type"] == "say" and "index must be one of plain, other, got 'nobody'" in reply["text"]


def test_a_hit_opens_beside_and_the_next_replaces_it():
    explorer = explorer_of(2)
    explorer.search("red")
    content, (pictures,) = ask(explorer, {"type": "open", "row": 0, "seq": 3})
    first = explorer.view
    assert isinstance(first, SplatView) and content["view"] == first.model_id and content["seq"] == 3
    assert content["opened"]["caption"] == "a red thing" and content["facts"] == {"split": "train"}
    assert content["neighbours"][0]["row"] == 4 and np.asarray(Image.open(io.BytesIO(pictures))).shape == (160, 960, 3)
    explorer.show("3")
    assert explorer.view is not first and first.comm is None and explorer.session.state.opened == "3"
    assert explorer.view._info["views"][0]["name"] == f"a {MARKUP} thing"  # the page shows names as text
    messages = sent(explorer)
    explorer._handle_custom_msg({"type": "load"}, [])
    assert [content["type"] for content, _ in messages] == ["show", "details"]


def test_the_map_and_a_lasso_on_it():
    explorer = explorer_of(5)
    explorer.search("red")
    content, (places,) = ask(explorer, {"type": "map"})
    assert content == {"type": "map"} and np.frombuffer(places, "<f4").shape == (40,)
    _, (others,) = ask(explorer, {"type": "map", "kind": "t-sne"})
    assert np.frombuffer(others, "<f4") == pytest.approx(explorer.session.positions("t-sne").numpy().ravel())
    assert others != places
    content, _ = ask(explorer, {"type": "lasso", "rows": [1, 2, 3], "seq": 2})
    assert content["state"]["among"] == ["1", "2", "3"] and {hit["row"] for hit in hits_of(content)} == {1, 2, 3}


def test_why_paints_the_opened_object(monkeypatch):
    explorer = explorer_of()
    explorer.search("red")
    with pytest.raises(ValueError, match="an object must be open"):
        explorer.explain(0)
    explorer.show("0")
    monkeypatch.setattr(explorer.session, "relevance", lambda splats, term: torch.linspace(-1, 2, len(splats)))
    content, _ = ask(explorer, {"type": "why", "term": 0, "seq": 4})
    assert content["type"] == "say" and explorer.view.color_mode == "value"
    assert (
        explorer.view._legend["label"] == "speaks for “red”"
        and explorer.view._legend["low"] == -explorer.view._legend["high"]
    )
    ask(explorer, {"type": "why", "term": None})
    assert explorer.view.color_mode == "color"


# ---- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "change", "changes": {"parts": [{"kind": "text", "name": "the"}]}}, "must say what to look for"),
        ({"type": "change", "changes": {"parts": 3}}, "parts must be"),
        ({"type": "change", "changes": {"parts": [{"kind": "picture", "name": "p", "picture": "!"}]}}, "picture"),
        ({"type": "change", "changes": {"index": "x"}}, "index must be one of"),
        ({"type": "change"}, "changes"),
        ({"type": "open", "row": 99}, "IndexError"),
        ({"type": "open"}, "row"),
        ({"type": "lasso", "rows": [99]}, "IndexError"),
        ({"type": "why", "term": 0}, "an object must be open"),
    ],
)
def test_bad_messages_become_a_sentence_on_the_page(content, words):
    explorer = explorer_of()
    explorer.search("green")
    before = explorer.session.state
    reply, buffers = ask(explorer, content | {"seq": 5})
    assert reply["type"] == "say" and reply["wrong"] and words in reply["text"] and buffers == []
    assert (reply["seq"], reply["of"]) == (5, content["type"])
    assert "Traceback" not in reply["text"] and explorer.session.state == before


def test_splats_that_cannot_be_opened_become_a_sentence():
    def broken(key):
        raise RuntimeError("no memory left")

    explorer = explorer_of(open_splats=broken)
    reply, _ = ask(explorer, {"type": "open", "row": 1})
    assert "RuntimeError: no memory left" in reply["text"] and explorer.view is None
    reply, _ = ask(RetrievalExplorer(gallery_of(), ColorTeacher()), {"type": "open", "row": 1})
    assert "must lie where they were when they were embedded" in reply["text"]


def test_interrupting_the_kernel_stops_what_takes_long_and_the_page_says_so(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    explorer = explorer_of()
    explorer.search("red")
    explorer.show("0")
    monkeypatch.setattr(explorer.session, "relevance", interrupted)
    reply, _ = ask(explorer, {"type": "why", "term": 0, "seq": 9})
    assert (reply["text"], reply["seq"]) == ("Stopped, as the kernel was interrupted.", 9)
    assert change(explorer, parts=[text("green")])[0]["type"] == "show", "and it goes on"


@pytest.mark.parametrize("content", [None, 3, {}, {"type": "else"}, {"type": ["load"]}])
def test_messages_of_strangers_are_ignored(content):
    explorer = explorer_of()
    messages = sent(explorer)
    explorer._handle_custom_msg(content, [])
    assert messages == []


def test_a_saved_notebook_holds_a_sheet_of_the_results():
    explorer = explorer_of()
    assert "no search yet" in explorer._repr_mimebundle_()[0]["text/plain"]
    explorer.search(MARKUP + " red")
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data
    assert "  1. " in data["text/plain"] and "a red thing" in data["text/plain"]
    png = base64.b64decode(data["image/png"])
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3).astype(int)
    assert len(png) <= MAX_BYTES
    for color in COLORS.values():
        assert (np.abs(sheet - color).max(axis=1) < 8).sum() > 5000
    assert not any("hits" in str(value) for value in explorer.get_state().values() if isinstance(value, dict))


# a picture dropped on, or pasted into, an element
GIVEN = """async ([selector, kind, color]) => {
  const data = new DataTransfer(), canvas = new OffscreenCanvas(9, 9), paint = canvas.getContext('2d');
  paint.fillStyle = color;
  paint.fillRect(0, 0, 9, 9);
  data.items.add(new File([await canvas.convertToBlob()], `${kind}.png`, { type: 'image/png' }));
  const event = kind === 'drop' ? new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent(kind, { clipboardData: data, bubbles: true, cancelable: true });
  return document.querySelector(selector).dispatchEvent(event);
}"""
# a second explorer in the same document, with a model of its own
SECOND = """async (state) => {
  window.second = new StandInModel(state);
  const cell = document.body.appendChild(document.createElement('div'));
  cell.id = 'second';
  const widget = (await import('/widget.js')).default();
  widget.initialize({ model: second });
  widget.render({ model: second, el: cell });
}"""
TAKE = "() => second.outbox.splice(0).map(({ content }) => content)"
GIVE = """([content, buffers]) => second.emit('msg:custom', content, buffers.map((text) =>
  new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer)))"""


# ---- a page --------------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_person_searches_in_chromium(tmp_path, shots):
    galleries = {"plain": gallery_of(5), "other": gallery_of(5)}
    explorer = explorer_of(galleries=galleries, examples=["a green ball", MARKUP], per_page=6)
    with chromium() as browser, WidgetPage(browser, explorer) as page:
        tab = page.page
        captions = lambda: tab.locator(".re-columns .re-grid .re-caption").all_text_contents()  # noqa: E731
        field = tab.get_by_label("text to search for").first
        assert page.text(".re-status") == "20 splats; no search yet" and captions() == []
        assert tab.title() == "viewer" and MARKUP in page.text(".re-examples")  # text, never markup

        field.fill("a blue ball")
        assert page.state == "busy"
        page.settle()
        assert captions()[0] == "a blue thing" and page.text(".re-status") == "1 to 6 of 20 splats"
        assert page.text(".re-hit b") == "blue kind"
        colors = "(split) => getComputedStyle(document.querySelector(`.re-label[data-split=${split}]`)).color"
        assert tab.evaluate(colors, "test") != tab.evaluate(colors, "train"), "objects of the test split are marked"
        card, picture = (tab.locator(one).first.bounding_box() for one in (".re-hit", ".re-picture"))
        assert picture["width"] == pytest.approx(picture["height"]) and card["width"] - picture["width"] < 4
        assert card["height"] > picture["height"] + 40, "the whole picture, and words below it"
        page.shoot(shots / "explorer-page.png")
        tab.get_by_role("button", name="next →").click()
        page.settle()
        assert page.text(".re-status") == "7 to 12 of 20 splats" and MARKUP in "".join(captions())

        # while one request is on its way the others wait, and go as one
        sent_before = tab.evaluate(
            "() => { window.count = 0; const send = model.send.bind(model);"
            " model.send = (...all) => { window.count += 1; send(...all); }; return count; }"
        )
        for words in ("a", "a r", "a re", "a red"):
            field.fill(words)
        page.settle()
        assert sent_before == 0 and tab.evaluate("() => count") == 2 and captions()[0] == "a red thing"
        # an old answer does not replace a newer one
        tab.evaluate("() => model.emit('msg:custom', { type: 'say', seq: 1, text: 'old', wrong: true }, [])")
        assert page.text(".re-status") == "1 to 6 of 20 splats" and page.state == "ready"

        (tmp_path / "green.png").write_bytes(file_of(tile((10, 220, 10))))
        field.fill("")
        page.settle()
        assert captions() == [], "old hits go with the query"
        tab.get_by_label("picture to search by").set_input_files(tmp_path / "green.png")
        tab.wait_for_selector("[data-state=busy]")
        page.settle()
        assert captions()[0] == "a green thing" and page.text(".re-chip span") == "green.png"
        for kind, selector in (("drop", ".clipgs-re"), ("paste", ".re-text")):
            assert tab.evaluate(GIVEN, [selector, kind, "blue"]) is False, "the browser does nothing of its own with it"
            tab.wait_for_selector("[data-state=busy]")
            page.settle()
        pictures = [part.name for part in explorer.session.state.parts if part.kind == "picture"]
        assert pictures == ["green.png", "drop.png", "paste.png"] and tab.locator(".re-chip img").count() == 3
        tab.locator(".re-part").nth(3).get_by_role("button", name="✕").click()
        page.settle()
        tab.get_by_label("weight").nth(1).fill("-1")
        page.settle()
        assert captions()[0] == "a blue thing" and tab.locator(".re-share").count() == 12

        tab.locator(".re-examples button").first.click()
        page.settle()
        assert captions()[0] == "a green thing" and field.input_value() == "a green ball"
        field.fill("the")
        page.settle()
        assert "must say what to look for" in page.text(".re-status") and captions() == []
        field.fill("green")
        page.settle()

        # the keyboard alone: to a hit, mark it, open it
        tab.locator(".re-hit").first.focus()
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("-")
        page.settle()
        assert len(explorer.session.state.less) == 1 and tab.locator(".re-part").count() == 2
        tab.locator(".re-hit").nth(1).focus()
        tab.keyboard.press("Enter")
        page.settle()
        assert explorer.view is not None and "; opened a " in page.text(".re-status")
        assert tab.locator(".re-aside .re-grid li").count() == 6 and tab.locator("[aria-current]").count() == 1

        tab.get_by_label("index").select_option("other")
        page.settle()
        tab.get_by_label("category").fill("blue kind")
        tab.get_by_label("category").press("Tab")
        page.settle()
        assert set(captions()) == {"a blue thing"} and explorer.session.state.index == "other"
        explorer.search(like="3")  # a cell
        page.settle()
        assert tab.locator(".re-chip img").count() == 1 and field.input_value() == ""
        assert not page.log
        tab.evaluate("() => close_view()")
        assert tab.locator(".clipgs-re").count() == 0 and tab.evaluate("() => model.handlers.length") == 0


@pytest.mark.browser
def test_two_indexes_stand_side_by_side_in_chromium(shots):
    plain, turned = gallery_of(5), gallery_of(5)
    keys = [*plain.keys[:14], *(f"only {row}" for row in range(14, 20))]
    other = Gallery(turned.embeds.roll(1, 1), keys, turned.meta, teacher=TEACHER, thumbnails=turned._thumbnails)
    explorer = explorer_of(galleries={"plain": plain, "turned": other}, per_page=8, start="a red ball")
    session = explorer.session
    with chromium() as browser, WidgetPage(browser, explorer) as page:
        tab = page.page
        columns = tab.locator(".re-columns section")
        captions = lambda place: columns.nth(place).locator(".re-caption").all_text_contents()  # noqa: E731
        assert columns.count() == 1 and not columns.locator("h4").is_visible()
        tab.get_by_label("compare").select_option("turned")
        page.settle()
        assert columns.locator("h4").all_text_contents() == ["plain", "turned"]
        assert captions(0)[0] == "a red thing" and captions(1)[0] == "a blue thing"
        left, right = (columns.nth(place).bounding_box() for place in (0, 1))
        assert right["x"] >= left["x"] + left["width"] and right["y"] == left["y"], "beside it"
        assert abs(left["width"] - right["width"]) < 20 and page.text(".re-status").endswith("of them beside, too")
        places = tab.get_by_title("its place in the other column").all_text_contents()
        assert len(places) == 16 and "only here" in places and any(place.startswith("also #") for place in places)
        page.shoot(shots / "compare-light.png")

        both = next(hit for hit in session.hits if hit.key in {one.key for one in session.hits_of("turned")})
        cards = tab.locator(f"li[data-row='{both.row}'] .re-hit")
        cards.first.hover()
        assert tab.locator(".re-pointed").count() == 2, "the same object in both"
        gone = columns.nth(1).locator("li[data-row='-1'] .re-hit")
        assert gone.count() >= 1 and gone.first.is_disabled()
        cards.nth(1).click()
        page.settle()
        assert session.state.opened == both.key and tab.locator("[aria-current]").count() == 2
        columns.nth(1).locator(".re-hit:enabled").first.focus()
        tab.keyboard.press("ArrowRight")
        assert columns.nth(1).locator(".re-hit:focus").count() == 1, "the keyboard stays in its column"
        explorer.theme = "dark"
        page.settle()
        page.shoot(shots / "compare-dark.png")

        tab.get_by_label("index", exact=True).select_option("turned")
        page.settle()
        assert columns.locator("h4").all_text_contents() == ["turned", "plain"], "they change places"
        assert tab.get_by_label("compare").input_value() == "plain" and captions(0)[0] == "a blue thing"
        tab.set_viewport_size({"width": 420, "height": 900})
        tab.evaluate("() => (cell.style.width = '420px')")
        page.settle()
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= 420
        page.shoot(shots / "compare-narrow.png")
        explorer.change(compare="")  # a cell
        page.settle()
        assert columns.count() == 1 and captions(0)[0] == "a blue thing" and not page.log


@pytest.mark.browser
def test_two_explorers_in_one_notebook_do_not_mix():
    first, second = explorer_of(5, per_page=6), explorer_of(5, per_page=4, examples=["a green ball"])
    messages = sent(second)
    with chromium() as browser, WidgetPage(browser, first) as page:
        tab = page.page
        tab.evaluate(SECOND, {"_info": second._info, "theme": "auto"})

        def settle() -> None:
            page.settle()
            while contents := tab.evaluate(TAKE):
                for content in contents:
                    second._handle_custom_msg(content, [])
                for content, buffers in messages:
                    tab.evaluate(GIVE, [content, [base64.b64encode(one).decode() for one in buffers]])
                messages.clear()

        settle()
        one, two = tab.locator("#cell .clipgs-re"), tab.locator("#second .clipgs-re")
        hits = lambda root: root.locator(".re-columns .re-grid .re-caption").all_text_contents()  # noqa: E731
        one.get_by_label("text to search for").fill("red")
        settle()
        assert hits(one)[0] == "a red thing" and hits(two) == [] and second.session.answer is None
        two.get_by_role("button", name="a green ball").click()
        settle()
        assert hits(two)[0] == "a green thing" and len(hits(two)) == 4 and hits(one)[0] == "a red thing"
        tab.evaluate(GIVEN, ["#second .re-text", "paste", "blue"])
        tab.wait_for_selector("#second [data-state=busy]")
        settle()
        assert two.locator(".re-part").count() == 2 and one.locator(".re-part").count() == 1
        two.locator(".re-hit").first.click()
        settle()
        assert two.locator("aside").is_visible() and not one.locator("aside").is_visible()
        assert first.session.state.opened == "" and second.session.state.opened
        lists = tab.evaluate("() => [...document.querySelectorAll('datalist')].map((one) => one.id)")
        fields = tab.evaluate("() => [...document.querySelectorAll('input[list]')].map((one) => one.list.id)")
        assert len(set(lists)) == 2 and fields == lists, "each has the categories of its own"
        assert not page.log
