"""Sets on disk: index and manifest agree with the tars, equal input gives equal files, damage is named."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipgs_lib.shards import writer
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.shards.tar import BLOCK, END, ShardError
from clipgs_lib.shards.triplet import TeacherInfo, decode_triplet, encode_triplet
from clipgs_lib.shards.writer import ShardWriter, write_set

from ..conftest import ROOT
from .shard_samples import make_set, make_triplet, unit_rows


@pytest.fixture(scope="module")
def shared_set(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("set") / "set")


def test_index_and_manifest_agree_with_the_tars(shared_set):
    shards = ShardSet(shared_set)
    names = [entry["name"] for entry in shards.manifest["shards"]]
    assert names == [*(f"train-{i:06d}.tar" for i in range(4)), "val-000000.tar"]
    assert [entry["objects"] for entry in shards.manifest["shards"]] == [5, 5, 5, 2, 4]
    assert shards.manifest["objects"] == len(shards) == 21
    assert {k: v["objects"] for k, v in shards.manifest["splits"].items()} == {"train": 17, "val": 4}
    found = []
    for entry in shards.manifest["shards"]:
        data = (shared_set / entry["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            starts = {info.name.split(".")[0]: info.offset for info in reversed(tar.getmembers())}
        found += [(key, entry["name"], start) for key, start in starts.items()]
    rows = pq.read_table(shared_set / "index.parquet").to_pylist()
    assert sorted(found) == sorted((row["key"], row["shard"], row["offset"]) for row in rows)
    for row in rows:
        triplet = shards[row["key"]]
        assert hashlib.sha256(shards.block(row["key"])).hexdigest() == row["sha256"]
        counts = (len(triplet.splats), len(triplet.views), len(triplet.texts), triplet.provenance["psnr"])
        assert counts == (row["n_gaussians"], row["n_views"], row["n_texts"], row["psnr"])
        assert (triplet.split, triplet.category, row["licence"]) == (row["split"], row["category"], "CC0-1.0")
    assert shards.verify() == []
    assert "21 objects in 5 shards: train 17, val 4; stand-in/1 (D = 16)" in repr(shards)


def test_equal_input_gives_equal_files(shared_set, tmp_path):
    again = make_set(tmp_path / "again")
    for path in sorted(shared_set.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    other = ShardSet(make_set(tmp_path / "other", per_shard=3))
    assert other.manifest["content_sha256"] == ShardSet(shared_set).manifest["content_sha256"]  # however spread
    assert other.manifest["splits"] == ShardSet(shared_set).manifest["splits"]


def test_shards_close_at_their_size(tmp_path, monkeypatch):
    block = encode_triplet(make_triplet(0))
    monkeypatch.setattr(writer, "MAX_BYTES", 2 * len(block))
    with ShardWriter(tmp_path, "train") as writing:
        places = [writing.add(block) for _ in range(5)]
    assert places == [(f"train-{i // 2:06d}.tar", i % 2 * len(block)) for i in range(5)]
    assert [entry["bytes"] for entry in writing.shards] == [2 * len(block) + len(END)] * 2 + [len(block) + len(END)]


def test_an_exception_leaves_no_half_shard(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train") as writer:
        writer.add(encode_triplet(make_triplet(0)))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    """The third write of the second shard fails, as on a full disk; nothing but whole files is left."""
    written = {"count": 0}
    original = writer.ShardWriter._append

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append(self, data):
        written["count"] += 1
        if written["count"] == 8:
            self._stream = Full()
        original(self, data)

    monkeypatch.setattr(writer.ShardWriter, "_append", append)
    with pytest.raises(ShardError, match=r"must exist, be writable and have room, got .*No space left"):
        make_set(tmp_path / "set")
    left = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert left == ["train-000000.tar"]
    with pytest.raises(ShardError, match=r"manifest.json: a set must have a manifest, got No such file"):
        ShardSet(tmp_path / "set")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_really_full(tmp_path):
    code = f"""
import pathlib, clipgs_lib.shards.writer as w
from tests.shards.shard_samples import make_set
original = pathlib.Path.open
def opened(self, mode="r", *rest, **named):
    return original(pathlib.Path("/dev/full") if mode == "xb" else self, mode.replace("x", "w"), *rest, **named)
pathlib.Path.open = opened
make_set(pathlib.Path({str(tmp_path / "set")!r}))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ShardError" in ran.stderr and "No space left on device" in ran.stderr
    assert list((tmp_path / "set").iterdir()) == []


def test_what_a_set_cannot_hold(tmp_path):
    first = encode_triplet(make_triplet(0))
    other = TeacherInfo("other", 24)
    wider = make_triplet(1, teacher=other)
    for blocks, words in [
        ([first, first], "object object-0000: a key must come once in a set"),
        (
            [first, encode_triplet(wider)],
            r"embedded by stand-in/1 \(D = 16\), as the first one is, got other \(D = 24\)",
        ),
        ([first, encode_triplet(make_triplet(1, teacher=None))], "got no embeddings"),
        ([encode_triplet(make_triplet(1, teacher=None)), first], "no object may have embeddings"),
        ([first[:-512]], "object 0, member object-0000.* must be complete"),
    ]:
        with pytest.raises(ShardError, match=words):
            write_set(tmp_path, blocks, build={})
        assert list(tmp_path.iterdir()) == []


def test_an_empty_set_is_a_set(tmp_path):
    write_set(tmp_path, [], build={})
    assert len(ShardSet(tmp_path)) == 0 and ShardSet(tmp_path).verify() == []


