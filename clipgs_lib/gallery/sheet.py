"""Hits as one picture: the query on top, then thumbnails above their captions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import shorten

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..rendering import contact_sheet
from .gallery import Gallery
from .query import Answer

_TILE, _COLUMNS, _NARROW, _GAP = 112, 5, 3, 24


def hits_sheet(gallery: Gallery, answer: Answer, *, name: str = "") -> Image.Image:
    """The hits of an answer with their pictures, scores and captions; narrower under the ``name`` of a gallery."""
    title = " ".join(f"{term.weight:+g} “{term.name}”" for term in answer.query.terms).removeprefix("+1 ")
    note = "" if answer.fits else " · nothing fits well"
    tiles = [(gallery.thumbnail(hit.row), f"{hit.score:.1f} · {hit.caption}") for hit in answer.hits]
    if name:
        return picture_sheet(f"{name}: {title}{note}", tiles, _NARROW)
    return picture_sheet(f"{title}: the best {len(tiles)} of {answer.rows:,}{note}", tiles)


def answers_sheet(answers: Mapping[str, tuple[Gallery, Answer]]) -> Image.Image:
    """Answers of several galleries to one query side by side, below their names; as `hits_sheet` when there is one."""
    if len(answers) == 1:
        return hits_sheet(*next(iter(answers.values())))
    sheets = [hits_sheet(*one, name=name) for name, one in answers.items()]
    width, height = sum(sheet.width + _GAP for sheet in sheets) - _GAP, max(sheet.height for sheet in sheets)
    page, left = Image.new("RGB", (width, height), "white"), 0
    for sheet in sheets:
        page.paste(sheet, (left, 0))
        left += sheet.width + _GAP
        ImageDraw.Draw(page).line((left - _GAP // 2, 8, left - _GAP // 2, height - 8), fill="#d0d7de")
    return page


def picture_sheet(title: str, tiles: Sequence[tuple[bytes | np.ndarray, str]], columns: int = _COLUMNS) -> Image.Image:
    """Pictures, see `tile`, with captions, some in a row, below a title."""
    blank = torch.ones(_TILE, _TILE, 3)
    pictures = [torch.from_numpy(np.array(tile(picture, _TILE))) / 255 for picture, _ in tiles]
    columns = max(_NARROW, min(columns, len(pictures)))
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
