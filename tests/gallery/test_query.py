"""Queries of several terms: comparable scores, contributions, marked hits, near-duplicates, and bad input."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.gallery import (
    Gallery,
    GalleryError,
    Query,
    Question,
    Term,
    ask,
    picture_term,
    precision_of_queries,
    row_term,
    sense_rows,
    text_term,
    zero_shot_labels,
)
from clipgs_lib.gallery import query as module
from clipgs_lib.vectors import unit

TEACHER = "fake sha256:" + "cd" * 32


class FakeTeacher:
    """Texts are hashed to directions; a picture is its mean colour in the first three numbers."""

    identity, embed_dim, logit_scale = TEACHER, 16, 50.0

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode_text(self, texts):
        self.seen += list(texts)
        seeds = [sum(map(ord, text)) for text in texts]
        return unit(torch.stack([torch.randn(16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]))

    def encode_image(self, pictures):
        from clipgs_lib.teachers.preprocess import read_picture

        means = [read_picture(picture).float().mean(dim=(0, 1)) / 255 for picture in pictures]
        return unit(torch.cat([torch.stack(means) + 0.1, torch.zeros(len(means), 13)], dim=1))

    def zero_shot_weights(self, labels, templates):
        return self.encode_text([templates[0].replace("{}", label) for label in labels])


def gallery(count: int = 200) -> Gallery:
    """Rows that lean to one side, as embeddings of a tower do."""
    rows = unit(torch.randn(count, 16, generator=torch.Generator().manual_seed(1)) + 1.5 * torch.eye(16)[0])
    meta = [{"caption": f"<i>thing {i}</i>", "category": "cup" if i % 2 else "bowl"} for i in range(count)]
    return Gallery(rows, [f"k{i}" for i in range(count)], meta, teacher=TEACHER)


def term(seed: int, weight: float = 1.0, pull: float = 0.0, kind: str = "text") -> Term:
    vector = torch.randn(16, generator=torch.Generator().manual_seed(seed)) + pull * torch.eye(16)[0]
    return Term(kind, f"term {seed}", unit(vector), weight)


def test_scores_are_standardised_sums_and_the_best_come_first():
    store, terms = gallery(), (term(1), term(2, 0.7, pull=3.0, kind="shape"), term(3, -0.4))
    answer = ask(store, Query(terms), 15)
    cosines = store.embeds.double() @ torch.stack([one.embeds for one in terms]).double().T
    parts = (cosines - cosines.mean(0)) / cosines.std(0, correction=0) * torch.tensor([one.weight for one in terms])
    scores = parts.sum(1) / parts.sum(1).std(correction=0)
    assert [hit.row for hit in answer.hits] == scores.argsort(descending=True)[:15].tolist()
    assert [hit.rank for hit in answer.hits] == list(range(1, 16)) and answer.rows == 200
    for hit in answer.hits:
        assert hit.score == pytest.approx(float(scores[hit.row]), abs=1e-4)
        assert sum(hit.contributions) == pytest.approx(hit.score, abs=1e-5)
        assert hit.contributions == pytest.approx((parts / parts.sum(1).std(correction=0))[hit.row].tolist(), abs=1e-4)
        assert hit.cosines == pytest.approx(cosines[hit.row].tolist(), abs=1e-5)
    assert torch.allclose(answer.background.double(), scores, atol=1e-4)
    assert float(answer.background.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_terms_of_other_kinds_weigh_alike():
    """A text, whose cosines hardly differ, and a shape, whose cosines are all large, share the say."""
    store, text, shape = gallery(), term(1), term(2, pull=6.0, kind="shape")
    answer = ask(store, Query((text, shape)), 200)
    shares = torch.tensor([hit.contributions for hit in answer.hits])
    assert shares[:, 0].std() == pytest.approx(float(shares[:, 1].std()), rel=1e-3)
    assert shares.mean(dim=0).abs().max() < 1e-4


def test_weights_count_by_their_proportion_and_sign():
    store = gallery()
    keys = [hit.key for hit in ask(store, Query((term(1, 1.0), term(2, 0.5))), 9).hits]
    assert [hit.key for hit in ask(store, Query((term(1, 20.0), term(2, 10.0))), 9).hits] == keys
    away = ask(store, Query((term(1, -1.0),)), 200)
    assert [hit.row for hit in away.hits] == [hit.row for hit in ask(store, Query((term(1),)), 200).hits][::-1]
    assert [hit.key for hit in ask(store, Query((term(1, 1.0), term(2, 0.5), term(3, 0.0))), 9).hits] == keys


def test_marked_hits_pull_and_push():
    store, query = gallery(), Query((term(1),))
    plain = {hit.key: hit.score for hit in ask(store, query, 200).hits}
    marked = query.marked(store, more=["k5", "k9"], less=["k7"])
    found = {hit.key: hit.score for hit in ask(store, marked, 200).hits}
    assert found["k5"] > plain["k5"] and found["k9"] > plain["k9"]
    less = {hit.key: hit.score for hit in ask(store, query.marked(store, less=["k7"]), 200).hits}
    assert less["k7"] < plain["k7"]
    assert [round(one.weight, 3) for one in marked.terms] == [1, 0.75, -0.25]
    assert marked.terms[1].name == "more like <i>thing 5</i>, <i>thing 9</i>"
    assert query.marked(store).terms == query.terms
    with pytest.raises(KeyError, match="got 'nobody'"):
        query.marked(store, more=["nobody"])


def test_near_duplicates_go_under_the_better_one():
    base = gallery(40)
    copies = unit(base.embeds.repeat_interleave(3, dim=0) + 1e-3 * torch.randn(120, 16))
    store = Gallery(copies, [f"{i // 3}-{i % 3}" for i in range(120)], teacher=TEACHER)
    answer = ask(store, Query((term(1),)), 10, collapse=0.99)
    names = [hit.key.split("-")[0] for hit in answer.hits]
    assert len(set(names)) == 10 and all(len(hit.alike) == 2 for hit in answer.hits[:9])
    assert all(other.split("-")[0] == hit.key.split("-")[0] for hit in answer.hits for other in hit.alike)
    everything = ask(store, Query((term(1),)), 100, collapse=0.99)
    assert len(everything.hits) == 40 and sum(1 + len(hit.alike) for hit in everything.hits) == 120


def test_filters_more_hits_than_rows_and_none():
    store = gallery(20)
    assert len(ask(store, Query((term(1),)), 500).hits) == 20
    answer = ask(store, Query((term(1),)), 5, where="category=bowl")
    assert answer.rows == 10 and all(hit.row % 2 == 0 for hit in answer.hits)
    none = ask(store, Query((term(1),)), 5, where=torch.zeros(20, dtype=torch.bool))
    assert none.hits == () and none.rows == 0 and not none.fits and none.to_plain()["fit"] is None
    one = Gallery(store.embeds[:1], ["a"], teacher=TEACHER)
    assert ask(one, Query((term(1),)), 3).hits[0].score == pytest.approx(0, abs=1e-3)


def test_texts_say_whether_anything_fits():
    teacher, store = FakeTeacher(), gallery()
    rows = store.embeds.clone()
    rows[3] = unit(teacher.encode_text(["a red mug"])[0])
    store = Gallery(rows, store.keys, store.meta, teacher=TEACHER)
    good, poor = (ask(store, Query((text_term(teacher, text),))) for text in ("a red mug", "a bassoon"))
    assert good.hits[0].key == "k3" and good.fits and not poor.fits and good.fit > poor.fit
    plain = good.to_plain()
    assert plain["fits"] is True and plain["terms"] == [{"kind": "text", "name": "a red mug", "weight": 1.0}]
    assert plain["hits"][0]["caption"] == "<i>thing 3</i>"


def test_terms_of_all_kinds(tmp_path):
    teacher, store = FakeTeacher(), gallery()
    red = np.zeros((4, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    for picture in (red, Image.fromarray(red), Image.fromarray(red).convert("CMYK")):
        assert torch.allclose(picture_term(teacher, picture).embeds[:3], unit(torch.tensor([1.1, 0.1, 0.1])), atol=0.02)

    frames = [Image.fromarray(red), Image.new("RGB", (4, 4), "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert torch.allclose(
        picture_term(teacher, tmp_path / "moving.gif").embeds[:3], unit(torch.tensor([1.1, 0.1, 0.1]))
    )
    deep = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    assert torch.allclose(picture_term(teacher, deep).embeds[:3], unit(torch.ones(3)))
    like = ask(store, Query((row_term(store, "k8"),)))
    assert like.hits[0].key == "k8" and like.query.terms[0].name == "<i>thing 8</i>"


def test_templates_and_odd_texts_stay_texts(tmp_path):
    teacher = FakeTeacher()
    text_term(teacher, "  a\n {0.__class__} ", templates=("{}", "this is {}"))
    assert teacher.seen[:2] == ["a {0.__class__}", "this is a {0.__class__}"]
    both = text_term(teacher, "mug", templates=("a {}", "one {}")).embeds
    assert torch.allclose(both, unit(teacher.encode_text(["a mug", "one mug"]).mean(dim=0)))
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    for text in (str(secret), "<img src=x onerror=alert(1)>", "כיסא", "🚗🚗", "the who", "../../etc/passwd"):
        teacher.seen.clear()
        assert text_term(teacher, text).name == text and teacher.seen[0] == text


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "must say what to look for, got ''; type a few words"),
        (" \n\t", {}, "must say what to look for"),
        ("The, of A", {}, "must say what to look for, got 'The, of A'"),
        ("x" * 100_000, {}, "at most 2,000 characters, got 100,000; shorten it"),
        ("mug", {"templates": ("a thing",)}, "templates must be texts with {}"),
        ("mug", {"templates": ()}, "templates must be texts with {}"),
        ("mug", {"weight": math.nan}, "weights must be finite, got nan for 'mug'"),
    ],
)
def test_texts_that_make_no_term_are_refused(text, options, words):
    with pytest.raises(ValueError, match=words):
        text_term(FakeTeacher(), text, **options)


def test_a_picture_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    for picture in (tmp_path / "a.png", tmp_path / "missing.png", 3):
        with pytest.raises(ValueError, match="must be"):
            picture_term(FakeTeacher(), picture)


@pytest.mark.parametrize(
    ("query", "options", "words"),
    [
        (Query(()), {}, "there is nothing to search for"),
        (Query((term(1, 0.0),)), {}, "there is nothing to search for"),
        (Query((term(1), term(1, -1.0))), {}, "cancel"),
        (Query((term(1),)), {"k": 0}, "k must be at least 1, got 0"),
        (Query((term(1),)), {"collapse": 0.0}, r"a cosine in \(0, 1\], got 0.0"),
        (Query((term(1),)), {"where": "nonsense"}, "FIELD SIGN VALUE"),
    ],
)
def test_questions_that_make_no_sense_are_refused(query, options, words):
    with pytest.raises(ValueError, match=words):
        ask(gallery(20), query, **options)


def test_zero_shot_labels_are_the_nearest():
    teacher, store = FakeTeacher(), gallery(30)
    labels, shares = zero_shot_labels(store, teacher, ["mug", "bowl", "car"], ("a {}",))
    weights = teacher.encode_text(["a mug", "a bowl", "a car"])
    chances = (50 * store.embeds @ weights.T).softmax(1)
    assert labels == [["mug", "bowl", "car"][i] for i in chances.argmax(1)]
    assert torch.allclose(shares, chances.max(1).values, atol=1e-5)
    teacher.identity = "other"
    with pytest.raises(GalleryError, match="the teacher must be fake"):
        zero_shot_labels(store, teacher, ["mug"])


def test_words_that_scores_are_held_against_are_embedded_once(monkeypatch):
    teacher = FakeTeacher()
    text_term(teacher, "mug")
    text_term(teacher, "cup")
    assert teacher.seen.count("furniture") == 1 and set(module._EVERYDAY) <= set(teacher.seen)


def test_precision_of_queries_counts_right_categories_among_the_first():
    teacher = FakeTeacher()
    chair, tree = teacher.encode_text(["a chair", "a tree"])
    rows = unit(torch.stack([chair + 0.01 * i * tree for i in range(4)] + [tree + 0.01 * i * chair for i in range(6)]))
    kinds = ["chair", "Armchair", "tree", "bar chair"] + ["palm tree"] * 5 + ["chair"]
    meta = [{"category": kind} for kind in kinds]
    store = Gallery(rows, [str(i) for i in range(10)], meta, teacher=TEACHER)
    queries = asked({"a chair": ["chair"], "a tree": ["tree", "bush"], "a dog": ["dog", "do(g"]})
    assert precision_of_queries(store, teacher, queries) == {"a chair": 1 / 3, "a tree": 1.0}  # an armchair is no chair
    assert precision_of_queries(store, teacher, queries, k=1) == {"a chair": 1.0, "a tree": 1.0}


def asked(queries: dict[str, list[str]], **photos: str) -> list[Question]:
    return [Question(text, right=tuple(words), photo=photos.get(words[0], "")) for text, words in queries.items()]


def test_precision_of_pictures_leaves_out_the_object_that_is_shown_but_in_a_photograph(tmp_path):
    def webp(color):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), color).save(stream, "WEBP", lossless=True)
        return stream.getvalue()

    teacher, red, blue = FakeTeacher(), (255, 0, 0), (0, 0, 255)
    colors = [red, blue, red, blue]
    rows = teacher.encode_image([Image.new("RGB", (8, 8), color) for color in colors])
    meta = [{"category": kind} for kind in ("car", "boat", "car", "lonely boat")]
    store = Gallery(rows, list("abcd"), meta, teacher=TEACHER, thumbnails=[webp(color) for color in colors])
    words = {"a car": ["car"], "a boat": ["boat"], "alone": ["lonely"]}
    queries = asked(words)
    assert precision_of_queries(store, teacher, queries, kinds=["picture"]) == {"a car": 1.0, "a boat": 1.0}
    both = precision_of_queries(store, teacher, queries, kinds=["text", "picture"])
    assert set(both) == {"a car", "a boat"}, "the only right object is the one that is shown"
    # a photograph shows none of the objects, so all that are right count
    Image.new("RGB", (9, 7), blue).save(tmp_path / "boat.png")
    pictured = asked(words, lonely="boat.png", car="boat.png")
    shares = precision_of_queries(store, teacher, pictured, kinds=["picture"], photos=tmp_path)
    assert shares == {"a car": 0.0, "a boat": 1.0, "alone": 0.0}, "the other blue one is the better, by its row"
    assert precision_of_queries(store, teacher, pictured, kinds=["picture"]) == {"a car": 1.0, "a boat": 1.0}
    rows = sense_rows({"one": store}, teacher, pictured, tmp_path)
    assert [(row["asked by"], row["questions"], row["photographs"]) for row in rows] == [
        ("words", 3, 0), ("a picture", 3, 2), ("both", 3, 2),
    ]  # fmt: skip
    assert [row["photographs"] for row in sense_rows({"one": store}, teacher, pictured)] == [0, 0, 0]
    with pytest.raises(ValueError, match=r"gone\.png' must be a file, got none there"):
        precision_of_queries(store, teacher, asked(words, car="gone.png"), kinds=["picture"], photos=tmp_path)
