"""The gallery: exact search against a plain sort, query algebra, files and their damage."""

from __future__ import annotations

import pytest
import torch

from clipgs_lib.gallery import Gallery, GalleryError
from clipgs_lib.gallery import search as module

TEACHER = "mini sha256:" + "ab" * 32


def unit(count: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def made(count: int = 30, dim: int = 16) -> Gallery:
    meta = [{"caption": f"thing {i}", "category": "cup" if i % 3 else "bär"} for i in range(count)]
    return Gallery(unit(count, dim), [f"k{i}" for i in range(count)], meta, teacher=TEACHER)


# ---- search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 22])
@pytest.mark.parametrize("count", [1, 5, 130])
def test_search_is_a_full_sort_whatever_the_blocks(monkeypatch, block, count):
    monkeypatch.setattr(module, "BLOCK", block)
    store, queries = made(count), unit(4, seed=1)
    hits = store.search(5 * queries, min(count, 12))
    cosines = queries.double() @ store.embeds.double().T
    order = cosines.argsort(dim=1, descending=True)[:, : min(count, 12)]
    assert torch.equal(hits.indices, order)
    assert torch.allclose(hits.scores.double(), cosines.gather(1, order), atol=1e-6)
    assert hits.keys == [[f"k{i}" for i in line] for line in order.tolist()]


def test_a_notebook_shows_a_table():
    shown = made()._repr_html_()
    assert all(f">{fact}</td>" in shown for fact in ("30", "16", "mini")) and "Gallery(" not in shown


def test_of_equal_scores_the_lower_row_comes_first():
    rows = torch.eye(4)[[2, 0, 1, 0, 2, 0, 3]]
    for query, first in ((torch.eye(4)[0], [1, 3, 5, 0, 2, 4, 6]), (-torch.eye(4)[0], [0, 2, 4, 6, 1, 3, 5])):
        hits = Gallery(rows, list("abcdefg"), teacher=TEACHER).search(query, 7)
        assert hits.indices.tolist() == first  # scores 1, 0, -0.0 and -1, each tied
        assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)


def test_one_query_and_many_agree_and_have_their_shapes():
    store, queries = made(), unit(3, seed=2)
    many, one = store.search(queries, 4), store.search(queries[1], 4)
    assert many.indices.shape == (3, 4) and one.indices.shape == (4,) and one.scores.dtype == torch.float32
    assert torch.equal(many.indices[1], one.indices) and many.keys[1] == one.keys
    none = store.search(torch.empty(0, 16), 4)
    assert none.indices.shape == (0, 4) and none.keys == []


def test_an_object_finds_itself_and_where_narrows():
    store = made()
    query = store.embeds[store.row("k7")]
    assert store.search(query, 1).keys == ["k7"]
    hits = store.search(query, 30, where="category=bär")
    assert set(hits.keys) == {f"k{i}" for i in range(0, 30, 3)}  # fewer than k come when fewer are allowed
    everything = [key for key in store.search(query, 30).keys if key in set(hits.keys)]
    assert hits.keys == everything
    assert store.search(query, 3, where=torch.zeros(30, dtype=torch.bool)).keys == []


def test_search_does_not_depend_on_the_order_of_rows():
    store, query = made(80), unit(1, seed=3)[0]
    turn = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    other = Gallery(store.embeds[turn], [store.keys[i] for i in turn], teacher=TEACHER)
    assert other.search(query, 20).keys == store.search(query, 20).keys


def test_half_precision_rows_are_taken_and_rows_are_not_copied():
    rows = unit(10, 512)
    assert Gallery(rows, range(10), teacher=TEACHER).embeds.data_ptr() == rows.data_ptr()
    assert Gallery(rows.half(), range(10), teacher=TEACHER).embeds.dtype == torch.float32


