"""Sessions: one state, one function for each action, pictures of people, filters, marks, files, and why."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from clipgs_lib import read_splats
from clipgs_lib.encoders import load_encoder
from clipgs_lib.gallery import Gallery, GalleryError, Part, Session, ask
from clipgs_lib.gallery.session import MAX_UPLOAD
from clipgs_lib.vectors import unit

from ..conftest import make_splats

MARKUP = "<img src=x onerror=\"document.title='run'\">"
COLORS = {"red": (200, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 200), MARKUP: (120, 120, 120)}
TEACHER = "colours sha256:" + "0" * 64


class ColorTeacher:
    """A teacher of colour names and mean colours."""

    identity, embed_dim, logit_scale = TEACHER, 3, 20.0

    def encode_text(self, texts):
        names = ("red", "green", "blue")
        return unit(torch.tensor([[float(name in text) + 0.05 for name in names] for text in texts]))

    def encode_image(self, pictures):
        return unit(torch.stack([torch.from_numpy(np.array(one)).float().mean(dim=(0, 1)) for one in pictures]))

    def zero_shot_weights(self, labels, templates):
        return self.encode_text(labels)


def tile(color, size=40):
    return np.full((size, size, 3), color, np.uint8)


def file_of(picture, kind="PNG", **options):
    stream = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def gallery_of(times=1, **changes):
    """The four colours, several times; later ones are a little brighter."""
    colors = torch.tensor(list(COLORS.values()), dtype=torch.float32).repeat(times, 1)
    embeds = unit(colors + torch.arange(len(colors))[:, None] / 10)
    names = list(COLORS) * times
    splits = ["train", "test"] * (2 * times)
    meta = [
        {"caption": f"a {name} thing", "category": f"{name} kind", "split": split}
        for name, split in zip(names, splits, strict=True)
    ]
    pictures = [file_of(tile(color), "WEBP") for color in list(COLORS.values()) * times]
    options = {"teacher": TEACHER, "thumbnails": pictures} | changes
    return Gallery(embeds, [str(row) for row in range(len(embeds))], meta, **options)


def session_of(times=1, **options):
    return Session(gallery_of(times), ColorTeacher(), open_splats=lambda key: make_splats(20, seed=int(key)), **options)


# ---- actions -------------------------------------------------------------------------------------------------------


def test_texts_pictures_shapes_and_mixtures():
    session = session_of()
    assert session.search() == [] and session.answer is None and session.note == "4 splats; no search yet"
    assert session.search("something  blue\n")[0].key == "2" and session.note == "1 to 4 of 4 splats"
    for picture in (tile((10, 200, 10)), file_of(tile((10, 200, 10)), "JPEG"), Image.new("RGB", (9, 9), (0, 255, 0))):
        assert session.search(image=picture)[0].key == "1"
    assert session.search(like="0")[0].key == "0" and session.search("red", minus="blue")[-1].key == "2"
    both = [hit.key for hit in session.search("red", image=tile((10, 10, 200)))]
    assert both[-1] == "1" and len(session.state.parts) == 2
    weighed = session.change(parts=[Part("text", "red", 0.1), session.state.parts[1]])
    assert weighed.hits[0].key == "2", "the picture has the say now"
    assert session.search("") == [], "old hits go with the query"


def test_pages_filters_and_what_is_chosen_on_the_map():
    session = session_of(5, per_page=6)
    session.search("red")
    first = [hit.key for hit in session.hits]
    session.change(page=1)
    assert session.note == "7 to 12 of 20 splats" and not set(first) & {hit.key for hit in session.hits}
    session.change(page=99)
    assert session.state.page == 3 and len(session.hits) == 2, "the last page"
    session.change(split="test")
    assert session.state.page == 0 and {hit.row % 2 for hit in session.hits} == {1}
    assert session.note == "1 to 6 of 10 splats that the filter lets through, of 20"
    session.change(split="", category="BLUE")
    assert {hit.caption for hit in session.hits} == {"a blue thing"}, "a part of a category will do"
    session.change(category="", among=["3", "5"])
    assert {hit.key for hit in session.hits} == {"3", "5"}
    session.change(category="purple")
    assert session.hits == [] and session.note == "none of 20 splats passes the filter"


def test_an_export_takes_the_objects_of_the_lasso_or_the_hits_of_the_page(tmp_path):
    session = session_of(2, per_page=3)
    session.search("red")
    table = pandas.read_parquet(session.export(tmp_path / "hits"))
    assert table.key.tolist() == [hit.key for hit in session.hits]
    session.change(among=["6", "1"])
    table = pandas.read_parquet(session.export(tmp_path / "lasso"))
    assert sorted(table.key) == ["1", "6"]
    for key, file in zip(table.key, table.file, strict=True):
        assert torch.allclose(read_splats(tmp_path / "lasso" / file).means, session.splats(key).means)
    with pytest.raises(GalleryError, match="got 0 objects"):
        session_of().export(tmp_path / "none")


def test_marks_go_with_another_query_but_not_with_another_weight():
    session = session_of(3)
    session.search("red")
    session.change(more=["2"], less=["0"])
    assert [term.name for term in session.answer.query.terms] == [
        "red",
        "more like a blue thing",
        "less like a red thing",
    ]
    session.change(parts=[Part("text", "red", 0.5)])
    assert session.state.more == ("2",)
    session.change(parts=[Part("text", "green")])
    assert session.state.more == session.state.less == () and len(session.answer.query.terms) == 1


def test_a_state_that_cannot_be_answered_leaves_the_one_before():
    session = session_of()
    session.search("green")
    before = session.state, session.answer
    for fields, error, words in (
        ({"parts": [Part("text", "the")]}, ValueError, "must say what to look for"),
        ({"parts": [Part("text", "x" * 2001)]}, ValueError, "at most 2,000 characters, got 2,001"),
        ({"parts": [{"kind": "smell", "name": "x"}]}, ValueError, "must be one of text, picture, shape, got 'smell'"),
        ({"parts": [Part("text", "red", 0.0)]}, ValueError, "give a text, a picture or a shape a weight"),
        ({"parts": [Part("shape", "nobody")]}, KeyError, "got 'nobody'"),
        ({"index": "other"}, KeyError, "got 'other'"),
        ({"colour": "red"}, ValueError, "unknown colour"),
        ({"page": "1"}, ValueError, "page must be"),
    ):
        with pytest.raises(error, match=words):
            session.change(**fields)
        assert (session.state, session.answer) == before


def test_another_index_answers_the_same_query():
    bright = gallery_of(encoder="bright")
    session = Session({"plain": gallery_of(), "bright": bright}, ColorTeacher(), start="blue")
    assert session.gallery is not bright and session.state.index == "plain"
    session.change(index="bright")
    assert session.gallery is bright and session.hits[0].key == "2" and session.state.parts[0].name == "blue"
    with pytest.raises(GalleryError, match="the teacher must be other"):
        Session(gallery_of(teacher="other sha256:00"), ColorTeacher())
    with pytest.raises(ValueError, match="per_page must lie in"):
        session_of(per_page=0)


def test_two_indexes_side_by_side_answer_one_query():
    few = gallery_of(2)
    other = Gallery(few.embeds[2:6], few.keys[2:6], few.meta[2:6], teacher=TEACHER)
    session = Session({"plain": gallery_of(3), "other": other}, ColorTeacher(), per_page=4)
    session.change(compare="other")
    assert session.answers == {} and session.hits_of("other") == []
    session.search("red")
    assert list(session.answers) == ["plain", "other"] and session.answer is session.answers["plain"]
    alone = ask(other, session.answer.query, 4)
    assert [hit.key for hit in session.hits_of("other")] == [hit.key for hit in alone.hits]
    both = {hit.key for hit in session.hits} & {hit.key for hit in alone.hits}
    assert session.note == f"1 to 4 of 12 splats; {len(both)} of them beside, too" and both
    session.change(category="blue")
    assert {hit.caption for name in session.answers for hit in session.hits_of(name)} == {"a blue thing"}
    session.change(category="", more=["0"], among=["0", "2", "3"])
    assert len(session.answer.query.terms) == 2 and len(session.answers["other"].query.terms) == 1
    assert {hit.key for hit in session.hits_of("other")} == {"2", "3"}, "what the other has not is no fault of it"
    session.change(more=[], among=[], index="other")
    assert (session.state.index, session.state.compare) == ("other", "plain"), "they change places"
    assert list(session.answers) == ["other", "plain"] and len(session.hits_of("plain")) == 4
    session.change(compare="other")
    assert session.state.compare == "" and list(session.answers) == ["other"]
    before = session.state, session.answers
    with pytest.raises(KeyError, match="index must be one of plain, other, got 'nobody'"):
        session.change(compare="nobody")
    assert (session.state, session.answers) == before


def test_a_file_keeps_the_state_for_the_same_start(tmp_path):
    path = tmp_path / "session.json"
    session = session_of(3, file=path, start="red")
    session.search("green", image=tile((0, 0, 255)))
    session.change(more=["2"], split="train")
    again = session_of(3, file=path, start="red")
    assert again.state == session.state and [hit.key for hit in again.hits] == [hit.key for hit in session.hits]
    assert session_of(3, file=path, start="blue").state.parts == (Part("text", "blue"),)
    for damage in (
        "{",
        "[]",
        json.dumps({"start": "red", "state": {"parts": 3}}),
        json.dumps({"start": "red", "state": {"more": ["99"], "parts": []}}),
    ):
        path.write_text(damage)
        assert session_of(3, file=path, start="red").state.parts == (Part("text", "red"),)


def test_details_and_neighbours():
    session = session_of(2)
    details = session.details("0")
    assert details["facts"] == {"split": "train"} and details["neighbours"][0][0] == 4
    assert 0 not in [row for row, _ in details["neighbours"]] and len(details["neighbours"]) == 6
    words = {"key": "2", "category": "blue kind", "split": "train", "caption": "a blue thing"}
    assert session.gallery.card(2) == words
    assert len(session.open("3")) == 20 and session.state.opened == "3"
    with pytest.raises(KeyError):
        session.open("nobody")


def test_the_map_is_the_principal_components():
    session = session_of(5)
    places = session.positions()
    rows = session.gallery.embeds - session.gallery.embeds.mean(dim=0)
    left, strong, _ = torch.linalg.svd(rows, full_matrices=False)
    expected = (left * strong)[:, :2]
    expected = expected / expected.abs().amax(dim=0)
    assert places.shape == (20, 2) and float(places.abs().max()) <= 1 + 1e-6
    assert torch.allclose(places.abs(), expected.abs(), atol=1e-3)


def test_tsne_keeps_neighbours_together_and_is_remembered():
    session = session_of(12)
    places = session.positions("t-sne")
    assert places.shape == (48, 2) and float(places.abs().max()) == pytest.approx(1)
    assert session.positions("t-sne") is places, "computed once"
    assert torch.equal(session_of(12).positions("t-sne"), places), "the same each time"
    far = torch.cdist(places, places)
    same = torch.arange(48)[:, None] % 4 == torch.arange(48) % 4
    assert far[same].mean() < 0.5 * far[~same].mean(), "objects of a colour lie together"
    with pytest.raises(ValueError, match="t-SNE must have 3 to 16,384 objects, got 2; choose PCA"):
        Session(Gallery(unit(torch.eye(3)[:2]), ["a", "b"], teacher=TEACHER), ColorTeacher()).positions("t-sne")
    with pytest.raises(ValueError, match="a map must be pca or t-sne, got 'umap'"):
        session.positions("umap")


# ---- pictures of people --------------------------------------------------------------------------------------------


def png_bomb():
    """A PNG that says it has 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = b""
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "intact file of the kinds PNG, JPEG.* got an empty file"),
        (b"not a picture", "intact file of the kinds"),
        (file_of(tile((1, 2, 3), 200))[:-60], "must be whole"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "intact file of the kinds"),
        (png_bomb(), "pixels"),
        (b"\0" * (MAX_UPLOAD + 1), "at most 20 MB, got 20.0"),
    ],
)
def test_what_is_no_picture_becomes_a_sentence(data, words):
    session = session_of(start="red")
    before = session.state
    with pytest.raises(ValueError, match=words):
        session.search(image=data)
    with pytest.raises(ValueError):
        session.change(parts=[Part("picture", "p", 1.0, base64.b64encode(data).decode() or "!")])
    assert session.state == before


