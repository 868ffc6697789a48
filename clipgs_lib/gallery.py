"""A gallery: embeddings with keys and descriptions, exact search by cosine, query algebra, two files on disk.

===========================  ======================================================================================
``gallery.jsonl``            first line: ``{"format", "teacher", "dim", "count", "embeds", "sha256"}``, then one line
                             ``{"key", "meta"}`` per row
``embeds-XXXX.safetensors``  ``embeds [N, D]`` float32, unit rows; named by the sha256 of the rows, so that the
                             index, which is replaced last, always names the embeddings that belong to it
===========================  ======================================================================================

Nothing here is ever unpickled. Search is exact: a query costs one pass over the rows, in blocks, so that scores of a
million rows never lie in memory at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import ExplainedError
from .files import replacing
from .vectors import unit, unit_faults
from .words import facts_table

FORMAT = "clipgs-gallery/1"
INDEX = "gallery.jsonl"
_BLOCK = 1 << 22  # scores held at a time: 16 MB, and 32 MB packed
_ROWS = 0xFFFFFFFF
_EMBEDS = re.compile(r"embeds-[0-9a-f]{16}\.safetensors")
_HEAD = {"format": str, "teacher": str, "dim": int, "count": int, "embeds": str, "sha256": str}
_ROW = {"key": str, "meta": dict}

Meta = Mapping[str, Any]


class GalleryError(ExplainedError):
    """A gallery that cannot be read, or does not fit what is asked of it."""


class Hits(NamedTuple):
    """The best rows of a search, best first; of equal scores the lower row comes first."""

    indices: Tensor  # [k] or [Q, k] int64, rows of the gallery
    scores: Tensor  # [k] or [Q, k] float32, cosines
    keys: list[Any]  # k keys, or Q lists of them


class Gallery:
    """N embeddings of one teacher's space, each with a key and a description.

    Args:
        embeds: ``[N, D]`` floating point, unit rows, N >= 1; kept as float32 without a copy where it is that already.
        keys: N different names.
        meta: N dicts of plain JSON (captions, category, file, ...); None for empty ones.
        teacher: identity of the teacher whose space this is, as `Teacher.identity` says it.

    Raises:
        ValueError: when counts differ, a key comes twice, or a row is not finite or not unit-norm.
    """

    def __init__(
        self, embeds: Tensor, keys: Sequence[str], meta: Sequence[Meta] | None = None, *, teacher: str
    ) -> None:
        if not isinstance(embeds, Tensor) or embeds.ndim != 2 or not embeds.is_floating_point():
            got = f"{embeds.dtype} {list(embeds.shape)}" if isinstance(embeds, Tensor) else type(embeds).__name__
            raise ValueError(f"embeds must be a floating-point tensor [N, D], got {got}")
        if 0 in embeds.shape:
            raise ValueError(f"a gallery must have at least one row and column, got embeds {list(embeds.shape)}")
        if not isinstance(teacher, str) or not teacher.strip():
            raise ValueError(f"teacher must be the identity of the teacher of this space, got {teacher!r}")
        if isinstance(keys, str):
            raise ValueError(f"keys must be a list of names, got one str; write [{keys[:40]!r}]")
        self.embeds = embeds.detach().to(torch.float32)
        self.keys = [str(key) for key in keys]
        self.meta = [dict(one) for one in meta] if meta is not None else [{} for _ in self.keys]
        self.teacher = teacher
        for name, rows in (("keys", self.keys), ("meta", self.meta)):
            if len(rows) != len(embeds):
                raise ValueError(f"{name} must have one entry per row of embeds ({len(embeds):,}), got {len(rows):,}")
        self._rows = {key: row for row, key in enumerate(self.keys)}
        if len(self._rows) < len(self.keys):
            row, key = next((row, key) for row, key in enumerate(self.keys) if self._rows[key] != row)
            raise ValueError(f"keys must differ, got {key!r} in rows {row} and {self._rows[key]}; leave one out")
        norms, bad = unit_faults(self.embeds)  # [N]
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            todo = "leave the object out" if not bool(norms[row].isfinite()) else "divide rows by their norms"
            raise ValueError(
                f"rows of embeds must be finite with norm 1, got {float(norms[row]):.4g} in row {row} "
                f"({self.keys[row]!r}), {int(bad.sum()):,} such rows in all; {todo}"
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dim(self) -> int:
        """D, the number of columns."""
        return int(self.embeds.shape[1])

    def _repr_html_(self) -> str:
        facts = {"rows": f"{len(self):,}", "numbers in a row": str(self.dim), "teacher": self._teacher_name}
        return facts_table("Gallery of embeddings", facts)

    def __repr__(self) -> str:
        return f"Gallery({len(self):,} rows, D={self.dim}, teacher {self._teacher_name!r})"

    @property
    def _teacher_name(self) -> str:
        return self.teacher.split(" sha256:")[0]

    def row(self, key: str) -> int:
        """Row of a key; ``gallery.embeds[gallery.row(key)]`` is the query by that object.

        Raises:
            KeyError: when there is none.
        """
        if key not in self._rows:
            raise KeyError(f"key must be one of the gallery's {len(self):,}, got {key!r}")
        return self._rows[key]

    # ---- search ------------------------------------------------------------------------------------------------

    def search(
        self, query: Tensor, k: int = 10, *, where: Callable[[Meta], bool] | None = None, teacher: str | None = None
    ) -> Hits:
        """Find the rows with the largest cosine, exactly.

        Args:
            query: ``[D]`` or ``[Q, D]``, any length but 0: a text, a picture, a shape, or what `combine` made of them.
            k: how many, ``1..len(gallery)``.
            where: says of a row's description whether the row may come; with fewer than ``k`` such rows all of them
                come, which may be none.
            teacher: identity of the teacher that made the query; checked when given.

        Returns:
            `Hits`, without the dimension Q for a query ``[D]``.

        Raises:
            ValueError: when ``k`` or the query does not fit, or a query is zero or not finite.
            GalleryError: for another teacher.
        """
        queries = self._queries(query)
        if teacher is not None:
            _check_space("search", self.teacher, self.dim, teacher, self.dim)
        if not 1 <= k <= len(self):
            raise ValueError(f"k must lie in 1..{len(self)}, the rows there are, got {k}")
        allowed = None
        if where is not None:
            allowed = torch.tensor([bool(where(meta)) for meta in self.meta], device=self.embeds.device)  # [N]
        indices, scores = self._best(queries, k, allowed)
        keys = [[self.keys[row] for row in line] for line in indices.tolist()]
        if query.ndim == 1:
            return Hits(indices[0], scores[0], keys[0])
        return Hits(indices, scores, keys)

    def _queries(self, query: Tensor) -> Tensor:
        if not isinstance(query, Tensor) or query.ndim not in (1, 2) or query.shape[-1] != self.dim:
            got = list(query.shape) if isinstance(query, Tensor) else type(query).__name__
            raise ValueError(
                f"query must be a tensor [{self.dim}] or [Q, {self.dim}], got {got}; is it of the teacher "
                f"{self.teacher!r}?"
            )
        return _unit(query.detach().to(self.embeds).reshape(-1, self.dim), "query")  # [Q, D]

    def _best(self, queries: Tensor, k: int, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows and scores ``[Q, k]`` of the best, fewer columns when fewer are allowed."""
        best = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        step = max(1, _BLOCK // max(len(queries), 1))
        for start in range(0, len(self), step):
            rows = torch.arange(start, min(start + step, len(self)), device=queries.device)
            scores = queries @ self.embeds[start : start + step].T  # [Q, step]
            if allowed is not None:
                some = allowed[start : start + step]
                rows, scores = rows[some], scores[:, some]
            best = torch.cat([best, _best_of(scores, rows, k)], dim=1)
        return _unpack(_top(best, k))

    # ---- files -------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the gallery into a folder, made when missing; a gallery there is replaced as a whole or not at all.

        Raises:
            GalleryError: when a description is no plain JSON.
            OSError: when the folder cannot be written.
        """
        folder = Path(folder)
        embeds = self.embeds.cpu().contiguous()
        digest = _digest(embeds)
        name = f"embeds-{digest[:16]}.safetensors"
        head: dict[str, Any] = {
            "format": FORMAT,
            "teacher": self.teacher,
            "dim": self.dim,
            "count": len(self),
            "embeds": name,
        }
        rows = ({"key": key, "meta": meta} for key, meta in zip(self.keys, self.meta, strict=True))
        lines = b"".join(_line(row, folder / INDEX) for row in (head | {"sha256": digest}, *rows))
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / name) as temporary:
            save_file({"embeds": embeds}, temporary)
        with replacing(folder / INDEX) as temporary:
            temporary.write_bytes(lines)
        for path in folder.iterdir():
            if _EMBEDS.fullmatch(path.name) and path.name != name:  # of the gallery that was replaced
                path.unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, teacher: str | None = None, dim: int | None = None) -> Gallery:
        """Read a gallery that `save` wrote.

        Args:
            folder: where it lies.
            teacher: identity of the teacher that it is going to be searched with; another is refused.
            dim: D of that teacher; another is refused.

        Raises:
            GalleryError: when a file is missing, damaged, or of another format, teacher or dimension.
        """
        index = Path(folder) / INDEX
        head, rows = _read_index(index)
        _check_space(index, head["teacher"], head["dim"], teacher or head["teacher"], dim or head["dim"])
        path = index.with_name(head["embeds"])
        try:
            embeds = load_file(path)["embeds"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"[:200]
            raise GalleryError(path, "the embeddings must be intact safetensors", got, "save it again") from None
        if embeds.dtype != torch.float32 or list(embeds.shape) != [head["count"], head["dim"]]:
            must = f"embeds must be float32 [{head['count']}, {head['dim']}]"
            raise GalleryError(path, must, f"{embeds.dtype} {list(embeds.shape)}", "save it again")
        if _digest(embeds) != head["sha256"]:
            raise GalleryError(path, "embeds must have the sha256 in the index", "another", "save it again")
        try:
            return cls(embeds, [r["key"] for r in rows], [r["meta"] for r in rows], teacher=head["teacher"])
        except ValueError as error:
            raise GalleryError(index, "the rows must make up a gallery", str(error), "save it again") from None


def combine(*parts: Tensor | tuple[float, Tensor]) -> Tensor:
    """Make one query of several: the weighted sum of their directions.

    ``combine(image, text)`` asks for what suits both (the score is a multiple of the sum of both cosines, as in
    Diorama's re-ranking); ``combine(shape, (-0.5, text))`` asks for what is like the shape and less like the text.

    Args:
        *parts: vectors ``[D]`` of any length but 0, or pairs (weight, vector); a plain vector weighs 1.

    Returns:
        ``[D]`` float32, unit-norm.

    Raises:
        ValueError: for no parts, another shape, weights that are not finite, or parts that cancel.
    """
    if not parts:
        raise ValueError("combine needs at least one vector, got none")
    pairs = [part if isinstance(part, tuple) else (1.0, part) for part in parts]
    shapes = [list(vector.shape) for _, vector in pairs]
    if any(len(shape) != 1 for shape in shapes) or shapes.count(shapes[0]) != len(shapes):
        raise ValueError(f"combine needs vectors of one shape [D], got {shapes}")
    if not all(math.isfinite(weight) for weight, _ in pairs):
        raise ValueError(f"weights must be finite, got {[weight for weight, _ in pairs]}")
    turned = [weight * _unit(vector.detach().float()[None], "a part")[0] for weight, vector in pairs]
    total = torch.stack(turned).sum(dim=0)
    if float(total.norm()) <= 1e-6 * sum(abs(weight) for weight, _ in pairs):
        raise ValueError("the weighted parts cancel, so there is no direction to search in; change a weight")
    return unit(total)


def _unit(vectors: Tensor, name: str) -> Tensor:
    """Rows ``[Q, D]`` divided by their norms."""
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    bad = ~(norms.isfinite() & (norms > 1e-12))[:, 0]
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"{name} must be finite and not zero, got a norm of {float(norms[row, 0]):.4g} in row {row}")
    return vectors / norms


def _best_of(scores: Tensor, rows: Tensor, k: int) -> Tensor:
    """The best ``k`` of scores ``[Q, n]`` of rows ``[n]``, packed ``[Q, k]``."""
    values, places = scores.topk(min(k, len(rows)), dim=1)
    if bool(((scores >= values[:, -1:]).sum(dim=1) > values.shape[1]).any()):  # equal scores on both sides of the cut
        return _top(_pack(scores, rows), k)
    return _pack(values, rows[places])


def _pack(scores: Tensor, rows: Tensor) -> Tensor:
    """Pack scores ``[Q, n]`` float32 and rows ``[n]`` or ``[Q, n]`` as int64 in the order of (score, -row)."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # floats as integers of the same order
    return (ordered.to(torch.int64) << 32) | (_ROWS - rows)


def _unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Rows int64 and scores float32, both of the shape of ``packed``."""
    ordered = (packed >> 32).to(torch.int32)
    return _ROWS - (packed & _ROWS), (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _top(packed: Tensor, k: int) -> Tensor:
    return packed.topk(min(k, packed.shape[1]), dim=1).values


def _check_space(where: str | os.PathLike[str], teacher: str, dim: int, other: str, other_dim: int) -> None:
    if (teacher, dim) != (other, other_dim):
        must = f"the teacher must be {teacher} (D = {dim}), whose space the gallery lies in"
        todo = "load that teacher, or embed the objects again with yours"
        raise GalleryError(where, must, f"{other} (D = {other_dim})", todo)


def _digest(embeds: Tensor) -> str:
    """sha256 of the rows' float32 bytes."""
    return hashlib.sha256(embeds.numpy().data).hexdigest()


def _line(value: Mapping[str, Any], where: Path) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        got = f"{error} in {value.get('key')!r}"[:200]
        raise GalleryError(where, "descriptions must be plain JSON", got, "convert or drop the value") from None


def _read_index(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head and the rows of an index, with the types that they must have."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GalleryError(path, "a gallery must have an index", str(error)[:200], "name its folder") from None
    head = _parse(path, 1, lines[0], _HEAD)
    if not _EMBEDS.fullmatch(head["embeds"]):
        raise GalleryError(path, "embeds must name a file beside it", repr(head["embeds"])[:60], "save it again")
    if lines[-1] != "" or len(lines) - 2 != head["count"]:
        got = f"{len(lines) - 2:,} whole lines"
        raise GalleryError(path, f"{head['count']:,} rows must follow the head", got, "the file is cut; save it again")
    return head, [_parse(path, number, line, _ROW) for number, line in enumerate(lines[1:-1], start=2)]


def _parse(path: Path, number: int, line: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GalleryError(path, f"line {number} must be JSON", str(error)[:100], "save it again") from None
    if kinds is _HEAD and isinstance(value, dict) and value.get("format") != FORMAT:
        got, todo = repr(value.get("format"))[:60], "another version wrote it; save it again, or update clipgs_lib"
        raise GalleryError(path, f"format must be {FORMAT!r}", got, todo)
    if not isinstance(value, dict) or {name: type(one) for name, one in value.items()} != dict(kinds):
        must = f"line {number} must hold " + ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise GalleryError(path, must, line[:100], "save it again, or update clipgs_lib")
    return value
