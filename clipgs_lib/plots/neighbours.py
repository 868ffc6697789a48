"""Nearest neighbours as a sheet of thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from torch import Tensor

from .pictures import data_uri, to_bytes
from .style import INK, plain, shorten, titled

THUMB = 112
"""Pixels of a side of a thumbnail."""


class Neighbour(NamedTuple):
    """One picture on a sheet of neighbours."""

    picture: np.ndarray | Tensor
    """``[H, W, 3]`` uint8, or floats in ``[0, 1]``."""
    caption: str
    score: float


def neighbours_figure(
    queries: Sequence[str | np.ndarray | Tensor], rows: Sequence[Sequence[Neighbour]], *, title: str = ""
) -> go.Figure:
    """Lay out each query and its nearest neighbours as a row of thumbnails with captions and scores.

    Args:
        queries: texts or pictures, one per row.
        rows: the neighbours of each, best first; as many pictures as go in a row is up to the caller.
        title: of the sheet.

    Returns:
        A figure of fixed size; pictures are shrunk to thumbnails of a few kilobytes.

    Raises:
        ValueError: when there are no rows, or the counts differ, or a picture is none.
    """
    if not rows or len(queries) != len(rows):
        raise ValueError(f"needs one query per row, got {len(queries)} and {len(rows)} rows")
    columns = max(map(len, rows))
    if columns == 0:
        raise ValueError("rows must hold at least one neighbour, got none")
    wide, tall, left, top = THUMB + 14, THUMB + 44, 160, 14 + (44 if title else 0)
    figure = go.Figure()
    for row, (query, hits) in enumerate(zip(queries, rows, strict=True)):
        y = -row * tall
        if isinstance(query, str):
            words = wrap(query[:120], 20, max_lines=5, placeholder=" …") or ["(empty)"]
            text = "<br>".join(map(plain, words))
            _write(figure, 0, y - THUMB / 2, f"<b>{text}</b>", "left", "middle", 13)
        else:
            _show(figure, query, 0, y, f"queries[{row}]")
        for col, one in enumerate(hits):
            x = left + col * wide
            _show(figure, one.picture, x, y, f"rows[{row}][{col}]")
            _write(figure, x, y - THUMB - 2, f"{shorten(one.caption, 18)}<br>{one.score:.3f}", "left", "top", 10)
    width, height = left + columns * wide, len(rows) * tall
    figure.update_xaxes(visible=False, range=[0, width], fixedrange=True)
    figure.update_yaxes(visible=False, range=[4 - height, 0], fixedrange=True)
    return titled(
        figure,
        title,
        width=width + 28,
        height=height - 4 + top + 8,
        margin={"l": 14, "r": 14, "t": top, "b": 8},
    )


def _show(figure: go.Figure, picture: Any, x: float, y: float, name: str) -> None:
    """Put a picture's thumbnail with its left top corner at (x, y)."""
    thumb = Image.fromarray(to_bytes(picture, name))
    thumb.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    source = data_uri(thumb, "WEBP", quality=82, method=6)
    figure.add_layout_image(source=source, x=x, y=y, sizex=THUMB, sizey=THUMB, xref="x", yref="y", sizing="contain",
                            xanchor="left", yanchor="top", layer="below")  # fmt: skip
    figure.add_shape(type="rect", x0=x, x1=x + THUMB, y0=y, y1=y - THUMB, line={"color": INK, "width": 1})


def _write(figure: go.Figure, x: float, y: float, text: str, xanchor: str, yanchor: str, size: int) -> None:
    figure.add_annotation(x=x, y=y, text=text, xref="x", yref="y", xanchor=xanchor, yanchor=yanchor, align=xanchor,
                          font={"size": size})  # fmt: skip
