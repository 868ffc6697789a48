"""A gallery: embeddings with keys, descriptions and pictures, in memory or on disk, and exact search by cosine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..files import locked
from ..vectors import unit_faults
from ..words import facts_table, first_of
from .filters import parse_filters
from .search import CODED, Block, best_rows, encode_rows
from .storage import INDEX, LOCK, Meta, Part, Rows, Space, commit, open_parts, rows_of

if TYPE_CHECKING:
    import pandas as pd

Filter = str | Sequence[str] | Tensor
_SAMPLE = 1 << 14  # rows that stand for all where scores are put in relation


class Hits(NamedTuple):
    """The best rows of a search, best first; of equal scores the lower row comes first."""

    indices: Tensor  # [k] or [Q, k] int64, rows of the gallery
    scores: Tensor  # [k] or [Q, k] float32, cosines
    keys: list[Any]  # k keys, or Q lists of them


class Gallery:
    """N embeddings of one teacher's space, each with a key, a description and perhaps a picture.

    `Gallery.open` gives one that lies on disk: its embeddings and pictures stay there, mapped, and descriptions are
    read when they are first asked for.

    Args:
        embeds: ``[N, D]`` floating point, unit rows, N >= 1; kept as float32 without a copy where it is that already.
        keys: N different names.
        meta: N dicts of plain JSON (captions, category, file, ...); None for empty ones.
        teacher: identity of the teacher whose space this is, as `Teacher.identity` says it.
        encoder: identity of the encoder that made the embeddings, as `Encoder.identity` says it; "" for unknown.
        thumbnails: N pictures as WebP, empty where there is none; None for none at all.

    Raises:
        ValueError: when counts differ, a key comes twice, or a row is not finite or not unit-norm.
    """

    nearest: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None = None  # a search that is not exact: `use_faiss`
    recall = 1.0  # @10, of ``nearest``

    def __init__(
        self,
        embeds: Tensor,
        keys: Sequence[str],
        meta: Sequence[Meta] | None = None,
        *,
        teacher: str,
        encoder: str = "",
        thumbnails: Sequence[bytes] | None = None,
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
        self.space = Space(teacher, encoder, int(embeds.shape[1]))
        self.folder: Path | None = None
        self._parts: list[Part] = []
        self._blocks = [Block(embeds.detach().to(torch.float32))]
        self._count = len(embeds)
        self.keys = [str(key) for key in keys]
        self.meta = [dict(one) for one in meta] if meta is not None else [{} for _ in self.keys]
        self._thumbnails = [b""] * self._count if thumbnails is None else list(thumbnails)
        for name, rows in (("keys", self.keys), ("meta", self.meta), ("thumbnails", self._thumbnails)):
            if len(rows) != len(embeds):
                raise ValueError(f"{name} must have one entry per row of embeds ({len(embeds):,}), got {len(rows):,}")
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

    # ---- what it holds -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    @property
    def teacher(self) -> str:
        """Identity of the teacher whose space this is."""
        return self.space.teacher

    @property
    def encoder(self) -> str:
        """Identity of the encoder that made the embeddings; "" for unknown."""
        return self.space.encoder

    @property
    def parts(self) -> list[str]:
        """Names of its files on disk, which say what is in them; none in memory."""
        return [part.entry["name"] for part in self._parts]

    @property
    def dim(self) -> int:
        """D, the number of columns."""
        return self.space.dim

    @cached_property
    def embeds(self) -> Tensor:
        """``[N, D]`` float32; of a gallery on disk mapped, or a copy where it has several parts."""
        rows = [block.embeds for block in self._blocks]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    @cached_property
    def keys(self) -> list[str]:
        """N different names."""
        return self._frame["key"].tolist()

    @cached_property
    def meta(self) -> list[dict[str, Any]]:
        """N descriptions; `describe` reads only some of a large gallery on disk."""
        return rows_of(self._frame)

    @cached_property
    def categories(self) -> list[str]:
        """N categories, empty where there is none."""
        return [str(meta.get("category") or "") for meta in self.meta]

    @cached_property
    def _frame(self) -> pd.DataFrame:
        import pandas

        return pandas.concat([part.frame() for part in self._parts], ignore_index=True)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def row(self, key: str) -> int:
        """Row of a key; ``gallery.embeds[gallery.row(key)]`` is the query by that object.

        Raises:
            KeyError: when there is none.
        """
        if key not in self._rows:
            raise KeyError(f"key must be one of the gallery's {len(self):,}, got {key!r}")
        return self._rows[key]

    def take(self, rows: Sequence[int] | Tensor) -> Tensor:
        """Embeddings ``[R, D]`` of some rows."""
        chosen, start = torch.as_tensor(rows, dtype=torch.int64), 0
        out = torch.empty(len(chosen), self.dim)
        for block in self._blocks:
            inside = (chosen >= start) & (chosen < start + len(block.embeds))
            out[inside] = block.embeds[(chosen[inside] - start).to(block.embeds.device)].cpu()
            start += len(block.embeds)
        return out

    def describe(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Descriptions of some rows."""
        if "meta" not in self.__dict__ and len(self) > _SAMPLE:
            return rows_of(self._frame.iloc[list(rows)])
        return [self.meta[row] for row in rows]

    def captions(self, rows: Sequence[int]) -> list[str]:
        """What rows are called: the caption, else the category, else the key. Plain text, whatever it holds."""
        out = []
        for row, meta in zip(rows, self.describe(rows), strict=True):
            names = (meta.get(name) for name in ("caption", "category"))
            out.append(next((name for name in names if isinstance(name, str) and name.strip()), self.keys[row]))
        return out

    def card(self, row: int) -> dict[str, str]:
        """Of a row: key, category, split and caption (`captions`), all plain text; empty where there is none."""
        meta = self.describe([row])[0]
        facts = {name: str(meta.get(name) or "") for name in ("category", "split")}
        return {"key": self.keys[row], **facts, "caption": self.captions([row])[0]}

    def thumbnail(self, row: int) -> bytes:
        """Picture of a row as WebP; empty where there is none."""
        if not self._parts:
            return self._thumbnails[row]
        for part in self._parts:
            count = len(part.block.embeds)
            if row < count:
                return part.thumbnail(row)
            row -= count
        raise IndexError(f"row must lie in 0..{len(self) - 1}")

    @cached_property
    def sample(self) -> Tensor:
        """At most 16,384 rows ``[n, D]``, evenly spaced: what scores are put in relation to."""
        step = -(-len(self) // _SAMPLE)
        return self.take(torch.arange(0, len(self), step)) if step > 1 else self.embeds.cpu()

    def _repr_html_(self) -> str:
        facts = {"rows": f"{len(self):,}", "numbers in a row": str(self.dim), "teacher": _short(self.teacher)}
        facts |= {"encoder": _short(self.encoder)} if self.encoder else {}
        facts |= {"search": f"by faiss, recall@10 {self.recall:.1%}"} if self.nearest else {}
        return facts_table("Gallery of embeddings", facts)

    def __repr__(self) -> str:
        return f"Gallery({len(self):,} rows, D={self.dim}, teacher {_short(self.teacher)!r})"

    # ---- search ------------------------------------------------------------------------------------------------

    def search(self, query: Tensor, k: int = 10, *, where: Filter | None = None) -> Hits:
        """Find the rows with the largest cosine, exactly unless `approximate.use_faiss` was called.

        Args:
            query: ``[D]`` or ``[Q, D]``, any length but 0: of a text, a picture, a shape, or a sum of them.
            k: how many, ``1..len(gallery)``.
            where: filters such as ``"category=mug"`` that must all hold (`Condition.parse`), or a mask ``[N]``; with
                fewer than ``k`` such rows all of them come, which may be none.

        Returns:
            `Hits`, without the dimension Q for a query ``[D]``.

        Raises:
            ValueError: when ``k``, a filter or the query does not fit, or a query is zero or not finite.
        """
        queries = self._queries(query)
        if not 1 <= k <= len(self):
            raise ValueError(f"k must lie in 1..{len(self)}, the rows there are, got {k}")
        allowed = None if where is None else self.allowed(where).to(queries.device)
        some = len(queries) > 0 and allowed is None and k <= len(self) // 64
        near = self.nearest(queries, k) if self.nearest is not None and some else None
        if near is None or bool((near[0] < 0).any()):
            near = best_rows(self._searchable(), queries, k, allowed)
        indices, scores = near
        keys = [[self.keys[row] for row in line] for line in indices.tolist()]
        if query.ndim == 1:
            return Hits(indices[0], scores[0], keys[0])
        return Hits(indices, scores, keys)

    def allowed(self, where: Filter) -> Tensor:
        """Which rows may come, ``[N]`` bool.

        Raises:
            ValueError: for filters that cannot be read, or of a field that no row has.
        """
        if isinstance(where, Tensor):
            return where
        mask = torch.ones(len(self), dtype=torch.bool)
        for condition in parse_filters(where):
            holds = cache(condition.holds)
            mask &= torch.tensor([holds(value) for value in self._column(condition.field)])
        return mask

    def _column(self, field: str) -> list[Any]:
        """A field of all rows, None where it is absent; of lists tuples."""
        if field == "key":
            return self.keys
        if self._parts and "meta" not in self.__dict__:
            names = [name for kind in ("meta", "json") if (name := f"{kind}.{field}") in self._frame]
            rows = rows_of(self._frame[names])
        else:
            rows = self.meta
        values = [row.get(field) for row in rows]
        if all(value is None for value in values):
            there = sorted({name for meta in self.meta for name in meta})
            raise ValueError(f"a filter's field must be key or one of {first_of(there, 20)}; got {field[:100]!r}")
        return [tuple(map(str, one)) if isinstance(one, list | dict) else one for one in values]

    def _searchable(self) -> list[Block]:
        """All rows, with codes where they are worth making: on disk they are, in memory from the first search on."""
        [first, *more] = self._blocks
        if not more and first.codes is None and len(self) >= CODED and first.embeds.device.type == "cpu":
            self._blocks = [Block(first.embeds, encode_rows(first.embeds))]
        return self._blocks

    def _queries(self, query: Tensor) -> Tensor:
        if not isinstance(query, Tensor) or query.ndim not in (1, 2) or query.shape[-1] != self.dim:
            got = list(query.shape) if isinstance(query, Tensor) else type(query).__name__
            raise ValueError(
                f"query must be a tensor [{self.dim}] or [Q, {self.dim}], got {got}; is it of the teacher "
                f"{self.teacher!r}?"
            )
        return directions(query.detach().to(self._blocks[0].embeds).reshape(-1, self.dim), "query")  # [Q, D]

    # ---- files -------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the gallery into a folder, made when missing; a gallery there is replaced as a whole or not at all.

        Raises:
            GalleryError: when a description is no plain JSON.
            OSError: when the folder cannot be written, or another process writes there.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK, "one process may write a gallery"):
            pictures = [self.thumbnail(row) for row in range(len(self))]
            commit(folder, self.space, [], Rows(self.embeds, self.keys, self.meta, pictures))
        return folder

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        teacher: str | None = None,
        dim: int | None = None,
        encoder: str | None = None,
    ) -> Gallery:
        """Open a gallery on disk in milliseconds, whatever its size; what is committed later does not show.

        Args:
            folder: where it lies.
            teacher, dim, encoder: identities, and D, of what it is going to be searched with; others are refused.

        Raises:
            GalleryError: when a file is missing, cut, damaged, or of another format, teacher, dimension or encoder.
        """
        folder = Path(folder)
        space, parts = open_parts(folder)
        space.check(Space(teacher or space.teacher, encoder or "", dim or space.dim), folder / INDEX)
        gallery = cls.__new__(cls)
        gallery.space, gallery.folder, gallery._parts = space, folder, parts
        gallery._blocks = [part.block for part in parts]
        gallery._count = sum(len(block.embeds) for block in gallery._blocks)
        return gallery


def directions(vectors: Tensor, name: str) -> Tensor:
    """Rows ``[Q, D]`` divided by their norms; ValueError when one is zero or not finite."""
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    bad = ~(norms.isfinite() & (norms > 1e-12))[:, 0]
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"{name} must be finite and not zero, got a norm of {float(norms[row, 0]):.4g} in row {row}")
    return vectors / norms


def _short(identity: str) -> str:
    return identity.split(" sha256:")[0]
