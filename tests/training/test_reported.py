"""Two runs in one folder, and more steps after a finished run (cases 25 and 31)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from ..conftest import clipgs
from . import samples

SETTINGS = {f"encoder_options.{name}": json.dumps(value) for name, value in samples.SMALL.items()}
SETTINGS |= {"save_every": 2, "validate_every": 1000, "val_split": "none", "test_split": "none", "zero_shot": "none"}
SMALL = ["--batch-size", 8, "--set", "precision=fp32"]
SMALL += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]


def test_more_steps_after_a_finished_run(shards, tmp_path):
    out = tmp_path / "run"
    assert clipgs("train", "--shards", shards, "--out", out, "--steps", 2, *SMALL).returncode == 0
    before = (out / "metrics.jsonl").read_text().splitlines()
    done = clipgs("train", "--resume", "--out", out, "--steps", 4)
    assert done.returncode == 0, done.stderr
    assert clipgs("train", "--resume", "--out", out, "--steps", 3).returncode == 2  # fewer than are done
    after = (out / "metrics.jsonl").read_text().splitlines()
    assert after[: len(before)] == before and '"step": 4' in after[-1]


def test_two_runs_in_one_folder(shards, tmp_path):
    out = tmp_path / "run"
    words = ["train", "--shards", shards, "--out", out, "--steps", 100_000, *SMALL]
    first = subprocess.Popen(
        [sys.executable, "-m", "clipgs_lib", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            if (out / "checkpoints").is_dir() and any((out / "checkpoints").iterdir()):
                break
            time.sleep(0.1)
        for words in (["--shards", shards, *SMALL], ["--resume"]):
            done = clipgs("train", "--out", out, *words)
            assert done.returncode not in (0, None) and "Traceback" not in done.stderr and str(out) in done.stderr
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    state = (out / "metrics.jsonl").read_text().splitlines()
    steps = len(state) + 1
    done = clipgs("train", "--resume", "--out", out, "--steps", steps)
    assert done.returncode == 0, done.stderr
