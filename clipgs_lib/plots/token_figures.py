"""How a splat becomes tokens: its patches in space, what they cover, the orders within one, and the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from ..splats import Splats
from ..tokenizer import CHANNELS
from ..words import plural
from .frame import Frame, opening_camera
from .histograms import PANEL_HEIGHT, Curve, Panel, draw
from .scatter import HEIGHT, choose
from .style import (
    BLUE,
    CATEGORIES,
    GREEN,
    LOG_AXIS,
    MAX_POINTS,
    QUANTITY,
    RED,
    color_bar,
    panels,
    plain,
    titled,
    to_array,
)

PATCH_COLORS = CATEGORIES[:7]
"""Neighbouring patches differ; grey is left for gaussians in no patch."""
_PIXELS = (2.0, 9.0)
_STEPS = 16  # of a pixel, so that sizes are bytes
_EDGE = {"color": "#20242a", "width": 1.5}


class PatchRows(NamedTuple):
    """The patches of one splat as rows of its gaussians."""

    tokens: np.ndarray
    """``[P]`` numbers of the tokens that are not masked."""
    rows: np.ndarray
    """``[P, M]`` rows of the splat as it was given, the one at the centre first."""
    distances: np.ndarray
    """``[P, M]`` from the patch's centre, scene units."""
    owner: np.ndarray
    """``[N]`` row of ``tokens`` of the nearest centre among the patches that hold the gaussian, -1 for none."""


def patch_rows(splats: Splats, indices: Tensor | np.ndarray, mask: Tensor | np.ndarray | None = None) -> PatchRows:
    """Say which gaussians of a splat make up which token.

    Args:
        splats: the splat as it was given to the tokenizer, N gaussians.
        indices: ``[G, M]`` or ``[1, G, M]`` int rows, nearest to the centre first, as `tokenizer.patchify` gives them.
        mask: ``[G]`` or ``[1, G]`` bool, False for the repeated patches of a small splat; all are true without it.

    Raises:
        ValueError: when the shapes do not hold, an index is out of range, or all patches are masked.
    """
    index, keep = _patches(indices, mask, len(splats))
    rows = index[keep]  # [P, M]
    means = splats.means.detach().cpu().double().numpy()
    distances = np.linalg.norm(means[rows] - means[rows[:, :1]], axis=2)  # [P, M]
    owner = np.full(len(splats), -1)
    far_first = np.argsort(-distances.ravel(), kind="stable")  # so that the nearest centre is written last
    owner[rows.ravel()[far_first]] = far_first // rows.shape[1]
    return PatchRows(np.flatnonzero(keep), rows, distances, owner)


