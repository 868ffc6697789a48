"""Pictures of the retrieval explorer: uploads made safe, thumbnails, and the sheet that a saved notebook shows."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ..gallery import picture_sheet
from .still import encode_png

MAX_BYTES = 20_000_000  # of an uploaded picture
MAX_PIXELS = 50_000_000
SIDE = 1_024  # pixels to which an uploaded picture is shrunk; teachers see a few hundred
THUMB = 256  # pixels to which thumbnails given as arrays are shrunk
_HEADS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


class Thumbnail(NamedTuple):
    """A picture as the page gets it."""

    data: bytes
    kind: str  # media type


def decode_picture(data: bytes) -> np.ndarray:
    """Decode an upload; its size is checked before its pixels are.

    Args:
        data: a PNG, JPEG or WebP file; turned as its EXIF says, laid on white where it is transparent.

    Returns:
        ``[H, W, 3]`` uint8, sides up to 1,024.

    Raises:
        ValueError: with a sentence for a person, when it is broken, too large or of another kind.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"a picture may have at most {MAX_BYTES // 10**6} MB, got {len(data) / 1e6:.1f}; shrink it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{width:,} x {height:,} pixels")
                picture.draft("RGB", (SIDE, SIDE))
                upright = ImageOps.exif_transpose(picture)
                upright.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                flat = upright.convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        must = f"a picture may have at most {MAX_PIXELS // 10**6} million pixels"
        raise ValueError(f"{must}, got {str(error)[:80]}; shrink it") from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError) as error:
        got = str(error)[:80] if data[:1] else "an empty file"
        raise ValueError(f"the picture must be an intact PNG, JPEG or WebP file, got {got}; choose another") from None
    page = Image.new("RGBA", flat.size, "white")
    return np.asarray(Image.alpha_composite(page, flat).convert("RGB"))


def check_thumbnails(thumbnails: Sequence[bytes | np.ndarray], count: int) -> list[bytes | np.ndarray]:
    """The thumbnails as a list, one per row of the gallery.

    Raises:
        ValueError: when there are more or fewer, or one is neither a picture's file nor uint8 ``[H, W, 3]``.
    """
    if len(thumbnails) != count:
        raise ValueError(f"thumbnails must be one per row of the gallery ({count:,}), got {len(thumbnails):,}")
    for row, one in enumerate(thumbnails):
        if isinstance(one, np.ndarray):
            if one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3 or one.size == 0:
                raise ValueError(f"thumbnails[{row}] must be uint8 [H, W, 3], got {one.dtype} {list(one.shape)}")
        elif not isinstance(one, bytes) or not any(one.startswith(head) for head in _HEADS):
            got = repr(one[:8]) if isinstance(one, bytes) else type(one).__name__
            raise ValueError(f"thumbnails[{row}] must be PNG, JPEG or WebP bytes, or uint8 [H, W, 3], got {got}")
    return list(thumbnails)


def thumbnail(one: bytes | np.ndarray) -> Thumbnail:
    """A checked thumbnail as the page gets it; files go as they are."""
    if isinstance(one, bytes):
        return Thumbnail(one, next(kind for head, kind in _HEADS.items() if one.startswith(head)))
    picture = Image.fromarray(one)
    picture.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=85)
    return Thumbnail(stream.getvalue(), "image/webp")


def sheet(title: str, hits: Sequence[tuple[Thumbnail, str]]) -> bytes:
    """PNG of at most 100 kB: the query on top, then pictures above their captions."""
    return encode_png(picture_sheet(title, [(picture.data, caption) for picture, caption in hits]))
