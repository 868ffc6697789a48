"""Whole runs: they learn, resume exactly, stop in time, and say what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipgs_lib import runtime
from clipgs_lib.encoders import load_encoder
from clipgs_lib.settings import read_file, to_plain
from clipgs_lib.training import CheckpointError, DivergedError, Objects, train
from clipgs_lib.training.data import Plan, make_batch
from clipgs_lib.training.distributed import Place
from clipgs_lib.training.loop import make_encoder
from clipgs_lib.training.step import Learner

from .samples import TEACHER, config, make_object, unit

PLACE = Place(0, 1, torch.device("cpu"))
TIMES = ("seconds", "objects_per_second")


def curve(records):
    """Everything but times."""
    return [{k: v for k, v in row.items() if k not in TIMES and not k.startswith("share_")} for row in records]


def written(out: Path):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def learner_of(settings, **changes):
    objects = Objects(settings.shards)
    learner = Learner(make_encoder(settings, objects), settings, PLACE)
    return learner, lambda step, own=settings: make_batch(objects, Plan(objects, own, PLACE), step, own)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """An unbroken run of 12 steps: its folder and its records."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    torch.manual_seed(11)
    before = torch.get_rng_state()
    records = list(train(config(shards, out)))
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers are left alone
    return out, records


def test_a_run_yields_and_writes_its_records(whole):
    out, records = whole
    assert [row["step"] for row in records] == [*range(13), 12] and records[-1]["finished"]
    assert written(out) == records[:-1]
    assert all(np.isfinite(row["loss"]) for row in records[1:-1])
    shares = [sum(v for k, v in row.items() if k.startswith("share_")) for row in records[1:-1]]
    assert all(0.8 < share <= 1.01 for share in shares)
    assert [row["step"] for row in records if "val_score" in row] == [0, 6, 12]
    assert records[-1]["test_chance_image_r1"] == pytest.approx(1 / 12, abs=1e-4)


def test_the_export_is_an_encoder_with_a_card(whole, shards):
    out, records = whole
    encoder = load_encoder(out / "encoder", teacher=TEACHER.identity)
    best = max((row for row in records if "val_score" in row), key=lambda row: row["val_score"])
    assert encoder.info["metrics"]["val"]["score"] == pytest.approx(best["val_score"], abs=1e-4)
    splats = make_object(1, "val").splats
    assert torch.allclose(encoder.encode(splats), encoder.encode(splats))  # no dropout left
    card = (out / "encoder" / "README.md").read_text()
    assert str(out) not in card and str(shards) not in card and "clipgs train" in card and "CC0-1.0 (70)" in card
    assert Objects([str(shards)]).facts()[0]["content_sha256"] in card and "chance" in card


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(whole, shards, tmp_path):
    again = list(train(config(shards, tmp_path / "again", steps=3, warmup=2, workers=0)))
    other = list(train(config(shards, tmp_path / "other", steps=1, seed=1)))
    assert again[1]["loss"] == whole[1][1]["loss"] != other[1]["loss"]


def test_it_learns_kinds_that_it_is_shown(shards, tmp_path):
    runs = list(train(config(shards, tmp_path / "run", steps=60, validate_every=30, save_every=60, lr=1e-2)))
    assert runs[-2]["val_text_r1"] > 2 * runs[-2]["val_chance_text_r1"]
    assert np.mean([row["loss"] for row in runs[-7:-1]]) < 0.8 * runs[1]["loss"]


def test_one_batch_can_be_learned_by_heart(shards, tmp_path):
    settings = config(
        shards, tmp_path, batch_size=8, lr=1e-2, warmup=1, steps=200, encoder_options=SHARP, augment=STILL
    )
    learner, batch = learner_of(settings)
    same = batch(0)
    losses = [learner.update(same)["loss_text"] for _ in range(60)]
    assert losses[-1] < 0.25 * losses[0]


