"""Numba kernels that order gaussians, share them out to tiles and composite them front to back.

A tile is ``TILE x TILE`` pixels, one row of it one vector register of the widest kind. The inner
loops hold no branch, so that LLVM vectorises them; what must not count is masked to zero. No
fastmath: the forward and the backward kernel evaluate the same expression to the same bits, so
both agree on which gaussian a pixel kept, and no result depends on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .cpu_projection import INVISIBLE

TILE = 16
PIXELS = TILE * TILE
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


@njit(cache=True, error_model="numpy", nogil=True)
def order_by_depth(keys):
    """Indices ``[V]`` int32 of the visible gaussians, near to far; equal depths stay in index order."""
    n = keys.shape[0]
    count = 0
    histogram = np.zeros((3, 2048), np.int64)
    for i in range(n):
        key = keys[i]
        if key != INVISIBLE:
            count += 1
            histogram[0, key & 2047] += 1
            histogram[1, (key >> 11) & 2047] += 1
            histogram[2, key >> 22] += 1
    order, spare = np.empty(count, np.int32), np.empty(count, np.int32)
    j = 0
    for i in range(n):
        if keys[i] != INVISIBLE:
            order[j] = i
            j += 1
    for digit in range(3):
        total = 0
        for b in range(2048):
            total, histogram[digit, b] = total + histogram[digit, b], total
        shift = np.uint32(11 * digit)
        for i in range(count):
            b = (keys[order[i]] >> shift) & np.uint32(2047)
            spare[histogram[digit, b]] = order[i]
            histogram[digit, b] += 1
        order, spare = spare, order
    return order


@njit(cache=True, error_model="numpy", nogil=True)
def gather(start, stop, order, centers, records, rects, centers_out, records_out, rects_out):
    """Rows ``start..stop`` of the projected gaussians, in depth order."""
    for i in range(start, stop):
        g = order[i]
        centers_out[i, 0], centers_out[i, 1] = centers[g, 0], centers[g, 1]
        for k in range(records.shape[1]):
            records_out[i, k] = records[g, k]
        for k in range(4):
            rects_out[i, k] = rects[g, k]


@njit(cache=True, error_model="numpy", nogil=True)
def share_out(rects, tiles_x, tiles_y):
    """List, for every tile, the gaussians whose rectangle meets it, near to far.

    Returns:
        ``(tile_starts [T + 1] int64, items [I] int32, slots [V + 1] int64)``: tile t holds
        ``items[tile_starts[t]:tile_starts[t + 1]]``; gaussian i owns gradient rows ``slots[i]:slots[i + 1]``.
    """
    n = rects.shape[0]
    starts, slots = np.zeros(tiles_x * tiles_y + 1, np.int64), np.empty(n + 1, np.int64)
    total = 0
    for i in range(n):
        slots[i] = total
        x0, x1 = rects[i, 0] // TILE, (rects[i, 2] - 1) // TILE + 1
        y0, y1 = rects[i, 1] // TILE, (rects[i, 3] - 1) // TILE + 1
        total += (x1 - x0) * (y1 - y0)
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                starts[ty * tiles_x + tx + 1] += 1
    slots[n] = total
    for t in range(tiles_x * tiles_y):
        starts[t + 1] += starts[t]
    items, fill = np.empty(total, np.int32), starts[:-1].copy()
    for i in range(n):
        x0, x1 = rects[i, 0] // TILE, (rects[i, 2] - 1) // TILE + 1
        y0, y1 = rects[i, 1] // TILE, (rects[i, 3] - 1) // TILE + 1
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                t = ty * tiles_x + tx
                items[fill[t]] = i
                fill[t] += 1
    return starts, items, slots


@njit(cache=True, error_model="numpy", inline="always")
def _add_gaussian(planes, last, item, first, final, dx0, dy0, record):
    """Composite one gaussian over rows ``first..final`` of a tile.

    ``planes``: transmittance (negative once the pixel is full), red, green, blue, depth, weight.
    """
    a, b, c, opacity = record[0], record[1], record[2], record[3]
    red, green, blue, depth = record[4], record[5], record[6], record[7]
    for row in range(first, final):
        dy = _f4(row) + dy0
        along, across = b * dy, (c * dy) * (c * dy)
        base = row * TILE
        for lane in range(TILE):
            i = base + lane
            u = a * (_f4(lane) + dx0) + along
            alpha = min(_ALPHA_MAX, opacity * _exp2_minus(u * u + across))
            alpha = alpha if alpha >= _ALPHA_MIN else _f4(0.0)
            transmittance = planes[i]
            left = transmittance * (_f4(1.0) - alpha)
            goes_on = left > _T_MIN
            weight = transmittance * alpha if goes_on else _f4(0.0)
            planes[i] = left if goes_on else -abs(transmittance)
            planes[PIXELS + i] += weight * red
            planes[2 * PIXELS + i] += weight * green
            planes[3 * PIXELS + i] += weight * blue
            planes[4 * PIXELS + i] += weight * depth
            planes[5 * PIXELS + i] += weight
            last[i] = item if weight > _f4(0.0) else last[i]


@njit(cache=True, error_model="numpy", nogil=True)
def composite(
    start, stop, tile_starts, items, centers, records, rects, background, tiles_x, width, height,
    colors, alphas, depths, transmittances, lasts,
):  # fmt: skip
    """Composite tiles ``start..stop`` front to back.

    Args:
        background: ``[3]`` float32.
        colors, alphas, depths: out ``[H, W, 3]``, ``[H, W, 1]``, ``[H, W, 1]`` float32.
        transmittances: out ``[H, W]`` float32, what the last gaussian lets through.
        lasts: out ``[H, W]`` int32, position in depth order of the last gaussian, -1 for none.
            Both may be ``[0, 0]`` when no gradient is wanted.
    """
    planes, last = np.empty(6 * PIXELS, np.float32), np.empty(PIXELS, np.int32)
    keep = lasts.shape[0] > 0
    for tile in range(start, stop):
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        planes[:] = _f4(0.0)
        last[:] = -1
        for i in range(PIXELS):  # pixels past the border count as full
            planes[i] = _f4(1.0) if i // TILE < rows and i % TILE < columns else _f4(-1.0)
        for e in range(tile_starts[tile], tile_starts[tile + 1]):
            item = items[e]
            dx0 = _f4(left + 0.5 - centers[item, 0])
            dy0 = _f4(top + 0.5 - centers[item, 1])
            first, final = max(rects[item, 1] - top, 0), min(rects[item, 3] - top, rows)
            _add_gaussian(planes, last, item, first, final, dx0, dy0, records[item])
            if (e - tile_starts[tile]) % 16 == 15:
                most = _f4(-1.0)
                for i in range(PIXELS):
                    most = max(most, planes[i])
                if most < _f4(0.0):
                    break
        for row in range(rows):
            for column in range(columns):
                i, y, x = row * TILE + column, top + row, left + column
                through, weight = abs(planes[i]), planes[5 * PIXELS + i]
                colors[y, x, 0] = planes[PIXELS + i] + through * background[0]
                colors[y, x, 1] = planes[2 * PIXELS + i] + through * background[1]
                colors[y, x, 2] = planes[3 * PIXELS + i] + through * background[2]
                alphas[y, x, 0] = weight
                depths[y, x, 0] = planes[4 * PIXELS + i] / max(weight, _f4(1e-10))
                if keep:
                    transmittances[y, x] = through
                    lasts[y, x] = last[i]


@njit(cache=True, error_model="numpy", inline="always")
def _gather_moments(planes, last, sums, item, first, final, dx0, dy0, record):
    """Walk back over one gaussian of a tile: per column, sum what its gradient is made of into ``sums [7 * TILE]``.

    ``planes``: transmittance behind the gaussian (in front of it afterwards), gradient-weighted light from
    behind, gradients by red, green, blue and depth.
    """
    a, b, c, opacity = record[0], record[1], record[2], record[3]
    red, green, blue, depth = record[4], record[5], record[6], record[7]
    for row in range(first, final):
        dy = _f4(row) + dy0
        along, across = b * dy, (c * dy) * (c * dy)
        base = row * TILE
        for lane in range(TILE):
            i = base + lane
            u = a * (_f4(lane) + dx0) + along
            full = opacity * _exp2_minus(u * u + across)
            alpha = min(_ALPHA_MAX, full)
            alpha = alpha if alpha >= _ALPHA_MIN else _f4(0.0)
            alpha = alpha if last[i] >= item else _f4(0.0)
            inverse = _f4(1.0) / (_f4(1.0) - alpha)
            transmittance = planes[i] * inverse
            weight = alpha * transmittance
            v_red, v_green, v_blue = planes[2 * PIXELS + i], planes[3 * PIXELS + i], planes[4 * PIXELS + i]
            v_depth = planes[5 * PIXELS + i]
            light = red * v_red + green * v_green + blue * v_blue + depth * v_depth
            v_alpha = transmittance * light - planes[PIXELS + i] * inverse
            slope = alpha if full <= _ALPHA_MAX else _f4(0.0)  # d alpha / d sigma = -alpha, but 0 where capped
            v_sigma = -slope * v_alpha
            planes[i] = transmittance
            planes[PIXELS + i] += weight * light
            sums[lane] += v_sigma
            sums[TILE + lane] += v_sigma * dy
            sums[2 * TILE + lane] += v_sigma * dy * dy
            sums[3 * TILE + lane] += weight * v_red
            sums[4 * TILE + lane] += weight * v_green
            sums[5 * TILE + lane] += weight * v_blue
            sums[6 * TILE + lane] += weight * v_depth


@njit(cache=True, error_model="numpy", inline="always")
def _store_moments(sums, dx0, moments, slot):
    """Sum the columns and write one gradient row."""
    s, sx, sxx, sy, sxy = _f4(0.0), _f4(0.0), _f4(0.0), _f4(0.0), _f4(0.0)
    syy, red, green, blue, depth = _f4(0.0), _f4(0.0), _f4(0.0), _f4(0.0), _f4(0.0)
    for lane in range(TILE):
        dx = _f4(lane) + dx0
        s += sums[lane]
        sx += sums[lane] * dx
        sxx += sums[lane] * dx * dx
        sy += sums[TILE + lane]
        sxy += sums[TILE + lane] * dx
        syy += sums[2 * TILE + lane]
        red += sums[3 * TILE + lane]
        green += sums[4 * TILE + lane]
        blue += sums[5 * TILE + lane]
        depth += sums[6 * TILE + lane]
    moments[slot, 0], moments[slot, 1], moments[slot, 2], moments[slot, 3], moments[slot, 4] = sx, sy, sxx, sxy, syy
    moments[slot, 5], moments[slot, 6], moments[slot, 7], moments[slot, 8], moments[slot, 9] = (
        s,
        red,
        green,
        blue,
        depth,
    )


@njit(cache=True, error_model="numpy", nogil=True)
def composite_backward(
    start, stop, tile_starts, items, slots, centers, records, rects, background, tiles_x, width, height,
    alphas, depths, transmittances, lasts, v_colors, v_alphas, v_depths, moments, v_backgrounds,
):  # fmt: skip
    """Carry gradients of the pixels of tiles ``start..stop`` back to the gaussians, back to front.

    Args:
        alphas, depths, transmittances, lasts: what `composite` wrote.
        v_colors, v_alphas, v_depths: gradients by the pictures, shaped as they are.
        moments: out ``[I, MOMENTS]`` float32, one row per gaussian and tile, zero where not reached: with
            dx, dy the pixel minus the centre and v the gradient by sigma, the sums of v dx, v dy, v dx^2, v dx dy,
            v dy^2, v, then the gradients by red, green, blue and depth.
        v_backgrounds: out ``[T, 3]`` float32, per tile.
    """
    planes, last = np.empty(6 * PIXELS, np.float32), np.empty(PIXELS, np.int32)
    sums = np.empty(7 * TILE, np.float32)
    for tile in range(start, stop):
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        planes[:] = _f4(0.0)
        last[:] = -1
        farthest = -1
        v_red, v_green, v_blue = _f4(0.0), _f4(0.0), _f4(0.0)
        for row in range(rows):
            for column in range(columns):
                i, y, x = row * TILE + column, top + row, left + column
                through, weight = transmittances[y, x], alphas[y, x, 0]
                red, green, blue = v_colors[y, x, 0], v_colors[y, x, 1], v_colors[y, x, 2]
                v_alpha, v_depth = v_alphas[y, x, 0], _f4(0.0)
                if weight > _f4(1e-10):
                    v_depth = v_depths[y, x, 0] / weight
                    v_alpha -= v_depth * depths[y, x, 0]
                v_red, v_green, v_blue = v_red + through * red, v_green + through * green, v_blue + through * blue
                behind = background[0] * red + background[1] * green + background[2] * blue - v_alpha
                planes[i], planes[PIXELS + i] = through, through * behind
                planes[2 * PIXELS + i], planes[3 * PIXELS + i], planes[4 * PIXELS + i] = red, green, blue
                planes[5 * PIXELS + i] = v_depth
                last[i] = lasts[y, x]
                farthest = max(farthest, lasts[y, x])
        v_backgrounds[tile, 0], v_backgrounds[tile, 1], v_backgrounds[tile, 2] = v_red, v_green, v_blue
        for e in range(tile_starts[tile + 1] - 1, tile_starts[tile] - 1, -1):
            item = items[e]
            if item > farthest:
                continue
            dx0 = _f4(left + 0.5 - centers[item, 0])
            dy0 = _f4(top + 0.5 - centers[item, 1])
            first, final = max(rects[item, 1] - top, 0), min(rects[item, 3] - top, rows)
            sums[:] = _f4(0.0)
            _gather_moments(planes, last, sums, item, first, final, dx0, dy0, records[item])
            x0, x1, y0 = rects[item, 0] // TILE, (rects[item, 2] - 1) // TILE + 1, rects[item, 1] // TILE
            slot = slots[item] + (top // TILE - y0) * (x1 - x0) + left // TILE - x0
            _store_moments(sums, dx0, moments, slot)
