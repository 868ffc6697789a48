"""Files: whole or absent, and one process at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from clipgs_lib import files
from clipgs_lib.files import LockedError, file_sha256, locked, replacing, write_text, writing

from .conftest import ROOT

HOLD = """
import sys, time
from clipgs_lib.files import locked
with locked(sys.argv[1], "one"):
    print(1, flush=True)
    time.sleep(99)
"""


def test_failed_write_leaves_the_old_file_and_no_partial(tmp_path):
    target = tmp_path / "f.txt"
    write_text(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "new \ud800")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.bin"
    with writing(path) as stream:
        stream.write(b"old")
    write_text(path, "neu ✓")
    assert (
        path.read_text(encoding="utf-8") == "neu ✓"
        and file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    )
    with pytest.raises(KeyboardInterrupt), writing(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"] and path.read_text(encoding="utf-8") == "neu ✓"


def test_a_lock_is_for_one_process_and_outlives_no_kill(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"1\n"
        must = rf"lock: one run may use it, got process {holder.pid} at it; wait"
        with pytest.raises(LockedError, match=must), locked(path, "one run may use it"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(path, "one run may use it"):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(LockedError), locked(path, "one run may use it"):
            pass
    with locked(path, "one run may use it"):
        pass


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path, real = tmp_path / "lock", files.fcntl.flock
    calls = []

    def slow(file, how):
        real(file, how)
        calls.append(how)
        if len(calls) == 1:
            path.unlink()  # its holder finished between opening and locking

    monkeypatch.setattr(files.fcntl, "flock", slow)
    with locked(path, "one"):
        assert path.exists() and len(calls) == 2


def test_folders_without_locks_say_so(tmp_path, monkeypatch):
    must = "one run, which takes a lock file, got No such file or directory; choose"
    with pytest.raises(OSError, match=must), locked(tmp_path / "none" / "lock", "one run"):
        pass

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    must = "got No locks available there; choose a folder on a disk"
    with pytest.raises(OSError, match=must), locked(tmp_path / "lock", "one run"):
        pass
