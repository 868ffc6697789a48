"""What labels buy: average precision against labels spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .style import CATEGORIES, INK, add_line, panels, place, titled

_WAYS = {"active": "asked by the ranking", "random": "asked at random"}
_HALVES = {"pool": "of the objects labelled from, labels known", "held_out": "of objects never labelled"}


def labels_figure(
    tasks: Mapping[str, Mapping[str, Any]], half: str = "pool", *, target: float = 0.9, title: str = ""
) -> go.Figure:
    """Draw AP against labels, a panel for each task: asked actively and at random, and the text that asks for none.

    Args:
        tasks: name -> what `applications.curation.oracle_curves` gives.
        half: "pool" for the objects labelled from, "held_out" for those never labelled.
        target: drawn as a dotted line.
        title: of the figure.

    Raises:
        ValueError: for no task, or another half.
    """
    if not tasks or half not in _HALVES:
        raise ValueError(f"needs tasks, and a half of {', '.join(_HALVES)}, got {list(tasks)} and {half!r}")
    columns = min(3, len(tasks))
    names = [f"{name} ({curves['positives']} of {curves['objects']:,})" for name, curves in tasks.items()]
    figure = panels(len(tasks), columns, names, shared_yaxes=True, horizontal_spacing=0.04)
    for number, curves in enumerate(tasks.values()):
        at, labels = place(number, columns), np.asarray(curves["labels"])
        for color, (way, words) in enumerate(_WAYS.items()):
            values, low, high = np.asarray(curves[way][half], np.float32).T
            band = {"x": np.concatenate([labels, labels[::-1]]), "y": np.concatenate([high, low[::-1]])}
            look: dict[str, Any] = {
                "fill": "toself",
                "fillcolor": CATEGORIES[color],
                "opacity": 0.2,
                "line": {"width": 0},
            }
            figure.add_scatter(**band, **look, mode="lines", hoverinfo="skip", showlegend=False, **at)
            hover = f"%{{x}} labels {words}: AP %{{y:.3f}}<extra></extra>"
            add_line(figure, labels, values, words, color, hover, legendgroup=way, showlegend=number == 0, **at)
        text = [curves["active"][half][0][0]] * 2
        options: dict[str, Any] = {"dash": "dash", "legendgroup": "text", "showlegend": number == 0}
        add_line(
            figure, labels[[0, -1]], text, "text alone", 2, "text alone: AP %{y:.3f}<extra></extra>", **options, **at
        )
        figure.add_hline(target, line={"dash": "dot", "width": 1, "color": INK}, **at)
        figure.update_xaxes(title_text="labels", **at)
    figure.update_yaxes(range=[0, 1.02])
    figure.update_yaxes(title_text="average precision", col=1)
    seeds = next(iter(tasks.values()))["seeds"]
    note = f"AP {_HALVES[half]}; mean of {seeds} seeds with 95 % intervals; dotted: {target:g}"
    legend = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"}
    height = 150 + 230 * -(-len(tasks) // columns)
    return titled(figure, title, note, head=22, height=height, margin={"b": 84}, legend=legend)
