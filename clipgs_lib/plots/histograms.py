"""Histograms of what a splat's columns hold, as small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from ..splats import Splats
from ..words import plural
from .style import BLUE, CATEGORIES, GREEN, RED, panels, place, titled, to_array

BINS = 60
COLUMNS = 3
PANEL_HEIGHT = 225


class Curve(NamedTuple):
    """One quantity of a panel."""

    name: str
    values: np.ndarray
    """``[N]``, may hold infinities (a logarithm of 0), which are left out."""
    color: str


class Panel(NamedTuple):
    """One small plot of one or several quantities on a common axis."""

    title: str
    axis: str
    """Name of the horizontal axis, with its unit."""
    curves: tuple[Curve, ...]
    span: tuple[float, float] | None
    """Fixed horizontal range, or None for the middle 99.8 % of the values."""


def attribute_histograms(splats: Splats, *, title: str | None = None) -> go.Figure:
    """Draw how opacity, size, shape, colour, turn and place are distributed over the gaussians.

    Bins are counted here, so the figure stays a few kilobytes whatever the number of gaussians.

    Args:
        splats: may be empty or hold non-finite rows, which are left out and counted in the subtitle.
        title: defaults to ``splats.source``.

    Returns:
        A figure with six panels, and a seventh for the energy of the SH bands when
        ``splats.sh_degree > 0``.
    """
    splats = splats.detach().to("cpu")
    good = splats[splats.finite_mask()]
    drawn = _panels(good) if len(good) else []
    names = [panel.title for panel in drawn]
    if len(good) and splats.sh_degree > 0:
        names.append("SH energy by band")
    figure = panels(len(names), COLUMNS, names, horizontal_spacing=0.07)
    for number, panel in enumerate(drawn):
        draw(figure, number, panel, COLUMNS)
    if len(names) > len(drawn):
        _draw_bands(figure, len(drawn), good)
    note = plural(len(splats), "gaussian")
    if len(good) < len(splats):
        note += f", {len(splats) - len(good):,} not finite left out"
    if len(good) == 0:
        figure.add_annotation(text="nothing to show", x=0.5, y=0.5, xref="paper", yref="paper")
    rows = max(1, -(-len(names) // COLUMNS))
    return titled(
        figure,
        title or splats.source or "Splats",
        note,
        height=110 + rows * PANEL_HEIGHT,
        margin={"l": 48, "r": 16, "t": 100, "b": 48},
        bargap=0,
    )


def value_histograms(values: Mapping[str, np.ndarray | Tensor], *, columns: int = 3, title: str = "") -> go.Figure:
    """Draw the distribution of any quantities, one panel each.

    Args:
        values: name of the horizontal axis, with its unit -> any number of values; non-finite ones are left out.
            Read row by row: with 6 entries and 3 columns the fourth stands under the first.
        columns: panels in a row, ``>= 1``.
        title: of the figure.

    Raises:
        ValueError: when there is nothing to draw or ``columns`` is not positive.
    """
    if not values or columns < 1:
        raise ValueError(f"values must name at least one quantity and columns be >= 1, got {len(values)} and {columns}")
    figure = panels(len(values), columns, horizontal_spacing=0.07)
    for number, (name, value) in enumerate(values.items()):
        curve = Curve(name, to_array(value, np.float64).ravel(), CATEGORIES[number % columns])
        draw(figure, number, Panel("", name, (curve,), None), columns)
    figure.update_yaxes(title_text="% of values", col=1)
    return titled(
        figure,
        title,
        height=90 + -(-len(values) // columns) * PANEL_HEIGHT,
        margin={"l": 48, "r": 16, "t": 64, "b": 48},
        bargap=0,
    )


def _panels(splats: Splats) -> list[Panel]:
    scales = splats.scales.sort(dim=1, descending=True).values.numpy()  # [N, 3]
    colors = splats.colors.numpy()
    quats = splats.quats.numpy().astype(np.float64)
    lengths = np.linalg.norm(quats, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(scales)
        ratio = logs[:, 0] - logs[:, 2]
        angles = np.degrees(2 * np.arccos(np.clip(np.abs(quats[:, 0]) / lengths, 0, 1)))
    means = splats.means.numpy().astype(np.float64)
    radii = np.linalg.norm(means - np.median(means, axis=0), axis=1)
    first, second, third = CATEGORIES[:3]
    return [
        Panel("Opacity", "opacity", (Curve("opacity", splats.opacities.numpy(), first),), (0, 1)),
        Panel(
            "Scales, sorted",
            "log10 scale, scene units",
            tuple(Curve(name, logs[:, k], color) for k, (name, color) in enumerate(
                [("largest", first), ("middle", second), ("smallest", third)]
            )),
            None,
        ),
        Panel("Anisotropy", "log10 (largest / smallest scale)", (Curve("anisotropy", ratio, first),), None),
        Panel(
            "Base colour",
            "0.5 + 0.282 · sh0  (shown when 0 to 1)",
            tuple(Curve(name, colors[:, k], color) for k, (name, color) in enumerate(
                [("red", RED), ("green", GREEN), ("blue", BLUE)]
            )),
            None,
        ),
        Panel("Turn of the quaternion", "angle, degrees", (Curve("angle", angles, first),), (0, 180)),
        Panel("Distance from the median centre", "radius, scene units", (Curve("radius", radii, first),), None),
    ]  # fmt: skip


def draw(figure: go.Figure, number: int, panel: Panel, columns: int) -> None:
    """Draw one panel of `panels`: bars for one quantity, outlines with direct labels for several."""
    at = place(number, columns)
    finite = [curve.values[np.isfinite(curve.values)] for curve in panel.curves]
    edges = _edges(finite, panel.span)
    middle = (edges[0] + edges[-1]) / 2
    side = "right" if sum(int((v < middle).sum()) for v in finite) * 2 >= sum(map(len, finite)) else "left"  # emptier
    middles = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    for line, (curve, values) in enumerate(zip(panel.curves, finite, strict=True)):
        counts, _ = np.histogram(values, edges)
        common = {
            "x": middles,
            "y": (100 * counts / max(len(curve.values), 1)).astype(np.float32),
            "name": curve.name,
            "hovertemplate": f"{curve.name} %{{x:.3~g}}: %{{y:.2f}} %<extra></extra>",
            "showlegend": False,
        }
        if len(panel.curves) == 1:
            bar = {"color": curve.color, "line": {"width": 0}}
            figure.add_bar(**common, width=float(edges[1] - edges[0]), marker=bar, **at)
            continue
        figure.add_scatter(**common, mode="lines", line={"color": curve.color, "width": 1.8, "shape": "hvh"}, **at)
        figure.add_annotation(
            text=curve.name, font={"color": curve.color, "size": 11}, x=float(side == "right"), y=1 - 0.11 * line,
            xanchor=side, yanchor="top", xref="x domain", yref="y domain", **at,
        )  # fmt: skip
    figure.update_xaxes(title_text=panel.axis, range=[float(edges[0]), float(edges[-1])], **at)
    figure.update_yaxes(title_text="% of gaussians" if at["col"] == 1 else None, rangemode="tozero", **at)


def _draw_bands(figure: go.Figure, number: int, splats: Splats) -> None:
    at = place(number, COLUMNS)
    bands = np.arange(splats.sh_degree + 1)
    sh = splats.sh.numpy().astype(np.float64)
    energy = [float((sh[:, band**2 : (band + 1) ** 2] ** 2).sum(axis=(1, 2)).mean()) for band in bands]
    figure.add_bar(
        x=[str(band) for band in bands], y=energy, marker={"color": CATEGORIES[0]}, width=0.6, showlegend=False,
        text=[f"{value:.3g}" for value in energy], textposition="outside", cliponaxis=False,
        hovertemplate="band %{x}: %{y:.3~g}<extra></extra>", **at,
    )  # fmt: skip
    figure.update_xaxes(title_text="SH band", type="category", **at)
    figure.update_yaxes(
        title_text="mean sum of squares", range=[0, 1.15 * max(energy) or 1], showticklabels=False, ticks="", **at
    )


def _edges(groups: Sequence[np.ndarray], span: tuple[float, float] | None) -> np.ndarray:
    """``[BINS + 1]`` equal bins over ``span``, or over the middle 99.8 % of all values."""
    values = np.concatenate([np.asarray(group, np.float64) for group in groups])
    if span is None:
        low, high = np.quantile(values, [0.001, 0.999]) if len(values) else (0.0, 1.0)
        if high - low < 1e-6 * max(abs(low), abs(high), 1.0):
            low, high = low - 0.5, high + 0.5
        span = (float(low), float(high))
    return np.linspace(*span, BINS + 1)