@pytest.mark.parametrize(
    ("query", "options", "words"),
    [
        (torch.ones(16), {"k": 0}, r"k must lie in 1\.\.30"),
        (torch.ones(16), {"k": 31}, r"k must lie in 1\.\.30, the rows there are, got 31"),
        (torch.ones(15), {}, r"query must be a tensor \[16\] or \[Q, 16\], got \[15\]; is it of the teacher 'mini"),
        (torch.ones(1, 1, 16), {}, r"got \[1, 1, 16\]"),
        ([1.0] * 16, {}, "got list"),
        (torch.zeros(2, 16), {}, "not zero, got a norm of 0 in row 0"),
        (torch.full((16,), float("nan")), {}, "must be finite"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(query, options, words):
    with pytest.raises(ValueError, match=words):
        made().search(query, **options)


@pytest.mark.parametrize(
    ("embeds", "keys", "meta", "teacher", "words"),
    [
        (torch.empty(0, 4), [], None, TEACHER, "at least one row and column"),
        (torch.ones(4), list("abcd"), None, TEACHER, r"\[N, D\], got torch.float32 \[4\]"),
        (torch.ones(2, 2, dtype=torch.int64), list("ab"), None, TEACHER, "floating-point"),
        ([[1.0]], ["a"], None, TEACHER, "got list"),
        (torch.eye(3), list("ab"), None, TEACHER, r"keys must have one entry per row of embeds \(3\), got 2"),
        (torch.eye(2), list("ab"), [{}], TEACHER, "meta must have one entry per row"),
        (torch.eye(3), list("aba"), None, TEACHER, "keys must differ, got 'a' in rows 0 and 2"),
        (torch.eye(2), "ab", None, TEACHER, "got one str"),
        (2 * torch.eye(2), list("ab"), None, TEACHER, r"norm 1, got 2 in row 0 \('a'\), 2 such rows.*divide rows"),
        (torch.tensor([[1.0, 0], [torch.nan, 0]]), list("ab"), None, TEACHER, r"row 1 \('b'\), 1 .*leave the object"),
        (torch.eye(2), list("ab"), None, " ", "teacher must be the identity"),
    ],
)
def test_rows_that_make_no_gallery_are_refused(embeds, keys, meta, teacher, words):
    with pytest.raises(ValueError, match=words):
        Gallery(embeds, keys, meta, teacher=teacher)


def test_an_unknown_key_is_told():
    with pytest.raises(KeyError, match="one of the gallery's 30, got 'x'"):
        made().row("x")


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_gallery_comes_back_as_it_was(tmp_path):
    store = Gallery(unit(3), ["a\u2028b", "ü", "\x85"], [{"x": [1, None, "é\n"]}, {}, {"n": 0.1}], teacher=TEACHER)
    again = Gallery.open(store.save(tmp_path / "new" / "g"), teacher=TEACHER, dim=16)
    assert torch.equal(again.embeds, store.embeds)
    assert (again.keys, again.meta, again.teacher) == (store.keys, store.meta, store.teacher)
    before = {path.name: path.read_bytes() for path in (tmp_path / "new" / "g").iterdir()}
    again.save(tmp_path / "new" / "g")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "new" / "g").iterdir()}


def test_saving_replaces_the_gallery_and_leaves_strangers_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    made(5).save(tmp_path)
    made(9, 8).save(tmp_path)
    assert len(Gallery.open(tmp_path)) == 9
    assert len(list(tmp_path.iterdir())) == 5 and (tmp_path / "notes.txt").read_text() == "mine"


def test_a_save_that_fails_leaves_the_old_gallery(tmp_path, monkeypatch):
    made(5).save(tmp_path)
    store = made(9)
    store.meta[4]["bad"] = torch.ones(1)
    with pytest.raises(GalleryError, match=r"plain JSON, got .*not JSON serializable in 'k4'"):
        store.save(tmp_path)
    store.meta[4]["bad"] = float("nan")
    with pytest.raises(GalleryError, match="plain JSON"):
        store.save(tmp_path)
    store.meta[4]["bad"] = "\ud800"
    with pytest.raises(GalleryError, match="surrogates"):
        store.save(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        made(9).save(tmp_path)
    monkeypatch.undo()
    assert len(Gallery.open(tmp_path)) == 5 and not list(tmp_path.glob(".*"))


def test_another_teacher_is_refused_on_load(tmp_path):
    folder = made().save(tmp_path)
    with pytest.raises(GalleryError, match=r"must be mini sha256:abab.* got ViT-B-32 \(D = 16\); load that teacher"):
        Gallery.open(folder, teacher="ViT-B-32")
    with pytest.raises(GalleryError, match=r"\(D = 16\), whose space .* got mini .*\(D = 512\)"):
        Gallery.open(folder, teacher=TEACHER, dim=512)


def test_thumbnails_and_descriptions_of_rows(tmp_path):
    pictures = [f"webp {i}".encode() if i % 4 else b"" for i in range(30)]
    meta = [{"caption": f"thing {i}", "n": i} for i in range(30)]
    store = Gallery(unit(30), [f"k{i}" for i in range(30)], meta, teacher=TEACHER, thumbnails=pictures)
    for gallery in (store, Gallery.open(store.save(tmp_path))):
        assert [gallery.thumbnail(row) for row in range(30)] == pictures
        assert gallery.describe([7, 3]) == [meta[7], meta[3]] and gallery.captions([5]) == ["thing 5"]
        assert torch.equal(gallery.take([9, 2]), store.embeds[[9, 2]])
    nameless = Gallery(unit(3), list("abc"), [{"category": "mug"}, {"caption": " "}, {"caption": 3}], teacher=TEACHER)
    assert nameless.captions(range(3)) == ["mug", "b", "c"]
    with pytest.raises(ValueError, match="thumbnails must have one entry per row"):
        Gallery(unit(3), list("abc"), teacher=TEACHER, thumbnails=[b""])


def test_a_large_gallery_answers_from_a_sample_of_its_rows(monkeypatch):
    assert torch.equal(made(30).sample, made(30).embeds)
    monkeypatch.setattr("clipgs_lib.gallery.gallery._SAMPLE", 8)
    assert torch.equal(made(30).sample, made(30).embeds[::4])


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("category=mug", "a c"),
        ("category=MUG|bowl", "a b c"),
        ("category!=mug", "b d e"),
        ("faces<20", "a"),
        (["faces>=20", "category=mug"], "c"),
        ("faces=20", "c"),
        ("faces = 2e1", "c"),
        ("caption~STRIPE", "a d"),
        ("caption!~stripe", "b c e"),
        ("tags=hot", "a b"),
        ("tags!=hot", "c d e"),
        ("lit=true", "d"),
        ("key=a|e", "a e"),
        ("caption~a=b", "e"),
        ("faces>1000", ""),
        ("category=__import__('os').remove('/')", ""),
    ],
)
def test_filters_by_text(tmp_path, where, keys):
    meta = [
        {"category": "mug", "faces": 10, "caption": "a striped mug", "tags": ["hot", "cup"]},
        {"category": "Bowl", "faces": 2000, "caption": "<b>bowl</b>", "tags": ["hot"]},
        {"category": "mug", "faces": 20},
        {"caption": "stripes", "lit": True, "faces": "many"},
        {"caption": "x a=b y"},
    ]
    if where == "faces>1000":
        where = ["faces>1000", "category=mug"]
    store = Gallery(unit(5), list("abcde"), meta, teacher=TEACHER)
    for gallery in (store, Gallery.open(store.save(tmp_path))):
        assert sorted(gallery.search(torch.ones(16), 5, where=where).keys) == keys.split()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("category", r"FIELD SIGN VALUE such as category=mug\|cup"),
        ("=mug", "FIELD SIGN VALUE"),
        ("category=", "FIELD SIGN VALUE"),
        ("category<mug", "< must be followed by one number, got 'mug'"),
        ("category<1|2", "one number"),
        ("colour=red", "must be key or one of caption, category; got 'colour'"),
    ],
)
def test_filters_that_do_not_fit_are_refused(tmp_path, where, words):
    for gallery in (made(), Gallery.open(made().save(tmp_path))):
        with pytest.raises(ValueError, match=words):
            gallery.search(torch.ones(16), 3, where=where)
