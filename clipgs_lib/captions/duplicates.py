"""Texts that say the same in other spelling: by normal form, and by their sets of words."""

from __future__ import annotations

from difflib import SequenceMatcher

from ..words import table
from .clean import words

_ARTICLES = table("a an the")
_RELATIONS = table("on in with under over by at of to from and beside behind without between near")
_ALIKE = 0.9  # share of common words, and of words in common order, from which long texts count as the same
_LONG = 8  # words of a text from which one more or less may be overlooked


class SeenTexts:
    """Texts kept so far, to be asked for twins of a new one.

    Twins are: the same words in the same order, whatever capitals, punctuation and articles (``duplicate``); up to
    three words in another order, "table coffee" and "coffee table" (``near-duplicate``); texts of eight and more words
    of which nine tenths agree, in order. "Cup on plate" and "plate on cup" are no twins, nor texts that differ in one
    word of few. A new text is compared only with those that share one of its first few words in alphabetical
    order, which misses no pair above the threshold.
    """

    def __init__(self) -> None:
        self._by_order: dict[tuple[str, ...], str] = {}
        self._by_set: dict[tuple[str, ...], str] = {}
        self._long: list[tuple[list[str], str]] = []
        self._prefixes: dict[str, list[int]] = {}

    def twin(self, text: str) -> tuple[str, str] | None:
        """``("duplicate" | "near-duplicate", the text that stays)``, or None when the text is new."""
        tokens = _tokens(text)
        if tuple(tokens) in self._by_order:
            return "duplicate", self._by_order[tuple(tokens)]
        unordered = _unordered(tokens)
        if unordered and unordered in self._by_set:
            return "near-duplicate", self._by_set[unordered]
        candidates = {i for word in _prefix(tokens) for i in self._prefixes.get(word, ())}
        for i in sorted(candidates):
            other, original = self._long[i]
            if _alike(tokens, other):
                return "near-duplicate", original
        return None

    def add(self, text: str) -> None:
        """Remember a text."""
        tokens = _tokens(text)
        self._by_order.setdefault(tuple(tokens), text)
        unordered = _unordered(tokens)
        if unordered:
            self._by_set.setdefault(unordered, text)
        for word in _prefix(tokens):
            self._prefixes.setdefault(word, []).append(len(self._long))
        if len(tokens) >= _LONG:
            self._long.append((tokens, text))


def _tokens(text: str) -> list[str]:
    tokens = words(text)
    return [word for word in tokens if word not in _ARTICLES] or tokens or [text]


def _unordered(tokens: list[str]) -> tuple[str, ...] | None:
    """The words without their order, when order says little: few words, and none that relates others."""
    if len(tokens) > 3 or not _RELATIONS.isdisjoint(tokens):
        return None
    return tuple(sorted(tokens))


def _prefix(tokens: list[str]) -> list[str]:
    """Words of which two long texts that are alike share at least one: prefix filtering of set similarity."""
    if len(tokens) < _LONG:
        return []
    ordered = sorted(set(tokens), key=lambda word: (-len(word), word))
    return ordered[: len(ordered) - int(-(-_ALIKE * len(ordered) // 1)) + 1]


def _alike(a: list[str], b: list[str]) -> bool:
    one, two = set(a), set(b)
    if len(one & two) < _ALIKE * len(one | two):
        return False
    return SequenceMatcher(None, a, b, autojunk=False).ratio() >= _ALIKE
