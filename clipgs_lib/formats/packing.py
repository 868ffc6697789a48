"""Pieces that several packed formats share: quaternion packing, axis flips, checked scales, bounded JSON."""

import json
import math
import os
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from .. import geometry
from ..geometry import SH_C0
from ..geometry.orders import z_keys
from ..splats import COLUMNS, Splats
from .raw import FormatError, RawSplats, warn

SH_COEFFICIENTS = (0, 3, 8, 15)  # Higher SH coefficients per colour channel (K-1), by degree

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""The three places left beside the largest component, by its place."""
_SPREAD = np.array([[3, 0, 1, 2], [0, 3, 1, 2], [0, 1, 3, 2], [0, 1, 2, 3]])
"""Inverse of `_OTHERS` for rows (a, b, c, largest)."""


def restore_largest(smallest: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Unit quaternions ``[N, 4]`` float32 of their three ``smallest [N, 3]`` components in order, any component order.

    ``largest [N]``, 0 to 3, is the place of the component that was left out, taken as >= 0.
    """
    rows = np.empty((len(smallest), 4), np.float32)
    rows[:, :3] = smallest
    squares = np.einsum("ij,ij->i", smallest, smallest)
    rows[:, 3] = np.sqrt(np.maximum(1.0 - squares, 0.0))
    return np.take_along_axis(rows, _SPREAD[largest], axis=1)  # [N, 4]


def drop_largest(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `restore_largest`: ``smallest [N, 3]``, each in +-1/sqrt 2, and ``largest [N]`` of unit ``quats``.

    The sign is chosen so that the largest component is positive; ``-q`` is the same rotation.
    """
    largest = np.abs(quats).argmax(axis=1)  # [N]
    sign = np.where(np.take_along_axis(quats, largest[:, None], axis=1) < 0, -1.0, 1.0)
    smallest = np.take_along_axis(quats * sign, _OTHERS[largest], axis=1)  # [N, 3]
    return smallest, largest


def z_order(means: np.ndarray) -> np.ndarray:
    """Indices ``[N]`` that walk centres ``[N, 3]`` along a Z-curve of 2^21 cells an axis."""
    if len(means) == 0:
        return np.zeros(0, np.intp)
    low, high = means.min(axis=0).astype(np.float64), means.max(axis=0).astype(np.float64)
    cells = ((means - low) / np.where(high > low, high - low, 1.0) * ((1 << 21) - 1)).astype(np.int64)  # [N, 3]
    return np.argsort(z_keys(torch.from_numpy(cells[:, ::-1].copy())).numpy(), kind="stable")


def flip_axes(raw: RawSplats, signs: tuple[int, int, int]) -> None:
    """Change the frame in place by flipping coordinate axes (``signs`` +1 or -1 for x, y, z), SH included.

    Each rotation becomes ``F R F`` with ``F = diag(signs)``: the covariance turns as it must, an even or odd number
    of flips alike, and an identity rotation stays one.
    """
    x, y, z = signs
    raw.means *= np.array([x, y, z], np.float32)
    raw.quats *= np.array([1, y * z, x * z, x * y], np.float32)
    if raw.shN.shape[1]:
        raw.shN *= sh_flips(signs, raw.shN.shape[1])[:, None]


@cache
def sh_flips(signs: tuple[int, int, int], coefficients: int) -> np.ndarray:
    """The sign that each higher SH coefficient takes when axes are flipped, ``[coefficients]`` float32."""
    bands = geometry.sh_rotation(torch.diag(torch.tensor(signs, dtype=torch.float64)))
    return torch.cat([band.diagonal() for band in bands]).round().float().numpy()[:coefficients]


def positive_scales(path: str | os.PathLike[str], scales: np.ndarray) -> np.ndarray:
    """The linear scales without their signs, which a gaussian does not see; warns when there were any."""
    if not (negative := int((scales < 0).sum())):
        return scales
    warn(path, f"{negative:,} scales are negative; their sign is ignored")
    return np.abs(scales)


def no_sh(count: int) -> np.ndarray:
    """An empty ``shN`` column ``[count, 0, 3]``."""
    return np.zeros((count, 0, 3), np.float32)


def from_rgba(rgba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Opacities ``[N]`` and sh0 ``[N, 1, 3]`` of bytes ``[N, 4]``."""
    shares = rgba.astype(np.float32) / 255
    return np.ascontiguousarray(shares[:, 3]), ((shares[:, None, :3] - 0.5) / SH_C0).astype(np.float32)


def concatenate(parts: list[RawSplats]) -> RawSplats:
    """All parts as one record, an empty one for none; lower SH degrees are padded with zeros."""
    if len(parts) == 1:
        return parts[0]
    width = max((part.shN.shape[1] for part in parts), default=0)
    padded = [
        replace(part, shN=np.pad(part.shN, ((0, 0), (0, width - part.shN.shape[1]), (0, 0))))
        for part in (RawSplats.allocate(0, width), *parts)
    ]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in padded]) for name in COLUMNS}
    notes = [note for part in parts for note in part.notes]
    antialiased = bool(parts) and all(part.antialiased for part in parts)
    ignored = "; ".join(dict.fromkeys(part.ignored for part in parts if part.ignored))
    return RawSplats(**columns, notes=notes, antialiased=antialiased, ignored=ignored)


def columns_to_write(splats: Splats, path: str | os.PathLike[str]) -> RawSplats:
    """Numpy columns of ``splats`` with unit quaternions; FormatError when one is zero or a value is not finite."""
    columns = RawSplats(*(getattr(splats, name).detach().cpu().numpy() for name in COLUMNS))
    lengths = np.linalg.norm(columns.quats, axis=1, keepdims=True)
    bad = ~splats.detach().finite_mask().cpu().numpy() | ~(lengths[:, 0] > 1e-12)
    if bad.any():
        must = "every gaussian to write must be finite with a non-zero quaternion"
        got = f"{int(bad.sum()):,} of {len(splats):,} that are not"
        raise FormatError(path, must, got, "call splats.prune() first")
    return replace(columns, quats=columns.quats / lengths)


def warn_dropped_sh(path: str | os.PathLike[str], degree: int) -> None:
    """Say that SH above degree 3 are not kept."""
    warn(path, f"SH of degree {degree} was dropped to 3, the highest kept")


def sh_degree_of(coefficients: int) -> int | None:
    """The SH degree with that many coefficients per channel, the constant one counted; None when it is no square."""
    root = math.isqrt(coefficients)
    return root - 1 if root > 0 and root * root == coefficients else None


def warn_clipped(path: str | os.PathLike[str], what: str, clipped: int, total: int) -> None:
    """Say how many values lay outside what the format can hold; nothing when none did."""
    if clipped:
        warn(path, f"{clipped:,} of {total:,} {what} were clipped")


def json_object(path: str | os.PathLike[str], data: bytes, what: str) -> dict[str, Any]:
    """Parse bytes, whose length the caller has bounded, as one JSON object called ``what``; refuse what is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        must = f"{what} must be valid JSON"
        raise FormatError(path, must, f"{type(error).__name__}: {error}"[:200], "fetch the file again") from None
    if not isinstance(value, dict):
        raise FormatError(path, f"{what} must be a JSON object", f"a JSON {type(value).__name__}")
    return value
