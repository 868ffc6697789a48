"""``clipgs train`` from the shell: a run, and one line for what is wrong."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from clipgs_lib.cli import app

from .samples import SMALL

RUNNER = CliRunner()


def test_a_run_that_is_then_resumed_by_its_folder_alone(shards, tmp_path):
    options = [f"--set=encoder_options.{name}={json.dumps(value)}" for name, value in SMALL.items()]
    words = ["train", "--shards", str(shards), "--out", str(tmp_path / "run"), "--steps", "2", "--batch-size", "16"]
    words += [*options, "--set", "zero_shot=none", "--set", "warmup=0", "--device", "cpu"]
    done = RUNNER.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "finished: True" in done.output and (tmp_path / "run" / "encoder" / "config.json").is_file()
    again = RUNNER.invoke(app, ["train", "--resume", "--out", str(tmp_path / "run")])
    assert again.exit_code == 0 and "finished: True" in again.output
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    twice = RUNNER.invoke(app, words)
    assert twice.exit_code == 2 and "go on with --resume" in twice.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "rate=1"], "unknown rate"),
        (["--batch-size", "1"], "contrastive loss over one object is constant"),
        (["--encoder", "clipgs-huge"], "name must be one of clipgs-mini"),
        (["--set", "encoder_options.depht=2"], "no setting depht"),
        (["--init", "nowhere"], "shipped name or a folder"),
        (["--resume"], "no such folder"),
        (["--shards", "nowhere"], "a set must have a manifest"),
    ],
)
def test_what_is_wrong_is_one_line(shards, tmp_path, words, said):
    start = ["train", "--out", str(tmp_path / "run"), "--steps", "2", "--device", "cpu", "--set", "zero_shot=none"]
    start += [] if "--shards" in words else ["--shards", str(shards)]
    done = RUNNER.invoke(app, [*start, *words])
    assert done.exit_code == 2 and said in done.output and done.output.startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_all_settings_can_be_listed():
    done = RUNNER.invoke(app, ["train", "--list", "--lr", "0.5"])
    assert done.exit_code == 0 and "lr = 0.5" in done.output and "weighting = cosine" in done.output
