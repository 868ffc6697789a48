"""Masks as COCO's format of instances writes them (Lin et al. 2014): run lengths, plain or compressed, and polygons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...settings import conform
from ...words import plural


def run_lengths(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask ``[H, W]`` bool, down its columns, starting with background."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
    return [int(count) for count in np.diff(changes, prepend=0)]


def decompress(text: str, name: str = "run lengths") -> list[int]:
    """Run lengths out of COCO's compressed text, as pycocotools writes it; ValueError (with ``name``) for another text.

    A character holds 5 bits of a number, the lowest first, and a sixth that says whether more follow; the last of the
    five is the sign. From the fourth number on it is the difference to the one before the last.
    """
    if not re.fullmatch("([P-o]{0,5}[0-O])*", text):
        must = f"{name} must be numbers of at most 30 bits in characters from 0 to o"
        raise ValueError(f"{must}, got {text[:20]!r} ... {text[-20:]!r}; is the text whole?")
    counts: list[int] = []
    for number in re.findall("[P-o]*[0-O]", text):
        bits = [ord(character) - ord("0") for character in number]
        value = sum((each & 31) << 5 * place for place, each in enumerate(bits)) - (bits[-1] >> 4 << 5 * len(bits))
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def read_mask(segmentation: Any, shape: tuple[int, ...], number: int) -> np.ndarray:
    """The mask ``[H, W]`` bool of object ``number``; ValueError for runs that do not fill it, or broken polygons."""
    if isinstance(segmentation, Mapping):
        counts, size, name = segmentation.get("counts"), segmentation.get("size"), f"run lengths of object {number}"
        counts = decompress(counts, name) if isinstance(counts, str) else conform(counts, tuple[int, ...], name)
        if min(counts, default=-1) < 0 or size != list(shape) or sum(counts) != shape[0] * shape[1]:
            got = f"{sum(counts)} pixels of size {size}"
            raise ValueError(f"{name} must fill the image {list(shape)}, got {got}; is the mask of another picture?")
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape, order="F")
    name, canvas = f"segmentation of object {number}", Image.new("1", (shape[1], shape[0]))
    for polygon in conform(segmentation, tuple[tuple[float, ...], ...], name, exact=True):
        if len(polygon) < 6 or len(polygon) % 2:
            must = f"{name} must be run lengths, or polygons x, y, x, y ... of at least 3 points"
            raise ValueError(f"{must}, got one of {plural(len(polygon), 'value')}")
        ImageDraw.Draw(canvas).polygon(polygon, fill=1)
    return np.asarray(canvas, bool).copy()
