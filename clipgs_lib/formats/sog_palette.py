"""Clustering for the SOG writer: a codebook of 256 numbers, and a palette of SH vectors in bounded time."""

from __future__ import annotations

import numpy as np
from numba import njit

LEVELS = 256
_SAMPLE = 1 << 18
_ROUNDS = 8
_PER_CENTER = 64


def codebook(values: np.ndarray) -> np.ndarray:
    """256 ascending levels that fit the values well (Lloyd's algorithm in one dimension).

    Up to 2^18 evenly picked values are looked at, the least and the greatest always. 256 or fewer different values
    are kept exactly.

    Args:
        values: any shape, finite.

    Returns:
        ``[256]`` float64.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    if len(ordered) == 0:
        return np.zeros(LEVELS)
    ordered = ordered[np.linspace(0, len(ordered) - 1, min(len(ordered), _SAMPLE)).astype(np.intp)]
    different = np.unique(ordered)
    if len(different) <= LEVELS:
        return np.concatenate([different, np.full(LEVELS - len(different), different[-1])])
    half = LEVELS // 2  # quantiles serve the crowd, even spacing the tails
    spread = np.linspace(ordered[0], ordered[-1], half)
    crowd = np.quantile(ordered, (np.arange(half) + 0.5) / half)
    levels = np.sort(np.concatenate([spread, crowd]))
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(_ROUNDS):
        edges = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(ordered)]])
        members = np.diff(edges)
        levels = np.where(members > 0, np.diff(total[edges]) / np.maximum(members, 1), levels)
    return np.sort(levels)


def nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The index of the nearest level for each value, uint8, same shape."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values).astype(np.uint8)


def sh_palette(vectors: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster vectors into a palette: k-means into about sqrt(size) groups, then k-means within each.

    Time grows with ``count * sqrt(size)``, not with ``count * size``.

    Args:
        vectors: ``[N, D]`` float32, finite, N >= 1.
        size: the most palette entries, ``1 <= size <= N``.
        seed: same seed, same palette.

    Returns:
        ``(palette [P, D] with P <= size, labels [N] int)``.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if size == len(vectors):
        return vectors, np.arange(size)
    random = np.random.default_rng(seed)
    groups = _k_means(vectors, max(1, round(size**0.5)), random)[1]
    populated, members = np.unique(groups, return_counts=True)
    if len(populated) > size:
        populated, members = np.arange(1), np.array([len(vectors)])
        groups = np.zeros(len(vectors), np.intp)
    share = 1 + (members - 1) * (size - len(populated)) // max(int((members - 1).sum()), 1)
    palette, labels, start = [], np.empty(len(vectors), np.intp), 0
    by_group = np.split(np.argsort(groups, kind="stable"), np.cumsum(members)[:-1])
    for rows, entries in zip(by_group, share, strict=True):
        centers, chosen = _k_means(vectors[rows], int(entries), random)
        labels[rows] = start + chosen
        palette.append(centers)
        start += len(centers)
    return np.concatenate(palette), labels


def _k_means(vectors: np.ndarray, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm from randomly drawn vectors; ``(centres [size, D], labels [N])``, empty ones stay put.

    The centres move on at most 64 vectors each, drawn at random; the labels are those of all.
    """
    if size >= len(vectors):
        return vectors, np.arange(len(vectors))
    sample = vectors
    if len(vectors) > _PER_CENTER * size:
        sample = vectors[random.choice(len(vectors), _PER_CENTER * size, replace=False)]
    centers = np.ascontiguousarray(sample[random.choice(len(sample), size, replace=False)], np.float32)
    for _ in range(_ROUNDS):
        _move_centers(sample, _nearest_center(sample, centers), centers)
    return centers, _nearest_center(vectors, centers)


def _nearest_center(vectors: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Index of the nearest centre, ``[N]``; both are centred first, for accuracy."""
    middle = centers.mean(axis=0)
    moved = centers - middle
    half = np.einsum("ij,ij->i", moved, moved) / 2
    labels = np.empty(len(vectors), np.intp)
    _assign(vectors, middle, np.ascontiguousarray(moved.T), half, labels)
    return labels


# Compiled loops instead of a matrix product: there are thousands of small ones, and a BLAS that spreads each over
# threads took 7 times as long on two busy cores.


@njit(cache=True, fastmath=True)
def _assign(vectors: np.ndarray, middle: np.ndarray, centers: np.ndarray, half: np.ndarray, labels: np.ndarray) -> None:
    """``labels[i] = argmin_k half[k] - (vectors[i] - middle) . centers[:, k]``."""
    count, width = vectors.shape
    score = np.empty(half.shape[0], np.float32)
    for i in range(count):
        score[:] = half
        for d in range(width):
            value = vectors[i, d] - middle[d]
            for k in range(score.shape[0]):
                score[k] -= value * centers[d, k]
        labels[i] = score.argmin()


@njit(cache=True)
def _move_centers(vectors: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> None:
    """Put each centre into the middle of its vectors; one without vectors stays."""
    sums = np.zeros(centers.shape)
    members = np.zeros(centers.shape[0])
    for i in range(vectors.shape[0]):
        members[labels[i]] += 1
        for d in range(vectors.shape[1]):
            sums[labels[i], d] += vectors[i, d]
    for k in range(centers.shape[0]):
        if members[k] > 0:
            for d in range(centers.shape[1]):
                centers[k, d] = sums[k, d] / members[k]
