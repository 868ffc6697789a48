"""Which colours paint what, and which are put beside each other."""

from __future__ import annotations

import numpy as np

from ..colors import COLORS

PAINTS = tuple(c for c in COLORS if c not in ("golden", "silver", "copper", "light brown", "dark brown"))
METALS = ("golden", "silver", "copper")
WOODS = ("light brown", "brown", "dark brown")
SHINY = (*PAINTS, *METALS)
STONES = ("white", "black", "green", "pink", "beige", "gray")
BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise", "lime", "light blue")

_APART = 0.42  # colours nearer than this are not put beside each other


def distance(first: str, second: str) -> float:
    """Euclidean distance of two named colours in sRGB, 0 to 1.73."""
    return float(np.linalg.norm(np.subtract(COLORS[first], COLORS[second])))


def contrasting(color: str, *others: str, among: tuple[str, ...] = PAINTS) -> tuple[str, ...]:
    """Names of ``among`` that are told apart easily from all colours named."""
    return tuple(name for name in among if all(distance(name, other) > _APART for other in (color, *others)))


def mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """``first`` with ``share`` in ``[0, 1]`` of ``second``."""
    return (1 - share) * np.asarray(first) + share * np.asarray(second)
