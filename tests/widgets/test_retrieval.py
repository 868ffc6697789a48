"""`RetrievalExplorer` without a browser, hostile uploads, and a search in a real Chromium."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.gallery import Gallery
from clipgs_lib.widgets import RetrievalExplorer, SplatView
from clipgs_lib.widgets.retrieval_pictures import MAX_BYTES, SIDE, decode_picture
from clipgs_lib.widgets.still import MAX_BYTES as MAX_STILL

from ..conftest import make_splats
from .browser import CHROMIUM, WidgetPage, chromium

MARKUP = "<img src=x onerror=\"document.title='run'\">"
COLORS = {"red": (200, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 200), MARKUP: (120, 120, 120)}
TEACHER = "colours sha256:" + "0" * 64


def by_words(texts: list[str]) -> torch.Tensor:
    """A teacher of colour names: their RGB."""
    return torch.tensor([[float(name in text) + 0.05 for name in ("red", "green", "blue")] for text in texts])


def by_pixels(images: torch.Tensor) -> torch.Tensor:
    assert images.dtype == torch.uint8 and images.ndim == 4
    return images.float().mean(dim=(1, 2))


def tile(color: tuple[int, int, int], size: int = 40) -> np.ndarray:
    return np.full((size, size, 3), color, np.uint8)


def file_of(picture: np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format=kind, **options)
    return stream.getvalue()


def explorer_of(**changes) -> RetrievalExplorer:
    embeds = torch.nn.functional.normalize(torch.tensor([COLORS[name] for name in COLORS], dtype=torch.float32), dim=1)
    meta = [{"caption": f"a {name} thing"} for name in COLORS]
    options = {
        "encode_text": by_words,
        "encode_image": by_pixels,
        "thumbnails": [tile(color) for color in COLORS.values()],
        "open_splats": lambda key: make_splats(20, seed=int(key)),
        "teacher": TEACHER,
    }
    return RetrievalExplorer(Gallery(embeds, list("0123"), meta, teacher=TEACHER), **(options | changes))


def sent(explorer: RetrievalExplorer) -> list[tuple[dict, list]]:
    messages: list[tuple[dict, list]] = []
    explorer.panel.send = lambda content, buffers=None: messages.append((content, buffers or []))
    return messages


def ask(explorer: RetrievalExplorer, content: dict, *buffers: bytes) -> tuple[dict, list]:
    """What the page gets for a message of its own."""
    messages = sent(explorer)
    explorer.panel._handle_custom_msg(content, [memoryview(data) for data in buffers])
    assert len(messages) == 1
    return messages[0]


# ---- search --------------------------------------------------------------------------------------------------------


def test_text_picture_and_both_find_what_they_should():
    explorer = explorer_of()
    found = explorer.search("something  blue\n", k=2)
    assert [one["key"] for one in found] == ["2", "3"] and [one["rank"] for one in found] == [1, 2]
    assert found[0] | {"score": 0} == {"rank": 1, "key": "2", "row": 2, "score": 0, "caption": "a blue thing"}
    assert found[0]["score"] > found[1]["score"] and found == explorer.results
    for picture in (tile((10, 200, 10)), file_of(tile((10, 200, 10)), "JPEG")):
        assert explorer.search(image=picture)[0]["key"] == "1"
    both = explorer.search("red", tile((10, 10, 200)), k=4)
    assert {one["key"] for one in both[:3]} == {"0", "2", "3"} and both[3]["key"] == "1"
    assert len(explorer.search("red")) == 4  # all there are


def test_the_results_are_the_callers_own():
    explorer = explorer_of()
    explorer.search("red")[0]["key"] = "changed"
    assert explorer.results[0]["key"] == "0"


def test_the_page_gets_hits_with_their_pictures_and_again_when_it_opens():
    explorer = explorer_of(thumbnails=[file_of(tile(color), "WEBP", lossless=True) for color in COLORS.values()])
    content, buffers = ask(explorer, {"type": "search", "text": "red"})
    assert content["type"] == "hits" and content["note"] == "“red”: the best 4 of 4"
    assert (content["hits"][0]["key"], content["hits"][0]["kind"]) == ("0", "image/webp")
    shown = np.asarray(Image.open(io.BytesIO(bytes(buffers[0]))).convert("RGB"))
    assert (shown == COLORS["red"]).all()
    assert ask(explorer, {"type": "load"}) == (content, buffers)
    assert ask(explorer_of(), {"type": "load"}) == (
        {"type": "hits", "note": "4 splats; no search yet", "hits": []},
        [],
    )


def test_the_page_searches_with_a_picture():
    content, _ = ask(explorer_of(), {"type": "search", "text": ""}, file_of(tile((0, 0, 255))))
    assert content["hits"][0]["key"] == "2" and content["note"].startswith("your picture: ")


def test_a_hit_opens_below_and_the_next_replaces_it():
    explorer = explorer_of()
    explorer.search("red")
    content, _ = ask(explorer, {"type": "open", "row": 0})
    first = explorer.view
    assert isinstance(first, SplatView) and explorer._slot.children == (first,)
    assert content["text"].endswith("opened a red thing") and not content.get("wrong")
    explorer.show("3")
    assert explorer._slot.children == (explorer.view,) and explorer.view is not first and first.comm is None
    assert explorer.view._info["views"][0]["name"] == f"a {MARKUP} thing"  # the page shows names as text


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def png_bomb() -> bytes:
    """A PNG that says it has 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("text", "uploads", "words"),
    [
        ("", [], "there is nothing to search for; type a few words, or choose a picture"),
        (" \n\t", [], "there is nothing to search for"),
        ("x" * 2001, [], "at most 2,000 characters, got 2,001"),
        ("red", [b""], "intact PNG, JPEG or WebP file, got an empty file"),
        ("", [b"not a picture"], "intact PNG, JPEG or WebP"),
        ("", [file_of(tile((1, 2, 3), 200), "PNG")[:-60]], "intact PNG, JPEG or WebP"),
        ("", [file_of(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8), "JPEG")[:900]], "intact PNG"),
        ("", [file_of(tile((1, 2, 3)), "GIF")], "intact PNG, JPEG or WebP"),
        ("", [b"<svg xmlns='http://www.w3.org/2000/svg'/>"], "intact PNG, JPEG or WebP"),
        ("", [png_bomb()], "at most 50 million pixels, got"),
        ("", [b"\0" * (MAX_BYTES + 1)], "at most 20 MB, got 20.0"),
    ],
)
def test_bad_input_becomes_a_sentence_in_the_page(text, uploads, words):
    explorer = explorer_of()
    explorer.search("green")
    before = explorer.results
    content, buffers = ask(explorer, {"type": "search", "text": text}, *uploads)
    assert content["type"] == "say" and content["wrong"] and words in content["text"] and buffers == []
    assert "Traceback" not in content["text"] and explorer.results is before
    with pytest.raises(ValueError):
        explorer.search(text, *uploads)


