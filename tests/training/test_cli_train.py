"""``clipgs train`` from the shell: a run, and one line for what is wrong."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from clipgs_lib.cli import app
from clipgs_lib.training import measure, train

from .samples import SMALL, config

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


def test_evaluate_measures_encoders_on_every_split_or_one(shards, tmp_path):
    names = [str(tmp_path / name / "encoder") for name in ("one", "two")]
    for steps, name in zip((1, 30), ("one", "two"), strict=True):
        list(train(config(shards, tmp_path / name, steps=steps)))
    words = ["evaluate", str(shards), "--zero-shot", "none", "--device", "cpu", "--out", str(tmp_path / "scores.json")]
    done = RUNNER.invoke(app, [*words, "--encoder", names[0], "--encoder", names[1]])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["sets"] == ["kinds"] and written["split"] == "all" and list(written["results"]) == names
    one, two = written["results"].values()
    assert one["objects"] == two["objects"] == 70 and one["image_r1"] < two["image_r1"] < 1
    assert "splat finds its own views, R@1 | " in done.output and f"| {100 / 70:.1f} %" in done.output
    again = measure(names[:1], [str(shards)], "test", zero_shot="none", device="cpu")[names[0]]
    known = json.loads((tmp_path / "one" / "encoder" / "config.json").read_text())["metrics"]["test"]
    assert again["objects"] == 12 and again["image_r1"] == known["image_r1"]  # what training said of the same weights


def test_evaluate_refuses_what_cannot_be_compared(shards, tmp_path):
    words = ["evaluate", str(shards), "--zero-shot", "none", "--device", "cpu"]
    none = RUNNER.invoke(app, [*words, "--encoder", "clipgs-mini", "--split", "unseen"])
    assert none.exit_code == 2 and "must hold at least 2 objects, got 0" in none.output
    other = RUNNER.invoke(app, [*words, "--encoder", "clipgs-mini"])
    assert other.exit_code == 2 and "must be 'stand-in sha256:00', but it was trained against" in other.output
