"""Methods side by side: how good they are at each task, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .style import CATEGORIES, INK, LOG_AXIS, PAGE, panels, place, plain, shorten, titled

Rows = Sequence[Mapping[str, Any]]


def comparison_figure(rows: Rows, tasks: Mapping[str, tuple[str, str, str]], *, title: str = "") -> go.Figure:
    """Draw methods under each other, a panel for each task: a dot with its interval, and a dotted line for chance.

    Args:
        rows: as `evaluation.Results` has them: ``protocol``, ``task``, ``metric``, ``method``, ``value``, ``low``,
            ``high``, ``chance``, ``n``; shares of 1.
        tasks: title of a panel -> protocol, beginning of the task's name, metric.
        title: of the figure.

    Raises:
        ValueError: when no row is of one of the tasks.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = min(3, len(tasks))
    spacing = {"shared_yaxes": True, "horizontal_spacing": 0.06}
    figure = panels(len(tasks), columns, list(tasks), gap=0.3, **spacing)
    for number, (name, (protocol, task, metric)) in enumerate(tasks.items()):
        chosen = [row for row in rows if (row["protocol"], row["metric"]) == (protocol, metric)]
        chosen = [row for row in chosen if row["task"].startswith(task)]
        chosen = [row for row in chosen if row["task"] == chosen[0]["task"]]
        if not chosen:
            raise ValueError(f"rows must hold {metric} of {protocol}, {task}, for the panel {name!r}, got none")
        for row in chosen:
            at = methods.index(row["method"])
            figure.add_scatter(
                x=[100 * row["value"]],
                y=[at],
                error_x=_reach(row),
                mode="markers+text",
                text=[f"{100 * row['value']:.1f}"],
                textposition="top center",
                textfont={"size": 10, "color": INK},
                marker={"size": 9, "color": CATEGORIES[at % len(CATEGORIES)]},
                showlegend=False,
                hovertemplate=f"{plain(row['method'])}: %{{x:.1f}} % of {row['n']:,}<extra></extra>",
                **place(number, columns),
            )
        if chosen[0]["chance"] is not None:
            line = {"dash": "dot", "width": 1.2, "color": INK}
            figure.add_vline(100 * chosen[0]["chance"], line=line, **place(number, columns))
    names = [shorten(name, 24) for name in methods]
    figure.update_yaxes(tickvals=list(range(len(methods))), ticktext=names, range=[len(methods) - 0.5, -0.7])
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(rangemode="tozero", ticksuffix=" %")
    tall = -(-len(tasks) // columns) * (70 + 34 * len(methods))
    note = "bars: 95 %, bootstrap over objects or episodes; dotted: chance"
    return titled(figure, title, note, head=24, width=PAGE, height=110 + tall, margin={"l": 110})


def cost_figure(quality: Rows, cost: Rows, axis: str, *, title: str = "") -> go.Figure:
    """Draw quality against milliseconds for an object, a dot for each method: up and to the left is better.

    Args:
        quality: rows of one task and metric, shares of 1, see `comparison_figure`.
        cost: rows of the metric ``ms``; methods that have none are left out.
        axis: what the quality is.
        title: of the figure.

    Raises:
        ValueError: when no method has both.
    """
    spent = {row["method"]: row for row in cost if row["metric"] == "ms"}
    chosen = [row for row in quality if row["method"] in spent]
    if not chosen:
        raise ValueError(f"cost must hold the metric ms of a method of quality, got {', '.join(spent) or 'none'}")
    figure = go.Figure()
    for number, row in enumerate(chosen):
        time = spent[row["method"]]
        figure.add_scatter(
            x=[time["value"]],
            y=[100 * row["value"]],
            error_y=_reach(row),
            mode="markers",
            name=plain(row["method"]),
            marker={"size": 13, "color": CATEGORIES[number % len(CATEGORIES)]},
            hovertemplate=f"%{{x:.1f}} ms, %{{y:.1f}} %<extra>{plain(row['method'])}</extra>",
        )
    times = np.log10([spent[row["method"]]["value"] for row in chosen])
    figure.update_xaxes(LOG_AXIS, title_text="milliseconds for one object, drawing included, one thread")
    figure.update_xaxes(range=[times.min() - 0.25, times.max() + 0.25])
    figure.update_yaxes(title_text=plain(axis), rangemode="tozero", ticksuffix=" %")
    legend = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"}
    note = f"{chosen[0]['n']:,} objects; bars: 95 %, bootstrap over objects"
    return titled(figure, title, note, width=PAGE, height=420, legend=legend, margin={"l": 70, "b": 84})


def _reach(row: Mapping[str, Any]) -> dict[str, Any]:
    """Both arms of an interval, in percent."""
    up, down = 100 * (row["high"] - row["value"]), 100 * (row["value"] - row["low"])
    return {"type": "data", "array": [up], "arrayminus": [down], "thickness": 1.6, "width": 4}
