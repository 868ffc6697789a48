"""What changes of splats do to encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .style import CATEGORIES, INK, PAGE, panels, plain, shorten, titled


def robustness_figure(rows: Sequence[Mapping[str, Any]], *, title: str = "Robustness") -> go.Figure:
    """Draw a card: for each change of the splats what every method's embedding and accuracy are after it.

    Args:
        rows: ``method``, ``task`` (the change), ``metric``, ``value``, ``low`` and ``high``, as `evaluation.Results`
            has them for the protocol robustness: of one method or several; metrics cosine and, if any, Top-5.
        title: of the figure.

    Raises:
        ValueError: without a row of the cosine.
    """
    metrics = [metric for metric in ("cosine", "Top-5") if any(row["metric"] == metric for row in rows)]
    if "cosine" not in metrics:
        raise ValueError(f"rows must hold the metric cosine of the protocol robustness, got {len(rows)} without it")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    names = {"cosine": "cosine to the unchanged embedding", "Top-5": "zero-shot Top-5"}
    shown = [names[metric] for metric in metrics]
    figure = panels(len(metrics), len(metrics), shown, shared_yaxes=True, horizontal_spacing=0.06)
    for column, metric in enumerate(metrics, start=1):
        for number, method in enumerate(methods):
            found = [row for row in rows if (row["metric"], row["method"]) == (metric, method)]
            value, low, high = (np.array([row[key] for row in found]) for key in ("value", "low", "high"))
            shift = (number - (len(methods) - 1) / 2) * 0.7 / len(methods)
            figure.add_scatter(
                x=value,
                y=np.array([tasks.index(row["task"]) for row in found]) + shift,
                error_x={"array": high - value, "arrayminus": value - low, "thickness": 1.2, "width": 2},
                mode="markers",
                marker={"size": 7, "color": CATEGORIES[number % len(CATEGORIES)]},
                name=plain(method),
                legendgroup=str(number),
                showlegend=column == 1,
                hovertemplate="%{x:.3f}<extra></extra>",
                row=1,
                col=column,
            )
        for line in range(1, len(tasks)):
            figure.add_hline(line - 0.5, line={"width": 0.5, "color": INK, "dash": "dot"}, row=1, col=column)
        if metric == "Top-5":
            figure.update_xaxes(tickformat=".0%", rangemode="tozero", row=1, col=column)
    figure.update_yaxes(
        tickvals=list(range(len(tasks))),
        ticktext=[shorten(task, 30) for task in tasks],
        range=[len(tasks) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
    note = "bars: 95 %, bootstrap over objects; methods that read views see pictures of the changed splats"
    height = 130 + max(22, 11 * len(methods)) * len(tasks)
    return titled(figure, title, note, head=22, width=PAGE, height=height, legend=legend, margin={"b": 70})
