"""Scatter figures of gaussians in space: centres, sizes, colours and, for the largest, their ellipsoids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from scipy.spatial import ConvexHull
from torch import Tensor

from ..geometry import quat_to_rotmat
from ..splats import Splats
from ..words import plural
from .frame import Frame, opening_camera
from .style import MAX_POINTS, QUANTITY, color_bar, plain, quantize_colors, titled

ELLIPSOID_SIGMAS = 2.0
"""An ellipsoid is drawn where the gaussian has fallen to exp(-2) = 14 % of its peak."""
OPACITY_BINS = ((0.0, 0.1, 0.10), (0.1, 0.4, 0.35), (0.4, 1.0, 1.0))
"""(from, to, drawn opacity): plotly takes one opacity per trace, and only fully opaque points hide what is behind."""
MARKER_PIXELS = (1.5, 22.0)
HEIGHT = 620


@dataclass(frozen=True)
class Cloud:
    """The gaussians of one `Splats` that a scene draws."""

    splats: Splats
    """Those drawn, on the CPU, without gradients."""
    index: np.ndarray
    """``[M]`` their rows in the whole."""
    values: np.ndarray | None
    """``[M]`` float32, what colours them; None for their own colours."""
    total: int
    """How many gaussians there were."""
    non_finite: int
    """How many of them hold NaN or infinity."""

    @property
    def note(self) -> str:
        """What of all gaussians is shown, and what was left out."""
        shown = len(self.index)
        text = plural(self.total, "gaussian")
        if shown < self.total - self.non_finite:
            text = f"{shown:,} of {text} shown, the largest by opacity × area"
        return text + (f", {self.non_finite:,} not finite left out" if self.non_finite else "")


def splat_figure(
    splats: Splats,
    *,
    color: Tensor | None = None,
    color_label: str = "value",
    max_points: int = MAX_POINTS,
    ellipsoids: int = 0,
    up_axis: str | None = None,
    title: str | None = None,
) -> go.Figure:
    """Draw the centres of a splat in space, with equal units on the three axes.

    A marker spans one standard deviation either way at the opening view. Points are drawn in three groups of
    opacity, which the legend switches. The axes leave out lone points far from the rest; the subtitle counts them,
    and everything else that is not drawn.

    Args:
        splats: what to draw; may be empty or hold non-finite rows.
        color: a quantity ``[N]`` to colour by; None takes the base colours of the gaussians.
        color_label: what it is, with its unit.
        max_points: the most centres drawn; the largest by opacity × area are chosen. ``1..50_000``.
        ellipsoids: how many of the largest to draw as 2-sigma ellipsoids, ``>= 0``.
        up_axis: overrides ``splats.up_axis`` for the opening camera.
        title: defaults to ``splats.source``.

    Raises:
        ValueError: for a ``color`` of another shape, or a count out of range.
    """
    if ellipsoids < 0:
        raise ValueError(f"ellipsoids must be >= 0, got {ellipsoids}")
    up_axis = up_axis or splats.up_axis
    cloud = choose(splats, max_points, color)
    frame = Frame.around([cloud.splats.means.numpy()])
    axis, colors = _color_axis(cloud, color_label)
    figure = go.Figure(_traces(cloud, colors, frame, color_label))
    if ellipsoids and len(cloud.index):
        figure.add_trace(_ellipsoid_trace(cloud, colors, frame, ellipsoids, up_axis))
    if len(cloud.index) == 0:
        figure.add_annotation(text="nothing to show", x=0.5, y=0.5, xref="paper", yref="paper")
    parts = [cloud.note]
    if outside := int((~frame.contains(cloud.splats.means.numpy())).sum()):
        parts.append(f"{outside:,} far outside the frame")
    parts.append("up unknown, drawn as +y" if up_axis == "unknown" else f"up {up_axis.replace('-', '−')}")
    return titled(
        figure,
        title or splats.source or "Splats",
        " · ".join(parts),
        height=HEIGHT,
        coloraxis=axis,
        scene=frame.layout() | {"camera": opening_camera(up_axis)},
        legend={"title": {"text": "opacity"}, "x": 0, "y": 1, "xanchor": "left", "yanchor": "top"},
    )


def choose(splats: Splats, max_points: int, color: Tensor | None = None) -> Cloud:
    """The finite gaussians with the largest opacity × area, at most ``max_points``, in the order in which they came.

    Raises:
        ValueError: for a ``color`` of another shape than ``[N]``, or ``max_points`` out of ``1..50_000``.
    """
    if not 1 <= max_points <= MAX_POINTS:
        raise ValueError(f"max_points must lie in 1..{MAX_POINTS:,}, got {max_points:,}")
    if color is not None and tuple(color.shape) != (len(splats),):
        raise ValueError(f"color must have shape [{len(splats)}], one value per gaussian, got {list(color.shape)}")
    total, splats = len(splats), splats.detach().to("cpu")
    keep = splats.finite_mask()
    if color is not None:
        color = color.detach().float().cpu()
        keep = keep & color.isfinite()
    index = keep.nonzero()[:, 0]
    if len(index) > max_points:
        weight = (splats.opacities * splats.area())[index]
        index = index[weight.topk(max_points, sorted=False).indices].sort().values
    values = None if color is None else color[index].numpy()
    return Cloud(splats[index], index.numpy(), values, total, total - int(keep.sum()))


def _color_axis(cloud: Cloud, label: str) -> tuple[dict[str, Any], np.ndarray]:
    """``layout.coloraxis``, and the number ``[M]`` of each point on it: a row of a palette (uint8), or its value."""
    if cloud.values is None:
        palette = quantize_colors(cloud.splats.colors.numpy())
        return {"colorscale": palette.colorscale, "cmin": 0, "cmax": 255, "showscale": False}, palette.rows
    low, high = np.quantile(cloud.values, [0.01, 0.99]) if len(cloud.values) else (0.0, 1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    bar = color_bar(label)
    return {"colorscale": QUANTITY, "cmin": float(low), "cmax": float(high), "colorbar": bar}, cloud.values


def _traces(cloud: Cloud, colors: np.ndarray, frame: Frame, label: str) -> list[Any]:
    """Scatter traces, one per opacity bin (empty bins left out)."""
    splats, means = cloud.splats, cloud.splats.means.numpy()
    opacities = splats.opacities.numpy()
    sizes = 2 * np.sqrt(splats.area().numpy()) * frame.pixels_per_unit(HEIGHT) if len(means) else opacities
    sizes = np.clip(sizes, *MARKER_PIXELS).astype(np.float32)
    largest = splats.scales.numpy().max(axis=1, initial=0)
    number = np.float32 if cloud.total <= 2**24 else np.float64  # float32 holds indices exactly up to 2^24
    details = np.stack([cloud.index, opacities, largest], axis=1).astype(number)  # [M, 3]
    hover = "gaussian %{customdata[0]:,d}<br>centre %{x:.3~g}, %{y:.3~g}, %{z:.3~g}"
    hover += "<br>opacity %{customdata[1]:.3f}<br>largest scale %{customdata[2]:.3~g}"
    if cloud.values is not None:
        hover += f"<br>{plain(label)} %{{marker.color:.4~g}}"
    inside = frame.contains(means)
    traces = []
    for low, high, drawn in OPACITY_BINS:
        rows = np.flatnonzero(inside & (opacities >= low) & ((opacities < high) | (high == 1)))
        if len(rows) == 0:
            continue
        x, y, z = np.ascontiguousarray(means[rows].T)
        marker = {"size": sizes[rows], "color": colors[rows], "coloraxis": "coloraxis", "opacity": drawn}
        traces.append(
            go.Scatter3d(x=x, y=y, z=z, mode="markers", name=f"{low:g} – {high:g}: {len(rows):,}",
                         marker=marker | {"line": {"width": 0}}, customdata=details[rows],
                         hovertemplate=hover + "<extra></extra>")
        )  # fmt: skip
    return traces


def _ellipsoid_trace(cloud: Cloud, colors: np.ndarray, frame: Frame, count: int, up_axis: str) -> go.Mesh3d:
    """The ``count`` largest gaussians by opacity × area inside the frame, lit from above the camera."""
    splats = cloud.splats
    inside = frame.contains(splats.means.numpy())
    rows = np.flatnonzero(inside)
    weight = (splats.opacities * splats.area()).numpy()[rows]
    rows = rows[np.argsort(-weight, kind="stable")[:count]]
    splats, colors = splats[torch.from_numpy(rows)], colors[rows]
    points, faces = icosphere()
    axes = quat_to_rotmat(splats.quats) * (ELLIPSOID_SIGMAS * splats.scales)[:, None, :]  # [E, 3, 3]
    vertices = torch.from_numpy(points) @ axes.transpose(1, 2) + splats.means[:, None]  # [E, V, 3]
    corners = (faces[None] + len(points) * np.arange(len(splats))[:, None, None]).reshape(-1, 3).astype(np.int32)
    camera = opening_camera(up_axis)
    light = {name: 3e4 * (camera["eye"][name] + camera["up"][name]) for name in "xyz"}
    x, y, z = np.ascontiguousarray(vertices.reshape(-1, 3).numpy().T)
    i, j, k = np.ascontiguousarray(corners.T)
    return go.Mesh3d(
        x=x, y=y, z=z, i=i, j=j, k=k,
        intensity=np.repeat(colors, len(points)), coloraxis="coloraxis", hoverinfo="skip",
        name=f"{plural(len(splats), 'ellipsoid')}, {ELLIPSOID_SIGMAS:g}σ", showlegend=True,
        lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.08, "roughness": 0.9, "fresnel": 0.0},
        lightposition=light,
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
