"""Enough English to put a name into a sentence: articles, plurals and lists; and facts as a small table."""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence


def table(words: str) -> frozenset[str]:
    """A set of words written in one string."""
    return frozenset(words.split())


# spelled with a vowel but said with a consonant, or the other way round
_SAID_WITH_CONSONANT = ("uni", "use", "usu", "ute", "uti", "eu", "one", "once", "ura", "ukulele", "ufo", "uku")
_SAID_WITH_VOWEL = ("hour", "heir", "honest", "honor", "8", "11-", "18-", "unin", "unim", "unid")
_SPELLED_OUT_WITH_VOWEL = table("suv atm mp3 lcd led rv rc nes hdmi f16 f1 x m16 m4 sos mri xbox")
_RELATION = re.compile(r"\s(?:of|with|without|on|in|for|from|no)(?:\s|$)")
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


def plural(count: int, noun: str) -> str:
    """``1 gaussian``, ``2,000 gaussians``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listing(items: Sequence[str]) -> str:
    """``red``, ``red and white``, ``red, white and black``."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def first_of(items: Iterable[object], most: int = 8, *, between: str = ", ") -> str:
    """The first few of many for a message: ``a, b, c and 12 more``."""
    texts = [str(item) for item in items]
    rest = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return between.join(texts[:most]) + rest


def facts_table(title: str, facts: Mapping[str, str]) -> str:
    """What a notebook shows of an object: a small HTML table of names and texts under a title."""
    look = 'style="text-align:left"'
    rows = ((html.escape(name), html.escape(text)) for name, text in facts.items())
    body = "".join(f"<tr><th {look}>{name}</th><td {look}>{text}</td></tr>" for name, text in rows)
    return f"<table><caption {look}><b>{html.escape(title)}</b></caption>{body}</table>"


def indefinite(phrase: str) -> str:
    """``a`` or ``an``, by how the first word sounds: an hour, a unicorn, an SUV."""
    word = unicodedata.normalize("NFD", phrase.casefold().split()[0].lstrip("\"'(["))  # letters without their accents
    if word in _SPELLED_OUT_WITH_VOWEL or word.startswith(_SAID_WITH_VOWEL):
        return "an"
    return "an" if word.startswith(tuple("aeiou")) and not word.startswith(_SAID_WITH_CONSONANT) else "a"


def article(phrase: str) -> str:
    """As `indefinite`, but the empty string before plurals, what is not counted, and other scripts than Latin."""
    if not phrase.strip() or is_plural(phrase) or is_mass(phrase) or not is_latin(phrase):
        return ""
    return indefinite(phrase)


def is_latin(phrase: str) -> bool:
    """Whether all letters are Latin, accents allowed: words of other scripts do not go into English sentences."""
    return all(c.isascii() or not c.isalpha() or unicodedata.name(c, "").startswith("LATIN") for c in phrase)


def with_article(phrase: str) -> str:
    """``a red axe``, ``an axe``, ``rocks``, ``grass``."""
    return f"{article(phrase)} {phrase}".strip()


def is_plural(phrase: str) -> bool:
    """Whether the phrase, an English noun with its adjectives in front, names several things."""
    word = head_noun(phrase)
    if word in _PLURAL_WITHOUT_S:
        return True
    ends = word.endswith("s") and not word.endswith(("ss", "us", "is", "'s"))
    return ends and len(word) > 3 and word not in _SINGULAR_IN_S


def is_mass(phrase: str) -> bool:
    """Whether the phrase names a stuff that is not counted: ``grass``, ``slices of bread`` is not."""
    return head_noun(phrase) in _MASS


def head_noun(phrase: str) -> str:
    """The noun that decides, in small letters: the last word before "of", "with" ..., of an English noun phrase."""
    tokens = _RELATION.split(phrase.casefold().strip())[0].split()
    return tokens[-1] if tokens else ""
