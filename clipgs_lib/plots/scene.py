"""Scatter figures of gaussians in space: centres, sizes, colours and, for the largest, their ellipsoids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from ..geometry import quat_to_rotmat
from ..splats import Splats
from .frame import Frame, opening_camera
from .style import CATEGORIES, COLORBAR, QUANTITY, TEMPLATE, plural, quantize_colors

MAX_POINTS = 50_000
"""Above this a browser's plotly scene stops turning smoothly."""
ELLIPSOID_SIGMAS = 2.0
"""An ellipsoid is drawn where the gaussian has fallen to exp(-2) = 14 % of its peak."""
OPACITY_BINS = ((0.0, 0.1, 0.10), (0.1, 0.4, 0.35), (0.4, 1.0, 1.0))
"""(from, to, drawn opacity): plotly takes one opacity per trace, and only fully opaque points hide what is behind."""
MARKER_PIXELS = (1.5, 22.0)
HEIGHT = 620
COMPARE_HEIGHT = 720
TABLE_SHARE = 0.25
"""Of the plot area of `compare_figure`; seven rows fit."""
FIELDS = {"color": "", "opacity": "opacity", "scale": "log10 largest scale", "depth": "depth, scene units"}


@dataclass(frozen=True)
class Cloud:
    """The gaussians of one `Splats` that a scene draws."""

    splats: Splats
    """Those drawn, on the CPU, without gradients."""
    index: np.ndarray
    """``[M]`` their rows in the whole."""
    values: np.ndarray | None
    """``[M]`` what colours them; None for their own colours."""
    label: str
    """What the values are, for colour bar and hover."""
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
    color: str | Tensor = "color",
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
        color: ``"color"`` (its own base colours), ``"opacity"``, ``"scale"``, ``"depth"`` (from the opening
            camera), or a tensor ``[N]``: floats as a quantity, integers and bools as categories.
        color_label: what the tensor holds, with its unit.
        max_points: the most centres drawn; the largest by opacity × area are chosen. ``1..50_000``.
        ellipsoids: how many of the largest to draw as 2-sigma ellipsoids, ``>= 0``.
        up_axis: overrides ``splats.up_axis`` for the opening camera.
        title: defaults to ``splats.source``.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        ValueError: for an unknown ``color``, a tensor of another shape, or a count out of range.
    """
    if ellipsoids < 0:
        raise ValueError(f"ellipsoids must be >= 0, got {ellipsoids}")
    up_axis = up_axis or splats.up_axis
    cloud = choose(splats, color, color_label, max_points, up_axis)
    frame = Frame.around([cloud.splats.means.numpy()])
    axis, colors = color_axis([cloud])
    figure = go.Figure(
        data=_traces(cloud, colors[0], frame, HEIGHT),
        layout={
            "template": TEMPLATE,
            "height": HEIGHT,
            "title": {
                "text": escape(title or splats.source or "Splats", quote=False),
                "subtitle": {"text": _subtitle([cloud], frame, up_axis)},
            },
            "coloraxis": axis,
            "scene": frame.layout() | {"camera": opening_camera(up_axis)},
            "legend": {"title": {"text": "opacity"}, "x": 0, "y": 1, "xanchor": "left", "yanchor": "top"},
        },
    )
    if ellipsoids and len(cloud.index):
        figure.add_trace(_ellipsoid_trace(cloud, colors[0], frame, ellipsoids, up_axis))
    if len(cloud.index) == 0:
        figure.add_annotation(text="nothing to show", x=0.5, y=0.5, xref="paper", yref="paper")
    return figure


def compare_figure(
    a: Splats,
    b: Splats,
    *,
    names: tuple[str, str] | None = None,
    color: str = "color",
    max_points: int = MAX_POINTS,
    up_axis: str | None = None,
) -> go.Figure:
    """Draw two splats side by side in one frame, over a table of what differs.

    Both scenes have the same axes, the same opening camera and one colour scale. Turning one does not turn the
    other: plotly scenes cannot be linked without a script of one's own (`clipgs_lib.widgets.SplatView` links them).

    Args:
        a: drawn on the left.
        b: drawn on the right.
        names: of the two; default to their sources.
        color: as in `splat_figure`, without tensors.
        max_points: the most centres drawn in both together.
        up_axis: overrides theirs (the first that is known) for the opening cameras.

    Returns:
        A `plotly.graph_objects.Figure` with scenes ``scene`` and ``scene2`` and a table.

    Raises:
        ValueError: as in `splat_figure`.
    """
    names = names or (a.source or "first", b.source or "second")
    up_axis = up_axis or (a.up_axis if a.up_axis != "unknown" else b.up_axis)
    clouds = [choose(part, color, "value", max(1, max_points // 2), up_axis) for part in (a, b)]
    frame = Frame.around([cloud.splats.means.numpy() for cloud in clouds])
    axis, colors = color_axis(clouds)
    figure = go.Figure(layout={"template": TEMPLATE, "height": COMPARE_HEIGHT, "coloraxis": axis, "showlegend": False})
    pixels = (1 - TABLE_SHARE) * 0.75 * COMPARE_HEIGHT  # a scene is narrower than tall, which shrinks what it shows
    for side, cloud in enumerate(clouds):
        scene = "scene" if side == 0 else "scene2"
        left, right = (0.0, 0.49) if side == 0 else (0.51, 1.0)
        figure.add_traces([trace.update(scene=scene) for trace in _traces(cloud, colors[side], frame, pixels)])
        figure.update_layout({scene: frame.layout() | {
            "camera": opening_camera(up_axis),
            "domain": {"x": [left, right], "y": [TABLE_SHARE + 0.02, 0.95]},
        }})  # fmt: skip
        figure.add_annotation(
            text=f"<b>{escape(names[side], quote=False)}</b>",
            x=(left + right) / 2,
            y=1,
            xref="paper",
            yref="paper",
            yanchor="top",
        )
    figure.add_trace(_table([a, b], names))
    figure.update_layout(
        title={
            "text": escape(f"{names[0]} beside {names[1]}", quote=False),
            "subtitle": {"text": _subtitle(clouds, frame, up_axis)},
        }
    )
    return figure


def choose(splats: Splats, color: str | Tensor, label: str, max_points: int, up_axis: str) -> Cloud:
    """The finite gaussians with the largest opacity × area, at most ``max_points``, in their own order.

    Raises:
        ValueError: for an unknown ``color``, a tensor of another shape, or ``max_points`` out of ``1..50_000``.
    """
    if not 1 <= max_points <= MAX_POINTS:
        raise ValueError(f"max_points must lie in 1..{MAX_POINTS:,}, got {max_points:,}")
    if isinstance(color, str) and color not in FIELDS:
        raise ValueError(f"color must be one of {', '.join(FIELDS)} or a tensor [N], got {color!r}")
    if isinstance(color, Tensor) and tuple(color.shape) != (len(splats),):
        raise ValueError(f"color must have shape [{len(splats)}], one value per gaussian, got {list(color.shape)}")
    total, splats = len(splats), splats.detach().to("cpu")
    keep = splats.finite_mask()
    if isinstance(color, Tensor):
        color = color.detach().cpu()
        keep = keep & color.isfinite()
    index = keep.nonzero()[:, 0]
    if len(index) > max_points:
        weight = (splats.opacities * splats.area())[index]
        index = index[weight.topk(max_points, sorted=False).indices].sort().values
    chosen = splats[index]
    values = color[index].numpy() if isinstance(color, Tensor) else _field(chosen, color, up_axis)
    label = label if isinstance(color, Tensor) else FIELDS[color]
    return Cloud(chosen, index.numpy(), values, label, total, total - int(keep.sum()))


def _field(splats: Splats, name: str, up_axis: str) -> np.ndarray | None:
    if name == "opacity":
        return splats.opacities.numpy()
    if name == "scale":
        largest = splats.scales.amax(dim=1) if len(splats) else splats.opacities
        return largest.clamp_min(1e-12).log10().numpy()
    if name == "depth":
        eye = opening_camera(up_axis)["eye"]
        forward = -np.array([eye["x"], eye["y"], eye["z"]], np.float32)
        along = splats.means.numpy() @ (forward / np.linalg.norm(forward))
        return along - along.min(initial=np.inf) if len(along) else along
    return None


def color_axis(clouds: Sequence[Cloud]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """One plotly colour axis for several clouds, and the number that each point has on it.

    Returns:
        ``(layout.coloraxis, numbers)`` with one ``[M]`` array per cloud: uint8 palette rows for true colours and
        categories, float32 for quantities.
    """
    values = [cloud.values for cloud in clouds if cloud.values is not None]
    splits = np.cumsum([len(cloud.index) for cloud in clouds])[:-1]
    if values and np.issubdtype(values[0].dtype, np.floating):
        together = np.concatenate(values).astype(np.float32)
        low, high = np.quantile(together, [0.01, 0.99]) if len(together) else (0.0, 1.0)
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
        bar = COLORBAR | {"title": COLORBAR["title"] | {"text": escape(clouds[0].label, quote=False)}}
        axis = {"colorscale": QUANTITY, "cmin": float(low), "cmax": float(high), "colorbar": bar}
        return axis, np.split(together, splits)
    if values:
        table = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in CATEGORIES]) / 255
        colors = table[np.concatenate(values).astype(np.int64) % len(CATEGORIES)]
    else:
        colors = torch.cat([cloud.splats.colors for cloud in clouds]).numpy()
    palette = quantize_colors(colors)
    axis = {"colorscale": palette.colorscale, "cmin": 0, "cmax": 255, "showscale": False}
    return axis, np.split(palette.rows, splits)


def _traces(cloud: Cloud, colors: np.ndarray, frame: Frame, pixels: float) -> list[Any]:
    """Scatter traces, one per opacity bin (empty bins left out)."""
    splats, means = cloud.splats, cloud.splats.means.numpy()
    opacities = splats.opacities.numpy()
    sizes = 2 * np.sqrt(splats.area().numpy()) * frame.pixels_per_unit(pixels) if len(means) else opacities
    sizes = np.clip(sizes, *MARKER_PIXELS).astype(np.float32)
    largest = splats.scales.numpy().max(axis=1, initial=0)
    number = np.float32 if cloud.total <= 2**24 else np.float64  # float32 holds indices exactly up to 2^24
    quantity = np.issubdtype(colors.dtype, np.floating)  # then the marker's own number is the value
    columns = [cloud.index, opacities, largest] + ([] if quantity or cloud.values is None else [cloud.values])
    details = np.stack(columns, axis=1).astype(number)  # [M, 3], with a category [M, 4]
    hover = "gaussian %{customdata[0]:,d}<br>centre %{x:.3~g}, %{y:.3~g}, %{z:.3~g}"
    hover += "<br>opacity %{customdata[1]:.3f}<br>largest scale %{customdata[2]:.3~g}"
    if cloud.values is not None and cloud.label != "opacity":
        hover += f"<br>{escape(cloud.label, quote=False)} %{{{'marker.color' if quantity else 'customdata[3]'}:.4~g}}"
    inside = frame.contains(means)
    traces = []
    for low, high, drawn in OPACITY_BINS:
        rows = np.flatnonzero(inside & (opacities >= low) & ((opacities < high) | (high == 1)))
        if len(rows) == 0:
            continue
        x, y, z = np.ascontiguousarray(means[rows].T)
        marker: dict[str, Any] = {
            "size": sizes[rows],
            "color": colors[rows],
            "coloraxis": "coloraxis",
            "opacity": drawn,
        }
        name = f"{low:g} – {high:g}: {len(rows):,}"
        traces.append(
            go.Scatter3d(x=x, y=y, z=z, mode="markers", name=name, customdata=details[rows],
                         marker=marker | {"line": {"width": 0}}, hovertemplate=hover + "<extra></extra>")
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
    points, faces = icosphere(1)
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


def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere of triangles: ``(points [V, 3] float32, faces [F, 3])``, F = 20 * 4^subdivisions, outward."""
    golden = (1 + 5**0.5) / 2
    ring = [(0, s, t * golden) for s in (-1, 1) for t in (-1, 1)]
    points = np.array([np.roll(p, turn) for turn in range(3) for p in ring], np.float64)  # [12, 3]
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = np.abs(gaps - 2) < 1e-9  # the edges of this icosahedron have length 2
    faces = np.array([
        (a, b, c) for a in range(12) for b in range(a + 1, 12) for c in range(b + 1, 12)
        if near[a, b] and near[b, c] and near[a, c]
    ])  # fmt: skip
    for _ in range(subdivisions):
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        distinct, inverse = np.unique(edges, axis=0, return_inverse=True)
        middle = (len(points) + inverse.reshape(3, -1)).T  # [F, 3]: new points on edges 01, 12, 20
        points = np.concatenate([points, points[distinct].mean(axis=1)])
        (a, b, c), (ab, bc, ca) = faces.T, middle.T
        quads = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = np.concatenate([np.stack(corner, axis=1) for corner in quads])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    first, second, third = (points[faces[:, corner]] for corner in range(3))
    inward = np.einsum("fi,fi->f", np.cross(second - first, third - first), first) < 0
    faces[inward] = faces[inward][:, [0, 2, 1]]
    return points.astype(np.float32), faces