SHARP = {"groups": 8, "group_size": 8, "dim": 32, "width": 48, "depth": 2, "patch_dropout": 0.0}
STILL = {"turn": False, "size": 1.0, "jitter": 0.0, "drop": 0.0, "no_color": 0.0}


# ---- resuming ----------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_bit_for_bit(whole, shards, tmp_path):
    out, records = whole
    stopped = train(config(shards, tmp_path / "run"))
    for row in stopped:
        if row["step"] == 7:  # after the checkpoint of step 4
            break
    stopped.close()
    rest = list(train(config(shards, tmp_path / "run", resume=True)))
    assert rest[0]["step"] == 5
    assert curve(rest) == curve(records[5:-1] + [records[-1] | {"encoder": str(tmp_path / "run" / "encoder")}])
    assert curve(written(tmp_path / "run")) == curve(written(out))
    mine, theirs = (load_encoder(folder / "encoder") for folder in (tmp_path / "run", out))
    assert mine.identity == theirs.identity


def test_a_streamed_run_goes_on_bit_for_bit(shards, tmp_path):
    def run(name, **changes):
        return train(
            config(shards, tmp_path / name, steps=6, save_every=2, memory_gb=1e-6, val_split="none", **changes)
        )

    whole = list(run("whole"))
    stopped = run("run")
    next(row for row in stopped if row["step"] == 3)
    stopped.close()
    assert curve(run("run", resume=True))[:-1] == curve(whole[3:])[:-1]
    with pytest.raises(CheckpointError, match="streamed_by is 1 there, 0 now"):
        next(train(config(shards, tmp_path / "run", steps=6, save_every=2, val_split="none", resume=True)))


CHILD = """
import json, sys, torch
from clipgs_lib.settings import from_plain
from clipgs_lib.training import TrainConfig, train
torch.set_num_threads(1)
for row in train(from_plain(TrainConfig, json.loads(sys.argv[1]))):
    print(row["step"], flush=True)
"""


