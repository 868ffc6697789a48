"""From an object's parameters to its mesh."""

from typing import Any, NamedTuple

import numpy as np

from ..colors import COLORS
from ..meshes import Mesh, Part
from .model import CATEGORIES, mix
from .patterns import PATTERNS, texture
from .shapes import Shape, join

TILE = 0.7  # of a pattern's tile, in radii of the object
_FLAT = 1e-9  # squared area of the smallest triangle kept, in radii to the fourth


class Piece(NamedTuple):
    """All surfaces of an object with one name and one paint (of `model.Pieces`)."""

    name: str
    paint: str
    shape: Shape


def build_mesh(params: dict[str, Any], source: str = "") -> Mesh:
    """Build the mesh that parameters stand for.

    Args:
        params: as in `CatalogueObject.params`; nothing else goes in, so equal parameters give equal meshes.
        source: kept in the mesh for people.

    Returns:
        `Mesh` with +y up, its bounding box centred and its farthest vertex on the unit sphere.
    """
    spec = CATEGORIES[params["category"]]
    values = params["shape"] | params["choices"] | ({spec.count.name: params["count"]} if spec.count else {})
    merged: dict[tuple[str, str], list[Shape]] = {}
    for name, paint, shape in spec.build(*(values[axis.name] for axis in spec.axes)):
        merged.setdefault((name, paint), []).append(shape)
    pieces = _normalise([Piece(name, paint, join(shapes)) for (name, paint), shapes in merged.items()])
    heights = np.concatenate([piece.shape.vertices[:, 1] for piece in pieces if piece.paint in ("main", "body")])
    extent = (float(heights.min()), float(heights.max()))
    return Mesh(tuple(_paint(piece, params, extent) for piece in pieces), up_axis="+y", source=source)


def _normalise(pieces: list[Piece]) -> list[Piece]:
    """Centre on the bounding box, scale to the unit sphere, and drop triangles without area."""
    every = np.concatenate([piece.shape.vertices for piece in pieces])
    middle = (every.min(axis=0) + every.max(axis=0)) / 2
    radius = float(np.linalg.norm(every - middle, axis=1).max())
    done = []
    for name, paint, shape in pieces:
        vertices = (shape.vertices - middle) / radius
        a, b, c = (vertices[shape.faces[:, k]] for k in range(3))
        area = np.cross(b - a, c - a)
        faces = shape.faces[(area * area).sum(axis=1) > _FLAT**2]
        done.append(Piece(name, paint, Shape(vertices, faces, shape.uvs, shape.span / radius, shape.closed)))
    return done


def _paint(piece: Piece, params: dict[str, Any], extent: tuple[float, float]) -> Part:
    """Part with the colours and pattern that the piece's paint asks for; a gradient runs over ``extent`` in height."""
    shape, pattern = piece.shape, PATTERNS[params["pattern"]]
    vertices, faces = shape.vertices.astype(np.float32), shape.faces.astype(np.int32)
    shade = np.array(params["tint"])
    color = np.clip(np.array(COLORS[params["color"]]) + shade, 0, 1)
    patterned = piece.paint == "main" or (piece.paint == "body" and pattern.material)
    if not patterned or params["pattern"] == "plain":
        return Part(vertices, faces, _plain(piece.paint, color, params), name=piece.name)
    second = np.array(COLORS[params["second"]])
    if params["pattern"] == "gradient":
        low, high = extent
        share = np.clip((vertices[:, 1:2] - low) / max(high - low, 1e-6), 0, 1)
        colors = mix(color, second, share).astype(np.float32)
        return Part(vertices, faces, (1.0, 1.0, 1.0, 1.0), colors=colors, name=piece.name)
    picture = texture(params["pattern"], color, second)
    return Part(
        vertices, faces, (1.0, 1.0, 1.0, 1.0), _tiled(shape, pattern.fit, params["tile"]), picture, name=piece.name
    )


def _plain(paint: str, color: np.ndarray, params: dict[str, Any]) -> tuple[float, float, float, float]:
    if paint == "inside":
        color = mix(color, np.array([1.0, 0.98, 0.95]), 0.55)
    elif paint == "accent":
        color = np.array(COLORS[params["accent"]])
    elif paint not in ("main", "body"):
        color = np.array(COLORS[paint])
    r, g, b = (round(float(c), 4) for c in color)
    return r, g, b, 1.0


def _tiled(shape: Shape, fit: bool, tile: float) -> np.ndarray:
    """UVs that repeat the texture every ``TILE * tile`` radii, whole times around closed surfaces; or once each."""
    if fit:
        return shape.uvs.astype(np.float32)
    times = shape.span / (TILE * tile)
    times = np.where(shape.closed, np.maximum(1.0, np.rint(times)), times)
    return (shape.uvs * times).astype(np.float32)
