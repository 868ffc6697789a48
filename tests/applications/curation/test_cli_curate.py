"""``clipgs curate``: labels to a manifest and a set, the oracle, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from clipgs_lib.applications.curation import curated, oracle, read_manifest
from clipgs_lib.applications.curation.labels import LabelFile
from clipgs_lib.shards import ShardSet
from clipgs_lib.vectors import unit

from ...conftest import clipgs
from ...training.samples import KINDS, TEACHER, make_set


class Teacher:
    """Says of any text the direction of the first kind."""

    def encode_text(self, texts):
        return unit(torch.from_numpy(np.random.default_rng(0).normal(size=(1, TEACHER.dim))))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return ShardSet(make_set(tmp_path_factory.mktemp("sets") / "kinds"))


@pytest.fixture(autouse=True)
def teacher(monkeypatch):
    monkeypatch.setattr(curated, "load_teacher_of", lambda *_, **__: Teacher())


@pytest.fixture
def labels(shards, tmp_path):
    """The first forty objects, labelled."""
    file = LabelFile(tmp_path / "labels.jsonl", shards.manifest["content_sha256"], "ada")
    for row in shards.rows[:40]:
        file.add(row["key"], "yes" if int(row["key"][-4:]) % len(KINDS) == 0 else "no")
    return file.path


def test_labels_become_a_manifest_and_a_set(shards, labels, tmp_path):
    words = [shards.folder, "--positives", "a thing", "--labels", labels, "--encoder", "bag-mean", "--precision", 0.9]
    done = clipgs("curate", *words)
    assert done.returncode == 0, done.stderr
    assert "of 70, expected precision 9" in done.stdout and "AP on labels held out: 100.0 %" in done.stdout
    file = LabelFile(labels, shards.manifest["content_sha256"], "bob")
    file.add(shards.rows[0]["key"], "no" if file.read()[0].answer == "yes" else "yes")
    done = clipgs("curate", *words, "--out", tmp_path / "out")
    assert done.returncode == 0 and "by ada, then" in done.stdout and "the last one counts" in done.stdout
    head, rows = read_manifest(tmp_path / "out" / "curation.jsonl")
    assert head["encoder"] == "bag-mean" and len(rows) == 70
    assert len(ShardSet(tmp_path / "out" / "set")) == head["kept"]


def test_the_oracle_says_what_labels_buy(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "tasks", lambda: {"first": oracle.Task("a thing", frozenset({KINDS[0]}))})
    words = ["--encoder", "bag-mean", "--seeds", 2, "--budget", 20, "--out", tmp_path / "curves.json"]
    done = clipgs("curate", shards.folder, "--oracle", "first", *words)
    assert done.returncode == 0, done.stderr
    assert "first | " in done.stdout and " of 70 | " in done.stdout
    written = json.loads((tmp_path / "curves.json").read_text())
    assert written["tasks"]["first"]["labels"] == [0, 10, 20] and written["encoder"] == "bag-mean"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either --positives and --labels must be given, or --oracle, got both or neither"),
        (["--positives", "x"], "either --positives and --labels must be given"),
        (["--oracle", "cars", "--encoder", "bag-mean"], "the task must be one of food, "),
        (["--positives", "x", "--labels", "nowhere.jsonl"], "the path must name an existing file"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(shards, words, message):
    done = clipgs("curate", shards.folder, *words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_labels_of_one_kind_or_another_set_are_one_sentence(shards, labels, tmp_path):
    words = ["--positives", "x", "--encoder", "bag-mean", "--labels", labels]
    another = make_set(tmp_path / "another", train=30)
    done = clipgs("curate", another, *words)
    assert done.returncode == 2 and "labels must be of the set with the content" in done.stderr
    labels.write_text("".join(line + "\n" for line in labels.read_text().splitlines() if '"no"' in line))
    done = clipgs("curate", shards.folder, *words)
    assert done.returncode == 2 and "at least 2 yes and 2 no, got 0 yes" in done.stderr