@pytest.mark.parametrize("content", [None, 3, {}, {"type": "else"}, {"type": ["load"]}])
def test_messages_of_strangers_are_ignored(content):
    explorer = explorer_of()
    messages = sent(explorer)
    explorer.panel._handle_custom_msg(content, [])
    assert messages == []


def test_callables_that_fail_are_told_too():
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no memory left")

    assert (
        "RuntimeError: no memory left"
        in ask(explorer_of(encode_text=broken), {"type": "search", "text": "a"})[0]["text"]
    )
    explorer = explorer_of(open_splats=broken)
    content, _ = ask(explorer, {"type": "open", "row": 1})
    assert content["wrong"] and "no memory left" in content["text"] and explorer.view is None
    assert "IndexError" in ask(explorer, {"type": "open", "row": 99})[0]["text"]
    assert "KeyError" in ask(explorer, {"type": "open"})[0]["text"]
    content, _ = ask(explorer_of(encode_text=lambda texts: torch.ones(3)), {"type": "search", "text": "a"})
    assert r"encode_text must return a tensor [1, D] for one input, got [3]" in content["text"]
    content, _ = ask(explorer_of(encode_text=lambda texts: torch.ones(1, 5)), {"type": "search", "text": "a"})
    assert "query must be a tensor [3]" in content["text"]
    content, _ = ask(explorer_of(encode_text=lambda texts: torch.zeros(1, 3)), {"type": "search", "text": "a"})
    assert "not zero" in content["text"]


