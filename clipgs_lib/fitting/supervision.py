"""The targets of a fit: views checked, freed of their background, split into training and held-out ones, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import SH_C0
from ..rendering import Cameras, Gaussians, MeshViews, RenderOutput, psnr, render, ssim

_BEST = 100.0  # dB at most, so that one perfect view does not make a mean infinite


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

    def pick_each(self, views: list[list[int]]) -> Scene:
        """Views of each object by itself, ``[B, C]``."""
        index = torch.tensor(views).to(self.alphas.device)
        rows = torch.arange(len(views), device=index.device)[:, None]
        return self._each(lambda column: column[rows, index])

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
        from ..rendering.cuda import rasterize_cuda_batch

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
