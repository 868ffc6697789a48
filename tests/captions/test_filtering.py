"""The caption filter: what goes and why, what stays and how, on made-up and on real texts."""

from __future__ import annotations

import csv
import gzip
import json
import unicodedata
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipgs_lib.captions.caption import Caption
from clipgs_lib.captions.clean import MAX_CHARS, SeenTexts, _alike, _tokens
from clipgs_lib.captions.filtering import REASONS, captions_table, filter_captions
from clipgs_lib.captions.names import is_file_name, object_name

PIECES = """
    chair Chair ChairWooden table_02 SM_ _v3 .fbx .blend .001 (1) 2With 3d P90 every model pack Castle Kit - 2017 a w
    with final untitled iPhone 椅子 стул 🚀 1967 747 e4f1a2b3c4d5 / \\ , . İ ǅ ß
"""
DEBRIS = st.sampled_from([*PIECES.split(), "\u202e", "\x00", "\ud800"])
SOUP = st.lists(st.tuples(DEBRIS, st.sampled_from(["", " ", "_", "-"])).map("".join), max_size=9).map("".join)
ANYTHING = st.text(st.characters(), max_size=80) | SOUP
OAK = "old oak desk with two deep drawers, brass handles, turned legs and a leather top"
KINDS = st.sampled_from(["auto", "name", "text"])


def texts(report):
    return [caption.text for caption in report.kept]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ("SM_Chair_Wooden02_v3.FBX", "chair wooden"),
        ("files/models/cannon-large/model.gltf", "cannon large"),
        ("C:\\assets\\Christmas Tree.blend", "christmas tree"),
        ("Animals Pack - Oct 2016/Blends/Pug.blend", "pug"),
        ("SmallHouse 2.blend", "small house"),
        ("WatchTowerWRoof.blend", "watch tower with roof"),
        ("Bush2With.blend", "bush"),
        ("kitchenFridgeBuiltIn.fbx", "kitchen fridge built in"),
        ("Potion3HalfFull", "potion half full"),
        ("Cop_SUV.fbx", "cop suv"),
        ("potion 1full", "potion full"),
        ("DragonBall_4_Star", "dragon ball star"),
        ("Ünïcödé_Ständer_02", "ünïcödé ständer"),
        ("P90.blend", "p90"),
        ("ak47.blend", "ak47"),
        ("chair.001", "chair"),
        ("lod0_tree_2k", "tree"),
        ("ChestAnimated.fbx", "chest"),
        ("Eiffel_Tower_3d_model_free", "eiffel tower"),
        ("Стул2.obj", "стул"),
        ("椅子_02", "椅子"),
    ],
)
def test_file_names_become_names(found, name):
    (caption,) = filter_captions([found]).kept if is_file_name(found) else filter_captions([found], kind="name").kept
    assert caption == Caption(name, "filtered")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "3d printer",
            "1950s radio",
            "2 chairs",
            "1967 Mustang",
            "Boeing 747",
            "vitamin c",
            "test tube",
            "t-rex",
            "iPhone",
        ),
        *(
            "McDonald",
            "blender",
            "model train",
            "first aid kit",
            "battery pack",
            "tea set",
            "root",
            "an all-terrain vehicle",
        ),
        *(
            "chaise longue",
            "椅子",
            "猫",
            "كرسي",
            "🐈",
            "ox",
            "x-ray machine",
            "collection of old books",
            "Ständer",
            "full moon",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["auto", "name", "text"])
