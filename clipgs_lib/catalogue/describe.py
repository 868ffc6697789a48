"""Captions out of an object's own parameters, by a small grammar."""

from typing import Any, Literal

import numpy as np

from ..captions.caption import Caption
from ..words import indefinite, listing
from .model import BINS, CATEGORIES, Count
from .patterns import PATTERNS

Kind = Literal["texture", "color", "shape", "count"]
KINDS: tuple[Kind, ...] = ("texture", "color", "shape", "count")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
PLURAL_NAMES = {"headphones", "balloons", "stacking rings", "eyeglasses", "spectacles", "glasses"}
BARE = {"frosting", "lettuce", "glaze", "teeth"}  # parts without an article, beside those that end in s
_FEW, _MANY = 3, 6  # captions of an object


def article(phrase: str) -> str:
    """``phrase`` with "a" or "an" before it."""
    return f"{indefinite(phrase)} {phrase}"


def adjectives(params: dict[str, Any]) -> dict[str, str]:
    """Words for the shape parameters in their lowest and highest quarters, by parameter."""
    out = {}
    for r in CATEGORIES[params["category"]].ranges:
        quarter = r.bin(params["shape"][r.name])
        word = r.small if quarter == 0 else r.large if quarter == BINS - 1 else ""
        if word:
            out[r.name] = word
    return out


def feature(params: dict[str, Any], part: str, colored: bool = True) -> str:
    """A part with what is known of it: "four red legs", "a round handle"."""
    spec = CATEGORIES[params["category"]]
    words = [params["choices"][c.name] for c in spec.choices if c.noun == part]
    words += [params["accent"]] if colored and spec.accent == part else []
    if spec.count and spec.count.name == part:
        n = params["count"]
        number = NUMBERS[n] if n < len(NUMBERS) else str(n)
        return " ".join([number, *words, spec.count.one if n == 1 else _plural_of(spec.count)])
    phrase = " ".join([*words, part])
    is_plural = part.endswith("s") and part not in ("lens", "glass", "cross")
    return phrase if is_plural or part in BARE else article(phrase)


def _plural_of(count: Count) -> str:
    """Plural for speech: "finger holes" for the part "holes"."""
    head, of, tail = count.one.partition(" of ")
    if of:
        return f"{head}s of {tail}"
    *before, last = count.one.split()
    return " ".join([*before, count.name if count.name[0] == last[0] else f"{last}s"])


def pattern_phrase(params: dict[str, Any]) -> str:
    """ "white stripes"; "" when the pattern needs no phrase."""
    second = params["second"]
    return PATTERNS[params["pattern"]].phrase.format(second=second, article=indefinite(second))


def noun_phrase(params: dict[str, Any], noun: str, *sizes: str, colored: bool = True) -> str:
    """ "a tall blue wooden stool"."""
    spec, pattern = CATEGORIES[params["category"]], PATTERNS[params["pattern"]]
    material = pattern.adjective if params["pattern"] in ("wood", "marble", "bricks") else ""
    forms = [params["choices"][c.name] for c in spec.choices if not c.noun]
    words = [*sizes, params["color"] if colored else "", material, *forms, noun]
    phrase = " ".join(word for word in words if word)
    return phrase if noun in PLURAL_NAMES else article(phrase)


def _with(head: str, *features: str) -> str:
    said = [f for f in features if f]
    return f"{head} with {listing(said)}" if said else head


def full(params: dict[str, Any], noun: str) -> str:
    """The caption with everything in it."""
    spec = CATEGORIES[params["category"]]
    sizes = list(adjectives(params).values())[:2]
    named = [spec.count.name if spec.count else "", *(c.noun for c in spec.choices), spec.accent]
    features = [feature(params, part) for part in dict.fromkeys(named) if part]
    return _with(noun_phrase(params, noun, *sizes), pattern_phrase(params), *features)


def contrast(params: dict[str, Any], kind: Kind, parameter: str = "") -> str:
    """The caption of one side of a minimal pair; ``parameter`` names the shape parameter of a shape pair."""
    spec = CATEGORIES[params["category"]]
    size = adjectives(params).get(parameter, "") if kind == "shape" else ""
    look = PATTERNS["plain"].adjective if params["pattern"] == "plain" and kind == "texture" else ""
    counted = feature(params, spec.count.name, colored=False) if kind == "count" and spec.count else ""
    return _with(noun_phrase(params, spec.name, look, size), pattern_phrase(params), counted)


def describe(params: dict[str, Any], rng: np.random.Generator) -> list[Caption]:
    """Three to six different captions of an object, the short label first.

    Args:
        params: as in `CatalogueObject.params`.
        rng: draws synonyms and templates.

    Returns:
        Captions with source ``enriched``, all true of the object by construction.
    """
    spec, pattern = CATEGORIES[params["category"]], PATTERNS[params["pattern"]]

    def noun() -> str:
        if not spec.synonyms or rng.random() < 0.65:
            return spec.name
        return spec.synonyms[int(rng.random() * len(spec.synonyms))]

    texts = [noun(), noun_phrase(params, noun()), full(params, noun())]
    more = [
        _with(noun_phrase(params, noun(), colored=False), *(feature(params, part) for part in _some(spec.parts, rng)))
    ]
    if params["pattern"] == "plain":
        more.append(noun_phrase(params, noun(), "plain"))
    elif params["pattern"] not in ("wood", "marble", "bricks"):
        look = f"{params['color']} and {params['second']} {pattern.adjective}"
        more.append(noun_phrase(params, noun(), look, colored=False))
    sizes = list(adjectives(params).values())
    if sizes:
        more.append(noun_phrase(params, noun(), sizes[int(rng.random() * len(sizes))], colored=False))
    if spec.count is not None:
        more.append(_with(noun_phrase(params, noun()), feature(params, spec.count.name)))
    kind = "a 3D model" if rng.random() < 0.5 else "a rendering"
    more.append(f"{kind} of {full(params, noun())}")
    order = np.argsort(rng.random(len(more)), kind="stable")
    most = _FEW + int(rng.random() * (_MANY - _FEW + 1))
    unique = list(dict.fromkeys([*texts, *(more[i] for i in order)]))
    return [Caption(text, "enriched") for text in unique[:most]]


def _some(parts: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    """One or two of the parts, in their order."""
    if len(parts) < 2:
        return list(parts)
    first = int(rng.random() * len(parts))
    chosen = {first, int(rng.random() * len(parts))} if rng.random() < 0.5 else {first}
    return [parts[i] for i in sorted(chosen)]