def test_another_teacher_is_refused_with_a_sentence(shared_set, tmp_path):
    shards = ShardSet(shared_set)
    shards.check_teacher("stand-in/1", 16)
    with pytest.raises(
        ShardError,
        match=r"must be stand-in/1 \(D = 16\), which made.*got mini \(D = 384\); load that.*clipgs triplets embed",
    ):
        shards.check_teacher("mini", 384)
    write_set(tmp_path, [encode_triplet(make_triplet(1, teacher=None))], build={})
    with pytest.raises(ShardError, match="built without a teacher"):
        ShardSet(tmp_path).check_teacher("mini", 384)
    with pytest.raises(ShardError, match=r"split must be one of train, val, got 'test'"):
        shards.numbers("test")


# ---- damage ------------------------------------------------------------------------------------------------------


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def edit_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_index(folder: Path, change: Callable[[list[dict]], object]) -> None:
    """Change index rows and mend the hash of the index, as somebody would who wants to be believed."""
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=writer.INDEX_SCHEMA), folder / "index.parquet")
    digest = hashlib.sha256((folder / "index.parquet").read_bytes()).hexdigest()
    edit_manifest(folder, lambda m: m["index"].update(sha256=digest))


def test_a_damaged_object_is_named_and_the_rest_is_read(shared_set, tmp_path):
    folder = make_set(tmp_path / "set")
    row = ShardSet(folder).rows[6]
    overwrite(folder / row["shard"], row["offset"] + row["bytes"] - 700, b"\xff\x00\xff")
    overwrite(folder / row["shard"], row["offset"] + BLOCK + 40, b"?")  # inside meta.json
    shards = ShardSet(folder)
    with pytest.raises(ShardError, match=r"train-000001.tar, member object-0006"):
        shards.read(6)
    wrong = shards.verify()
    assert len(wrong) == 2 and "train-000001.tar: the sha256" in wrong[0] and "object-0006" in wrong[1]
    assert [shards.read(i).key for i in range(21) if i != 6] == [f"object-{i:04d}" for i in range(21) if i != 6]


def test_a_word_changed_in_meta_is_noticed(tmp_path):
    folder = make_set(tmp_path / "set")
    row = ShardSet(folder).rows[0]
    data = (folder / row["shard"]).read_bytes()
    overwrite(folder / row["shard"], data.index(b'"kind0"'), b'"kind1"')
    with pytest.raises(ShardError, match=r"object-0000.meta.json: the object must have its sha256 of the index"):
        ShardSet(folder).read(0)
    assert decode_triplet(ShardSet(folder).block(0), "test").category == "kind1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "manifest.json").write_text("[" * 100_000), "manifest must be JSON"),
        (lambda f: (f / "manifest.json").write_text("[]"), "schema must be .*got list"),
        (lambda f: edit_manifest(f, lambda m: m.update(schema="clipgs-triplets/7")), "schema must be"),
        (lambda f: edit_manifest(f, lambda m: m.pop("shards")), "must have its fields"),
        (lambda f: edit_manifest(f, lambda m: m["shards"][0].update(name="../../etc/passwd")), "SPLIT-000000.tar"),
        (lambda f: edit_manifest(f, lambda m: m.update(teacher={"identity": 3})), "must have its fields"),
        (lambda f: edit_manifest(f, lambda m: m.update(objects=3)), "objects must agree with the manifest"),
        (lambda f: (f / "val-000000.tar").unlink(), r"val-000000.tar: the shard must have .* got no such file"),
        (lambda f: os.truncate(f / "val-000000.tar", 512), r"val-000000.tar: the shard must have .*got 512"),
        (lambda f: (f / "index.parquet").write_bytes(b"PAR1"), "index must have the sha256 of the manifest"),
        (lambda f: (f / "index.parquet").unlink(), "index must be intact Parquet, got .*No such file"),
        (lambda f: edit_index(f, lambda rows: rows[0].update(offset=10**15)), "must lie inside a shard"),
        (lambda f: edit_index(f, lambda rows: rows[0].update(shard="../x.tar")), "must lie inside a shard"),
        (lambda f: edit_index(f, lambda rows: rows[0].update(bytes=-1)), "must lie inside a shard"),
        (lambda f: edit_index(f, lambda rows: rows.pop()), "must agree with the manifest"),
        (lambda f: edit_index(f, lambda rows: rows[0].update(split="val")), "must agree with the manifest"),
    ],
)  # fmt: skip
def test_sets_that_do_not_fit_together_are_refused(tmp_path, change, words):
    change(make_set(tmp_path / "set"))
    with pytest.raises(ShardError, match=words):
        ShardSet(tmp_path / "set")


def test_index_rows_that_name_another_object(tmp_path):
    folder = make_set(tmp_path / "set")

    def swap(rows):
        for column in ("offset", "bytes", "sha256"):
            rows[0][column], rows[1][column] = rows[1][column], rows[0][column]

    edit_index(folder, swap)
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    edit_manifest(folder, lambda m: m.update(content_sha256=writer.content_hash(rows)))
    with pytest.raises(ShardError, match=r"key, split and teacher must be object-0000.*got object-0001"):
        ShardSet(folder).read(0)


def test_a_set_whose_embeddings_are_of_another_size_is_refused(tmp_path):
    folder = make_set(tmp_path / "set")
    edit_manifest(folder, lambda m: m["teacher"].update(dim=24))
    with pytest.raises(ShardError, match=r"teacher must be .*\(D = 24\), got .*\(D = 16\)"):
        ShardSet(folder).read(0)
    with pytest.raises(ShardError, match="16"):
        encode_triplet(make_triplet(0, image_embeds=unit_rows(2, 24, 0)))
