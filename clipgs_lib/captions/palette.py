"""Which few names of colours describe a whole surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..colors import NAMES, nearest

_FAMILIES = {"navy": "blue", "maroon": "red", "lime": "green", "golden": "yellow", "silver": "gray"}  # of other words


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
    totals = np.bincount(nearest(colors), weights=mass, minlength=len(NAMES)) / mass.sum()
    order = np.argsort(-totals, kind="stable")
    shares = {NAMES[i]: float(totals[i]) for i in order if totals[i] >= 0.02}
    families: dict[str, float] = {}
    for i in order:
        families[family_of(NAMES[i])] = families.get(family_of(NAMES[i]), 0.0) + float(totals[i])
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


def family_of(name: str) -> str:
    """What shades of one colour share: "green" of "dark green", "blue" of "navy"."""
    return _FAMILIES.get(name, name.rpartition(" ")[2])


def _shade(family: str, share: float, shares: dict[str, float]) -> str:
    """The name within a family: a shade when it makes up three quarters of it."""
    top = max((name for name in shares if family_of(name) == family), key=shares.__getitem__, default=family)
    return top if shares.get(top, 0.0) >= 0.75 * share else family