def _patches(indices: Any, mask: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``indices [G, M]`` within ``0..count - 1`` and ``mask [G]``, at least one true."""
    index = to_array(indices)
    index = index[0] if index.ndim == 3 and len(index) == 1 else index
    if index.ndim != 2 or index.size == 0 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"indices must be integers [G, M] of one splat, got {index.dtype} {list(index.shape)}")
    keep = np.ones(len(index), bool) if mask is None else to_array(mask).reshape(-1).astype(bool)
    if len(keep) != len(index) or not keep.any():
        raise ValueError(
            f"mask must have {len(index)} values, some true, got {len(keep)}, {int(keep.sum())} of them true"
        )
    if index.min() < 0 or index.max() >= count:
        got = f"{index.min()}..{index.max()}"
        raise ValueError(f"indices must lie in 0..{count - 1}, the gaussians there are, got {got}; of another splat?")
    return index, keep


def patch_figure(
    splats: Splats,
    indices: Tensor | np.ndarray,
    *,
    mask: Tensor | np.ndarray | None = None,
    max_points: int = MAX_POINTS,
    up_axis: str | None = None,
    title: str | None = None,
) -> go.Figure:
    """Draw the patches of a splat in space: a colour for each, other colours beside it, and the centres.

    A gaussian of several patches has the colour of the nearest centre; one of none is small and grey.

    Args:
        splats: as for `patch_rows`.
        indices: as for `patch_rows`.
        mask: as for `patch_rows`.
        max_points: the most gaussians drawn, the largest by opacity × area. ``1..50_000``.
        up_axis: overrides ``splats.up_axis`` for the opening camera.
        title: defaults to ``splats.source``.

    Raises:
        ValueError: as `patch_rows`, or for ``max_points`` out of range.
    """
    patches = patch_rows(splats, indices, mask)
    up_axis = up_axis or splats.up_axis
    cloud = choose(splats, max_points)
    means = cloud.splats.means.numpy()
    frame = Frame.around([means])
    centers = splats.means.detach().cpu().numpy()[patches.rows[:, 0]]  # [P, 3]
    owner = patches.owner[cloud.index]
    colors = np.append(_spread_colors(centers), 0)[owner].astype(np.uint8)
    sizes = 2 * np.sqrt(cloud.splats.area().numpy()) * frame.pixels_per_unit(HEIGHT)
    sizes = np.round(_STEPS * np.clip(sizes, *_PIXELS)).astype(np.uint8)
    number = np.int16 if len(splats) < 2**15 else np.int32
    tokens = np.append(patches.tokens, -1)[owner]
    figure = go.Figure()
    for held, name, drawn in ((True, "in a patch", 1.0), (False, "in no patch", 0.35)):
        rows = np.flatnonzero(((owner >= 0) == held) & frame.contains(means))
        if len(rows) == 0:
            continue
        hover = "gaussian %{customdata[0]:,d}<br>" + ("token %{customdata[1]:d}" if held else name)
        x, y, z = np.ascontiguousarray(means[rows].T)
        look = {"size": 2, "color": CATEGORIES[7]}
        if held:
            look = {"size": sizes[rows], "sizeref": _STEPS, "color": colors[rows], "coloraxis": "coloraxis"}
        figure.add_scatter3d(
            x=x, y=y, z=z, mode="markers", name=f"{name}: {len(rows):,}", hovertemplate=hover + "<extra></extra>",
            marker=look | {"opacity": drawn, "line": {"width": 0}},
            customdata=np.stack([cloud.index[rows], tokens[rows]], axis=1).astype(number),
        )  # fmt: skip
    figure.add_trace(_centers(centers, patches))
    last = len(PATCH_COLORS) - 1
    scale = [[k / last, color] for k, color in enumerate(PATCH_COLORS)]
    covered = float((patches.owner >= 0).sum()) / max(len(splats) - cloud.non_finite, 1)
    note = f"{len(patches.tokens):,} patches of {patches.rows.shape[1]} cover {covered:.0%} of the gaussians"
    return titled(
        figure,
        title or splats.source or "Patches",
        f"{note} · {cloud.note}",
        height=HEIGHT,
        coloraxis={"colorscale": scale, "cmin": 0, "cmax": last, "showscale": False},
        scene=frame.layout() | {"camera": opening_camera(up_axis)},
        legend={"x": 0, "y": 1, "xanchor": "left", "yanchor": "top"},
    )


def _centers(centers: np.ndarray, patches: PatchRows) -> go.Scatter3d:
    x, y, z = np.ascontiguousarray(centers.T.astype(np.float32))
    members = np.array([len(np.unique(rows)) for rows in patches.rows])
    return go.Scatter3d(
        x=x, y=y, z=z, mode="markers", name=f"centres: {len(centers):,}",
        marker={"size": 4 if len(centers) <= 150 else 2.5, "symbol": "diamond", "color": "#ffffff", "line": _EDGE},
        customdata=np.stack([patches.tokens, members, patches.distances.max(axis=1)], axis=1).astype(np.float32),
        hovertemplate="token %{customdata[0]:d}<br>%{customdata[1]:d} gaussians within %{customdata[2]:.3~g}"
        "<br>centre %{x:.3~g}, %{y:.3~g}, %{z:.3~g}<extra></extra>",
    )  # fmt: skip


def _spread_colors(centers: np.ndarray) -> np.ndarray:
    """``[P]`` one of `PATCH_COLORS` for each centre: the one whose nearest bearer is the farthest away."""
    colors = np.zeros(len(centers), np.int64)
    nearest = np.full((len(PATCH_COLORS), len(centers)), np.inf)  # squared distance to the nearest bearer of a colour
    for place, center in enumerate(centers):
        colors[place] = nearest[:, place].argmax()
        row = nearest[colors[place]]
        np.minimum(row, ((centers - center) ** 2).sum(axis=1), out=row)
    return colors


def coverage_figure(
    points: Tensor | np.ndarray, choices: Mapping[str, Tensor | np.ndarray], *, title: str = ""
) -> go.Figure:
    """Draw how far gaussians lie from the nearest centre, against the number of centres.

    Args:
        points: ``[N, 3]`` finite.
        choices: name -> ``[G]`` rows of ``points`` in the order in which they were chosen (farthest points, a random
            draw, ...); the first g of them are what a choice of g would be.
        title: of the figure.

    Returns:
        A figure: largest distance solid, mean distance dashed, both axes logarithmic.

    Raises:
        ValueError: when there is nothing to draw or an index is out of range.
    """
    places = to_array(points).astype(np.float64)
    if not choices or places.ndim != 2 or places.shape[1:] != (3,) or not np.isfinite(places).all():
        raise ValueError(f"needs finite points [N, 3] and a choice, got {list(places.shape)} and {list(choices)}")
    figure = go.Figure()
    for number, (name, chosen) in enumerate(choices.items()):
        rows = to_array(chosen).reshape(-1)
        if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(places):
            raise ValueError(f"{name!r} must hold rows in 0..{len(places) - 1}, got {len(rows)} of another range")
        nearest, curve = np.full(len(places), np.inf), np.empty((len(rows), 2))
        for place, row in enumerate(rows):
            np.minimum(nearest, ((places - places[row]) ** 2).sum(axis=1), out=nearest)
            curve[place] = np.sqrt(nearest.max()), np.sqrt(nearest).mean()
        count = np.arange(1, len(rows) + 1)
        shown = np.unique(np.geomspace(1, len(rows), 200).round().astype(int)) - 1
        for column, (what, dash) in enumerate((("largest", "solid"), ("mean", "dash"))):
            y = np.where(curve[shown, column] > 0, curve[shown, column], np.nan)
            line = {"color": CATEGORIES[number % len(CATEGORIES)], "dash": dash, "width": 2}
            figure.add_scatter(
                x=count[shown], y=y.astype(np.float32), mode="lines", name=f"{plain(name)}, {what}",
                line=line, hovertemplate="%{y:.3~g}",
            )  # fmt: skip
    figure.update_xaxes(LOG_AXIS | {"title_text": "centres"})
    figure.update_yaxes(LOG_AXIS | {"title_text": "distance to the nearest centre"})
    return _lines(figure, title or "What the centres cover", f"{len(places):,} gaussians; units of the points")


def token_coverage_figure(
    indices: Tensor | np.ndarray,
    count: int,
    *,
    mask: Tensor | np.ndarray | None = None,
    sizes: Sequence[int] = (8, 16, 32, 64),
    title: str = "",
) -> go.Figure:
    """Draw the share of gaussians that lie in some patch, against the number of tokens, for sizes of patches.

    One call of `tokenizer.patchify` at the largest setting holds all smaller ones: farthest points are chosen one
    after the other, and the members of a patch come nearest first.

    Args:
        indices: ``[G, M]`` or ``[1, G, M]`` int, as `tokenizer.patchify` gives them with ``sort=None``.
        count: N, the gaussians that the indices count.
        mask: ``[G]`` or ``[1, G]`` bool, False for the repeated patches of a small splat.
        sizes: gaussians per patch; those above M are left out.
        title: of the figure.

    Raises:
        ValueError: when the shape does not hold, an index is out of range, or no size fits.
    """
    index, keep = _patches(indices, mask, count)
    index = index[keep]
    fitting = [size for size in sizes if 1 <= size <= index.shape[1]]
    if not fitting:
        raise ValueError(f"sizes must hold one in 1..{index.shape[1]}, the size of the patches, got {list(sizes)}")
    figure = go.Figure()
    for number, size in enumerate(fitting):
        first = np.full(count, len(index))  # the first patch that holds a gaussian
        np.minimum.at(first, index[:, :size], np.arange(len(index))[:, None])
        share = 100 * np.bincount(first, minlength=len(index) + 1)[:-1].cumsum() / count
        shown = np.unique(np.geomspace(1, len(index), 150).round().astype(int)) - 1
        figure.add_scatter(
            x=shown + 1, y=share[shown].astype(np.float32), mode="lines", name=f"{size} a patch",
            line={"color": CATEGORIES[number % len(CATEGORIES)], "width": 2}, hovertemplate="%{y:.1f} %",
        )  # fmt: skip
    figure.update_xaxes(LOG_AXIS | {"title_text": "tokens"})
    figure.update_yaxes(title_text="% of gaussians in a patch", range=[0, 102])
    return _lines(figure, title or "Tokens against coverage", plural(count, "gaussian"))


def _lines(figure: go.Figure, title: str, note: str) -> go.Figure:
    return titled(figure, title, note, height=400, margin={"l": 64, "r": 16, "t": 84, "b": 56}, hovermode="x")


def order_figure(
    points: Tensor | np.ndarray, orders: Mapping[str, Tensor | np.ndarray], *, title: str = "", up_axis: str = "unknown"
) -> go.Figure:
    """Draw the gaussians of one patch joined in each of several orders, a scene for each.

    Args:
        points: ``[M, 3]`` centres of the patch's gaussians.
        orders: name -> ``[M]`` permutation, such as `geometry.ORDERS["hilbert"]` of the points.
        title: of the figure.
        up_axis: which way is up.

    Returns:
        A figure; above each scene the length of its path, as a multiple of the shortest.

    Raises:
        ValueError: when an order is no permutation of the points.
    """
    places = to_array(points).astype(np.float64)
    if places.ndim != 2 or places.shape[1:] != (3,) or len(places) < 2 or not orders:
        raise ValueError(f"needs at least two points [M, 3] and an order, got {list(places.shape)} and {list(orders)}")
    paths = {}
    for name, order in orders.items():
        rows = to_array(order).reshape(-1)
        if sorted(rows.tolist()) != list(range(len(places))):
            raise ValueError(f"order {name!r} must hold each of 0..{len(places) - 1} once, got {len(rows)} numbers")
        paths[name] = places[rows]
    lengths = {name: float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()) for name, path in paths.items()}
    frame, shortest = Frame.around([places]), min(lengths.values())
    figure = go.Figure()
    hidden = frame.layout()
    for axis in ("xaxis", "yaxis", "zaxis"):
        hidden[axis] |= {"showticklabels": False}
    for number, (name, path) in enumerate(paths.items()):
        scene = "scene" if number == 0 else f"scene{number + 1}"
        left, right = number / len(paths), (number + 1) / len(paths)
        figure.add_trace(_path(path, name).update(scene=scene))
        domain = {"x": [left, right - 0.01], "y": [0, 0.9]}
        figure.update_layout({scene: hidden | {"camera": opening_camera(up_axis), "domain": domain}})
        factor = lengths[name] / shortest if shortest > 0 else 1.0
        figure.add_annotation(
            text=f"<b>{plain(name)}</b>  path × {factor:.2f}", x=(left + right) / 2, y=1, xref="paper", yref="paper",
            xanchor="center", yanchor="top",
        )  # fmt: skip
    bar = color_bar("place in the order", len=0.8)
    return titled(
        figure,
        title,
        f"{plural(len(places), 'gaussian')} of one patch; lengths beside the shortest path",
        height=420,
        showlegend=False,
        coloraxis={"colorscale": QUANTITY, "cmin": 0, "cmax": len(places) - 1, "colorbar": bar},
    )


def _path(path: np.ndarray, name: str) -> go.Scatter3d:
    x, y, z = np.ascontiguousarray(path.astype(np.float32).T)
    rank = np.arange(len(path))
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines+markers", name=plain(name),
        line={"width": 5, "color": rank, "colorscale": QUANTITY},
        marker={"size": 3.5, "color": rank, "coloraxis": "coloraxis"},
        hovertemplate="place %{marker.color:d}<br>%{x:.3~g}, %{y:.3~g}, %{z:.3~g}<extra></extra>",
    )  # fmt: skip


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
    groups = {name: list(channels) for name, channels in CHANNELS.items()}
    turn = groups.pop("rotation")
    matrix = sum(map(len, groups.values())) + len(turn)
    quaternion = matrix - len(turn) + 4
    if values.ndim < 1 or values.shape[-1] not in (matrix, quaternion) or values.size == 0:
        raise ValueError(f"features must have shape [..., {matrix}] or [..., {quaternion}], got {list(values.shape)}")
    if values.shape[-1] == matrix:
        groups |= {f"rotation, row {row + 1}": turn[3 * row : 3 * row + 3] for row in range(3)}
    else:
        groups["rotation, quaternion"] = ["w", "x", "y", "z"]
    names = [name.replace("color", "colour") for name in groups]
    figure = panels(len(groups), 4, names, gap=0.44, horizontal_spacing=0.055)
    values, start = values.reshape(-1, values.shape[-1]), 0
    for number, (name, channels) in enumerate(groups.items()):
        colors = (RED, GREEN, BLUE) if name == "color" else CATEGORIES
        columns = values[:, start : start + len(channels)].T
        curves = tuple(map(Curve, channels, columns, colors))
        start += len(channels)
        span = (0.0, 1.0) if name in ("color", "opacity") else (-1.0, 1.0) if name.startswith("rotation") else None
        draw(figure, number, Panel("", "", curves, span), 4)
    note = f"{values.shape[1]} channels; each gaussian counts once in each of its patches ({len(values):,} rows)"
    return titled(
        figure, title or "What the attribute branch sees", note, height=110 + 2 * PANEL_HEIGHT,
        margin={"l": 48, "r": 16, "t": 100, "b": 40}, bargap=0,
    )  # fmt: skip
