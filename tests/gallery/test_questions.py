"""Files of queries, right answers, and precision."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from clipgs_lib.gallery import Gallery, Question, lines_of, read_questions, right_rows
from clipgs_lib.triplets import folder_sources
from clipgs_lib.vectors import unit


def kinds_gallery(*categories: str) -> Gallery:
    embeds = unit(torch.randn(len(categories), 4, generator=torch.Generator().manual_seed(0)))
    meta = [{"category": category} if category else {} for category in categories]
    return Gallery(embeds, [f"k{i}" for i in range(len(categories))], meta, teacher="t sha256:0")


def test_lines_mappings_and_lists_are_queries(tmp_path):
    lines = tmp_path / "q.txt"
    lines.write_text("\ufeffa red car\n\n# a note\n  a: b\n<b>mug</b>\n", encoding="utf-8")
    assert [one.text for one in read_questions(lines)] == ["a red car", "a: b", "<b>mug</b>"]
    (tmp_path / "q.json").write_text('{"a seat": ["chair", "sofa"], "a tree": []}')
    assert read_questions(tmp_path / "q.json") == [Question("a seat", right=("chair", "sofa")), Question("a tree")]
    (tmp_path / "q.json").write_text('{"a cat": {"right": ["cat"], "photo": "cat.jpg"}, "a tree": null}')
    cat = Question("a cat", right=("cat",), photo="cat.jpg")
    assert read_questions(tmp_path / "q.json") == [cat, Question("a tree")]
    (tmp_path / "q.yaml").write_text("- a seat\n- {text: x, image: p.png, like: k, minus: red, right: chair}\n")
    first, second = read_questions(tmp_path / "q.yaml")
    assert first == Question("a seat")
    assert second == Question("x", str(tmp_path / "p.png"), "k", "red", ("chair",)), "pictures lie beside the file"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("q.txt", b"", "at least one line that is no # note, got none"),
        ("q.txt", b"\n# only a note\n", "at least one line that is no # note, got none"),
        ("q.txt", b"\xff\xfe\x00x", "must be text in UTF-8"),
        ("q.yaml", b"", "at least one query, got nothing"),
        ("q.yaml", b"[]", "at least one query, got nothing"),
        ("q.yaml", b"just words", "at least one query, got str"),
        ("q.yaml", b"- {text: a mug, colour: red}", "query 1: settings must be among text.*got unknown colour"),
        ("q.yaml", b"- a mug\n- 7", "query 2: text must be a text, got 7"),
        ("q.yaml", b"- {minus: red}", "query 1: a query must have a text, an image or a key"),
        ("q.yaml", b"a: {b: c}", "query 1: settings must be among text.*got unknown b"),
        ("q.yaml", b"- 'open", "must be JSON or YAML"),
        ("q.json", b"[" * 100_000, "must be JSON or YAML"),
    ],
)
def test_files_without_queries_are_refused(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_questions(path)


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    for name in ("q.txt", "q.yaml"):
        with pytest.raises(OSError, match="No such file"):
            read_questions(tmp_path / name)
    with pytest.raises(OSError, match="directory"):
        lines_of(tmp_path)


def test_right_rows_hold_a_word_as_a_whole_or_are_named():
    gallery = kinds_gallery("Chair", "armchair", "garden chair", "", "c++ (book)")
    assert right_rows(gallery, ["CHAIR"]).tolist() == [True, False, True, False, False]
    assert right_rows(gallery, ["k3", "sofa"]).tolist() == [False, False, False, True, False]
    assert right_rows(gallery, ["book"]).tolist() == [False, False, False, False, True]
    assert not right_rows(gallery, ["", " "]).any() and not right_rows(gallery, ["."]).any()


# ---- those that are committed ----------------------------------------------------------------------------------------

FOLDER = Path(__file__).parents[2] / "data" / "queries"


def missing(questions: list[Question], folder: Path, labels: Path | None = None) -> list[tuple[str, str]]:
    """Questions and their right answers that are neither a key of a folder's objects nor in a category."""
    sources = folder_sources(folder, kind="any", labels=labels, partial=True)
    keys = {source.key for source in sources}
    categories = "\n".join({source.info.get("label", "").casefold() for source in sources})
    pairs = [(one.text, word) for one in questions for word in one.right]
    return [(t, w) for t, w in pairs if w not in keys and not re.search(rf"\b{re.escape(w.casefold())}\b", categories)]


@pytest.mark.parametrize(("name", "count"), [("kits", 43), ("furniture", 40)])
def test_the_questions_of_an_example_gallery_are_whole(name, count):
    pairs = json.loads((FOLDER / f"{name}.json").read_text(), object_pairs_hook=list)
    texts = [text.casefold().strip() for text, _ in pairs]
    assert len(texts) == len(set(texts)) == count, "JSON keeps the last of two questions without a word"
    for one in read_questions(FOLDER / f"{name}.json"):
        assert one.right and all(map(str.strip, one.right)) and len(set(one.right)) == len(one.right), one


def test_right_answers_to_the_questions_are_in_the_furniture(furniture: Path):
    assert missing(read_questions(FOLDER / "furniture.json"), furniture) == []
    assert missing([Question("a tiger", right=("tiger", "chair"))], furniture) == [("a tiger", "tiger")]


@pytest.mark.filterwarnings("ignore::clipgs_lib.shards.ShardWarning")
def test_right_answers_and_photographs_of_the_questions_are_in_the_real_data(real_data):
    questions = read_questions(FOLDER / "kits.json")
    assert missing(questions, real_data / "objects", real_data / "objects" / "OBJECTS.tsv") == []
    photos = [one.photo for one in questions if one.photo]
    assert len(photos) == 5 and all((real_data / "photos" / photo).is_file() for photo in photos)
