"""A set being curated: rounds, undo over windows, manifest and filtered set, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipgs_lib.applications.curation import Curation, curated, embeds_of, read_manifest
from clipgs_lib.encoders import build_encoder
from clipgs_lib.errors import ExplainedError
from clipgs_lib.shards import ShardError, ShardSet
from clipgs_lib.vectors import unit

from ...training.samples import KINDS, SMALL, TEACHER, make_object, make_set


class Teacher:
    """Says of a text the direction of its kind."""

    def encode_text(self, texts):
        kind = next(number for number, name in enumerate(KINDS) if name in texts[0])
        return unit(torch.from_numpy(np.random.default_rng(kind).normal(size=(1, TEACHER.dim))))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Seventy objects of a few kinds."""
    return ShardSet(make_set(tmp_path_factory.mktemp("sets") / "kinds"))


@pytest.fixture
def start(shards, tmp_path, monkeypatch):
    """Make a curation of the first kind with its labels in a temporary folder."""
    monkeypatch.setattr(curated, "load_teacher_of", lambda *_, **__: Teacher())
    return lambda who="ada", **changes: Curation(
        **{"shards": shards, "positives": f"a {KINDS[0]}", "labels": tmp_path / "labels.jsonl"}
        | {"encoder": "bag-mean", "labeller": who}
        | changes
    )


def is_kind(key):
    return int(key[-4:]) % len(KINDS) == 0


def label_some(curation, count=20):
    for key in curation.ask(count):
        curation.label(key, "yes" if is_kind(key) else "no")


def test_the_text_ranks_until_there_are_labels_and_the_labels_are_asked_once(start):
    curation = start()
    assert curation.ranking is None and len(curation.keys) == 70
    asked = curation.ask(10)
    assert len(set(asked)) == 10 and is_kind(asked[0])
    curation.label(asked[0], "yes")
    curation.label(asked[1], "skip")
    assert curation.refit() is None and not set(asked[:2]) & set(curation.ask(70))
    label_some(curation)
    assert curation.refit() is not None and curation.ranking.ap.value == 1
    assert sum(curation.counts().values()) == 22 and curation.counts()["skip"] == 1
    assert len(curation.ranking.rows) == 21, "a skip is no label"
    again = start()
    assert again.counts() == curation.counts() and np.array_equal(again.scores, curation.scores), "it goes on"


def test_undo_takes_back_this_windows_last_stroke_then_the_labellers(start):
    one, two = start(), start()
    one.label(one.keys[0], "yes")
    two.label(two.keys[1], "no")
    assert one.undo().key == one.keys[0] and set(one.answers()) == {one.keys[1]}
    later = start()
    assert later.undo().key == later.keys[1] and later.answers() == {} and later.undo() is None
    two.label(two.keys[2], "no")
    assert start("bob").undo() is None, "what others said stays"


def test_a_label_is_for_a_key_of_the_set_and_one_of_three_words(start):
    curation = start()
    for key, answer in (("stranger", "yes"), (curation.keys[0], "maybe"), (curation.keys[0], "undo")):
        with pytest.raises(ValueError, match="yes, no or skip for a key of the set, got"):
            curation.label(key, answer)
    assert curation.answers() == {}


