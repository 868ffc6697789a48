"""What training and fitting did: curves, costs, similarities of splats and texts, and intervals of an ablation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from IPython.display import display
from torch import Tensor

from ..words import plural
from .style import (
    BELOW,
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
    named_axis,
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
    title: str = "",
) -> go.Figure:
    """Draw metrics against steps, a panel per metric and a line per run.

    Args:
        runs: name -> rows as training yields them, dicts of numbers; a row without "step" or the metric is left out
            of that panel, and so is a number that is not finite (counted in the subtitle).
        metrics: names of what to draw, one panel each; or a dict from them to the titles of the panels.
        title: of the figure.

    Returns:
        A figure. Above 50,000 points in all, each line shows every n-th and its last.

    Raises:
        ValueError: when there is nothing to draw, or no run has a metric.
    """
    if not runs or not metrics:
        raise ValueError(f"needs runs, metrics and a line to draw, got {list(runs)} and {list(metrics)}")
    names = list(metrics.values() if isinstance(metrics, Mapping) else metrics)
    columns = min(2, len(names))
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
    note = f"{plural(lost, 'point')} not finite, left out" if lost else ""
    height, several = 130 + -(-len(names) // columns) * 230, len(runs) > 1
    return titled(figure, title, note, head=22, height=height, showlegend=several, hovermode="x", **BELOW)


def _points(rows: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    """``[n, 2]`` step and value of the rows that have both."""
    pairs = [(row["step"], row[metric]) for row in rows if row.get("step") is not None and row.get(metric) is not None]
    return np.array(pairs, np.float64).reshape(-1, 2)


def fitting_tradeoff(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw PSNR (above) and seconds of CPU (below) against steps, a column for each number of gaussians.

    The model is the cost table of CLIP-GS on its "efficient triplets"; here the kind of start is a third factor.

    Args:
        rows: measured cells, each with "start" ("mesh", "points" or "random"), "n", "iterations", "psnr" and
            "psnr_worst" in dB on held-out views, "cpu_seconds" per object, "objects"; such as the rows of part
            "trade-off" of ``data/results/fitting_tradeoff.json``.

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
                options: dict[str, Any] = {"legendgroup": start, "showlegend": column == 1 and key == "psnr"}
                options |= {"dash": dash, "mode": "lines+markers" if dash == "solid" else "lines", "marker_size": 6}
                x, y = ([cell[name_] for cell in line] for name_ in ("iterations", key))
                hover = f"{name}, %{{x}} steps: {words}<extra></extra>"
                add_line(figure, x, y, name, list(_STARTS).index(start), hover, row=part, col=column, **options)
    figure.update_xaxes(tickvals=sorted({int(row["iterations"]) for row in rows}))
    figure.update_xaxes(title_text="steps", row=2)
    figure.update_yaxes(title_text="held-out PSNR, dB", row=1, col=1)
    figure.update_yaxes(title_text="CPU seconds per object", rangemode="tozero", row=2, col=1)
    objects = " to ".join(map(str, sorted({int(row["objects"]) for row in rows})))
    note = f"means over {objects} real meshes, one thread; dotted: the worst of them"
    return titled(figure, "What a fit costs", note, height=590, head=22, **BELOW)


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
        for trace in _matrix(array, splats, texts, cell, numbered):
            figure.add_trace(trace, 1, col)
        figure.update_xaxes(named_axis(words, every) | {"tickangle": -55, "automargin": False}, row=1, col=col)
        figure.update_yaxes(named_axis(names, every, down=True) | {"showticklabels": col == 1}, row=1, col=col)
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


def _matrix(array: np.ndarray, splats: Sequence[str], texts: Sequence[str], cell: int, numbered: bool) -> list[Any]:
    """The cells, and what marks the largest of each row: bold numbers where they fit, else a ring."""
    heat = go.Heatmap(z=array.astype(np.float32), coloraxis="coloraxis", xgap=cell // 16, ygap=cell // 16)
    heat.hovertemplate = "row %{y}, column %{x}<br>%{z:.3f}<extra></extra>"
    if array.size <= HOVERED:
        heat.customdata = [[f"{shorten(s, 90)}<br>{shorten(t, 90)}" for t in texts] for s in splats]
        heat.hovertemplate = "%{customdata}<br>%{z:.3f}<extra></extra>"
    best, rows = np.nan_to_num(array, nan=-np.inf).argmax(axis=1), np.flatnonzero(np.isfinite(array).any(axis=1))
    if not numbered:
        ring = {"symbol": "circle-open", "size": max(4, 0.5 * cell), "color": RED, "line": {"width": 1.6}}
        marks = go.Scatter(x=best[rows], y=rows, mode="markers", marker=ring, hoverinfo="skip", showlegend=False)
        return [heat, marks]
    numbers = [[f"{value:.2f}" if np.isfinite(value) else "" for value in row] for row in array]
    for row in rows:
        numbers[row][best[row]] = f"<b>{numbers[row][best[row]]}</b>"
    return [heat.update(text=numbers, texttemplate="%{text}", textfont_size=10)]


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
    value, low, high = (100 * np.array([row[key] for row in arms]) for key in ("value", "low", "high"))
    colors = {"better": GREEN, "worse": RED, "": INK}  # of the baseline: grey
    bars = go.Bar(
        x=value, y=np.arange(len(arms)), orientation="h", width=0.62, showlegend=False,
        marker={"color": [colors.get(row.get("verdict", ""), BLUE) for row in arms], "opacity": 0.55},
        error_x={"array": high - value, "arrayminus": value - low, "color": INK, "thickness": 1.6, "width": 5},
        customdata=np.stack([low, high], axis=1),
        hovertemplate="%{x:.3~g} (%{customdata[0]:.3~g} to %{customdata[1]:.3~g})<extra></extra>",
    )  # fmt: skip
    figure, ends = go.Figure(bars), high.copy()
    for bar, row in enumerate(arms):
        dots = np.array([100 * run["value"] for run in runs if run["arm"] == row["arm"]])
        ends[bar] = dots.max(initial=high[bar])
        figure.add_scatter(
            x=dots, y=np.full(len(dots), bar + 0.2), mode="markers", showlegend=False,
            marker={"size": 6, "color": CATEGORIES[1]}, hovertemplate="one run: %{x:.3~g}<extra></extra>",
        )  # fmt: skip
        text = {"text": f"{value[bar]:.3g}", "font": {"size": 11}, "xanchor": "left", "xshift": 8}
        figure.add_annotation(x=ends[bar], y=bar, **text)
    chance = 100 * arms[0]["chance"]
    figure.add_vline(chance, line={"dash": "dot", "width": 1.5, "color": INK})
    figure.add_annotation(x=chance, y=1, yref="paper", yanchor="bottom", text=f"chance {chance:.3g}", font_size=11)
    words = "grey: baseline; green: better; orange: worse; blue: not distinguishable from noise"
    axis = f"{plain(results['metrics'][metric])}, % ({plain(target)})<br>{words}"
    figure.update_xaxes(title_text=axis, title_font_size=12, range=[0, 1.12 * max(ends.max(), chance) or 1.0])
    figure.update_yaxes(named_axis([shorten(row["arm"], SHORT) for row in arms], down=True))
    note = f"bars: mean over {arms[0]['seeds']} seeds and {arms[0]['n']} objects with its 95 % interval over both"
    return titled(figure, title, f"{note}; dots: single runs", head=16, height=150 + 34 * len(arms))


def trend_figure(
    results: Mapping[str, Any], target: str, setting: str, *, axis: str = "", title: str = ""
) -> go.Figure:
    """Draw the metrics of an ablation against one setting, a line per metric; its axis is logarithmic.

    Args:
        results: what `training.ablate` returns, or its ``ablation.json``.
        target: split or set, as the results name it.
        setting: name of a positive number that arms differ in. Of the arms, those are drawn that are alike in all
            else; where there are several such groups, the largest.
        axis: what the setting is; its name if empty.
        title: of the figure.

    Raises:
        ValueError: when fewer than two values of the setting were measured so.
    """
    groups: dict[str, dict[str, float]] = {}  # of arms that differ in the setting alone: name -> its value
    for arm, changes in results["arms"].items():
        if value := changes.get(setting, results["settings"].get(setting)):
            rest = str(sorted((key, other) for key, other in changes.items() if key != setting))
            groups.setdefault(rest, {})[arm] = value
    at = max(groups.values(), key=len, default={})
    rows = [row for row in results["verdicts"] if row["target"] == target and row["arm"] in at]
    rows.sort(key=lambda row: at[row["arm"]])
    if len({row["arm"] for row in rows}) < 2:
        arms = ", ".join(results["arms"])
        raise ValueError(f"two arms must differ in {setting} alone and be measured on {target}, got the arms {arms}")
    figure = go.Figure()
    for number, (metric, words) in enumerate(results["metrics"].items()):
        if line := [row for row in rows if row["metric"] == metric]:
            x, y = [at[row["arm"]] for row in line], 100 * np.array([row["value"] for row in line])
            ends = {
                "array": [100 * row["high"] for row in line] - y,
                "arrayminus": y - [100 * row["low"] for row in line],
            }
            options = {"mode": "lines+markers", "error_y": ends | {"thickness": 1.2, "width": 4}}
            add_line(figure, x, y, words, number, "%{y:.3~g} %", **options)
    ticks = sorted(set(at.values()))
    words = plain(axis or setting.replace("_", " "))
    figure.update_xaxes(type="log", title_text=words, tickvals=ticks, ticktext=[f"{n:,}" for n in ticks])
    figure.update_yaxes(title_text=f"% ({plain(target)})", rangemode="tozero")
    note = f"mean of {rows[0]['seeds']} seeds over {rows[0]['n']} objects; 95 % interval over both"
    return titled(figure, title, note, head=16, height=430, **BELOW)