def _subtitle(clouds: Sequence[Cloud], frame: Frame, up_axis: str) -> str:
    notes = list(dict.fromkeys(cloud.note for cloud in clouds))
    parts = [notes[0] + (" each" if len(clouds) > len(notes) else "")] if len(notes) == 1 else [" | ".join(notes)]
    outside = sum(int((~frame.contains(cloud.splats.means.numpy())).sum()) for cloud in clouds)
    if outside:
        parts.append(f"{outside:,} far outside the frame")
    parts.append("up unknown, drawn as +y" if up_axis == "unknown" else f"up {up_axis.replace('-', '−')}")
    return " · ".join(parts)


def _table(pair: Sequence[Splats], names: Sequence[str]) -> go.Table:
    rows = ["gaussians", "SH degree", "extent", "opacity, median", "largest scale, median", "up"]
    cells = [rows, *([*map(str, _facts(part))] for part in pair)]
    return go.Table(
        domain={"x": [0, 1], "y": [0, TABLE_SHARE]},
        columnwidth=[1, 1.6, 1.6],
        header={
            "values": ["", *(f"<b>{escape(name, quote=False)}</b>" for name in names)],
            "fill": {"color": "rgba(128,134,145,0.16)"}, "line": {"width": 0}, "align": "left", "height": 22,
            "font": {"size": 11},
        },
        cells={"values": cells, "fill": {"color": "rgba(0,0,0,0)"}, "line": {"width": 0}, "align": "left", "height": 21,
               "font": {"size": 11}},
    )  # fmt: skip


def _facts(splats: Splats) -> list[str]:
    splats = splats.detach().to("cpu")
    good = splats[splats.finite_mask()]
    if len(good) == 0:
        return [f"{len(splats):,}", str(splats.sh_degree), "–", "–", "–", splats.up_axis]
    low, high = good.bounds()
    extent = " × ".join(f"{float(v):.3g}" for v in high - low)
    scale = float(good.scales.amax(dim=1).median())
    return [f"{len(splats):,}", str(splats.sh_degree), extent, f"{float(good.opacities.median()):.3f}",
            f"{scale:.3g}", splats.up_axis]  # fmt: skip
