"""Gaussians in space: the box that a scene shows, its camera, centres, sizes, colours and the largest ellipsoids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from scipy.spatial import ConvexHull

from ..geometry import quat_to_rotmat
from ..rendering.cameras import FRONT, axis_vector
from ..splats import UP_AXES, Splats
from ..words import plural
from .shown import Shown, choose
from .style import MAX_POINTS, quantize_colors, scatter3d, titled

ELLIPSOID_SIGMAS = 2.0  # an ellipsoid is drawn where the gaussian has fallen to exp(-2) = 14 % of its peak
OPACITY_BINS = ((0.0, 0.1, 0.10), (0.1, 0.4, 0.35), (0.4, 1.0, 1.0))
"""(from, to, drawn opacity): plotly takes one opacity per trace, and only fully opaque points hide what is behind."""
MARKER_PIXELS = (1.5, 22.0)
HEIGHT = 620
EYE = (0.56, 0.40, 1.56)  # opening camera in scene cubes: to the right, above, in front
VISIBLE_CUBES = 1.39  # height of the view at the scene's centre, in cubes: plotly's 45 degree camera, as far as EYE
REACH = 0.3  # the tails of real objects end within this; lone floaters do not


@dataclass(frozen=True)
class Frame:
    """An axis-aligned box in scene units, drawn with equal units on all axes."""

    low: np.ndarray  # [3]
    high: np.ndarray  # [3], larger than low on every axis

    @classmethod
    def around(cls, clouds: Sequence[np.ndarray]) -> Frame:
        """The box of all centres ``[M, 3]``, without lone points far from the rest.

        An axis reaches beyond its middle 99 % by at most `REACH` of the widest such middle.
        """
        points = np.concatenate(clouds).astype(np.float64)
        if len(points) == 0:
            return cls(-np.ones(3), np.ones(3))
        inner_low, inner_high = np.quantile(points, [0.005, 0.995], axis=0)
        reach = REACH * (inner_high - inner_low).max()
        low, high = np.maximum(points.min(0), inner_low - reach), np.minimum(points.max(0), inner_high + reach)
        size = (high - low).max()
        size = size if size > 0 else max(1e-3 * np.abs(points).max(), 1.0)
        thickness = np.maximum(high - low, 0.1 * size)
        middle = (low + high) / 2
        return cls(middle - 0.52 * thickness, middle + 0.52 * thickness)

    @property
    def size(self) -> float:
        """The longest side."""
        return float((self.high - self.low).max())

    def contains(self, points: np.ndarray) -> np.ndarray:
        """``[M]`` bool of points ``[M, 3]``."""
        return np.all((points >= self.low) & (points <= self.high), axis=1)

    def pixels_per_unit(self, height: float) -> float:
        """Screen pixels of one scene unit at the centre, in a scene ``height`` pixels tall."""
        return height / VISIBLE_CUBES / self.size

    def layout(self) -> dict[str, Any]:
        """Axis ranges and the aspect ratio that makes a unit equally long on each axis."""
        ratio = (self.high - self.low) / self.size
        axes = {
            f"{name}axis": {"range": [float(self.low[k]), float(self.high[k])], "title": {"text": name}}
            for k, name in enumerate("xyz")
        }
        aspect = dict(zip("xyz", map(float, ratio), strict=True))
        return {**axes, "aspectmode": "manual", "aspectratio": aspect}


def opening_camera(up_axis: str) -> dict[str, dict[str, float]]:
    """A plotly camera in front, a little above and to the right, upright for ``up_axis``.

    In front means: from -z when -y is up (COLMAP), from +z when +y is up (glTF), from -y when z is up (Blender).
    Unknown is taken as +y, as in `rendering.turntable_cameras`.

    Raises:
        ValueError: when ``up_axis`` is none of `clipgs_lib.splats.UP_AXES`.
    """
    if up_axis not in UP_AXES:
        raise ValueError(f"up_axis must be one of {', '.join(UP_AXES)}, got {up_axis!r}")
    axis = "+y" if up_axis == "unknown" else up_axis
    up, ahead = (axis_vector(one).numpy() for one in (axis, FRONT[axis]))
    eye = EYE[0] * np.cross(up, ahead) + EYE[1] * up + EYE[2] * ahead
    vectors = {"eye": eye, "up": up, "center": np.zeros(3)}
    return {name: dict(zip("xyz", vector.tolist(), strict=True)) for name, vector in vectors.items()}


def splat_figure(
    splats: Splats,
    *,
    max_points: int = MAX_POINTS,
    ellipsoids: int = 0,
    up_axis: str | None = None,
) -> go.Figure:
    """Draw the centres of a splat in space, with equal units on the three axes.

    A marker spans one standard deviation either way at the opening view. Points are drawn in three groups of
    opacity, which the legend switches. The axes leave out lone points far from the rest; the subtitle counts them,
    and everything else that is not drawn.

    Args:
        splats: what to draw; may be empty or hold non-finite rows.
        max_points: the most centres drawn; the largest by opacity × area are chosen. ``1..50_000``.
        ellipsoids: how many of the largest to draw as 2-sigma ellipsoids, ``>= 0``.
        up_axis: overrides ``splats.up_axis`` for the opening camera.

    Raises:
        ValueError: for a count out of range.
    """
    if ellipsoids < 0:
        raise ValueError(f"ellipsoids must be >= 0, got {ellipsoids}")
    check_points(max_points)
    shown = choose(splats, max_points)
    means = shown.splats.means.numpy()
    frame = Frame.around([means])
    inside = frame.contains(means)
    palette = quantize_colors(shown.splats.colors.numpy())
    # each trace gets the scale for itself: with a common colour axis plotly takes a number for the legend's colour
    scale = {"colorscale": palette.colorscale, "cmin": 0, "cmax": 255, "showscale": False}
    figure = go.Figure(_traces(shown, palette.rows, scale, frame))
    axis = up_axis or splats.up_axis
    if ellipsoids and inside.any():
        figure.add_trace(_ellipsoid_trace(shown.splats, palette.rows, scale, inside, ellipsoids, opening_camera(axis)))
    parts = [shown.note]
    if not inside.all():
        parts.append(f"{int((~inside).sum()):,} far outside the frame")
    parts.append("up unknown, drawn as +y" if axis == "unknown" else f"up {axis.replace('-', '−')}")
    return scene(figure, frame, axis, splats.source or "Splats", " · ".join(parts), "opacity")


def check_points(max_points: int) -> None:
    """Raise ValueError for a number of points that a figure does not draw."""
    if not 1 <= max_points <= MAX_POINTS:
        raise ValueError(f"max_points must lie in 1..{MAX_POINTS:,}, got {max_points:,}")


def scene(figure: go.Figure, frame: Frame, up_axis: str, title: str, note: str, legend: str = "") -> go.Figure:
    """The figure as one scene that opens with the house's camera, or with a word when it is empty."""
    if not figure.data:
        figure.add_annotation(text="nothing to show", x=0.5, y=0.5, xref="paper", yref="paper")
    corner = {"title": {"text": legend}, "x": 0, "y": 1, "xanchor": "left", "yanchor": "top"}
    camera = {"camera": opening_camera(up_axis)}
    return titled(figure, title, note, height=HEIGHT, scene=frame.layout() | camera, legend=corner)


