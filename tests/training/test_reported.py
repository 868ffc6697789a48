"""Two runs in one folder, and more steps after a finished run (cases 25 and 31)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

CLIPGS = [sys.executable, "-m", "clipgs_lib"]


def run(*words):
    """The finished command: returncode, stdout, stderr."""
    return subprocess.run([*CLIPGS, *map(str, words)], capture_output=True, text=True, timeout=300)


SMALL = ["--batch-size", 8, "--set", "save_every=2", "--set", "validate_every=1000", "--set", "val_split=none",
         "--set", "test_split=none", "--set", "zero_shot=none", "--set", "precision=fp32"]  # fmt: skip


def test_more_steps_after_a_finished_run(shards, tmp_path):
    out = tmp_path / "run"
    assert run("train", "--shards", shards, "--out", out, "--steps", 2, *SMALL).returncode == 0
    before = (out / "metrics.jsonl").read_text().splitlines()
    done = run("train", "--resume", "--out", out, "--steps", 4)
    assert done.returncode == 0, done.stderr
    assert run("train", "--resume", "--out", out, "--steps", 3).returncode == 2  # fewer than are done
    after = (out / "metrics.jsonl").read_text().splitlines()
    assert after[: len(before)] == before and '"step": 4' in after[-1]


def test_two_runs_in_one_folder(shards, tmp_path):
    out = tmp_path / "run"
    first = subprocess.Popen(
        [*CLIPGS, *map(str, ("train", "--shards", shards, "--out", out, "--steps", 100_000, *SMALL))],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(600):
            if (out / "checkpoints").is_dir() and any((out / "checkpoints").iterdir()):
                break
            time.sleep(0.1)
        for words in (["--shards", shards, *SMALL], ["--resume"]):
            done = run("train", "--out", out, *words)
            assert done.returncode not in (0, None) and "Traceback" not in done.stderr and str(out) in done.stderr
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    state = (out / "metrics.jsonl").read_text().splitlines()
    steps = len(state) + 1
    done = run("train", "--resume", "--out", out, "--steps", steps)
    assert done.returncode == 0, done.stderr
