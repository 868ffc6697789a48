"""Sentences about an object: grammar, synonyms, what is said and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipgs_lib.captions.attributes import Attributes, Palette
from clipgs_lib.captions.caption import Caption
from clipgs_lib.captions.enrich import caption_object, enrich
from clipgs_lib.captions.filtering import filter_captions
from clipgs_lib.captions.names import natural_order, synonyms_of
from clipgs_lib.words import article, is_plural, listing, with_article

from .test_attributes import box, mesh, stripes


def attributes(main=("red",), many=False, **changes) -> Attributes:
    values = {
        "palette": Palette({name: 0.9 / len(main) for name in main}, main, many, 0.9 * bool(main)),
        "extents": (3.0, 1.0, 1.0), "proportion": "tall", "symmetry": 0.5, "symmetric": False,
        "roundness": 0.1, "round": False, "busyness": 0.2, "texture": "",
    }  # fmt: skip
    return Attributes(**(values | changes))


def texts(captions) -> list[str]:
    return [caption.text for caption in captions]


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        *(("chair", "a chair"), ("apple", "an apple"), ("hour glass", "an hour glass"), ("unicorn", "a unicorn")),
        *(("uninteresting box", "an uninteresting box"), ("umbrella", "an umbrella"), ("utensil", "a utensil")),
        *(("European car", "a European car"), ("one-eyed alien", "a one-eyed alien"), ("SUV", "an SUV")),
        *(("18-wheeler", "an 18-wheeler"), ("8-sided die", "an 8-sided die"), ("3d printer", "a 3d printer")),
        *(("rocks", "rocks"), ("red boxing gloves", "red boxing gloves"), ("bus", "a bus"), ("glass", "a glass")),
        *(
            ("stegosaurus", "a stegosaurus"),
            ("grass", "grass"),
            ("tall grass", "tall grass"),
            ("étagère", "an étagère"),
        ),
        *(("cup of tea", "a cup of tea"), ("slices of bread", "slices of bread"), ("", "")),
        ("house with windows", "a house with windows"),
    ],
)
def test_articles(phrase, said):
    assert with_article(phrase) == said


@pytest.mark.parametrize(
    ("name", "ordered"),
    [
        *(
            ("axe small", "small axe"),
            ("fence low broken", "low broken fence"),
            ("soda can crushed", "crushed soda can"),
        ),
        *(("small axe", "small axe"), ("orange", "orange"), ("full", "full"), ("half full", "half full"), ("", "")),
        *(("coffee table", "coffee table"), ("ladder long", "long ladder")),
    ],
)
def test_trailing_adjectives_go_in_front(name, ordered):
    assert natural_order(name) == ordered


def test_lists_and_plurals():
    assert listing(("red",)) == "red" and listing(("red", "white")) == "red and white"
    assert listing(("red", "white", "black")) == "red, white and black" and listing(()) == ""
    assert (
        is_plural("mice") and is_plural("wooden stairs") and not is_plural("chess") and not is_plural("tennis racket")
    )


@given(st.text(max_size=40))
def test_grammar_takes_any_text(text):
    assert article(text) in ("", "a", "an")
    assert sorted(natural_order(text).split()) == sorted(text.split())


def test_our_synonyms_go_both_ways_and_know_nothing_else():
    assert synonyms_of("Sofa") == ["couch", "settee"] and synonyms_of("couch") == ["sofa", "settee"]
    assert synonyms_of("chaise longue") == []


def test_a_name_of_two_things_has_no_synonyms():
    both = [("bat", "racket"), ("bat", "flying mammal")]
    assert synonyms_of("bat", both) == [] and synonyms_of("racket", both) == ["bat"]


def test_the_first_text_says_most_and_all_are_enriched():
    made = enrich(["mug"], attributes())
    assert made[0] == Caption("a tall red mug", "enriched") and len(made) == 6
    assert {caption.source for caption in made} == {"enriched"}
    assert all("mug" in text.split() or "mug," in text for text in texts(made))


def test_stated_colours_sizes_and_patterns_are_not_measured_again():
    every = texts(enrich(["flag blue", "short striped pole"], attributes(texture="plain"), limit=99))
    about_flag = [text for text in every if "flag" in text]
    about_pole = [text for text in every if "pole" in text]
    assert about_flag and about_pole
    assert not any("red" in text.split() for text in about_flag)
    assert not any({"tall", "plain"} & set(text.split()) for text in about_pole)
    assert "a tall plain blue flag" in about_flag and "a short red striped pole" in about_pole


def test_many_colours_and_none():
    assert "a multicolored mug" in texts(enrich(["mug"], attributes((), many=True), limit=99))
    bare = attributes((), proportion="")
    assert all("multicolored" not in text and "  " not in text for text in texts(enrich(["mug"], bare, limit=99)))


def test_round_and_symmetric_are_said_when_measured():
    every = texts(enrich(["vase"], attributes(proportion="", round=True, symmetric=True), limit=99))
    assert "a round red vase" in every and "a symmetric red vase" in every
    said = {word for text in texts(enrich(["vase"], attributes(), limit=99)) for word in text.split()}
    assert "vase" in said and not said & {"round", "symmetric"}


def test_without_a_shape_names_and_synonyms_are_put_into_sentences():
    every = texts(enrich(["sofa"], limit=99))
    assert "a couch" in every and "a 3D model of a settee" in every
    assert "a sofa" not in every  # says just what the name says
    assert enrich([]) == [] and enrich(["a sentence, which fits into no other."]) == []


def test_without_a_name_it_is_an_object():
    assert texts(enrich([], attributes()))[0] == "a tall red object"
    assert texts(enrich(["椅子", "стул"], attributes()))[0] == "a tall red object"  # not "a tall red 椅子"
    assert enrich(["椅子"]) == []


def test_enriching_has_no_twins_and_no_more_than_asked():
    made = enrich(["mug", "Mug", "cup of coffee"], attributes(), limit=40)
    assert filter_captions(made, kind="text").kept == tuple(made)
    assert [len(enrich(["mug"], attributes(), limit=n)) for n in (0, 1, 5)] == [0, 1, 5]
    with pytest.raises(ValueError, match="limit must be >= 0, got -1"):
        enrich(["mug"], limit=-1)


def test_seeds_choose_and_repeat():
    one, again, other = (texts(enrich(["mug"], attributes(), seed=seed)) for seed in (1, 1, 2))
    assert one == again and one != other


@given(st.lists(st.text(st.characters(), max_size=30), max_size=4), st.integers(0, 5))
def test_enriching_what_passed_the_filter_gives_clean_texts(names, seed):
    kept = texts(filter_captions(names).kept)
    made = enrich(kept, attributes(), seed=seed, limit=8)
    assert filter_captions(made, kind="text").removed == () and filter_captions(made, kind="text").changed == ()


def test_an_object_gets_all_its_texts_once():
    shape = mesh(*box((1, 3, 1), texture=stripes()))
    got = caption_object(["packs/x/Tower_02.fbx", "tower_high", "every model", "TOWER"], shape, limit=5)
    assert texts(got.captions[:3]) == ["tower_high", "tower", "tower high"]
    assert [caption.source for caption in got.captions] == ["raw", "filtered", "filtered", *["enriched"] * 5]
    assert got.report.counts == {"several-objects": 1, "duplicate": 1}
    assert got.attributes is not None and got.attributes.texture == "patterned"
    assert "tall patterned" in got.captions[3].text
    assert caption_object(["packs/x/Tower_02.fbx"], shape, seed=4) == caption_object(
        ["packs/x/Tower_02.fbx"], shape, seed=4
    )


def test_a_set_of_objects_gets_no_text():
    shape = mesh(*box((1, 3, 1)))
    assert caption_object(["every model"], shape).captions == ()
    assert texts(caption_object(["Untitled"], shape).captions)[0] == "a tall plain gray object"
    assert caption_object(["every model", "tower"], shape).captions != ()
