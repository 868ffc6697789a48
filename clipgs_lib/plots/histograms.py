"""Histograms of what a splat's columns, its channels or any quantities hold, as small multiples."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from ..splats import Splats
from ..tokenizer import CHANNELS
from ..words import plural
from .style import BLUE, CATEGORIES, GREEN, RED, panels, place, titled, to_array

BINS = 60
COLUMNS = 3
PANEL_HEIGHT = 225
RGB = (RED, GREEN, BLUE)


def attribute_histograms(splats: Splats) -> go.Figure:
    """Draw how opacity, size, shape, colour, turn and place are distributed over the gaussians.

    Bins are counted here, so the figure stays a few kilobytes whatever the number of gaussians.

    Args:
        splats: may be empty or hold non-finite rows, which are left out and counted in the subtitle.

    Returns:
        A figure with six panels, and a seventh for the energy of the SH bands when
        ``splats.sh_degree > 0``.
    """
    splats = splats.detach().to("cpu")
    good = splats[splats.finite_mask()]
    quantities = _quantities(good) if len(good) else {}
    names = [*quantities, *(["SH energy by band"] if len(good) and splats.sh_degree > 0 else [])]
    figure = panels(len(names), COLUMNS, names, horizontal_spacing=0.07)
    for number, (axis, curves, span) in enumerate(quantities.values()):
        colors = RGB if "red" in curves else CATEGORIES
        _draw(figure, number, COLUMNS, curves, axis=axis, colors=colors, span=span)
    if len(names) > len(quantities):
        _draw_bands(figure, place(len(quantities), COLUMNS), good)
    note = plural(len(splats), "gaussian")
    if len(good) < len(splats):
        note += f", {len(splats) - len(good):,} not finite left out"
    if len(good) == 0:
        figure.add_annotation(text="nothing to show", x=0.5, y=0.5, xref="paper", yref="paper")
    return _sized(figure, splats.source or "Splats", note, -(-len(names) // COLUMNS))


def value_histograms(values: Mapping[str, np.ndarray | Tensor], *, title: str = "") -> go.Figure:
    """Draw the distribution of any quantities, one panel each.

    Args:
        values: name of the horizontal axis, with its unit -> any number of values; non-finite ones are left out.
            Three stand in a row.
        title: of the figure.

    Raises:
        ValueError: when there is nothing to draw.
    """
    if not values:
        raise ValueError("values must name at least one quantity, got none")
    figure = panels(len(values), COLUMNS, horizontal_spacing=0.07)
    for number, (name, value) in enumerate(values.items()):
        curve = {name: to_array(value, np.float64).ravel()}
        _draw(figure, number, COLUMNS, curve, axis=name, colors=[CATEGORIES[number % COLUMNS]], unit="values")
    return _sized(figure, title, "", -(-len(values) // COLUMNS))


def channels_figure(features: Tensor | np.ndarray, *, title: str = "") -> go.Figure:
    """Draw what each channel of the attribute branch holds, as histograms by attribute.

    Args:
        features: ``[..., 19]`` as `tokenizer.attribute_channels` gives them, or ``[..., 14]`` with quaternions.
        title: of the figure.

    Returns:
        A figure; the 3x3 of the rotation has a panel for each row.

    Raises:
        ValueError: for another number of channels, or none of a gaussian.
    """
    values = to_array(features)
    groups = {name.replace("color", "colour"): list(channels) for name, channels in CHANNELS.items()}
    turn = groups.pop("rotation")
    count = sum(map(len, groups.values()))
    if values.ndim < 1 or values.shape[-1] not in (count + 9, count + 4) or values.size == 0:
        raise ValueError(f"features must have shape [..., {count + 9}] or [..., {count + 4}], got {list(values.shape)}")
    if values.shape[-1] == count + 9:
        groups |= {f"rotation, row {row + 1}": turn[3 * row : 3 * row + 3] for row in range(3)}
    else:
        groups["rotation, quaternion"] = ["w", "x", "y", "z"]
    figure = panels(len(groups), 4, list(groups), gap=0.44, horizontal_spacing=0.055)
    values = values.reshape(-1, values.shape[-1])
    columns = iter(values.T)
    for number, (name, channels) in enumerate(groups.items()):
        span = (0.0, 1.0) if name in ("colour", "opacity") else (-1.0, 1.0) if name.startswith("rotation") else None
        curves = {channel: next(columns) for channel in channels}
        _draw(figure, number, 4, curves, colors=RGB if name == "colour" else CATEGORIES, span=span)
    note = f"{values.shape[1]} channels; each gaussian counts once in each of its patches ({len(values):,} rows)"
    return _sized(figure, title or "What the attribute branch sees", note, 2)


def _quantities(splats: Splats) -> dict[str, tuple[str, dict[str, np.ndarray], tuple[float, float] | None]]:
    """Title of a panel -> the axis with its unit, the curves, and the span of the axis if it is fixed."""
    scales = splats.scales.sort(dim=1, descending=True).values.numpy()  # [N, 3]
    quats = splats.quats.numpy().astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(scales)
        ratio = logs[:, 0] - logs[:, 2]
        angles = np.degrees(2 * np.arccos(np.clip(np.abs(quats[:, 0]) / np.linalg.norm(quats, axis=1), 0, 1)))
    means = splats.means.numpy().astype(np.float64)
    radii = np.linalg.norm(means - np.median(means, axis=0), axis=1)
    sizes = dict(zip(("largest", "middle", "smallest"), logs.T, strict=True))
    colors = dict(zip(("red", "green", "blue"), splats.colors.numpy().T, strict=True))
    return {
        "Opacity": ("opacity", {"opacity": splats.opacities.numpy()}, (0, 1)),
        "Scales, sorted": ("log10 scale, scene units", sizes, None),
        "Anisotropy": ("log10 (largest / smallest scale)", {"anisotropy": ratio}, None),
        "Base colour": ("0.5 + 0.282 · sh0  (shown when 0 to 1)", colors, None),
        "Turn of the quaternion": ("angle, degrees", {"angle": angles}, (0, 180)),
        "Distance from the median centre": ("radius, scene units", {"radius": radii}, None),
    }


def _draw(
    figure: go.Figure,
    number: int,
    columns: int,
    curves: Mapping[str, np.ndarray],
    *,
    axis: str = "",
    colors: Sequence[str] = CATEGORIES,
    span: tuple[float, float] | None = None,
    unit: str = "gaussians",
) -> None:
    """Draw one panel: bars for one quantity, outlines with direct labels for several; not finite ones are left out."""
    at = place(number, columns)
    finite = [values[np.isfinite(values)] for values in curves.values()]
    edges = np.linspace(*(span or _middle(np.concatenate(finite).astype(np.float64))), BINS + 1)
    middles = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    below = sum(int((values < middles[BINS // 2]).sum()) for values in finite)
    side = "right" if 2 * below >= sum(map(len, finite)) else "left"  # the emptier
    for line, ((name, whole), values, color) in enumerate(zip(curves.items(), finite, colors, strict=False)):
        share = (100 * np.histogram(values, edges)[0] / max(len(whole), 1)).astype(np.float32)
        common = {"x": middles, "y": share, "name": name, "showlegend": False, **at}
        common["hovertemplate"] = f"{name} %{{x:.3~g}}: %{{y:.2f}} %<extra></extra>"
        if len(curves) == 1:
            figure.add_bar(**common, width=float(edges[1] - edges[0]), marker={"color": color, "line": {"width": 0}})
            continue
        figure.add_scatter(**common, mode="lines", line={"color": color, "width": 1.8, "shape": "hvh"})
        figure.add_annotation(
            text=name, font={"color": color, "size": 11}, x=float(side == "right"), y=1 - 0.11 * line,
            xanchor=side, yanchor="top", xref="x domain", yref="y domain", **at,
        )  # fmt: skip
    figure.update_xaxes(title_text=axis, range=[float(edges[0]), float(edges[-1])], **at)
    figure.update_yaxes(title_text=f"% of {unit}" if at["col"] == 1 else None, rangemode="tozero", **at)


def _draw_bands(figure: go.Figure, at: dict[str, int], splats: Splats) -> None:
    sh, bands = splats.sh.numpy().astype(np.float64), range(splats.sh_degree + 1)
    energy = [float((sh[:, band**2 : (band + 1) ** 2] ** 2).sum(axis=(1, 2)).mean()) for band in bands]
    figure.add_bar(
        x=[str(band) for band in bands], y=energy, marker={"color": CATEGORIES[0]}, width=0.6, showlegend=False,
        text=[f"{value:.3g}" for value in energy], textposition="outside", cliponaxis=False,
        hovertemplate="band %{x}: %{y:.3~g}<extra></extra>", **at,
    )  # fmt: skip
    figure.update_xaxes(title_text="SH band", type="category", **at)
    top = {"range": [0, 1.15 * max(energy) or 1], "showticklabels": False, "ticks": ""}
    figure.update_yaxes(title_text="mean sum of squares", **top, **at)


def _middle(values: np.ndarray) -> tuple[float, float]:
    """Where the middle 99.8 % of the values lie, at least a little apart."""
    low, high = np.quantile(values, [0.001, 0.999]) if len(values) else (0.0, 1.0)
    apart = high - low >= 1e-6 * max(abs(low), abs(high), 1.0)
    return (float(low), float(high)) if apart else (float(low) - 0.5, float(high) + 0.5)


def _sized(figure: go.Figure, title: str, note: str, rows: int) -> go.Figure:
    return titled(figure, title, note, head=32, height=110 + max(1, rows) * PANEL_HEIGHT, bargap=0)
