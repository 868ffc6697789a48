"""A finished set on disk: manifest, index and shards checked against each other, objects read by number or key.

And streamed, shuffled and shared between ranks: the order of an epoch follows from the index, the seed and the epoch's
number alone. So every rank knows its part without talking to the others, a stopped epoch goes on where it stood, and
no buffer holds objects in memory: what a shuffle buffer would have yielded is computed on row numbers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import file_sha256
from ..words import plural
from .tar import BLOCK, ShardError
from .triplet import TeacherInfo, Triplet, decode_triplet
from .writer import INDEX, INDEX_SCHEMA, MANIFEST, SET_SCHEMA, SHARD_NAME, content_hash, split_hashes

_MAX_OPEN = 32  # shards held open by one process


class ShardSet:
    """A finished set on disk: its manifest, its index, and its objects by number or key.

    Args:
        folder: where ``manifest.json`` is.

    Raises:
        ShardError: when the manifest, the index or a shard is missing or does not fit the others.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self.teacher = TeacherInfo.parse(self.manifest["teacher"])  # who made the embeddings; None for a set without
        self.rows: list[dict[str, Any]] = _read_index(self.folder, self.manifest)
        self._numbers = {row["key"]: number for number, row in enumerate(self.rows)}
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()  # read by place, so that a fork may share them

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: int | str) -> Triplet:
        return self.read(which)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {entry['objects']:,}" for name, entry in self.manifest["splits"].items())
        size = f"{plural(len(self), 'object')} in {plural(len(self.manifest['shards']), 'shard')}"
        return f"ShardSet({size}: {splits}; {self.teacher})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def __del__(self) -> None:
        self.close()

    def numbers(self, split: str | None = None) -> list[int]:
        """Numbers of the objects of a split (all without one), in the order of the shards; ShardError for another."""
        if split is not None and split not in self.manifest["splits"]:
            must = f"split must be one of {', '.join(self.manifest['splits']) or 'none'}"
            raise ShardError(self.folder, must, repr(split), "choose one of them")
        return [number for number, row in enumerate(self.rows) if split in (None, row["split"])]

    def check_teacher(self, identity: str, dim: int) -> None:
        """ShardError for a teacher other than the one that embedded this set, with both names and dimensions."""
        teacher = TeacherInfo(identity, dim)
        if self.teacher != teacher:
            must = f"the teacher must be {self.teacher}, which made the embeddings"
            if self.teacher is None:
                must = "the set must have embeddings, but it was built without a teacher"
            todo = "load that teacher, or embed the set by yours: clipgs triplets embed SET --teacher NAME --out NEW"
            raise ShardError(self.folder, must, str(teacher), todo)

    def block(self, which: int | str) -> bytes:
        """The bytes of one object in its shard; ShardError when the shard ends before the object does."""
        row = self._row(which)
        data = os.pread(self._file(row["shard"]).fileno(), row["bytes"], row["offset"])
        if len(data) != row["bytes"]:
            where, must = f"{row['shard']}, member {row['key']}", f"the object must have {row['bytes']:,} bytes"
            raise ShardError(where, must, f"{len(data):,}", "the shard is truncated; fetch it again")
        return data

    def read(self, which: int | str) -> Triplet:
        """One object by number or key, its bytes compared with their hash in the index.

        Raises:
            ShardError: naming shard and member when the object is damaged, or is not what the index says.
            KeyError: for a key that is not in the set.
        """
        row, block = self._row(which), self.block(which)
        whole = hashlib.sha256(block).hexdigest() == row["sha256"]
        triplet = decode_triplet(block, row["shard"], verify=not whole)  # finds the damaged member, if any
        where = f"{row['shard']}, member {row['key']}.meta.json"
        if not whole:
            raise ShardError(where, "the object must have its sha256 of the index", "another", "fetch the shard again")
        facts, expected = (triplet.key, triplet.split, triplet.teacher), (row["key"], row["split"], self.teacher)
        if facts != expected:
            must = f"key, split and teacher must be {', '.join(map(str, expected))}"
            raise ShardError(where, must, ", ".join(map(str, facts)), "index and shard do not fit")
        return triplet

    def verify(self) -> list[str]:
        """Read and check everything; returns one sentence per thing that is wrong."""
        wrong = []
        for entry in self.manifest["shards"]:
            if file_sha256(self.folder / entry["name"]) != entry["sha256"]:
                wrong.append(f"{entry['name']}: the sha256 must be that of the manifest, got another; fetch it again")
        for number in range(len(self)):
            try:
                self.read(number).images()
            except ShardError as error:
                wrong.append(str(error))
        return wrong

    def close(self) -> None:
        """Close the shards that reading has opened."""
        while files := getattr(self, "_files", None):
            files.popitem()[1].close()

    def _row(self, which: int | str) -> dict[str, Any]:
        return self.rows[self._numbers[which] if isinstance(which, str) else which]

    def _file(self, name: str) -> BinaryIO:
        if name not in self._files:
            packed = name.endswith(".gz")
            self._files[name] = self._unpack(name) if packed else (self.folder / name).open("rb", buffering=0)
            if len(self._files) > _MAX_OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(name)
        return self._files[name]

    def _unpack(self, name: str) -> BinaryIO:
        """A compressed shard as a temporary file without a name, which is gone once closed."""
        expected = next(entry["tar_bytes"] for entry in self.manifest["shards"] if entry["name"] == name)
        todo = "fetch it again, or make room for temporary files"
        with ExitStack() as stack:
            try:
                plain = stack.enter_context(tempfile.TemporaryFile())
                with gzip.open(self.folder / name) as packed:
                    while plain.tell() <= expected and (data := packed.read(1 << 20)):
                        plain.write(data)
                plain.flush()
            except (OSError, EOFError, zlib.error) as error:
                raise ShardError(name, "the shard must unpack as gzip", str(error)[:200], todo) from None
            if (size := plain.tell()) != expected:
                got = f"more than {expected:,}" if size > expected else f"{size:,}"
                raise ShardError(name, f"the shard must unpack to {expected:,} bytes", got, "fetch it again")
            stack.pop_all()
        return plain


