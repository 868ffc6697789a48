"""Fewer triangles by quadric edge collapse, with UVs and colours carried along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .mesh import Part


def decimate(parts: Sequence[Part], most: int) -> list[Part]:
    """Parts with at most about ``most >= 1`` triangles in all, each losing the same share; small ones stay whole."""
    total = sum(len(part.faces) for part in parts)
    small = [len(part.faces) <= 64 for part in parts]
    fixed = sum(len(part.faces) for part, keep in zip(parts, small, strict=True) if keep)
    share = max(most - fixed, 1) / max(total - fixed, 1)
    if share >= 1:
        return list(parts)
    return [part if keep else _fewer(part, share) for part, keep in zip(parts, small, strict=True)]


def _fewer(part: Part, share: float) -> Part:
    """A part with that share of its triangles; each new vertex takes the looks of the old one nearest to it."""
    import fast_simplification

    part = welded(part)
    target = max(int(len(part.faces) * share), 4)
    if target >= len(part.faces):
        return part
    vertices, faces, collapses = fast_simplification.simplify(
        part.vertices, part.faces, target_count=target, return_collapses=True
    )
    looks: dict[str, Any] = {}
    if part.uvs is not None or part.colors is not None:
        vertices, faces, new_of_old = fast_simplification.replay_simplification(part.vertices, part.faces, collapses)
        looks = _looks(part, _representatives(part.vertices, vertices, np.asarray(new_of_old)))
    if not len(faces):
        return part
    return replace(part, vertices=_as(vertices, np.float32), faces=_as(faces, np.int32), **looks)


def _looks(part: Part, rows: np.ndarray) -> dict[str, Any]:
    """UVs and colours of some vertices, of those that the part has."""
    return {name: column[rows] for name in ("uvs", "colors") if (column := getattr(part, name)) is not None}


def _representatives(old: np.ndarray, new: np.ndarray, new_of_old: np.ndarray) -> np.ndarray:
    """For each new vertex, the nearest of the old vertices that fell into it ``[new]``."""
    members = np.flatnonzero((new_of_old >= 0) & (new_of_old < len(new)))
    distances = np.linalg.norm(old[members] - new[new_of_old[members]], axis=1)
    order = members[np.lexsort((distances, new_of_old[members]))]
    owners, first = np.unique(new_of_old[order], return_index=True)
    kept = np.zeros(len(new), np.int64)
    kept[owners] = order[first]
    return kept


def welded(part: Part) -> Part:
    """Vertices equal in place and looks made one, as edges collapse only where triangles share vertices."""
    columns = [column for column in (part.vertices, part.uvs, part.colors) if column is not None]
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1) + np.float32(0))  # -0 becomes 0
    first, inverse = _distinct(rows)
    faces = inverse[part.faces].astype(np.int32)
    sound = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = np.ascontiguousarray(faces[sound] if sound.any() else faces)
    return replace(part, vertices=part.vertices[first], faces=faces, **_looks(part, first))


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the first of each distinct row of ``[N, k]`` float32, and for every row which one it is.

    Rows are told apart by 64 bit hashes, as sorting whole rows is slow; one comparison then makes sure of it.
    """
    words = rows.view(np.uint32).astype(np.uint64)
    hashes = np.zeros(len(rows), np.uint64)
    for column in words.T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first[inverse]].view(np.uint32), rows.view(np.uint32)):
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, inverse


def _as(values: np.ndarray, dtype: type) -> np.ndarray:
    return np.ascontiguousarray(values, dtype)
