"""Streams: nothing lost, nothing doubled, the same order for the same seed, and exact continuation."""

from __future__ import annotations

import os
import pickle
from itertools import chain
from pathlib import Path

import pytest

from clipgs_lib.shards import shard_set as stream_module
from clipgs_lib.shards.shard_set import ShardSet, ShardWarning, TripletStream
from clipgs_lib.shards.tar import ShardError, pack_members
from clipgs_lib.shards.triplet import encode_triplet
from clipgs_lib.shards.writer import write_set

from .shard_samples import make_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("stream") / "set", (("train", 43), ("val", 3)), per_shard=5)


def keys(stream) -> list[str]:
    return [triplet.key for triplet in stream]


def train_keys(folder: Path) -> list[str]:
    return [f"object-{i:04d}" for i in range(43)]


def test_epochs_differ_seeds_differ_and_repeat(folder, monkeypatch):
    monkeypatch.setattr(stream_module, "BUFFER", 8)
    stream = TripletStream(folder, "train", seed=3)
    first, second = keys(stream), keys(stream)
    assert stream.epoch == 2 and first != second and first != train_keys(folder)
    assert sorted(first) == sorted(second) == train_keys(folder)
    again = TripletStream(folder, "train", seed=3)
    assert [keys(again), keys(again)] == [first, second]
    assert keys(TripletStream(folder, "train", seed=4)) != first
    again.epoch = 1
    assert keys(again) == second
    assert len(keys(TripletStream(folder))) == 46
    assert sorted(keys(TripletStream(folder, "val"))) == [f"object-{i:04d}" for i in (43, 44, 45)]


def test_the_buffer_bounds_how_early_an_object_comes(folder, monkeypatch):
    stream = TripletStream(folder, "train", seed=1)
    orders = {}
    for buffer in (1, 4, 1000):
        monkeypatch.setattr(stream_module, "BUFFER", buffer)
        orders[buffer] = stream.order(0).tolist()
        early = max(orders[1].index(number) - place for place, number in enumerate(orders[buffer]))
        assert early < buffer and sorted(orders[buffer]) == sorted(orders[1])


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8, 43, 50])
def test_ranks_share_uneven_shards_without_loss_or_doubling(folder, world):
    streams = [TripletStream(folder, "train", rank=r, world=world) for r in range(world)]
    for epoch in (0, 1):
        parts = [stream.order(epoch).tolist() for stream in streams]
        assert sorted(chain(*parts)) == streams[0].shards.numbers("train")
        assert [len(part) for part in parts] == [len(stream) for stream in streams]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_even_parts_leave_out_other_objects_each_epoch(folder):
    streams = [TripletStream(folder, "train", rank=r, world=5, even=True) for r in range(5)]
    left = []
    for epoch in range(6):
        parts = [stream.order(epoch).tolist() for stream in streams]
        assert {len(part) for part in parts} == {8} == {len(stream) for stream in streams}
        assert len(set(chain(*parts))) == 40
        left.append(frozenset(range(43)) - set(chain(*parts)))
    assert len(set(left)) > 1


def test_a_rank_without_objects_says_so_and_goes_on(folder):
    empty = TripletStream(folder, "val", rank=0, world=4)
    assert len(empty) == 0
    with pytest.warns(ShardWarning, match="rank 0 of 4 has no objects"):
        assert keys(empty) == []
    assert empty.epoch == 1


def test_bad_objects_stop_the_stream(tmp_path):
    bad = make_set(tmp_path / "bad", (("train", 12),))
    row = ShardSet(bad).rows[7]
    with (bad / row["shard"]).open("r+b") as stream:
        stream.seek(row["offset"] + row["bytes"] - 512 * 3)
        stream.write(b"\0" * 700)
    with pytest.raises(ShardError, match=r"train-000001.tar.*object-0007"):
        keys(TripletStream(bad, "train"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"rank": 1}, "rank 1 of 1"),
    ],
)
def test_arguments_out_of_range(folder, arguments, words):
    with pytest.raises(ValueError, match=words):
        TripletStream(folder, "train", **arguments)


def test_a_set_survives_pickling_and_forking_with_files_open(folder):
    shards = ShardSet(folder)
    first = shards.read(0)
    again = pickle.loads(pickle.dumps(shards))
    assert again.read(0).key == first.key
    child = os.fork()
    if child == 0:  # the child closes its own files only
        shards.read(1)
        shards.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert shards.read("object-0045").split == "val"
    shards.close()
    assert shards.read(0).key == first.key


def test_the_package_webdataset_reads_our_shards(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WDS_SECURE", "1")  # it runs pipe: commands and unpickles otherwise
    import webdataset
    from webdataset import utils

    monkeypatch.setattr(utils, "enforce_security", True)  # in case it was imported before
    compressed = make_set(tmp_path / "packed", (("train", 43),), per_shard=50, compress=True)
    shards = ShardSet(folder)
    for urls in (sorted(folder.glob("train-*.tar")), sorted(compressed.glob("*.tar.gz"))):
        dataset = webdataset.WebDataset([str(url) for url in urls], shardshuffle=False)
        samples = {sample["__key__"]: sample for sample in dataset}
        assert list(samples) == train_keys(folder)
        for key, sample in samples.items():
            triplet = shards[key]
            parts = {name: data for name, data in sample.items() if not name.startswith("__")}
            assert [parts[f"view{i:03d}.webp"] for i in range(len(triplet.views))] == list(triplet.views)
            assert encode_triplet(triplet, parts["splat.safetensors"]) == pack_members(key, parts.items())


def test_an_empty_split_of_an_empty_set(tmp_path):
    write_set(tmp_path, [], build={})
    with pytest.warns(ShardWarning, match="no objects"):
        assert keys(TripletStream(tmp_path)) == []
