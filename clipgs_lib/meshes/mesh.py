"""The `Mesh` container, textured triangles in numpy, between import, catalogue, views, fitting; and fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..splats import UP_AXES
from ..words import facts_table


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles that share one material.

    The colour of a surface point is ``base_color``, times the texture at its UV when there is one, times its
    interpolated vertex colour when there are any (as in glTF 2.0, section 3.9.2).
    """

    vertices: np.ndarray  # [V, 3] float32
    faces: np.ndarray  # [F, 3] int32 into vertices
    base_color: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 1.0)  # RGBA in [0, 1], as displayed (sRGB)
    uvs: np.ndarray | None = None  # [V, 2] float32, v up; may leave [0, 1], which repeats the texture
    texture: np.ndarray | None = None  # [H, W, 3] uint8, sRGB, first row on top
    colors: np.ndarray | None = None  # [V, 3] float32 in [0, 1], sRGB
    name: str = ""  # what the part is ("handle"), for people and captions

    def __post_init__(self) -> None:
        _check("vertices", self.vertices, np.float32, (-1, 3))
        _check("faces", self.faces, np.int32, (-1, 3))
        count = len(self.vertices)
        if self.uvs is not None:
            _check("uvs", self.uvs, np.float32, (count, 2))
        if self.colors is not None:
            _check("colors", self.colors, np.float32, (count, 3))
        if self.texture is not None:
            _check("texture", self.texture, np.uint8, (-1, -1, 3))
            if self.uvs is None:
                raise ValueError("a texture needs uvs of shape [V, 2], got none; drop the texture or add them")
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < count:
            raise ValueError(f"faces must index the {count} vertices, got {self.faces.min()}..{self.faces.max()}")

    def lookup(self, faces: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        """Colours ``[n, 3]`` float32 in ``[0, 1]`` of surface points; textures are read bilinearly and repeat.

        Args:
            faces: ``[n]`` index of the triangle.
            barycentric: ``[n, 3]`` weights of its corners, summing to 1.
        """
        corners = self.faces[faces]  # [n, 3]
        out = np.broadcast_to(np.asarray(self.base_color[:3], np.float32), (len(faces), 3)).copy()
        if self.colors is not None:
            out *= np.einsum("nk,nkc->nc", barycentric, self.colors[corners])
        if self.texture is not None and self.uvs is not None:
            out *= _bilinear(self.texture, np.einsum("nk,nkc->nc", barycentric, self.uvs[corners]))
        return np.clip(out, 0, 1).astype(np.float32)


class SurfaceSamples(NamedTuple):
    """Points on a mesh."""

    points: np.ndarray  # [n, 3] float32
    normals: np.ndarray  # [n, 3] float32, unit, of the triangle
    colors: np.ndarray  # [n, 3] float32 in [0, 1]
    part: np.ndarray  # [n] int32, index of the part
    area: float  # of the whole surface, square scene units


@dataclass(frozen=True, eq=False, repr=False)
class Mesh:
    """A textured object made of parts, in one frame.

    Args:
        parts: at least one part with at least one triangle.
        up_axis: one of ``splats.UP_AXES``.
        source: where it came from, for people.

    Raises:
        ValueError: when there is no triangle, a vertex is not finite, or ``up_axis`` is another word.
    """

    parts: tuple[Part, ...]
    up_axis: str = "unknown"
    source: str = ""

    def __post_init__(self) -> None:
        if sum(len(part.faces) for part in self.parts) == 0:
            raise ValueError("a mesh needs at least one triangle, got none; is this a point cloud or an empty scene?")
        if self.up_axis not in UP_AXES:
            raise ValueError(f"up_axis must be one of {', '.join(UP_AXES)}, got {self.up_axis!r}")
        bad = sum(int((~np.isfinite(part.vertices)).any(axis=1).sum()) for part in self.parts)
        if bad:
            raise ValueError(f"vertices must be finite, got {bad} with NaN or infinity")

    @property
    def n_faces(self) -> int:
        """Triangles in all parts."""
        return sum(len(part.faces) for part in self.parts)

    def facts(self) -> dict[str, str]:
        """What a person asks first, name -> text: how many triangles, how large, which way is up."""
        low, high = self.bounds()
        return {
            "triangles": f"{self.n_faces:,}",
            "parts": str(len(self.parts)),
            "textured": str(sum(part.texture is not None for part in self.parts)),
            "size": " x ".join(f"{v:.3g}" for v in high - low),
            "up axis": self.up_axis,
        }

    def __repr__(self) -> str:
        n_faces, parts, textured, size, up = self.facts().values()
        head = f"Mesh({n_faces} triangles in {parts} parts, {textured} textured"
        return f"{head}, {size}, up {up}, from {self.source!r})"

    def _repr_html_(self) -> str:
        return facts_table(self.source or "Mesh", self.facts())

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Low and high corner ``[3]`` of the vertices that triangles use."""
        used = self._used()
        return used.min(axis=0), used.max(axis=0)

    def sphere(self) -> tuple[np.ndarray, float]:
        """Middle of the bounding box ``[3]``, and the distance of the farthest vertex from it."""
        used = self._used()
        center = (used.min(axis=0) + used.max(axis=0)) / 2
        return center, float(np.linalg.norm(used - center, axis=1).max())

    def _used(self) -> np.ndarray:
        """Vertices ``[n, 3]`` that triangles use."""
        return np.concatenate([part.vertices[np.unique(part.faces)] for part in self.parts if len(part.faces)])

    def normalize(self) -> Mesh:
        """Centre the bounding box at the origin and scale the farthest vertex onto the unit sphere."""
        center, radius = self.sphere()
        if radius < 1e-12:
            raise ValueError("normalize needs a mesh with some extent, got all vertices in one place")
        parts = (replace(part, vertices=(part.vertices - center) / np.float32(radius)) for part in self.parts)
        return replace(self, parts=tuple(parts))

    def sample(self, n: int, rng: np.random.Generator) -> SurfaceSamples:
        """``n`` area-weighted random points with normals and colours.

        Raises:
            ValueError: when ``n < 1`` or the surface has no area.
        """
        corners = [part.vertices[part.faces].astype(np.float64) for part in self.parts]  # [F, 3, 3] each
        crosses = [np.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]) for c in corners]
        areas = np.concatenate([0.5 * np.linalg.norm(c, axis=1) for c in crosses])
        total = float(areas.sum())
        if n < 1 or not total > 0:
            raise ValueError(f"sample needs n >= 1 and a surface with area, got n={n} and area {total:.3g}")
        pick = np.searchsorted(np.cumsum(areas), rng.random(n) * total, side="right").clip(max=len(areas) - 1)
        r = np.sqrt(rng.random(n))
        s = rng.random(n)
        barycentric = np.stack([1 - r, r * (1 - s), r * s], axis=1)
        starts = np.cumsum([0, *(len(c) for c in corners)])
        owner = np.searchsorted(starts, pick, side="right") - 1
        points, normals, colors = (np.empty((n, 3), np.float32) for _ in range(3))
        for index in np.unique(owner):
            rows = np.flatnonzero(owner == index)
            face = pick[rows] - starts[index]
            points[rows] = np.einsum("nk,nkc->nc", barycentric[rows], corners[index][face])
            normal = crosses[index][face]
            normals[rows] = normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-30)
            colors[rows] = self.parts[index].lookup(face, barycentric[rows])
        return SurfaceSamples(points, normals, colors, owner.astype(np.int32), total)


def _bilinear(texture: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Repeating bilinear lookup: ``uvs [n, 2]`` with v up -> ``[n, 3]`` in ``[0, 1]``."""
    height, width = texture.shape[:2]
    x = (uvs[:, 0] % 1.0) * width - 0.5
    y = ((1.0 - uvs[:, 1]) % 1.0) * height - 0.5
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    x0, y0 = x0 % width, y0 % height
    top = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    bottom = texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx
    return (top * (1 - fy) + bottom * fy) / 255.0


def _check(name: str, value: np.ndarray, dtype: type, shape: Sequence[int]) -> None:
    fits = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == len(shape)
    if not fits or any(side not in (-1, have) for side, have in zip(shape, value.shape, strict=True)):
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} must be a {np.dtype(dtype)} array of shape {list(shape)} (-1: any), got {got}")


