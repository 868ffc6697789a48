"""Labels: strokes that survive kill -9, several windows, undo, other sets and damaged files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest

from clipgs_lib.applications.curation.labels import LabelError, LabelFile, contradictions, standing

GALLERY = "ab" * 32


def said(file: LabelFile) -> dict[str, str]:
    return {stroke.key: stroke.answer for stroke in standing(file.read())}


def label_many(path, who, count):
    for number in range(count):
        LabelFile(path, GALLERY, who).add(f"{who}-{number}", "yes")


def test_every_stroke_says_what_who_when_and_of_which_set(tmp_path):
    file = LabelFile(tmp_path / "labels.jsonl", GALLERY, "ada")
    assert file.read() == []
    stroke = file.add("a", "yes")
    line = json.loads((tmp_path / "labels.jsonl").read_text())
    assert line == stroke.__dict__ and (line["labeller"], line["gallery"], line["key"]) == ("ada", GALLERY, "a")
    assert line["time"].endswith("+00:00") and LabelFile(file.path, GALLERY).read() == [stroke]


def test_the_last_answer_holds_and_undo_takes_back_the_stroke_it_names(tmp_path):
    file = LabelFile(tmp_path / "labels", GALLERY, "ada")
    first, second = file.add("a", "yes"), file.add("a", "no")
    file.add("b", "skip")
    assert said(file) == {"a": "no", "b": "skip"}
    file.add("a", "undo", undoes=second.id)
    assert said(file) == {"a": "yes", "b": "skip"}
    file.add("a", "undo", undoes=first.id)
    assert said(file) == {"b": "skip"} and len(file.read()) == 5, "nothing is ever removed"


def test_contradictions_are_told_with_their_labellers(tmp_path):
    ada, bob = (LabelFile(tmp_path / "labels", GALLERY, name) for name in ("ada", "bob"))
    ada.add("a", "yes")
    ada.add("b", "skip")
    stroke = bob.add("a", "no")
    bob.add("b", "no")
    assert contradictions(standing(bob.read())) == ["a: yes by ada, then no by bob; the last one counts"]
    bob.add("a", "undo", undoes=stroke.id)
    assert contradictions(standing(bob.read())) == []


def test_a_torn_last_line_is_dropped_and_the_next_stroke_replaces_it(tmp_path):
    file = LabelFile(tmp_path / "labels", GALLERY, "ada")
    file.add("a", "yes")
    whole = file.path.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        file.path.write_bytes(whole + whole[:cut])
        assert said(file) == {"a": "yes"}
    file.add("b", "no")
    assert said(file) == {"a": "yes", "b": "no"} and file.path.read_bytes().startswith(whole)


def test_two_windows_never_overwrite_each_other(tmp_path):
    path = tmp_path / "labels"
    workers = [get_context("fork").Process(target=label_many, args=(path, who, 25)) for who in ("ada", "bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    strokes = LabelFile(path, GALLERY).read()
    for who in ("ada", "bob"):
        assert [s.key for s in strokes if s.labeller == who] == [f"{who}-{number}" for number in range(25)]


def test_kill_9_loses_nothing_that_was_saved(tmp_path):
    path = tmp_path / "labels"
    program = (
        "import sys; from clipgs_lib.applications.curation.labels import LabelFile\n"
        "file, number = LabelFile(sys.argv[1], sys.argv[2], 'ada'), 0\n"
        "while True:\n"
        "    file.add(f'key-{number}', 'yes'); number += 1; print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, path, GALLERY], stdout=subprocess.PIPE, text=True) as process:
        saved = 0
        while saved < 5:
            saved = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        saved = int((process.stdout.read().split() or [saved])[-1])
    file = LabelFile(path, GALLERY, "ada")
    assert saved <= len(file.read()) <= saved + 1, "what was acknowledged is there"
    file.add("after", "no")  # the lock went with the process
    assert list(said(file)) == [*(f"key-{number}" for number in range(len(file.read()) - 1)), "after"]


def test_a_stroke_waits_for_a_window_that_is_at_it_and_gives_up(tmp_path, monkeypatch):
    from clipgs_lib.applications.curation import labels
    from clipgs_lib.files import LockedError, locked

    file = LabelFile(tmp_path / "labels", GALLERY)
    monkeypatch.setattr(labels, "PATIENCE", 0.05)
    began = time.monotonic()
    with (
        locked(f"{file.path}.lock", "a test"),
        pytest.raises(LockedError, match="one window at a time may add a label, got process"),
    ):
        file.add("a", "yes")
    assert time.monotonic() - began >= 0.05 and file.read() == []


def test_labels_of_another_set_are_refused_and_not_added_to(tmp_path):
    LabelFile(tmp_path / "labels", "cd" * 32).add("a", "yes")
    before = (tmp_path / "labels").read_bytes()
    file = LabelFile(tmp_path / "labels", GALLERY)
    for act in (file.read, lambda: file.add("a", "yes")):
        with pytest.raises(
            LabelError, match="labels must be of the set with the content abababababab, got those of cdcd"
        ):
            act()
    assert (tmp_path / "labels").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{}", "settings must include key"),
        ("[1]", "line 2: a line must be a stroke"),
        ("not json", "Expecting value"),
        ('{"key": 3}', "line 2: a line must be a stroke"),
        ("\ufffd\x00", "line 2"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, words):
    file = LabelFile(tmp_path / "labels", GALLERY)
    file.add("a", "yes")
    file.path.write_text(file.path.read_text() + line + "\n")
    with pytest.raises(LabelError, match=words):
        file.read()


def test_an_unknown_answer_in_a_file_is_refused(tmp_path):
    file = LabelFile(tmp_path / "labels", GALLERY)
    file.add("a", "yes")
    file.path.write_text(file.path.read_text().replace('"yes"', '"maybe"'))
    with pytest.raises(LabelError, match=r"answer must be .*got 'maybe'; remove the line"):
        file.read()
