"""Solids with exact UVs, made of the surfaces in `shapes`."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from .shapes import SIDES, Shape, Vector, arc, curve, grid, grid_faces, lathe, lay, line, sweep


def spindle(points: Sequence[Vector], n: int = 20, sides: int = SIDES) -> Shape:
    """Turn a smooth profile through ``points`` (radius, height), closed flat at both ends."""
    p = curve(points, n)
    return lathe(np.concatenate([[(0.0, p[0, 1])], p, [(0.0, p[-1, 1])]]), sides)


def cone(bottom: float, top: float, height: float, sides: int = SIDES) -> Shape:
    """Closed cone or frustum that stands on y = 0."""
    return lathe([(0, 0), (bottom, 0), (top, height), (0, height)], sides)


def cylinder(radius: float, height: float, sides: int = SIDES) -> Shape:
    """Closed cylinder that stands on y = 0."""
    return cone(radius, radius, height, sides)


def wheel(radius: float, width: float, sides: int = 20) -> Shape:
    """Cylinder about the z axis with rounded edges, centred."""
    b, h = min(0.25 * radius, 0.3 * width), width / 2
    profile = [(0, -h), (radius - b, -h), (radius, -h + b), (radius, h - b), (radius - b, h), (0, h)]
    return lathe(profile, sides).turn("x", 90)


def sphere(radius: float = 1.0, rows: int = 13, sides: int = SIDES) -> Shape:
    """Sphere about the origin; stripes run around it."""
    return lathe(arc(radius, -90, 90, rows), sides, planar=False)


def ellipsoid(x: float, y: float, z: float, rows: int = 11, sides: int = 20) -> Shape:
    """Ellipsoid about the origin with half axes ``x y z``."""
    return sphere(1.0, rows, sides).scale(x, y, z)


def capsule(radius: float, height: float) -> Shape:
    """Cylinder with round ends that stands on y = 0, ``height`` over all."""
    low, high = arc(radius, -90, 0, 6, (0, radius)), arc(radius, 0, 90, 6, (0, max(height - radius, radius + 1e-3)))
    return lathe(np.concatenate([low, high]), 16, planar=False)


def superquadric(x: float, y: float, z: float, across: float, along: float, rows: int = 13, sides: int = 24) -> Shape:
    """Superquadric with half axes ``x y z``; exponents 1 are round, towards 0 boxy (``across``: seen from above)."""

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    u, v = np.linspace(0, 1, sides + 1), np.linspace(0, 1, rows)
    a, b = 2 * np.pi * (u - 0.5)[None, :], np.pi * (v - 0.5)[:, None]
    wide = power(np.cos(b).clip(0), along)
    height = np.broadcast_to(power(np.sin(b), along), (rows, sides + 1))
    points = np.stack([x * wide * power(np.sin(a), across), y * height, z * wide * power(np.cos(a), across)], axis=-1)
    span = (np.pi * (x + z), np.pi / 2 * (y + (x + z) / 2))  # as of a sphere
    return grid(points, u, v, span, (True, False))


def torus(radius: float, thickness: float, sides: int = SIDES, round_sides: int = 10) -> Shape:
    """Torus about the y axis: ``radius`` to the middle of the tube, which is ``thickness`` in radius."""
    path = lay(arc(radius, 0, -360, sides + 1), "xz")  # [sides + 1, 3]
    return sweep(path, thickness, round_sides, closed=True)


def rod(start: Vector, stop: Vector, radius: float, end: float | None = None, sides: int = 8) -> Shape:
    """Round bar between two points, ``end`` in radius at the stop."""
    return sweep([start, stop], [radius, radius if end is None else end], sides)


@lru_cache(maxsize=4)
def _box_faces(cuts: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces of the six ``cuts x cuts`` grids of a box, and which side each belongs to."""
    grid = grid_faces(cuts, cuts)
    return np.concatenate([grid + i * cuts * cuts for i in range(6)]), np.repeat(np.arange(6), cuts * cuts)


_SIDES = np.array([
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[-1, 0, 0], [0, 1, 0], [0, 0, -1]], [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
])  # fmt: skip  # [6, 3, 3]: right, up and out of each side


def box(x: float, y: float, z: float, bevel: float = 0.0) -> Shape:
    """Box of full size ``x y z`` that stands on y = 0, edges rounded by ``bevel``; each side is one UV square."""
    size = np.array([x, y, z], float)
    b = min(bevel, 0.49 * float(size.min()))
    cuts = 4 if b > 0 else 2
    faces, side = _box_faces(cuts)
    right, up, out = (_SIDES[:, k, :] for k in range(3))
    half = size / 2
    wide, tall = np.abs(right) @ size, np.abs(up) @ size  # [6]

    def ticks(length: np.ndarray) -> np.ndarray:
        inset = np.array([0.0, b, -b, 0.0]) if b > 0 else np.zeros(2)
        return np.repeat([-0.5, 0.5], cuts // 2) * length[:, None] + inset  # [6, cuts]

    s, t = ticks(wide)[:, None, :, None], ticks(tall)[:, :, None, None]
    points = (s * right[:, None, None] + t * up[:, None, None] + (out * half)[:, None, None]).reshape(-1, 3)
    across, above = s[..., 0] / wide[:, None, None] + 0.5, t[..., 0] / tall[:, None, None] + 0.5
    uvs = np.stack(np.broadcast_arrays(across, above), axis=-1)  # [6, cuts, cuts, 2]
    if b > 0:
        core = np.clip(points, b - half, half - b)
        away = points - core
        points = core + b * away / np.linalg.norm(away, axis=1, keepdims=True).clip(1e-12)
    span = np.stack([wide, tall], axis=1)[side]
    return Shape(points + [0, y / 2, 0], faces, uvs.reshape(-1, 2), span, np.zeros((len(points), 2), bool))


def vessel(profile: Sequence[Vector] | np.ndarray, wall: float = 0.04, floor: float = 0.05) -> tuple[Shape, Shape]:
    """Outside (closed below, with the rim) and inside of an open vessel whose outer profile rises from its foot."""
    p = np.asarray(profile, float)
    outer = lathe(np.concatenate([[[0.0, p[0, 1]]], p, [[p[-1, 0] - wall, p[-1, 1]]]]))
    low = p[0, 1] + floor
    keep = p[p[:, 1] > low + 1e-6]
    start = float(np.interp(low, p[:, 1], p[:, 0]))
    inner = np.concatenate([keep[::-1] - [wall, 0.0], [[start - wall, low], [0.0, low]]])
    return outer, lathe(inner)


def hollow(
    profile: Sequence[Vector] | np.ndarray, wall: float = 0.04, floor: float = 0.05, name: str = "body"
) -> Iterator[tuple[str, str, Shape]]:
    """Both sides of a `vessel` as pieces of an object: ``name``, painted, and its inside."""
    outer, inner = vessel(profile, wall, floor)
    yield name, "main", outer
    yield "inside", "inside", inner


def leaf(length: float, width: float, droop: float = 0.3) -> Shape:
    """Pointed leaf from the origin upwards and towards +z."""
    up, out = [0, 0.5 * length, (0.95 - droop) * length], [0, 0.2 * length, (0.35 + 0.6 * droop) * length]
    wide = width * np.array([0.25, 0.6, 0.85, 1.0, 0.98, 0.85, 0.62, 0.34, 0.05])
    section = arc(1, 0, 360, 9)[:-1] * [0.08, 0.5]
    return sweep(curve(line(0, up, out), 9), wide, section=section, normal=(1, 0, 0))
