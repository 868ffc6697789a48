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


def picture_sheet(title: str, tiles: Sequence[tuple[bytes, str]]) -> Image.Image:
    """Pictures (PNG, JPEG or WebP; empty ones stay blank) with captions, five in a row, below a title."""
    blank = torch.ones(_TILE, _TILE, 3)
    pictures = []
    for data, _ in tiles:
        if not data:
            pictures.append(blank)
            continue
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as tile:
            square = ImageOps.pad(tile.convert("RGB"), (_TILE, _TILE), color="white")
        pictures.append(torch.from_numpy(np.array(square)) / 255)
    columns = max(3, min(_COLUMNS, len(pictures)))
    pictures += [blank] * (columns - len(pictures))
    captions = [caption for _, caption in tiles] + [""] * (len(pictures) - len(tiles))
    below = np.round(255 * contact_sheet(pictures, columns, captions).numpy()).astype(np.uint8)
    page = Image.new("RGB", (below.shape[1], below.shape[0] + 30), "white")
    page.paste(Image.fromarray(below), (0, 30))
    words = shorten(title, page.width // 6, placeholder=" …")
    ImageDraw.Draw(page).text((4, 8), words, fill="#1f2328", font=ImageFont.load_default(12))
    return page
