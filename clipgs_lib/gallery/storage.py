"""A gallery on disk: parts that never change once written, and an index that is replaced last.

========================  ==========================================================================================
``gallery.json``          ``{"format", "teacher", "encoder", "dim", "parts"}``; of each part name, rows, and bytes and
                          sha256 of its two files
``part-X.safetensors``    ``embeds [n, D]`` float32 unit rows; ``codes``, ``scales`` and ``errors`` (`search.Codes`);
                          ``thumbnails`` (WebPs one after the other) and ``ends [n]`` (where each of them ends)
``part-X.parquet``        ``key``; fields of the descriptions as columns ``meta.FIELD``, or, of mixed or nested types,
                          as JSON in ``json.FIELD``
``lock``                  held by the one process that writes
========================  ==========================================================================================

X is a hash of what the part holds, so a file never changes. Who reads while another process writes sees the gallery
before or after a commit; one killed at any moment leaves what it committed last. A commit merges small parts at the end
into one, so that a gallery of N rows has about log N parts, and removes files that the index does not name.
Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ExplainedError
from ..files import locked, writing
from ..words import first_of
from .search import Block, Codes, encode_rows

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "clipgs-gallery/2"
INDEX, LOCK = "gallery.json", "lock"
_PART = re.compile(r"part-[0-9a-f]{16}")
_SUFFIXES = (".safetensors", ".parquet")
_DTYPES = {str: "string", bool: "boolean", int: "Int64", float: "Float64"}
_HEAD = {"format": str, "teacher": str, "encoder": str, "dim": int, "parts": list}
_ENTRY = {"name": str, "rows": int, "bytes": list, "sha256": list}

Meta = Mapping[str, Any]


class GalleryError(ExplainedError):
    """A gallery that cannot be read, or does not fit what is asked of it."""


@dataclass(frozen=True)
class Space:
    """What the embeddings of a gallery have in common; another is refused."""

    teacher: str  # identity of the teacher, as `Teacher.identity` says it
    encoder: str  # identity of the encoder, as `Encoder.identity` says it; "" for unknown
    dim: int  # D

    def check(self, other: Space, where: str | os.PathLike[str]) -> None:
        """GalleryError unless the other one is this; an encoder is only compared when both are known."""
        if (self.teacher, self.dim) != (other.teacher, other.dim):
            must = f"the teacher must be {self.teacher} (D = {self.dim}), whose space the gallery lies in"
            todo = "load that teacher, or embed the objects again with yours"
            raise GalleryError(where, must, f"{other.teacher} (D = {other.dim})", todo)
        if self.encoder and other.encoder and self.encoder != other.encoder:
            must = f"the encoder must be {self.encoder}, which made the gallery's embeddings"
            raise GalleryError(where, must, other.encoder, "use that one, or another folder")


@dataclass(frozen=True, eq=False)
class Rows:
    """What is written of n rows."""

    embeds: Tensor  # [n, D] float32, unit rows
    keys: Sequence[str]
    meta: Sequence[Meta]  # plain JSON
    thumbnails: Sequence[bytes]  # WebPs, empty where there is none

    def __add__(self, other: Rows) -> Rows:
        embeds = torch.cat([self.embeds, other.embeds])
        pictures = [*self.thumbnails, *other.thumbnails]
        return Rows(embeds, [*self.keys, *other.keys], [*self.meta, *other.meta], pictures)


@dataclass(frozen=True, eq=False)
class Part:
    """Rows on disk: embeddings and pictures mapped, descriptions read when they are asked for."""

    entry: Mapping[str, Any]  # of the index
    block: Block
    thumbnails: Tensor  # [bytes] uint8
    ends: Tensor  # [n] int64
    table: mmap.mmap  # the Parquet file; a mapped file stays readable when a commit removes it

    def thumbnail(self, row: int) -> bytes:
        """WebP of a row; empty where there is none."""
        start = int(self.ends[row - 1]) if row else 0
        return self.thumbnails[start : int(self.ends[row])].numpy().tobytes()

    def frame(self) -> pd.DataFrame:
        """Keys and descriptions; GalleryError when they are damaged."""
        import pandas

        try:
            return pandas.read_parquet(io.BytesIO(self.table), dtype_backend="numpy_nullable")
        except (OSError, ValueError) as error:
            where, todo = self.entry["name"] + _SUFFIXES[1], "make the gallery again"
            raise GalleryError(where, "the table must be intact Parquet", str(error)[:200], todo) from None

    def rows(self) -> Rows:
        """All of it, in memory."""
        frame, pictures = self.frame(), [self.thumbnail(row) for row in range(self.entry["rows"])]
        return Rows(self.block.embeds, frame["key"].tolist(), rows_of(frame), pictures)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Descriptions of the rows of `Part.frame`, as they were written."""
    rows: list[dict[str, Any]] = [{} for _ in range(len(frame))]
    for column in frame.columns:
        kind, _, name = str(column).partition(".")
        if kind not in ("meta", "json"):
            continue
        values = frame[column].tolist()
        for row in np.flatnonzero(frame[column].notna()):
            rows[row][name] = json.loads(values[row]) if kind == "json" else values[row]
    return rows


