"""The images of a SOG: their size is read from their header and judged before a pixel is decoded."""

import io
import math
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from .raw import FormatError, warn

Load = Callable[[str, int], bytes]  # ``load(name, limit)``: the bytes of an image, no more than ``limit``

_FORMATS = ("WEBP", "PNG")
_SLACK_PIXELS = 1 << 14
_PALETTE_PIXELS = 960 * 1024
_HEADER_BYTES = 1 << 12


def pixels(path: Path, name: str, load: Load, count: int) -> np.ndarray:
    """The first ``count`` pixels of an image ``[count, 4]`` uint8 RGBA, row by row; ``path`` is for messages.

    FormatError when it is broken, too small, or holds more than 4 times ``count`` and 16,384 pixels.
    """
    most = 4 * count + _SLACK_PIXELS
    image = _decode(path, name, load(name, 4 * most + _HEADER_BYTES), count, most)
    return image.reshape(-1, 4)[:count]


def palette(path: Path, name: str, load: Load) -> np.ndarray:
    """A palette image ``[h, w, 4]`` uint8 RGBA of at most 960 x 1024 pixels, else FormatError."""
    return _decode(path, name, load(name, 4 * _PALETTE_PIXELS + _HEADER_BYTES), 1, _PALETTE_PIXELS)


def _decode(path: Path, name: str, data: bytes, least: int, most: int) -> np.ndarray:
    width, height, lossless = _size(path, name, data)
    if not least <= width * height <= most:
        must = f"{name} must hold between {least:,} and {most:,} pixels for this count"
        got = f"{width:,} x {height:,}"
        raise FormatError(path, must, got, "the image does not belong to this meta.json, or is a decompression bomb")
    if not lossless:
        warn(path, f"{name} is a lossy image; its values are damaged")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                values = np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        must = f"{name} must be an intact WebP or PNG image"
        raise FormatError(path, must, str(error)[:200], "fetch it again") from None
    if values.shape != (height, width, 4):
        raise FormatError(path, f"{name} must be as large as its header says", f"{values.shape[1]} x {values.shape[0]}")
    return values


def _size(path: Path, name: str, data: bytes) -> tuple[int, int, bool]:
    """Width, height and whether the image is lossless, from its first bytes."""
    kind = data[12:16]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        if kind == b"VP8L" and data[20] == 0x2F:
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, True
        if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF, False
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
            return width, height, _holds_lossless(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height, True
    raise FormatError(path, f"{name} must be a WebP or PNG image", repr(data[:16]), "fetch it again")


def _holds_lossless(data: bytes) -> bool:
    """Whether the first image chunk of an extended WebP is the lossless kind."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        at += 8 + length + (length & 1)
    return True


def encode(values: np.ndarray) -> bytes:
    """Lossless WebP of ``[h, w, 4]`` uint8, colours kept under zero alpha."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "WEBP", lossless=True, exact=True, quality=70, method=4)
    return stream.getvalue()


def layout(count: int) -> tuple[int, int]:
    """Height and width of the images for ``count`` gaussians: near square, multiples of 4."""
    width = max(4, math.ceil(math.sqrt(count) / 4) * 4)
    return max(4, math.ceil(count / width / 4) * 4), width
