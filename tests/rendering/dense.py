"""A naive renderer to test against: gsplat's pure-torch projection and SH in float64, every gaussian at every pixel."""

from __future__ import annotations

import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from torch import Tensor


def dense_render(
    columns: dict[str, Tensor], viewmats: Tensor, Ks: Tensor, width: int, height: int, degree: int, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours ``[C, H, W, 3]``, alphas and expected depths ``[C, H, W, 1]``; autograd gives the gradients."""
    double = {name: value.double() for name, value in columns.items()}
    views = [
        _dense_view(double, viewmat.double(), K.double(), width, height, degree, behind.double())
        for viewmat, K, behind in zip(viewmats, Ks, background, strict=True)
    ]
    colors, alphas, depths = (torch.stack(parts) for parts in zip(*views, strict=True))
    return colors, alphas, depths


def _dense_view(
    columns: dict[str, Tensor], viewmat: Tensor, K: Tensor, width: int, height: int, degree: int, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    covars, _ = _quat_scale_to_covar_preci(columns["quats"], columns["scales"], compute_preci=False)
    _, means2d, depths, conics, _ = _fully_fused_projection(
        columns["means"], covars, viewmat[None], K[None], width, height
    )
    means2d, depths, conics = means2d[0], depths[0], conics[0]
    position = torch.linalg.inv(viewmat)[:3, 3]
    sh = torch.cat([columns["sh0"], columns["shN"]], dim=1)
    colors = (_spherical_harmonics(degree, columns["means"] - position, sh) + 0.5).clamp_min(0)
    seen = (depths >= 0.01).nonzero()[:, 0]
    order = seen[depths.detach()[seen].float().argsort(stable=True)]  # float32 depths tie as in the kernels
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    through = torch.ones(height, width, dtype=torch.float64)
    going = torch.ones(height, width, dtype=torch.bool)
    picture, depth, total = (torch.zeros(height, width, k, dtype=torch.float64) for k in (3, 1, 1))
    for g in order:
        dx, dy = x - means2d[g, 0], y - means2d[g, 1]
        a, b, c = conics[g]
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = (columns["opacities"][g] * torch.exp(-sigma)).clamp_max(0.999)
        alpha = torch.where((alpha >= 1 / 255) & going, alpha, 0)
        left = through * (1 - alpha)
        going = going & (left > 1e-4)
        weight = torch.where(going, through * alpha, 0)[:, :, None]
        through = torch.where(going, left, through)
        picture, depth, total = picture + weight * colors[g], depth + weight * depths[g], total + weight
    picture = picture + through[:, :, None] * background
    return picture, total, depth / total.clamp_min(1e-10)
