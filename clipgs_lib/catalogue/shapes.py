"""Parametric surfaces with exact UVs: what is turned, swept, pushed out of an outline.

Shapes are built at about unit size with +y up and the front towards +z; triangles wind counter-clockwise seen from
outside. UVs run over ``[0, 1]`` on each surface; `Shape.span` says how long that is, so that a pattern can repeat at
an even size on all surfaces, and `Shape.closed` where the surface meets itself, so that it repeats whole times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

Vector = Sequence[float]
SIDES = 24  # around a lathe


@dataclass(frozen=True, eq=False)
class Shape:
    """Triangles with UVs that know their length."""

    vertices: np.ndarray  # [V, 3] float64
    faces: np.ndarray  # [F, 3] int64 into vertices
    uvs: np.ndarray  # [V, 2] in [0, 1] over each surface, v up
    span: np.ndarray  # [V, 2] length that uvs 0..1 covers, scene units
    closed: np.ndarray  # [V, 2] bool: 0 and 1 meet there

    def __add__(self, other: Shape) -> Shape:
        return join([self, other])

    def move(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Shape:
        """Shift by ``(x, y, z)``."""
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def turn(self, axis: str, degrees: float) -> Shape:
        """Rotate right-handedly about the axis ``"x"``, ``"y"`` or ``"z"`` through the origin."""
        first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        moved = self.vertices.copy()
        moved[:, first] = c * self.vertices[:, first] - s * self.vertices[:, second]
        moved[:, second] = s * self.vertices[:, first] + c * self.vertices[:, second]
        return replace(self, vertices=moved)

    def scale(self, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Shape:
        """Stretch along the axes; a mirror (an odd number of negative factors) keeps the outside outside."""
        faces = self.faces[:, ::-1] if x * y * z < 0 else self.faces
        return replace(self, vertices=self.vertices * np.array([x, y, z]), faces=faces)

    def warp(self, function: Callable[[np.ndarray], np.ndarray]) -> Shape:
        """Move all vertices by ``function([V, 3]) -> [V, 3]``."""
        return replace(self, vertices=function(self.vertices))

    def push(self, axis: str, amount: Callable[[np.ndarray], np.ndarray]) -> Shape:
        """Move all vertices along one axis by ``amount([V, 3]) -> [V]``."""
        return self.warp(lambda v: v + lay(amount(v)[:, None], axis))

    def mirror(self) -> Shape:
        """The shape and its mirror image at ``x = 0``."""
        return join([self, self.scale(x=-1.0)])


def join(shapes: Iterable[Shape]) -> Shape:
    """One shape out of several."""
    listed = list(shapes)
    starts = np.cumsum([0, *(len(s.vertices) for s in listed)])
    return Shape(
        np.concatenate([s.vertices for s in listed]),
        np.concatenate([s.faces + start for s, start in zip(listed, starts, strict=False)]),
        np.concatenate([s.uvs for s in listed]),
        np.concatenate([s.span for s in listed]),
        np.concatenate([s.closed for s in listed]),
    )


def around(shape: Shape, n: int, start: float = 0.0) -> Shape:
    """``n`` copies turned evenly about the y axis, the first by ``start`` degrees."""
    return join([shape.turn("y", start + 360.0 * i / n) for i in range(n)])


def row(shape: Shape, n: int, step: Vector, centred: bool = True) -> Shape:
    """``n`` copies, each moved by ``step`` from the one before."""
    first = -(n - 1) / 2 if centred else 0.0
    return join([shape.move(*((first + i) * np.asarray(step, float))) for i in range(n)])


@lru_cache(maxsize=512)
def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Triangles of a ``rows x columns`` grid of vertices, columns to the right and rows upwards."""
    base = np.arange((rows - 1) * columns).reshape(rows - 1, columns)[:, :-1].ravel()
    lower = np.stack([base, base + 1, base + columns + 1], axis=1)
    upper = np.stack([base, base + columns + 1, base + columns], axis=1)
    faces = np.concatenate([lower, upper])
    faces.setflags(write=False)
    return faces


def grid(
    points: np.ndarray, u: np.ndarray, v: np.ndarray, span: Vector | np.ndarray, closed: tuple[bool, bool]
) -> Shape:
    """Shape of a grid of points ``[R, C, 3]`` with ``u [C]`` and ``v [R]``."""
    rows, columns = points.shape[:2]
    uvs = np.stack(np.broadcast_arrays(u[None, :], v[:, None]), axis=-1).reshape(-1, 2)
    count = rows * columns
    return Shape(
        points.reshape(count, 3),
        grid_faces(rows, columns),
        uvs,
        np.broadcast_to(np.asarray(span, float), (count, 2)),
        np.broadcast_to(np.array(closed), (count, 2)),
    )


