"""How a splat becomes tokens: its patches in space, what they cover, the orders within one, and the channels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from ..colors import oklab
from ..splats import Splats
from ..words import plural
from .scatter import HEIGHT, Frame, check_points, opening_camera, scene
from .shown import choose
from .style import CATEGORIES, LOG_AXIS, MAX_POINTS, QUANTITY, add_line, color_bar, panels, scatter3d, titled, to_array

PATCH_COLORS = CATEGORIES[:7]  # neighbouring patches differ; grey is left for gaussians in no patch
_PIXELS = (2.0, 9.0)
_STEPS = 16  # of a pixel, so that sizes are bytes
_EDGE = {"color": "#20242a", "width": 1.5}


class PatchRows(NamedTuple):
    """The patches of one splat as rows of its gaussians."""

    tokens: np.ndarray  # [P] numbers of the tokens that are not masked
    rows: np.ndarray  # [P, M] rows of the splat as it was given, the one at the centre first
    distances: np.ndarray  # [P, M] from the patch's centre, scene units
    owner: np.ndarray  # [N] row of tokens of the nearest centre among the patches that hold the gaussian, -1 for none


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
    max_points: int = MAX_POINTS,
    title: str | None = None,
) -> go.Figure:
    """Draw the patches of a splat in space: a colour for each, other colours beside it, and the centres.

    A gaussian of several patches has the colour of the nearest centre; one of none is small and grey.

    Args:
        splats, indices: as for `patch_rows`.
        max_points: the most gaussians drawn, some of every part. ``1..50_000``.
        title: defaults to ``splats.source``.

    Raises:
        ValueError: as `patch_rows`, or for ``max_points`` out of range.
    """
    check_points(max_points)
    patches = patch_rows(splats, indices)
    shown = choose(splats, max_points, spread=True)
    means, rows = shown.splats.means.numpy(), shown.rows.numpy()
    frame = Frame.around([means])
    centers = splats.means.detach().cpu().numpy()[patches.rows[:, 0]]  # [P, 3]
    owner = patches.owner[rows]
    sizes = 2 * np.sqrt(shown.splats.area().numpy()) * frame.pixels_per_unit(HEIGHT)
    sizes = np.round(_STEPS * np.clip(sizes, *_PIXELS)).astype(np.uint8)
    details = np.stack([rows, np.append(patches.tokens, -1)[owner]], axis=1)
    details = details.astype(np.int16 if len(splats) < 2**15 else np.int32)
    last = len(PATCH_COLORS) - 1
    palette = {"colorscale": [[k / last, color] for k, color in enumerate(PATCH_COLORS)], "cmin": 0, "cmax": last}
    colors = np.append(_spread_colors(centers), 0)[owner].astype(np.uint8)
    figure = go.Figure()
    for held, name, drawn in ((True, "in a patch", 1.0), (False, "in no patch", 0.35)):
        of = np.flatnonzero(((owner >= 0) == held) & frame.contains(means))
        if len(of) == 0:
            continue
        look = {"size": sizes[of], "sizeref": _STEPS, "color": colors[of]} | palette
        marker = (look if held else {"size": 2, "color": CATEGORIES[7]}) | {"opacity": drawn, "line": {"width": 0}}
        hover = "gaussian %{customdata[0]:,d}<br>" + ("token %{customdata[1]:d}" if held else name)
        name = f"{name}: {len(of):,}"
        figure.add_trace(scatter3d(means[of], name, hover, mode="markers", marker=marker, customdata=details[of]))
    members = [len(np.unique(held)) for held in patches.rows]
    figure.add_trace(
        scatter3d(
            centers, f"centres: {len(centers):,}",
            "token %{customdata[0]:d}<br>%{customdata[1]:d} gaussians within %{customdata[2]:.3~g}"
            "<br>centre %{x:.3~g}, %{y:.3~g}, %{z:.3~g}",
            mode="markers", marker={"size": 4 if len(centers) <= 150 else 2.5, "symbol": "diamond", "color": "#ffffff",
            "line": _EDGE},
            customdata=np.stack([patches.tokens, members, patches.distances.max(axis=1)], axis=1).astype(np.float32),
        )
    )  # fmt: skip
    covered = float((patches.owner >= 0).sum()) / max(len(splats) - shown.broken, 1)
    note = f"{len(patches.tokens):,} patches of {patches.rows.shape[1]} cover {covered:.0%} of the gaussians"
    return scene(figure, frame, splats.up_axis, title or splats.source or "Patches", f"{note} · {shown.note}")


def _spread_colors(centers: np.ndarray) -> np.ndarray:
    """``[P]`` one of `PATCH_COLORS` for each centre, so that neighbours look as different as they can."""
    # Two centres beside each other cost more the nearer they are and the more alike their colours; each takes the
    # cheapest colour in turn, until nothing changes.
    lab = oklab(np.array([[int(color[k : k + 2], 16) for k in (1, 3, 5)] for color in PATCH_COLORS]) / 255)
    alike = np.exp(-((squareform(pdist(lab)) / 0.12) ** 2))  # [7, 7]
    near = squareform(1 / np.maximum(pdist(centers), 1e-6) ** 4)  # [P, P], 0 for itself
    colors = np.arange(len(centers)) % len(PATCH_COLORS)
    for _ in range(20):
        before = colors.copy()
        for one, weights in enumerate(near):
            colors[one] = (weights @ alike[colors]).argmin()
        if (colors == before).all():
            break
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
            add_line(figure, count[shown], y, f"{name}, {what}", number, "%{y:.3~g}", dash=dash)
    figure.update_xaxes(LOG_AXIS | {"title_text": "centres"})
    figure.update_yaxes(LOG_AXIS | {"title_text": "distance to the nearest centre"})
    return _lines(figure, title or "What the centres cover", f"{len(places):,} gaussians; units of the points")


def token_coverage_figure(
    indices: Tensor | np.ndarray, count: int, *, sizes: Sequence[int] = (8, 16, 32, 64), title: str = ""
) -> go.Figure:
    """Draw the share of gaussians that lie in some patch, against the number of tokens, for sizes of patches.

    One call of `tokenizer.patchify` at the largest setting holds all smaller ones: farthest points are chosen one
    after the other, and the members of a patch come nearest first.

    Args:
        indices: ``[G, M]`` or ``[1, G, M]`` int, as `tokenizer.patchify` gives them with ``sort=None``.
        count: N, the gaussians that the indices count.
        sizes: gaussians per patch; those above M are left out.
        title: of the figure.

    Raises:
        ValueError: when the shape does not hold, an index is out of range, or no size fits.
    """
    index, _ = _patches(indices, None, count)
    fitting = [size for size in sizes if 1 <= size <= index.shape[1]]
    if not fitting:
        raise ValueError(f"sizes must hold one in 1..{index.shape[1]}, the size of the patches, got {list(sizes)}")
    figure = go.Figure()
    for number, size in enumerate(fitting):
        first = np.full(count, len(index))  # the first patch that holds a gaussian
        np.minimum.at(first, index[:, :size], np.arange(len(index))[:, None])
        share = 100 * np.bincount(first, minlength=len(index) + 1)[:-1].cumsum() / count
        shown = np.unique(np.geomspace(1, len(index), 150).round().astype(int)) - 1
        add_line(figure, shown + 1, share[shown], f"{size} a patch", number, "%{y:.1f} %")
    figure.update_xaxes(LOG_AXIS | {"title_text": "tokens"})
    figure.update_yaxes(title_text="% of gaussians in a patch", range=[0, 102])
    return _lines(figure, title or "Tokens against coverage", plural(count, "gaussian"))


def _lines(figure: go.Figure, title: str, note: str) -> go.Figure:
    return titled(figure, title, note, head=8, height=400, hovermode="x")


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
    hidden = {"showticklabels": False, "title": {"text": ""}}
    camera = opening_camera(up_axis)
    camera["eye"] = {name: 1.1 * value for name, value in camera["eye"].items()}  # narrow scenes cut off their sides
    layout = frame.layout()
    layout |= {f"{name}axis": layout[f"{name}axis"] | hidden for name in "xyz"} | {"camera": camera}
    titles = [f"{name}: path × {length / shortest if shortest > 0 else 1.0:.2f}" for name, length in lengths.items()]
    specs = [[{"type": "scene"} for _ in paths]]
    figure = panels(len(paths), len(paths), titles, specs=specs, horizontal_spacing=0.01)
    rank, hover = np.arange(len(places)), "place %{marker.color:d}<br>%{x:.3~g}, %{y:.3~g}, %{z:.3~g}"
    marker = {"size": 3.5, "color": rank, "coloraxis": "coloraxis"}
    line = {"width": 5, "color": rank, "colorscale": QUANTITY}
    for column, (name, path) in enumerate(paths.items(), start=1):
        trace = scatter3d(path, name, hover, mode="lines+markers", line=line, marker=marker)
        figure.add_trace(trace, row=1, col=column)
    figure.update_scenes(layout)
    note = f"{plural(len(places), 'gaussian')} of one patch; lengths beside the shortest path"
    bar = color_bar("place in the order", len=0.8)
    axis = {"colorscale": QUANTITY, "cmin": 0, "cmax": len(places) - 1, "colorbar": bar}
    return titled(figure, title, note, head=28, height=400, showlegend=False, coloraxis=axis)
