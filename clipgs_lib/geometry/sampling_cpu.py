"""The numba kernels behind `sampling`: farthest points and nearest neighbours in clouds sorted along one axis.

A cloud is sorted along its longest axis and looked at in blocks. A block whose edge is farther along that axis than
the distance asked for holds nothing of interest, and neither does any beyond it. No result changes by that: rounding
is monotonic, so the squared distance of a point is never below the square of its difference along one axis.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

_BLOCK = 64  # points
_NONE = (1 << 63) - 1  # above all keys


def farthest_cpu(points: Tensor, valid: Tensor, count: int) -> Tensor:
    """`sampling.farthest_points` of checked arguments on the CPU."""
    clouds, masks = points.numpy(), valid.numpy()
    out = np.empty((len(clouds), count), np.int64)

    def one(index: int) -> None:
        _farthest(*_sorted_cloud(clouds[index], masks[index]), out[index])

    _each(one, len(clouds))
    return torch.from_numpy(out)


def nearest_cpu(points: Tensor, centers: Tensor, k: int, valid: Tensor) -> Tensor:
    """`sampling.nearest` of checked arguments on the CPU."""
    clouds, masks, targets = points.numpy(), valid.numpy(), centers.numpy()
    out = np.empty((*targets.shape[:2], k), np.int64)

    def one(index: int) -> None:
        _nearest(*_sorted_cloud(clouds[index], masks[index]), targets[index], out[index])

    _each(one, len(clouds))
    return torch.from_numpy(out)


def _each(work: Callable[[int], None], count: int) -> None:
    """Call ``work`` for 0..count-1 on as many threads as torch has."""
    threads = min(count, torch.get_num_threads())
    if threads <= 1:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(count)))


def _sorted_cloud(points: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Coordinates ``[D, n]`` and indices ``[n]`` of the valid points in canonical order, and the longest axis."""
    rows = np.arange(len(points)) if valid.all() else valid.nonzero()[0]
    columns = np.ascontiguousarray(points.T) if len(rows) == len(points) else np.ascontiguousarray(points[rows].T)
    axis = int(np.ptp(columns, axis=1).argmax())
    order = np.argsort(columns[axis])
    along = columns[axis][order]
    if (along[1:] == along[:-1]).any():  # ties: by the other axes, then by index
        order = np.lexsort(np.roll(columns, -axis, axis=0)[::-1])
    return np.ascontiguousarray(columns[:, order]), rows[order], axis


@njit(cache=True, error_model="numpy", nogil=True)
def _farthest(columns, order, axis, out):
    """Fill ``out`` with farthest points of ``columns [D, n]`` in the names of ``order [n]``, repeated past n."""
    width, n = columns.shape
    blocks = (n + _BLOCK - 1) // _BLOCK
    distances = np.full(n, np.float32(np.inf))  # squared, to the nearest chosen point; -1 once chosen
    tops = np.empty(blocks, np.float32)  # largest of each block
    squares = np.empty(_BLOCK, np.float32)
    center = np.empty(width, np.float32)
    for d in range(width):
        total = 0.0
        for i in range(n):
            total += columns[d, i]
        center[d] = total / n
    for block in range(blocks):
        tops[block] = _lower(columns, center, block, distances, squares)
    last = _first_of_largest(distances, tops)
    distances[:] = np.float32(np.inf)
    for k in range(min(n, len(out))):
        out[k] = order[last]
        reach = np.float32(np.inf) if k == 0 else distances[last]
        distances[last] = np.float32(-1)
        for d in range(width):
            center[d] = columns[d, last]
        home = last // _BLOCK
        for block in range(home, blocks):
            edge = columns[axis, block * _BLOCK] - center[axis]
            if block > home and edge * edge >= reach:
                break
            tops[block] = _lower(columns, center, block, distances, squares)
        for block in range(home - 1, -1, -1):
            edge = center[axis] - columns[axis, block * _BLOCK + _BLOCK - 1]
            if edge * edge >= reach:
                break
            tops[block] = _lower(columns, center, block, distances, squares)
        last = _first_of_largest(distances, tops)
    for k in range(n, len(out)):
        out[k] = out[k % n]


