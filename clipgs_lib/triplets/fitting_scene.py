"""The targets of a fit: views checked, freed of their background, split into training and held-out ones, measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..geometry import SH_C0
from ..rendering import Cameras, psnr, rasterize, ssim
from .fitting_loop import Columns

_BEST = 100.0  # dB at most, so that one perfect view does not make a mean infinite


class Views(Protocol):
    """Pictures of an object from V cameras, such as `rendering.RenderOutput` or `rendering.mesh_views.MeshViews`."""

    @property
    def colors(self) -> Tensor:
        """``[V, H, W, 3]`` in ``[0, 1]``, drawn over `fitting.FitConfig.background`."""

    @property
    def alphas(self) -> Tensor:
        """``[V, H, W]`` or ``[V, H, W, 1]`` in ``[0, 1]``, how much of the background is covered."""


def split_views(count: int, holdout: int) -> tuple[list[int], list[int]]:
    """Indices of the held-out views (every ``holdout``-th, at least one) and of the training views (at least one).

    Raises:
        ValueError: when there are fewer than 2 views.
    """
    if count < 2:
        raise ValueError(f"a fit needs at least 2 views, one to train on and one to measure, got {count}")
    held = list(range(holdout // 2, count, holdout)) or [count // 2]
    return held, [i for i in range(count) if i not in set(held)]


class Scene(NamedTuple):
    """Targets without their background, and their cameras."""

    foreground: Tensor  # [V, H, W, 3] colours times alpha
    alphas: Tensor  # [V, H, W, 1]
    cameras: Cameras
    background: Tensor  # [3] of the views as they came

    @classmethod
    def of(
        cls,
        colors: Tensor,
        alphas: Tensor,
        cameras: Cameras,
        background: tuple[float, float, float],
        device: torch.device,
    ) -> Scene:
        """Take the background out of ``colors [V, H, W, 3]``, and move everything to ``device``."""
        behind = torch.tensor(background, device=device)
        colors, alphas = colors.to(device), alphas.to(device)
        viewmats, Ks = cameras.viewmats.to(device), cameras.Ks.to(device)
        return cls(colors - (1 - alphas) * behind, alphas, Cameras(viewmats, Ks, *cameras[2:]), behind)

    def pick(self, index: list[int]) -> Scene:
        """The views ``index``."""
        viewmats, Ks, *size = self.cameras
        return Scene(
            self.foreground[index].contiguous(), self.alphas[index].contiguous(),
            Cameras(viewmats[index], Ks[index], *size), self.background,
        )  # fmt: skip

    def over(self, background: Tensor) -> Tensor:
        """Targets ``[V, H, W, 3]`` over another background ``[3]``."""
        return self.foreground + (1 - self.alphas) * background

    def psnr(self, columns: Columns) -> float:
        """Mean PSNR of gaussians over the views' own background, dB."""
        return float(torch.stack([psnr(a, b).clamp_max(_BEST) for a, b in self._pairs(columns)]).mean())

    def ssim(self, columns: Columns) -> float:
        """Mean SSIM of gaussians over the views' own background."""
        return float(torch.stack([ssim(a, b) for a, b in self._pairs(columns)]).mean())

    def visibility(self, columns: Columns) -> Tensor:
        """How many pixels of all views together each gaussian makes up ``[N]``: its blending weights, summed.

        They are the gradient by a colour that is not clamped at black, as the real ones may be.
        """
        grey = torch.zeros_like(columns.sh0).requires_grad_()
        shape = (column.detach() for column in columns[:4])
        plain = Columns._make((*shape, grey, columns.shN[:, :0].detach()))
        total = torch.zeros(len(grey), device=grey.device)
        for i in range(len(self.alphas)):
            picture = draw(plain, self.pick([i]).cameras, torch.zeros_like(self.background))
            (gradient,) = torch.autograd.grad(picture.sum(), grey)
            total += gradient[:, 0, 0] / SH_C0
        return total

    @torch.no_grad()
    def _pairs(self, columns: Columns) -> Iterator[tuple[Tensor, Tensor]]:
        """Picture (clipped, as in a file) and target ``[H, W, 3]`` of each view."""
        for i in range(len(self.alphas)):
            view = self.pick([i])
            yield draw(columns, view.cameras, self.background)[0].clamp(0, 1), view.over(self.background)[0]


def draw(columns: Columns, cameras: Cameras, background: Tensor) -> Tensor:
    """Pictures ``[C, H, W, 3]`` of gaussians."""
    return rasterize(*columns, *cameras, background=background).colors


def check_views(views: Views, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Colours ``[V, H, W, 3]`` and alphas ``[V, H, W, 1]`` of views that fit the cameras.

    Raises:
        ValueError: when they do not, or hold NaN or infinity.
    """
    colors, alphas = views.colors.detach().float(), views.alphas.detach().float()
    alphas = alphas[..., None] if alphas.ndim == 3 else alphas
    count, height, width = len(cameras.viewmats), cameras.height, cameras.width
    for name, value, channels in (("colors", colors, 3), ("alphas", alphas, 1)):
        if tuple(value.shape) != (count, height, width, channels):
            want = f"[{count}, {height}, {width}, {channels}] as the {count} cameras have it"
            raise ValueError(
                f"views.{name} must have shape {want}, got {list(value.shape)}; draw views and cameras alike"
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
