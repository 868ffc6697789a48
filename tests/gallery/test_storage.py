"""Galleries on disk: appended to, read while they are written, killed, damaged, of another space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipgs_lib.files import LockedError
from clipgs_lib.gallery import INDEX, Gallery, GalleryError, GalleryWriter, Rows, Space
from clipgs_lib.gallery import storage as module

from .test_gallery import TEACHER, made, unit

SPACE = Space(TEACHER, "enc sha256:00", 16)


def rows(first: int, count: int, dim: int = 16) -> Rows:
    numbers = range(first, first + count)
    meta = [{"n": i, "caption": f"c{i}"} | ({"odd": [i]} if i % 2 else {}) for i in numbers]
    return Rows(unit(count, dim, seed=first), [f"k{i}" for i in numbers], meta, [f"p{i}".encode() for i in numbers])


def test_appending_gives_what_saving_at_once_gives(tmp_path):
    with GalleryWriter(tmp_path, SPACE) as writer:
        for first in range(0, 21, 3):
            writer.add(rows(first, 3))
    with GalleryWriter(tmp_path, SPACE) as writer:
        assert writer.keys == {f"k{i}" for i in range(21)}
        writer.add(rows(21, 1))
    whole = rows(0, 3)
    for first in range(3, 21, 3):
        whole = whole + rows(first, 3)
    whole = whole + rows(21, 1)
    gallery = Gallery.open(tmp_path)
    assert (gallery.keys, gallery.meta, gallery.encoder) == (whole.keys, whole.meta, SPACE.encoder)
    assert torch.equal(gallery.embeds, whole.embeds) and [gallery.thumbnail(i) for i in range(22)] == whole.thumbnails
    assert torch.equal(gallery.take([21, 0, 13]), whole.embeds[[21, 0, 13]]) and gallery.describe([21])[0]["n"] == 21
    assert gallery.search(whole.embeds[20], 1).keys == ["k20"]
    sizes = [part["rows"] for part in json.loads((tmp_path / INDEX).read_text())["parts"]]
    assert sum(sizes) == 22 and sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert len(list(tmp_path.glob("part-*"))) == 2 * len(sizes)


def test_what_is_open_stays_as_it_was_while_another_writes(tmp_path):
    with GalleryWriter(tmp_path, SPACE) as writer:
        writer.add(rows(0, 4))
        before = Gallery.open(tmp_path)
        writer.add(rows(4, 4))  # merges, and removes the files of the first part
        assert len(Gallery.open(tmp_path)) == 8
    assert len(before) == 4 and before.search(rows(0, 4).embeds[3], 1).keys == ["k3"]
    assert before.meta == list(rows(0, 4).meta) and before.thumbnail(2) == b"p2"


def test_a_reader_between_index_and_files_looks_again(tmp_path, monkeypatch):
    with GalleryWriter(tmp_path, SPACE) as writer:
        writer.add(rows(0, 4))
        old, parse = (tmp_path / INDEX).read_text(), module._parse_index
        calls = []

        def late(path: Path, text: str):
            calls.append(text)
            if len(calls) == 1:
                monkeypatch.setattr(module, "_parse_index", parse)
                writer.add(rows(4, 4))
            return parse(path, text)

        monkeypatch.setattr(module, "_parse_index", late)
        assert len(Gallery.open(tmp_path)) == 8 and calls == [old]


def test_one_process_writes(tmp_path):
    with GalleryWriter(tmp_path, SPACE) as writer:
        writer.add(rows(0, 2))
        with pytest.raises(LockedError, match="one process may write a gallery"), GalleryWriter(tmp_path, SPACE):
            pass
        with pytest.raises(LockedError):
            made().save(tmp_path)


def test_keys_come_once(tmp_path):
    twice = rows(2, 1) + Rows(unit(1), ["k2"], [{}], [b""])
    with GalleryWriter(tmp_path, SPACE) as writer:
        writer.add(rows(0, 2))
        for again in (rows(1, 1), twice):
            with pytest.raises(ValueError, match=r"keys must come once in .*, got k\d again; leave them out"):
                writer.add(again)
    assert len(Gallery.open(tmp_path)) == 2


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Space("other", SPACE.encoder, 16), r"the teacher must be mini .* got other \(D = 16\)"),
        (Space(TEACHER, SPACE.encoder, 8), r"got mini .*\(D = 8\)"),
        (Space(TEACHER, "enc sha256:11", 16), "the encoder must be enc sha256:00, .* got enc sha256:11; use that one"),
    ],
)
def test_another_space_is_refused(tmp_path, space, words):
    with GalleryWriter(tmp_path, SPACE) as writer:
        writer.add(rows(0, 2))
    with pytest.raises(GalleryError, match=words), GalleryWriter(tmp_path, space):
        pass
    with GalleryWriter(tmp_path, SPACE):
        pass  # the lock was let go
    with pytest.raises(GalleryError, match=words):
        Gallery.open(tmp_path, teacher=space.teacher, dim=space.dim, encoder=space.encoder)
    assert len(Gallery.open(tmp_path, encoder=SPACE.encoder)) == 2


KILLED = """
import os, sys, signal
from tests.gallery.test_storage import SPACE, rows
from clipgs_lib.gallery import GalleryWriter, storage
from pathlib import Path
with GalleryWriter(sys.argv[1], SPACE) as writer:
    writer.add(rows(0, 3))
    replace, count = Path.replace, [0]
    def dying(self, target):
        count[0] += 1
        if count[0] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)
    Path.replace = dying
    writer.add(rows(3, 5))