def open_embedded(folders: Iterable[str | os.PathLike[str]]) -> tuple[list[ShardSet], TeacherInfo]:
    """One or more finished sets, and the teacher that embedded all of them; ShardError when there is no such one."""
    sets = [ShardSet(folder) for folder in folders]
    teacher = sets[0].teacher
    if teacher is None:
        todo = "embed it: clipgs triplets embed SET --teacher NAME --out NEW"
        raise ShardError(sets[0].folder, "the set must have embeddings", "none", todo)
    for other in sets[1:]:
        other.check_teacher(teacher.identity, teacher.dim)
    return sets, teacher


# ---- manifest and index ------------------------------------------------------------------------------------------


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        todo = "finish the set with clipgs triplets build, or name its folder"
        raise ShardError(path, "a set must have a manifest", error.strerror or str(error), todo) from None
    except (ValueError, RecursionError) as error:
        raise ShardError(path, "the manifest must be JSON", str(error)[:200], "fetch the set again") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SET_SCHEMA:
        got = repr(manifest.get("schema"))[:60] if isinstance(manifest, dict) else type(manifest).__name__
        raise ShardError(path, f"schema must be {SET_SCHEMA!r}", got, "rebuild the set, or update clipgs_lib")
    try:
        TeacherInfo.parse(manifest["teacher"])
        for entry in manifest["shards"]:
            _check_shard(folder, entry)
    except (KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise ShardError(path, "the manifest must have its fields", got, "fetch the set again") from None
    return manifest


def _check_shard(folder: Path, entry: Mapping[str, Any]) -> None:
    path = folder / entry["name"]
    if entry["name"].endswith(".gz") and type(entry["tar_bytes"]) is not int:
        raise TypeError("tar_bytes must be a whole number")
    if not SHARD_NAME.fullmatch(entry["name"]):
        raise ShardError(folder / MANIFEST, "a shard must be called SPLIT-000000.tar", repr(entry["name"])[:120])
    size = path.stat().st_size if path.is_file() else None
    if size != entry["bytes"]:
        got = "no such file" if size is None else f"{size:,}"
        raise ShardError(path, f"the shard must have {entry['bytes']:,} bytes", got, "fetch it again")


def _read_index(folder: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    path = folder / INDEX
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest["index"]["sha256"]:
            raise ShardError(path, "the index must have the sha256 of the manifest", "another", "fetch it again")
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise ShardError(path, "the index must be intact Parquet", str(error)[:200], "fetch it again") from None
    if not table.schema.equals(INDEX_SCHEMA):
        raise ShardError(path, f"the columns must be {INDEX_SCHEMA.names}", str(table.schema.names), "rebuild")
    rows = table.to_pylist()
    _check_rows(path, rows, manifest)
    return rows


def _check_rows(path: Path, rows: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> None:
    sizes = {entry["name"]: entry.get("tar_bytes", entry["bytes"]) for entry in manifest["shards"]}
    for row in rows:
        start, length = row["offset"], row["bytes"]
        if row["shard"] not in sizes or start < 0 or length < BLOCK or start + length > sizes[row["shard"]]:
            got = f"{row['shard']!r}, {length} bytes at {start}"
            raise ShardError(path, f"object {row['key']!r} must lie inside a shard of the manifest", got, "rebuild")
    facts = {"objects": len(rows), "splits": split_hashes(rows), "content_sha256": content_hash(rows)}
    for name, value in facts.items():
        if manifest.get(name) != value:
            must, todo = f"{name} must agree with the manifest", "index and manifest differ"
            raise ShardError(path, must, str(value)[:120], todo)
    if len({row["key"] for row in rows}) != len(rows):
        raise ShardError(path, "keys must be unique", "the same key twice", "rebuild the set")


BUFFER = 1_024  # how far an object may move from its place in the shuffled sequence of shards


class ShardWarning(UserWarning):
    """A rank has no objects, or a table of labels does not fit its folder; the message says which and why."""


class TripletStream:
    """The objects of a split, once per epoch over all ranks; each loop over it is the next epoch.

    Rank r of w gets a contiguous part of the epoch's shuffled sequence; parts differ by at most one object.

    Args:
        shards: a set, or its folder.
        split: one of its splits; None for all.
        seed: of all orders.
        rank, world: of this process among those that share the objects.
        even: give each rank the same number, leaving out the last few objects of the epoch's order.

    Raises:
        ValueError: for a rank outside the world.
        ShardError: as `ShardSet`; while streaming, for an object that is damaged.
    """

    def __init__(
        self,
        shards: ShardSet | str | os.PathLike[str],
        split: str | None = None,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        even: bool = False,
    ) -> None:
        self.shards = shards if isinstance(shards, ShardSet) else ShardSet(shards)
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        if not 0 <= rank < world:
            raise ValueError(f"rank must lie in 0..world-1, got rank {rank} of {world}")
        numbers = np.asarray(self.shards.numbers(split), dtype=np.int64)
        names = np.asarray([self.shards.rows[number]["shard"] for number in numbers])
        self._by_shard = [numbers[names == name] for name in sorted(set(names.tolist()))]
        total = len(numbers) // world * world if even else len(numbers)
        self._span = slice(total * rank // world, total * (rank + 1) // world)  # of this rank

    def __len__(self) -> int:
        return int(self._span.stop - self._span.start)

    def order(self, epoch: int) -> np.ndarray:
        """Numbers ``[len(self)]`` of this rank's objects in an epoch, in the order in which they come."""
        shards = np.random.default_rng([self.seed, epoch]).permutation(np.arange(len(self._by_shard)))
        sequence = np.concatenate([*(self._by_shard[shard] for shard in shards), np.empty(0, np.int64)])[self._span]
        return _through_buffer(sequence, BUFFER, np.random.default_rng([self.seed, epoch, self.rank]))

    def __iter__(self) -> Iterator[Triplet]:
        order = self.order(self.epoch)
        if not len(order):
            sentence = f"rank {self.rank} of {self.world} has no objects of {self.shards}"
            warnings.warn(sentence, ShardWarning, stacklevel=2)
        for number in order.tolist():
            yield self.shards.read(number)
        self.epoch += 1


def _through_buffer(sequence: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """What a shuffle buffer of ``size`` yields for ``sequence [n]``."""
    out, held = np.empty_like(sequence), list(sequence[:size])
    for place, pick in enumerate(rng.random(len(sequence))):
        index, coming = int(pick * len(held)), place + size
        out[place] = held[index]
        held[index] = sequence[coming] if coming < len(sequence) else held[-1]
        if coming >= len(sequence):
            held.pop()
    return out
