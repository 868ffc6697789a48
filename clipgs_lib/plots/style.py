"""The look that all figures share, and colours as small numbers.

Text and lines are a middle grey on a transparent ground, legible on white and on black alike. Categories use the
palette of Okabe and Ito (2008), quantities use cividis; both survive the common colour-vision deficiencies.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots
from torch import Tensor

INK = "#7a808a"
GRID = "rgba(128,134,145,0.28)"
GRID_3D = "#9aa0aa"  # opaque: plotly's 3D axes do not draw translucent lines
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c7a00", "#808080")
RED, GREEN, BLUE = "#d55e00", "#009e73", "#0072b2"
QUANTITY = "Cividis"
MAX_POINTS = 50_000  # above this a browser's plotly scene stops turning smoothly
PAGE = 760  # pixels that every figure fits: what a page 900 pixels wide leaves to the output of a cell
_TICKS = [float(f"{digit}e{power}") for power in range(-6, 7) for digit in (1, 2, 5)]
LOG_AXIS = {"type": "log", "tickvals": _TICKS, "ticktext": [f"{value:,g}" for value in _TICKS]}
"""A logarithmic axis whose every tick has its whole number, which plotly's own have not."""

_AXIS = {
    "gridcolor": GRID,
    "linecolor": GRID,
    "zerolinecolor": GRID,
    "automargin": True,
    "ticks": "outside",
    "ticklen": 3,
    "tickcolor": GRID,
    "tickfont": {"size": 10},
    "title": {"font": {"size": 12}, "standoff": 6},
}
_AXIS_3D = {
    "showbackground": False,
    "gridcolor": GRID_3D,
    "linecolor": GRID_3D,
    "zeroline": False,
    "showspikes": False,
    "nticks": 5,
    "tickfont": {"size": 10},
    "title": {"font": {"size": 12}},
}
_CLEAR = "rgba(0,0,0,0)"
BELOW: dict[str, Any] = {
    "margin_b": 84,
    "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom"},
}
"""Layout of a figure with its legend below, and room for it."""

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": INK},
        "title": {
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"l": 16, "t": 14},
            "font": {"size": 16},
            "subtitle": {"font": {"size": 12}},
        },
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "colorway": list(CATEGORIES),
        "margin": {"l": 16, "r": 16, "t": 72, "b": 16},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "scene": {"bgcolor": _CLEAR, "xaxis": _AXIS_3D, "yaxis": _AXIS_3D, "zaxis": _AXIS_3D},
        "legend": {"bgcolor": _CLEAR, "itemsizing": "constant", "font": {"size": 11}},
        "modebar": {"bgcolor": _CLEAR, "color": GRID_3D, "activecolor": INK},
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "shapedefaults": {"line": {"color": INK}},
        "annotationdefaults": {"font": {"family": FONT, "size": 13, "color": INK}, "showarrow": False},
    }
)


def titled(figure: go.Figure, title: str, subtitle: str = "", *, head: float = 0, **layout: Any) -> go.Figure:
    """The figure with the house's look, its title and subtitle (plain text), and ``layout`` as plotly takes it.

    ``head`` are pixels kept free between them and the plot, such as for the titles of panels.
    """
    words = {"text": plain(title), "subtitle": {"text": plain(subtitle)}}
    top = 16 + (28 if title or subtitle else 0) + (24 if subtitle else 0) + head
    figure.update_layout(template=TEMPLATE, title=words if title or subtitle else None, margin_t=top)
    return figure.update_layout(**layout)


