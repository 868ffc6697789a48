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
from .style import GREEN, INK, PAGE, RED, plain, shorten, titled

THUMB = 112  # pixels of a side of a thumbnail, less when many stand in a row
LEFT = 132


class Neighbour(NamedTuple):
    """One picture on a sheet of neighbours."""

    picture: np.ndarray | Tensor  # [H, W, 3] uint8, or floats in [0, 1]
    caption: str
    score: float
    right: bool | None = None  # whether it is what was asked for, for a green or a red frame; None when nobody knows


def neighbours_figure(
    queries: Sequence[str | np.ndarray | Tensor | tuple[str, np.ndarray | Tensor]],
    rows: Sequence[Sequence[Neighbour]],
    *,
    title: str = "",
) -> go.Figure:
    """Lay out each query and its nearest neighbours as a row of thumbnails with captions, scores and verdicts.

    Args:
        queries: texts, pictures, or texts with pictures, one per row.
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
    side = max(32, min(THUMB, (PAGE - 28 - LEFT) // columns - 12))
    wide, tall = side + 12, side + 44
    figure = go.Figure()
    for row, (query, hits) in enumerate(zip(queries, rows, strict=True)):
        y = -row * tall
        text, picture = query if isinstance(query, tuple) else (query, None) if isinstance(query, str) else ("", query)
        lines = "<br>".join(map(plain, wrap(text[:120], 15, max_lines=6, placeholder=" …")))
        if picture is None:
            _write(figure, 0, y - side / 2, f"<b>{lines or '(empty)'}</b>", "middle", 13)
        else:
            _show(figure, picture, (0, y), side, INK, f"queries[{row}]")
            _write(figure, 0, y - side - 2, f"<b>{lines}</b>", "top", 10)
        for col, one in enumerate(hits):
            x = LEFT + col * wide
            color, verdict = {None: (INK, ""), True: (GREEN, ", right"), False: (RED, ", wrong")}[one.right]
            _show(figure, one.picture, (x, y), side, color, f"rows[{row}][{col}]")
            words = f"{shorten(one.caption, side // 6)}<br>{one.score:.3f}{verdict}"
            _write(figure, x, y - side - 2, words, "top", 10)
    width, height = LEFT + columns * wide, len(rows) * tall
    figure.update_xaxes(visible=False, range=[0, width], fixedrange=True)
    figure.update_yaxes(visible=False, range=[4 - height, 0], fixedrange=True)
    titled(figure, title, margin={"l": 14, "r": 14, "b": 8}, width=width + 28)
    return figure.update_layout(height=height - 4 + figure.layout.margin.t + 8)


def _show(figure: go.Figure, picture: Any, corner: tuple[float, float], side: int, color: str, name: str) -> None:
    """Put a picture's thumbnail with its left top corner at (x, y), in a frame."""
    thumb, (x, y) = Image.fromarray(to_bytes(picture, name)), corner
    thumb.thumbnail((side, side), Image.Resampling.LANCZOS)
    source = data_uri(thumb, "WEBP", quality=82, method=6)
    figure.add_layout_image(source=source, x=x, y=y, sizex=side, sizey=side, xref="x", yref="y", sizing="contain",
                            xanchor="left", yanchor="top", layer="below")  # fmt: skip
    line = {"color": color, "width": 1 if color == INK else 2}
    figure.add_shape(type="rect", x0=x, x1=x + side, y0=y, y1=y - side, line=line)


def _write(figure: go.Figure, x: float, y: float, text: str, yanchor: str, size: int) -> None:
    figure.add_annotation(x=x, y=y, text=text, xref="x", yref="y", xanchor="left", yanchor=yanchor, align="left",
                          font={"size": size})  # fmt: skip