def test_pictures_of_all_kinds_are_read_and_kept_small():
    session = session_of()
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = np.zeros((300, 3000, 3), np.uint8)
    wide[:] = (10, 10, 240)
    frames = [Image.new("RGB", (30, 30), color) for color in ((0, 0, 255), (255, 0, 0))]
    blue = [
        file_of(wide, "JPEG", exif=turned),
        file_of(Image.new("CMYK", (20, 20), (255, 255, 0, 0)), "JPEG"),
        file_of(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        file_of(Image.new("RGBA", (20, 20), (0, 0, 255, 255)), "WEBP", lossless=True),
    ]
    for data in blue:
        assert session.search(image=data)[0].key == "2"
        kept = base64.b64decode(session.state.parts[0].picture)
        assert len(kept) < 20_000 and max(Image.open(io.BytesIO(kept)).size) <= 448
    assert session.search(image=np.full((9, 9), 40_000, np.uint16))[0].key == "3", "16 bits, grey"


# ---- why -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("clipgs-mini")


def test_relevance_is_what_the_cosine_loses_without_a_patch(encoder):
    splats = make_splats(300, seed=0)
    direction = unit(torch.randn(encoder.embed_dim, generator=torch.Generator().manual_seed(0)))
    values, indices, mask = encoder.relevance(splats, direction)
    tokens = encoder.tokens(splats)
    assert mask.equal(tokens.mask[0]) and indices.equal(tokens.indices[0])
    whole = float(encoder.encode([splats])[0] @ direction)
    for patch in (0, 7, int(mask.sum()) - 1):
        without = tokens.mask.clone()
        without[0, patch] = False
        with torch.no_grad():
            left = unit(encoder.eval().embed(tokens._replace(mask=without)))[0] @ direction
        assert float(values[patch]) == pytest.approx(whole - float(left), abs=1e-5)
    assert (values[~mask].abs() < 1e-5).all(), "what is masked anyway changes nothing"
    assert not torch.allclose(values[mask], torch.zeros(1), atol=1e-5)


def test_a_session_says_of_each_gaussian_how_it_speaks_for_a_term(encoder):
    splats = [make_splats(200, seed=seed) for seed in range(3)]
    gallery = Gallery(
        encoder.encode(splats), list("abc"), teacher=encoder.info["teacher"]["identity"], encoder=encoder.identity
    )

    class Teacher(ColorTeacher):
        identity, embed_dim = gallery.teacher, gallery.dim

        def encode_text(self, texts):
            return unit(torch.randn(len(texts), self.embed_dim, generator=torch.Generator().manual_seed(1)))

    session = Session(gallery, Teacher(), encoder=encoder)
    with pytest.raises(ValueError, match="one of the 0 of the query, got 0; search first"):
        session.relevance(splats[0])
    session.search("a cup")
    assert session.explains
    values, tokens = session.relevance(splats[0]), encoder.tokens(splats[0])
    assert values.shape == (200,) and values.isfinite().any()
    patch_values, indices, mask = encoder.relevance(splats[0], session.answer.query.terms[0].embeds)
    row = int(indices[0, 0])
    holding = [p for p in mask.nonzero()[:, 0].tolist() if row in indices[p].tolist()]
    assert float(values[row]) == pytest.approx(float(patch_values[holding].mean()), abs=1e-6)
    assert tokens.mask[0].equal(mask)
    bag = Session(gallery, Teacher(), start="a cup")
    assert not bag.explains
    with pytest.raises(ValueError, match="choose that index"):
        bag.relevance(splats[0])