def test_manifest_and_set_hold_what_was_kept_and_why(start, shards, tmp_path):
    curation = start()
    label_some(curation)
    other = start("bob")
    wrong = next(key for key, one in curation.answers().items() if one.answer == "no")
    other.label(wrong, "yes")
    other.label(wrong, "no")
    head = curation.write(tmp_path / "out", 0.9, "clipgs curate ...")
    found, rows = read_manifest(tmp_path / "out" / "curation.jsonl")
    assert found == {name: value for name, value in head.items() if name != "sha256"}
    kept = [row["key"] for row in rows if row["kept"]]
    kind = {key for key in curation.keys if is_kind(key)}
    assert kind <= set(kept) and len(kept) <= 1.4 * len(kind) and found["kept"] == len(kept), "most of it, little else"
    assert [row["key"] for row in rows] == curation.keys
    by_key = {row["key"]: row for row in rows}
    assert by_key[wrong]["reason"] == "no by bob"
    assert [(one["labeller"], one["answer"]) for one in by_key[wrong]["labels"]] == [
        *(("ada", "no"), ("bob", "yes"), ("bob", "no"))
    ]
    assert found["contradictions"] == [f"{wrong}: no by ada, then yes by bob, then no by bob; the last one counts"]
    free = next(row for row in rows if not row["labels"])
    assert free["reason"].startswith(f"probability {free['probability']:.3f} ")
    assert found["gallery"] == shards.manifest["content_sha256"] and found["positives"] == f"a {KINDS[0]}"
    filtered = ShardSet(tmp_path / "out" / "set")
    assert sorted(row["key"] for row in filtered.rows) == sorted(kept) and filtered.verify() == []
    assert filtered.teacher == shards.teacher and filtered.manifest["content_sha256"] == found["kept_sha256"]
    assert filtered.block(kept[0]) == shards.block(kept[0])
    curation.write(tmp_path / "out", 0.3)  # replaced as a whole
    assert len(ShardSet(tmp_path / "out" / "set")) == read_manifest(tmp_path / "out" / "curation.jsonl")[0]["kept"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curation.jsonl", "set"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"kept": true', '"kept": false'),
        ('"target_precision": 0.9', '"target_precision": 0.99'),
        ("no by ada", "no by me"),
    ],
)
def test_a_manifest_edited_by_hand_says_so(start, tmp_path, old, new):
    curation = start()
    label_some(curation)
    curation.write(tmp_path / "out", 0.9)
    path = tmp_path / "out" / "curation.jsonl"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ExplainedError, match="must have the sha256 in its head, got another; it was edited"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "[]\n", "{}\n", "not json\n", '{"format": "clipgs-curation/1"}\n'])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "curation.jsonl").write_text(text)
    with pytest.raises(ExplainedError, match="the manifest must be"):
        read_manifest(tmp_path / "curation.jsonl")


def test_labels_of_one_kind_or_of_another_set_are_refused(start, tmp_path):
    curation = start()
    with pytest.raises(ValueError, match="at least 2 yes and 2 no, got 0 yes and 0 no; label more"):
        curation.select(0.9)
    for key in curation.keys[:5]:
        curation.label(key, "yes")
    with pytest.raises(ValueError, match="got 5 yes and 0 no"):
        curation.write(tmp_path / "out", 0.9)
    assert not (tmp_path / "out").exists()
    another = ShardSet(make_set(tmp_path / "another", train=30))
    with pytest.raises(ExplainedError, match="labels must be of the set with the content"):
        start(shards=another)


def test_an_encoder_embeds_what_the_bag_stands_in_for(shards, monkeypatch):
    bag = embeds_of(shards, "bag-mean")
    first = unit(torch.from_numpy(shards.read(0).image_embeds.astype(np.float32)).mean(dim=0))
    assert np.allclose(bag[0], first, atol=1e-3)
    torch.manual_seed(0)
    encoder = build_encoder("clipgs-mini", TEACHER.dim, **SMALL)
    monkeypatch.setattr(curated, "load_encoder", lambda *_, **__: encoder)
    embeds = embeds_of(shards, "clipgs-mini")
    assert embeds.shape == (70, TEACHER.dim) and np.allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-5)
    assert np.allclose(embeds[3], encoder.encode([shards.read(3).splats])[0].numpy(), atol=1e-2)


def test_a_set_without_a_teacher_and_a_text_without_words_are_refused(start, shards, tmp_path):
    from clipgs_lib.shards.triplet import encode_triplet
    from clipgs_lib.shards.writer import write_set

    (tmp_path / "bare").mkdir()
    bare = (replace(make_object(n, "train"), teacher=None, image_embeds=None, text_embeds=None) for n in range(4))
    write_set(tmp_path / "bare", map(encode_triplet, bare), build={"what": "test"})
    with pytest.raises(ShardError, match="the set must have embeddings, got none; embed it"):
        start(shards=ShardSet(tmp_path / "bare"))
    with pytest.raises(ValueError, match="a text must say what is looked for"):
        start(positives=" ")


def test_the_manifest_is_plain_json_lines(start, tmp_path):
    curation = start()
    label_some(curation)
    curation.write(tmp_path / "out", 0.9)
    lines = (tmp_path / "out" / "curation.jsonl").read_text().splitlines()
    assert len(lines) == 71 and all(isinstance(json.loads(line), dict) for line in lines)
