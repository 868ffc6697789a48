"""Writing a set: tars by split, a Parquet index with a row per object, and a manifest that hashes all of it.

The same objects in the same order give the same bytes. Every file is written beside its place and renamed, the
manifest last: a folder without ``manifest.json`` is an unfinished set, never a wrong one.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Set
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import file_sha256, writing
from .tar import END, ShardError
from .triplet import SCHEMA, TeacherInfo, Triplet, decode_triplet

SET_SCHEMA = "clipgs-triplets/1"
MANIFEST = "manifest.json"
INDEX = "index.parquet"
MAX_BYTES = 256 * 1024 * 1024  # of a shard, which may be longer by less than one object
MAX_OBJECTS = 4_096  # of a shard
SHARD_NAME = re.compile(r"[a-z0-9_]{1,32}-\d{6}\.tar(?:\.gz)?")
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),  # file name
        ("offset", pa.int64()),  # of the object's first header in the shard
        ("bytes", pa.int64()),  # from there to the end of its last member
        ("split", pa.string()),
        ("category", pa.string()),
        ("source", pa.string()),  # provenance.source
        ("licence", pa.string()),  # provenance.licence, "" when unknown
        ("n_gaussians", pa.int64()),
        ("n_views", pa.int64()),
        ("n_texts", pa.int64()),
        ("psnr", pa.float64()),  # dB on held-out views, null when not measured
        ("sha256", pa.string()),  # of those bytes
    ]
)

replacing = partial(writing, error=ShardError)


class ShardWriter:
    """Append objects to ``SPLIT-000000.tar`` (or ``.tar.gz``), ``SPLIT-000001.tar``, ...; each whole or not at all.

    Use it as a context: leaving it normally finishes the last shard, leaving it by an exception removes it.
    """

    def __init__(self, folder: Path, split: str, compress: bool = False) -> None:
        self.folder, self.split, self.compress = Path(folder), split, compress
        self.shards: list[dict[str, Any]] = []  # name, bytes, objects, sha256 (and tar_bytes) of each
        self._open: ExitStack | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._open is not None:
            if kind is None:
                self._finish()
            else:
                self._open.__exit__(kind, error, trace)

    def add(self, block: bytes) -> tuple[str, int]:
        """Append the bytes of one object; returns shard name and offset.

        ShardError when the folder is missing, not writable or full, at the latest on leaving the context.
        """
        if self._open is None:
            name = f"{self.split}-{len(self.shards):06d}.tar" + (".gz" if self.compress else "")
            self._open = ExitStack()
            self._stream = self._open.enter_context(replacing(self.folder / name))
            self._packer = zlib.compressobj(9, wbits=31) if self.compress else None  # 31: gzip, without a date
            self._bytes = 0  # of the tar, packed or not
            self.shards.append({"name": name, "bytes": 0, "objects": 0})
        entry, place = self.shards[-1], self._bytes
        self._append(block)
        entry["objects"] += 1
        if self._bytes >= MAX_BYTES or entry["objects"] >= MAX_OBJECTS:
            self._finish()
        return entry["name"], place

    def _append(self, data: bytes) -> None:
        self._bytes += len(data)
        self._stream.write(self._packer.compress(data) if self._packer else data)

    def _finish(self) -> None:
        """Put the file in its place and complete its entry."""
        stack, self._open = self._open, None
        with stack or ExitStack():
            self._append(END)
            if self._packer:
                self._stream.write(self._packer.flush())
        entry = self.shards[-1]
        path = self.folder / entry["name"]
        entry |= {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        if self.compress:
            entry["tar_bytes"] = self._bytes


def write_set(
    folder: Path, blocks: Iterable[bytes], *, build: Mapping[str, Any], compress: bool = False
) -> dict[str, Any]:
    """Write shards, index and manifest from the bytes of objects (`encode_triplet`), each checked once more.

    Args:
        folder: existing folder; files of the same names are replaced.
        blocks: one per object, in the order in which they shall stand within their split.
        build: how the set was made, for the manifest; plain JSON.
        compress: as .tar.gz: about a fifth smaller, but unpacked to a temporary file to be read.

    Returns:
        The manifest.

    Raises:
        ShardError: for a damaged object, a key that comes twice, objects of different teachers, or a full disk.
    """
    rows, writers, keys = list[dict[str, Any]](), dict[str, ShardWriter](), set[str]()
    teacher: TeacherInfo | None = None
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            triplet = decode_triplet(block, f"object {number}")
            teacher = teacher if keys else triplet.teacher
            _check_fits(triplet, keys, teacher)
            keys.add(triplet.key)
            if triplet.split not in writers:
                writers[triplet.split] = stack.enter_context(ShardWriter(folder, triplet.split, compress))
            shard, offset = writers[triplet.split].add(block)
            rows.append(_index_row(triplet, block, shard, offset))
    shards = [entry for split in sorted(writers) for entry in writers[split].shards]
    rows.sort(key=lambda row: (row["shard"], row["offset"]))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), buffer, compression="zstd")
    index = buffer.getvalue().to_pybytes()
    with replacing(folder / INDEX) as stream:
        stream.write(index)
    manifest = {
        "schema": SET_SCHEMA,
        "object_schema": SCHEMA,
        "objects": len(rows),
        "teacher": asdict(teacher) if teacher else None,
        "splits": split_hashes(rows),
        "shards": shards,
        "index": {"name": INDEX, "bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()},
        "build": dict(build),
        "content_sha256": content_hash(rows),
    }
    with replacing(folder / MANIFEST) as stream:
        stream.write((json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return manifest


def _check_fits(triplet: Triplet, keys: Set[str], teacher: TeacherInfo | None) -> None:
    """What must hold over all objects of a set, of which those of ``keys`` are in."""
    where = f"object {triplet.key}"
    if triplet.key in keys:
        raise ShardError(where, "a key must come once in a set", "a second object", "rename one of them")
    if triplet.teacher != teacher:
        must = f"all objects must be embedded by {teacher}" if teacher else "no object may have embeddings"
        got = str(triplet.teacher or "no embeddings")
        raise ShardError(where, f"{must}, as the first one is", got, "embed all of them with one teacher")


def _index_row(triplet: Triplet, block: bytes, shard: str, offset: int) -> dict[str, Any]:
    psnr = triplet.provenance.get("psnr")
    return {
        "key": triplet.key,
        "shard": shard,
        "offset": offset,
        "bytes": len(block),
        "split": triplet.split,
        "category": triplet.category,
        "source": str(triplet.provenance.get("source", "")),
        "licence": str(triplet.provenance.get("licence", "")),
        "n_gaussians": len(triplet.splats),
        "n_views": len(triplet.views),
        "n_texts": len(triplet.texts),
        "psnr": float(psnr) if isinstance(psnr, int | float) else None,
        "sha256": hashlib.sha256(block).hexdigest(),
    }


def split_hashes(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """``split -> {"objects", "sha256"}``; the hash is over the sorted keys, so that it names the split's members."""
    keys = dict[str, list[str]]()
    for row in rows:
        keys.setdefault(row["split"], []).append(row["key"])
    return {split: {"objects": len(keys[split]), "sha256": _hash_lines(keys[split])} for split in sorted(keys)}


def content_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """Sha256 over all objects' hashes, sorted by key: the same however they are spread over shards."""
    return _hash_lines(f"{row['key']} {row['split']} {row['sha256']}" for row in rows)


def _hash_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
