"""Masks as COCO's format of instances writes them (Lin et al. 2014): run lengths, plain or compressed, and polygons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...settings import conform
from ...words import plural

_LONGEST = 30  # bits of a run length, far beyond the pixels of any picture


def run_lengths(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask ``[H, W]`` bool, down its columns, starting with background."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
    return [int(count) for count in np.diff(changes, prepend=0)]


def decompress(text: str, name: str = "run lengths") -> list[int]:
    """Run lengths out of COCO's compressed text, which pycocotools and models of segments write.

    A character holds 5 bits of a number, the lowest first, and a sixth that says whether more follow; the last of the
    five is the sign. From the fourth number on it is the difference to the one before the last. ``name`` is for errors.

    Raises:
        ValueError: for other characters, numbers beyond 30 bits, or a text that ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - ord("0")
        if not 0 <= bits < 64 or shift > _LONGEST:
            must = f"{name} must be numbers of at most 30 bits in characters from 0 to o"
            raise ValueError(f"{must}, got {character!r} in {text[:20]!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits < 32:
            value -= (bits >> 4) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError(f"{name} must end with a whole number, got ...{text[-20:]!r}; is the text cut off?")
    return counts


def read_mask(segmentation: Any, shape: tuple[int, ...], number: int) -> np.ndarray:
    """The mask ``[H, W]`` bool that an annotation holds of object ``number``.

    Raises:
        ValueError: for run lengths that do not fill the picture, or polygons without an area.
    """
    if isinstance(segmentation, Mapping):
        counts, size, name = segmentation.get("counts"), segmentation.get("size"), f"run lengths of object {number}"
        counts = decompress(counts, name) if isinstance(counts, str) else conform(counts, tuple[int, ...], name)
        if min(counts, default=-1) < 0 or size != list(shape) or sum(counts) != shape[0] * shape[1]:
            got = f"{sum(counts)} pixels of size {size}"
            raise ValueError(f"{name} must fill the image {list(shape)}, got {got}; is the mask of another picture?")
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape, order="F")
    name = f"segmentation of object {number}"
    canvas = Image.new("1", (shape[1], shape[0]))
    for polygon in conform(segmentation, tuple[tuple[float, ...], ...], name, exact=True):
        if len(polygon) < 6 or len(polygon) % 2:
            must = f"{name} must be run lengths, or polygons x, y, x, y ... of at least 3 points"
            raise ValueError(f"{must}, got one of {plural(len(polygon), 'value')}")
        ImageDraw.Draw(canvas).polygon(polygon, fill=1)
    return np.asarray(canvas, bool).copy()
