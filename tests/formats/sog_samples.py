"""SOG files for tests: an encoder of version 1 written from the layout, and edits of unpacked folders."""

from __future__ import annotations

import io
import json

import numpy as np
import torch
from PIL import Image


def webp(values: np.ndarray, side: int, **options) -> bytes:
    """``[N, 1 to 4]`` bytes as a square lossless WebP, row by row."""
    image = np.full((side * side, 4), 255, np.uint8)
    image[: len(values), : values.shape[1]] = values
    stream = io.BytesIO()
    options = {"lossless": True, "exact": True} | options
    Image.fromarray(image.reshape(side, side, 4)).save(stream, "WEBP", **options)
    return stream.getvalue()


def linear(values: np.ndarray) -> tuple[np.ndarray, list[float], list[float]]:
    """Bytes of ``[N, C]`` linear over the range of each channel, and that range."""
    low, high = values.min(axis=0), values.max(axis=0)
    return np.rint((values - low) / (high - low) * 255).astype(np.uint8), low.tolist(), high.tolist()


def smallest_three(quats: np.ndarray) -> np.ndarray:
    rows = []
    for quat in quats:
        place = int(np.abs(quat).argmax())
        quat = quat * (1 if quat[place] > 0 else -1)
        rest = [quat[i] for i in range(4) if i != place]
        rows.append([round((v * 2**0.5 + 1) / 2 * 255) for v in rest] + [252 + place])
    return np.array(rows, np.uint8)


def version_1(splats, folder) -> None:
    """Write ``splats`` as an unpacked SOG of version 1; each SH vector gets its own palette entry."""
    n, side = len(splats), int(np.ceil(len(splats) ** 0.5))
    means = splats.means.double().numpy()
    logs = np.sign(means) * np.log1p(np.abs(means))
    low, high = logs.min(axis=0), logs.max(axis=0)
    fixed = np.rint((logs - low) / (high - low) * 65535).astype(np.uint16)
    scales, scale_low, scale_high = linear(splats.scales.log().numpy())
    logits = torch.logit(splats.opacities)[:, None]
    colors, color_low, color_high = linear(torch.cat([splats.sh0[:, 0], logits], dim=1).numpy())
    files = {
        "means_l.webp": webp((fixed & 255).astype(np.uint8), side),
        "means_u.webp": webp((fixed >> 8).astype(np.uint8), side),
        "scales.webp": webp(scales, side),
        "quats.webp": webp(smallest_three(splats.quats.numpy()), side),
        "sh0.webp": webp(colors, side),
    }
    meta = {
        "means": {
            "shape": [n, 3], "mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"shape": [n, 3], "mins": scale_low, "maxs": scale_high, "files": ["scales.webp"]},
        "quats": {"shape": [n, 4], "encoding": "quaternion_packed", "files": ["quats.webp"]},
        "sh0": {"shape": [n, 1, 4], "mins": color_low, "maxs": color_high, "files": ["sh0.webp"]},
    }  # fmt: skip
    if splats.sh_degree:
        add_palette(splats.shN.numpy(), side, files, meta)
    folder.mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    for name, data in files.items():
        (folder / name).write_bytes(data)


def add_palette(sh: np.ndarray, side: int, files: dict, meta: dict) -> None:
    n, coefficients = sh.shape[:2]
    low, high = float(sh.min()), float(sh.max())
    rows = -(-n // 64)
    image = np.full((rows * 64, coefficients, 4), 255, np.uint8)
    image[:n, :, :3] = np.rint((sh - low) / (high - low) * 255)
    stream = io.BytesIO()
    Image.fromarray(image.reshape(rows, 64 * coefficients, 4)).save(stream, "WEBP", lossless=True, exact=True)
    files["shN_centroids.webp"] = stream.getvalue()
    labels = np.arange(n)
    files["shN_labels.webp"] = webp(np.stack([labels & 255, labels >> 8], axis=1).astype(np.uint8), side)
    meta["shN"] = {
        "shape": [n, 3 * coefficients], "mins": low, "maxs": high, "quantization": 8,
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }  # fmt: skip


def edit(folder, change) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))
