"""Writing SOG version 2 as one zip; the layout is described in `sog`."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..splats import Splats
from . import sog_images
from .base import SplatWarning, atomic_write
from .packing import columns_to_write, drop_largest, z_order
from .sog_palette import codebook, nearest, sh_palette

_SMALLEST_SCALE = 1e-20
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(splats: Splats, path: Path, *, palette: int | None = None, seed: int = 0) -> None:
    """Write a ``.sog`` zip. Gaussians are put into Morton order of their centres, which compresses best.

    Args:
        splats: all finite. Scales of 0 become 1e-20 with a `SplatWarning`.
        path: where to; written atomically.
        palette: SH palette size, 1 to 65536, used only for SH degree > 0; None takes the largest power of two in
            1024..65536 that is at most the count (the count itself when that is smaller).
        seed: of the palette's clustering.

    Raises:
        FormatError: when a gaussian is not finite.
        ValueError: when ``palette`` is out of range.
    """
    if palette is not None and not 1 <= palette <= 1 << 16:
        raise ValueError(f"palette must lie in 1..65536, got {palette}")
    columns = columns_to_write(splats, path)
    columns = columns.rows(z_order(columns.means))
    meta: dict[str, Any] = {"version": 2, "asset": {"generator": "clipgs_lib"}, "count": len(splats)}
    if splats.antialiased:
        meta["antialias"] = True
    members = _means(columns.means, meta) | _quats(columns.quats, meta)
    members |= _scales(path, columns.scales, meta) | _colors(columns.sh0, columns.opacities, meta)
    if splats.sh_degree and len(splats):
        members |= _higher_sh(columns.shN, splats.sh_degree, palette, seed, meta)
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


def _quats(quats: np.ndarray, meta: dict[str, Any]) -> dict[str, bytes]:
    smallest, largest = drop_largest(quats)
    stored = np.rint((smallest * 2**0.5 * 0.5 + 0.5) * 255)
    meta["quats"] = {"files": ["quats.webp"]}
    return {"quats.webp": _image(np.clip(stored, 0, 255), 252 + largest)}


def _scales(path: Path, scales: np.ndarray, meta: dict[str, Any]) -> dict[str, bytes]:
    flat = int((scales < _SMALLEST_SCALE).sum())
    if flat:
        message = f"{path}: {flat:,} scales of 0 were raised to {_SMALLEST_SCALE:g}; SOG stores logarithms"
        warnings.warn(message, SplatWarning, stacklevel=4)
    logs = np.log(np.maximum(scales, _SMALLEST_SCALE))
    levels = codebook(logs)
    meta["scales"] = {"codebook": levels.tolist(), "files": ["scales.webp"]}
    return {"scales.webp": _image(nearest(logs, levels))}


def _colors(sh0: np.ndarray, opacities: np.ndarray, meta: dict[str, Any]) -> dict[str, bytes]:
    levels = codebook(sh0)
    meta["sh0"] = {"codebook": levels.tolist(), "files": ["sh0.webp"]}
    return {"sh0.webp": _image(nearest(sh0[:, 0], levels), np.rint(opacities * 255))}


def _higher_sh(shN: np.ndarray, degree: int, palette: int | None, seed: int, meta: dict[str, Any]) -> dict[str, bytes]:
    count, coefficients = shN.shape[:2]
    if palette is None:
        palette = min(1 << 16, max(1024, 1 << count.bit_length() - 1))
    centroids, labels = sh_palette(shN.reshape(count, -1), min(palette, count), seed)
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