"""


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_killed_writer_leaves_what_it_had_committed(tmp_path, step):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "g"), str(step)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert Gallery.open(tmp_path / "g").keys == ["k0", "k1", "k2"]
    with GalleryWriter(tmp_path / "g", SPACE) as writer:
        writer.add(rows(3, 5))
    assert len(Gallery.open(tmp_path / "g")) == 8
    assert len(list((tmp_path / "g").glob("part-*"))) == 2 and not list((tmp_path / "g").glob(".*"))


def test_descriptions_of_all_kinds_come_back(tmp_path):
    meta = [
        {"s": "<script>alert(1)</script>", "n": 1, "x": 0.5, "b": True, "mixed": 1, "none": None, "big": 1 << 70},
        {"s": "/etc/passwd", "n": -(1 << 62), "x": 1.0, "b": False, "mixed": "1", "deep": {"a": [1, {"b": None}]}},
        {"s": "שלום 🙂 \u202e", "": "empty", "key": "k", "a.b": "dots"},
        {},
    ]
    store = Gallery(unit(4), list("abcd"), meta, teacher=TEACHER)
    again = Gallery.open(store.save(tmp_path))
    assert again.meta == meta and [type(row.get("n")) for row in again.meta] == [int, int, type(None), type(None)]
    assert [again.describe([row])[0] for row in range(4)] == meta


def index_with(folder: Path, **changes: object) -> None:
    head = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(head | changes))


def entry_with(folder: Path, **changes: object) -> None:
    entry = json.loads((folder / INDEX).read_text())["parts"][0]
    index_with(folder, parts=[entry | changes])


def test_damage_is_told_with_its_place(tmp_path):
    def broken(words: str) -> None:
        with pytest.raises(GalleryError, match=words):
            Gallery.open(folder)
        made().save(folder)

    folder = tmp_path / "g"
    with pytest.raises(GalleryError, match=r"must have an index, got .*No such file.*clipgs embed makes one"):
        Gallery.open(folder)
    index, embeds = made().save(folder) / INDEX, next(folder.glob("*.safetensors"))
    table = embeds.with_suffix(".parquet")
    index.write_bytes(index.read_bytes()[:-9])
    broken("the index must be JSON")
    index.write_bytes(b"\xff\xfe" + index.read_bytes())
    broken("must have an index, got 'utf-8' codec")
    index.write_text("[]")
    broken(r"it must hold format \(str\), teacher")
    index_with(folder, format="clipgs-gallery/1", more=1)
    broken("format must be 'clipgs-gallery/2', got 'clipgs-gallery/1'; another version")
    index_with(folder, more=1)
    broken("it must hold format")
    index_with(folder, parts=[])
    broken("at least one part, got none")
    index_with(folder, dim=8)
    broken(r"must be float32 \[30, 8\]")
    entry_with(folder, name="../../etc/passwd")
    broken("must name files beside it")
    entry_with(folder, rows=29)
    broken(r"must be float32 \[29, 16\]")
    entry_with(folder, rows="29")
    broken(r"it must hold name \(str\), rows \(int\)")
    embeds.write_bytes(embeds.read_bytes()[:-4])
    broken(r"the file must have [\d,]+ bytes, got [\d,]+; it is cut")
    embeds.unlink()
    broken("bytes, got no such file")
    table.unlink()
    broken("bytes, got no such file")
    embeds.write_bytes(bytes(embeds.stat().st_size))
    broken("intact safetensors")
    table.write_bytes(bytes(table.stat().st_size))
    with pytest.raises(GalleryError, match="the table must be intact Parquet"):
        _ = Gallery.open(folder).keys
    made().save(folder)
    assert len(Gallery.open(folder)) == 30  # each save repaired it