def _traces(shown: Shown, numbers: np.ndarray, scale: dict[str, Any], frame: Frame) -> list[Any]:
    """Scatter traces, one per opacity bin (empty bins left out)."""
    splats, means = shown.splats, shown.splats.means.numpy()
    opacities = splats.opacities.numpy()
    sizes = np.clip(2 * np.sqrt(splats.area().numpy()) * frame.pixels_per_unit(HEIGHT), *MARKER_PIXELS)
    largest = splats.scales.numpy().max(axis=1, initial=0)
    number = np.float32 if shown.total <= 2**24 else np.float64  # float32 holds indices exactly up to 2^24
    details = np.stack([shown.rows.numpy(), opacities, largest], axis=1).astype(number)  # [M, 3]
    hover = "gaussian %{customdata[0]:,d}<br>centre %{x:.3~g}, %{y:.3~g}, %{z:.3~g}"
    hover += "<br>opacity %{customdata[1]:.3f}<br>largest scale %{customdata[2]:.3~g}"
    inside = frame.contains(means)
    traces: list[go.Scatter3d] = []
    for low, high, drawn in OPACITY_BINS:
        rows = np.flatnonzero(inside & (opacities >= low) & ((opacities < high) | (high == 1)))
        if len(rows) == 0:
            continue
        marker = {"size": sizes[rows].astype(np.float32), "color": numbers[rows], "opacity": drawn} | scale
        marker |= {"line": {"width": 0}}
        name = f"{low:g} – {high:g}: {len(rows):,}"
        traces.append(scatter3d(means[rows], name, hover, mode="markers", marker=marker, customdata=details[rows]))
    return traces


def _ellipsoid_trace(
    splats: Splats, numbers: np.ndarray, scale: dict[str, Any], inside: np.ndarray, count: int, camera: dict[str, Any]
) -> go.Mesh3d:
    """The ``count`` largest gaussians by opacity × area inside the frame, lit from above the camera."""
    rows = np.flatnonzero(inside)
    weight = (splats.opacities * splats.area()).numpy()[rows]
    rows = rows[np.argsort(-weight, kind="stable")[:count]]
    splats = splats[torch.from_numpy(rows)]
    points, faces = icosphere()
    axes = quat_to_rotmat(splats.quats) * (ELLIPSOID_SIGMAS * splats.scales)[:, None, :]  # [E, 3, 3]
    vertices = torch.from_numpy(points) @ axes.transpose(1, 2) + splats.means[:, None]  # [E, V, 3]
    corners = (faces[None] + len(points) * np.arange(len(splats))[:, None, None]).reshape(-1, 3).astype(np.int32)
    x, y, z = np.ascontiguousarray(vertices.reshape(-1, 3).numpy().T)
    i, j, k = np.ascontiguousarray(corners.T)
    return go.Mesh3d(
        x=x, y=y, z=z, i=i, j=j, k=k, intensity=np.repeat(numbers[rows], len(points)), hoverinfo="skip",
        **scale,
        name=f"{plural(len(splats), 'ellipsoid')}, {ELLIPSOID_SIGMAS:g}σ", showlegend=True,
        lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.08, "roughness": 0.9, "fresnel": 0.0},
        lightposition={name: 3e4 * (camera["eye"][name] + camera["up"][name]) for name in "xyz"},
    )  # fmt: skip


def icosphere() -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere of triangles, an icosahedron divided once: ``(points [42, 3] float32, faces [80, 3])``, outward."""
    golden = (1 + 5**0.5) / 2
    ring = [(0, s, t * golden) for s in (-1, 1) for t in (-1, 1)]
    points = np.array([np.roll(p, turn) for turn in range(3) for p in ring])  # [12, 3]
    first, second = np.triu(np.linalg.norm(points[:, None] - points, axis=-1) < 2.1, 1).nonzero()  # edges are 2 long
    points = np.concatenate([points, (points[first] + points[second]) / 2])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    faces = ConvexHull(points).simplices
    a, b, c = points[faces].transpose(1, 0, 2)
    inward = np.einsum("fi,fi->f", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, [0, 2, 1]]
    return points.astype(np.float32), faces
