"""Hygiene of any text, in any language: what a caption may contain before anyone judges what it says, and twins.

Nothing is interpreted: HTML and markup stay the characters that they are. Accents, emoji and scripts stay; control
characters, invisible direction overrides and halves of surrogate pairs go.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from typing import Any

from ..words import table

MAX_CHARS = 1000  # longer texts are cut; text towers read 77 tokens (CLIP) or 256 (MiniLM), about 300 or 1,200 letters
_READ_AT_MOST = 20 * MAX_CHARS  # what is looked at of an even longer text
_ZWNJ, _ZWJ = "\u200c", "\u200d"  # join emoji, and letters of Persian and Indic scripts
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_TAGGED_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")  # flags of England, Scotland, Wales
_DROPPED = {"Cc", "Cs", "Co"}  # controls, surrogates, private use
_STEPS = {
    "url": lambda text: _URL.sub(" ", text),
    "composed": lambda text: unicodedata.normalize("NFC", text),
    "spaces": lambda text: " ".join(text.split()),
}


def clean_text(text: str) -> tuple[str, tuple[str, ...]]:
    """Remove what no caption may contain, and say what that was.

    Args:
        text: any string, lone surrogates and NUL included.

    Returns:
        The text, at most ``MAX_CHARS`` long, in Unicode's NFC, with single spaces; and the names of the changes made:
        ``characters`` (controls, overrides ... removed), ``url``, ``spaces``, ``composed``, ``cut``. Cleaning a
        clean text changes nothing.
    """
    notes: list[str] = []
    head = text[:_READ_AT_MOST]
    visible = "".join(_visible(head))
    if visible != head and " ".join(visible.split()) != " ".join(head.split()):
        notes.append("characters")
    tidy = apply(_STEPS, visible, notes)
    if len(text) > _READ_AT_MOST or len(tidy) > MAX_CHARS:
        notes.append("cut")
        tidy = _cut(tidy)
    return tidy, tuple(notes)


def apply(steps: Mapping[str, Callable[[Any], Any]], value: Any, notes: list[str]) -> Any:
    """``value`` after all steps in turn; ``notes`` gets the names of those that changed it."""
    for step, change in steps.items():
        before, value = value, change(value)
        notes += [step] * (value != before)
    return value


def words(text: str) -> list[str]:
    """Lower-case words of a text in any script: split at spaces, punctuation and symbols, but not at emoji or marks."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c if _in_word(c) else " " for c in folded).split()


def is_cased(char: str) -> bool:
    """Whether the letter belongs to a script with capitals, where one letter alone is hardly a word."""
    return char.lower() != char.upper()


def _in_word(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LMN" or category in ("So", "Cf", "Sk")  # Sk: skin tones of emoji


def _visible(text: str) -> list[str]:
    kept = []
    flags = {i for match in _TAGGED_FLAG.finditer(text) for i in range(*match.span())}
    for i, char in enumerate(text):
        if char.isascii():
            kept.append(char if char >= " " and char != "\x7f" else (" " if char.isspace() else ""))
            continue
        category = unicodedata.category(char)
        if char.isspace():
            kept.append(" ")
        elif category == "Cf":
            kept.append(char if char in (_ZWNJ, _ZWJ) or i in flags else "")
        elif category not in _DROPPED and not (0xFDD0 <= ord(char) <= 0xFDEF or ord(char) & 0xFFFE == 0xFFFE):
            kept.append(char)
    return kept


def _cut(text: str) -> str:
    """At most ``MAX_CHARS``, ending at a word when one ends in the last quarter, never inside a joined emoji."""
    if len(text) <= MAX_CHARS:
        return text
    head = text[:MAX_CHARS]
    if not text[MAX_CHARS].isspace():
        space = head.rfind(" ")
        head = head[:space] if space > MAX_CHARS * 3 // 4 else head
        while space <= MAX_CHARS * 3 // 4 and head and _continues(text[len(head)]):
            head = head[:-1]
    return head.rstrip(" " + _ZWJ + _ZWNJ)


def _continues(char: str) -> bool:
    """Whether the character belongs to the one before it."""
    return char in (_ZWJ, _ZWNJ) or unicodedata.category(char)[0] == "M" or unicodedata.category(char) == "Sk"


# ---- texts that say the same in other spelling -----------------------------------------------------------------------

_ARTICLES = table("a an the")
_RELATIONS = table("on in with under over by at of to from and beside behind without between near")
_ALIKE = 0.9  # share of common words, and of words in common order, from which long texts count as the same
_LONG = 8  # words of a text from which one more or less may be overlooked


class SeenTexts:
    """Texts kept so far, to be asked for twins of a new one.

    Twins are: the same words in the same order, whatever capitals, punctuation and articles (``duplicate``); up to
    three words in another order, "table coffee" and "coffee table" (``near-duplicate``); texts of eight and more words
    of which nine tenths agree, in order. "Cup on plate" and "plate on cup" are no twins, nor texts that differ in one
    word of few.
    """

    def __init__(self) -> None:
        self._by_order: dict[tuple[str, ...], str] = {}
        self._by_set: dict[tuple[str, ...], str] = {}
        self._long: list[tuple[list[str], str]] = []

    def twin(self, text: str) -> tuple[str, str] | None:
        """``("duplicate" | "near-duplicate", the text that stays)``, or None when the text is new."""
        tokens = _tokens(text)
        if tuple(tokens) in self._by_order:
            return "duplicate", self._by_order[tuple(tokens)]
        alike = self._by_set.get(_unordered(tokens))
        if len(tokens) >= _LONG:
            alike = next((original for other, original in self._long if _alike(tokens, other)), None)
        return None if alike is None else ("near-duplicate", alike)

    def add(self, text: str) -> None:
        """Remember a text."""
        tokens = _tokens(text)
        self._by_order.setdefault(tuple(tokens), text)
        if unordered := _unordered(tokens):
            self._by_set.setdefault(unordered, text)
        if len(tokens) >= _LONG:
            self._long.append((tokens, text))


def _tokens(text: str) -> list[str]:
    tokens = words(text)
    return [word for word in tokens if word not in _ARTICLES] or tokens or [text]


def _unordered(tokens: list[str]) -> tuple[str, ...]:
    """The words without their order, when order says little: few words, and none that relates others; else none."""
    return tuple(sorted(tokens)) if len(tokens) <= 3 and _RELATIONS.isdisjoint(tokens) else ()


def _alike(a: list[str], b: list[str]) -> bool:
    one, two = set(a), set(b)
    if len(one & two) < _ALIKE * len(one | two):
        return False
    return SequenceMatcher(None, a, b, autojunk=False).ratio() >= _ALIKE
