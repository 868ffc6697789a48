"""Drawing objects, and minimal pairs of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..captions.caption import Caption
from ..meshes import Mesh
from ..splits import SHARES, SPLITS, Split
from .assemble import build_mesh
from .describe import KINDS, Kind, adjectives, contrast, describe
from .model import BINS, CATEGORIES, GAP, PAINTS, STONES, WOODS, Category, contrasting
from .patterns import PATTERNS, PRINTS
from .split import HELD_CATEGORIES, VERSION, Holdout, cell_sizes, cell_splits, held_combination, seeded, split_of

_GRAIN = {"light brown": "brown", "brown": "dark brown", "dark brown": "black"}
_PAIR_TRIES = 200  # draws for one pair before giving up


@dataclass(frozen=True, eq=False)
class CatalogueObject:
    """One object of the catalogue."""

    mesh: Mesh  # +y up, front +z, in the unit sphere
    category: str  # "mug"
    params: dict[str, Any]  # JSON-able; all that the mesh and the captions depend on
    captions: list[Caption]  # 3 to 6, source "enriched", short label first
    split: Split
    holdout: Holdout  # why it is unseen in training, beyond its shape: "category", "combination" or "none"
    id: str  # "mug-" and 12 hex digits of the parameters' SHA-256


@dataclass(frozen=True, eq=False)
class Pair:
    """Two objects that differ in one attribute, each with the caption that says so."""

    kind: Kind
    objects: tuple[CatalogueObject, CatalogueObject]
    captions: tuple[Caption, Caption]  # differ in the attribute's words only
    attribute: str  # what was changed: "pattern", "color", the shape parameter, or the counted part
    values: tuple[str | int, str | int]  # of the attribute


def make(index: int, seed: int = 0) -> CatalogueObject:
    """Make object ``index`` of the catalogue with ``seed``; the same everywhere, in any order.

    Args:
        index: ``>= 0``; categories take turns, so any ``len(CATEGORIES)`` neighbours hold each once.
        seed: another seed, other objects.

    Raises:
        ValueError: when ``index`` is negative.
    """
    if index < 0:
        raise ValueError(f"index must be at least 0, got {index}")
    name = list(CATEGORIES)[index % len(CATEGORIES)]
    params = _draw(CATEGORIES[name], seeded("object", seed, index))
    return _finish(params, f"catalogue v{VERSION}, seed {seed}, object {index}")


def pairs(kind: Kind, n: int, seed: int = 0, split: Split | None = None) -> Iterator[Pair]:
    """Yield ``n`` minimal pairs whose objects and captions differ in exactly one attribute.

    Args:
        kind: ``"texture"`` (equal vertices and colours, another print), ``"color"`` (equal but for the main colour),
            ``"shape"`` (one shape parameter, from its lowest to its highest quarter) or ``"count"`` (one count).
        n: how many.
        seed: another seed, other pairs.
        split: only pairs of this split; both sides of a pair are always in the same one.

    Raises:
        ValueError: for another kind or split.
    """
    for what, value, options in (("kind", kind, KINDS), ("split", split, (*SPLITS, None))):
        if value not in options:
            raise ValueError(f"{what} must be one of {', '.join(map(str, options))}, got {value!r}")
    able = [name for name, spec in CATEGORIES.items() if len(_options(spec, kind)) >= (1 if kind == "shape" else 2)]
    names = [able[k] for k in np.argsort(seeded("pairs", kind, seed).random(len(able)), kind="stable")]
    for i in range(n):
        yield _pair(kind, seed, i, split, names)


def _pair(kind: Kind, seed: int, i: int, split: Split | None, names: list[str]) -> Pair:
    for attempt in range(_PAIR_TRIES):
        rng = seeded("pair", kind, seed, i, attempt)
        name = names[(i + attempt) % len(names)]
        params = _draw(CATEGORIES[name], rng)
        if PATTERNS[params["pattern"]].material or params["pattern"] in ("bricks", "label"):
            params["pattern"] = "plain"
        sides = _sides(kind, params, rng)
        if sides is None:
            continue
        first, second, attribute, values = sides
        try:
            splits = split_of(first)[0], split_of(second)[0]
        except ValueError:  # a held-out combination on a trained shape: no such object
            continue
        if splits[0] != splits[1] or split not in (None, splits[0]):
            continue
        source = f"catalogue v{VERSION}, seed {seed}, {kind} pair {i}"
        texts = [contrast(side, kind, attribute) for side in (first, second)]
        objects = (_finish(first, source), _finish(second, source))
        return Pair(kind, objects, (Caption(texts[0], "enriched"), Caption(texts[1], "enriched")), attribute, values)
    raise RuntimeError(f"no {kind} pair in {_PAIR_TRIES} draws for split {split}; this is a bug of the catalogue")


def _options(spec: Category, kind: Kind) -> Sequence[Any]:
    """What the sides of a pair may differ in: ranges with words for both ends, or values, patterns, colours."""
    if kind == "shape":
        return [r for r in spec.ranges if r.small and r.large]
    if kind == "count":
        return spec.count.values if spec.count else ()
    return spec.colors if kind == "color" else [p for p in spec.patterns if p in ("plain", *PRINTS)]


_Sides = tuple[dict[str, Any], dict[str, Any], str, tuple[str | int, str | int]]


def _sides(kind: Kind, params: dict[str, Any], rng: np.random.Generator) -> _Sides | None:
    """Parameters of both sides, the attribute and its values; None when this draw has no partner."""
    spec = CATEGORIES[params["category"]]
    options, second = _options(spec, kind), deepcopy(params)
    if kind == "shape":
        chosen = _pick(options, rng)
        inside = GAP / 2 + (1 - GAP) * float(rng.random())
        params["shape"][chosen.name] = chosen.value(inside / BINS)
        second["shape"][chosen.name] = chosen.value((BINS - 1 + inside) / BINS)
        return params, second, chosen.name, (adjectives(params)[chosen.name], adjectives(second)[chosen.name])
    name = "pattern" if kind == "texture" else kind
    if kind == "color":
        options = contrasting(params["color"], params["second"], params["accent"], among=spec.colors)
    others = [value for value in options if value != params[name]]
    if not others:
        return None
    second[name] = _pick(others, rng)
    return params, second, spec.count.name if spec.count and kind == "count" else name, (params[name], second[name])


def _draw(spec: Category, rng: np.random.Generator) -> dict[str, Any]:
    """Parameters of a new object."""
    pattern = _pick(spec.patterns, rng)
    drawn = int(np.searchsorted(np.cumsum(SHARES), rng.random(), side="right").clip(max=len(SPLITS) - 1))
    if held_combination(spec.name, pattern):
        drawn = SPLITS.index("test")
    splits = cell_splits(spec.name)
    cells = np.flatnonzero(splits == drawn) if spec.name not in HELD_CATEGORIES else np.arange(len(splits))
    place = list(np.unravel_index(int(_pick(cells, rng)), cell_sizes(spec)))
    inside = GAP / 2 + (1 - GAP) * rng.random(len(spec.ranges))
    k = len(spec.ranges)
    shape = {r.name: r.value((place[i] + inside[i]) / BINS) for i, r in enumerate(spec.ranges)}
    count = None
    if spec.count is not None:
        count, k = spec.count.values[int(place[k])], k + 1
    color = _pick({"wood": WOODS, "marble": STONES}.get(pattern, spec.colors), rng)
    if pattern == "wood":
        second = _GRAIN[color]
    else:
        among = ("white", "gray", "black", "beige") if pattern in ("marble", "bricks") else PAINTS
        second = _pick(contrasting(color, among=among), rng)
    return {
        "category": spec.name,
        "shape": shape,
        "count": count,
        "choices": {c.name: c.options[int(place[k + i])] for i, c in enumerate(spec.choices)},
        "pattern": pattern,
        "color": color,
        "second": second,
        "accent": _pick(contrasting(color, second) or contrasting(color), rng),
        "tint": [round(0.05 * (float(t) - 0.5), 4) for t in rng.random(3)],
        "tile": round(0.8 + 0.45 * float(rng.random()), 4),
    }


def _pick(options: Sequence[Any] | np.ndarray, rng: np.random.Generator) -> Any:
    return options[int(rng.random() * len(options))]


def _finish(params: dict[str, Any], source: str) -> CatalogueObject:
    split, holdout = split_of(params)
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:12]
    name = params["category"]
    captions = describe(params, seeded("captions", digest))
    mesh = build_mesh(params, source)
    return CatalogueObject(mesh, name, params, captions, split, holdout, f"{name.replace(' ', '-')}-{digest}")
