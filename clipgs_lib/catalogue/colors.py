"""Named colours and materials: the words that captions use and the sRGB values they stand for."""

from __future__ import annotations

import numpy as np

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.12, 0.12), "orange": (0.95, 0.52, 0.10), "yellow": (0.97, 0.83, 0.15),
    "green": (0.20, 0.62, 0.22), "teal": (0.08, 0.52, 0.52), "light blue": (0.52, 0.76, 0.94),
    "blue": (0.14, 0.33, 0.80), "navy": (0.09, 0.13, 0.38), "purple": (0.50, 0.20, 0.64),
    "pink": (0.96, 0.55, 0.72), "brown": (0.47, 0.29, 0.15), "beige": (0.89, 0.81, 0.66),
    "white": (0.96, 0.96, 0.95), "gray": (0.52, 0.53, 0.54), "black": (0.09, 0.09, 0.10),
    "maroon": (0.44, 0.08, 0.15), "lime": (0.68, 0.88, 0.20), "dark green": (0.08, 0.33, 0.16),
    "turquoise": (0.25, 0.82, 0.76), "golden": (0.83, 0.66, 0.22), "silver": (0.74, 0.76, 0.79),
    "copper": (0.74, 0.44, 0.26), "light brown": (0.72, 0.52, 0.32), "dark brown": (0.30, 0.18, 0.10),
}  # fmt: skip
PAINTS = tuple(c for c in COLORS if c not in ("golden", "silver", "copper", "light brown", "dark brown"))
METALS = ("golden", "silver", "copper")
WOODS = ("light brown", "brown", "dark brown")
STONES = ("white", "black", "green", "pink", "beige", "gray")
BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise", "lime", "light blue")

_APART = 0.42  # colours nearer than this are not put beside each other


def distance(first: str, second: str) -> float:
    """Euclidean distance of two named colours in sRGB, 0 to 1.73."""
    return float(np.linalg.norm(np.subtract(COLORS[first], COLORS[second])))


def contrasting(color: str, *others: str, among: tuple[str, ...] = PAINTS) -> list[str]:
    """Names of ``among`` that are told apart easily from all colours named."""
    return [name for name in among if all(distance(name, other) > _APART for other in (color, *others))]


def mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """``first`` with ``share`` in ``[0, 1]`` of ``second``."""
    return (1 - share) * np.asarray(first) + share * np.asarray(second)