def curve(points: Sequence[Vector] | np.ndarray, n: int = 24) -> np.ndarray:
    """Smooth Catmull-Rom curve through ``points [P, D]`` as ``[n, D]``."""
    p = np.asarray(points, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, len(p) - 3, n)
    i = np.minimum(t.astype(int), len(p) - 4)
    s = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    return b + 0.5 * s * (c - a + s * (2 * a - 5 * b + 4 * c - d + s * (3 * (b - c) + d - a)))


def line(*coordinates: float | Sequence[float] | np.ndarray) -> np.ndarray:
    """Points ``[n, D]`` of which each of the ``D`` coordinates is given by itself, ``n`` numbers or one for all."""
    return np.stack(np.broadcast_arrays(*coordinates), axis=1).astype(float)


def arc(radius: float, start: float, stop: float, n: int = 16, center: Vector = (0.0, 0.0)) -> np.ndarray:
    """Points ``[n, 2]`` on a circle from ``start`` to ``stop`` degrees."""
    angle = np.deg2rad(np.linspace(start, stop, n))
    return np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], axis=1)


def lay(points: np.ndarray | Sequence[Vector], plane: str) -> np.ndarray:
    """Points ``[n, 2]`` in a plane ``"xy"``, ``"zy"`` or ``"xz"`` as ``[n, 3]``."""
    out = np.zeros((len(points), 3))
    out[:, ["xyz".index(axis) for axis in plane]] = points
    return out


def lathe(profile: Sequence[Vector] | np.ndarray, sides: int = SIDES, planar: bool = True) -> Shape:
    """Turn a profile ``[P, 2]`` of (radius, height) about the y axis.

    A profile that rises has its outside away from the axis. Stretches flatter than 40 degrees get UVs seen from above
    (a plate's checks stay square); ``planar=False`` wraps all around (a ball's stripes stay rings).
    """
    p = np.maximum(np.asarray(profile, float), [0.0, -np.inf])
    step = np.diff(p, axis=0)
    flat = (np.abs(step[:, 0]) > 1.2 * np.abs(step[:, 1])) & planar
    edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), len(step)]
    u = np.linspace(0, 1, sides + 1)
    angle = 2 * np.pi * (u - 0.5)
    ring = np.stack([np.sin(angle), np.ones_like(angle), np.cos(angle)], axis=1)  # [C, 3]
    done = []
    for low, high in pairwise(edges):
        part = p[low : high + 1]
        points = part[:, [0, 1, 0]][:, None, :] * ring  # [R, C, 3]
        length = np.concatenate([[0.0], np.cumsum(np.hypot(*step[low:high].T))])
        wide = float(part[:, 0].max())
        shape = grid(points, u, length / length[-1], (2 * np.pi * wide, length[-1]), (True, False))
        if flat[low]:
            seen = 0.5 + shape.vertices[:, [0, 2]] * [0.5 / wide, -0.5 / wide]
            size = np.full_like(seen, 2 * wide)
            shape = replace(shape, uvs=seen, span=size, closed=np.zeros_like(shape.closed))
        done.append(shape)
    return join(done)


def turned(points: Sequence[Vector] | np.ndarray, n: int, sides: int = SIDES) -> Shape:
    """Turn a smooth profile through ``points`` (radius, height) about the y axis; stripes run around it."""
    return lathe(curve(points, n), sides, planar=False)


def sweep(
    path: Sequence[Vector] | np.ndarray,
    radius: float | Sequence[float] | np.ndarray = 1.0,
    sides: int = 8,
    *,
    section: Sequence[Vector] | np.ndarray | None = None,
    closed: bool = False,
    normal: Vector | None = None,
) -> Shape:
    """Move a section along a path.

    Args:
        path: ``[K, 3]``, about planar; a closed one ends where it starts.
        radius: of a round section, or the factor of another one; a number or one per point.
        sides: of a round section.
        section: ``[S, 2]`` polygon, counter-clockwise, in the frame (within the path's plane, along its normal).
        closed: the path meets itself; else the ends are closed with caps.
        normal: of the path's plane, where it cannot be told from the path (an S-bend).
    """
    p = np.asarray(path, float)
    if section is None:
        section = arc(1.0, 0, 360, sides + 1)[:-1]
    outline = np.concatenate([np.asarray(section, float), np.asarray(section, float)[:1]])  # [S + 1, 2]
    radii = np.broadcast_to(np.asarray(radius, float), (len(p),))
    along = np.gradient(p, axis=0)
    if closed:
        along[0] = along[-1] = p[1] - p[-2]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    axis = _plane_normal(p, along) if normal is None else np.asarray(normal, float)
    side = np.cross(axis, along)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(along, side)
    ring = outline[None, :, :1] * side[:, None, :] + outline[None, :, 1:] * other[:, None, :]  # [K, S + 1, 3]
    points = p[:, None, :] + radii[:, None, None] * ring
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))])
    edge = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(outline, axis=0).T))])
    span = (edge[-1] * float(radii.max()), length[-1])
    tube = grid(points, edge / edge[-1], length / length[-1], span, (True, closed))
    if closed:
        return tube
    size = 2 * float(np.abs(outline).max()) * float(radii.max())
    ends = [_cap(points[-1], p[-1], outline, size), _cap(points[0, ::-1], p[0], outline[::-1], size)]
    return join([tube, *ends])