def panels(count: int, columns: int, titles: Sequence[str] = (), *, gap: float = 0.34, **spacing: Any) -> go.Figure:
    """``count`` small plots row by row, each under its title; places that are left over stay empty.

    Args:
        count: of plots.
        columns: plots in a row.
        titles: one per plot, plain text, or none.
        gap: between two rows, as a share of their height, roughly.
        **spacing: more for plotly's `make_subplots`.
    """
    rows = max(1, -(-count // columns))
    names = [plain(title) for title in titles] or None
    figure = make_subplots(rows, columns, subplot_titles=names, **{"vertical_spacing": gap / (rows + 0.2)} | spacing)
    figure.update_annotations(font={"size": 13, "color": INK})
    for number in range(count, rows * columns):
        figure.update_xaxes(visible=False, **place(number, columns))
        figure.update_yaxes(visible=False, **place(number, columns))
    return figure


def place(number: int, columns: int) -> dict[str, int]:
    """Row and column of the panel ``number``, as plotly counts them."""
    return {"row": number // columns + 1, "col": number % columns + 1}


def named_axis(names: Sequence[str], every: int = 1, *, down: bool = False) -> dict[str, Any]:
    """An axis with ``names`` at 0, 1, ... (by number, since plotly would merge equal names), every n-th written."""
    places, ends = list(range(0, len(names), every)), [-0.5, len(names) - 0.5]
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": [names[place] for place in places]}
    return ticks | {"range": ends[::-1] if down else ends, "showgrid": False, "zeroline": False}


def color_bar(text: str, **options: Any) -> dict[str, Any]:
    """A slim colour bar with its title (plain text) along it."""
    title = {"side": "right", "text": plain(text)}
    return {"thickness": 12, "len": 0.6, "outlinewidth": 0, "tickfont": {"size": 10}, "title": title} | options


def add_line(figure: go.Figure, x: Any, y: Any, name: str, number: int, hover: str, **options: Any) -> None:
    """Add a line to a figure or panel, in the colour of its number and with a name (plain text); y goes as float32."""
    look = {"color": CATEGORIES[number % len(CATEGORIES)], "width": 2, "dash": options.pop("dash", "solid")}
    common = {"name": plain(name), "line": look, "hovertemplate": hover} | {"mode": "lines"} | options
    figure.add_scatter(x=x, y=np.asarray(y, np.float32), **common)


def scatter3d(points: np.ndarray, name: str, hover: str, **options: Any) -> go.Scatter3d:
    """Points ``[M, 3]`` in space, sent as float32, with a name (plain text) and what hovering says (markup)."""
    x, y, z = np.ascontiguousarray(np.asarray(points, np.float32).T)
    return go.Scatter3d(x=x, y=y, z=z, name=plain(name), hovertemplate=hover + "<extra></extra>", **options)


def plain(text: str) -> str:
    """A text with its markup made harmless for plotly."""
    return escape(text, quote=False)


def shorten(text: str, most: int) -> str:
    """At most ``most`` characters of a text on one line, with its markup made harmless."""
    text = " ".join(str(text).split())
    return plain(text if len(text) <= most else text[: most - 1] + "…")


def to_array(values: Any, kind: Any = None) -> np.ndarray:
    """A tensor from any device, or what numpy takes, as an array."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, kind)


class Palette(NamedTuple):
    """Colours as an index per point and a table; what plotly draws fast."""

    rows: np.ndarray  # [M] uint8, row of table of each point
    table: np.ndarray  # [P, 3] uint8, 1 <= P <= 256

    @property
    def colorscale(self) -> list[list[Any]]:
        """The table as a plotly colour scale over ``cmin = 0, cmax = 255``; an index falls exactly on its stop."""
        stops = [[row / 255, "#{:02x}{:02x}{:02x}".format(*color)] for row, color in enumerate(self.table)]
        return stops if len(stops) == 256 else [*stops, [1, stops[-1][1]]]


def quantize_colors(colors: np.ndarray) -> Palette:
    """Reduce true colours to at most 256 by median cut.

    Per-point ``rgb()`` strings cost plotly some 150 times what an integer index into a colour scale costs.

    Args:
        colors: ``[M, 3]`` in ``[0, 1]``; clipped. Up to 256 distinct colours are kept exactly.
    """
    bytes_ = np.round(np.clip(colors, 0, 1) * 255).astype(np.uint8)  # [M, 3]
    if len(bytes_) == 0:
        return Palette(np.zeros(0, np.uint8), np.zeros((1, 3), np.uint8))
    packed = bytes_.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    distinct, inverse = np.unique(packed, return_inverse=True)
    if len(distinct) <= 256:
        table = np.stack([distinct >> 16, (distinct >> 8) & 255, distinct & 255], axis=1).astype(np.uint8)
        return Palette(inverse.astype(np.uint8), table)
    picture = Image.fromarray(bytes_[None]).quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1)
    table = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
    return Palette(np.asarray(picture)[0].astype(np.uint8), table)
