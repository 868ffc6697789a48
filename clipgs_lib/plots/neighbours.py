"""Nearest neighbours as a sheet of thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from torch import Tensor

from .images import to_bytes
from .learning import shorten
from .style import GREEN, INK, RED, TEMPLATE

THUMB = 112
"""Pixels of a side of a thumbnail."""


class Neighbour(NamedTuple):
    """One picture on a sheet of neighbours."""

    picture: np.ndarray | Tensor
    """``[H, W, 3]`` uint8, or floats in ``[0, 1]``."""
    caption: str
    score: float
    right: bool | None = None
    """Whether it is what was asked for; None when nobody knows."""


def neighbours_figure(
    queries: Sequence[str | np.ndarray | Tensor],
    rows: Sequence[Sequence[Neighbour]],
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> go.Figure:
    """Lay out each query and its nearest neighbours as a row of thumbnails with captions and scores.

    Args:
        queries: texts or pictures, one per row.
        rows: the neighbours of each, best first; as many pictures as go in a row is up to the caller.
        title: of the sheet.
        notes: a line under each query (such as "before", "after"), or none.

    Returns:
        A `plotly.graph_objects.Figure` of fixed size; pictures are shrunk to thumbnails of a few kilobytes.

    Raises:
        ValueError: when there are no rows, or the counts differ, or a picture is none.
    """
    if not rows or len(queries) != len(rows) or (notes and len(notes) != len(rows)):
        raise ValueError(
            f"needs one query (and note) per row, got {len(queries)}, {len(rows)} rows, {len(notes)} notes"
        )
    columns = max(map(len, rows))
    if columns == 0:
        raise ValueError("rows must hold at least one neighbour, got none")
    wide, tall, left, top = THUMB + 14, THUMB + 44, 160, 14 + (44 if title else 0)
    figure = go.Figure()
    for row, (query, found) in enumerate(zip(queries, rows, strict=True)):
        y = -row * tall
        if isinstance(query, str):
            words = wrap(query[:120], 20, max_lines=5, placeholder=" …") or ["(empty)"]
            text = "<br>".join(escape(line, quote=False) for line in words)
            _write(figure, 0, y - THUMB / 2, f"<b>{text}</b>", "left", "middle", 13)
        else:
            _show(figure, query, 0, y, f"queries[{row}]")
        if notes:
            _write(figure, 0, y - THUMB - 2, shorten(notes[row], 26), "left", "top", 11)
        for col, one in enumerate(found):
            x = left + col * wide
            _show(figure, one.picture, x, y, f"rows[{row}][{col}]", one.right)
            mark = {True: "✓ ", False: "✗ ", None: ""}[one.right]
            _write(figure, x, y - THUMB - 2, f"{shorten(one.caption, 18)}<br>{mark}{one.score:.3f}", "left", "top", 10)
    width, height = left + columns * wide, len(rows) * tall
    figure.update_xaxes(visible=False, range=[0, width], fixedrange=True)
    figure.update_yaxes(visible=False, range=[4 - height, 0], fixedrange=True)
    figure.update_layout(
        template=TEMPLATE,
        width=width + 28,
        height=height - 4 + top + 8,
        margin={"l": 14, "r": 14, "t": top, "b": 8},
        title={"text": escape(title, quote=False)} if title else None,
    )
    return figure


def _show(figure: go.Figure, picture: Any, x: float, y: float, name: str, right: bool | None = None) -> None:
    """Put a picture's thumbnail with its left top corner at (x, y), framed by whether it is right."""
    thumb = Image.fromarray(to_bytes(picture, name))
    thumb.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    thumb.save(stream, format="WEBP", quality=82, method=6)
    source = "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
    figure.add_layout_image(source=source, x=x, y=y, sizex=THUMB, sizey=THUMB, xref="x", yref="y", sizing="contain",
                            xanchor="left", yanchor="top", layer="below")  # fmt: skip
    color, width = {True: (GREEN, 3), False: (RED, 2), None: (INK, 1)}[right]
    figure.add_shape(type="rect", x0=x, x1=x + THUMB, y0=y, y1=y - THUMB, line={"color": color, "width": width})


def _write(figure: go.Figure, x: float, y: float, text: str, xanchor: str, yanchor: str, size: int) -> None:
    figure.add_annotation(x=x, y=y, text=text, xref="x", yref="y", xanchor=xanchor, yanchor=yanchor, align=xanchor,
                          font={"size": size})  # fmt: skip
