"""Rendered pictures in a row, and where two of them differ."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.colors import get_colorscale, hex_to_rgb
from torch import Tensor

from .style import QUANTITY, color_bar, panels, titled, to_array

ROW_WIDTH = 1000
"""Pixels of a row of pictures, titles and gaps included; a notebook's output area is about as wide."""
GAP = 8


def image_row(images: Sequence[Tensor | np.ndarray], titles: Sequence[str] = (), *, title: str = "") -> go.Figure:
    """Lay pictures out in one row, each under its title, at their own proportions.

    Args:
        images: one or more pictures ``[H, W, 3]`` or ``[H, W]``, floats in ``[0, 1]`` (clipped) or uint8; embedded
            as PNG, so the figure weighs what the PNGs weigh.
        titles: one per picture, or none.
        title: of the whole row.

    Returns:
        A figure of fixed size.

    Raises:
        ValueError: for no pictures, another shape or type, or another number of titles.
    """
    pictures = [to_bytes(image, f"images[{k}]") for k, image in enumerate(images)]
    if not pictures:
        raise ValueError("images must hold at least one picture, got none")
    if titles and len(titles) != len(pictures):
        raise ValueError(f"titles must name each of the {len(pictures)} pictures, got {len(titles)}")
    ratios = [picture.shape[1] / picture.shape[0] for picture in pictures]
    height = min(420.0, (ROW_WIDTH - GAP * (len(pictures) + 1)) / sum(ratios))
    width = height * sum(ratios) + GAP * (len(pictures) + 1)
    figure = panels(len(pictures), len(pictures), titles, column_widths=ratios, horizontal_spacing=GAP / width)
    for k, picture in enumerate(pictures):
        figure.add_trace(
            go.Image(source=data_uri(Image.fromarray(picture), "PNG", optimize=True), hoverinfo="skip"), 1, k + 1
        )
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain")
    top = GAP + (26 if titles else 0) + (38 if title else 0)
    return titled(
        figure,
        title,
        width=round(width),
        height=round(height + top + GAP),
        margin={"l": GAP, "r": GAP, "t": top, "b": GAP},
    )


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
    error = _absolute_error(a, b)
    mean_square = float((error**2).mean())
    psnr = "identical" if mean_square == 0 else f"PSNR {-10 * np.log10(mean_square):.2f} dB"
    figure = image_row(
        [a, b, error_image(a, b, limit=limit)],
        [*names, "mean absolute error of the channels"],
        title=f"{names[0]} against {names[1]}: {psnr}",
    )
    bar = color_bar("error, 1 = full range", len=1, x=1.01)
    figure.add_trace(
        go.Scatter(x=[None], y=[None], mode="markers", showlegend=False, hoverinfo="skip",
                   marker={"color": [0], "cmin": 0, "cmax": limit, "colorscale": QUANTITY, "colorbar": bar})
    )  # fmt: skip
    figure.update_layout(width=figure.layout.width + 80, margin_r=GAP + 80)
    return figure


def error_image(a: Tensor | np.ndarray, b: Tensor | np.ndarray, *, limit: float = 0.1) -> np.ndarray:
    """Colour the mean absolute error of the channels, dark blue for none and yellow from ``limit`` upwards.

    Args:
        a: ``[H, W, 3]`` or ``[H, W]``, floats in ``[0, 1]`` or uint8.
        b: another of the same size.
        limit: the error that gets the brightest colour, in ``(0, 1]``.

    Returns:
        ``[H, W, 3]`` uint8, for `image_row` or `PIL.Image.fromarray`.

    Raises:
        ValueError: when the sizes differ or ``limit`` is out of range.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit must lie in (0, 1], got {limit}")
    level = np.clip(_absolute_error(a, b).mean(axis=2) / limit, 0, 1)  # [H, W]
    stops = get_colorscale(QUANTITY)
    table = np.array([hex_to_rgb(color) for _, color in stops], np.float64)
    channels = [np.interp(level, [at for at, _ in stops], table[:, k]) for k in range(3)]
    return np.round(np.stack(channels, axis=2)).astype(np.uint8)


def to_bytes(image: Tensor | np.ndarray, name: str = "image") -> np.ndarray:
    """A picture as ``[H, W, 3]`` uint8; NaN becomes 0.

    Raises:
        ValueError: for another shape, an empty picture, or integers other than uint8.
    """
    array = to_array(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)) or array.size == 0:
        raise ValueError(f"{name} must have shape [H, W, 3], [H, W, 1] or [H, W], got {list(array.shape)}")
    if np.issubdtype(array.dtype, np.floating):
        array = np.round(np.clip(np.nan_to_num(array, nan=0.0), 0, 1) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"{name} must hold floats in [0, 1] or uint8, got {array.dtype}")
    array = array.reshape(*array.shape[:2], -1)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _absolute_error(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` float64, not rounded to bytes first unless the inputs are bytes."""
    planes = [_to_unit(image, name) for image, name in ((a, "a"), (b, "b"))]
    if planes[0].shape != planes[1].shape:
        sizes = " and ".join("x".join(map(str, plane.shape[:2])) for plane in planes)
        raise ValueError(f"a and b must be pictures of the same size [H, W], got {sizes}")
    return np.abs(planes[0] - planes[1])


def _to_unit(image: Tensor | np.ndarray, name: str) -> np.ndarray:
    bytes_, array = to_bytes(image, name), to_array(image)
    if array.dtype == np.uint8:
        return bytes_ / 255.0
    array = np.clip(np.nan_to_num(array.astype(np.float64), nan=0.0), 0, 1)
    return np.broadcast_to(array.reshape(*array.shape[:2], -1), bytes_.shape)


def data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    """The picture within an address, as a file of a kind that PIL writes with ``options``."""
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(stream.getvalue()).decode()
