"""Compressed shards: the same objects, read by everything that reads plain ones; damage and bombs are refused."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from pathlib import Path

import pytest

from clipgs_lib.shards import shard_set
from clipgs_lib.shards.shard_set import ShardSet, TripletStream
from clipgs_lib.shards.tar import ShardError
from clipgs_lib.shards.triplet import encode_triplet
from clipgs_lib.shards.writer import write_set

from .shard_samples import make_triplet, small_shards

NAME = "train-000000.tar.gz"


@pytest.fixture
def folder(tmp_path) -> Path:
    return make(tmp_path / "packed")


def make(place: Path, compress: bool = True) -> Path:
    place.mkdir()
    with small_shards(5):
        write_set(place, [encode_triplet(make_triplet(i)) for i in range(8)], build={}, compress=compress)
    return place


def edit(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0].update(changes)
    path.write_text(json.dumps(manifest))


def test_the_same_objects_and_equal_files_each_time(folder, tmp_path):
    plain, packed = ShardSet(make(tmp_path / "plain", compress=False)), ShardSet(folder)
    assert packed.verify() == [] and packed.manifest["content_sha256"] == plain.manifest["content_sha256"]
    assert [packed.block(i) for i in range(8)] == [plain.block(i) for i in range(8)]
    assert [triplet.key for triplet in TripletStream(packed, seed=3)] == [t.key for t in TripletStream(plain, seed=3)]
    other = make(tmp_path / "other")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}
    for entry in packed.manifest["shards"]:
        assert entry["bytes"] < entry["tar_bytes"] == len(gzip.decompress((folder / entry["name"]).read_bytes()))
    with tarfile.open(folder / NAME) as tar:
        assert tar.getnames()[0] == "object-0000.meta.json"


def test_a_bomb_is_not_unpacked_to_its_end(folder, monkeypatch):
    """Reading stops behind the size of the manifest, so that the disk does not fill."""
    bomb = gzip.compress(bytes(200 << 20), 9)
    (folder / NAME).write_bytes(bomb)
    edit(folder, bytes=len(bomb))
    read = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: read.append(n) or real(self, n))
    with pytest.raises(ShardError, match=f"{NAME}: the shard must unpack to .* bytes, got more than"):
        ShardSet(folder).read(0)
    assert sum(read) <= 2 << 20


def test_short_and_damaged_shards_are_refused(folder, monkeypatch):
    path, data = folder / NAME, (folder / NAME).read_bytes()
    path.write_bytes(data[:200] + bytes(50) + data[250:])
    with pytest.raises(ShardError, match=f"{NAME}: the shard must unpack as gzip"):
        ShardSet(folder).read(0)
    path.write_bytes(gzip.compress(b"short"))
    edit(folder, bytes=path.stat().st_size)
    with pytest.raises(ShardError, match=r"must unpack to .* bytes, got 5"):
        ShardSet(folder).read(0)
    path.write_bytes(data)
    edit(folder, bytes=len(data), tar_bytes="many")
    with pytest.raises(ShardError, match="must have its fields, got TypeError: tar_bytes"):
        ShardSet(folder)


def test_no_room_for_the_temporary_file(folder, monkeypatch):
    def full(*_args, **_named):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shard_set.tempfile, "TemporaryFile", full)
    with pytest.raises(ShardError, match=r"No space left on device; .*make room for temporary files"):
        ShardSet(folder).read(0)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_closing_lets_go_of_the_temporary_file(folder):
    before = open_files()
    shards = ShardSet(folder)
    shards.read(0), shards.read(7)
    assert open_files() == before + 2
    shards.close()
    assert open_files() == before
    assert shards.read(0).key == "object-0000"