def _plane_normal(path: np.ndarray, along: np.ndarray) -> np.ndarray:
    centred = path - path.mean(axis=0)
    normal = np.cross(centred[:-1], centred[1:]).sum(axis=0)
    size = float(np.linalg.norm(normal))
    if size > 1e-6 * float((centred**2).sum()):
        return normal / size
    least = np.eye(3)[int(np.argmin(np.abs(along).round(6).max(axis=0)))]
    normal = np.cross(along[0], least)
    return normal / np.linalg.norm(normal)


def _cap(ring: np.ndarray, center: np.ndarray, outline: np.ndarray, size: float) -> Shape:
    """Fan of ``ring [S + 1, 3]``, counter-clockwise from outside, about ``center``, with ``outline`` as UVs."""
    flat = np.concatenate([outline, np.zeros((1, 2))]) / (2 * np.abs(outline).max()) + 0.5
    return _fan(ring, center, flat, max(size, 1e-6))


def _fan(ring: np.ndarray, center: np.ndarray, uvs: np.ndarray, span: float | np.ndarray) -> Shape:
    """Triangles from ``center`` to a ring ``[S + 1, 3]`` that ends where it starts, with ``uvs [S + 2, 2]``."""
    n = len(ring) - 1
    faces = np.stack([np.full(n, n + 1), np.arange(n), np.arange(1, n + 1)], axis=1)
    spans = np.broadcast_to(span, (n + 2, 2))
    return Shape(np.concatenate([ring, center[None]]), faces, uvs, spans, np.zeros((n + 2, 2), bool))


def extrude(polygon: Sequence[Vector] | np.ndarray, depth: float, bevel: float = 0.0) -> Shape:
    """Push a polygon ``[P, 2]`` in the xy plane out to both sides along z, ``depth`` over all.

    The polygon is star-shaped about the mean of its points; the front and back are planar in UV.
    """
    flat = np.asarray(polygon, float)
    if np.dot(flat[:, 0], np.roll(flat[:, 1], -1)) < np.dot(flat[:, 1], np.roll(flat[:, 0], -1)):  # clockwise
        flat = flat[::-1]
    middle = flat.mean(axis=0)
    ring = np.concatenate([flat, flat[:1]])
    size = np.ptp(flat, axis=0)
    inset = middle + (ring - middle) * (1 - 2 * bevel / float(size.min()))
    h = depth / 2
    levels = [(ring, -h), (ring, h)] if bevel <= 0 else [(inset, -h), (ring, bevel - h), (ring, h - bevel), (inset, h)]
    points = np.stack([np.column_stack([xy, np.full(len(xy), z)]) for xy, z in levels])
    edge = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    wall = grid(points, edge / edge[-1], np.linspace(0, 1, len(levels)), (edge[-1], depth), (True, False))
    uvs = (np.concatenate([ring, middle[None]]) - flat.min(axis=0)) / size
    front, back = (_fan(xyz, np.append(middle, xyz[0, 2]), uvs, size) for xyz in (points[-1], points[0]))
    return join([wall, front, replace(back, faces=back.faces[:, ::-1])])


def slab(low: np.ndarray, high: np.ndarray, depth: float) -> Shape:
    """Solid between two lines ``[n, 2]`` in the xy plane that run to the right, one above the other, ``depth`` in z."""
    h = depth / 2
    front = np.stack([lay(low, "xy"), lay(high, "xy")]) + [0, 0, h]  # [2, n, 3]
    back = front[:, ::-1] * [1, 1, -1]
    under = np.stack([back[0, ::-1], front[0]])
    over = np.stack([front[1], back[1, ::-1]])
    left = np.stack([np.stack([back[0, -1], front[0, 0]]), np.stack([back[1, -1], front[1, 0]])])
    right = np.stack([np.stack([front[0, -1], back[0, 0]]), np.stack([front[1, -1], back[1, 0]])])
    size = np.ptp(front.reshape(-1, 3), axis=0)
    corner = front.reshape(-1, 3).min(axis=0)
    done = []
    sides = ((front, (0, 1)), (back, (0, 1)), (under, (0, 2)), (over, (0, 2)), (left, (2, 1)), (right, (2, 1)))
    for points, axes in sides:
        extent = np.array([size[0], size[1], depth])[list(axes)]
        start = np.array([corner[0], corner[1], -h])[list(axes)]
        shape = grid(points, np.zeros(points.shape[1]), np.zeros(2), extent, (False, False))
        done.append(replace(shape, uvs=(shape.vertices[:, list(axes)] - start) / extent))
    return join(done)
