"""What a fit costs: PSNR and seconds against steps and number of gaussians, for each kind of start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..words import plural
from .style import CATEGORIES, INK, titled

_STARTS = {"mesh": "from the mesh", "points": "from points", "random": "at random"}
_NEEDED = ("start", "n", "iterations", "psnr", "psnr_worst", "cpu_seconds", "objects")


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
    _check(rows)
    counts = sorted({int(row["n"]) for row in rows})
    figure = make_subplots(
        2, len(counts), shared_xaxes=True, shared_yaxes="rows", horizontal_spacing=0.03, vertical_spacing=0.07,
        column_titles=[plural(n, "gaussian") for n in counts],
    )  # fmt: skip
    figure.update_annotations(font={"size": 13, "color": INK})
    for column, n in enumerate(counts, start=1):
        for start, color in zip(_STARTS, CATEGORIES, strict=False):
            line = sorted((r for r in rows if r["n"] == n and r["start"] == start), key=lambda r: r["iterations"])
            if line:
                _draw(figure, column, line, start, color)
    steps = sorted({int(row["iterations"]) for row in rows})
    figure.update_xaxes(tickvals=steps)
    figure.update_xaxes(title_text="steps", row=2)
    figure.update_yaxes(title_text="held-out PSNR, dB", row=1, col=1)
    figure.update_yaxes(title_text="CPU seconds per object", rangemode="tozero", row=2, col=1)
    objects = sorted({int(row["objects"]) for row in rows})
    note = f"means over {' to '.join(map(str, objects))} real meshes, one thread; dotted: the worst of them"
    return titled(
        figure, title, note, height=560, margin={"l": 56, "r": 16, "t": 104, "b": 48},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.09, "yanchor": "bottom", "title": {"text": ""}},
    )  # fmt: skip


def _draw(figure: go.Figure, column: int, line: Sequence[Mapping[str, Any]], start: str, color: str) -> None:
    """The curves of one start in one column."""
    x, name = [row["iterations"] for row in line], _STARTS[start]
    common = {"x": x, "name": name, "legendgroup": start}
    curves = (
        (1, "psnr", "solid", f"{name}, %{{x}} steps: %{{y:.2f}} dB<extra></extra>"),
        (1, "psnr_worst", "dot", f"{name}, %{{x}} steps: worst %{{y:.2f}} dB<extra></extra>"),
        (2, "cpu_seconds", "solid", f"{name}, %{{x}} steps: %{{y:.2f}} s<extra></extra>"),
    )
    for row, key, dash, hover in curves:
        solid = dash == "solid"
        figure.add_trace(
            go.Scatter(
                **common, y=[r[key] for r in line], mode="lines+markers" if solid else "lines",
                line={"color": color, "width": 2 if solid else 1, "dash": dash}, marker={"size": 6},
                hovertemplate=hover, showlegend=column == 1 and key == "psnr",
            ), row, column,
        )  # fmt: skip


def _check(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        raise ValueError("rows must hold at least one measured cell, got none; run tests/benchmarks/bench_fitting.py")
    for number, row in enumerate(rows):
        missing = [name for name in _NEEDED if name not in row]
        if missing:
            raise ValueError(f"row {number} must have {', '.join(_NEEDED)}, got none of {', '.join(missing)}")
        if row["start"] not in _STARTS:
            raise ValueError(f"row {number}: start must be one of {', '.join(_STARTS)}, got {row['start']!r}")
