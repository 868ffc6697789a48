"""Gaussians ordered by depth, shared out to tiles and composited front to back, mostly by numba kernels.

A tile is ``TILE x TILE`` pixels, one row of it one vector register of the widest kind. The inner
loops hold no branch, so that LLVM vectorises them; what must not count is masked to zero. No
fastmath: the forward and the backward kernel evaluate the same expression to the same bits, so
both agree on which gaussian a pixel kept, and no result depends on the number of threads.
"""

import numpy as np
from numba import njit

from .cpu_projection import INVISIBLE

TILE = 16
MOMENTS = 10  # columns of a gradient row, see `composite_backward`
_f4 = np.float32
_ALPHA_MIN, _ALPHA_MAX, _T_MIN = _f4(1 / 255), _f4(0.999), _f4(1e-4)
_MAGIC = _f4(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds to an integer
# Minimax polynomial of 2^f on [-1/2, 1/2], relative error 2.3e-7 in float32.
_P6, _P5, _P4, _P3 = _f4(1.5403530e-4), _f4(1.3333558e-3), _f4(9.6181291e-3), _f4(5.5504109e-2)
_P2, _P1, _P0 = _f4(2.4022651e-1), _f4(6.9314718e-1), _f4(1.0)


@njit(cache=True, error_model="numpy", inline="always")
def _exp2_minus(e):
    """``2 ** -e`` for ``e >= 0`` in float32; below 2^-126 it stays there."""
    t = -min(e, _f4(126.0))
    k = (t + _MAGIC) - _MAGIC
    f = t - k
    p = _P6 * f + _P5
    p = p * f + _P4
    p = p * f + _P3
    p = p * f + _P2
    p = p * f + _P1
    p = p * f + _P0
    bits = (np.int32(k) + np.int32(127)) << np.int32(23)
    return p * np.int32(bits).view(np.float32)


def order_by_depth(keys: np.ndarray) -> np.ndarray:
    """Indices ``[V]`` int32 of the visible gaussians, near to far; equal depths stay in index order."""
    indices = np.arange(len(keys), dtype=np.uint64)
    order = np.sort(keys.astype(np.uint64) << np.uint64(32) | indices)  # the key above the index: all differ
    return order[: np.count_nonzero(keys != INVISIBLE)].astype(np.uint32).view(np.int32)


@njit(cache=True, error_model="numpy", nogil=True)
def share_out(rects, tiles_x, tiles_y):
    """List, for every tile, the gaussians whose rectangle meets it, near to far, as positions in depth order.

    Tile t holds ``items[tile_starts[t]:tile_starts[t + 1]]`` of ``(tile_starts [T + 1] int64, items [I] int32)``.
    """
    n = rects.shape[0]
    starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    for i in range(n):
        x0, x1 = rects[i, 0] // TILE, (rects[i, 2] - 1) // TILE + 1
        y0, y1 = rects[i, 1] // TILE, (rects[i, 3] - 1) // TILE + 1
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                starts[ty * tiles_x + tx + 1] += 1
    for t in range(tiles_x * tiles_y):
        starts[t + 1] += starts[t]
    items, fill = np.empty(starts[-1], np.int32), starts[:-1].copy()
    for i in range(n):
        x0, x1 = rects[i, 0] // TILE, (rects[i, 2] - 1) // TILE + 1
        y0, y1 = rects[i, 1] // TILE, (rects[i, 3] - 1) // TILE + 1
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                t = ty * tiles_x + tx
                items[fill[t]] = i
                fill[t] += 1
    return starts, items


@njit(cache=True, error_model="numpy", inline="always")
def _add_gaussian(planes, position, first, final, dx0, dy0, record):
    """Composite one gaussian over rows ``first..final`` of a tile."""
    # ``planes [TILE, 7, TILE]``, by row: transmittance (negative once the pixel is full), red, green, blue, depth,
    # weight, position of the last gaussian in the tile's list.
    a, b, c, opacity = record[0], record[1], record[2], record[3]
    red, green, blue, depth = record[4], record[5], record[6], record[7]
    for row in range(first, final):
        dy = _f4(row) + dy0
        along, across = b * dy, (c * dy) * (c * dy)
        pixels = planes[row]
        for lane in range(TILE):
            u = a * (_f4(lane) + dx0) + along
            alpha = min(_ALPHA_MAX, opacity * _exp2_minus(u * u + across))
            alpha = alpha if alpha >= _ALPHA_MIN else _f4(0.0)
            transmittance = pixels[0, lane]
            left = transmittance * (_f4(1.0) - alpha)
            goes_on = left > _T_MIN
            weight = transmittance * alpha if goes_on else _f4(0.0)
            pixels[0, lane] = left if goes_on else -abs(transmittance)
            pixels[1, lane] += weight * red
            pixels[2, lane] += weight * green
            pixels[3, lane] += weight * blue
            pixels[4, lane] += weight * depth
            pixels[5, lane] += weight
            pixels[6, lane] = position if weight > _f4(0.0) else pixels[6, lane]


@njit(cache=True, error_model="numpy", inline="always")
def _is_full(planes):
    """Whether no pixel of the tile lets light through any more."""
    for row in range(TILE):
        for lane in range(TILE):
            if planes[row, 0, lane] > _f4(0.0):
                return False
    return True


@njit(cache=True, error_model="numpy", nogil=True)
def composite(
    start, stop, tile_starts, items, centers, records, rects, background, tiles_x, width, height,
    colors, alphas, depths, transmittances, lasts, used,
):  # fmt: skip
    """Composite tiles ``start..stop`` front to back.

    Args:
        background: ``[3]`` float32.
        colors, alphas, depths: out ``[H, W, 3]``, ``[H, W, 1]``, ``[H, W, 1]`` float32.
        transmittances: out ``[H, W]`` float32, what the last gaussian lets through.
        lasts: out ``[H, W]`` float32, position in the tile's list of the last gaussian, -1 for none; exact
            up to 2^24 gaussians a tile.
        used: out ``[T]`` int64, length of the part of each tile's list that reached a pixel. These three are
            for `composite_backward` and may be empty when no gradient is needed.
    """
    planes = np.empty((TILE, 7, TILE), np.float32)
    keep = used.shape[0] > 0
    for tile in range(start, stop):
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        planes[:] = _f4(0.0)
        planes[:, 6] = _f4(-1.0)
        planes[:, 0] = _f4(-1.0)  # pixels past the border count as full
        planes[:rows, 0, :columns] = _f4(1.0)
        begin = tile_starts[tile]
        for e in range(begin, tile_starts[tile + 1]):
            item = items[e]
            dx0 = _f4(left + 0.5 - centers[item, 0])
            dy0 = _f4(top + 0.5 - centers[item, 1])
            first, final = max(rects[item, 1] - top, 0), min(rects[item, 3] - top, rows)
            _add_gaussian(planes, _f4(e - begin), first, final, dx0, dy0, records[item])
            if (e - begin) % 16 == 15 and _is_full(planes):
                break
        farthest = _f4(-1.0)
        for row in range(rows):
            for column in range(columns):
                y, x = top + row, left + column
                through, weight = abs(planes[row, 0, column]), planes[row, 5, column]
                colors[y, x, 0] = planes[row, 1, column] + through * background[0]
                colors[y, x, 1] = planes[row, 2, column] + through * background[1]
                colors[y, x, 2] = planes[row, 3, column] + through * background[2]
                alphas[y, x, 0] = weight
                depths[y, x, 0] = planes[row, 4, column] / max(weight, _f4(1e-10))
                if keep:
                    transmittances[y, x] = through
                    lasts[y, x] = planes[row, 6, column]
                    farthest = max(farthest, planes[row, 6, column])
        if keep:
            used[tile] = np.int64(farthest) + 1


@njit(cache=True, error_model="numpy", inline="always")
def _gather_moments(planes, sums, position, first, final, dx0, dy0, record):
    """Walk back over one gaussian of a tile: per column, sum what its gradient is made of into ``sums [7, TILE]``."""
    # ``planes [TILE, 7, TILE]``, by row: transmittance behind the gaussian (in front of it afterwards), light from
    # behind weighted by its gradient, gradients by red, green, blue and depth, position of the last gaussian.
    a, b, c, opacity = record[0], record[1], record[2], record[3]
    red, green, blue, depth = record[4], record[5], record[6], record[7]
    for row in range(first, final):
        dy = _f4(row) + dy0
        along, across = b * dy, (c * dy) * (c * dy)
        pixels = planes[row]
        for lane in range(TILE):
            u = a * (_f4(lane) + dx0) + along
            full = opacity * _exp2_minus(u * u + across)
            alpha = min(_ALPHA_MAX, full)
            alpha = alpha if alpha >= _ALPHA_MIN else _f4(0.0)
            alpha = alpha if pixels[6, lane] >= position else _f4(0.0)
            inverse = _f4(1.0) / (_f4(1.0) - alpha)
            transmittance = pixels[0, lane] * inverse
            weight = alpha * transmittance
            v_red, v_green, v_blue, v_depth = pixels[2, lane], pixels[3, lane], pixels[4, lane], pixels[5, lane]
            light = red * v_red + green * v_green + blue * v_blue + depth * v_depth
            v_alpha = transmittance * light - pixels[1, lane] * inverse
            slope = alpha if full <= _ALPHA_MAX else _f4(0.0)  # d alpha / d sigma = -alpha, but 0 where capped
            v_sigma = -slope * v_alpha
            pixels[0, lane] = transmittance
            pixels[1, lane] += weight * light
            sums[0, lane] += v_sigma
            sums[1, lane] += v_sigma * dy
            sums[2, lane] += v_sigma * dy * dy
            sums[3, lane] += weight * v_red
            sums[4, lane] += weight * v_green
            sums[5, lane] += weight * v_blue
            sums[6, lane] += weight * v_depth


@njit(cache=True, error_model="numpy", inline="always")
def _store_moments(sums, totals, dx0, row):
    """Sum the columns, two halves at a time so that the order is fixed, and write one ``row [MOMENTS]``."""
    for lane in range(TILE):
        dx = _f4(lane) + dx0
        v, v_dy = sums[0, lane], sums[1, lane]
        totals[0, lane], totals[1, lane], totals[2, lane] = v * dx, v_dy, v * dx * dx
        totals[3, lane], totals[4, lane], totals[5, lane] = v_dy * dx, sums[2, lane], v
    totals[6:10] = sums[3:7]
    for half in (8, 4, 2, 1):
        for k in range(MOMENTS):
            for lane in range(half):
                totals[k, lane] += totals[k, lane + half]
    for k in range(MOMENTS):
        row[k] = totals[k, 0]


@njit(cache=True, error_model="numpy", nogil=True)
def composite_backward(
    start, stop, tile_starts, items, row_starts, centers, records, rects, background, tiles_x, width, height,
    alphas, depths, transmittances, lasts, v_colors, v_alphas, v_depths, offset, moments, v_backgrounds,
):  # fmt: skip
    """Carry gradients of the pixels of tiles ``start..stop`` back to the gaussians, back to front.

    Args:
        alphas, depths, transmittances, lasts: what `composite` wrote.
        v_colors, v_alphas, v_depths: gradients by the pictures, shaped as they are.
        row_starts: ``[T + 1]`` int64, first row of each tile, were the rows of all tiles kept.
        offset: the tile whose first row is row 0 of ``moments``.
        moments: out ``[rows, MOMENTS]`` float32, one row per gaussian and tile that it reached: with dx, dy the
            pixel minus the centre and v the gradient by sigma, the sums of v dx, v dy, v dx^2, v dx dy, v dy^2,
            v, then the gradients by red, green, blue and depth.
        v_backgrounds: out ``[T, 3]`` float32, per tile.
    """
    planes, sums = np.empty((TILE, 7, TILE), np.float32), np.empty((7, TILE), np.float32)
    totals = np.empty((MOMENTS, TILE), np.float32)
    for tile in range(start, stop):
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        planes[:] = _f4(0.0)
        planes[:, 6] = _f4(-1.0)
        for row in range(rows):
            for column in range(columns):
                y, x = top + row, left + column
                through, weight = transmittances[y, x], alphas[y, x, 0]
                red, green, blue = v_colors[y, x, 0], v_colors[y, x, 1], v_colors[y, x, 2]
                v_alpha, v_depth = v_alphas[y, x, 0], _f4(0.0)
                if weight > _f4(1e-10):
                    v_depth = v_depths[y, x, 0] / weight
                    v_alpha -= v_depth * depths[y, x, 0]
                v_backgrounds[tile, 0] += through * red
                v_backgrounds[tile, 1] += through * green
                v_backgrounds[tile, 2] += through * blue
                behind = background[0] * red + background[1] * green + background[2] * blue - v_alpha
                planes[row, 0, column], planes[row, 1, column] = through, through * behind
                planes[row, 2, column], planes[row, 3, column], planes[row, 4, column] = red, green, blue
                planes[row, 5, column], planes[row, 6, column] = v_depth, lasts[y, x]
        begin = tile_starts[tile]
        for position in range(row_starts[tile + 1] - row_starts[tile] - 1, -1, -1):
            item = items[begin + position]
            dx0 = _f4(left + 0.5 - centers[item, 0])
            dy0 = _f4(top + 0.5 - centers[item, 1])
            first, final = max(rects[item, 1] - top, 0), min(rects[item, 3] - top, rows)
            sums[:] = _f4(0.0)
            _gather_moments(planes, sums, _f4(position), first, final, dx0, dy0, records[item])
            _store_moments(sums, totals, dx0, moments[row_starts[tile] - row_starts[offset] + position])


@njit(cache=True, error_model="numpy", nogil=True)
def add_moments(start, stop, first_tile, last_tile, tile_starts, items, row_starts, moments, totals):
    """Add the rows of tiles ``first_tile..last_tile``, in that order, to ``totals [V, MOMENTS]`` float64.

    Only gaussians ``start..stop`` of the depth order, so that threads do not meet.
    """
    for tile in range(first_tile, last_tile):
        begin, row = tile_starts[tile], row_starts[tile] - row_starts[first_tile]
        for position in range(row_starts[tile + 1] - row_starts[tile]):
            item = items[begin + position]
            if item >= stop:
                break
            if item >= start:
                for k in range(MOMENTS):
                    totals[item, k] += moments[row + position, k]