def _table(keys: Sequence[str], meta: Sequence[Meta], where: Path) -> bytes:
    """The Parquet file of a part."""
    import pandas

    for key, row in zip(keys, meta, strict=True):
        try:
            json.dumps([key, row], ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            got = f"{error} in {key!r}"[:200]
            raise GalleryError(where, "descriptions must be plain JSON", got, "convert or drop the value") from None
    columns: dict[str, Any] = {"key": pandas.array(list(keys), dtype="string")}
    for name in dict.fromkeys(name for row in meta for name in row):
        kinds = {type(row[name]) for row in meta if name in row}
        dtype = _DTYPES.get(*kinds) if len(kinds) == 1 else None
        if dtype == "Int64" and any(abs(row.get(name, 0)) >= 1 << 63 for row in meta):
            dtype = None
        if dtype is not None:
            columns[f"meta.{name}"] = pandas.array([row.get(name) for row in meta], dtype=dtype)
        else:
            texts = [json.dumps(row[name], ensure_ascii=False) if name in row else None for row in meta]
            columns[f"json.{name}"] = pandas.array(texts, dtype="string")
    stream = io.BytesIO()
    pandas.DataFrame(columns).to_parquet(stream, index=False, compression="zstd")
    return stream.getvalue()


# ---- reading -------------------------------------------------------------------------------------------------------


def open_parts(folder: Path) -> tuple[Space, list[Part]]:
    """What a gallery's index names, mapped; sizes are checked, hashes are not.

    Raises:
        GalleryError: when a file is missing, cut, or of another format.
    """
    while True:
        text = _index_text(folder)
        space, entries = _parse_index(folder / INDEX, text)
        try:
            return space, [_open_part(folder, entry, space.dim) for entry in entries]
        except GalleryError:
            if _index_text(folder) == text:  # else a commit came between
                raise


def _index_text(folder: Path) -> str:
    try:
        return (folder / INDEX).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        must, todo = "a gallery must have an index", "name its folder; clipgs embed makes one"
        raise GalleryError(folder / INDEX, must, str(error)[:200], todo) from None


def _parse_index(path: Path, text: str) -> tuple[Space, list[dict[str, Any]]]:
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GalleryError(path, "the index must be JSON", str(error)[:100], "make the gallery again") from None
    if isinstance(head, dict) and head.get("format") != FORMAT:
        got, todo = repr(head.get("format"))[:60], "another version wrote it; make it again, or update clipgs_lib"
        raise GalleryError(path, f"format must be {FORMAT!r}", got, todo)
    for value, kinds in ((head, _HEAD), *((entry, _ENTRY) for entry in _listed(head))):
        if not isinstance(value, dict) or {name: type(one) for name, one in value.items()} != kinds:
            must = "it must hold " + ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
            raise GalleryError(path, must, repr(value)[:100], "make the gallery again, or update clipgs_lib")
    for entry in head["parts"]:
        if not _PART.fullmatch(entry["name"]):
            raise GalleryError(path, "a part must name files beside it", repr(entry["name"])[:60], "make it again")
    if not head["parts"]:
        raise GalleryError(path, "a gallery must have at least one part", "none", "make it again")
    return Space(head["teacher"], head["encoder"], head["dim"]), head["parts"]


def _listed(head: Any) -> list[Any]:
    return head["parts"] if isinstance(head, dict) and isinstance(head.get("parts"), list) else []


def _open_part(folder: Path, entry: Mapping[str, Any], dim: int) -> Part:
    paths = [folder / (entry["name"] + suffix) for suffix in _SUFFIXES]
    for path, size in zip(paths, entry["bytes"], strict=True):
        got = f"{path.stat().st_size:,}" if path.is_file() else "no such file"
        if got != f"{size:,}":
            raise GalleryError(path, f"the file must have {size:,} bytes", got, "it is cut or lost; make it again")
    try:
        with safe_open(paths[0], "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        embeds = tensors["embeds"]
        codes = Codes(tensors["codes"], tensors["scales"], tensors["errors"])
        with paths[1].open("rb") as file:
            table = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        part = Part(entry, Block(embeds, codes), tensors["thumbnails"], tensors["ends"], table)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise GalleryError(paths[0], "the embeddings must be intact safetensors", got, "make it again") from None
    if embeds.dtype != torch.float32 or list(embeds.shape) != [entry["rows"], dim]:
        must = f"embeds must be float32 [{entry['rows']}, {dim}]"
        raise GalleryError(paths[0], must, f"{embeds.dtype} {list(embeds.shape)}", "make it again")
    return part


# ---- writing -------------------------------------------------------------------------------------------------------


class GalleryWriter:
    """Append to a gallery on disk, made when missing; use it as a context, in one process at a time.

    Each `add` is a commit: readers see it whole or not at all, and it outlives whatever ends the process.

    Args:
        folder: of the gallery.
        space: teacher, encoder and dimension of what is added.

    Attributes:
        keys: those that are in.

    Raises:
        GalleryError: for a gallery of another teacher or encoder, or one that is damaged.
        OSError: when the folder cannot be written, or another process writes there.
    """

    def __init__(self, folder: str | os.PathLike[str], space: Space) -> None:
        self.folder, self.space = Path(folder), space
        self.keys: set[str] = set()
        self._parts: list[Part] = []
        self._stack = ExitStack()

    def __enter__(self) -> GalleryWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(locked(self.folder / LOCK, "one process may write a gallery"))
        try:
            if (self.folder / INDEX).exists():
                there, self._parts = open_parts(self.folder)
                there.check(self.space, self.folder / INDEX)
                self.keys = {key for part in self._parts for key in part.frame()["key"]}
        except GalleryError:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, rows: Rows) -> None:
        """Append rows.

        Raises:
            ValueError: when one of their keys is in already, or comes twice.
            GalleryError: when a description is no plain JSON.
            OSError: when the disk is full.
        """
        count = Counter([*rows.keys, *self.keys.intersection(rows.keys)])
        if double := [key for key, times in count.items() if times > 1]:
            raise ValueError(f"keys must come once in {self.folder}, got {first_of(double)} again; leave them out")
        self._parts = commit(self.folder, self.space, self._parts, rows)
        self.keys.update(rows.keys)


def commit(folder: Path, space: Space, kept: Sequence[Part], added: Rows) -> list[Part]:
    """Write rows as a part behind those kept, and let the index name them; the lock must be held.

    Returns:
        The parts that the gallery has now.

    Raises:
        GalleryError: when a description is no plain JSON.
        OSError: when the folder cannot be written.
    """
    parts = list(kept)
    while parts and parts[-1].entry["rows"] <= len(added.keys):  # so a part is always larger than the next
        added = parts.pop().rows() + added
    entry = _write_part(folder, added)
    head = asdict(space) | {"format": FORMAT, "parts": [*(part.entry for part in parts), entry]}
    with writing(folder / INDEX) as stream:
        stream.write((json.dumps({name: head[name] for name in _HEAD}, indent=1, ensure_ascii=False) + "\n").encode())
    named = {one["name"] for one in head["parts"]}
    for path in folder.iterdir():
        old = _PART.fullmatch(path.stem) and path.suffix in _SUFFIXES and path.stem not in named
        if old or path.match(".*.partial"):  # what a killed writer left
            path.unlink(missing_ok=True)
    return [*parts, _open_part(folder, entry, space.dim)]


def _write_part(folder: Path, added: Rows) -> dict[str, Any]:
    embeds, pictures = added.embeds.cpu().contiguous(), added.thumbnails
    table = _table(added.keys, added.meta, folder / INDEX)
    tensors = {
        "embeds": embeds,
        **encode_rows(embeds)._asdict(),
        "thumbnails": torch.from_numpy(np.frombuffer(b"".join(pictures), np.uint8).copy()),
        "ends": torch.tensor([len(one) for one in pictures], dtype=torch.int64).cumsum(0),
    }
    blobs = [save(tensors), table]
    digests = [hashlib.sha256(blob).hexdigest() for blob in blobs]
    name = "part-" + hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    for blob, suffix in zip(blobs, _SUFFIXES, strict=True):
        with writing(folder / (name + suffix)) as stream:
            stream.write(blob)
    return {"name": name, "rows": len(embeds), "bytes": [len(blob) for blob in blobs], "sha256": digests}
