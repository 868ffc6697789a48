"""Embeddings on disk: computed once, never another teacher's, mended when damaged, shared by processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch

from clipgs_lib.teachers import CachedTeacher, TeacherWarning, load_teacher

from . import tiny

TEXTS = ["a cup", "two cups", "a cup", "three cups", "four cups"]


def test_the_second_time_is_read(teacher, tmp_path):
    images = tiny.pictures(5)
    first = CachedTeacher(teacher, tmp_path)
    expected = first.encode_image(images), first.encode_text(TEXTS)
    torch.testing.assert_close(expected[0], teacher.encode_image(images))
    torch.testing.assert_close(expected[1], teacher.encode_text(TEXTS))
    assert (first.hits, first.misses) == (1, 9)  # a text that comes twice is computed once
    again = CachedTeacher(teacher, tmp_path)
    assert torch.equal(again.encode_image(images.flip(0)), expected[0].flip(0))
    assert torch.equal(again.encode_text(TEXTS), expected[1])
    assert (again.hits, again.misses) == (10, 0)


def test_it_is_a_teacher(teacher, tmp_path):
    cached = CachedTeacher(teacher, tmp_path)
    for name in ("name", "identity", "digest", "embed_dim", "logit_scale", "logit_bias", "preprocess", "precision"):
        assert getattr(cached, name) == getattr(teacher, name)
    assert torch.equal(cached.zero_shot_weights(["cup"]), teacher.zero_shot_weights(["cup"]))
    assert cached.encode_text([]).shape == (0, 16)
    with pytest.raises(ValueError, match="one str"):
        cached.encode_text("cup")


def test_contents_are_told_apart(teacher, tmp_path):
    cached = CachedTeacher(teacher, tmp_path)
    pixels = torch.zeros(1, 8, 16, 3, dtype=torch.uint8)
    for other in (pixels, pixels.reshape(1, 16, 8, 3), pixels.float(), pixels + 1):
        torch.testing.assert_close(cached.encode_image(other), teacher.encode_image(other))
    assert (cached.hits, cached.misses) == (0, 4)


def test_another_teacher_reads_other_rows(weights, teacher, tmp_path):
    CachedTeacher(teacher, tmp_path).encode_text(TEXTS)
    other = load_teacher(f"{tiny.NAME}@{tiny.save_weights(tmp_path / 'o.safetensors', seed=1)}", device="cpu")
    half = load_teacher(f"{tiny.NAME}@{weights}", device="cpu", precision="bf16")
    for stranger in (other, half):
        cached = CachedTeacher(stranger, tmp_path)
        torch.testing.assert_close(cached.encode_text(TEXTS), stranger.encode_text(TEXTS))
        assert cached.misses == 4


@pytest.mark.parametrize("change", ["data = zeroblob(64)", "data = zeroblob(3)", "data = 'text'", "crc = crc + 1"])
def test_a_damaged_row_is_computed_again(teacher, tmp_path, change):
    cached = CachedTeacher(teacher, tmp_path)
    expected = cached.encode_text(TEXTS)
    with closing(sqlite3.connect(cached.path)) as base, base:
        base.execute(f"UPDATE embeddings SET {change} WHERE key = (SELECT key FROM embeddings LIMIT 1)")
    again = CachedTeacher(teacher, tmp_path)
    with pytest.warns(TeacherWarning, match="1 cached embeddings.*damaged"):
        torch.testing.assert_close(again.encode_text(TEXTS), expected)
    assert again.misses == 1
    assert torch.equal(CachedTeacher(teacher, tmp_path).encode_text(TEXTS), again.encode_text(TEXTS))


@pytest.mark.parametrize("junk", [b"not a database, " * 100, None])
def test_a_damaged_file_is_set_aside(teacher, tmp_path, junk):
    cached = CachedTeacher(teacher, tmp_path)
    expected = cached.encode_text(TEXTS)
    raw = bytearray(cached.path.read_bytes())
    raw[100:] = b"\xa5" * (len(raw) - 100)  # the header stays
    cached.path.write_bytes(junk or bytes(raw))
    with pytest.warns(TeacherWarning, match="a new one starts"):
        assert torch.equal(cached.encode_text(TEXTS), expected)
    assert cached.path.with_suffix(".damaged").exists()
    assert torch.equal(CachedTeacher(teacher, tmp_path).encode_text(TEXTS), expected)


def test_a_stopped_run_keeps_its_batches(teacher, tmp_path, monkeypatch):
    cached = CachedTeacher(teacher, tmp_path)
    inner, calls = teacher.encode_text, []

    def stops(texts):
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(texts)

    texts = [f"cup {n}" for n in range(9)]
    monkeypatch.setattr(teacher, "encode_text", stops)
    with pytest.raises(KeyboardInterrupt):
        cached.encode_text(texts)
    monkeypatch.undo()
    again = CachedTeacher(teacher, tmp_path)
    again.encode_text(texts)
    assert (again.hits, again.misses) == (6, 3)  # two batches of three were there


def test_a_full_disk_loses_nothing_but_the_cache(teacher, tmp_path, monkeypatch):
    cached = CachedTeacher(teacher, tmp_path)
    cached.encode_text(["first"])
    connect = sqlite3.connect

    def full(*args, **kwargs):
        base = connect(*args, **kwargs)
        base.execute("PRAGMA max_page_count = 1")  # SQLite then says what it says on a full disk
        return base

    monkeypatch.setattr(sqlite3, "connect", full)
    texts = [f"cup {n}" for n in range(90)]
    with pytest.warns(TeacherWarning, match="full"):
        made = cached.encode_text(texts)
    torch.testing.assert_close(made, teacher.encode_text(texts))


WRITER = """
import sys
from pathlib import Path
from tests.teachers import tiny
from clipgs_lib.teachers import CachedTeacher, load_teacher
folder = Path(sys.argv[1])
tiny.register(folder / "configs")
cached = CachedTeacher(load_teacher(f"{tiny.NAME}@{sys.argv[2]}", device="cpu", batch_size=2), folder)
cached.encode_text([f"cup {n}" for n in range(40)])
"""


def test_processes_share_a_cache(weights, teacher, tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(weights)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, cwd=root, env=env, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        assert process.wait(timeout=120) == 0, process.stderr.read().decode()
        process.stderr.close()
    texts = [f"cup {n}" for n in range(40)]
    cached = CachedTeacher(teacher, tmp_path)
    torch.testing.assert_close(cached.encode_text(texts), teacher.encode_text(texts))
    assert cached.misses == 0


def test_threads_share_a_teacher(teacher, tmp_path):
    cached, made = CachedTeacher(teacher, tmp_path), {}
    jobs = [threading.Thread(target=lambda n=n: made.update({n: cached.encode_text(TEXTS)})) for n in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    expected = teacher.encode_text(TEXTS)
    assert len(made) == 4
    for one in made.values():
        torch.testing.assert_close(one, expected)
