"""Sentences about an object, made from its names and from what was measured on it."""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from ..meshes import Mesh
from ..splats import Splats
from ..words import is_latin, is_mass, listing, table, with_article
from .attributes import Attributes, measure
from .caption import Caption
from .clean import SeenTexts, words
from .filtering import FilterReport, filter_captions
from .names import GROUPS, Groups, natural_order, synonyms_of

# "{it}" is the described object with its article, "a tall red chair"
_FRAMES = (
    "{it}",
    "a 3D model of {it}",
    "a picture of {it} on a white background",
    "this is {it}",
    "{it}, seen from all sides",
    "a rendering that shows {it}",
)
_MAX_NOUN_WORDS = 5  # longer texts are sentences, which do not fit into others
_FILE_STEPS = table("path extension id url characters spaces composed cut")
_SIZE_WORDS = table("tall flat long thin compact short low small big large round square cubic")
_TEXTURE_WORDS = table("""
    plain patterned striped stripes dotted dots checkered checked plaid spotted marble wooden wood textured printed
""")
_COLOR_WORDS = table("""
    black white gray grey red pink magenta peach orange brown beige cream yellow green teal turquoise blue purple
    golden gold silver bronze multicolored colorful
""")


_PAINT_WORDS = _COLOR_WORDS | _TEXTURE_WORDS | table("navy maroon copper lime metallic brass")
_SUBSTANCES = table("""
    orange peach cream lime gold silver copper brass wood marble stone glass iron metal steel brick leather plastic
""")  # that name a thing as well: a wine glass
_SHADES = table("light dark bright pale mustard olive")
_LINKS = table("and with of in on for")


class ObjectCaptions(NamedTuple):
    """All texts of one object and how they came about."""

    captions: tuple[Caption, ...]  # what to train on: raw texts that were worth changing, filtered ones, enriched ones
    report: FilterReport  # what the filter kept, changed and removed
    attributes: Attributes | None  # what was measured; None without a shape


def caption_object(
    texts: Iterable[Caption | str],
    shape: Mesh | Splats | None = None,
    *,
    synonyms: Groups = GROUPS,
    limit: int = 6,
    seed: int = 0,
) -> ObjectCaptions:
    """Filter the texts of an object and enrich them by what it looks like.

    Args:
        texts: as found: names, file names, descriptions.
        shape: the object, to measure; without it only names and synonyms are put into sentences.
        synonyms: groups of names that can stand for each other.
        limit: enriched texts at most.
        seed: of measuring and choosing; equal input and seed give equal texts.

    Returns:
        Raw texts are among the captions only where filtering changed words that can be read, so that no text appears
        twice and no path is trained on; the report has them all. A shape whose only name says that it is a whole set
        ("every model") gets no text at all, so that it can be set aside.
    """
    report = filter_captions(texts)
    attributes = None if shape is None else measure(shape, seed=seed)
    names = [caption.text for caption in report.kept]
    more = [] if names_a_set(report) else enrich(names, attributes, synonyms=synonyms, limit=limit, seed=seed)
    raw = [Caption(change.before, "raw") for change in report.changed if _FILE_STEPS.isdisjoint(change.steps)]
    return ObjectCaptions((*raw, *report.kept, *more), report, attributes)


def names_a_set(report: FilterReport) -> bool:
    """Whether the only names of an object say that it is a whole set, so that it gets no text whatever its shape."""
    return not report.kept and "several-objects" in report.counts


def without_looks(text: str) -> str:
    """A clean text without its words for colours, patterns and materials: of a copy that looks otherwise.

    "red apple" is "apple", "a black and white cow" is "a cow"; "wine glass" and "orange" stay, which name the thing.
    """
    parts = [_without_looks(part) for part in text.split(",")]
    return ", ".join(part for part in parts if part) or text


def _without_looks(phrase: str) -> str:
    tokens = natural_order(phrase.strip()).split()
    bare = [token.casefold().strip(".;:!?()") for token in tokens] + [""]
    gone = [False] * len(tokens)
    for i, word in reversed(list(enumerate(bare[:-1]))):
        is_noun = bare[i + 1] in ("", *_LINKS)
        shade = word in _SHADES and bare[i + 1] in _PAINT_WORDS | _SUBSTANCES
        gone[i] = (
            shade
            or (word in _SUBSTANCES and not is_noun and bare[i - 1] != "ice")
            or (word in _PAINT_WORDS - _SUBSTANCES)
        )
    for i in range(1, len(tokens) - 1):
        gone[i] |= bare[i] == "and" and gone[i - 1] and gone[i + 1]
    left = [token for token, out in zip(tokens, gone, strict=True) if not out]
    while left and left[-1].casefold() in _LINKS:
        left.pop()
    if any(gone) and len(left) > 1 and left[0].casefold() in ("a", "an"):
        return with_article(" ".join(left[1:]))
    return " ".join(left)


