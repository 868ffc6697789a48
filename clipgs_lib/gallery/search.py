"""Exact search by cosine: candidates from one byte a number, with bounds; only they are scored in float32.

A pass over N x D float32 numbers takes as long as memory needs to bring them. So each row also has a copy of D bytes,
a scale, and the length of what rounding took from it. By Cauchy and Schwarz a cosine differs from that of the copy by
at most this length (and what rounding took from the query). Rows whose upper bound reaches the k-th best lower bound
are scored exactly, usually some dozens: the result is that of a full sort, always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

BLOCK = 1 << 22  # scores held at a time where rows are scored in float32: 16 MB, and 32 MB packed
FEW = 4  # queries up to which each is searched by codes; more are a matrix product, which memory does not limit
CODED = 1 << 15  # rows from which codes are worth making
_CHUNK = 64  # rows that share one pair of bounds
_SLACK = 1e-5  # float32 sums of unit rows are never off by more
_ROWS = 0xFFFFFFFF


class Codes(NamedTuple):
    """Rows in one byte a number: ``row = scale * code`` but for a rest of the length ``error``."""

    codes: Tensor  # [n, D] int8
    scales: Tensor  # [n] float32
    errors: Tensor  # [n] float32


class Block(NamedTuple):
    """Rows of a gallery that lie together in memory or in a mapped file."""

    embeds: Tensor  # [n, D] float32, unit rows
    codes: Codes | None = None


def encode_rows(embeds: Tensor) -> Codes:
    """Round rows ``[n, D]`` float32 on the CPU to `Codes`."""
    rows = embeds.numpy()
    codes, facts = np.empty(rows.shape, np.int8), np.empty((2, len(rows)), np.float32)
    _parallel(len(rows), lambda first, last: _encode(rows[first:last], codes[first:last], facts[:, first:last]))
    return Codes(torch.from_numpy(codes), *torch.from_numpy(facts))


def best_rows(blocks: Sequence[Block], queries: Tensor, k: int, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows and cosines ``[Q, k]`` of the best, best first, of equal ones the lower row; fewer when fewer are allowed.

    Args:
        blocks: all rows, in order.
        queries: ``[Q, D]`` float32, unit rows, on their device.
        k: how many.
        allowed: ``[N]`` bool; None for all.
    """
    best, start = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device), 0
    for block in blocks:
        count = len(block.embeds)
        mask = None if allowed is None else allowed[start : start + count]
        if block.codes is not None and len(queries) <= FEW:
            parts = [_by_codes(block.embeds, block.codes, query, k, mask, start) for query in queries]
            width = min((part.shape[1] for part in parts), default=0)
            part = torch.cat([part[:, :width] for part in parts]) if parts else best
        else:
            part = _by_product(block.embeds, queries, k, mask, start)
        best = _top(torch.cat([best, part], dim=1), k)
        start += count
    return _unpack(best)


def _by_product(embeds: Tensor, queries: Tensor, k: int, allowed: Tensor | None, start: int) -> Tensor:
    """The best ``[Q, k]`` of rows ``[n, D]``, packed; all are scored."""
    best = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    step = max(1, BLOCK // max(len(queries), 1))
    for first in range(0, len(embeds), step):
        rows = torch.arange(first, min(first + step, len(embeds)), device=queries.device)
        scores = queries @ embeds[first : first + step].T  # [Q, step]
        if allowed is not None:
            some = allowed[first : first + step]
            rows, scores = rows[some], scores[:, some]
        best = torch.cat([best, _best_of(scores, start + rows, k)], dim=1)
    return _top(best, k)


def _by_codes(embeds: Tensor, codes: Codes, query: Tensor, k: int, allowed: Tensor | None, start: int) -> Tensor:
    """As `_by_product` for one query ``[D]``: ``[1, k]``; only rows that can be among the best are scored."""
    values = query.numpy()
    count, dim = embeds.shape
    chunks = -(-count // _CHUNK)
    if k > chunks // 4:
        return _by_product(embeds, query[None], k, allowed, start)
    limit = min(32767, (1 << 31) // (128 * dim) - 1)  # sums stay within int32
    step = max(float(np.abs(values).max()), 1e-12) / limit
    rounded = np.rint(values / step).astype(np.int16)
    rest = 1.02 * float(np.linalg.norm(values - rounded * np.float32(step))) + _SLACK
    upper, lows, highs = np.empty(count, np.float32), np.empty(chunks, np.float32), np.empty(chunks, np.float32)
    mask = np.empty(0, bool) if allowed is None else allowed.numpy()
    small, scales, errors = (tensor.numpy() for tensor in codes)

    def work(first: int, last: int) -> None:
        _bounds(small, scales, errors, rounded, np.float32(step), mask, upper, lows, highs, first, last)

    _parallel(chunks, work)
    reach = np.partition(lows, chunks - k)[chunks - k] - 2 * rest  # k rows are surely above this
    near = np.flatnonzero(highs >= reach)
    rows = (near[:, None] * _CHUNK + np.arange(_CHUNK)).ravel()
    rows = rows[rows < count]
    rows = rows[(upper[rows] >= reach) & (upper[rows] > -np.inf)]
    if len(rows) > count // 4:
        return _by_product(embeds, query[None], k, allowed, start)
    chosen = torch.from_numpy(rows)
    return _best_of((embeds[chosen] @ query)[None], start + chosen, k)


def _parallel(count: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, last)`` for parts of ``range(count)``, on as many threads as torch has."""
    threads = min(torch.get_num_threads(), count)
    cuts = np.linspace(0, count, 4 * threads + 1).astype(int)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        list(pool.map(work, cuts[:-1].tolist(), cuts[1:].tolist()))


@njit(cache=True, nogil=True)
def _encode(rows: np.ndarray, codes: np.ndarray, facts: np.ndarray) -> None:
    """Round rows ``[n, D]`` to ``codes``; ``facts [2, n]`` are their scales and errors."""
    for r in range(rows.shape[0]):
        most = np.float32(1e-30)
        for i in range(rows.shape[1]):
            most = max(most, abs(rows[r, i]))
        scale, rest = most / np.float32(127), 0.0
        for i in range(rows.shape[1]):
            code = np.rint(rows[r, i] / scale)
            codes[r, i] = np.int8(code)
            rest += (rows[r, i] - code * scale) ** 2
        facts[0, r], facts[1, r] = scale, np.sqrt(rest) * 1.0001


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _bounds(
    codes: np.ndarray,
    scales: np.ndarray,
    errors: np.ndarray,
    query: np.ndarray,
    step: np.float32,
    allowed: np.ndarray,
    upper: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Upper bounds of rows, and the largest lower and upper bound of each chunk in ``first .. last - 1``."""
    none = np.float32(-np.inf)
    for chunk in range(first, last):
        low, high = none, none
        for r in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, codes.shape[0])):
            if len(allowed) and not allowed[r]:
                upper[r] = none
                continue
            row, total = codes[r], np.int32(0)
            for i in range(len(query)):  # int32 throughout, so that it becomes vpmaddwd
                total = np.int32(total + np.int32(row[i]) * np.int32(query[i]))
            score = np.float32(total) * step * scales[r]
            upper[r] = score + errors[r]
            low, high = max(low, score - errors[r]), max(high, upper[r])
        lows[chunk], highs[chunk] = low, high


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
