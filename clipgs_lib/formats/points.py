"""Coloured point clouds as PLY: what people feed in by mistake, and the input of the point line.

Page: https://paulbourke.net/dataformats/ply/ . Element ``vertex`` with ``x y z``, optional ``red green blue`` (or
``r g b``, or ``diffuse_red`` ...) and ``nx ny nz``; other properties and elements (faces) are ignored. Frame: as the
file has it.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .ply_table import Element, Header, classify, columns, open_rows, read_header
from .raw import FormatError, RawSplats, check_regular_file, warn

NAME = "points"
SUFFIXES: tuple[str, ...] = ()

_COLORS = (["red", "green", "blue"], ["r", "g", "b"], ["diffuse_red", "diffuse_green", "diffuse_blue"])
_FULL_RANGE = {"u1": 255.0, "u2": 65535.0, "i1": 127.0, "i2": 32767.0, "u4": 255.0, "i4": 255.0}


class PointCloud(NamedTuple):
    """N points, float32."""

    points: Tensor  # [N, 3], units and frame of the file
    colors: Tensor | None  # [N, 3] RGB in [0, 1]
    normals: Tensor | None  # [N, 3], as stored


def sniff(path: Path, head: bytes) -> bool:
    """Whether this is a PLY with positions and without anything a gaussian has."""
    return classify(path, head) == NAME


def read(path: Path) -> RawSplats:
    """Refuse, naming `read_points`: a point cloud or mesh holds no gaussians."""
    header = read_header(path)
    face = header.element("face")
    if face is not None and face.count > 0:
        todo = "render views of the mesh and fit gaussians to them, or read its vertices with read_points"
        raise FormatError(path, "the file must hold gaussians", f"a mesh with {face.count:,} faces", todo, "mesh")
    got = f"a point cloud of {header.require('vertex').count:,} points"
    todo = "read it with read_points, or fit gaussians to it"
    raise FormatError(path, "the file must hold gaussians", got, todo, "point_cloud")


def read_points(path: str | os.PathLike[str]) -> PointCloud:
    """Read a coloured point cloud from a PLY file. Points that are not finite are dropped with a `SplatWarning`.

    Integer colours are divided by the full range of their type (32-bit ones by 255); float colours are taken as they
    are, or divided by 255 when some exceed 1.

    Raises:
        FormatError: when it is no PLY, is broken, holds gaussians, or its colours have no meaning.
    """
    path = check_regular_file(path)
    header = read_header(path)
    vertex = header.require("vertex")
    names = set(vertex.names)
    if names & {"scale_0", "rot_0", "f_dc_0", "packed_position"}:
        must, got = "the file must hold a point cloud", "gaussians"
        raise FormatError(path, must, got, "read it with read_splats; its `means` and `colors` are the points")
    if not {"x", "y", "z"} <= names:
        must = "element 'vertex' must have properties x, y, z"
        raise FormatError(path, must, ", ".join(vertex.names)[:200] or "none", "export the file again")
    rows = open_rows(header, vertex)
    points = columns(rows, ["x", "y", "z"])
    colors = read_colors(header, vertex, rows)
    normals = columns(rows, ["nx", "ny", "nz"]) if {"nx", "ny", "nz"} <= names else None
    parts = [None if part is None else torch.from_numpy(part) for part in (points, colors, normals)]
    if not np.isfinite(points).all():
        keep = torch.from_numpy(np.isfinite(points).all(axis=1))
        warn(path, f"dropped {int((~keep).sum()):,} points of {len(points):,} that are not finite")
        parts = [None if part is None else part[keep] for part in parts]
    return PointCloud(*parts)  # type: ignore[arg-type]  # the first is never None


def color_names(vertex: Element) -> list[str] | None:
    """Names of the properties that hold red, green and blue; None when there are none."""
    return next((group for group in _COLORS if set(group) <= set(vertex.names)), None)


def read_colors(header: Header, vertex: Element, rows: np.ndarray) -> np.ndarray | None:
    """RGB ``[N, 3]`` in [0, 1] of rows, or None; FormatError for several types, or values out of range."""
    names = color_names(vertex)
    if names is None:
        return None
    types = {p.name: p.code for p in vertex.properties}
    colors = columns(rows, names)
    full = {_FULL_RANGE.get(types[name]) for name in names}
    if len(full) > 1:
        must, got = "the three colour properties must have one type", ", ".join(types[name] for name in names)
        raise FormatError(header.path, must, got, "export the file again")
    scale = full.pop()
    low, high = (float(colors.min()), float(colors.max())) if colors.size else (0.0, 0.0)
    if scale is None:
        scale = 255.0 if high > 1 else 1.0
    if not (low >= 0 and high <= scale):
        must, got = f"colours must lie in 0..{scale:g}", f"{low:g}..{high:g}"
        raise FormatError(header.path, must, got, "export the colours as uchar")
    colors /= np.float32(scale)
    return colors
