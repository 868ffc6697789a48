"""Enough English to put a name into a sentence: articles, plurals, and adjectives in front of their noun."""

from __future__ import annotations

import unicodedata

from .names import table

# spelled with a vowel but said with a consonant, or the other way round
_SAID_WITH_CONSONANT = ("uni", "use", "usu", "ute", "uti", "eu", "one", "once", "ura", "ukulele", "ufo", "uku")
_SAID_WITH_VOWEL = ("hour", "heir", "honest", "honor", "honour")
_SPELLED_OUT_WITH_VOWEL = table("suv atm mp3 lcd led rv rc nes hdmi f16 f1 x m16 m4 sos mri xbox 8-bit 18-wheeler")
_NOT_VOWEL_SAID = ("unin", "unim", "unid", "unint", "uninh")

_SINGULAR_IN_S = table("""
    bus gas lens glass cross brass grass dress mattress compass chess atlas canvas cactus octopus walrus hippopotamus
    platypus virus coronavirus campus christmas series species iris tennis chassis trellis apatosaurus stegosaurus
    parasaurolophus lotus citrus hibiscus crocus fungus narcissus eucalyptus asparagus hummus papyrus fortress princess
    waitress press moss walrus abacus lotus diplodocus brachiosaurus tyrannosaurus isis
""")
_PLURAL_WITHOUT_S = table("people men women children teeth feet geese mice dice cattle police")
_MASS = table("""
    grass bread toast bacon honey soup rice salad sushi butter cheese flour sugar salt water milk juice wine beer
    coffee tea broccoli corn meat beef pork ham poultry seafood ice snow sand mud moss ivy furniture luggage jewelry
    money paper styrofoam sashimi soy ketchup mustard jam chocolate cream icecream ginger garlic celery spaghetti
    debris rubble lava smoke fire lightning
""")
# adjectives that asset names put behind their noun: "axe small", "bookcase closed wide"
_POSTPOSED = table("""
    small big large huge tiny tall short long low high wide narrow thick thin medium flat round rounded square
    rectangular simple basic detailed fancy open opened closed broken crushed cracked stacked full empty half whole
    single double triple individual golden gold silver bronze wooden iron stone red green blue yellow white black dark
    light raw cooked cushioned decorative standing angry evil modern vintage old electric modular upper lower mobile
    celtic king twin bunk
""")


def article(phrase: str) -> str:
    """``a``, ``an`` or, before plurals and what is not counted, the empty string.

    Decided by how the first word sounds (an hour, a unicorn, an SUV) and whether the last word can be counted.
    """
    tokens = phrase.casefold().split()
    if not tokens or is_plural(phrase) or is_mass(phrase) or not is_latin(phrase):
        return ""
    return "an" if _sounds_like_vowel(tokens[0]) else "a"


def is_latin(phrase: str) -> bool:
    """Whether all letters are Latin, accents allowed: words of other scripts do not go into English sentences."""
    return all(c.isascii() or not c.isalpha() or unicodedata.name(c, "").startswith("LATIN") for c in phrase)


def with_article(phrase: str) -> str:
    """``a red axe``, ``an axe``, ``rocks``, ``grass``."""
    return f"{article(phrase)} {phrase}".strip()


def is_plural(phrase: str) -> bool:
    """Whether the phrase, an English noun with its adjectives in front, names several things."""
    word = _head(phrase)
    if word in _PLURAL_WITHOUT_S:
        return True
    if not word.endswith("s") or len(word) < 4 or word in _SINGULAR_IN_S:
        return False
    return not word.endswith(("ss", "us", "is", "'s"))


def is_mass(phrase: str) -> bool:
    """Whether the phrase names a stuff that is not counted: ``grass``, ``slices of bread`` is not."""
    return _head(phrase) in _MASS


def natural_order(name: str) -> str:
    """Trailing adjectives moved to the front: ``fence low broken`` -> ``low broken fence``.

    Names of one word, and names made of such words only, come back as they are.
    """
    tokens = name.split()
    count = 0
    while count < len(tokens) and tokens[-1 - count].casefold() in _POSTPOSED:
        count += 1
    if count == 0 or count == len(tokens):
        return name
    return " ".join([*tokens[-count:], *tokens[:-count]])


def join(words: tuple[str, ...]) -> str:
    """``red``, ``red and white``, ``red, white and black``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _head(phrase: str) -> str:
    """The noun that decides: the last word before "of", "with" ..., of an English noun phrase."""
    tokens = phrase.casefold().split()
    for i, token in enumerate(tokens):
        if i and token in ("of", "with", "without", "on", "in", "for", "from", "no"):
            return tokens[i - 1]
    return tokens[-1] if tokens else ""


def _sounds_like_vowel(word: str) -> bool:
    word = unicodedata.normalize("NFD", word.lstrip("\"'(["))  # letters without their accents
    if word in _SPELLED_OUT_WITH_VOWEL or word.startswith(_SAID_WITH_VOWEL):
        return True
    if word.startswith(("8", "11-", "18-")):
        return True
    if word.startswith(_NOT_VOWEL_SAID):
        return True
    return word[:1] in tuple("aeiou") and not word.startswith(_SAID_WITH_CONSONANT)