def test_what_looks_like_debris_but_is_none_stays(text, kind):
    assert texts(filter_captions([text], kind=kind)) == [text]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *[(text, "empty") for text in ("", "   ", "\x00\u202e", "https://a.b/c.glb")],
        *[(text, "no-words") for text in ("12", "---", "3.14 / 2")],
        ("p", "too-short"),
        *[
            (text, "id")
            for text in ("000074a334c541878360457c672b6c2e", "3f2b8c1e-aaaa-4bbb-8ccc-1234567890ab", "a1b2c3d4e5f6")
        ],
        *[
            (text, "placeholder")
            for text in (
                "Untitled (3)",
                "model.gltf",
                "scan_20230412_153000",
                "3D model",
                "/.FBX",
                "Scene",
                "new object 4",
                "Null",
                "img_2031.png",
            )
        ],
        *[
            (text, "several-objects")
            for text in ("every model", "EveryModel.blend", "All_Models", "everything", "all in one")
        ],
        *[(text, "pack-name") for text in ("Kenney Castle Kit", "Gun Pack Vol.1 - Apr 2016", "Castle Kit (1.0)")],
        *[
            (text, "pack-name")
            for text in (
                "RPG Asset Pack",
                "Tree Pack (10 trees)",
                "Ultimate Nature Pack by Quaternius",
                "PowerUps - May 2016",
            )
        ],
    ],
)
def test_what_says_nothing_goes_with_its_reason(text, reason):
    report = filter_captions([text])
    assert [removal.reason for removal in report.removed] == [reason]
    assert report.kept == () and report.counts == {reason: 1} and reason in REASONS


def test_what_is_no_string_is_removed_not_raised():
    report = filter_captions([None, float("nan"), b"chair", ["chair"], "chair"])
    assert texts(report) == ["chair"] and report.counts == {"not-text": 4}
    assert [removal.text for removal in report.removed] == ["NoneType", "float", "bytes", "list"]


def test_hostile_texts_are_kept_as_harmless_text():
    report = filter_captions(["<img src=x onerror=alert(1)> a mug", "a \u202ered\x00 mug " + "very " * 25_000 + "big"])
    assert texts(report)[0] == "<img src=x onerror=alert(1)> a mug"
    assert len(texts(report)[1]) <= MAX_CHARS and texts(report)[1].startswith("a red mug very very")
    assert report.changed[0].steps == ("characters", "cut")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be auto, name or text, got 'names'"):
        filter_captions(["chair"], kind="names")


def test_sources_and_scores_follow_the_text():
    given_ = [Caption("mug_02", "raw", 0.3), Caption("a blue mug", "enriched", 0.4), Caption("a  cup", "enriched", 0.5)]
    want = (
        Caption("mug", "filtered", None),
        Caption("a blue mug", "enriched", 0.4),
        Caption("a cup", "enriched", None),
    )
    assert filter_captions(given_).kept == want


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("Coffee table", "a coffee-table.", "duplicate"),
        ("coffee table", "table coffee", "near-duplicate"),
        (f"{OAK} and a lamp on top", f"{OAK} and one lamp on top", "near-duplicate"),
        (f"red {OAK}", f"blue {OAK}", None),
        ("fish", "ﬁsh", "duplicate"),
        ("cup on plate", "plate on cup", None),
        ("sign left", "sign right", None),
        ("rock", "rocks", None),
        ("椅子", "机", None),
    ],
)
def test_twins(first, second, reason):
    report = filter_captions([first, second])
    assert [removal.reason for removal in report.removed] == ([reason] if reason else [])
    assert all(removal.detail == texts(report)[0] for removal in report.removed)


@st.composite
def long_texts(draw):
    """Texts of 8 to 30 words that differ in a few."""
    base = [f"word{i}" for i in range(draw(st.integers(8, 30)))]
    edits = st.lists(st.tuples(st.integers(0, len(base) - 1), st.sampled_from(["", "other", "word3"])), max_size=4)
    out = []
    for edit in draw(st.lists(edits, min_size=2, max_size=8)):
        text = list(base)
        for place, word in edit:
            text[place] = word
        out.append(" ".join(text))
    return out


@given(long_texts())
def test_asking_few_candidates_misses_no_twin(pool):
    seen = SeenTexts()
    kept: list[str] = []
    for text in pool:
        tokens = _tokens(text)
        naive = any(_tokens(other) == tokens for other in kept)
        both_long = [other for other in kept if min(len(tokens), len(_tokens(other))) >= 8]
        naive = naive or any(_alike(tokens, _tokens(other)) for other in both_long)
        assert (seen.twin(text) is not None) == naive
        if not naive:
            seen.add(text)
            kept.append(text)


