"""The audit of a set: planted faults are seen, each by what it is, and a clean set has none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from clipgs_lib.captions.caption import Caption
from clipgs_lib.cli import app
from clipgs_lib.evaluation.audit import AuditConfig, audit_set, write_audit
from clipgs_lib.shards import ShardError
from clipgs_lib.shards.triplet import TeacherInfo, encode_triplet
from clipgs_lib.shards.writer import write_set

from ..shards.shard_samples import make_set, make_triplet

KINDS, EACH, DIM = 4, 6, 48
NASTY = "<script>alert('x')</script>"


def unit(row):
    return (row / np.linalg.norm(row)).astype(np.float16)


def clean_objects():
    """Four kinds of six objects about their kind's axis, each with its kind's text and one that is its alone."""
    out = []
    for number in range(KINDS * EACH):
        kind, rng = number % KINDS, np.random.default_rng(number)
        axis = np.eye(DIM)[kind]
        row = axis + 0.6 * np.eye(DIM)[KINDS + number] + 0.02 * rng.normal(size=DIM)
        out.append(
            make_triplet(
                number,
                split=("train", "train", "train", "test")[number // KINDS % 4],
                category=f"kind {kind}",
                teacher=TeacherInfo("stand-in/1", DIM),
                provenance={"licence": "CC0-1.0", "group": f"group {number}"},
                texts=(Caption(f"kind {kind}", "filtered"), Caption(f"thing {number}", "filtered")),
                image_embeds=np.stack([unit(row)] * 2),
                text_embeds=np.stack([unit(axis), unit(row)]),
            )
        )
    return out


def audit_of(objects, folder, config=None):
    folder.mkdir()
    write_set(folder, [encode_triplet(t) for t in sorted(objects, key=lambda t: t.split)], build={"what": "test"})
    return audit_set(folder, config)


def other_than(triplet, **changes):
    """A new object of the same label in the test split, that nothing ties to ``triplet`` but ``changes``."""
    fresh = make_triplet(900)
    new = replace(triplet, key="planted", split="test", views=fresh.views, texts=triplet.texts[:1])
    row = np.eye(DIM)[0] + 0.6 * np.eye(DIM)[DIM - 1]
    new = replace(new, provenance={"group": "another"}, image_embeds=np.stack([unit(row)] * 2))
    return replace(new, text_embeds=triplet.text_embeds[:1], **changes)


def test_a_clean_set_has_no_faults(tmp_path):
    audit = audit_of(clean_objects(), tmp_path / "set")
    assert audit.clean and not audit.split and audit.objects == 24, audit
    assert audit.masks() == {}
    again = audit_of([*clean_objects(), other_than(clean_objects()[0])], tmp_path / "more")
    assert again.clean  # so what the next test sees is what it planted


@pytest.mark.parametrize("kind", ["geometry", "pictures", "embeddings"])
def test_a_duplicate_across_splits_is_seen_by_each_of_its_signs(tmp_path, kind):
    objects = clean_objects()
    first = objects[0]
    signs = {
        "geometry": {"provenance": first.provenance},
        "pictures": {"views": first.views},
        "embeddings": {"image_embeds": first.image_embeds},
    }
    audit = audit_of([*objects, other_than(first, **signs[kind])], tmp_path / "set")
    [pair] = audit.duplicates
    assert set(pair.keys) == {first.key, "planted"} and set(pair.splits) == {"train", "test"} and pair.by == (kind,)
    assert audit.split == {first.key: "test"}  # nothing moves into training


def test_chains_of_duplicates_move_together(tmp_path):
    objects = clean_objects()
    shared = [replace(objects[i], provenance={"group": "one"}) for i in (0, 1)]
    val = replace(other_than(objects[0]), key="val", split="val", provenance={"group": "one"})
    audit = audit_of([*shared, *objects[2:], val], tmp_path / "set")
    assert len(audit.duplicates) == 2  # of the pair within train nothing is said
    assert audit.split == {objects[0].key: "val", objects[1].key: "val"}


def test_a_swapped_label_is_suspected(tmp_path):
    objects = clean_objects()
    objects[5] = replace(objects[5], category="kind 3", texts=(Caption("kind 3", "filtered"), objects[5].texts[1]))
    objects[5] = replace(objects[5], text_embeds=np.stack([unit(np.eye(DIM)[3]), objects[5].text_embeds[1]]))
    audit = audit_of(objects, tmp_path / "set", AuditConfig(neighbours=5, behind=2))
    [wrong] = audit.labels
    assert (wrong.key, wrong.label, wrong.said, wrong.share) == (objects[5].key, "kind 3", "kind 1", 1.0)
    assert wrong.rank > wrong.said_rank == 1 and len(wrong.neighbours) == 5
    twins = [
        replace(o, provenance={"group": "one"}) if o.category == "kind 1" or o is objects[5] else o for o in objects
    ]
    assert not audit_of(
        twins, tmp_path / "twins", AuditConfig(neighbours=5, behind=2, agreement=1.0)
    ).labels  # no vote of twins


def test_a_caption_of_two_labels_and_a_text_of_others(tmp_path):
    objects = clean_objects()
    both = unit(np.eye(DIM)[0] + np.eye(DIM)[1])
    for i in (0, 1):
        texts = (objects[i].texts[0], Caption(" The Same".upper(), "filtered"))
        objects[i] = replace(objects[i], texts=texts, text_embeds=np.stack([objects[i].text_embeds[0], both]))
    alone = unit(np.eye(DIM)[KINDS + 7])  # what object 7 has and no other
    objects[2] = replace(objects[2], text_embeds=np.stack([objects[2].text_embeds[0], alone]))
    audit = audit_of(objects, tmp_path / "set")
    [shared] = audit.captions
    assert (shared.text, shared.labels) == ("the same", ("kind 0", "kind 1"))
    assert set(shared.keys) == {objects[0].key, objects[1].key}
    masks = audit.masks()
    assert masks["thing 2"][0] == objects[7].key and objects[2].key not in masks["thing 2"]


def test_a_text_that_fits_many_a_little_better_is_none_of_others(tmp_path):
    """The teacher knows nothing of it: half of the objects come before its own, but none stands out."""
    objects = clean_objects()
    vague = unit(np.random.default_rng(1).normal(size=DIM))
    objects[2] = replace(objects[2], text_embeds=np.stack([objects[2].text_embeds[0], vague]))
    scores = [float(one.image_embeds[0].astype(np.float32) @ vague.astype(np.float32)) for one in objects]
    assert sum(score > scores[2] for score in scores) >= 8
    assert "thing 2" not in audit_of(objects, tmp_path / "set").masks()


def test_the_page_and_the_file_say_what_was_found(tmp_path):
    objects = clean_objects()
    text = replace(objects[0].texts[1], text=NASTY)
    for i in (0, 1):
        objects[i] = replace(objects[i], texts=(objects[i].texts[0], text))
    planted = other_than(objects[0], provenance=objects[0].provenance)
    audit = audit_of([*objects, planted], tmp_path / "set")
    file, page = write_audit(audit, tmp_path / "out")
    plain, html = json.loads(file.read_text()), page.read_text()
    assert plain["split"] == {objects[0].key: "test"} and plain["duplicates"][0]["by"] == ["geometry"]
    assert plain["captions"][0]["text"] == NASTY and plain["masks"] == audit.masks()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("<img") >= 4 and "planted" in html and "1 object should move" in html


def test_the_command_says_so_with_its_exit_code(tmp_path):
    audit_of(clean_objects(), tmp_path / "clean")
    ran = CliRunner().invoke(app, ["audit", str(tmp_path / "clean"), "--out", str(tmp_path / "a")])
    assert ran.exit_code == 0 and "24 objects" in ran.stdout and (tmp_path / "a" / "audit.html").is_file(), ran.output
    strict = CliRunner().invoke(
        app, ["audit", str(tmp_path / "clean"), "--cosine", "0.5", "--out", str(tmp_path / "b")]
    )
    assert strict.exit_code == 1 and "should move" in strict.stdout
    words = ["--cosine", "0.5", str(tmp_path / "clean"), "--behind=5", "--out", str(tmp_path / "c")]
    before = CliRunner().invoke(app, ["audit", *words])
    assert before.exit_code == 1 and before.stdout.replace("/c/", "/b/") == strict.stdout
    wrong = CliRunner().invoke(app, ["audit", str(tmp_path / "clean"), "--cosine", "2"])
    assert wrong.exit_code == 2 and "cosine must be in (0, 1], got 2" in wrong.stderr
    with pytest.raises(ValueError, match="neighbours and behind must be at least 1"):
        AuditConfig(neighbours=0)


def test_a_set_without_embeddings_is_refused(tmp_path):
    folder = make_set(tmp_path / "set", counts=(("train", 2),))
    bare = [encode_triplet(make_triplet(i, teacher=None)) for i in range(2)]
    (tmp_path / "bare").mkdir()
    write_set(tmp_path / "bare", bare, build={"what": "test"})
    with pytest.raises(ShardError, match="must have embeddings"):
        audit_set(tmp_path / "bare")
    assert audit_set(folder).objects == 2
