"""Colours: one table of their names, for what is painted and for what is measured; sRGB, linear light and OKLab.

The catalogue paints with `COLORS` and says their names; captions of measured surfaces say the name of the nearest of
`EXAMPLES`. Both come from one table, so that what was painted navy is measured as navy.

OKLab is the space of Bjoern Ottosson, "A perceptual color space for image processing" (2020): euclidean distances in
it follow what people see much better than distances in RGB. 0.02 is just visible, 1 is black against white.
"""

from __future__ import annotations

import numpy as np

Color = tuple[float, float, float]  # sRGB as displayed, in [0, 1]

# name -> the colour that is painted (None: a name that is only measured), and more that are called so
_TABLE: dict[str, tuple[Color | None, str]] = {
    "red": ((0.82, 0.12, 0.12), "e02020 c81e1e ff0000 ff3b30 d6453d"),
    "orange": ((0.95, 0.52, 0.10), "f58220 ff9f1c e06a10 ff6a2a"),
    "yellow": ((0.97, 0.83, 0.15), "ffd92e ffff00 f7e14a e8c71d ffc420"),
    "green": ((0.20, 0.62, 0.22), "2fa33a 00ff00 4caf50 3c8c2c 5cb82c 58a078"),
    "teal": ((0.08, 0.52, 0.52), "138080 0f6b6b 1f5f68"),
    "light blue": ((0.52, 0.76, 0.94), "9fd4f5 7ec0ee b4cfe8 5aaee8 98b8d0 68d4e8 d0e8ec"),
    "blue": ((0.14, 0.33, 0.80), "2060d8 0000ff 3a7bd5 1f4fbf 2878b0 5078a0"),
    "navy": ((0.09, 0.13, 0.38), "14245e 0d1b4a"),
    "purple": ((0.50, 0.20, 0.64), "7a32b0 8e4ec6 663399 7b5ea0"),
    "pink": ((0.96, 0.55, 0.72), "f7a8c4 ff69b4 ffc0cb f08090"),
    "brown": ((0.47, 0.29, 0.15), "8b5a2b 7a4a22 6b3f1d a0622d 8a5340 70523c"),
    "beige": ((0.89, 0.81, 0.66), "e6d5b8 dcc9a3 d8c8b4"),
    "white": ((0.96, 0.96, 0.95), "ffffff eeeeee e8ecf0"),
    "gray": ((0.52, 0.53, 0.54), "808080 6e6e72 969696"),
    "black": ((0.09, 0.09, 0.10), "000000 1a1a1a 26262a"),
    "maroon": ((0.44, 0.08, 0.15), ""),
    "lime": ((0.68, 0.88, 0.20), ""),
    "dark green": ((0.08, 0.33, 0.16), "1c5220 0f3d1a 2c5c3c"),
    "turquoise": ((0.25, 0.82, 0.76), "40d6c8 00ffff 28b8b8"),
    "golden": ((0.83, 0.66, 0.22), "c9a227"),
    "silver": ((0.74, 0.76, 0.79), ""),
    "copper": ((0.74, 0.44, 0.26), ""),
    "light brown": ((0.72, 0.52, 0.32), "c09060 b98a5a b08a70 deb48c d2a278"),
    "dark brown": ((0.30, 0.18, 0.10), "4a2c17 3b2314 45332a"),
    "dark gray": (None, "404040 4c4c50"),
    "light gray": (None, "bebebe b0b4b8 cfd2d4"),
    "dark red": (None, "7a1010 8f1d1d 5c1414"),
    "magenta": (None, "d81b9a ff00ff b0208a"),
    "peach": (None, "ffcba4 f5b890"),
    "cream": (None, "fff5dc faeed0"),
    "mustard yellow": (None, "b58f1e"),
    "olive green": (None, "7a7a28 6b6b1f 8a8f3c"),
    "light green": (None, "a5e06a 9be59b bfe8a8 98d8b0 b8e4d8 9cdcc8"),
    "dark blue": (None, "223a5e 202c70"),
    "light purple": (None, "c3a3e8 b090d8 d8c4f0"),
    "dark purple": (None, "3a1660 42204e"),
}
NAMES = tuple(_TABLE)
LIKE = {"copper": "brown"}  # painted -> measured: by its colour alone, copper would be said of much wood
COLORS: dict[str, Color] = {name: painted for name, (painted, _) in _TABLE.items() if painted}
EXAMPLES: dict[str, list[Color]] = {
    name: [(r / 255, g / 255, b / 255) for r, g, b in map(bytes.fromhex, codes.split())]
    + ([painted] if painted else [])
    for name, (painted, codes) in _TABLE.items()
}
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def srgb_from_linear(values: np.ndarray) -> np.ndarray:
    """Displayed (sRGB) values of linear light, both in ``[0, 1]`` (IEC 61966-2-1)."""
    values = np.clip(np.asarray(values, np.float64), 0, 1)
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


def linear_from_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light of displayed (sRGB) values, both in ``[0, 1]``; inverse of `srgb_from_linear`."""
    values = np.clip(np.asarray(values, np.float64), 0, 1)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(colors: np.ndarray) -> np.ndarray:
    """OKLab ``[..., 3]`` of sRGB in ``[0, 1]``: lightness in ``[0, 1]``, green-red and blue-yellow within ``+-0.4``."""
    return np.cbrt(linear_from_srgb(colors) @ _TO_CONES.T) @ _TO_LAB.T


def from_oklab(lab: np.ndarray) -> np.ndarray:
    """sRGB colours ``[..., 3]`` of OKLab ones, clipped to ``[0, 1]``; inverse of `oklab`."""
    return srgb_from_linear((lab @ np.linalg.inv(_TO_LAB.T)) ** 3 @ np.linalg.inv(_TO_CONES.T))


_EXAMPLES_LAB = oklab(np.concatenate(list(EXAMPLES.values())))  # [examples, 3]
_OWNER = np.array([NAMES.index(LIKE.get(name, name)) for name in NAMES for _ in EXAMPLES[name]])


def nearest(colors: np.ndarray) -> np.ndarray:
    """Index into `NAMES` ``[n]`` of the name that each of ``[n, 3]`` sRGB colours in ``[0, 1]`` has."""
    squared = ((oklab(colors)[:, None] - _EXAMPLES_LAB[None]) ** 2).sum(axis=2)  # [n, examples]
    return _OWNER[squared.argmin(axis=1)]
