"""The numba kernels behind `sampling`: farthest points and nearest neighbours in clouds sorted along a curve.

A cloud is sorted along the Z-order curve and cut into blocks, each with its box. A block whose box is farther away than
the distance asked for holds nothing of interest. No result changes by leaving it out: rounding is monotonic, so the
computed squared distance of a point is never below that of the box around it, computed in the same way.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .orders import CURVE_BITS

_BLOCK = 32  # points
_FIRST = 3  # times k candidates are collected before the first bound is set
_NONE = (1 << 63) - 1  # above all keys
_EXACT = {"nnan", "nsz"}  # lets loops be vectorised; changes no result where nothing is NaN


class _Cloud(NamedTuple):
    """Valid points in the order of the curve: coordinates, their indices, corners of the blocks."""

    columns: np.ndarray  # [D, n] float32
    order: np.ndarray  # [n] int64
    lows: np.ndarray  # [D, blocks] float32
    highs: np.ndarray  # [D, blocks] float32


def farthest_cpu(points: Tensor, valid: Tensor, count: int) -> Tensor:
    """`sampling.farthest_points` of checked arguments on the CPU."""
    out = np.empty((len(points), count), np.int64)
    _each(points, valid, lambda index, cloud: _farthest(*cloud, out[index]))
    return torch.from_numpy(out)


def nearest_cpu(points: Tensor, centers: Tensor, k: int, valid: Tensor) -> Tensor:
    """`sampling.nearest` of checked arguments on the CPU."""
    targets, out = centers.numpy(), np.empty((*centers.shape[:2], k), np.int64)
    _each(points, valid, lambda index, cloud: _nearest(*cloud, targets[index], out[index]))
    return torch.from_numpy(out)


def _each(points: Tensor, valid: Tensor, work: Callable[[int, _Cloud], None]) -> None:
    """Call ``work`` for the index of every cloud and the cloud, on as many threads as torch has."""
    clouds, masks = points.numpy(), valid.numpy()

    def one(index: int) -> None:
        work(index, _sorted_cloud(clouds[index], masks[index]))

    threads = min(len(clouds), torch.get_num_threads())
    if threads <= 1:
        for index in range(len(clouds)):
            one(index)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(len(clouds))))


def _sorted_cloud(points: np.ndarray, valid: np.ndarray) -> _Cloud:
    """The valid ones of ``points [N, D]`` by key along the curve, then by coordinate, then by index."""
    rows = np.arange(len(points)) if valid.all() else valid.nonzero()[0]
    points = points if len(rows) == len(points) else points[rows]
    keys = _curve_keys(points)
    order = keys.argsort()
    following = keys[order]
    tied = following[1:] == following[:-1]
    if tied.any():
        places = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
        some = np.sort(order[places])
        order[places] = some[np.lexsort((*points[some].T[::-1], keys[some]))]
    columns = np.ascontiguousarray(points.take(order, axis=0).T)
    starts = np.arange(0, len(order), _BLOCK)
    lows, highs = (extreme.reduceat(columns, starts, axis=1) for extreme in (np.minimum, np.maximum))
    return _Cloud(columns, rows[order], lows, highs)


@njit(cache=True, error_model="numpy", nogil=True)
def _curve_keys(points):
    """Keys ``[n]`` along the Z-order curve of the first three axes of ``points [n, D]``."""
    n, width = points.shape
    axes = min(width, 3)
    low = np.full(3, np.float32(np.inf))
    size = np.float32(1e-38)
    for a in range(axes):
        high = np.float32(-np.inf)
        for i in range(n):
            low[a] = min(low[a], points[i, a])
            high = max(high, points[i, a])
        size = max(size, high - low[a])
    keys = np.zeros(n, np.int64)
    cells = np.float32(1 << CURVE_BITS)
    for i in range(n):
        for a in range(axes):
            cell = np.int64((points[i, a] - low[a]) / size * cells)
            cell -= cell >> CURVE_BITS  # the highest point lies in the last cell
            cell = (cell | (cell << 32)) & 0x1F00000000FFFF
            cell = (cell | (cell << 16)) & 0x1F0000FF0000FF
            cell = (cell | (cell << 8)) & 0x100F00F00F00F00F
            cell = (cell | (cell << 4)) & 0x10C30C30C30C30C3
            cell = (cell | (cell << 2)) & 0x1249249249249249
            keys[i] |= cell << (2 - a)
    return keys


@njit(cache=True, error_model="numpy", nogil=True, fastmath=_EXACT)
def _box_squares(lows, highs, center, out):
    """Squared distances ``out [blocks]`` of boxes to the centre ``[D]``, 0 inside."""
    for block in range(len(out)):
        out[block] = np.float32(0)
    for d in range(len(lows)):
        at = center[d]
        for block in range(len(out)):
            gap = max(max(lows[d, block] - at, at - highs[d, block]), np.float32(0))
            out[block] += gap * gap


@njit(cache=True, error_model="numpy", nogil=True, fastmath=_EXACT)
def _point_squares(columns, center, start, stop, out):
    """Squared distances ``out`` of points start..stop-1 to the centre ``[D]``, summed from the first axis on."""
    for i in range(stop - start):
        out[i] = np.float32(0)
    for d in range(len(columns)):
        at = center[d]
        for i in range(stop - start):
            offset = columns[d, start + i] - at
            out[i] += offset * offset


@njit(cache=True, error_model="numpy", nogil=True)
def _farthest(columns, order, lows, highs, out):
    """Fill ``out`` with farthest points in the names of ``order [n]``, repeated past n."""
    width, n = columns.shape
    blocks = lows.shape[1]
    distances = np.full(n, np.float32(np.inf))  # squared, to the nearest chosen point; -1 once chosen
    tops = np.full(blocks, np.float32(np.inf))  # largest of each block
    gaps = np.zeros(blocks, np.float32)
    squares = np.empty(_BLOCK, np.float32)
    center = np.empty(width, np.float32)
    for d in range(width):
        total = 0.0
        for i in range(n):
            total += columns[d, i]
        center[d] = total / n
    _lower(columns, center, gaps, distances, tops, squares)
    last = _first_of_largest(distances, tops)
    distances.fill(np.float32(np.inf))
    tops.fill(np.float32(np.inf))
    for k in range(min(n, len(out))):
        out[k] = order[last]
        distances[last] = np.float32(-1)
        for d in range(width):
            center[d] = columns[d, last]
        _box_squares(lows, highs, center, gaps)
        gaps[last // _BLOCK] = np.float32(-2)  # looked at in any case, as its largest has gone
        _lower(columns, center, gaps, distances, tops, squares)
        last = _first_of_largest(distances, tops)
    for k in range(n, len(out)):
        out[k] = out[k % n]


@njit(cache=True, error_model="numpy", nogil=True, fastmath=_EXACT)
def _lower(columns, center, gaps, distances, tops, squares):
    """Lower the distances of points to those to the centre, in blocks whose gap is below their largest distance."""
    n = len(distances)
    for block in range(len(tops)):
        if gaps[block] >= tops[block]:
            continue
        start = block * _BLOCK
        stop = min(start + _BLOCK, n)
        _point_squares(columns, center, start, stop, squares)
        top = np.float32(-1)
        for i in range(stop - start):
            value = min(distances[start + i], squares[i])
            distances[start + i] = value
            top = max(top, value)
        tops[block] = top


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
def _nearest(columns, order, lows, highs, centers, out):
    """Fill ``out [G, k]`` with nearest points in the names of ``order [n]``."""
    # A candidate is one int64: the bits of its squared distance (which sort like the distance) above its rank.
    k = out.shape[1]
    kept = min(k, len(order))
    enough = min(_FIRST * kept, len(order))
    keys = np.empty(2 * _FIRST * kept + _BLOCK, np.int64)
    squares = np.empty(_BLOCK, np.float32)
    gaps = np.empty(lows.shape[1], np.float32)
    gap_bits = gaps.view(np.int32)
    for g in range(len(centers)):
        _box_squares(lows, highs, centers[g], gaps)
        size = 0
        while size < enough:  # the nearest blocks
            closest = 0
            for block in range(1, len(gaps)):
                if gaps[block] < gaps[closest]:
                    closest = block
            gaps[closest] = np.float32(np.inf)
            size = _collect(columns, centers[g], closest, np.int64(_NONE), squares, keys, size)
        bound = _keep_smallest(keys, size, kept)  # no key above it is of interest
        size = kept
        for block in range(len(gaps)):
            if gap_bits[block] > bound >> 32:
                continue
            size = _collect(columns, centers[g], block, bound, squares, keys, size)
            if size > len(keys) - _BLOCK:
                bound = _keep_smallest(keys, size, kept)
                size = kept
        _keep_smallest(keys, size, kept)
        keys[:kept].sort()
        for i in range(k):
            out[g, i] = order[keys[i if i < kept else 0] & 0xFFFFFFFF]


@njit(cache=True, error_model="numpy", nogil=True)
def _collect(columns, center, block, bound, squares, keys, size):
    """Append the keys below ``bound`` of a block's points to ``keys[:size]``; returns the new size."""
    start = block * _BLOCK
    stop = min(start + _BLOCK, columns.shape[1])
    _point_squares(columns, center, start, stop, squares)
    bits = squares.view(np.int32)
    for i in range(stop - start):
        key = (np.int64(bits[i]) << 32) | (start + i)
        keys[size] = key
        size += key < bound
    return size


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
