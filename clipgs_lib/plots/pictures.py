"""Rendered pictures in a row, and where two of them differ."""

import base64
import io
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.colors import get_colorscale, hex_to_rgb
from torch import Tensor

from .style import PAGE, QUANTITY, color_bar, panels, place, plain, titled, to_array

GAP = 8
TALLEST = 420  # pixels of a picture's height at most
MOST = 8  # pictures in a row; more are laid out in several rows


def image_row(images: Sequence[Tensor | np.ndarray], titles: Sequence[str] = (), *, title: str = "") -> go.Figure:
    """Lay pictures out in one row (more than 8 in several), each above its caption, at their own proportions.

    Args:
        images: one or more pictures ``[H, W, 3]`` or ``[H, W]``, floats in ``[0, 1]`` (clipped) or uint8; embedded
            as PNG, so the figure weighs what the PNGs weigh.
        titles: captions, one per picture, or none.
        title: of the whole row.

    Returns:
        A figure of fixed size, at most 760 pixels wide.

    Raises:
        ValueError: for no pictures, another shape or type, or another number of titles.
    """
    return _row(images, titles, title, PAGE)


def _row(images: Sequence[Tensor | np.ndarray], titles: Sequence[str], title: str, most: int) -> go.Figure:
    pictures = [to_bytes(image, f"images[{k}]") for k, image in enumerate(images)]
    if not pictures:
        raise ValueError("images must hold at least one picture, got none")
    if titles and len(titles) != len(pictures):
        raise ValueError(f"titles must name each of the {len(pictures)} pictures, got {len(titles)}")
    count = len(pictures)
    rows = -(-count // MOST)
    columns = count if rows == 1 else 2 * -(-count // (2 * rows))  # even, so that pairs stay together
    ratios = [picture.shape[1] / picture.shape[0] for picture in pictures]
    widths = [max(ratios[column::columns]) for column in range(columns)]
    tall = min(TALLEST, (most - GAP * (columns + 1)) / sum(widths))
    lines = [wrap(str(text), max(6, int(tall * widths[k % columns] / 6.6))) for k, text in enumerate(titles)]
    below = 16 * max(map(len, lines), default=0) + GAP
    inner, high = tall * sum(widths) + GAP * (columns - 1), rows * (tall + below) - below
    spacing = {"horizontal_spacing": GAP / inner, "vertical_spacing": below / high}
    figure = panels(count, columns, column_widths=widths, **spacing)
    for k, picture in enumerate(pictures):
        at, source = place(k, columns), data_uri(Image.fromarray(picture), "PNG", optimize=True)
        figure.add_trace(go.Image(source=source, hoverinfo="skip"), **at)
    for k, words in enumerate(lines):
        figure.add_annotation(
            text="<br>".join(map(plain, words)), x=0.5, y=0, xref="x domain", yref="y domain", yanchor="top",
            yshift=-2, font={"size": 12}, **place(k, columns),
        )  # fmt: skip
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain")
    titled(figure, title, margin={"l": GAP, "r": GAP, "b": below})
    top = figure.layout.margin.t
    return figure.update_layout(width=round(inner + 2 * GAP), height=round(high + top + below))


def difference_figure(
    a: Tensor | np.ndarray,
    b: Tensor | np.ndarray,
    *,
    names: tuple[str, str] = ("first", "second"),
    limit: float = 0.1,
) -> go.Figure:
    """Show two pictures of the same view and the error between them, with its PSNR.

    Args:
        a: ``[H, W, 3]`` or ``[H, W]``, floats in ``[0, 1]`` or uint8.
        b: another of the same size.
        names: of the two.
        limit: the error that gets the brightest colour, in ``(0, 1]``.

    Returns:
        A figure: first, second, error with its colour bar.

    Raises:
        ValueError: when the sizes differ or ``limit`` is out of range.
    """
    error = np.abs(_pair(a, b))
    mean_square = float((error**2).mean())
    psnr = "identical" if mean_square == 0 else f"PSNR {-10 * np.log10(mean_square):.2f} dB"
    heading, captions = f"{names[0]} against {names[1]}: {psnr}", [*names, "mean absolute error of the channels"]
    figure = _row([a, b, error_image(a, b, limit=limit)], captions, heading, PAGE - 80)
    bar = color_bar("error, 1 = full range", len=1, x=1.01)
    figure.add_trace(
        go.Scatter(x=[None], y=[None], mode="markers", showlegend=False, hoverinfo="skip",
                   marker={"color": [0], "cmin": 0, "cmax": limit, "colorscale": QUANTITY, "colorbar": bar})
    )  # fmt: skip
    return figure.update_layout(width=figure.layout.width + 80, margin_r=GAP + 80)


def error_image(a: Tensor | np.ndarray, b: Tensor | np.ndarray, *, limit: float = 0.1) -> np.ndarray:
    """Colour the mean absolute error of the channels, dark blue for none and yellow from ``limit`` upwards.

    Arguments and errors are those of `difference_figure`.

    Returns:
        ``[H, W, 3]`` uint8, for `image_row` or `PIL.Image.fromarray`.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit must lie in (0, 1], got {limit}")
    level = np.clip(np.abs(_pair(a, b)).mean(axis=2) / limit, 0, 1)  # [H, W]
    stops = get_colorscale(QUANTITY)
    table = np.array([hex_to_rgb(color) for _, color in stops], np.float64)
    channels = [np.interp(level, [at for at, _ in stops], table[:, k]) for k in range(3)]
    return np.round(np.stack(channels, axis=2)).astype(np.uint8)


def to_bytes(image: Tensor | np.ndarray, name: str = "image") -> np.ndarray:
    """A picture as ``[H, W, 3]`` uint8; NaN becomes 0.

    Raises:
        ValueError: for another shape, an empty picture, or integers other than uint8.
    """
    return np.ascontiguousarray(np.round(255 * _to_unit(image, name)).astype(np.uint8))


def _to_unit(image: Tensor | np.ndarray, name: str) -> np.ndarray:
    """``[H, W, 3]`` in ``[0, 1]``; NaN becomes 0."""
    array = to_array(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)) or array.size == 0:
        raise ValueError(f"{name} must have shape [H, W, 3], [H, W, 1] or [H, W], got {list(array.shape)}")
    if array.dtype == np.uint8:
        array = array / 255.0
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} must hold floats in [0, 1] or uint8, got {array.dtype}")
    array = np.clip(np.nan_to_num(array.astype(np.float64), nan=0.0), 0, 1).reshape(*array.shape[:2], -1)
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _pair(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` difference, not rounded to bytes first unless the inputs are bytes."""
    planes = [_to_unit(image, name) for image, name in ((a, "a"), (b, "b"))]
    if planes[0].shape != planes[1].shape:
        sizes = " and ".join("x".join(map(str, plane.shape[:2])) for plane in planes)
        raise ValueError(f"a and b must be pictures of the same size [H, W], got {sizes}")
    return planes[0] - planes[1]


def data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    """The picture within an address, as a file of a kind that PIL writes with ``options``."""
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(stream.getvalue()).decode()
