"""The look that all figures share, and colours as small numbers.

Text and lines are a middle grey on a transparent ground, legible on white and on black alike. Categories use the
palette of Okabe and Ito (2008), quantities use cividis; both survive the common colour-vision deficiencies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from PIL import Image

INK = "#7a808a"
GRID = "rgba(128,134,145,0.28)"
GRID_3D = "#9aa0aa"
"""Opaque: plotly's 3D axes do not draw translucent lines."""
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c7a00", "#808080")
RED, GREEN, BLUE = "#d55e00", "#009e73", "#0072b2"
QUANTITY = "Cividis"

_AXIS = {
    "gridcolor": GRID,
    "linecolor": GRID,
    "zerolinecolor": GRID,
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
        "annotationdefaults": {"font": {"family": FONT, "size": 13, "color": INK}, "showarrow": False},
    }
)
COLORBAR: dict[str, Any] = {
    "thickness": 12,
    "len": 0.6,
    "outlinewidth": 0,
    "tickfont": {"size": 10},
    "title": {"side": "right"},
}


class Palette(NamedTuple):
    """Colours as an index per point and a table; what plotly draws fast."""

    rows: np.ndarray
    """``[M]`` uint8, row of ``table`` of each point."""
    table: np.ndarray
    """``[P, 3]`` uint8, 1 <= P <= 256."""

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


def plural(count: int, noun: str) -> str:
    """``"1 gaussian"``, ``"2,000 gaussians"``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
