"""Ablations: intervals against textbook limits and a simulation, verdicts, grids, and runs that stop and go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from clipgs_lib.cli import app
from clipgs_lib.evaluation.results import BETTER, SAME, WORSE
from clipgs_lib.evaluation.scores import crossed_interval
from clipgs_lib.settings import from_plain
from clipgs_lib.training import Grid, ablate, ablation, train
from clipgs_lib.training.ablation import compare

from .samples import SMALL

COMMON: dict[str, Any] = {
    "encoder_options": SMALL,
    "steps": 4,
    "batch_size": 16,
    "views": 2,
    "lr": 3e-3,
    "warmup": 0,
    "save_every": 2,
    "val_split": "none",
    "test_split": "none",
    "zero_shot": "none",
    "device": "cpu",
    "precision": "fp32",
    "augment": {"keep": 16},
}


def plain(shards: Path, **changes: Any) -> dict[str, Any]:
    arms = {"one": {}, "two": {"image_loss": "pair"}}
    return {"common": COMMON | {"shards": [str(shards)]}, "arms": arms, "baseline": "one", "pairs": 0} | changes


def grid(shards: Path, **changes: Any) -> Grid:
    return from_plain(Grid, plain(shards, **changes))


@pytest.fixture
def here(monkeypatch):
    """Runs in this process; returns the arms and seeds that were not finished before."""
    done = []

    def one_by_one(work, items, **_):
        for item in items:
            done.append((item[0].arm, item[0].config.seed))
            yield item, work(item), ""

    monkeypatch.setattr(ablation, "over_processes", one_by_one)
    return done


# ---- intervals and verdicts ----------------------------------------------------------------------------------------


def test_where_only_seeds_differ_the_interval_is_students_over_seeds():
    seeds = np.array([0.2, 0.5, 0.3, 0.45])
    mean, half = crossed_interval(np.repeat(seeds[:, None], 50, axis=1))
    low, high = stats.t.interval(0.95, 3, seeds.mean(), stats.sem(seeds))
    assert mean - half == pytest.approx(low) and mean + half == pytest.approx(high)


def test_where_only_objects_differ_the_interval_is_students_over_objects():
    objects = np.random.default_rng(0).random(40)
    mean, half = crossed_interval(np.repeat(objects[None], 3, axis=0))
    low, high = stats.t.interval(0.95, 39, objects.mean(), stats.sem(objects))
    assert mean - half == pytest.approx(low) and mean + half == pytest.approx(high)


def test_equal_values_have_no_width_and_order_does_not_matter():
    assert crossed_interval(np.full((3, 5), 0.25)) == (0.25, 0.0)
    table = np.random.default_rng(1).random((4, 30))
    shuffled = table[[2, 0, 3, 1]][:, ::-1]
    assert crossed_interval(table) == pytest.approx(crossed_interval(shuffled))
    assert crossed_interval(-table) == pytest.approx([-1, 1] * np.array(crossed_interval(table)))


@pytest.mark.parametrize(("by_seed", "by_object"), [(0.3, 0.3), (1.0, 0.1), (0.0, 1.0), (0.0, 0.0)])
def test_intervals_hold_the_truth_nineteen_times_in_twenty(by_seed, by_object):
    rng, held = np.random.default_rng(2), 0
    for _ in range(400):
        table = rng.normal(size=(3, 60)) + by_seed * rng.normal(size=(3, 1)) + by_object * rng.normal(size=(1, 60))
        mean, half = crossed_interval(table)
        held += abs(mean) <= half
    assert held / 400 >= 0.92  # may be wider than needed where seeds do not differ, never much narrower


def results(shift: float, noise: float, seeds: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    shared, made = rng.random(80), []
    for arm, add in (("one", 0.0), ("two", shift)):
        for seed in range(seeds):
            hits = shared + add + noise * rng.normal(size=80)
            made.append({"arm": arm, "seed": seed, "scores": {"test": {"text_r1": {"hits": hits, "chance": 0.1}}}})
    return made


@pytest.mark.parametrize(
    ("shift", "noise", "verdict"), [(0.1, 0.1, BETTER), (-0.1, 0.1, WORSE), (0.02, 0.4, SAME), (0.0, 0.0, SAME)]
)
def test_verdicts_are_paired_by_object(shift, noise, verdict):
    found = compare(results(shift, noise), {"one": "one", "two": "one"}, ["text_r1"])
    baseline, two = found["verdicts"]
    assert "verdict" not in baseline and two["verdict"] == verdict and two["against"] == "one"
    assert two["difference"] == pytest.approx(two["value"] - baseline["value"])
    assert (abs(two["difference"]) > two["smallest"]) == (verdict != SAME)
    assert two["smallest"] < two["high"] - two["low"] or verdict == SAME  # objects' differences cancel
    assert [(row["arm"], row["seed"]) for row in found["rows"]] == [(a, s) for a in ("one", "two") for s in range(3)]
    assert all(row["n"] == 80 and row["chance"] == 0.1 and row["low"] <= row["value"] for row in found["rows"])
    turned = compare(results(shift, noise), {"one": "two", "two": "two"}, ["text_r1"])["verdicts"][0]
    assert turned["difference"] == pytest.approx(-two["difference"])
    assert turned["verdict"] == {BETTER: WORSE, WORSE: BETTER, SAME: SAME}[verdict]


def test_an_arm_with_one_seed_has_rows_and_no_verdict():
    some = [result for result in results(0.1, 0.1) if result["arm"] == "one" or result["seed"] == 1]
    found = compare(some, {"one": "one", "two": "one"}, ["text_r1", "image_r1"])
    assert len(found["rows"]) == 4 and [row["arm"] for row in found["verdicts"]] == ["one"]


# ---- grids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arm": {}}, "settings must be among common, arms, baseline, .*; got unknown arm"),
        ({"baseline": "three"}, "baseline must be one of the arms one, two, got 'three'"),
        ({"seeds": [0, 1]}, "3 or more different ones, got \\[0, 1\\]"),
        ({"seeds": [0, 1, 1]}, "3 or more different"),
        ({"seeds": ["a", 1, 2]}, "seeds must be a whole number"),
        ({"metrics": ["r1"]}, "metrics must be among .*text_r1, .*, got r1"),
        ({"arms": {"one": {"stepz": 1}}}, "arm 'one': settings must be among shards, .*; got unknown stepz"),
        ({"arms": {"one": {"encoder_options": {"groups": 0}}}}, "arm 'one': .*groups must be a whole number"),
        ({"arms": {"one": {"encoder_options": {"gruops": 8}}}}, "arm 'one': .*no setting gruops"),
        ({"arms": {"one": {"encoder": "none"}}}, "arm 'one': an encoder's name must be one of"),
        ({"common": {"shards": ["a"], "start": "two"}}, "arm 'one': .*; got unknown start"),
        ({"arms": {"one": {"steps": -1}}}, "arm 'one': steps must be at least 0"),
        ({"arms": {"one": {"seed": 3}}}, "must leave out, seed, resume to the grid, got seed"),
        ({"arms": {"one": {"start": "two"}, "two": {}}}, "start of arm 'one' must be an arm above it, got 'two'"),
        ({"arms": {"one": {"against": "one"}}}, "against of arm 'one' must be another arm, got 'one'"),
    ],
)
def test_grids_that_do_not_hold_are_refused(shards, changes, words):
    with pytest.raises(ValueError, match=words):
        grid(shards, **changes)


def test_mappings_of_an_arm_are_merged_with_the_common_ones(shards):
    chosen = grid(shards, arms={"one": {}, "two": {"encoder_options": {"groups": 4}, "augment": {"drop": 0.0}}})
    one, two = chosen.config("one"), chosen.config("two")
    assert two.encoder_options == {**SMALL, "groups": 4} and one.encoder_options == SMALL
    assert two.augment.drop == 0.0 and two.augment.keep == one.augment.keep == 16


# ---- runs ----------------------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_done_again(shards, tmp_path, here):
    first = ablate(grid(shards, splits=["val", "test"]), tmp_path / "out")
    assert here == [(arm, seed) for arm in ("one", "two") for seed in range(3)] and first["failed"] == []
    assert {row["target"] for row in first["rows"]} == {"val", "test"}
    assert {row["metric"] for row in first["rows"]} == {"text_r1", "image_r1"}
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == json.loads(json.dumps(first))
    here.clear()
    again = ablate(grid(shards, splits=["val", "test"]), tmp_path / "out")
    assert here == [] and (again["rows"], again["runs"]) == (first["rows"], first["runs"])
    arms = {"one": {}, "two": {"image_loss": "pair", "lr": 1e-3}}
    changed = ablate(grid(shards, splits=["val", "test"], arms=arms), tmp_path / "out")
    assert here == [("two", seed) for seed in range(3)]
    assert [row for row in changed["rows"] if row["arm"] == "one"] == [
        row for row in first["rows"] if row["arm"] == "one"
    ]


def test_numbers_are_those_of_the_training(shards, tmp_path, here):
    measured = {"test_split": "test"}
    found = ablate(grid(shards, common=COMMON | {"shards": [str(shards)]} | measured), tmp_path / "out")
    for run in (tmp_path / "out" / "runs").iterdir():
        arm, seed = run.name.split("-")[:2]
        stored = json.loads((run / "encoder" / "config.json").read_text())["metrics"]["test"]
        (row,) = [
            row for row in found["rows"] if (row["arm"], row["seed"], row["metric"]) == (arm, int(seed), "image_r1")
        ]
        assert row["value"] == pytest.approx(stored["image_r1"], abs=1e-4) and row["n"] == stored["objects"]
        assert row["chance"] == pytest.approx(stored["chance_image_r1"])


def test_arms_start_from_others_and_0_steps_leave_weights_as_they_are(shards, tmp_path, here):
    arms = {
        "points": {"encoder": "point-mini"},
        "as they are": {"encoder": "point-mini", "start": "points", "steps": 0},
    }
    arms |= {"on": {"start": "points", "against": "as they are"}}
    found = ablate(grid(shards, arms=arms, baseline="points"), tmp_path / "out")
    assert found["failed"] == [] and here[:3] == [("points", seed) for seed in range(3)]
    rows = {arm: [row for row in found["rows"] if row["arm"] == arm] for arm in arms}
    assert [row["value"] for row in rows["points"]] == [row["value"] for row in rows["as they are"]]
    same = next(row for row in found["verdicts"] if row["arm"] == "as they are")
    assert same["difference"] == same["smallest"] == 0 and same["verdict"] == SAME
    assert {row.get("against") for row in found["verdicts"] if row["arm"] == "on"} == {"as they are"}


def test_a_run_that_diverges_is_reported_and_the_others_go_on(shards, tmp_path, here):
    arms = {"one": {}, "wild": {"lr": 1e30, "clip": 1e30}, "after": {"start": "wild"}}
    found = ablate(grid(shards, arms=arms), tmp_path / "out")
    assert {(entry["arm"], entry["seed"]) for entry in found["failed"]} == {
        (arm, seed) for arm in ("wild", "after") for seed in range(3)
    }
    assert "DivergedError: " in found["failed"][0]["error"]
    assert found["failed"][-1]["error"] == "the run whose weights it starts from failed"
    assert {row["arm"] for row in found["rows"]} == {"one"}


def test_a_killed_ablation_goes_on_and_ends_the_same(shards, tmp_path, here, monkeypatch):
    whole = ablate(grid(shards), tmp_path / "whole")
    before, steps = train, [0]

    def killed(config):
        for record in before(config):
            yield record
            steps[0] += 1
            if steps[0] == 9:
                raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(grid(shards), tmp_path / "out")
    monkeypatch.setattr(ablation, "train", before)
    here.clear()
    found = ablate(grid(shards), tmp_path / "out")
    assert here == [("one", 1), ("one", 2), *(("two", seed) for seed in range(3))]  # the first had ended
    assert (found["rows"], found["verdicts"]) == (whole["rows"], whole["verdicts"])


def test_progress_counts_steps_and_names_runs(shards, tmp_path, here):
    said = []
    ablate(grid(shards), tmp_path / "out", progress=lambda *said_now: said.append(said_now))
    assert said[-1][:2] == (24, 24) and said[-1][2].startswith("6 of 6 runs; two, seed 2: ")


def test_the_command_in_processes_of_its_own(shards, tmp_path):
    file, out = tmp_path / "grid.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(plain(shards, arms={"one": {}, "wild": {"lr": 1e30, "clip": 1e30}})))
    done = CliRunner().invoke(app, ["ablate", str(file), "--out", str(out), "--jobs", "2"])
    assert done.exit_code == 1 and "failed: wild, seed 0: DivergedError" in done.output
    assert "test: text finds its splat, R@1; 12 objects, chance " in done.output and "\n  one | " in done.output
    document = json.loads((out / "ablation.json").read_text())
    assert document["command"] == "clipgs ablate grid.yaml --out out --jobs 2"
    file.write_text(yaml.safe_dump(plain(shards, arm={})))
    odd = CliRunner().invoke(app, ["ablate", str(file), "--out", str(out)])
    assert odd.exit_code == 2 and odd.output.startswith("error: settings must be among common, arms, baseline")
