"""The CUDA back end: gsplat's rasteriser. The only module that imports gsplat, and only when it is called."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rasterize_cuda(
    gaussians: tuple[Tensor, ...],
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    degree: int,
    background: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rasterise on the GPU with gsplat 1.5.3, classic mode; arguments are those of `render`, checked.

    Args:
        gaussians: the six attributes of one object, on a CUDA device.
        viewmats, Ks: ``[C, 4, 4]`` and ``[C, 3, 3]``.
        width, height: pixels.
        degree: of the spherical harmonics, 0 to 3.
        background: ``[C, 3]``.

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
    if len(means) == 0 or len(viewmats) == 0:
        nothing = means.sum() + quats.sum() + scales.sum() + opacities.sum() + sh.sum()  # keeps the gradients zero
        colors = (background + 0 * nothing)[:, None, None, :].expand(-1, height, width, -1)
        return colors, torch.zeros_like(colors[..., :1]), torch.zeros_like(colors[..., :1])
    pictures, alphas, _ = gsplat.rasterization(
        means,
        quats,
        scales,
        opacities,
        sh,
        viewmats,
        Ks,
        width,
        height,
        sh_degree=degree,
        packed=False,
        backgrounds=background,
        render_mode="RGB+ED",
        rasterize_mode="classic",
    )
    return pictures[..., :3], alphas, pictures[..., 3:]


def rasterize_cuda_batch(
    gaussians: tuple[Tensor, ...], viewmats: Tensor, Ks: Tensor, width: int, height: int, background: Tensor
) -> Tensor:
    """Draw B objects, each through C cameras, in one call of gsplat 1.5.3; arguments are not checked.

    As `rasterize_cuda`, with all harmonics that there are. A gaussian that is not finite is drawn with opacity 0,
    since all objects keep the same N.

    Args:
        gaussians: ``[B, N, ...]`` on a CUDA device. ``N >= 32`` where B > 1: gsplat's backward pass sums gradients
            of equal gaussian index within a warp of 32, whatever their object.
        viewmats, Ks: ``[B, C, 4, 4]`` and ``[B, C, 3, 3]``.
        width, height: pixels.
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
    colors, _, _ = gsplat.rasterization(
        means,
        quats,
        scales,
        torch.where(good, opacities, 0.0),
        torch.where(good[..., None, None], sh, 0.0),
        viewmats,
        Ks,
        width,
        height,
        sh_degree=math.isqrt(sh.shape[2]) - 1,
        packed=False,
        backgrounds=background,
        render_mode="RGB",
        rasterize_mode="classic",
    )
    return colors
