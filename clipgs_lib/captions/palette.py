"""Names of colours: nearest of a table in OKLab, and which few names describe a whole surface.

OKLab is the space of Bjoern Ottosson, "A perceptual color space for image processing" (2020): euclidean distances in
it follow what people see much better than distances in RGB. 0.02 is just visible, 1 is black against white.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# name -> examples of it, as displayed; a colour gets the name of the example that is nearest
COLOR_NAMES: dict[str, tuple[str, ...]] = {
    "black": ("000000", "1a1a1a", "26262a"),
    "dark gray": ("404040", "4c4c50"),
    "gray": ("808080", "6e6e72", "969696"),
    "light gray": ("bebebe", "b0b4b8", "cfd2d4"),
    "white": ("ffffff", "eeeeee", "e8ecf0"),
    "red": ("e02020", "c81e1e", "ff0000", "ff3b30", "d6453d"),
    "dark red": ("7a1010", "8f1d1d", "5c1414"),
    "pink": ("f7a8c4", "ff69b4", "ffc0cb", "f08090"),
    "magenta": ("d81b9a", "ff00ff", "b0208a"),
    "peach": ("ffcba4", "f5b890"),
    "orange": ("f58220", "ff9f1c", "e06a10", "ff6a2a"),
    "brown": ("8b5a2b", "7a4a22", "6b3f1d", "a0622d", "8a5340", "70523c"),
    "dark brown": ("4a2c17", "3b2314", "45332a"),
    "light brown": ("c09060", "b98a5a", "b08a70", "deb48c", "d2a278"),
    "beige": ("e6d5b8", "dcc9a3", "d8c8b4"),
    "cream": ("fff5dc", "faeed0"),
    "yellow": ("ffd92e", "ffff00", "f7e14a", "e8c71d", "ffc420"),
    "mustard yellow": ("c9a227", "b58f1e"),
    "olive green": ("7a7a28", "6b6b1f", "8a8f3c"),
    "light green": ("a5e06a", "9be59b", "bfe8a8", "98d8b0", "b8e4d8", "9cdcc8"),
    "green": ("2fa33a", "00ff00", "4caf50", "3c8c2c", "5cb82c", "58a078"),
    "dark green": ("1c5220", "0f3d1a", "2c5c3c"),
    "teal": ("138080", "0f6b6b", "1f5f68"),
    "turquoise": ("40d6c8", "00ffff", "28b8b8"),
    "light blue": ("9fd4f5", "7ec0ee", "b4cfe8", "5aaee8", "98b8d0", "68d4e8", "d0e8ec"),
    "blue": ("2060d8", "0000ff", "3a7bd5", "1f4fbf", "2878b0", "5078a0"),
    "dark blue": ("14245e", "0d1b4a", "223a5e", "202c70"),
    "light purple": ("c3a3e8", "b090d8", "d8c4f0"),
    "purple": ("7a32b0", "8e4ec6", "663399", "7b5ea0"),
    "dark purple": ("3a1660", "42204e"),
}
_NAMES = tuple(COLOR_NAMES)
_EXAMPLES = [(i, example) for i, name in enumerate(_NAMES) for example in COLOR_NAMES[name]]
_OWNER = np.array([i for i, _ in _EXAMPLES])


@dataclass(frozen=True)
class Palette:
    """Which colours a surface has.

    Args:
        shares: colour name -> share of the surface in ``[0, 1]``, largest first; those below 2 % are left out.
        main: one to three names that together describe the surface, largest first; empty when many do.
        many: no three colours cover it and at least four matter.
        covered: share of the surface whose colour belongs to a family in ``main``.
    """

    shares: dict[str, float]
    main: tuple[str, ...]
    many: bool
    covered: float


def oklab(colors: np.ndarray) -> np.ndarray:
    """OKLab of sRGB colours as displayed.

    Args:
        colors: ``[..., 3]`` in ``[0, 1]``.

    Returns:
        ``[..., 3]`` lightness in ``[0, 1]``, green-red and blue-yellow, both within about ``+-0.4``.
    """
    rgb = np.asarray(colors, np.float64).clip(0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.array(to_cones).T) @ np.array(to_lab).T


def name_colors(colors: np.ndarray) -> list[str]:
    """Nearest names of ``[n, 3]`` sRGB colours in ``[0, 1]``."""
    return [_NAMES[i] for i in _nearest(colors)]


def palette(colors: np.ndarray, weights: np.ndarray | None = None) -> Palette:
    """Summarise the colours of a surface.

    Light and dark shades of one colour count together ("green" of "dark green") when neither makes up three quarters
    of both. One colour describes a surface alone from 75 %; two together need 70 %, the second 15 % and the third
    less than that; three need 80 % and the third 10 %. Else four colours of 8 % or more make it multicoloured, and
    else the largest stands alone.

    Args:
        colors: ``[n, 3]`` sRGB in ``[0, 1]``.
        weights: ``[n]`` share of the surface of each, ``>= 0``; None for alike.

    Raises:
        ValueError: when there is no colour, or all weights are 0.
    """
    mass = np.ones(len(colors)) if weights is None else np.asarray(weights, np.float64)
    if len(colors) == 0 or not mass.sum() > 0:
        raise ValueError(f"palette needs at least one colour with weight > 0, got {len(colors)} colours")
    totals = np.bincount(_nearest(colors), weights=mass, minlength=len(_NAMES)) / mass.sum()
    order = np.argsort(-totals, kind="stable")
    shares = {_NAMES[i]: float(totals[i]) for i in order if totals[i] >= 0.02}
    families: dict[str, float] = {}
    for i in order:
        families[_family(_NAMES[i])] = families.get(_family(_NAMES[i]), 0.0) + float(totals[i])
    ranked = sorted(families.items(), key=lambda pair: -pair[1])
    count = _how_many([share for _, share in ranked])
    many = count == 0
    main = tuple(_shade(family, share, shares) for family, share in ranked[:count])
    return Palette(shares, main, many, float(sum(share for _, share in ranked[:count])))


def _how_many(shares: list[float]) -> int:
    """How many colours to name, 0 for "multicoloured"; ``shares`` of families, largest first."""
    padded = [*shares, 0.0, 0.0, 0.0, 0.0]
    if padded[0] >= 0.75:
        return 1
    if padded[0] + padded[1] >= 0.7 and padded[1] >= 0.15 > padded[2]:
        return 2
    if sum(padded[:3]) >= 0.8 and padded[2] >= 0.1:
        return 3
    return 0 if padded[3] >= 0.08 else 1


def _family(name: str) -> str:
    return name.rpartition(" ")[2]


def _shade(family: str, share: float, shares: dict[str, float]) -> str:
    """The name within a family: a shade when it makes up three quarters of it."""
    top = max((name for name in shares if _family(name) == family), key=shares.__getitem__, default=family)
    return top if shares.get(top, 0.0) >= 0.75 * share else family


def _nearest(colors: np.ndarray) -> np.ndarray:
    rgb = np.array([[int(example[i : i + 2], 16) for i in (0, 2, 4)] for _, example in _EXAMPLES]) / 255.0
    lab, table = oklab(np.asarray(colors).reshape(-1, 3)), oklab(rgb)
    squared = ((lab[:, None] - table[None]) ** 2).sum(axis=2)  # [n, examples]
    return _OWNER[squared.argmin(axis=1)]
