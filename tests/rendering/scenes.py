"""Small scenes and the gradient probe that the rendering tests share."""

from __future__ import annotations

import torch
from torch import Tensor

from clipgs_lib.rendering import Cameras, Gaussians, RenderOutput, look_at, orbit_cameras, pinhole, render
from clipgs_lib.splats import COLUMNS, Splats

BACKGROUNDS = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.0, 0.3]])


def rasterize(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, sh0: Tensor, shN: Tensor, *camera, **options
) -> RenderOutput:
    return render(Gaussians(means, quats, scales, opacities, sh0, shN), *camera, **options)


def cameras(distance: float = 3.0, n: int = 2, width: int = 45, height: int = 37) -> Cameras:
    return orbit_cameras(n, distance=distance, elevation=20, width=width, height=height, fov=50)


def leaves(splats: Splats, background: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Fresh copies that take gradients; quaternions of length 2, so that normalisation is differentiated too."""
    columns = {name: getattr(splats, name).clone() for name in COLUMNS}
    columns["quats"] = 2 * columns["quats"]
    return {name: value.requires_grad_() for name, value in columns.items()}, background.clone().requires_grad_()


def probe(outputs: tuple[Tensor, ...]) -> Tensor:
    """A fixed random functional of colours, alphas and depths."""
    generator = torch.Generator().manual_seed(1)
    return sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs)


def gradients(splats: Splats, views: Cameras, background: Tensor) -> tuple[RenderOutput, dict[str, Tensor]]:
    columns, behind = leaves(splats, background)
    output = rasterize(**columns, **views._asdict(), background=behind)
    probe(output).backward()
    return output, {name: t.grad for name, t in (*columns.items(), ("background", behind))}


def one(mean=(0.0, 0.0, 0.0), scale=0.1, opacity=0.8, color=(1.0, 0.5, 0.0), quat=(1.0, 0.0, 0.0, 0.0)) -> Splats:
    return Splats.from_colors(
        torch.tensor([mean]),
        torch.tensor([color]),
        quats=torch.tensor([quat]),
        scales=torch.full((1, 3), scale),
        opacities=torch.tensor([opacity]),
    )


FRONT = Cameras(look_at((0.0, 0.0, 2.0), (0.0, 0.0, 0.0))[None], pinhole(33, 21, 40)[None], 33, 21)
