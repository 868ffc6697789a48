"""Our own perceptual colormaps, even steps in the OKLab space (Ottosson 2020), and how what has no value fades."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..colors import from_oklab

STEPS = 255  # entries 0..254 are the ramp
NOT_A_NUMBER = 255  # no entry of the table: the gaussian keeps its own colour, faded
# Fading: most of the chroma goes, and the luma moves into a band that shows on white, on black and beside a ramp.
FADE_LOW = 0.45  # luma that black gets
FADE_SPAN = 0.4  # white gets FADE_LOW + FADE_SPAN
FADE_CHROMA = 0.2  # share of the chroma that stays, before the span
LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709, of encoded RGB
FADING = {  # what the shader must know of it
    "NOT_A_NUMBER": NOT_A_NUMBER,
    "FADE_LOW": FADE_LOW,
    "FADE_SPAN": FADE_SPAN,
    "FADE_CHROMA": FADE_CHROMA,
    "LUMA": LUMA,
}
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
_RED_KNOTS = np.array([[0.28, 0.1], [0.46, 0.17], [0.68, 0.19]])  # lightness, chroma
_RED_HUE = np.radians(27)


@lru_cache(maxsize=1)
def colormap() -> np.ndarray:
    """Dark violet to light yellow, RGBA bytes ``[256, 4]``: the ramp in 0..254; 255 is transparent, never drawn."""
    return _ramp(_KNOTS)


@lru_cache(maxsize=1)
def red_colormap() -> np.ndarray:
    """One hue, black red to bright red, that stands out from what is faded; laid out as `colormap`."""
    lightness, chroma = _RED_KNOTS.T
    return _ramp(np.stack([lightness, chroma * np.cos(_RED_HUE), chroma * np.sin(_RED_HUE)], axis=1))


def _ramp(knots: np.ndarray) -> np.ndarray:
    steps = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    along = np.concatenate([[0.0], steps.cumsum()]) / steps.sum()
    position = np.linspace(0, 1, STEPS)
    lab = np.stack([np.interp(position, along, knots[:, c]) for c in range(3)], axis=1)  # [255, 3]
    table = np.zeros((256, 4), dtype=np.uint8)
    table[:STEPS, :3], table[:STEPS, 3] = np.round(255 * from_oklab(lab)), 255
    return table


def fade_matrix() -> np.ndarray:
    """``[3, 3]`` M such that a colour c fades to ``FADE_LOW + M c``; linear, so SH coefficients fade by M alone."""
    return FADE_SPAN * ((1 - FADE_CHROMA) * np.tile(LUMA, (3, 1)) + FADE_CHROMA * np.eye(3))


def color_indices(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rows of `colormap` for values ``[N]``: 0 at ``low`` or below, 254 at ``high`` or above, 255 when not finite.

    Returns:
        ``[N]`` uint8.
    """
    finite = np.isfinite(values)
    share = (np.where(finite, values, low) - low) / (high - low) if high > low else np.full(len(values), 0.5)
    index = np.round(np.clip(share, 0, 1) * (STEPS - 1))
    return np.where(finite, index, NOT_A_NUMBER).astype(np.uint8)
