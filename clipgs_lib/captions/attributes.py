"""What an object looks like, measured on it: colours, proportions, symmetry, roundness, how busy its texture is."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..colors import NAMES, nearest, oklab
from ..geometry import quat_to_rotmat
from ..meshes import Mesh
from ..splats import Splats

_SAMPLES = 3000  # of a surface
_NEAR = 2.5  # times the median spacing of samples: of a random surface sample, 98.7 % have a neighbour that near
_FAMILIES = {"navy": "blue", "maroon": "red", "lime": "green", "golden": "yellow", "silver": "gray"}  # of other words


@dataclass(frozen=True)
class Palette:
    """Which colours a surface has.

    Args:
        shares: colour name -> share of the surface in ``[0, 1]``, largest first; those below 2 % are left out.
        main: one to three names that together describe the surface, largest first; empty when many do.
        many: no three colours cover it and at least four matter.
        covered: share of the surface whose colour belongs to a family in ``main``.
    """

    shares: dict[str, float]
    main: tuple[str, ...]
    many: bool
    covered: float


@dataclass(frozen=True)
class Attributes:
    """Measured properties of one object.

    Args:
        palette: its colours.
        extents: robust size along up and the two horizontal axes (wide, narrow), scene units; with an unknown up axis
            all three sorted, largest first.
        proportion: ``tall``, ``flat``, ``long``, ``thin``, ``compact``, or empty when none is clear; ``tall`` and
            ``thin`` (a standing sheet) need a known up axis.
        symmetry: share of the surface that has a counterpart behind the best upright mirror plane, in ``[0, 1]``.
        symmetric: ``symmetry`` is at least 0.93.
        roundness: share of the surface that stays when the object is turned about the up axis, in ``[0, 1]``.
        round: ``roundness`` is at least 0.85; never with an unknown up axis.
        busyness: share of the surface where the colour changes along it without an edge, in ``[0, 1]``.
        texture: ``plain`` below 0.02 of that when one colour covers three quarters; ``patterned`` above 0.25 and on
            meshes only, since the colours of neighbouring gaussians differ without any pattern, which blending
            hides; else empty.
    """

    palette: Palette
    extents: tuple[float, float, float]
    proportion: str
    symmetry: float
    symmetric: bool
    roundness: float
    round: bool
    busyness: float
    texture: str


class _Surface(NamedTuple):
    points: np.ndarray  # [n, 3] float64
    normals: np.ndarray  # [n, 3] unit; of splats with either sign
    colors: np.ndarray  # [n, 3] in [0, 1]
    first: np.ndarray  # [m] one sample per independent colour measurement
    oriented: bool  # normals point outwards


def measure(shape: Mesh | Splats, *, seed: int = 0) -> Attributes:
    """Measure an object from 3,000 random points of its surface.

    A mesh is sampled by area; of splats, gaussians are drawn by opacity times area and points within them.

    Args:
        shape: mesh or splats; ``up_axis`` decides what tall means.
        seed: of the samples; the same object and seed give the same numbers.

    Raises:
        ValueError: when the object has no visible surface.
    """
    rng = np.random.default_rng(seed)
    if isinstance(shape, Mesh):
        samples = shape.sample(_SAMPLES, rng)
        surface = _Surface(
            samples.points.astype(np.float64), samples.normals, samples.colors, np.arange(_SAMPLES), True
        )
    else:
        surface = _of_splats(shape, rng)
    up = None if shape.up_axis == "unknown" else "xyz".index(shape.up_axis[1])
    low, high = np.quantile(surface.points, (0.005, 0.995), axis=0)
    extents = _ordered(high - low, up)
    points = surface.points - (low + high) / 2
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    near = _NEAR * float(np.median(tree.query(points, k=2)[0][:, 1]))
    mirrors = 1 - 2 * np.eye(3)
    symmetry = max(_agreement(tree, points * mirrors[axis], near) for axis in range(3) if axis != up)
    roundness = _roundness(tree, points, up, near)
    busyness = _busyness(surface)
    colors = palette(surface.colors)
    plain = busyness < 0.02 and len(colors.main) == 1 and colors.covered >= 0.75
    return Attributes(
        palette=colors,
        extents=extents,
        proportion=_proportion(extents, up is not None),
        symmetry=symmetry,
        symmetric=symmetry >= 0.93,
        roundness=roundness,
        round=roundness >= 0.85,
        busyness=busyness,
        texture="plain" if plain else ("patterned" if busyness > 0.25 and isinstance(shape, Mesh) else ""),
    )


def _of_splats(splats: Splats, rng: np.random.Generator) -> _Surface:
    good = splats.detach()
    good = good[good.finite_mask() & (good.quats.norm(dim=1) > 0)]
    mass = (good.opacities * good.area()).double().cpu().numpy()
    if len(good) == 0 or not mass.sum() > 0:
        raise ValueError(f"needs a gaussian with opacity and area > 0, got {len(splats)} gaussians without")
    pick = rng.choice(len(good), size=_SAMPLES, p=mass / mass.sum())
    index = torch.from_numpy(pick).to(good.device)
    turn = quat_to_rotmat(good.quats[index]).double().cpu().numpy()  # [n, 3, 3]
    scales = good.scales[index].double().cpu().numpy()
    offsets = np.einsum("nij,nj->ni", turn, scales * rng.standard_normal(scales.shape))
    points = good.means[index].double().cpu().numpy() + offsets
    normals = turn[np.arange(_SAMPLES), :, scales.argmin(axis=1)]  # [n, 3]
    colors = good.colors[index].cpu().numpy().clip(0, 1)
    return _Surface(points, normals, colors, np.unique(pick, return_index=True)[1], False)


def _ordered(size: np.ndarray, up: int | None) -> tuple[float, float, float]:
    if up is None:
        a, b, c = sorted((float(v) for v in size), reverse=True)
        return a, b, c
    wide, narrow = sorted((float(size[axis]) for axis in range(3) if axis != up), reverse=True)
    return float(size[up]), wide, narrow


def _proportion(extents: tuple[float, float, float], has_up: bool) -> str:
    if max(extents) <= 1.3 * min(extents):
        return "compact"
    if not has_up:
        a, b, c = extents
        return "long" if a > 2.2 * b else ("flat" if c < 0.25 * b else "")
    height, wide, narrow = extents
    if height > 1.8 * wide:
        return "tall"
    if wide > 2.2 * max(height, narrow):
        return "long"
    if height < 0.25 * narrow:
        return "flat"
    return "thin" if narrow < 0.2 * min(height, wide) else ""


def _agreement(tree: cKDTree, moved: np.ndarray, near: float) -> float:
    """Share of moved points that lie on the surface: that have a sample within ``near``."""
    return float(np.isfinite(tree.query(moved, distance_upper_bound=max(near, 1e-12))[0]).mean())


def _roundness(tree: cKDTree, points: np.ndarray, up: int | None, near: float) -> float:
    if up is None:
        return 0.0
    a, b = (axis for axis in range(3) if axis != up)
    shares = []
    for degrees in (30, 45, 72):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = points.copy()
        turned[:, a], turned[:, b] = cos * points[:, a] - sin * points[:, b], sin * points[:, a] + cos * points[:, b]
        shares.append(_agreement(tree, turned, near))
    return min(shares)


def _busyness(surface: _Surface) -> float:
    """Share of samples whose neighbours on the same sheet spread by more than 0.05 in OKLab about their mean."""
    # Neighbours are the eight nearest that face the same way and lie in the sample's tangent plane, so that parts which
    # stick out of each other, or turn an edge, in different colours are no pattern.
    points, normals = surface.points[surface.first], surface.normals[surface.first]
    if len(points) < 10:
        return 0.0
    lab = oklab(surface.colors[surface.first])
    distances, neighbours = cKDTree(points, balanced_tree=False, compact_nodes=False).query(points, k=9)  # itself first
    offsets = np.abs(np.einsum("mkc,mc->mk", points[neighbours] - points[:, None], normals))
    cosines = np.einsum("mkc,mc->mk", normals[neighbours], normals)
    facing = (cosines if surface.oriented else np.abs(cosines)) > 0.9  # sides of a seam between two parts differ
    alike = facing & (offsets <= 0.3 * np.median(distances[:, 1]))  # [m, 9]
    alike[:, 0] = True
    weights = alike / alike.sum(axis=1, keepdims=True)
    mean = np.einsum("mk,mkc->mc", weights, lab[neighbours])
    spread = np.sqrt(np.einsum("mk,mkc->m", weights, (lab[neighbours] - mean[:, None]) ** 2))
    return float((spread > 0.05).mean())


def palette(colors: np.ndarray) -> Palette:
    """Summarise the colours of a surface.

    Light and dark shades of one colour count together ("green" of "dark green") when neither makes up three quarters
    of both. One colour describes a surface alone from 75 %; two together need 70 %, the second 15 % and the third
    less than that; three need 80 % and the third 10 %. Else four colours of 8 % or more make it multicoloured, and
    else the largest stands alone.

    Args:
        colors: ``[n, 3]`` sRGB in ``[0, 1]``, of equal shares of the surface, ``n >= 1``.
    """
    totals = np.bincount(nearest(colors), minlength=len(NAMES)) / len(colors)
    order = np.argsort(-totals, kind="stable")
    shares = {NAMES[i]: float(totals[i]) for i in order if totals[i] >= 0.02}
    families: dict[str, float] = {}
    for i in order:
        families[family_of(NAMES[i])] = families.get(family_of(NAMES[i]), 0.0) + float(totals[i])
    ranked = sorted(families.items(), key=lambda pair: -pair[1])
    count = _how_many([share for _, share in ranked])
    many = count == 0
    main = tuple(_shade(family, share, shares) for family, share in ranked[:count])
    return Palette(shares, main, many, float(sum(share for _, share in ranked[:count])))


def _how_many(shares: list[float]) -> int:
    """How many colours to name, 0 for "multicoloured"; ``shares`` of families, largest first."""
    padded = [*shares, 0.0, 0.0, 0.0, 0.0]
    if padded[0] >= 0.75:
        return 1
    if padded[0] + padded[1] >= 0.7 and padded[1] >= 0.15 > padded[2]:
        return 2
    if sum(padded[:3]) >= 0.8 and padded[2] >= 0.1:
        return 3
    return 0 if padded[3] >= 0.08 else 1


def family_of(name: str) -> str:
    """What shades of one colour share: "green" of "dark green", "blue" of "navy"."""
    return _FAMILIES.get(name, name.rpartition(" ")[2])


def _shade(family: str, share: float, shares: dict[str, float]) -> str:
    """The name within a family: a shade when it makes up three quarters of it."""
    top = max((name for name in shares if family_of(name) == family), key=shares.__getitem__, default=family)
    return top if shares.get(top, 0.0) >= 0.75 * share else family