# ---- fewer triangles by quadric edge collapse, with UVs and colours carried along -----------------------------------


def decimate(parts: Sequence[Part], most: int) -> list[Part]:
    """Parts with at most about ``most >= 1`` triangles in all, each losing the same share; small ones stay whole."""
    total = sum(len(part.faces) for part in parts)
    small = [len(part.faces) <= 64 for part in parts]
    fixed = sum(len(part.faces) for part, keep in zip(parts, small, strict=True) if keep)
    share = max(most - fixed, 1) / max(total - fixed, 1)
    if share >= 1:
        return list(parts)
    return [part if keep else _fewer(part, share) for part, keep in zip(parts, small, strict=True)]


def _fewer(part: Part, share: float) -> Part:
    """A part with that share of its triangles; each new vertex takes the looks of the old one nearest to it."""
    import fast_simplification

    part = welded(part)
    target = max(int(len(part.faces) * share), 4)
    if target >= len(part.faces):
        return part
    vertices, faces, collapses = fast_simplification.simplify(
        part.vertices, part.faces, target_count=target, return_collapses=True
    )
    looks: dict[str, Any] = {}
    if part.uvs is not None or part.colors is not None:
        vertices, faces, new_of_old = fast_simplification.replay_simplification(part.vertices, part.faces, collapses)
        looks = _looks(part, _representatives(part.vertices, vertices, np.asarray(new_of_old)))
    if not len(faces):
        return part
    vertices, faces = np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)
    return replace(part, vertices=vertices, faces=faces, **looks)