@njit(cache=True, error_model="numpy", inline="always")
def _square_block(columns, center, start, stop, squares):
    """Squared distances of points start..stop-1 to the centre, summed from the first axis on."""
    for i in range(stop - start):
        offset = columns[0, start + i] - center[0]
        squares[i] = offset * offset
    for d in range(1, len(columns)):
        at = center[d]
        for i in range(stop - start):
            offset = columns[d, start + i] - at
            squares[i] += offset * offset


@njit(cache=True, error_model="numpy", nogil=True)
def _lower(columns, center, block, distances, squares):
    """Lower the distances of a block's points to those to the centre; returns the block's largest."""
    start = block * _BLOCK
    stop = min(start + _BLOCK, columns.shape[1])
    _square_block(columns, center, start, stop, squares)
    top = np.float32(-1)
    for i in range(stop - start):
        value = min(distances[start + i], squares[i])
        distances[start + i] = value
        top = max(top, value)
    return top


@njit(cache=True, error_model="numpy", nogil=True)
def _first_of_largest(distances, tops):
    """Index of the first of the largest distances."""
    best = 0
    for block in range(1, len(tops)):
        if tops[block] > tops[best]:
            best = block
    i = best * _BLOCK
    while distances[i] != tops[best]:
        i += 1
    return i


@njit(cache=True, error_model="numpy", nogil=True)
def _nearest(columns, order, axis, centers, out):
    """Fill ``out [G, k]`` with the nearest of ``columns [D, n]`` in the names of ``order [n]``.

    A candidate is one int64: the bits of its squared distance (which sort like the distance) above its rank.
    """
    n = columns.shape[1]
    k = out.shape[1]
    kept = min(k, n)
    blocks = (n + _BLOCK - 1) // _BLOCK
    capacity = max(2 * kept, kept + _BLOCK)
    keys = np.empty(capacity, np.int64)
    squares = np.empty(_BLOCK, np.float32)
    bits = squares.view(np.int32)
    for g in range(len(centers)):
        at = centers[g, axis]
        right = np.searchsorted(columns[axis], at) // _BLOCK
        left = right - 1
        size = 0
        bound = np.int64(_NONE)  # keys from here on are of no interest
        while right < blocks or left >= 0:
            ahead = _gap(columns[axis, right * _BLOCK] - at) if right < blocks else np.float32(np.inf)
            behind = _gap(at - columns[axis, left * _BLOCK + _BLOCK - 1]) if left >= 0 else np.float32(np.inf)
            if bound < _NONE and min(ahead, behind) > _distance_in(bound - 1):
                break
            if right < blocks and (left < 0 or ahead <= behind):
                start = right * _BLOCK
                right += 1
            else:
                start = left * _BLOCK
                left -= 1
            stop = min(start + _BLOCK, n)
            _square_block(columns, centers[g], start, stop, squares)
            for i in range(stop - start):
                key = (np.int64(bits[i]) << 32) | (start + i)
                if key < bound:
                    keys[size] = key
                    size += 1
            if size >= kept and (bound == _NONE or size > capacity - _BLOCK):
                bound = _keep_smallest(keys, size, kept) + 1
                size = kept
        _keep_smallest(keys, size, kept)
        chosen = np.sort(keys[:kept])
        for i in range(k):
            out[g, i] = order[chosen[i if i < kept else 0] & 0xFFFFFFFF]


@njit(cache=True, error_model="numpy", inline="always")
def _gap(difference):
    """Square of how far a point is at least; 0 where the block begins on this side of it."""
    positive = max(difference, np.float32(0))
    return positive * positive


@njit(cache=True, error_model="numpy", nogil=True)
def _distance_in(key):
    """The squared distance in the upper half of a key."""
    return np.array([key >> 32], np.int32).view(np.float32)[0]


@njit(cache=True, error_model="numpy", nogil=True)
def _keep_smallest(keys, size, kept):
    """Bring the ``kept`` smallest of ``keys[:size]`` to the front, in no order; returns the largest of them."""
    low, high = 0, size - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if kept - 1 <= j:
            high = j
        elif kept - 1 >= i:
            low = i
        else:
            break
    return keys[kept - 1]
