"""Rendered views on disk, as `mini` is trained on them: a folder of RGBA pictures and ``views.jsonl``.

One JSON object per line: ``{"object": id, "label": word, "texts": [...], "split": "train" | "val" | "test" |
"unseen", "files": [names relative to the folder]}`` and, optionally, ``"group"``: objects that look nearly the same
share one (default: the object's id), and with it the split, unless that is "unseen" (see `splits`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..settings import from_plain
from ..splits import SPLITS, UNSEEN

MAX_SIDE = 2048  # pixels; a larger view is a mistake or an attack


@dataclass(frozen=True)
class ViewedObject:
    """One object's line in ``views.jsonl``."""

    object: str  # id, unique in the file
    label: str  # what it is, lower case
    texts: tuple[str, ...]  # at least one; one is drawn per step
    split: str  # see `splits`
    files: tuple[str, ...]  # at least one picture, relative to the folder
    group: str = ""  # near-duplicates share one; by default it is the object's own

    def __post_init__(self) -> None:
        if not self.label.strip() or not self.texts or not all(map(str.strip, self.texts)) or not self.files:
            raise ValueError(f"{self.object} needs a label, non-empty texts and at least one file")
        if self.split not in (*SPLITS, UNSEEN):
            raise ValueError(f"split must be one of {', '.join((*SPLITS, UNSEEN))}, got {self.split!r}")
        for file in self.files:
            if Path(file).is_absolute() or ".." in Path(file).parts or "\\" in file:
                raise ValueError(f"files must lie inside the folder, got {file!r}")


@dataclass(frozen=True)
class ViewSet:
    """All objects of a folder of views."""

    folder: Path
    objects: tuple[ViewedObject, ...]
    sha256: str  # of views.jsonl

    def split(self, name: str) -> tuple[ViewedObject, ...]:
        """Objects of one split, in the order of the file."""
        return tuple(obj for obj in self.objects if obj.split == name)

    def read(self, file: str, size: int) -> np.ndarray:
        """One picture ``[size, size, 4]`` uint8 with straight alpha; opaque pictures get alpha 255."""
        with Image.open(self.folder / file) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"a view must be at most {MAX_SIDE} pixels wide and high, got {image.size} in {file}")
            if image.size == (size, size):
                return np.asarray(image.convert("RGBA"))
            return np.asarray(image.convert("RGBa").resize((size, size), Image.Resampling.BICUBIC).convert("RGBA"))


def read_views(folder: str | Path) -> ViewSet:
    """Read and check ``views.jsonl``; FileNotFoundError when there is none.

    ValueError for a line that is not as the module says, an object told twice, or a group in two splits.
    """
    folder = Path(folder)
    index = folder / "views.jsonl"
    if not index.is_file():
        raise FileNotFoundError(f"a folder of views needs views.jsonl, got none in {folder}; render views first")
    raw = index.read_bytes()
    objects = [_parse(line, number) for number, line in enumerate(raw.decode("utf-8").splitlines(), 1) if line.strip()]
    _check(objects)
    return ViewSet(folder, tuple(objects), hashlib.sha256(raw).hexdigest())


def _parse(line: str, number: int) -> ViewedObject:
    try:
        return from_plain(ViewedObject, json.loads(line))
    except (ValueError, TypeError) as error:
        must = f"views.jsonl line {number} must hold object, label, texts, split and files as JSON"
        raise ValueError(f"{must}, got: {error}") from error


def _check(objects: Sequence[ViewedObject]) -> None:
    split_of: dict[str, str] = {}
    names: set[str] = set()
    for obj in objects:
        if obj.object in names:
            raise ValueError(f"views.jsonl must name each object once, got {obj.object!r} twice")
        names.add(obj.object)
        group = obj.group or obj.object
        if obj.split != UNSEEN and split_of.setdefault(group, obj.split) != obj.split:
            raise ValueError(
                f"near-duplicates must share a split, got group {group!r} in {split_of[group]} and {obj.split}"
            )
