"""Methods side by side: how good they are, what that costs, what changes of splats do to them, what labels buy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .style import BELOW, CATEGORIES, INK, LOG_AXIS, PAGE, add_line, named_axis, panels, place, plain, shorten, titled

Rows = Sequence[Mapping[str, Any]]
_WAYS = {"active": "asked by the ranking", "random": "asked at random"}
_TARGET = 0.9  # average precision that is drawn as a dotted line


def _dots(figure: go.Figure, rows: Rows, number: int, x: Any, y: Any, scale: float = 1, **options: Any) -> None:
    """Add a dot for each row at ``x`` and ``y``, with its interval along the one that is None, its ``scale`` value."""
    value, low, high = (scale * np.array([row[key] for row in rows]) for key in ("value", "low", "high"))
    reach = {"array": high - value, "arrayminus": value - low, "thickness": 1.6, "width": 4}
    along: dict[str, Any] = {"x": value, "error_x": reach, "y": y} if x is None else {"x": x, "y": value}
    along |= {} if x is None else {"error_y": reach}
    marker = {"size": 9, "color": CATEGORIES[number % len(CATEGORIES)]}
    figure.add_scatter(**along, **{"mode": "markers", "marker": marker} | options)


def comparison_figure(rows: Rows, tasks: Mapping[str, tuple[str, str, str]], *, title: str = "") -> go.Figure:
    """Draw methods under each other, a panel for each task: a dot with its interval, a dotted line for chance.

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
    figure = panels(len(tasks), columns, list(tasks), gap=0.3, shared_yaxes=True, horizontal_spacing=0.06)
    for number, (name, (protocol, task, metric)) in enumerate(tasks.items()):
        chosen = [row for row in rows if (row["protocol"], row["metric"]) == (protocol, metric)]
        chosen = [row for row in chosen if row["task"].startswith(task)]
        chosen = [row for row in chosen if row["task"] == chosen[0]["task"]]
        if not chosen:
            raise ValueError(f"rows must hold {metric} of {protocol}, {task}, for the panel {name!r}, got none")
        for row in chosen:
            at = methods.index(row["method"])
            words: dict[str, Any] = {"text": [f"{100 * row['value']:.1f}"], "textposition": "top center"}
            words["hovertemplate"] = f"{plain(row['method'])}: %{{x:.1f}} % of {row['n']:,}<extra></extra>"
            words |= {"mode": "markers+text", "textfont": {"size": 10, "color": INK}, "showlegend": False}
            _dots(figure, [row], at, None, [at], 100, **words, **place(number, columns))
        if chosen[0]["chance"] is not None:
            line = {"dash": "dot", "width": 1.2, "color": INK}
            figure.add_vline(100 * chosen[0]["chance"], line=line, **place(number, columns))
    names = [shorten(name, 24) for name in methods]
    figure.update_yaxes(named_axis(names, down=True) | {"range": [len(methods) - 0.5, -0.7]})
    figure.update_xaxes(rangemode="tozero", ticksuffix=" %")
    tall = -(-len(tasks) // columns) * (70 + 34 * len(methods))
    note = "bars: 95 %, bootstrap over objects or episodes" + "; dotted: chance" * bool(figure.layout.shapes)
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
    spent = {row["method"]: row["value"] for row in cost if row["metric"] == "ms"}
    chosen = [row for row in quality if row["method"] in spent]
    if not chosen:
        raise ValueError(f"cost must hold the metric ms of a method of quality, got {', '.join(spent) or 'none'}")
    figure = go.Figure()
    for number, row in enumerate(chosen):
        name = plain(row["method"])
        words = {"name": name, "hovertemplate": f"%{{x:.1f}} ms, %{{y:.1f}} %<extra>{name}</extra>"}
        _dots(figure, [row], number, [spent[row["method"]]], None, 100, **words)
    times = np.log10([spent[row["method"]] for row in chosen])
    figure.update_xaxes(LOG_AXIS, title_text="milliseconds for one object, drawing included, one thread")
    figure.update_xaxes(range=[times.min() - 0.25, times.max() + 0.25])
    figure.update_yaxes(title_text=plain(axis), rangemode="tozero", ticksuffix=" %")
    note = f"{chosen[0]['n']:,} objects; bars: 95 %, bootstrap over objects"
    return titled(figure, title, note, width=PAGE, height=420, margin={"l": 70}, **BELOW)


def robustness_figure(rows: Rows, *, title: str = "Robustness") -> go.Figure:
    """Draw a card: for each change of the splats what every method's embedding and accuracy are after it.

    Args:
        rows: ``method``, ``task`` (the change), ``metric``, ``value``, ``low`` and ``high``, as `evaluation.Results`
            has them for the protocol robustness: of one method or several; metrics cosine and, if any, Top-5.
        title: of the figure.

    Raises:
        ValueError: without a row of the cosine.
    """
    names = {"cosine": "cosine to the unchanged embedding", "Top-5": "zero-shot Top-5"}
    metrics = [metric for metric in names if any(row["metric"] == metric for row in rows)]
    if "cosine" not in metrics:
        raise ValueError(f"rows must hold the metric cosine of the protocol robustness, got {len(rows)} without it")
    tasks, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "method"))
    shown = [names[metric] for metric in metrics]
    figure = panels(len(metrics), len(metrics), shown, shared_yaxes=True, horizontal_spacing=0.06)
    for column, metric in enumerate(metrics, start=1):
        at = {"row": 1, "col": column}
        for number, method in enumerate(methods):
            chosen = [row for row in rows if (row["metric"], row["method"]) == (metric, method)]
            shift = (number - (len(methods) - 1) / 2) * 0.7 / len(methods)
            y = np.array([tasks.index(row["task"]) for row in chosen]) + shift
            words: dict[str, Any] = {"name": plain(method), "legendgroup": str(number), "showlegend": column == 1} | at
            _dots(figure, chosen, number, None, y, hovertemplate="%{x:.3f}<extra></extra>", **words)
        for line in range(1, len(tasks)):
            figure.add_hline(line - 0.5, line={"width": 0.5, "color": INK, "dash": "dot"}, **at)
        if metric == "Top-5":
            figure.update_xaxes(tickformat=".0%", rangemode="tozero", **at)
    figure.update_yaxes(named_axis([shorten(task, 30) for task in tasks], down=True))
    note = "bars: 95 %, bootstrap over objects; methods that read views see pictures of the changed splats"
    height = 144 + max(22, 11 * len(methods)) * len(tasks)
    return titled(figure, title, note, head=22, width=PAGE, height=height, **BELOW)


