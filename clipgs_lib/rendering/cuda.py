"""The CUDA back end: gsplat's rasteriser. The only module that imports gsplat, and only when it is called."""

from __future__ import annotations

import torch
from torch import Tensor


def rasterize_cuda(
    gaussians: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    degree: int,
    background: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rasterise on the GPU with gsplat 1.5.3, classic mode.

    Args:
        gaussians: means ``[N, 3]``, quats ``[N, 4]``, scales ``[N, 3]``, opacities ``[N]``, sh0 ``[N, 1, 3]``,
            shN ``[N, K-1, 3]``, all on one CUDA device.
        viewmats: ``[C, 4, 4]``.
        Ks: ``[C, 3, 3]``.
        width: pixels.
        height: pixels.
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