def test_what_was_not_given_is_not_offered():
    explorer = explorer_of(encode_image=None, open_splats=None)
    assert explorer.panel._info["pictures"] is False and explorer.panel._info["opens"] is False
    with pytest.raises(ValueError, match="make the explorer with encode_image="):
        explorer.search(image=tile((1, 2, 3)))
    with pytest.raises(ValueError, match=r"nothing to search for; type a few words$"):
        explorer.search()
    with pytest.raises(ValueError, match="make the explorer with open_splats="):
        explorer.show("1")
    with pytest.raises(KeyError, match="got 'x'"):
        explorer.show("x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 0}, r"k must lie in 1\.\.48"),
        ({"teacher": "other"}, r"the teacher must be colours .* got other; load that teacher"),
        ({"thumbnails": []}, r"one per row of the gallery \(4\), got 0"),
        ({"thumbnails": [tile((0, 0, 0))] * 3 + [b"GIF89a"]}, r"thumbnails\[3\] must be PNG, JPEG or WebP bytes"),
        ({"thumbnails": [np.zeros((4, 4, 3))] * 4}, r"thumbnails\[0\] must be uint8 \[H, W, 3\], got float64"),
        ({"thumbnails": ["a.png"] * 4}, "got str"),
    ],
)
def test_wrong_arguments_are_refused_with_a_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        explorer_of(**changes)


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_uploads_are_upright_opaque_and_of_a_bearable_size():
    wide = np.zeros((100, 3000, 3), np.uint8)
    wide[:, :1500] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = decode_picture(file_of(wide, "JPEG", exif=exif))
    assert turned.shape[0] == SIDE and turned.shape[1] < 50 and turned[0].min() > 250 and turned[-1].max() < 5
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (255, 0, 0, 255)
    flat = decode_picture(file_of(clear, "WEBP", lossless=True))
    assert (flat[:4] == (255, 0, 0)).all() and (flat[4:] == 255).all()
    gray = decode_picture(file_of(np.full((5, 7), 77, np.uint8)))
    assert gray.shape == (5, 7, 3) and (gray == 77).all()


def test_a_saved_notebook_holds_a_sheet_of_the_results():
    explorer = explorer_of()
    data, _ = explorer._repr_mimebundle_()
    assert "no search yet" in data["text/plain"]
    explorer.search(MARKUP + " red")
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data
    assert "1. 0.9" in data["text/plain"] and "a red thing" in data["text/plain"]
    png = base64.b64decode(data["image/png"])
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3).astype(int)
    assert len(png) <= MAX_STILL
    for color in COLORS.values():
        assert (np.abs(sheet - color).max(axis=1) < 8).sum() > 5000
    assert not any("hits" in str(value) for value in explorer.panel.get_state().values() if isinstance(value, dict))


# ---- a page --------------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_person_searches_in_chromium(tmp_path):
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; install Debian's chromium")
    pytest.importorskip("playwright", reason="playwright drives the browser")
    explorer = explorer_of()
    with chromium() as browser, WidgetPage(browser, explorer.panel) as page:
        found = page.page
        captions = lambda: found.locator(".re-caption").all_text_contents()  # noqa: E731
        assert page.text(".re-status") == "4 splats; no search yet" and captions() == []
        found.get_by_label("text to search for").fill("a blue ball")
        found.keyboard.press("Enter")
        assert page.state == "busy"
        page.settle()
        assert captions()[0] == "a blue thing" and page.text(".re-status") == "“a blue ball”: the best 4 of 4"
        assert f"a {MARKUP} thing" in captions() and found.title() == "viewer"  # text, never markup
        found.wait_for_function(
            "() => [...document.querySelectorAll('.re-hit img')].every((i) => i.naturalWidth == 40)"
        )

        (tmp_path / "green.png").write_bytes(file_of(tile((10, 220, 10))))
        found.get_by_label("text to search for").fill("")
        found.get_by_label("picture to search by").set_input_files(tmp_path / "green.png")
        found.wait_for_selector("[data-state=busy]")
        page.settle()
        assert captions()[0] == "a green thing" and page.text(".re-chip span") == "green.png"

        found.get_by_label("remove the picture").click()
        found.get_by_label("text to search for").press("Enter")
        page.pump()
        assert page.state == "wrong" and "nothing to search for" in page.text(".re-status")
        assert captions()[0] == "a green thing"  # the last results stay
        assert found.get_by_role("button", name="Search", exact=True).is_enabled()

        found.get_by_role("button", name="1. a green thing").focus()
        found.keyboard.press("Enter")  # hits are buttons: the keyboard opens them
        page.settle()
        assert explorer.view is not None and "opened a green thing" in page.text(".re-status")
        assert not page.log
        found.evaluate("() => close_view()")
        assert found.locator(".clipgs-re").count() == 0 and found.evaluate("() => model.handlers.length") == 0
