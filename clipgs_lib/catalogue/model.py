"""What a category of the catalogue is: its words, its parameters, and the function that builds its pieces."""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..colors import COLORS
from .patterns import PRINTS
from .shapes import Shape

PAINTS = tuple(c for c in COLORS if c not in ("golden", "silver", "copper", "light brown", "dark brown"))
METALS = ("golden", "silver", "copper")
WOODS = ("light brown", "brown", "dark brown")
SHINY = (*PAINTS, *METALS)
STONES = ("white", "black", "green", "pink", "beige", "gray")
BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise", "lime", "light blue")
BINS = 4  # of a range, for words and for splits
GAP = 0.2  # share of a bin that is never drawn, so that neighbours of different splits stay apart
EVERY = ("plain", *PRINTS, "gradient")
TIMBER, CERAMIC, PACKED = (*EVERY, "wood"), (*EVERY, "marble"), (*EVERY, "label")


@dataclass(frozen=True)
class Range:
    """A continuous shape parameter."""

    name: str
    low: float
    high: float
    small: str = ""  # adjective of the lowest quarter ("squat"); "" when nothing is said
    large: str = ""  # adjective of the highest quarter ("tall")

    def value(self, position: float) -> float:
        """Value at ``position`` in ``[0, 1]``, rounded to 4 digits so that it survives JSON."""
        return round(self.low + (self.high - self.low) * position, 4)

    def bin(self, value: float) -> int:
        """Which of the `BINS` quarters a value lies in."""
        return int(np.clip((value - self.low) / (self.high - self.low) * BINS, 0, BINS - 1))


@dataclass(frozen=True)
class Count:
    """How many of something; captions say it in words."""

    name: str  # of the part, plural: "legs"
    values: tuple[int, ...]
    one: str  # singular: "leg"


@dataclass(frozen=True)
class Choice:
    """One of several forms."""

    name: str
    options: tuple[str, ...]  # adjectives
    noun: str = ""  # part that the adjective goes with; "" for the object itself


# Pieces of an object: the name of a surface, what it is painted with, its shape. Paints: ``main`` (colour and pattern),
# ``body`` (the colour, and the pattern only when it is a material), ``inside`` (a paler colour), ``accent`` (the accent
# colour), or a colour word of `colors.COLORS`.
Pieces = Iterator[tuple[str, str, Shape]]
Builder = Callable[..., Pieces]  # each argument's default is the axis whose value it takes


@dataclass(frozen=True)
class Category:
    """A kind of object."""

    name: str
    synonyms: tuple[str, ...]
    group: str  # "furniture"
    build: Builder
    axes: tuple[Range | Count | Choice, ...]  # at most one `Count`
    parts: tuple[str, ...] = ()  # worth saying; each is a piece's name
    accent: str = ""  # piece in the accent colour that captions name, or ""
    patterns: tuple[str, ...] = EVERY
    colors: tuple[str, ...] = PAINTS

    @functools.cached_property
    def ranges(self) -> tuple[Range, ...]:
        return tuple(axis for axis in self.axes if isinstance(axis, Range))

    @functools.cached_property
    def count(self) -> Count | None:
        return next((axis for axis in self.axes if isinstance(axis, Count)), None)

    @functools.cached_property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(axis for axis in self.axes if isinstance(axis, Choice))


CATEGORIES: dict[str, Category] = {}


def in_group(group: str, **usual: tuple[str, ...]) -> Callable[..., Callable[[Builder], Category]]:
    """Decorator that registers a builder as a category of a group: its name, synonyms, and fields of `Category`.

    ``usual`` are the patterns and colours of the group's categories that do not say others.
    """

    def category(name: str, *synonyms: str, **fields: Any) -> Callable[[Builder], Category]:
        def register(build: Builder) -> Category:
            if name in CATEGORIES:
                raise ValueError(f"category names must differ, got {name!r} twice; rename one")
            axes = tuple(argument.default for argument in inspect.signature(build).parameters.values())
            CATEGORIES[name] = Category(name, synonyms, group, build, axes, **(usual | fields))
            return CATEGORIES[name]

        return register

    return category


def painted(**limits: tuple[str, ...]) -> Callable[[Category], Category]:
    """Limit the ``patterns`` and ``colors`` of the decorated category, where there are too many for its line."""

    def limit(spec: Category) -> Category:
        CATEGORIES[spec.name] = replace(spec, **limits)  # type: ignore[arg-type]
        return CATEGORIES[spec.name]

    return limit


# ---- which colours paint what, and which are put beside each other ---------------------------------------------------

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