def labels_figure(tasks: Mapping[str, Mapping[str, Any]], *, title: str = "") -> go.Figure:
    """Draw AP of the objects labelled from against labels, a panel for each task: asked actively and at random, and
    the text that asks for none.

    Args:
        tasks: name -> what `applications.curation.oracle_curves` gives, at least one.
        title: of the figure.
    """
    if not tasks:
        raise ValueError("needs tasks, got none")
    columns = min(3, len(tasks))
    names = [f"{name} ({curves['positives']} of {curves['objects']:,})" for name, curves in tasks.items()]
    figure = panels(len(tasks), columns, names, shared_yaxes=True, horizontal_spacing=0.04)
    for number, curves in enumerate(tasks.values()):
        at, labels = place(number, columns), np.asarray(curves["labels"])
        for color, (way, words) in enumerate(_WAYS.items()):
            values, low, high = np.asarray(curves[way]["pool"], np.float32).T
            band: dict[str, Any] = {"x": np.concatenate([labels, labels[::-1]]), "y": np.concatenate([high, low[::-1]])}
            band |= {"fill": "toself", "fillcolor": CATEGORIES[color], "opacity": 0.2, "line": {"width": 0}}
            figure.add_scatter(**band, mode="lines", hoverinfo="skip", showlegend=False, **at)
            hover = f"%{{x}} labels {words}: AP %{{y:.3f}}<extra></extra>"
            add_line(figure, labels, values, words, color, hover, legendgroup=way, showlegend=number == 0, **at)
        text = [curves["active"]["pool"][0][0]] * 2
        options: dict[str, Any] = {"dash": "dash", "legendgroup": "text", "showlegend": number == 0} | at
        add_line(figure, labels[[0, -1]], text, "text alone", 2, "text alone: AP %{y:.3f}<extra></extra>", **options)
        figure.add_hline(_TARGET, line={"dash": "dot", "width": 1, "color": INK}, **at)
        figure.update_xaxes(title_text="labels", **at)
    figure.update_yaxes(range=[0, 1.02])
    figure.update_yaxes(title_text="average precision", col=1)
    seeds = next(iter(tasks.values()))["seeds"]
    note = "AP of the objects labelled from, labels known; "
    note += f"mean of {seeds} seeds with 95 % intervals; dotted: {_TARGET:g}"
    return titled(figure, title, note, head=22, height=150 + 230 * -(-len(tasks) // columns), **BELOW)