def test_a_run_killed_at_a_random_step_goes_on_bit_for_bit(whole, shards, tmp_path):
    settings = config(shards, tmp_path / "run")
    stop = int(np.random.default_rng(time.time_ns()).integers(1, 12))
    child = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(to_plain(settings))], stdout=subprocess.PIPE)
    for line in child.stdout:
        if int(line) == stop:
            os.kill(child.pid, signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    list(train(config(shards, tmp_path / "run", resume=True)))
    assert curve(written(tmp_path / "run")) == curve(written(whole[0])), f"killed at step {stop}"


def test_precision_is_chosen_by_hardware_once(shards, tmp_path, monkeypatch):
    """A run that began in bf16 goes on in bf16, whatever the machine that takes it up would choose."""
    monkeypatch.setattr(runtime, "native_bf16", lambda device: True)
    list(train(config(shards, tmp_path / "run", precision="auto", steps=2)))
    assert read_file(tmp_path / "run" / "config.json")["precision"] == "bf16"
    monkeypatch.setattr(runtime, "native_bf16", lambda device: False)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    records = list(train(config(shards, tmp_path / "run", precision="auto", steps=2, resume=True)))
    assert records[-1]["finished"]
    with pytest.raises(CheckpointError, match="precision"):
        next(train(config(shards, tmp_path / "again", precision="fp32", steps=2, resume=True)))
    list(train(config(shards, tmp_path / "new", precision="auto", steps=2)))
    assert read_file(tmp_path / "new" / "config.json")["precision"] == "fp32"


def test_a_used_folder_is_not_overwritten_and_an_unused_one_not_resumed(whole, shards, tmp_path):
    with pytest.raises(FileExistsError, match="without another run"):
        next(train(config(shards, whole[0])))
    with pytest.raises(CheckpointError, match="no such folder"):
        next(train(config(shards, tmp_path / "none", resume=True)))


def test_a_run_stopped_before_its_first_step_goes_on(whole, shards, tmp_path):
    stopped = train(config(shards, tmp_path / "run"))
    next(stopped)
    stopped.close()
    list(train(config(shards, tmp_path / "run", resume=True)))
    assert curve(written(tmp_path / "run")) == curve(written(whole[0]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 0.5}, "config.lr is 0.003 there, 0.5 now"),
        ({"encoder_options": {"groups": 4, "group_size": 8, "dim": 16, "width": 24, "depth": 1}}, "config.encoder"),
        ({"seed": 3}, "config.seed is 0 there"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(whole, shards, changes, words):
    with pytest.raises(CheckpointError, match=words):
        next(train(config(shards, whole[0], resume=True, **changes)))


def test_a_checkpoint_of_other_data_is_refused(whole, tmp_path):
    from .samples import make_set

    other = make_set(tmp_path / "other", train=20, first=200)
    with pytest.raises(CheckpointError, match="data is"):
        next(train(config(other, whole[0], resume=True)))


# ---- starting from weights ---------------------------------------------------------------------------------------


def test_clipgs_starts_as_the_point_model_that_it_is_given(shards, tmp_path):
    point = config(shards, tmp_path / "point", encoder="point-mini", steps=2, warmup=1)
    list(train(point))
    objects = Objects(point.shards)
    settings = config(shards, tmp_path / "clipgs", init=str(tmp_path / "point" / "encoder"))
    started = make_encoder(settings, objects)
    splats = make_object(3, "val").splats
    given = load_encoder(settings.init)
    assert torch.allclose(started.encode(splats), given.encode(splats), atol=1e-6)
    assert torch.equal(make_encoder(point, objects).encode(splats), make_encoder(point, objects).encode(splats))


def test_weights_of_another_teacher_are_refused(whole, shards, tmp_path):
    info = load_encoder(whole[0] / "encoder").info
    from clipgs_lib.encoders import save_encoder

    foreign = load_encoder(whole[0] / "encoder")
    save_encoder(tmp_path / "foreign", foreign, info | {"teacher": {"identity": "another", "dim": TEACHER.dim}})
    with pytest.raises(ValueError, match="encoder of the shards' teacher"):
        make_encoder(config(shards, tmp_path, init=str(tmp_path / "foreign")), Objects([str(shards)]))


# ---- steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_loss", ["voting", "mean", "multi_positive"])
def test_micro_batches_give_the_gradients_of_the_whole_batch(shards, tmp_path, image_loss):
    changes = {"batch_norm": "frozen", "image_loss": image_loss}
    changes["encoder_options"] = SHARP | {"drop_path": 0.0}
    found = []
    for parts in (1, 3):
        settings = config(shards, tmp_path, accumulate=parts, **changes)
        learner, batch = learner_of(settings)
        told = learner.update(batch(0))
        grads = [value.grad.clone() for value in learner.encoder.parameters()]
        found.append((told["loss"], told["grad_norm"], grads, learner.scale.log.grad.clone()))
    (loss, norm, grads, scale), (loss3, norm3, grads3, scale3) = found
    assert loss == pytest.approx(loss3, rel=1e-5) and norm == pytest.approx(norm3, rel=1e-3)
    assert torch.allclose(scale, scale3, rtol=1e-3, atol=1e-7)
    for a, b in zip(grads, grads3, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5 * norm)


def test_micro_batches_move_batch_norm_statistics_once(shards, tmp_path):
    learner, batch = learner_of(config(shards, tmp_path, accumulate=2))
    learner.update(batch(0))
    norms = [own for own in learner.encoder.modules() if isinstance(own, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    assert norms and all(own.momentum > 0 for own in norms)
    assert any(float(own.running_mean.abs().sum()) > 0 for own in norms)


def test_objects_that_are_not_finite_are_named_and_the_weights_stay(shards, tmp_path):
    learner, batch = learner_of(config(shards, tmp_path))
    good = batch(0)
    means = good.parts[0].means.clone()
    means[3, 0] = float("nan")
    bad = replace(good, parts=(replace(good.parts[0], scales=means.abs()),))
    before = [value.detach().clone() for value in learner.encoder.parameters()]
    with pytest.raises(DivergedError, match=f"step 0 for the objects: .*{good.keys[3]}"):
        learner.update(bad)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.encoder.parameters(), strict=True))


def test_views_that_are_there_are_counted(shards, tmp_path):
    learner, batch = learner_of(config(shards, tmp_path, views=5))
    told = learner.update(batch(0))
    assert told["views"] == 3 * told["objects"]


def test_bf16_and_every_image_loss_take_a_step(shards, tmp_path):
    for changes in (
        {"precision": "bf16"},
        {"image_loss": "pair"},
        {"loss": "contrastive_3d"},
        {"image_loss": "multi_positive"},
        {"weighting": "softmax", "reduction": "sum", "exclude_own": False},
    ):
        learner, batch = learner_of(config(shards, tmp_path, **changes))
        assert np.isfinite(learner.update(batch(0))["loss"])


def test_the_loss_of_the_point_line_is_chosen_by_name(shards, tmp_path):
    """L_CON is the pair loss with texts plus that with one view each; both are told, and sum to the whole."""
    records, scales = [], []
    for changes in ({"loss": "contrastive_3d"}, {"image_loss": "pair"}):
        learner, batch = learner_of(config(shards, tmp_path, **changes))
        records.append(learner.update(batch(0)))
        scales.append(float(learner.scale().detach()))
    for name in ("loss", "loss_text", "loss_image", "grad_norm"):
        assert records[0][name] == pytest.approx(records[1][name], rel=1e-5)
    assert scales[0] == scales[1]


def test_the_mean_target_is_the_pair_loss_with_the_direction_of_the_mean_view(shards, tmp_path):
    told = []
    for image_loss in ("mean", "pair"):
        learner, batch = learner_of(config(shards, tmp_path, image_loss="mean", views=3))
        first, learner.config = batch(0), config(shards, tmp_path, image_loss=image_loss, views=3)
        if image_loss == "pair":
            mean = first.images.sum(dim=1, keepdim=True) / first.views_valid.sum(dim=1)[:, None, None]
            first = replace(first, images=mean / mean.norm(dim=-1, keepdim=True), views_valid=first.views_valid[:, :1])
        told.append(learner.update(first))
    for name in ("loss", "loss_image", "grad_norm"):
        assert told[0][name] == pytest.approx(told[1][name], rel=1e-5)


# ---- stopping and choosing ---------------------------------------------------------------------------------------


def test_without_validation_the_last_weights_count(shards, tmp_path):
    records = list(train(config(shards, tmp_path / "run", steps=2, warmup=1, val_split="none", test_split="none")))
    assert records[-1]["best_step"] == 2 and not any("val_score" in row for row in records)
    assert "Nothing was held out" in (tmp_path / "run" / "encoder" / "README.md").read_text()


def test_class_weights_come_from_the_shards_teacher(shards, tmp_path, monkeypatch):
    rows = torch.from_numpy(unit(np.random.default_rng(0).normal(size=(4, TEACHER.dim)))).float()
    asked = []

    def load(name, device):
        asked.append(name)
        identity = TEACHER.identity if "other" not in name else "other sha256:01"
        digest = identity.rpartition(" sha256:")[2]
        return SimpleNamespace(identity=identity, digest=digest, zero_shot_weights=lambda labels, prompts: rows)

    with pytest.raises(ValueError, match="zero-shot needs the shards' teacher 'stand-in'"):
        next(train(config(shards, tmp_path / "none", zero_shot="teacher")))
    monkeypatch.setattr("clipgs_lib.evaluation.evaluation_set.load_teacher", load)
    for name in ("teacher", "here@file.pt"):
        records = list(train(config(shards, tmp_path / name, steps=1, warmup=0, zero_shot=name)))
        assert records[0]["val_chance_zero_shot_top1"] == 0.25 and "test_zero_shot_top1" in records[-1]
    with pytest.raises(ValueError, match="the teacher must be the shards'"):
        next(train(config(shards, tmp_path / "other", zero_shot="other")))
    assert asked == ["stand-in", "here@file.pt", "other"]
