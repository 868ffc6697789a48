"""Hits as one picture: the query on top, then thumbnails above their captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import shorten

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..rendering import contact_sheet
from .gallery import Gallery
from .query import Answer

_TILE, _COLUMNS = 112, 5


def hits_sheet(gallery: Gallery, answer: Answer) -> Image.Image:
    """The hits of an answer with their pictures, scores and captions."""
    title = " ".join(f"{term.weight:+g} “{term.name}”" for term in answer.query.terms).removeprefix("+1 ")
    note = "" if answer.fits else " · nothing fits well"
    tiles = [(gallery.thumbnail(hit.row), f"{hit.score:.1f} {hit.caption}") for hit in answer.hits]
    return picture_sheet(f"{title}: the best {len(tiles)} of {answer.rows:,}{note}", tiles)


def picture_sheet(title: str, tiles: Sequence[tuple[bytes | np.ndarray, str]]) -> Image.Image:
    """Pictures, see `tile`, with captions, five in a row, below a title."""
    blank = torch.ones(_TILE, _TILE, 3)
    pictures = [torch.from_numpy(np.array(tile(picture, _TILE))) / 255 for picture, _ in tiles]
    columns = max(3, min(_COLUMNS, len(pictures)))
    pictures += [blank] * (columns - len(pictures))
    captions = [caption for _, caption in tiles] + [""] * (len(pictures) - len(tiles))
    below = np.round(255 * contact_sheet(pictures, columns, captions).numpy()).astype(np.uint8)
    page = Image.new("RGB", (below.shape[1], below.shape[0] + 30), "white")
    page.paste(Image.fromarray(below), (0, 30))
    words = shorten(title, page.width // 6, placeholder=" …")
    ImageDraw.Draw(page).text((4, 8), words, fill="#1f2328", font=ImageFont.load_default(12))
    return page


def picture_strip(pictures: Sequence[bytes | np.ndarray], side: int = 160) -> bytes:
    """Pictures, see `tile`, side by side as one JPEG; empty for none."""
    if not len(pictures):
        return b""
    page, stream = Image.new("RGB", (side * len(pictures), side)), io.BytesIO()
    for place, picture in enumerate(pictures):
        page.paste(tile(picture, side), (side * place, 0))
    page.save(stream, "JPEG", quality=88)
    return stream.getvalue()


def tile(picture: bytes | np.ndarray, side: int) -> Image.Image:
    """A picture as a square on white, RGB.

    Args:
        picture: a PNG, JPEG or WebP file, b"" for a blank; or uint8 ``[H, W, 3]``.
        side: pixels.

    Raises:
        ValueError: when it is something else.
    """
    must = "pictures must be PNG, JPEG or WebP bytes, or uint8 [H, W, 3]"
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise ValueError(f"{must}, got {picture.dtype} {list(picture.shape)}; convert them")
        return ImageOps.pad(Image.fromarray(picture), (side, side), color="white")
    if not picture:
        return Image.new("RGB", (side, side), "white")
    try:
        with Image.open(io.BytesIO(picture), formats=["PNG", "JPEG", "WEBP"]) as image:
            return ImageOps.pad(image.convert("RGB"), (side, side), color="white")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{must}, got {str(error)[:80]}; convert them") from None
