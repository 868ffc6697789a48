"""Levels of detail of a SOG: ``lod-meta.json`` beside one folder per level and chunk, and the choice of the finest.

Page: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/sog/ (streamed SOG). ``filenames`` lists
the ``meta.json`` of each chunk; the leaves of ``tree`` (``children``) say under ``lods``, by level with 0 the finest,
which rows of which file fill their box: ``{"file": index, "offset": first row, "count": rows}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import FormatError

LOD_META = "lod-meta.json"
Ranges = list[tuple[int, int]]  # First row and number of rows


def is_levels(meta: dict[str, Any]) -> bool:
    """Whether a JSON object is a ``lod-meta.json``."""
    return "filenames" in meta and "means" not in meta


def finest(path: Path, meta: dict[str, Any]) -> dict[str, Ranges]:
    """The rows of the finest level of every leaf, by file name; FormatError for none, or for files elsewhere."""
    names = meta.get("filenames")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise FormatError(path, f"{LOD_META} must list file names in filenames", repr(names)[:80])
    for name in names:
        parts = name.split("/")
        if any(mark in name for mark in "\\\0:") or any(part in ("", ".", "..") for part in parts):
            must = f"{LOD_META} must name files below its folder"
            raise FormatError(path, must, repr(name[:80]), "do not trust this file")
    chosen: dict[str, Ranges] = {}
    nodes = [meta.get("tree")]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, dict):
            raise FormatError(path, f"{LOD_META} must hold a tree of JSON objects", repr(node)[:80])
        children, lods = node.get("children") or [], node.get("lods") or {}
        if not isinstance(children, list) or not isinstance(lods, dict):
            raise FormatError(path, f"a node of {LOD_META} must hold children or lods", repr(node)[:80])
        nodes += reversed(children)
        levels = [level for level in lods if level.isdecimal()]
        if levels:
            lod = lods[min(levels, key=int)]
            values: list[Any] = (
                [lod.get(key) for key in ("file", "offset", "count")] if isinstance(lod, dict) else [None]
            )
            if any(type(value) is not int or value < 0 for value in values):
                raise FormatError(path, "a level must have a file, an offset and a count >= 0", repr(lod)[:80])
            index, first, count = values
            if index >= len(names):
                raise FormatError(path, f"a level must point to one of {len(names):,} files", f"file {index}")
            chosen.setdefault(names[index], []).append((first, count))
    if not chosen:
        must = f"the tree of {LOD_META} must say which rows the levels hold"
        raise FormatError(path, must, "none", f"read one level by itself: {names[0].rpartition('/')[0] or names[0]}")
    return chosen
