"""Objects of a split with what their teacher made of them, and embeddings by an encoder, kept for the next time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipgs_lib import evaluation
from clipgs_lib.encoders import build_encoder
from clipgs_lib.shards import ShardError, ShardSet, TeacherInfo
from clipgs_lib.shards.triplet import encode_triplet
from clipgs_lib.shards.writer import write_set

from ..training.samples import SMALL, TEACHER, make_object


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder("clipgs-mini", TEACHER.dim, **SMALL)


def test_a_split_holds_what_the_set_says_of_its_objects(folder):
    objects, shards = evaluation.load_set([folder], "test"), ShardSet(folder)
    triplets = [shards.read(number) for number in shards.numbers("test")]
    assert objects.names == tuple(triplet.key for triplet in triplets) and len(objects) == 12
    assert objects.labels == tuple(triplet.category for triplet in triplets)
    assert objects.trained == {row["category"] for row in shards.rows}
    bag = np.stack([triplet.image_embeds.astype(np.float32).mean(axis=0) for triplet in triplets])
    assert torch.allclose(objects.bag(), torch.nn.functional.normalize(torch.from_numpy(bag), dim=1), atol=1e-3)
    last = torch.from_numpy(np.stack([triplet.image_embeds[-1] for triplet in triplets])).float()
    assert torch.allclose(objects.bag(slice(2, None)), last, atol=1e-3), "the first two of three views left out"
    texts = {caption.text.casefold() for triplet in triplets for caption in triplet.texts}
    assert objects.owners.shape == (len(texts), 12) and len(objects.texts) == len(texts)
    assert objects.owners.sum() == sum(len({c.text.casefold() for c in triplet.texts}) for triplet in triplets)
    shared = [t for t, row in enumerate(objects.owners) if row.sum() > 1]
    for text in shared:
        assert len({objects.labels[n] for n in objects.owners[text].nonzero()[:, 0]}) == 1, "only names are shared"


def test_embeddings_are_those_of_the_encoder_in_any_order_and_are_kept(folder, encoder, tmp_path, monkeypatch):
    shards = ShardSet(folder)
    keys = [row["key"] for row in shards.rows][3:9][::-1]
    said = []
    options = {"precision": "fp32", "cache": tmp_path / "kept", "progress": lambda *numbers: said.append(numbers)}
    monkeypatch.setattr(evaluation.evaluation_set, "CHUNK", 4)
    embeds = evaluation.embed_set(encoder, shards, keys, **options)
    assert torch.allclose(embeds, encoder.encode([shards.read(key).splats for key in keys]), atol=1e-6)
    assert said == [(4, 6), (6, 6)]
    monkeypatch.setattr(encoder, "encode", None)  # from here on nothing can be computed
    assert torch.equal(evaluation.embed_set(encoder, shards, keys, **options), embeds)
    for others, changes in ((keys[:5], {}), (keys, {"first": 1})):
        with pytest.raises(TypeError):
            evaluation.embed_set(encoder, shards, others, **options | changes)
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    with pytest.raises(TypeError):
        evaluation.embed_set(encoder, shards, keys, **options)


def test_sets_that_do_not_go_together_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="split 'unseen' must hold at least 2 objects, got 0"):
        evaluation.load_set([folder], "unseen")
    with pytest.raises(ShardError, match=r"must lie in one of the sets, else it counts twice.* and 62 more"):
        evaluation.load_set([folder, folder])
    for name, teacher in (("none", None), ("other", TeacherInfo("other sha256:01", TEACHER.dim))):
        embeds = {"image_embeds": None, "text_embeds": None} if teacher is None else {}
        blocks = [encode_triplet(make_object(100 + n, "test", teacher=teacher, **embeds)) for n in range(3)]
        (tmp_path / name).mkdir()
        write_set(tmp_path / name, blocks, build={"what": "test"})
    with pytest.raises(ShardError, match="the set must have embeddings, got none; embed it"):
        evaluation.load_set([tmp_path / "none", folder])
    with pytest.raises(ShardError, match=r"the teacher must be stand-in .* got other sha256:01"):
        evaluation.load_set([tmp_path / "other", folder])


def test_objects_that_cannot_be_embedded_are_named(folder, encoder):
    shards = ShardSet(folder)
    flat = shards.read(0)
    flat = replace(flat, splats=replace(flat.splats, means=flat.splats.means * 0))
    broken = type("Broken", (), {"manifest": shards.manifest, "rows": shards.rows, "read": lambda self, key: flat})()
    with pytest.raises(ShardError, match=r"objects object-\w+ to object-\w+: they must be fit for clipgs-mini.*differ"):
        evaluation.embed_set(encoder, broken, [shards.rows[0]["key"], shards.rows[1]["key"]])
    looker = type("Looker", (), {"inputs": "views", "config": encoder.config})()
    assert evaluation.content_of(flat, looker, slice(1, None)).shape[0] == len(flat.views) - 1
    with pytest.raises(ShardError, match="must have views to read, got none of 3 that may be seen"):
        evaluation.content_of(flat, looker, slice(3, None))
