"""The CUDA back end: gsplat's rasteriser. The only module that imports gsplat, and only when it is called."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .cameras import Cameras, Gaussians

_CLASSIC: dict[str, Any] = {"packed": False, "rasterize_mode": "classic"}


def rasterize_cuda(
    gaussians: Gaussians, cameras: Cameras, degree: int, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rasterise one object on the GPU with gsplat 1.5.3, classic mode; arguments are those of `render`, checked.

    Returns:
        colours ``[C, H, W, 3]``, alphas ``[C, H, W, 1]``, depths ``[C, H, W, 1]``.
    """
    import gsplat

    means, quats, scales, opacities, sh0, shN = gaussians
    sh = torch.cat([sh0, shN[:, : (degree + 1) ** 2 - 1]], dim=1)  # [N, K, 3]
    rows = (means, quats, scales, opacities[:, None], sh.flatten(1))
    good = torch.stack([row.detach().isfinite().all(dim=1) for row in rows]).all(dim=0)
    good &= (quats.detach() != 0).any(dim=1)
    if not bool(good.all()):  # one such gaussian would turn every pixel it meets into NaN
        means, quats, scales, opacities, sh = (t[good] for t in (means, quats, scales, opacities, sh))
    if len(means) == 0 or len(cameras.Ks) == 0:
        nothing = means.sum() + quats.sum() + scales.sum() + opacities.sum() + sh.sum()  # keeps the gradients zero
        colors = (background + 0 * nothing)[:, None, None, :].expand(-1, cameras.height, cameras.width, -1)
        return colors, torch.zeros_like(colors[..., :1]), torch.zeros_like(colors[..., :1])
    pictures, alphas, _ = gsplat.rasterization(
        *(means, quats, scales, opacities, sh, *cameras),
        **_CLASSIC | {"sh_degree": degree, "backgrounds": background, "render_mode": "RGB+ED"},
    )
    return pictures[..., :3], alphas, pictures[..., 3:]


def rasterize_cuda_batch(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> Tensor:
    """Draw B objects, each through C cameras, in one call of gsplat 1.5.3; arguments are not checked.

    As `rasterize_cuda`, with all harmonics that there are. A gaussian that is not finite is drawn with opacity 0,
    since all objects keep the same N.

    Args:
        gaussians: ``[B, N, ...]`` on a CUDA device. ``N >= 32`` where B > 1: gsplat's backward pass sums gradients
            of equal gaussian index within a warp of 32, whatever their object.
        cameras: of viewmats ``[B, C, 4, 4]`` and Ks ``[B, C, 3, 3]``.
        background: ``[B, C, 3]``.

    Returns:
        colours ``[B, C, H, W, 3]``.

    Raises:
        ValueError: when B > 1 and N < 32.
    """
    import gsplat

    means, quats, scales, opacities, sh0, shN = gaussians
    if len(means) > 1 and means.shape[1] < 32:
        raise ValueError(f"a batch of objects needs N >= 32 gaussians each, got {means.shape[1]}; draw them one by one")
    sh = torch.cat([sh0, shN], dim=2)  # [B, N, K, 3]
    rows = (means, quats, scales, opacities[..., None], sh.flatten(2))
    good = torch.stack([row.detach().isfinite().all(dim=2) for row in rows]).all(dim=0)
    good &= (quats.detach() != 0).any(dim=2)  # [B, N]
    means, quats, scales = (torch.where(good[..., None], row, 1.0) for row in rows[:3])
    opacities, sh = torch.where(good, opacities, 0.0), torch.where(good[..., None, None], sh, 0.0)
    colors, _, _ = gsplat.rasterization(
        *(means, quats, scales, opacities, sh, *cameras),
        **_CLASSIC | {"sh_degree": math.isqrt(sh.shape[2]) - 1, "backgrounds": background, "render_mode": "RGB"},
    )
    return colors
