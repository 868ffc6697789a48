"""Random changes of splats, which leave them physical, and of the rendered views that mini learns from.

What moves a centre moves the whole gaussian.
As in the training of OpenShape and Uni3D (REFERENCE sec. 2), carried over to gaussians: a turn about the up axis
carries the quaternions, a change of size carries the scales, and colour is dropped for an object as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .. import geometry
from ..splats import Splats


@dataclass(frozen=True)
class AugmentConfig:
    """How much training splats are changed. Lengths are in units of the object's bounding sphere."""

    turn: bool = True  # by any angle about the up axis; objects whose up axis is unknown are not turned
    size: float = 1.25  # factor, drawn log-uniformly from [1/size, size]; 1 leaves the size alone
    jitter: float = 0.01  # standard deviation of a shift of every centre, cut at 3 of them; 0 for none
    drop: float = 0.4  # largest share of gaussians left out (point dropout); the share is uniform in [0, drop]
    keep: int = 64  # at least so many gaussians stay, if there are as many
    no_color: float = 0.2  # probability that all colours of an object become `color`
    color: float = 0.4  # what stands for no colour, as in OpenShape and Uni3D

    def __post_init__(self) -> None:
        rules = {
            "size >= 1": self.size >= 1 and math.isfinite(self.size),
            "jitter >= 0": self.jitter >= 0 and math.isfinite(self.jitter),
            "drop in [0, 1)": 0 <= self.drop < 1,
            "keep >= 1": self.keep >= 1,
            "no_color in [0, 1]": 0 <= self.no_color <= 1,
            "color in [0, 1]": 0 <= self.color <= 1,
        }
        for rule, holds in rules.items():
            if not holds:
                name = rule.split()[0]
                raise ValueError(f"augment: {rule} must hold, got {name} = {getattr(self, name)}")


def augment(splats: Splats, rng: np.random.Generator, config: AugmentConfig) -> Splats:
    """Change one object at random.

    Args:
        splats: SH degree 0, normalised into the unit sphere.
        rng: source of randomness; as many numbers are drawn whatever the object holds, jitter and drop excepted.
        config: how much.

    Returns:
        The changed object; not normalised again, so that size and shift are seen by the encoder.
    """
    angle, size, share, tint = rng.random(4)
    if share * config.drop > 0 and len(splats) > config.keep:
        count = max(config.keep, round(len(splats) * (1 - share * config.drop)))
        splats = splats[torch.from_numpy(np.sort(rng.permutation(len(splats))[:count]))]
    columns: dict[str, Any] = {}
    means, factor = splats.means, config.size ** (2 * float(size) - 1)
    if config.turn and splats.up_axis != "unknown":
        sign = 1.0 if splats.up_axis[0] == "+" else -1.0
        turn = geometry.rotation_about(splats.up_axis[1], sign * 360.0 * float(angle))
        means = means @ turn.T.to(means)
        columns["quats"] = geometry.quat_multiply(geometry.rotmat_to_quat(turn).to(means), splats.quats)
    if factor != 1:
        means = means * factor
        columns["scales"] = splats.scales * factor
    if config.jitter:
        noise = rng.standard_normal((len(splats), 3), dtype=np.float32).clip(-3, 3)
        means = means + config.jitter * torch.from_numpy(noise)
    if tint < config.no_color:
        columns["sh0"] = torch.full_like(splats.sh0, (config.color - 0.5) / geometry.SH_C0)
    return replace(splats, means=means, **columns)


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
