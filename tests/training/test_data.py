"""Batches follow from seed and step; what does not fit is refused."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from clipgs_lib.shards import ShardError, TeacherInfo
from clipgs_lib.training.data import Objects, Plan, batches, make_batch, text_id
from clipgs_lib.training.distributed import Place

from .samples import TEACHER, config, make_set

CPU = torch.device("cpu")


def place(rank: int = 0, world: int = 1) -> Place:
    return Place(rank, world, CPU)


def numbers_of(objects, settings, world, steps):
    plans = [Plan(objects, settings, place(rank, world)) for rank in range(world)]
    return plans[0], [[n for plan in plans for n in plan.batch(step)[0]] for step in range(steps)]


def test_an_epoch_holds_every_object_once_in_batches_of_nearly_one_size(shards, tmp_path):
    objects, settings = Objects([str(shards)]), config(shards, tmp_path)
    plan, batches = numbers_of(objects, settings, 1, 3)
    assert plan.batches == 3 and sorted(map(len, batches)) == [15, 15, 16]
    assert sorted(chain(*batches)) == objects.numbers("train")
    assert batches != numbers_of(objects, settings, 1, 6)[1][3:]


def test_fewer_objects_are_part_of_more(shards, tmp_path):
    objects = Objects([str(shards)])
    drawn = [
        set(Plan(objects, config(shards, tmp_path, max_objects=count), place()).numbers) for count in (5, 20, 1_000)
    ]
    assert [len(numbers) for numbers in drawn] == [5, 20, 46] and drawn[0] < drawn[1] < drawn[2]
    streamed = Objects([str(shards)], memory_gb=1e-6)
    with pytest.raises(ValueError, match="raise memory_gb"):
        Plan(streamed, config(shards, tmp_path, max_objects=5), place())


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_very_batches_of_a_single_process(shards, tmp_path, world):
    objects, settings = Objects([str(shards)]), config(shards, tmp_path)
    assert numbers_of(objects, settings, world, 4)[1] == numbers_of(objects, settings, 1, 4)[1]
    _, first, sizes = Plan(objects, settings, place(1, world)).batch(0)
    assert first == sizes[0] and sum(sizes) == 15 and max(sizes) - min(sizes) <= 1


def test_a_batch_follows_from_seed_and_step_alone(shards, tmp_path):
    settings = config(shards, tmp_path, accumulate=2)
    first, second = (Objects([str(shards)]) for _ in range(2))
    for step in (0, 1):  # the second time without step 0 before it
        mine = make_batch(first, Plan(first, settings, place()), step, settings)
        if step:
            other = make_batch(second, Plan(second, settings, place()), step, settings)
            assert mine.keys == other.keys and torch.equal(mine.images, other.images)
            assert all(torch.equal(a.means, b.means) for a, b in zip(mine.parts, other.parts, strict=True))
    parts = [make_batch(first, Plan(first, settings, place(rank, 2)), 1, config(shards, tmp_path)) for rank in range(2)]
    assert torch.equal(torch.cat([part.texts for part in parts]), mine.texts)
    assert sum((part.keys for part in parts), ()) == mine.keys


def test_threads_change_nothing(shards, tmp_path):
    objects = Objects([str(shards)])
    found = []
    for workers in (0, 2):
        settings = config(shards, tmp_path, workers=workers)
        loader = batches(objects, Plan(objects, settings, place()), settings, 2)
        found.append([next(loader) for _ in range(2, 8)])
        loader.close()
    for a, b in zip(*found, strict=True):
        assert a.keys == b.keys and torch.equal(a.parts[0].means, b.parts[0].means) and torch.equal(a.ids, b.ids)


def test_a_set_that_does_not_fit_is_streamed_each_rank_its_part(shards, tmp_path):
    objects, settings = Objects([str(shards)], memory_gb=1e-6), config(shards, tmp_path)
    assert not objects.in_memory
    _, batches = numbers_of(objects, settings, 2, 3)
    seen = list(chain(*batches))
    assert len(seen) == len(set(seen)) == 46 and set(seen) == set(objects.numbers("train"))
    batch = make_batch(objects, Plan(objects, settings, place(1, 2)), 0, settings)
    assert batch.sizes == (len(batch.keys),) * 2 and not objects._kept


def test_views_are_drawn_without_repetition_and_missing_ones_are_masked(shards, tmp_path):
    objects, settings = Objects([str(shards)]), config(shards, tmp_path, views=5)  # of 3
    batch = make_batch(objects, Plan(objects, settings, place()), 0, settings)
    assert torch.equal(batch.views_valid.sum(dim=1), torch.full((15,), 3))
    assert torch.equal(batch.views_valid, batch.images.norm(dim=2) > 0.5)
    assert len(torch.unique(batch.images[0, :3], dim=0)) == 3


def test_equal_texts_have_equal_ids():
    assert text_id(" A cup ") == text_id("a cup") != text_id("a cap") and 0 <= text_id("x") < 2**62


def test_two_sets_are_numbered_through(shards, tmp_path):
    other = make_set(tmp_path / "more", train=10, first=100)
    objects = Objects([str(shards), str(other)])
    assert len(objects.numbers("train")) == 56
    assert objects.sample(len(objects) - 1).key == "object-0121"  # splits come in the order of their names
    assert [entry["name"] for entry in objects.facts()] == ["kinds", "more"]


def test_a_set_of_another_teacher_or_of_none_is_refused(shards, tmp_path):
    other = make_set(tmp_path / "other", train=2, first=100, teacher=TeacherInfo("another", TEACHER.dim))
    with pytest.raises(ShardError, match=r"teacher must be stand-in.*got another.*clipgs triplets embed"):
        Objects([str(other), str(shards)])
    none = make_set(tmp_path / "none", train=2, teacher=None, image_embeds=None, text_embeds=None)
    with pytest.raises(ShardError, match="must have embeddings"):
        Objects([str(none)])


def test_an_object_must_not_be_trained_on_here_and_tested_on_there(shards, tmp_path):
    other = make_set(tmp_path / "other", train=2)  # object-0014 is tested on there
    with pytest.raises(ShardError, match=r"one split.*'train' in kinds, 'test' in other"):
        Objects([str(shards), str(other)])


def test_too_few_objects_are_refused(shards, tmp_path):
    objects = Objects([str(shards)])
    for changes, world in (({"train_split": "none"}, 1), ({"batch_size": 2}, 3), ({"accumulate": 16}, 1)):
        with pytest.raises(ValueError, match="batches must hold at least"):
            Plan(objects, config(shards, tmp_path, **changes), place(0, world))
    streamed = Objects([str(shards)], memory_gb=1e-6)
    with pytest.raises(ValueError, match="rank 0 of 64 has 0 objects"):
        Plan(streamed, config(shards, tmp_path), place(0, 64))
