"""The baselines in the same loop as CLIP-GS: they learn a batch, resume exactly, and export; the bag is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clipgs_lib.encoders import PointBertConfig, load_encoder, pool_views
from clipgs_lib.evaluation import BAG
from clipgs_lib.training import Objects, train
from clipgs_lib.training.data import Plan, make_batch
from clipgs_lib.training.distributed import Place
from clipgs_lib.training.loop import make_encoder
from clipgs_lib.training.step import Learner
from clipgs_lib.vectors import unit

from .samples import SMALL, TEACHER, config, found_by_text, make_object
from .test_loop import STILL, curve

PLACE = Place(0, 1, torch.device("cpu"))
KINDS = {
    "naive-mini": SMALL,
    "point-mini": SMALL | {"attributes": "surface"},
    "pointbert-mini": {"groups": 8, "group_size": 8, "radius": 0.5, "patch_dim": 16, "width": 24, "depth": 2},
    "voxel-mini": {"size": 8, "width": 8, "depth": 2},
}


@pytest.fixture(params=KINDS)
def settings(request, shards, tmp_path):
    """A short run of each."""

    def make(name="run", **changes):
        options = KINDS[request.param] | changes.pop("options", {})
        return config(shards, tmp_path / name, encoder=request.param, encoder_options=options, **changes)

    return make


def test_a_stopped_run_goes_on_bit_for_bit_and_its_export_is_an_encoder(settings, shards):
    whole = list(train(settings("whole", steps=6, validate_every=3, save_every=2)))
    stopped = train(settings(steps=6, validate_every=3, save_every=2))
    next(row for row in stopped if row["step"] == 5)
    stopped.close()
    rest = list(train(settings(steps=6, validate_every=3, save_every=2, resume=True)))
    assert rest[0]["step"] == 5 and curve(rest)[:-1] == curve(whole[5:])[:-1]
    assert all(np.isfinite(row["loss"]) for row in whole[1:-1])
    encoder = load_encoder(whole[-1]["encoder"], teacher=TEACHER.identity)
    assert encoder.identity == load_encoder(rest[-1]["encoder"]).identity
    assert encoder.encode(make_object(1, "val").splats).shape == (1, 16)
    scores = found_by_text([whole[-1]["encoder"]], shards, Path(whole[-1]["encoder"]).parent, "test")
    assert scores[whole[-1]["encoder"]] == pytest.approx(whole[-1]["test_text_r1"], abs=1e-5)
    card = Path(whole[-1]["encoder"], "README.md").read_text(encoding="utf-8")
    assert f"--encoder {encoder.config.name}" in card


def test_one_batch_can_be_learned_by_heart(settings):
    plain = settings()
    options = {} if plain.encoder == "voxel-mini" else {"patch_dropout": 0.0, "width": 48}
    run = settings(batch_size=8, lr=1e-2, warmup=1, steps=200, augment=STILL, options=options)
    objects = Objects(run.shards)
    encoder = make_encoder(run, objects)
    objects.read_for(encoder)
    batch = make_batch(objects, Plan(objects, run, PLACE), 0, run)
    again = make_batch(objects, Plan(objects, run, PLACE), 0, run)
    seen, same = ([getattr(part, "means", part) for part in one.parts] for one in (batch, again))
    assert all(torch.equal(a, b) for a, b in zip(seen, same, strict=True))
    learner = Learner(encoder, run, PLACE)
    losses = [learner.update(batch)["loss_text"] for _ in range(60)]
    assert losses[-1] < 0.25 * losses[0]


def test_micro_batches_and_frozen_statistics(settings):
    run = settings(accumulate=2, batch_norm="frozen", augment=STILL)
    objects = Objects(run.shards)
    encoder = make_encoder(run, objects)
    objects.read_for(encoder)
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    batch = make_batch(objects, Plan(objects, run, PLACE), 0, run)
    assert [len(part) for part in batch.parts] == [7, 8]
    assert np.isfinite(Learner(encoder, run, PLACE).update(batch)["loss"])
    assert before and all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())


def test_training_sees_points_on_the_surface_and_voxels_of_changed_splats(shards, tmp_path):
    run = config(shards, tmp_path, encoder="voxel-mini", encoder_options=KINDS["voxel-mini"])
    objects = Objects(run.shards)
    objects.read_for(make_encoder(run, objects))
    [grids] = make_batch(objects, Plan(objects, run, PLACE), 0, run).parts
    assert grids.shape == (15, 4, 8, 8, 8) and bool((grids[:, 0].amax(dim=(1, 2, 3)) > 0.5).all())
    [others] = make_batch(objects, Plan(objects, run, PLACE), 3, run).parts
    assert not torch.equal(grids, others)
    assert PointBertConfig().attributes == "points"


def test_a_bag_of_views_has_nothing_to_train_but_is_measured(shards, tmp_path):
    with pytest.raises(ValueError, match="must have weights to train, got bag-mean, which has none; measure it with"):
        list(train(config(shards, tmp_path / "run", encoder="bag-mean", encoder_options={})))
    assert not (tmp_path / "run").exists()
    scores = found_by_text(["bag-mean", "bag-max"], shards, tmp_path)
    assert scores["bag-mean"] == scores[BAG] != scores["bag-max"]
    rows = Objects([str(shards)]).sample(3).image_embeds
    torch.testing.assert_close(pool_views(rows), unit(unit(rows).mean(dim=0)))
