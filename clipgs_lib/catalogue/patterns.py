"""Surface patterns: small tileable masks between two colours, and the words for them.

A mask is 0 where the object's colour shows and 1 where the second colour does. `plain` and `gradient` need no picture:
a gradient is linear in height and so exact in vertex colours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SIZE = 128  # pixels of a texture's side
Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pattern:
    """How a surface looks and how it is said."""

    adjective: str  # "striped"; "" when there is none
    phrase: str  # with {second}: "{second} stripes", follows "with"
    mask: Mask | None = None  # of x to the right and y up, both [SIZE, SIZE] in [0, 1)
    material: bool = False  # covers handles and legs as well, and replaces the word for paint (wooden, marble)
    fit: bool = False  # stretched over each surface once instead of repeated
    depth: float = 1.0  # how far the mask goes towards the second colour


def _step(signed: np.ndarray, width: float = 1.5 / SIZE) -> np.ndarray:
    """1 where ``signed`` is positive, with a soft edge."""
    return np.clip(signed / width + 0.5, 0, 1)


def _band(t: np.ndarray, share: float = 0.5) -> np.ndarray:
    """1 on the first ``share`` of each period of ``t``, centred."""
    return _step(share / 2 - np.abs(t % 1.0 - 0.5), 4.0 / SIZE)


def _bricks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    row = np.floor(4 * y)
    across, up = (2 * x + 0.5 * row) % 1, (4 * y) % 1
    return np.maximum(_step(0.06 - np.minimum(across, 1 - across)), _step(0.10 - np.minimum(up, 1 - up)))


def _zigzag(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _band(2 * y + 1.3 * np.abs((2 * x) % 1 - 0.5), 0.42)


def _motif(inside: Mask) -> Mask:
    """Two motifs a tile, in staggered rows, each drawn in ``[-0.5, 0.5]²``."""
    return lambda x, y: inside((2 * x + 0.5 * np.floor(2 * y)) % 1 - 0.5, (2 * y) % 1 - 0.5)


@_motif
def _stars(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle = np.arctan2(x, y) % (2 * np.pi / 5)
    corner = np.abs(angle - np.pi / 5) / (np.pi / 5)  # 1 at a tip, 0 between
    return _step(0.17 + 0.24 * corner**1.6 - np.hypot(x, y), 4 / SIZE)


@_motif
def _hearts(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x * 2.9, y * 2.9 + 0.1
    return _step((x * x * y**3 - (x * x + y * y - 1) ** 3) * 0.3, 0.05)


@_motif
def _flowers(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    petals = 0.26 + 0.12 * np.cos(5 * np.arctan2(y, x))
    return _step(petals - np.hypot(x, y), 4 / SIZE) * _step(np.hypot(x, y) - 0.09, 4 / SIZE)


def _noise(x: np.ndarray, y: np.ndarray, waves: tuple[tuple[int, int, float], ...]) -> np.ndarray:
    """Tileable smooth noise: a sum of sines with whole frequencies, about -1 to 1."""
    total = sum(np.sin(2 * np.pi * (fx * x + fy * y) + phase) for fx, fy, phase in waves)
    return np.asarray(total) / np.sqrt(len(waves))


def _wood(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bend = 0.10 * _noise(x, y, ((1, 1, 0.3), (2, -1, 1.9), (1, 2, 4.0)))
    fine = 0.5 + 0.5 * np.sin(2 * np.pi * (7 * x + 4 * bend))
    coarse = 0.5 + 0.5 * np.sin(2 * np.pi * (2 * x + 5 * bend) + 1.0)
    return 0.35 * fine + 0.65 * coarse**2


def _marble(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bend = _noise(x, y, ((1, 2, 0.7), (3, -1, 2.2), (2, 3, 5.1), (-4, 3, 1.1)))
    veins = 1 - np.abs(np.sin(2 * np.pi * (x + y) + 1.6 * bend))
    thin = 1 - np.abs(np.sin(2 * np.pi * (2 * x - y) + 2.4 * bend))
    return np.clip(veins**4 + 0.6 * thin**7, 0, 1)


def _speckles(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    waves = ((5, 2, 0.1), (-3, 6, 1.3), (6, -3, 2.9), (2, 7, 4.4), (-6, -4, 0.8), (7, 1, 3.7))
    return _step(_noise(x, y, waves) - 0.95, 0.3)


def _camouflage(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    waves = ((1, 2, 0.4), (2, -1, 2.6), (3, 1, 5.0), (-1, 3, 1.2), (2, 3, 3.3))
    return _step(_noise(x, y, waves) - 0.15, 0.06)


def _label(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    inside = np.minimum(0.22 - np.abs(x - 0.5), 0.3 - np.abs(y - 0.5))
    lines = _band(9 * y, 0.45) * _step(0.15 - np.abs(x - 0.5)) * _step(0.17 - np.abs(y - 0.5))
    return _step(inside) * (1 - 0.85 * lines)


PATTERNS: dict[str, Pattern] = {
    "plain": Pattern("plain", ""),
    "horizontal stripes": Pattern("striped", "{second} horizontal stripes", lambda x, y: _band(2 * y)),
    "vertical stripes": Pattern("striped", "{second} vertical stripes", lambda x, y: _band(2 * x)),
    "diagonal stripes": Pattern("striped", "{second} diagonal stripes", lambda x, y: _band(2 * x + 2 * y)),
    "checks": Pattern("checkered", "{second} checks", lambda x, y: (np.floor(4 * x) + np.floor(4 * y)) % 2),
    "dots": Pattern("dotted", "{second} dots", _motif(lambda x, y: _step(0.26 - np.hypot(x, y), 4 / SIZE))),
    "zigzag": Pattern("zigzag-patterned", "{second} zigzag lines", _zigzag),
    "waves": Pattern(
        "wavy-striped", "{second} wavy lines", lambda x, y: _band(2 * y + 0.24 * np.sin(2 * np.pi * x), 0.4)
    ),
    "grid": Pattern(
        "grid-patterned", "{second} grid lines", lambda x, y: np.maximum(_band(3 * x, 0.2), _band(3 * y, 0.2))
    ),
    "plaid": Pattern("plaid", "{second} plaid bands", lambda x, y: (_band(2 * x, 0.4) + _band(2 * y, 0.4)) / 2),
    "stars": Pattern("starry", "{second} stars", _stars),
    "hearts": Pattern("heart-patterned", "{second} hearts", _hearts),
    "flowers": Pattern("floral", "{second} flowers", _flowers),
    "speckles": Pattern("speckled", "{second} speckles", _speckles),
    "camouflage": Pattern("camouflage", "{second} camouflage patches", _camouflage),
    "gradient": Pattern("two-tone", "a fade to {second} at the top", material=True),
    "label": Pattern("labelled", "{article} {second} label", _label, fit=True),
    "bricks": Pattern("brick", "{second} mortar lines", _bricks),
    "wood": Pattern("wooden", "", _wood, material=True, depth=0.65),
    "marble": Pattern("marble", "", _marble, material=True, depth=0.85),
}
PRINTS = tuple(name for name, p in PATTERNS.items() if p.mask and not p.material and name not in ("label", "bricks"))


@lru_cache(maxsize=64)
def mask(name: str) -> np.ndarray:
    """Mask ``[SIZE, SIZE]`` float32 in ``[0, 1]`` of a pattern that has one, first row on top."""
    drawn = PATTERNS[name].mask
    if drawn is None:
        raise ValueError(f"pattern {name!r} has no picture; plain and gradient are drawn without a texture")
    t = (np.arange(SIZE) + 0.5) / SIZE
    x, y = np.meshgrid(t, 1 - t)
    out = np.clip(drawn(x, y), 0, 1).astype(np.float32)
    out.setflags(write=False)
    return out


def texture(name: str, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Texture ``[SIZE, SIZE, 3]`` uint8 of a pattern between two sRGB colours in ``[0, 1]``."""
    color, second = np.asarray(color, np.float32), np.asarray(second, np.float32)
    amount = PATTERNS[name].depth * mask(name)[:, :, None]
    return np.rint(255 * np.clip(color + amount * (second - color), 0, 1)).astype(np.uint8)
