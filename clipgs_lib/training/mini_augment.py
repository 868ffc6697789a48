"""Strong augmentation of rendered views with alpha: crop, scale, turn, mirror, background, colour, blur."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class PictureAugment:
    """How hard training pictures are changed; shares are probabilities."""

    scale: tuple[float, float] = (0.6, 1.35)  # size of the object in the picture, 1 = as rendered
    shift: float = 0.2  # largest move, as a share of the picture's half width
    turn: float = 15.0  # largest rotation in the picture plane, degrees
    mirror: float = 0.5  # share mirrored left to right
    white: float = 0.5  # share on a white background, as renders for evaluation are
    brightness: float = 0.25  # largest relative change
    contrast: float = 0.25  # largest relative change
    saturation: float = 0.35  # largest relative change
    hue: float = 0.03  # largest turn of the hue, in whole turns
    gray: float = 0.05  # share without colour
    blur: float = 0.25  # share blurred


def augment_pictures(views: torch.Tensor, size: int, config: PictureAugment, rng: torch.Generator) -> torch.Tensor:
    """Change views ``[B, 4, S, S]``, RGB with straight alpha in ``[0, 1]``, at random: ``[B, 3, size, size]``."""
    rgb, alpha = views[:, :3], views[:, 3:]
    moved = _move(torch.cat([rgb * alpha, alpha], dim=1), size, config, rng)  # premultiplied, so edges stay clean
    pictures = moved[:, :3] + (1 - moved[:, 3:]) * _backgrounds(len(views), size, config, rng)
    return _blur(_recolor(pictures, config, rng), config, rng)


def _uniform(count: int, low: float, high: float, rng: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=rng)


def _chosen(count: int, share: float, rng: torch.Generator) -> torch.Tensor:
    return (torch.rand(count, generator=rng) < share)[:, None, None, None]  # [B, 1, 1, 1]


def _move(layers: torch.Tensor, size: int, config: PictureAugment, rng: torch.Generator) -> torch.Tensor:
    count = len(layers)
    zoom = 1 / _uniform(count, *config.scale, rng)
    angle = torch.deg2rad(_uniform(count, -config.turn, config.turn, rng))
    side = torch.where(torch.rand(count, generator=rng) < config.mirror, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift_x = _uniform(count, -config.shift, config.shift, rng)
    shift_y = _uniform(count, -config.shift, config.shift, rng)
    rows = [torch.stack([cos * side, -sin, shift_x], dim=1), torch.stack([sin * side, cos, shift_y], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), [count, 4, size, size], align_corners=False)
    return F.grid_sample(layers, grid, padding_mode="zeros", align_corners=False).clamp(0, 1)


def _backgrounds(count: int, size: int, config: PictureAugment, rng: torch.Generator) -> torch.Tensor:
    """White, plain colours, and smooth fields of colour from few random values, in equal parts besides white."""
    plain = torch.rand(count, 3, 1, 1, generator=rng).expand(-1, -1, size, size)
    coarse = torch.rand(count, 3, 4, 4, generator=rng)
    fields = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    mixed = torch.where(_chosen(count, 0.5, rng), plain, fields)
    return torch.where(_chosen(count, config.white, rng), torch.ones(()), mixed)


def _recolor(pictures: torch.Tensor, config: PictureAugment, rng: torch.Generator) -> torch.Tensor:
    count = len(pictures)

    def factor(most: float) -> torch.Tensor:
        return _uniform(count, 1 - most, 1 + most, rng)[:, None, None, None]

    out = pictures * factor(config.brightness)
    mean = out.mean(dim=(1, 2, 3), keepdim=True)
    out = mean + (out - mean) * factor(config.contrast)
    gray = (out * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    strength = torch.where(_chosen(count, config.gray, rng), torch.zeros(()), factor(config.saturation))
    out = gray + (out - gray) * strength
    return torch.einsum("bij,bjhw->bihw", _hue_turns(count, config.hue, rng), out).clamp(0, 1)


def _hue_turns(count: int, most: float, rng: torch.Generator) -> torch.Tensor:
    """Rotations ``[B, 3, 3]`` of the colour cube about its gray diagonal (Rodrigues' formula)."""
    angle = 2 * torch.pi * _uniform(count, -most, most, rng)[:, None, None]
    axis = torch.full((3,), 3**-0.5)
    cross = torch.linalg.cross(torch.eye(3), axis.expand(3, 3), dim=1)
    return torch.cos(angle) * torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * torch.outer(axis, axis)


def _blur(pictures: torch.Tensor, config: PictureAugment, rng: torch.Generator) -> torch.Tensor:
    """Smooth with a 5-tap binomial kernel, along both axes."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(taps, taps).expand(3, 1, 5, 5)
    smooth = F.conv2d(F.pad(pictures, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    return torch.where(_chosen(len(pictures), config.blur, rng), smooth, pictures)