def _looks(part: Part, rows: np.ndarray) -> dict[str, Any]:
    """UVs and colours of some vertices, of those that the part has."""
    return {name: column[rows] for name in ("uvs", "colors") if (column := getattr(part, name)) is not None}


def _representatives(old: np.ndarray, new: np.ndarray, new_of_old: np.ndarray) -> np.ndarray:
    """For each new vertex, the nearest of the old vertices that fell into it ``[new]``."""
    members = np.flatnonzero((new_of_old >= 0) & (new_of_old < len(new)))
    distances = np.linalg.norm(old[members] - new[new_of_old[members]], axis=1)
    order = members[np.lexsort((distances, new_of_old[members]))]
    owners, first = np.unique(new_of_old[order], return_index=True)
    kept = np.zeros(len(new), np.int64)
    kept[owners] = order[first]
    return kept


def welded(part: Part) -> Part:
    """Vertices equal in place and looks made one, as edges collapse only where triangles share vertices."""
    columns = [column for column in (part.vertices, part.uvs, part.colors) if column is not None]
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1) + np.float32(0))  # -0 becomes 0
    first, inverse = _distinct(rows)
    faces = inverse[part.faces].astype(np.int32)
    sound = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = np.ascontiguousarray(faces[sound] if sound.any() else faces)
    return replace(part, vertices=part.vertices[first], faces=faces, **_looks(part, first))


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the first of each distinct row of ``[N, k]`` float32, and for every row which one it is."""
    # Rows are told apart by 64 bit hashes, as sorting whole rows is slow; one comparison then makes sure of it.
    words = rows.view(np.uint32).astype(np.uint64)
    hashes = np.zeros(len(rows), np.uint64)
    for column in words.T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first[inverse]].view(np.uint32), rows.view(np.uint32)):
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, inverse
