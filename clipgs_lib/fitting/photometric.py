"""L1 + SSIM of rendered pictures against targets, with its gradient in one pass on the CPU.

The loss of 3D Gaussian splatting (Kerbl et al. 2023, section 5): ``L1 + w (1 - SSIM)``. Torch's convolutions need
60 ms for the SSIM of one picture of 128 px and its gradient on one core, twenty times the rasteriser; the kernel here
about 1 ms. The window is that of `rendering.ssim`, and a test holds the two together.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..rendering import ssim

_SIDE = [math.exp(-(k**2) / (2 * 1.5**2)) for k in range(6)]
_SUM = _SIDE[0] + 2 * sum(_SIDE[1:])
_W0, _W1, _W2, _W3, _W4, _W5 = (np.float32(value / _SUM) for value in _SIDE)
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
_TWO = np.float32(2)
_REACH = 5  # pixels to either side


@njit(cache=True, error_model="numpy", inline="always")
def _across(row, out):
    """Blur one padded row ``[L + 30]`` of interleaved RGB into ``out [L]``."""
    for j in range(out.shape[0]):
        near = _W1 * (row[j + 12] + row[j + 18]) + _W2 * (row[j + 9] + row[j + 21])
        far = _W3 * (row[j + 6] + row[j + 24]) + _W4 * (row[j + 3] + row[j + 27]) + _W5 * (row[j] + row[j + 30])
        out[j] = _W0 * row[j + 15] + near + far


@njit(cache=True, error_model="numpy", inline="always")
def _down(rows, y, out):
    """Blur column-wise at row ``y`` of ``rows [H + 10, L]`` (5 rows of padding) into ``out [L]``."""
    for j in range(out.shape[0]):
        near = _W1 * (rows[y + 4, j] + rows[y + 6, j]) + _W2 * (rows[y + 3, j] + rows[y + 7, j])
        far = _W3 * (rows[y + 2, j] + rows[y + 8, j]) + _W4 * (rows[y + 1, j] + rows[y + 9, j])
        out[j] = _W0 * rows[y + 5, j] + near + far + _W5 * (rows[y, j] + rows[y + 10, j])


@njit(cache=True, error_model="numpy", nogil=True)
def _similarity(x, y, ssim_weight, gradient):
    """Loss of one picture, and its gradient by ``x``.

    Args:
        x, y: ``[H, 3 W]`` float32, interleaved RGB.
        gradient: out ``[H, 3 W]`` float32.

    Returns:
        mean absolute difference plus ``ssim_weight`` times one minus the mean SSIM.
    """
    height, length = x.shape
    padding = 3 * _REACH
    stages = np.zeros((5, height + 2 * _REACH, length), np.float32)
    slopes = np.zeros((3, height + 2 * _REACH, length), np.float32)
    row = np.zeros((5, length + 2 * padding), np.float32)
    blurred = np.empty((5, length), np.float32)
    for i in range(height):
        for j in range(length):
            a, b = x[i, j], y[i, j]
            row[0, padding + j], row[1, padding + j] = a, b
            row[2, padding + j], row[3, padding + j], row[4, padding + j] = a * a, b * b, a * b
        for q in range(5):
            _across(row[q], stages[q, i + _REACH])
    total = 0.0
    slope_row = np.zeros((3, length + 2 * padding), np.float32)
    values = np.empty(length, np.float32)
    for i in range(height):
        for q in range(5):
            _down(stages[q], i, blurred[q])
        for j in range(length):
            mx, my = blurred[0, j], blurred[1, j]
            a1, a2 = _TWO * mx * my + _C1, _TWO * (blurred[4, j] - mx * my) + _C2
            b1, b2 = mx * mx + my * my + _C1, blurred[2, j] - mx * mx + blurred[3, j] - my * my + _C2
            inverse = np.float32(1) / (b1 * b2)
            value = a1 * a2 * inverse
            values[j] = value
            by_mean = my * (a2 - a1) * inverse + value * mx * (b1 - b2) * inverse
            slope_row[0, padding + j] = _TWO * by_mean
            slope_row[1, padding + j] = -value * b1 * inverse
            slope_row[2, padding + j] = _TWO * a1 * inverse
        for j in range(length):
            total += values[j]
        for q in range(3):
            _across(slope_row[q], slopes[q, i + _REACH])
    count = np.float32(height * length)
    unit, factor = np.float32(1) / count, np.float32(-ssim_weight) / count
    absolute = 0.0
    for i in range(height):
        for q in range(3):
            _down(slopes[q], i, blurred[q])
        for j in range(length):
            a, b = x[i, j], y[i, j]
            structure = blurred[0, j] + _TWO * a * blurred[1, j] + b * blurred[2, j]
            sign = unit if a > b else (-unit if a < b else np.float32(0))
            gradient[i, j] = sign + factor * structure
            values[j] = abs(a - b)
        for j in range(length):
            absolute += values[j]
    return absolute / count + ssim_weight * (1 - total / count)


class _Similarity(torch.autograd.Function):
    """The kernel over a batch of pictures, one thread each."""

    @staticmethod
    def forward(ctx: Any, rendered: Tensor, target: Tensor, ssim_weight: float) -> Tensor:
        batch, height, width, _ = rendered.shape
        x = rendered.detach().contiguous().numpy().reshape(batch, height, 3 * width)
        y = target.detach().contiguous().numpy().reshape(batch, height, 3 * width)
        gradient = np.empty_like(x)
        if batch == 1 or torch.get_num_threads() == 1:
            losses = [_similarity(x[i], y[i], ssim_weight, gradient[i]) for i in range(batch)]
        else:
            with ThreadPoolExecutor(min(batch, torch.get_num_threads())) as pool:
                losses = list(pool.map(lambda i: _similarity(x[i], y[i], ssim_weight, gradient[i]), range(batch)))
        ctx.gradient = torch.from_numpy(gradient.reshape(rendered.shape)) / batch
        return torch.tensor(sum(losses) / batch, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_loss: Tensor) -> tuple[Tensor, None, None]:
        return ctx.gradient * v_loss, None, None


def photometric_loss(rendered: Tensor, target: Tensor, ssim_weight: float) -> Tensor:
    """Mean ``[]`` of ``L1 + ssim_weight (1 - SSIM)`` over ``[B, H, W, 3]``; a weight of 0 leaves the SSIM out."""
    if ssim_weight == 0:
        return (rendered - target).abs().mean()
    if rendered.device.type == "cpu":
        return _Similarity.apply(rendered, target, ssim_weight)
    return (rendered - target).abs().mean() + ssim_weight * (1 - ssim(rendered, target)).mean()
