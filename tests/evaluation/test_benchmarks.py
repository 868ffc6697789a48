"""Class lists, and folders of meshes in the layout of ModelNet40."""

from __future__ import annotations

import json
import warnings

import pytest
from typer.testing import CliRunner

from clipgs_lib import evaluation
from clipgs_lib.cli import app
from clipgs_lib.evaluation import EvaluationWarning, benchmarks
from clipgs_lib.runtime import real_data_dir
from clipgs_lib.shards import ShardSet

CUBE = "8 12 0\n" + "".join(f"{x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 2))
FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
CUBE += "".join(f"3 {a} {b} {c}\n3 {a} {c} {d}\n" for a, b, c, d in FACES)


def test_lists_are_of_the_published_sizes():
    assert len(set(benchmarks.LISTS["modelnet40"])) == 40 and len(set(benchmarks.LISTS["scanobjectnn"])) == 15
    assert evaluation.class_list("ModelNet40", ["night stand"])[23] == "night stand"
    assert evaluation.class_list("labels", ["b", "", "a", "b"]) == ["a", "b"]


def test_published_lists_are_those_beside_the_project():
    folder = real_data_dir()
    if folder is None:
        pytest.skip("no real data here")
    lists = json.loads((folder / benchmarks.LVIS_FILE).read_text())
    assert sorted(benchmarks.LISTS["modelnet40"]) == sorted(lists["modelnet40_openshape"])
    assert sorted(benchmarks.LISTS["scanobjectnn"]) == sorted(lists["scanobjnn_openshape"])
    names = evaluation.class_list("objaverse-lvis", ["band aid"])
    assert len(names) == 1156 and "Band Aid" in names


def test_lists_out_of_files(tmp_path):
    for name, text in (("a.txt", "night_stand\n\n  sofa \n"), ("a.json", '["night_stand", "sofa"]')):
        (tmp_path / name).write_text(text)
        assert evaluation.class_list(str(tmp_path / name), ["sofa"]) == ["night stand", "sofa"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sofa\nchair\nSofa\n", "must hold different names, got sofa more than once"),
        ("\n", "different names, got none"),
        ('{"a": 1}', "must be a JSON list of names, got dict"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, words):
    path = tmp_path / ("list.json" if text.startswith("{") else "list.txt")
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        evaluation.class_list(str(path), ["sofa"])


def test_unknown_names_and_missing_data_say_what_there_is(monkeypatch):
    with pytest.raises(ValueError, match="classes must be labels, modelnet40, scanobjectnn, objaverse-lvis, or a file"):
        evaluation.class_list("shapenet", ["sofa"])
    monkeypatch.setattr(benchmarks, "real_data_dir", lambda: None)
    with pytest.raises(ValueError, match="pass a file with a name on each line instead"):
        evaluation.class_list("objaverse-lvis", ["sofa"])


def test_a_list_in_another_language_is_a_warning():
    with pytest.warns(EvaluationWarning, match="none of the objects' labels is in the class list .* another language"):
        evaluation.class_list("modelnet40", ["Stuhl", "Tisch"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.class_list("modelnet40", ["Stuhl", "CHAIR"])


def test_a_folder_of_modelnet_is_built_once_from_its_test_objects(tmp_path):
    folder = tmp_path / "ModelNet"
    for name in ("night_stand", "chair"):
        for split in ("train", "test"):
            (folder / name / split).mkdir(parents=True)
            (folder / name / split / f"{name}_0001.off").write_text("OFF" + CUBE)  # broken first line, as published
    (folder / "chair" / "test" / "chair_0002.off").write_text("OFF\n1 1 1\n")
    said = []
    with pytest.warns(EvaluationWarning, match="1 of 3 meshes of .* could not be read"):
        out = evaluation.open_folder(folder, "mini", tmp_path / "work", lambda *numbers: said.append(numbers))
    shards = ShardSet(out)
    assert sorted(row["category"] for row in shards.rows) == ["chair", "night stand"]
    assert shards.teacher is not None and said[-1][:2] == (3, 3)
    assert shards.manifest["build"]["config"]["up_axis"] == "+z" and len(shards.read(0).views) == 8
    assert evaluation.open_folder(out, "mini", tmp_path / "work") == out, "a set is taken as it is"
    words = ["evaluate", "zero-shot", str(folder), "--encoder", "clipgs-mini", "--classes", "modelnet40"]
    with warnings.catch_warnings():  # the command prints what it warns of
        warnings.simplefilter("default")
        done = CliRunner().invoke(app, [*words, "--device", "cpu", "--work", str(tmp_path / "work")])  # in one command
    assert done.exit_code == 0 and "zero-shot, all labels (n = 2)" in done.output, done.output
    assert "1 of 3 meshes of" in done.output
