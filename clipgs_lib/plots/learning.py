"""What training and fitting did: curves, costs, similarities of splats and texts, and intervals of an ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from IPython.display import display
from torch import Tensor

from ..words import plural
from .style import (
    BLUE,
    CATEGORIES,
    GREEN,
    INK,
    MAX_POINTS,
    PAGE,
    QUANTITY,
    RED,
    add_line,
    color_bar,
    panels,
    place,
    plain,
    shorten,
    titled,
    to_array,
)

SHORT = 26  # characters of a label that are shown; the whole is in the hover text
NUMBERED = 14  # matrices of at most this many rows and columns have their numbers written in
HOVERED = 900  # cells up to which each one carries its whole labels for the hover text
_LABEL_PIXELS = 13
_CELL = (1, 34)  # least and greatest pixels of a cell of a matrix
_BELOW = {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom"}
_DASHES = ("solid", "dash", "dot")
_STARTS = {"mesh": "from the mesh", "points": "from points", "random": "at random"}
_NEEDED = ("start", "n", "iterations", "psnr", "psnr_worst", "cpu_seconds", "objects")


class LiveFigure:
    """One output of a notebook cell, which each `show` replaces.

    Plotly's own display adds an output every time; what is replaced here is its MIME bundle, so exported pages and
    papermill's notebooks hold the last figure alone.

    Args:
        text: shown until the first figure comes.
    """

    def __init__(self, text: str = "the figure appears here") -> None:
        self.last: go.Figure | None = None
        self._handle: Any = display({"text/plain": text}, raw=True, display_id=True)  # None outside IPython

    def show(self, figure: go.Figure) -> None:
        """Draw ``figure`` in the place of the one before."""
        self.last = figure
        if self._handle is not None:
            self._handle.update(figure._repr_mimebundle_(), raw=True)


def curves_figure(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: Sequence[str] | Mapping[str, str],
    *,
    columns: int = 2,
    title: str = "",
) -> go.Figure:
    """Draw metrics against steps, a panel per metric and a line per run.

    Args:
        runs: name -> rows as training yields them, dicts of numbers; a row without "step" or the metric is left out
            of that panel, and so is a number that is not finite (counted in the subtitle).
        metrics: names of what to draw, one panel each; or a dict from them to the titles of the panels.
        columns: panels in a row, ``>= 1``.
        title: of the figure.

    Returns:
        A figure. Above 50,000 points in all, each line shows every n-th and its last.

    Raises:
        ValueError: when there is nothing to draw, or no run has a metric.
    """
    if not runs or not metrics or columns < 1:
        raise ValueError(f"needs runs, metrics and columns >= 1, got {list(runs)}, {list(metrics)} and {columns}")
    names = list(metrics.values() if isinstance(metrics, Mapping) else metrics)
    columns = min(columns, len(names))
    figure = panels(len(names), columns, names, gap=0.36, horizontal_spacing=0.16 / columns)
    lines = {(name, metric): _points(rows, metric) for name, rows in runs.items() for metric in metrics}
    kept = {key: points[np.isfinite(points).all(axis=1)] for key, points in lines.items()}
    step = -(-sum(map(len, kept.values())) // MAX_POINTS) or 1
    for number, metric in enumerate(metrics):
        if not any(len(kept[name, metric]) for name in runs):
            raise ValueError(f"some row of some run must hold numbers 'step' and {metric!r}, got none; check the names")
        for run, name in enumerate(runs):
            x, y = kept[name, metric][::-step][::-1].astype(np.float32).T  # the last stays
            options = {"mode": "lines+markers" if len(x) <= 30 else "lines", "marker": {"size": 5}}
            options |= {"dash": _DASHES[run // len(CATEGORIES) % len(_DASHES)], "legendgroup": str(run)}
            add_line(figure, x, y, name, run, "%{y:.4~g}", showlegend=number == 0, **options, **place(number, columns))
        figure.update_xaxes(title_text="step", **place(number, columns))
    lost = sum(map(len, lines.values())) - sum(map(len, kept.values()))
    return titled(
        figure,
        title,
        f"{plural(lost, 'point')} not finite, left out" if lost else "",
        head=22,
        height=130 + -(-len(names) // columns) * 230,
        margin={"b": 84},
        showlegend=len(runs) > 1,
        legend=_BELOW,
        hovermode="x",
    )


def _points(rows: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    """``[n, 2]`` step and value of the rows that have both."""
    pairs = [(row["step"], row[metric]) for row in rows if row.get("step") is not None and row.get(metric) is not None]
    return np.array(pairs, np.float64).reshape(-1, 2)


def fitting_tradeoff(rows: Sequence[Mapping[str, Any]], *, title: str = "What a fit costs") -> go.Figure:
    """Draw PSNR (above) and seconds of CPU (below) against steps, a column for each number of gaussians.

    The model is the cost table of CLIP-GS on its "efficient triplets"; here the kind of start is a third factor.

    Args:
        rows: measured cells, each with "start" ("mesh", "points" or "random"), "n", "iterations", "psnr" and
            "psnr_worst" in dB on held-out views, "cpu_seconds" per object, "objects"; such as the rows of part
            "trade-off" of ``data/results/fitting_tradeoff.json``.
        title: of the figure.

    Raises:
        ValueError: when there are no rows, or one lacks a number or has another start.
    """
    if not rows:
        raise ValueError("rows must hold at least one measured cell, got none; run tests/benchmarks/bench_fitting.py")
    for number, row in enumerate(rows):
        if missing := [name for name in _NEEDED if name not in row]:
            raise ValueError(f"row {number} must have {', '.join(_NEEDED)}, got none of {', '.join(missing)}")
        if row["start"] not in _STARTS:
            raise ValueError(f"row {number}: start must be one of {', '.join(_STARTS)}, got {row['start']!r}")
    counts = sorted({int(row["n"]) for row in rows})
    names = [plural(n, "gaussian") for n in counts]
    shared: dict[str, Any] = {"shared_xaxes": True, "shared_yaxes": "rows", "vertical_spacing": 0.07}
    figure = panels(2 * len(counts), len(counts), names, horizontal_spacing=0.03, **shared)
    curves = ((1, "psnr", "solid", "%{y:.2f} dB"), (1, "psnr_worst", "dot", "worst %{y:.2f} dB"))
    for column, n in enumerate(counts, start=1):
        for start, name in _STARTS.items():
            line = sorted((r for r in rows if r["n"] == n and r["start"] == start), key=lambda r: r["iterations"])
            for part, key, dash, words in (*curves, (2, "cpu_seconds", "solid", "%{y:.2f} s")) if line else ():
                options: dict[str, Any] = {
                    "mode": "lines+markers" if dash == "solid" else "lines",
                    "marker": {"size": 6},
                    "dash": dash,
                }
                options |= {"legendgroup": start, "showlegend": column == 1 and key == "psnr"}
                x, y = ([cell[name_] for cell in line] for name_ in ("iterations", key))
                hover = f"{name}, %{{x}} steps: {words}<extra></extra>"
                add_line(figure, x, y, name, list(_STARTS).index(start), hover, row=part, col=column, **options)
    figure.update_xaxes(tickvals=sorted({int(row["iterations"]) for row in rows}))
    figure.update_xaxes(title_text="steps", row=2)
    figure.update_yaxes(title_text="held-out PSNR, dB", row=1, col=1)
    figure.update_yaxes(title_text="CPU seconds per object", rangemode="tozero", row=2, col=1)
    objects = " to ".join(map(str, sorted({int(row["objects"]) for row in rows})))
    note = f"means over {objects} real meshes, one thread; dotted: the worst of them"
    return titled(figure, title, note, height=590, head=22, margin={"b": 84}, legend=_BELOW)


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
    limits = float(finite.min()), float(finite.max())
    names, words = ([shorten(label, SHORT) for label in labels] for labels in (splats, texts))
    left, below = 6 * max(map(len, names)) + 14, 5.4 * max(map(len, words)) + 20
    room = (PAGE - left - 24 * len(arrays)) / (len(arrays) * shape[1])
    cell = int(np.clip(min(room, 560 / shape[0]), *_CELL))
    every = -(-_LABEL_PIXELS // cell)  # labels that fit: every n-th
    shown = list(arrays) if any(arrays) else []
    figure = panels(len(arrays), len(arrays), shown, shared_yaxes=True, horizontal_spacing=0.03)
    numbered = max(shape) <= NUMBERED and cell >= 30
    for col, array in enumerate(arrays.values(), start=1):
        for trace in _matrix(array, splats, texts, limits, cell, numbered):
            figure.add_trace(trace, 1, col)
        figure.update_xaxes(_ticks(words, every) | {"tickangle": -55, "automargin": False}, row=1, col=col)
        figure.update_yaxes(_ticks(names, every, down=True) | {"showticklabels": col == 1}, row=1, col=col)
    bar = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "lenmode": "pixels", "len": 240}
    titled(
        figure,
        title,
        f"cosine of splat (row) and text (column); {'bold' if numbered else 'ring'}: its nearest text",
        head=22,
        width=int(min(PAGE, max(420, left + 24 + len(arrays) * (cell * shape[1] + 24)))),
        margin={"l": left, "b": below + 44},
        coloraxis={"colorscale": QUANTITY, "cmin": limits[0], "cmax": limits[1], "colorbar": color_bar("", **bar)},
    )
    return figure.update_layout(height=figure.layout.margin.t + cell * shape[0] + below + 44)


def _matrix(
    array: np.ndarray,
    splats: Sequence[str],
    texts: Sequence[str],
    limits: tuple[float, float],
    cell: int,
    numbered: bool,
) -> list[Any]:
    """The cells, and what marks the largest of each row: bold numbers where they fit, else a ring."""
    heat = go.Heatmap(z=array.astype(np.float32), coloraxis="coloraxis", xgap=cell // 16, ygap=cell // 16)
    heat.hovertemplate = "row %{y}, column %{x}<br>%{z:.3f}<extra></extra>"
    if array.size <= HOVERED:
        heat.customdata = [[f"{shorten(s, 90)}<br>{shorten(t, 90)}" for t in texts] for s in splats]
        heat.hovertemplate = "%{customdata}<br>%{z:.3f}<extra></extra>"
    filled = np.where(np.isfinite(array), array, -np.inf)
    best, rows = filled.argmax(axis=1), np.flatnonzero(np.isfinite(array).any(axis=1))
    if not numbered:
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
    bars = go.Bar(
        x=middle, y=np.arange(len(middle)), orientation="h", width=0.62, showlegend=False,
        marker={"color": CATEGORIES[0], "opacity": 0.55}, customdata=np.stack([low, high], axis=1),
        error_x={"array": high - middle, "arrayminus": middle - low, "color": INK, "thickness": 1.6, "width": 5},
        hovertemplate="%{x:.3~g} (%{customdata[0]:.3~g} to %{customdata[1]:.3~g})<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(bars)
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
    figure.update_yaxes(_ticks([shorten(name, SHORT) for name in names], down=True))
    note = "; ".join(filter(None, [note, "dots: single runs" if samples else ""]))
    return titled(figure, title, note, head=16, height=150 + 34 * len(names))


def ablation_figure(results: Mapping[str, Any], target: str, metric: str, *, title: str = "") -> go.Figure:
    """Draw the arms of an ablation on one task, coloured by the verdict on each.

    Args:
        results: what `training.ablate` returns, or its ``ablation.json``.
        target: split or set, as the results name it.
        metric: as the results name it.
        title: of the figure.

    Raises:
        ValueError: when no arm was measured so.
    """
    arms, runs = (
        [row for row in results[part] if (row["target"], row["metric"]) == (target, metric)]
        for part in ("verdicts", "rows")
    )
    if not arms:
        tasks = dict.fromkeys(f"{row['target']} {row['metric']}" for row in results["verdicts"])
        raise ValueError(f"target and metric must be among {', '.join(tasks)}, got {target} {metric}")
    shares = {name: [100 * row[name] for row in arms] for name in ("value", "low", "high")}
    figure = intervals_figure(
        [row["arm"] for row in arms],
        *shares.values(),
        axis=f"{results['metrics'][metric]}, % ({target})",
        samples=[[100 * run["value"] for run in runs if run["arm"] == row["arm"]] for row in arms],
        chance=100 * arms[0]["chance"],
        title=title,
        note=f"bars: mean over {arms[0]['seeds']} seeds and {arms[0]['n']} objects with its 95 % interval over both",
    )
    colors = {"better": GREEN, "worse": RED, "": INK}  # of the baseline: grey
    figure.data[0].marker.color = [colors.get(row.get("verdict", ""), BLUE) for row in arms]
    words = "grey: baseline; green: better; orange: worse; blue: not distinguishable from noise"
    figure.update_xaxes(title_text=f"{figure.layout.xaxis.title.text}<br>{words}", title_font_size=12)
    return figure