@given(st.lists(ANYTHING, max_size=6), KINDS)
def test_filtering_never_raises_and_twice_is_once(found, kind):
    report = filter_captions(found, kind=kind)
    again = filter_captions(report.kept, kind=kind)
    assert again.kept == report.kept and again.removed == () and again.changed == ()
    assert len(report.kept) + len(report.removed) == len(found)
    for text in texts(report):
        assert 0 < len(text) <= MAX_CHARS
        assert not {unicodedata.category(c) for c in text} & {"Cc", "Cs", "Co"}
    assert {removal.reason for removal in report.removed} <= set(REASONS)


@given(ANYTHING)
def test_a_name_is_never_longer_in_letters_than_its_file_name(found):
    name, steps = object_name(" ".join(found.split()))
    added = 3 * sum(token in ("w", "W") for token in found.replace("_", " ").split()) + name.count("with") * 4
    assert sum(c.isalpha() for c in name) <= sum(len(c.lower()) for c in found if c.isalpha()) + added
    assert name == " ".join(found.split()) or steps


def test_the_table_shows_every_text_once():
    report = filter_captions([Caption("mug_02", "raw"), "red mug", "p", "Red mug!"])
    rows = captions_table(report)
    assert [(row["before"], row["after"], row["status"]) for row in rows] == [
        ("mug_02", "mug", "changed"),
        ("red mug", "red mug", "kept"),
        ("p", "", "removed"),
        ("Red mug!", "", "removed"),
    ]
    assert rows[0]["why"] == "split, number" and rows[3]["why"] == "duplicate: red mug"
    assert str(report) == "kept 2, changed 1, removed 2 (too-short 1, duplicate 1)"


# ---- real texts ------------------------------------------------------------------------------------------------


def test_real_names_lose_only_what_is_no_name(real_data):
    table = real_data / "objects" / "OBJECTS.tsv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) > 1000
    removed, changed = {}, {}
    for row in rows:
        report = filter_captions([row["name"]], kind="name")
        removed |= {removal.text: removal.reason for removal in report.removed}
        changed |= {change.before: change.after for change in report.changed}
    assert removed == {"p": "too-short", "every model": "several-objects"}  # "p" was P90
    assert all(before.startswith(("potion ", "bush 2with", "chest ", "animated ")) for before in changed)
    paths = [filter_captions([row["source"].rpartition(":")[2]]) for row in rows]
    names = [report.kept[0].text for report in paths if report.kept]
    assert len(names) >= len(rows) - 3
    assert not any(char.isdigit() or char in "_./" for name in names for char in name if name not in ("p90", "ak47"))


def test_real_prompts_survive_untouched(real_data):
    with gzip.open(real_data / "text" / "404gen_prompts_82k.txt.gz", "rt", encoding="utf-8") as file:
        prompts = [line.rstrip("\n") for line in islice(file, 0, None, 6)]
    report = filter_captions(prompts)
    assert len(prompts) > 10_000
    assert report.changed == ()
    assert set(report.counts) <= {"duplicate", "near-duplicate"} and len(report.removed) < 0.01 * len(prompts)


def test_facts_are_short_plain_json():
    texts = ["Chair_01", "chair", "every model", "x" * 5_000, *(f"{i:08x}" for i in range(40))]
    facts = filter_captions(texts).facts()
    assert facts == json.loads(json.dumps(facts)) and len(json.dumps(facts)) < 2_500
    assert facts["removed"]["duplicate"] == 1 and facts["removed"]["several-objects"] == 1
    assert facts["kept"] + sum(facts["removed"].values()) == len(texts) and len(facts["texts"]) == 12
    assert facts["texts"][:2] == [["chair", "duplicate"], ["every model", "several-objects"]]
    long = filter_captions([200 * "word ", 200 * "Word "]).facts()["texts"]
    assert [len(text) for text, _ in long] == [121] and long[0][0].endswith("…")
