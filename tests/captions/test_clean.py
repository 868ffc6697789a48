"""Hygiene: what no caption may contain, and what must survive."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipgs_lib.captions.clean import MAX_CHARS, clean_text, words

# any code point, lone surrogates included
ANY_TEXT = st.text(st.characters(), max_size=300)
PIECES = [
    *(
        "\u202e",
        "\u2066",
        "\u200f",
        "\x00",
        "\ud83d",
        "\udc08",
        "\u200d",
        "\u200c",
        "\u0301",
        "\ufeff",
        "\u00ad",
        "\uffff",
    ),
    *("e", "\n", " ", "🏽", "👩", "🚀", "가", "ᄀ", "ᅡ", "https://x.y", "www."),
    *("🏴\U000e0067\U000e0062\U000e007f", "\U000e0041"),
]
NASTY = st.lists(st.sampled_from(PIECES), max_size=200).map("".join)


@pytest.mark.parametrize(
    ("found", "clean", "notes"),
    [
        ("a red chair", "a red chair", ()),
        ("  a\tred \n\n chair ", "a red chair", ("spaces",)),
        ("a\x00 red\x1b[31m chair\x7f", "a red[31m chair", ("characters",)),
        ("a \u202edeca\u202c mug \u2067x\u2069", "a deca mug x", ("characters",)),
        ("half \ud83d a pair", "half a pair", ("characters", "spaces")),
        ("\ufeffzero\u200bwidth soft\u00adhyphen", "zerowidth softhyphen", ("characters",)),
        ("cafe\u0301", "café", ("composed",)),
        ("see https://a.b/c?d=1 a mug www.shop.com/x", "see a mug", ("url", "spaces")),
        ("<script>alert(1)</script> <b>mug</b> &amp;", "<script>alert(1)</script> <b>mug</b> &amp;", ()),
        ("icon \ue000 font", "icon font", ("characters", "spaces")),
        ("", "", ()),
        ("\x00\u202e", "", ("characters",)),
    ],
)
def test_cleaning_names_what_it_did(found, clean, notes):
    assert clean_text(found) == (clean, notes)


@pytest.mark.parametrize(
    "text",
    [
        "כיסא אדום",
        "كرسي أحمر",
        "می‌خواهم",  # Persian with a zero-width non-joiner
        "हिन्दी कुर्सी",
        "椅子",
        "красный стул",
        "fabergé étagère",
        "a cat 🐈 and a family 👨‍👩‍👧, thumbs 👍🏽, flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿, heart ❤️",
        "½ pound @ 5 °C — “quoted”",
    ],
)
def test_every_script_and_emoji_survives(text):
    assert clean_text(unicodedata.normalize("NFC", text)) == (unicodedata.normalize("NFC", text), ())


def test_long_texts_end_at_a_word():
    text, notes = clean_text("lorem ipsum " * 10_000)
    assert notes == ("cut",) and MAX_CHARS * 3 // 4 < len(text) <= MAX_CHARS
    assert text.endswith(("lorem", "ipsum")) and text.startswith("lorem ipsum")


def test_long_texts_without_spaces_are_cut_between_characters():
    assert clean_text("x" * 100_000) == ("x" * MAX_CHARS, ("cut",))
    family = "x" * (MAX_CHARS - 2) + "👨‍👩‍👧" * 50
    text, _ = clean_text(family)
    assert not text.endswith("\u200d") and text == family[: len(text)]
    accents = "x" * (MAX_CHARS - 1) + "q\u0301\u0302" * 9  # has no composed form
    assert clean_text(accents)[0] == "x" * (MAX_CHARS - 1)


def test_an_endless_text_is_not_read_to_its_end():
    text, notes = clean_text("\u202e ab" * 5_000_000)  # takes seconds, were it all looked at
    assert notes == ("characters", "spaces", "cut") and text.startswith("ab ab") and len(text) <= MAX_CHARS


@given(ANY_TEXT | NASTY)
def test_cleaning_twice_is_cleaning_once_and_leaves_nothing_hidden(found):
    text, _ = clean_text(found)
    assert clean_text(text) == (text, ())
    assert len(text) <= MAX_CHARS
    assert not {unicodedata.category(c) for c in text} & {"Cc", "Cs", "Co", "Zl", "Zp"}
    assert text == " ".join(text.split()) and text == unicodedata.normalize("NFC", text)
    text.encode("utf-8")  # no lone surrogates: can be written to any file


def test_words_keep_marks_and_emoji_together():
    assert words("Hello, WORLD-wide!") == ["hello", "world", "wide"]
    assert words("हिन्दी कुर्सी") == ["हिन्दी", "कुर्सी"]
    assert words("thumbs 👍🏽") == ["thumbs", "👍🏽"]
    assert words("Straße ﬁsh") == ["strasse", "fish"]
