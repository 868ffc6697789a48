"""Writing SOG version 2 as one zip; the layout is described in `sog`."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from ..splats import Splats
from . import sog_images
from .packing import columns_to_write, drop_largest, z_order
from .raw import atomic_write, warn

_SMALLEST_SCALE = 1e-20
_EPOCH = (1980, 1, 1, 0, 0, 0)
LEVELS = 256  # of a codebook
_SAMPLE = 1 << 18
_ROUNDS = 8
_PER_CENTER = 64


def write(splats: Splats, path: Path) -> None:
    """Write a ``.sog`` zip. Gaussians are put into Morton order of their centres, which compresses best.

    Args:
        splats: all finite. Scales of 0 become 1e-20 with a `SplatWarning`.
        path: where to; written atomically.

    Raises:
        FormatError: when a gaussian is not finite.
    """
    columns = columns_to_write(splats, path)
    columns = columns.rows(z_order(columns.means))
    meta: dict[str, Any] = {"version": 2, "asset": {"generator": "clipgs_lib"}, "count": len(splats)}
    if splats.antialiased:
        meta["antialias"] = True
    members = _means(columns.means, meta)
    smallest, largest = drop_largest(columns.quats)
    turns = np.rint((smallest * 2**0.5 * 0.5 + 0.5) * 255)
    meta["quats"] = {"files": ["quats.webp"]}
    members["quats.webp"] = _image(np.clip(turns, 0, 255), 252 + largest)
    members |= _scales(path, columns.scales, meta)
    levels = codebook(columns.sh0)
    meta["sh0"] = {"codebook": levels.tolist(), "files": ["sh0.webp"]}
    members["sh0.webp"] = _image(nearest(columns.sh0[:, 0], levels), np.rint(columns.opacities * 255))
    if splats.sh_degree and len(splats):
        members |= _higher_sh(columns.shN, splats.sh_degree, meta)
    members["meta.json"] = json.dumps(meta).encode()
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


def _image(values: np.ndarray, alpha: np.ndarray | int = 255) -> bytes:
    """One pixel per row of ``[N, 1 to 3]`` bytes; padding is zero."""
    height, width = sog_images.layout(len(values))
    image = np.zeros((height * width, 4), np.uint8)
    image[:, 3] = 255
    image[: len(values), : values.shape[1]] = values
    image[: len(values), 3] = alpha
    return sog_images.encode(image.reshape(height, width, 4))


def _means(means: np.ndarray, meta: dict[str, Any]) -> dict[str, bytes]:
    wide = means.astype(np.float64)
    logs = np.copysign(np.log1p(np.abs(wide)), wide)  # [N, 3]
    mins, maxs = (logs.min(axis=0), logs.max(axis=0)) if len(logs) else (np.zeros(3), np.zeros(3))
    span = np.where(maxs > mins, maxs - mins, 1.0)
    fixed = np.rint((logs - mins) / span * 65535).astype(np.uint16)
    files = ["means_l.webp", "means_u.webp"]
    meta["means"] = {"mins": mins.tolist(), "maxs": maxs.tolist(), "files": files}
    return {files[0]: _image(fixed & 255), files[1]: _image(fixed >> 8)}


def _scales(path: Path, scales: np.ndarray, meta: dict[str, Any]) -> dict[str, bytes]:
    flat = int((scales < _SMALLEST_SCALE).sum())
    if flat:
        warn(path, f"{flat:,} scales of 0 were raised to {_SMALLEST_SCALE:g}; SOG stores logarithms")
    logs = np.log(np.maximum(scales, _SMALLEST_SCALE))
    levels = codebook(logs)
    meta["scales"] = {"codebook": levels.tolist(), "files": ["scales.webp"]}
    return {"scales.webp": _image(nearest(logs, levels))}


def _higher_sh(shN: np.ndarray, degree: int, meta: dict[str, Any]) -> dict[str, bytes]:
    count, coefficients = shN.shape[:2]
    size = min(1 << 16, max(1024, 1 << count.bit_length() - 1), count)  # a power of two, or as many as there are
    centroids, labels = sh_palette(shN.reshape(count, -1), size)
    levels = codebook(centroids)
    entries = nearest(centroids, levels).reshape(-1, coefficients, 3)  # [P, K-1, 3]
    rows = -(-len(entries) // 64)
    image = np.zeros((rows * 64, coefficients, 4), np.uint8)
    image[..., 3] = 255
    image[: len(entries), :, :3] = entries
    files = ["shN_centroids.webp", "shN_labels.webp"]
    meta["shN"] = {"count": len(entries), "bands": degree, "codebook": levels.tolist(), "files": files}
    pair = np.stack([labels & 255, labels >> 8], axis=1)  # [N, 2]
    return {files[0]: sog_images.encode(image.reshape(rows, 64 * coefficients, 4)), files[1]: _image(pair)}


# ---- clustering: 256 levels of a number, and a palette of SH vectors in bounded time ---------------------------------


def codebook(values: np.ndarray) -> np.ndarray:
    """256 ascending levels ``[256]`` float64 that fit finite values well (Lloyd's algorithm in one dimension).

    Up to 2^18 evenly picked values are looked at, the least and the greatest always. 256 or fewer different values
    are kept exactly.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    if len(ordered) == 0:
        return np.zeros(LEVELS)
    ordered = ordered[np.linspace(0, len(ordered) - 1, min(len(ordered), _SAMPLE)).astype(np.intp)]
    different = np.unique(ordered)
    if len(different) <= LEVELS:
        return np.concatenate([different, np.full(LEVELS - len(different), different[-1])])
    half = LEVELS // 2  # quantiles serve the crowd, even spacing the tails
    spread = np.linspace(ordered[0], ordered[-1], half)
    crowd = np.quantile(ordered, (np.arange(half) + 0.5) / half)
    levels = np.sort(np.concatenate([spread, crowd]))
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(_ROUNDS):
        edges = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(ordered)]])
        members = np.diff(edges)
        levels = np.where(members > 0, np.diff(total[edges]) / np.maximum(members, 1), levels)
    return np.sort(levels)


def nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The index of the nearest level for each value, uint8, same shape."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values).astype(np.uint8)


def sh_palette(vectors: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster finite vectors ``[N, D]`` into at most ``size`` palette entries, ``1 <= size <= N``.

    K-means into about sqrt(size) groups, then k-means within each: time grows with ``count * sqrt(size)``, not with
    ``count * size``. Returns ``(palette [P, D] with P <= size, labels [N] int)``.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if size == len(vectors):
        return vectors, np.arange(size)
    random = np.random.default_rng(0)
    groups = _k_means(vectors, max(1, round(size**0.5)), random)[1]
    populated, members = np.unique(groups, return_counts=True)
    if len(populated) > size:
        populated, members = np.arange(1), np.array([len(vectors)])
        groups = np.zeros(len(vectors), np.intp)
    share = 1 + (members - 1) * (size - len(populated)) // max(int((members - 1).sum()), 1)
    palette, labels, start = [], np.empty(len(vectors), np.intp), 0
    by_group = np.split(np.argsort(groups, kind="stable"), np.cumsum(members)[:-1])
    for rows, entries in zip(by_group, share, strict=True):
        centers, chosen = _k_means(vectors[rows], int(entries), random)
        labels[rows] = start + chosen
        palette.append(centers)
        start += len(centers)
    return np.concatenate(palette), labels


def _k_means(vectors: np.ndarray, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm from randomly drawn vectors; ``(centres [size, D], labels [N])``, empty ones stay put."""
    # The centres move on at most 64 vectors each, drawn at random; the labels are those of all.
    if size >= len(vectors):
        return vectors, np.arange(len(vectors))
    sample = vectors
    if len(vectors) > _PER_CENTER * size:
        sample = vectors[random.choice(len(vectors), _PER_CENTER * size, replace=False)]
    centers = np.ascontiguousarray(sample[random.choice(len(sample), size, replace=False)], np.float32)
    for _ in range(_ROUNDS):
        labels = _nearest_center(sample, centers)
        members = np.bincount(labels, minlength=size)
        sums = np.stack([np.bincount(labels, column, size) for column in sample.T], axis=1)  # [size, D]
        centers[members > 0] = (sums / np.maximum(members, 1)[:, None])[members > 0]
    return centers, _nearest_center(vectors, centers)


def _nearest_center(vectors: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Index of the nearest centre, ``[N]``; both are centred first, for accuracy."""
    middle = centers.mean(axis=0)
    moved = centers - middle
    half = np.einsum("ij,ij->i", moved, moved) / 2
    labels = np.empty(len(vectors), np.intp)
    _assign(vectors, middle, np.ascontiguousarray(moved.T), half, labels)
    return labels


@njit(cache=True, fastmath=True)
def _assign(vectors: np.ndarray, middle: np.ndarray, centers: np.ndarray, half: np.ndarray, labels: np.ndarray) -> None:
    """``labels[i] = argmin_k half[k] - (vectors[i] - middle) . centers[:, k]``."""
    # A compiled loop instead of a matrix product: there are thousands of small ones, and a BLAS that spreads each over
    # threads took 7 times as long on two busy cores.
    count, width = vectors.shape
    score = np.empty(half.shape[0], np.float32)
    for i in range(count):
        score[:] = half
        for d in range(width):
            value = vectors[i, d] - middle[d]
            for k in range(score.shape[0]):
                score[k] -= value * centers[d, k]
        labels[i] = score.argmin()