def enrich(
    names: Sequence[str],
    attributes: Attributes | None = None,
    *,
    synonyms: Groups = GROUPS,
    limit: int = 6,
    seed: int = 0,
) -> list[Caption]:
    """Make sentences from names, synonyms and measured attributes.

    A measured colour is left out where the name states one, and likewise size and texture: "flag blue" does not
    become "a white flag blue" because of its pole. Only texts of up to five words in Latin letters serve as nouns.
    Without any, the object is called "object", which needs attributes.

    Args:
        names: filtered names of the object, the best first.
        attributes: what was measured; None when nothing was.
        synonyms: groups of names that can stand for each other.
        limit: texts at most, ``>= 0``.
        seed: of the choice.

    Returns:
        Different ``enriched`` texts, none of which says just what a name says; possibly fewer than ``limit``.

    Raises:
        ValueError: when ``limit`` is negative.
    """
    if limit < 0:
        raise ValueError(f"limit must be >= 0, got {limit}")
    rng = np.random.default_rng(seed)
    nouns = _nouns(names, synonyms)
    if not nouns and attributes is None:
        return []
    phrases = [phrase for noun in nouns or ["object"] for phrase in _phrases(noun, attributes)]
    seen = SeenTexts()
    for name in names:
        seen.add(name)
    out: list[Caption] = []
    for text in _sentences(phrases, rng):
        if len(out) < limit and seen.twin(text) is None:
            seen.add(text)
            out.append(Caption(text, "enriched"))
    return out


def _nouns(names: Sequence[str], synonyms: Groups) -> list[str]:
    """Names that fit into a sentence, in natural order, each followed by its synonyms."""
    out = []
    for name in names:
        bare = name.strip().rstrip(".")
        if not 0 < len(bare.split()) <= _MAX_NOUN_WORDS or any(mark in bare for mark in ",;:!?<>"):
            continue
        if not is_latin(bare):
            continue
        tokens = bare.split()
        if tokens[0].casefold() in ("a", "an", "the") and len(tokens) > 1:
            bare = " ".join(tokens[1:])
        out += [natural_order(bare), *synonyms_of(bare, synonyms)]
    return list(dict.fromkeys(out))


def _phrases(noun: str, attributes: Attributes | None) -> list[str]:
    """The noun with more and more of what was measured, richest first."""
    if attributes is None:
        return [with_article(noun)]
    said, palette = set(words(noun)), attributes.palette
    colors = "multicolored" if palette.many else listing(palette.main)
    color = "" if said & _COLOR_WORDS else colors
    size = "" if said & _SIZE_WORDS else attributes.proportion or ("round" if attributes.round else "")
    texture = "" if said & _TEXTURE_WORDS else attributes.texture
    choices = [(size, texture, color), (texture, color), (size, color), (color,), (size,), (texture,), ()]
    stated, bare = split_size(noun)
    phrases = [" ".join(word for word in (stated, *chosen, bare) if word) for chosen in choices]
    out = [with_article(phrase) for phrase in dict.fromkeys(phrases)]
    if color and not palette.many and noun.split()[-1] != "in":
        out.append(f"{with_article(noun)} in {colors}")
    if attributes.symmetric and not is_mass(noun):
        out.append(with_article(" ".join(word for word in ("symmetric", stated, color, bare) if word)))
    return out


def split_size(noun: str) -> tuple[str, str]:
    """``large stone cross`` -> ``large`` and ``stone cross``: size comes before texture and colour."""
    tokens = noun.split()
    sizes = list(takewhile(lambda token: token.casefold() in _SIZE_WORDS, tokens[:-1]))
    return " ".join(sizes), " ".join(tokens[len(sizes) :])


def _sentences(phrases: list[str], rng: np.random.Generator) -> list[str]:
    """Phrases in frames, in the order of taking: plain ones first for each second place, the rest shuffled."""
    framed = [frame.format(it=phrase) for phrase in phrases for frame in _FRAMES[1:]]
    rest = [phrases[i] for i in 1 + rng.permutation(len(phrases) - 1)]
    wrapped = [framed[i] for i in rng.permutation(len(framed))]
    out = phrases[:1]
    for i in range(max(len(rest), len(wrapped))):
        out += rest[i : i + 1] + wrapped[i : i + 1]
    return out
