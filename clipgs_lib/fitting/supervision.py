"""The targets of a fit: views checked, freed of their background, split into training and held-out ones, measured.

The loss is that of 3D Gaussian splatting (Kerbl et al. 2023, section 5): ``L1 + w (1 - SSIM)``. Torch's convolutions
need 60 ms for the SSIM of one picture of 128 px and its gradient on one core, 20 times the rasteriser; the kernel here
about 1 ms. The window is that of `rendering.ssim`, and a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..geometry import SH_C0
from ..rendering import Cameras, Gaussians, MeshViews, RenderOutput, psnr, render, ssim
from ..rendering.rasterize import rasterize_cuda_batch

_BEST = 100.0  # dB at most, so that one perfect view does not make a mean infinite
_SIDE = [math.exp(-(k**2) / (2 * 1.5**2)) for k in range(6)]
_SUM = _SIDE[0] + 2 * sum(_SIDE[1:])
_W0, _W1, _W2, _W3, _W4, _W5 = (np.float32(value / _SUM) for value in _SIDE)
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
_TWO = np.float32(2)
_REACH = 5  # pixels to either side


Views = RenderOutput | MeshViews  # pictures of an object, drawn over `fitting.FitConfig.background`


def split_views(count: int, holdout: int) -> tuple[list[int], list[int]]:
    """Indices of held-out views (every ``holdout``-th, one at least) and of the others; ValueError for fewer than 2."""
    if count < 2:
        raise ValueError(f"a fit needs at least 2 views, one to train on and one to measure, got {count}")
    held = list(range(holdout // 2, count, holdout)) or [count // 2]
    return held, [i for i in range(count) if i not in set(held)]


class Scene(NamedTuple):
    """Targets of B objects without their background, and their cameras."""

    foreground: Tensor  # [B, V, H, W, 3] colours times alpha
    alphas: Tensor  # [B, V, H, W, 1]
    viewmats: Tensor  # [B, V, 4, 4]
    Ks: Tensor  # [B, V, 3, 3]
    background: Tensor  # [3] of the views as they came

    @classmethod
    def of(
        cls,
        views: Sequence[tuple[Tensor, Tensor, Cameras]],
        background: tuple[float, float, float],
        device: torch.device,
    ) -> Scene:
        """Take the background out of colours ``[V, H, W, 3]`` and alphas ``[V, H, W, 1]`` of each object."""
        rows = [(colors, alphas, cameras.viewmats, cameras.Ks) for colors, alphas, cameras in views]
        columns = zip(*rows, strict=True)
        colors, alphas, viewmats, Ks = (torch.stack([one.to(device).float() for one in each]) for each in columns)
        behind = torch.tensor(background, device=device)
        return cls(colors - (1 - alphas) * behind, alphas, viewmats, Ks, behind)

    def pick(self, views: list[int]) -> Scene:
        """The same ``views`` of every object."""
        return self._each(lambda column: column[:, views])

    def pick_each(self, views: list[int]) -> Scene:
        """One view of each object, by itself."""
        index = torch.tensor(views).to(self.alphas.device)
        return self._each(lambda column: column[torch.arange(len(views), device=index.device), index][:, None])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Scene:
        return Scene._make((*map(change, self[:4]), self.background))

    def over(self, background: Tensor) -> Tensor:
        """Targets ``[B, V, H, W, 3]`` over other backgrounds ``[B, 3]`` or ``[3]``."""
        return self.foreground + (1 - self.alphas) * background.reshape(-1, 1, 1, 1, 3)

    def draw(self, columns: Gaussians, background: Tensor) -> Tensor:
        """Pictures ``[B, V, H, W, 3]`` of gaussians over backgrounds ``[B, 3]``."""
        if columns.means.device.type == "cuda":
            return self._draw_together(columns, background)
        size = (self.alphas.shape[3], self.alphas.shape[2])
        objects = zip(zip(*columns, strict=True), self.viewmats, self.Ks, background, strict=True)
        return torch.stack([render(Gaussians(*one), w, K, *size, background=b).colors for one, w, K, b in objects])

    def _draw_together(self, columns: Gaussians, background: Tensor) -> Tensor:
        """`draw` in one call of gsplat."""
        behind = background[:, None].expand(-1, self.viewmats.shape[1], -1)  # [B, V, 3]
        cameras = Cameras(self.viewmats, self.Ks, self.alphas.shape[3], self.alphas.shape[2])
        return rasterize_cuda_batch(columns, cameras, behind)

    def psnr(self, columns: Gaussians) -> Tensor:
        """Mean PSNR of each object's gaussians over the background of the views, dB ``[B]``."""
        return torch.stack([psnr(a, b).clamp_max(_BEST) for a, b in self._pairs(columns)]).mean(dim=0)

    def quality(self, columns: Gaussians) -> tuple[Tensor, Tensor]:
        """Mean PSNR (dB) and SSIM of each object's gaussians over the background of the views, both ``[B]``."""
        values = [(psnr(a, b).clamp_max(_BEST), ssim(a, b)) for a, b in self._pairs(columns)]
        ratios, likenesses = (torch.stack(each).mean(dim=0) for each in zip(*values, strict=True))
        return ratios, likenesses

    def visibility(self, columns: Gaussians) -> Tensor:
        """How many pixels of all views together each gaussian makes up ``[B, N]``: its blending weights, summed.

        They are the gradient by a colour that is not clamped at black, as the real ones may be.
        """
        grey = torch.zeros_like(columns.sh0).requires_grad_()
        shape = (column.detach() for column in columns[:4])
        plain = Gaussians._make((*shape, grey, columns.shN[..., :0, :].detach()))
        total = torch.zeros_like(columns.opacities)
        black = self.background.new_zeros(len(grey), 3)
        for i in range(self.alphas.shape[1]):
            picture = self.pick([i]).draw(plain, black)
            (gradient,) = torch.autograd.grad(picture.sum(), grey)
            total += gradient[..., 0, 0] / SH_C0
        return total

    @torch.no_grad()
    def _pairs(self, columns: Gaussians) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures (clipped, as in a file) and targets ``[B, H, W, 3]``, view by view."""
        behind = self.background.expand(len(self.alphas), 3)
        for i in range(self.alphas.shape[1]):
            view = self.pick([i])
            yield view.draw(columns, behind)[:, 0].clamp(0, 1), view.over(behind)[:, 0]


def check_views(views: Views, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Colours ``[V, H, W, 3]`` and alphas ``[V, H, W, 1]``, finite and fit for the cameras, else ValueError."""
    colors, alphas = views.colors.detach().float(), views.alphas.detach().float()
    alphas = alphas[..., None] if alphas.ndim == 3 else alphas
    count, height, width = len(cameras.viewmats), cameras.height, cameras.width
    for name, value, channels in (("colors", colors, 3), ("alphas", alphas, 1)):
        if tuple(value.shape) != (count, height, width, channels):
            shape = f"[{count}, {height}, {width}, {channels}] as the {count} cameras have it"
            raise ValueError(
                f"views.{name} must have shape {shape}, got {list(value.shape)}; draw views and cameras alike"
            )
        bad = int((~value.isfinite()).flatten(1).any(dim=1).sum()) if count else 0
        if bad:
            raise ValueError(
                f"views.{name} must be finite, got {bad} of {count} with NaN or infinity; draw those again"
            )
        if count and not (float(value.min()) >= -0.01 and float(value.max()) <= 1.01):
            got = f"[{float(value.min()):.3g}, {float(value.max()):.3g}]"
            raise ValueError(f"views.{name} must lie in [0, 1], got {got}; divide 8-bit values by 255")
    return colors, alphas


# ---- the loss --------------------------------------------------------------------------------------------------------


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
