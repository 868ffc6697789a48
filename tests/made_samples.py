"""Three small splats made by formula, so that everything runs without any download.

Each is a set of parametric surfaces covered with flat gaussians: one per evenly spread point, two axes
in the surface at the sample spacing, one thin axis along the normal. ``data/samples`` holds
``make_sample(name, COUNTS[name])`` of each, as written by ``write_splats``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from clipgs_lib import geometry
from clipgs_lib.splats import Splats

Surface = Callable[[Tensor, Tensor], Tensor]
"""Maps ``u [N]`` and ``v [N]`` in ``[0, 1]`` to points ``[N, 3]``, float64, +y up."""

THICKNESS = 0.15  # Thin axis over surface axis of every gaussian
_STEP = 1e-5  # of u and v, for tangents
OVERLAP = 0.5  # Surface axis over the square root of the area per sample; below about 0.45 holes show


def make_sample(name: str, n: int = 4000, seed: int = 0) -> Splats:
    """Build one of the embedded samples.

    Args:
        name: ``"mug"`` (stripes, SH 0), ``"ball"`` (checks and a translucent shell, SH 0) or ``"knot"``
            (glossy torus knot whose highlight needs view-dependent colour, SH 3).
        n: number of gaussians, ``>= 100``.
        seed: same seed, same splat, on any machine with the same torch.

    Returns:
        `Splats` inside the unit sphere, ``up_axis="+y"``.

    Raises:
        ValueError: for an unknown name or too few gaussians.
    """
    if name not in SAMPLES:
        raise ValueError(f"name must be one of {', '.join(SAMPLES)}, got {name!r}")
    if n < 100:
        raise ValueError(f"n must be at least 100 to cover a surface, got {n}")
    splats = SAMPLES[name](n, torch.Generator().manual_seed(seed))
    return splats.normalize()


def _cover(surface: Surface, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``n`` evenly spread points: means ``[n, 3]``, frames ``[n, 3, 3]``, u, v ``[n]``, total area (scalar)."""

    def tangents(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        du, dv = surface(u + _STEP, v) - surface(u - _STEP, v), surface(u, v + _STEP) - surface(u, v - _STEP)
        return du / (2 * _STEP), dv / (2 * _STEP)

    u, v = torch.rand(2, 16 * n, generator=generator, dtype=torch.float64)
    du, dv = tangents(u, v)
    area = torch.linalg.cross(du, dv).norm(dim=1)  # [16 n] area element
    race = -torch.rand(len(area), generator=generator, dtype=torch.float64).clamp_min(1e-300).log() / area
    pick = race.topk(4 * n, largest=False).indices  # area-weighted, then thinned to an even spread
    pick = pick[_spread(surface(u[pick], v[pick]), n)]
    u, v, total = u[pick], v[pick], area.mean()
    du, dv = tangents(u, v)
    first = torch.nn.functional.normalize(du, dim=1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(du, dv), dim=1)
    frames = torch.stack([first, torch.linalg.cross(normal, first), normal], dim=-1)  # columns are the axes
    return surface(u, v), frames, u, v, total


def _spread(points: Tensor, n: int) -> Tensor:
    """Indices ``[n]`` of ``points [M, 3]``, each the farthest from those before it."""
    chosen = torch.zeros(n, dtype=torch.long)
    nearest = torch.full((len(points),), math.inf, dtype=points.dtype)
    for i in range(1, n):
        nearest = torch.minimum(nearest, (points - points[chosen[i - 1]]).square().sum(dim=1))
        chosen[i] = nearest.argmax()
    return chosen


def _flat_gaussians(
    means: Tensor,
    frames: Tensor,
    colors: Tensor,
    area: Tensor,
    generator: torch.Generator,
    opacity: float = 0.97,
    shN: Tensor | None = None,
) -> Splats:
    """One gaussian per point; sizes and opacities vary a little, as those of a fitted splat do."""
    n = len(means)
    spread = torch.randn(n, 4, generator=generator)
    scales = OVERLAP * math.sqrt(float(area) / n) * torch.tensor([1.0, 1.0, THICKNESS]) * (0.2 * spread[:, :3]).exp()
    splats = Splats.from_colors(
        means.float(),
        colors.float(),
        quats=geometry.rotmat_to_quat(frames).float(),
        scales=scales,
        opacities=torch.sigmoid(math.log(opacity / (1 - opacity)) + 0.7 * spread[:, 3]),
        up_axis="+y",
    )
    return splats if shN is None else replace(splats, shN=shN.float())


def _cone(bottom: float, top: float, low: float, high: float) -> Surface:
    """Between two radii at two heights: a cylinder where the radii are equal, a disk where the heights are."""

    def surface(u: Tensor, v: Tensor) -> Tensor:
        angle, radius = 2 * math.pi * u, bottom + (top - bottom) * v
        return torch.stack([radius * angle.sin(), low + (high - low) * v, radius * angle.cos()], dim=1)

    return surface


def _tube(curve: Callable[[Tensor], Tensor], radius: float, up: tuple[float, float, float]) -> Surface:
    """A tube of ``radius`` around a closed or open curve ``t in [0, 1] -> [N, 3]``."""

    def surface(u: Tensor, v: Tensor) -> Tensor:
        along = torch.nn.functional.normalize(curve(u + 1e-4) - curve(u - 1e-4), dim=1)
        reference = torch.tensor(up, dtype=torch.float64).expand_as(along)
        side = torch.nn.functional.normalize(torch.linalg.cross(along, reference), dim=1)
        other = torch.linalg.cross(side, along)
        angle = 2 * math.pi * v[:, None]
        return curve(u) + radius * (angle.cos() * side + angle.sin() * other)

    return surface


def _handle_curve(t: Tensor) -> Tensor:
    angle = math.pi * (t - 0.5)
    return torch.stack([0.48 + 0.34 * angle.cos(), 0.36 * angle.sin(), torch.zeros_like(t)], dim=1)


def _knot_curve(t: Tensor) -> Tensor:
    """The (2, 3) torus knot about the vertical axis."""
    a = 2 * math.pi * t
    r = 0.62 + 0.26 * (3 * a).cos()
    return torch.stack([r * (2 * a).cos(), 0.3 * (3 * a).sin(), r * (2 * a).sin()], dim=1)


def _mug(n: int, generator: torch.Generator) -> Splats:
    cream, teal, rim = (torch.tensor(c) for c in ([0.93, 0.90, 0.83], [0.10, 0.47, 0.49], [0.83, 0.79, 0.70]))
    parts = [
        (_cone(0.5, 0.5, -0.55, 0.55), 0.46, cream),
        (_cone(0.46, 0.46, -0.5, 0.55), 0.26, rim),
        (_cone(0.0, 0.5, -0.55, -0.55), 0.10, rim),
        (_tube(_handle_curve, 0.075, (0.0, 0.0, 1.0)), 0.18, cream),
    ]
    done, left = [], n
    for index, (surface, share, color) in enumerate(parts):
        count = left if index == len(parts) - 1 else round(n * share)
        left -= count
        means, frames, _, v, area = _cover(surface, count, generator)
        colors = color.expand(count, 3).clone()
        if index == 0:
            colors[(v * 7).long() % 2 == 1] = teal  # stripes
        done.append(_flat_gaussians(means, frames, colors, area, generator))
    return Splats.cat(done)


def _ball(n: int, generator: torch.Generator) -> Splats:
    def sphere(radius: float) -> Surface:
        def surface(u: Tensor, v: Tensor) -> Tensor:
            angle, height = 2 * math.pi * u, (2 * v - 1).clamp(-1, 1)
            ring = (1 - height * height).clamp_min(0).sqrt()
            return radius * torch.stack([ring * angle.sin(), height, ring * angle.cos()], dim=1)

        return surface

    inner = round(0.7 * n)
    means, frames, u, v, area = _cover(sphere(0.7), inner, generator)
    dark = ((u * 12).long() + (v * 6).long()) % 2 == 1
    colors = torch.where(dark[:, None], torch.tensor([0.12, 0.16, 0.35]), torch.tensor([0.95, 0.66, 0.20]))
    core = _flat_gaussians(means, frames, colors, area, generator)
    means, frames, u, v, area = _cover(sphere(1.0), n - inner, generator)
    pale = torch.tensor([0.55, 0.80, 0.95]).expand(n - inner, 3)
    shell = _flat_gaussians(means, frames, pale, area, generator, opacity=0.06)
    return Splats.cat([core, shell])


def _knot(n: int, generator: torch.Generator) -> Splats:
    means, frames, u, _, area = _cover(_tube(_knot_curve, 0.13, (0.0, 1.0, 0.0)), n, generator)
    hue = 2 * math.pi * (u[:, None] + torch.tensor([0.0, 1 / 3, 2 / 3], dtype=torch.float64))
    colors = 0.42 + 0.26 * hue.cos()
    return _flat_gaussians(means, frames, colors, area, generator, shN=_highlight(frames[:, :, 2]))


def _highlight(normals: Tensor, strength: float = 0.9) -> Tensor:
    """SH bands 1 to 3 ``[N, 15, 3]`` of a white glint: a lobe about the mirrored light direction."""
    light = torch.nn.functional.normalize(torch.tensor([0.4, 0.8, 0.45], dtype=torch.float64), dim=0)
    mirrored = 2 * (normals @ light)[:, None] * normals - light  # towards the viewer who sees the glint
    lit = (normals @ light).clamp_min(0)
    basis = geometry.sh_basis(-mirrored, 3)[:, 1:]  # our directions run from the camera to the gaussian
    falloff = torch.tensor([1.0] * 3 + [0.8] * 5 + [0.5] * 7, dtype=torch.float64)
    return (strength * lit[:, None] * basis * falloff)[:, :, None].expand(-1, -1, 3).contiguous()


SAMPLES: dict[str, Callable[[int, torch.Generator], Splats]] = {"mug": _mug, "ball": _ball, "knot": _knot}
COUNTS = {"mug": 6000, "ball": 6000, "knot": 4000}
