"""What training did: curves, similarities of splats and texts, and intervals of an ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from ..words import plural
from .style import (
    CATEGORIES,
    INK,
    MAX_POINTS,
    QUANTITY,
    RED,
    color_bar,
    panels,
    place,
    plain,
    shorten,
    titled,
    to_array,
)

SHORT = 26
"""Characters of a label that are shown; the whole is in the hover text."""
NUMBERED = 14
"""Matrices of at most this many rows and columns have their numbers written in."""
HOVERED = 900
"""Cells up to which each one carries its whole labels for the hover text."""
_LABEL_PIXELS = 15
_CELL = (8, 34)  # least and greatest pixels of a cell of a matrix
_DASHES = ("solid", "dash", "dot")


def curves_figure(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: Sequence[str],
    *,
    columns: int = 2,
    title: str = "",
) -> go.Figure:
    """Draw metrics against steps, a panel per metric and a line per run.

    Args:
        runs: name -> rows as training yields them, dicts of numbers; a row without "step" or the metric is left out
            of that panel, and so is a number that is not finite (counted in the subtitle).
        metrics: names of what to draw, one panel each.
        columns: panels in a row, ``>= 1``.
        title: of the figure.

    Returns:
        A figure. Above 50,000 points in all, each line shows every n-th and its last.

    Raises:
        ValueError: when there is nothing to draw, or no run has a metric.
    """
    if not runs or not metrics or columns < 1:
        raise ValueError(f"needs runs, metrics and columns >= 1, got {list(runs)}, {list(metrics)} and {columns}")
    lines = {(name, metric): _line(rows, metric) for name, rows in runs.items() for metric in metrics}
    for metric in metrics:
        if not any(len(lines[name, metric].x) for name in runs):
            raise ValueError(f"some row of some run must hold numbers 'step' and {metric!r}, got none; check the names")
    step = -(-sum(len(line.x) for line in lines.values()) // MAX_POINTS)
    columns = min(columns, len(metrics))
    figure = panels(len(metrics), columns, metrics, gap=0.36, horizontal_spacing=0.16 / columns)
    for number, metric in enumerate(metrics):
        for run, name in enumerate(runs):
            figure.add_trace(_curve(lines[name, metric], name, run, step, number == 0), **place(number, columns))
        figure.update_xaxes(title_text="step", **place(number, columns))
    lost = sum(line.lost for line in lines.values())
    return titled(
        figure,
        title,
        f"{plural(lost, 'point')} not finite, left out" if lost else "",
        height=130 + -(-len(metrics) // columns) * 230,
        margin={"l": 56, "r": 16, "t": 96 if title or lost else 64, "b": 84},
        showlegend=len(runs) > 1,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom"},
        hovermode="x",
    )


class _Line(NamedTuple):
    x: np.ndarray  # [n]
    y: np.ndarray  # [n]
    lost: int  # points that could not be drawn


def _line(rows: Sequence[Mapping[str, Any]], metric: str) -> _Line:
    pairs = [(row["step"], row[metric]) for row in rows if row.get("step") is not None and row.get(metric) is not None]
    values = np.array(pairs, np.float64).reshape(-1, 2)
    finite = np.isfinite(values).all(axis=1)
    return _Line(values[finite, 0], values[finite, 1], int((~finite).sum()))


def _curve(line: _Line, name: str, number: int, step: int, legend: bool) -> go.Scatter:
    keep = np.arange(len(line.x) - 1, -1, -step)[::-1]  # the last stays
    color, dash = CATEGORIES[number % len(CATEGORIES)], _DASHES[number // len(CATEGORIES) % len(_DASHES)]
    return go.Scatter(
        x=line.x[keep].astype(np.float32),
        y=line.y[keep].astype(np.float32),
        mode="lines+markers" if len(keep) <= 30 else "lines",
        marker={"size": 5},
        line={"color": color, "width": 1.8, "dash": dash},
        name=plain(name),
        legendgroup=str(number),
        showlegend=legend,
        hovertemplate="%{y:.4~g}",
    )


def similarity_figure(
    matrices: Mapping[str, np.ndarray | Tensor],
    splats: Sequence[str],
    texts: Sequence[str],
    *,
    title: str = "",
) -> go.Figure:
    """Draw cosines of splats and texts as matrices on one colour scale, the best text of each splat marked.

    Args:
        matrices: name -> ``[S, T]``, such as before and after training; side by side.
        splats: S labels of the rows, shown shortened.
        texts: T labels of the columns, shown shortened.
        title: of the figure.

    Raises:
        ValueError: when shapes and labels do not agree, nothing is finite, or there are more than 50,000 cells.
    """
    arrays = {name: to_array(matrix, np.float64) for name, matrix in matrices.items()}
    shape = (len(splats), len(texts))
    if not arrays or any(array.shape != shape for array in arrays.values()) or 0 in shape:
        got = {name: list(array.shape) for name, array in arrays.items()}
        raise ValueError(f"matrices must each have shape {list(shape)}, splats by texts, none of them 0, got {got}")
    finite = np.concatenate([array[np.isfinite(array)] for array in arrays.values()])
    cells = len(arrays) * shape[0] * shape[1]
    if cells > MAX_POINTS or len(finite) == 0:
        raise ValueError(f"needs 1..{MAX_POINTS:,} cells, some finite, got {cells:,} and {len(finite):,} finite")
    low, high = float(finite.min()), float(finite.max())
    cell = int(np.clip(560 / max(shape[0], shape[1] * len(arrays) / 1.6), *_CELL))
    every = -(-_LABEL_PIXELS // cell)  # labels that fit: every n-th
    names, words = ([shorten(label, SHORT) for label in labels] for labels in (splats, texts))
    shown = list(arrays) if any(arrays) else []
    figure = panels(len(arrays), len(arrays), shown, shared_yaxes=True, horizontal_spacing=0.03)
    for col, array in enumerate(arrays.values(), start=1):
        for trace in _matrix(array, splats, texts, (low, high), cell):
            figure.add_trace(trace, 1, col)
        figure.update_xaxes(_ticks(words, every) | {"tickangle": -55}, row=1, col=col)
        figure.update_yaxes(_ticks(names, every, down=True) | {"showticklabels": col == 1}, row=1, col=col)
    left, below = 7 * max(map(len, names)) + 12, 6 * max(map(len, words)) + 16
    top = 34 + (40 if title else 0)
    return titled(
        figure,
        title,
        width=max(420, left + 110 + len(arrays) * (cell * shape[1] + 24)),
        height=max(220, top + cell * shape[0] + below),
        margin={"l": left, "r": 100, "t": top, "b": below},
        coloraxis={"colorscale": QUANTITY, "cmin": low, "cmax": high, "colorbar": color_bar("cosine", len=1)},
    )


def _matrix(
    array: np.ndarray, splats: Sequence[str], texts: Sequence[str], limits: tuple[float, float], cell: int
) -> list[Any]:
    """The cells, and what marks the largest of each row: bold numbers where they fit, else a ring."""
    heat = go.Heatmap(z=array.astype(np.float32), coloraxis="coloraxis", xgap=cell // 16, ygap=cell // 16)
    heat.hovertemplate = "row %{y}, column %{x}<br>%{z:.3f}<extra></extra>"
    if array.size <= HOVERED:
        heat.customdata = [[f"{shorten(s, 90)}<br>{shorten(t, 90)}" for t in texts] for s in splats]
        heat.hovertemplate = "%{customdata}<br>%{z:.3f}<extra></extra>"
    filled = np.where(np.isfinite(array), array, -np.inf)
    best, rows = filled.argmax(axis=1), np.flatnonzero(np.isfinite(array).any(axis=1))
    if max(array.shape) > NUMBERED or cell < 30:
        ring = {"symbol": "circle-open", "size": max(4, 0.5 * cell), "color": RED, "line": {"width": 1.6}}
        marks = go.Scatter(x=best[rows], y=rows, mode="markers", marker=ring)
    else:
        y, x = np.indices(array.shape).reshape(2, -1)
        numbers = ["" if not np.isfinite(value) else f"{value:.2f}" for value in array.ravel()]
        texts_ = [f"<b>{n}</b>" if best[r] == c and n else n for r, c, n in zip(y, x, numbers, strict=True)]
        shade = (filled.ravel() - limits[0]) / max(limits[1] - limits[0], 1e-12)
        font = {"size": 10, "color": np.where(shade > 0.55, "#10151c", "#f4f6f8").tolist()}
        marks = go.Scatter(x=x, y=y, text=texts_, mode="text", textfont=font)
    return [heat, marks.update(hoverinfo="skip", showlegend=False)]


def _ticks(names: Sequence[str], every: int = 1, *, down: bool = False) -> dict[str, Any]:
    """An axis with ``names`` at 0, 1, ... (by number, since plotly would merge equal names), every n-th written."""
    places, ends = list(range(0, len(names), every)), [-0.5, len(names) - 0.5]
    return {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [names[place] for place in places],
        "range": ends[::-1] if down else ends,
        "showgrid": False,
        "zeroline": False,
    }


def intervals_figure(
    names: Sequence[str],
    values: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    *,
    axis: str,
    samples: Sequence[Sequence[float]] = (),
    chance: float | None = None,
    title: str = "",
    note: str = "",
) -> go.Figure:
    """Draw an ablation: a bar per variant with its interval, and what each seed gave.

    Args:
        names: of the variants, from top to bottom.
        values: length of each bar.
        lows, highs: ends of each interval.
        axis: what is measured, with its unit.
        samples: for each variant the single runs (seeds), drawn as dots; or none.
        chance: value of guessing, drawn as a dotted line.
        title: of the figure.
        note: what the interval is ("95 %, bootstrap over queries"), for the subtitle.

    Raises:
        ValueError: when counts differ, or an interval is not finite or does not hold its value.
    """
    table = [np.asarray(column, np.float64) for column in (lows, values, highs)]
    counts = [len(names), *map(len, table)] + ([len(samples)] if samples else [])
    if len(set(counts)) != 1 or not names:
        raise ValueError(f"names, values, lows, highs and samples must be of one length >= 1, got {counts}")
    low, middle, high = table
    if not np.isfinite(table).all() or (low > middle).any() or (middle > high).any():
        raise ValueError(
            f"intervals must be finite with low <= value <= high, got {[*zip(*map(list, table), strict=True)]}"
        )
    figure = go.Figure(_bars(low, middle, high))
    ends = high.copy()
    for bar, runs in enumerate(samples):
        dots = np.asarray(runs, np.float64)
        ends[bar] = dots.max(initial=ends[bar])
        figure.add_scatter(
            x=dots, y=np.full(len(dots), bar + 0.2), mode="markers", showlegend=False,
            marker={"size": 6, "color": CATEGORIES[1]}, hovertemplate="one run: %{x:.3~g}<extra></extra>",
        )  # fmt: skip
    for bar, value in enumerate(middle):
        text = {"text": f"{value:.3g}", "font": {"size": 11}, "xanchor": "left", "xshift": 8}
        figure.add_annotation(x=ends[bar], y=bar, **text)
    if chance is not None:
        figure.add_vline(chance, line={"dash": "dot", "width": 1.5, "color": INK})
        figure.add_annotation(x=chance, y=1, yref="paper", yanchor="bottom", text=f"chance {chance:.3g}", font_size=11)
    reach = 1.12 * max(0.0, float(ends.max()), chance or 0.0) or 1.0
    figure.update_xaxes(title_text=plain(axis), range=[min(0.0, 1.12 * float(low.min())), reach])
    labels = [shorten(name, SHORT) for name in names]
    figure.update_yaxes(_ticks(labels, down=True))
    return titled(
        figure,
        title,
        note,
        height=150 + 34 * len(names),
        margin={"l": 7 * max(map(len, labels)) + 16, "r": 24, "t": 92, "b": 52},
    )


def _bars(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> go.Bar:
    return go.Bar(
        x=middle,
        y=np.arange(len(middle)),
        orientation="h",
        width=0.62,
        marker={"color": CATEGORIES[0], "opacity": 0.55},
        showlegend=False,
        error_x={"array": high - middle, "arrayminus": middle - low, "color": INK, "thickness": 1.6, "width": 5},
        customdata=np.stack([low, high], axis=1),
        hovertemplate="%{x:.3~g} (%{customdata[0]:.3~g} to %{customdata[1]:.3~g})<extra></extra>",
    )
