"""Our own perceptual colormap: dark violet to light yellow, even steps in the OKLab space (Ottosson 2020)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

STEPS = 255  # entries 0..254 are the ramp
NOT_A_NUMBER = 255  # the last entry is grey
_GREY = 128
# OKLab corner points (lightness, green-red, blue-yellow) that the ramp passes through.
_KNOTS = np.array(
    [
        [0.28, 0.06, -0.12],
        [0.42, 0.09, -0.10],
        [0.55, 0.15, -0.02],
        [0.68, 0.13, 0.07],
        [0.80, 0.05, 0.13],
        [0.93, -0.03, 0.13],
    ]
)
_LAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@lru_cache(maxsize=1)
def colormap() -> np.ndarray:
    """RGBA bytes ``[256, 4]``: the ramp in 0..254, grey for values that are not finite in 255."""
    steps = np.linalg.norm(np.diff(_KNOTS, axis=0), axis=1)
    along = np.concatenate([[0.0], steps.cumsum()]) / steps.sum()
    position = np.linspace(0, 1, STEPS)
    lab = np.stack([np.interp(position, along, _KNOTS[:, c]) for c in range(3)], axis=1)  # [255, 3]
    linear = np.clip((lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table = np.full((256, 4), 255, dtype=np.uint8)
    table[:STEPS, :3] = np.round(255 * encoded)
    table[NOT_A_NUMBER, :3] = _GREY
    return table


def color_indices(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rows of `colormap` for values ``[N]``: 0 at ``low`` or below, 254 at ``high`` or above, 255 when not finite.

    Returns:
        ``[N]`` uint8.
    """
    finite = np.isfinite(values)
    share = (np.where(finite, values, low) - low) / (high - low) if high > low else np.full(len(values), 0.5)
    index = np.round(np.clip(share, 0, 1) * (STEPS - 1))
    return np.where(finite, index, NOT_A_NUMBER).astype(np.uint8)
