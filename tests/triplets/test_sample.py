"""The embedded sample: it is whole, small, holds what it promises, and is what the code makes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from clipgs_lib.catalogue import CATEGORIES, HELD_CATEGORIES
from clipgs_lib.cli import app
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.shards.tar import ShardError
from clipgs_lib.shards.triplet import Triplet, decode_triplet, encode_triplet
from clipgs_lib.splats import COLUMNS
from clipgs_lib.teachers import load_teacher
from clipgs_lib.triplets import embed
from clipgs_lib.triplets.embed import COMMAND, FOLDER, OBJECTS, RECIPE, build_sample_set, sample_set
from clipgs_lib.triplets.recipe import BuildConfig, Source
from clipgs_lib.triplets.stages import produce

from ..conftest import ROOT
from .test_embed import StandIn

MAX_BYTES = 10_000_000
REBUILT = (3, 101, 200)  # objects of the catalogue


@pytest.fixture(scope="module")
def shards() -> ShardSet:
    return sample_set()


def test_the_sample_is_whole_and_small(shards):
    assert shards.verify() == []
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MAX_BYTES
    assert {path.name for path in FOLDER.iterdir()} == {
        "index.parquet", "manifest.json", "test-000000.tar.gz", "train-000000.tar.gz", "val-000000.tar.gz"
    }  # fmt: skip


def test_it_has_two_of_each_category_and_every_kind_of_split(shards):
    assert len(shards) == OBJECTS == 2 * len(CATEGORIES)
    assert Counter(row["category"] for row in shards.rows) == dict.fromkeys(CATEGORIES, 2)
    splits = Counter(row["split"] for row in shards.rows)
    assert splits["train"] > 150 and splits["val"] >= 15 and splits["test"] >= 30
    held = Counter((triplet.split, triplet.provenance["holdout"]) for triplet in map(shards.read, range(len(shards))))
    assert held["test", "category"] == 2 * sum(split == "test" for split in HELD_CATEGORIES.values())
    assert held["val", "category"] == 2 * sum(split == "val" for split in HELD_CATEGORIES.values())
    assert held["test", "combination"] >= 10 and held["test", "none"] >= 5
    assert held["train", "none"] == splits["train"]


def test_every_object_is_complete(shards):
    for number, row in enumerate(shards.rows):
        triplet = shards.read(number)
        assert (row["n_gaussians"], row["n_views"], row["licence"]) == (1_024, 4, "MIT") and row["psnr"] > 18
        assert triplet.images().shape == (4, 96, 96, 3) and len(triplet.texts) >= 2
        assert all(caption.score is not None for caption in triplet.texts)


def test_it_is_embedded_by_the_mini_that_lies_beside_it(shards):
    mini = load_teacher("mini", device="cpu")
    shards.check_teacher(mini.identity, mini.embed_dim)


def test_the_command_stands_in_manifest_and_readme(shards):
    assert shards.manifest["build"]["command"] == COMMAND
    assert COMMAND in (ROOT / "data" / "README.md").read_text()


@pytest.mark.parametrize("index", REBUILT)
def test_objects_come_out_alike_when_built_again(shards, index):
    """Only the manifest and the object's own provenance say how."""
    stored = shards[f"catalogue-{index:06d}"]
    made = rebuild(stored, shards.manifest["build"]["config"])
    assert made.views == stored.views
    assert [(c.text, c.source) for c in made.texts] == [(c.text, c.source) for c in stored.texts]
    for name in COLUMNS:
        off = (getattr(made.splats, name) - getattr(stored.splats, name)).abs()  # 600 steps on another kind of CPU
        if off.numel():
            assert off.quantile(0.98) < 0.01 and off.max() < 0.1, name
    for name in ("image_embeds", "text_embeds"):
        assert np.allclose(getattr(made, name), getattr(stored, name), atol=2e-3), name
    assert np.allclose([c.score for c in made.texts], [c.score for c in stored.texts], atol=2e-3)
    assert made.provenance["psnr"] == pytest.approx(stored.provenance["psnr"], abs=0.01)
    facts = ("cameras", "catalogue", "seed", "source", "holdout", "licence")
    assert {name: made.provenance[name] for name in facts} == {name: stored.provenance[name] for name in facts}


def rebuild(stored: Triplet, told: dict[str, Any]) -> Triplet:
    catalogue = stored.provenance["catalogue"]
    source = Source(stored.key, "catalogue", index=catalogue["index"], seed=catalogue["seed"])
    config = BuildConfig(**told | {"elevations": tuple(told["elevations"])})
    return decode_triplet(encode_triplet(produce(source, config)), "test")


# ---- making it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch) -> StandIn:
    """A small recipe and a stand-in for mini."""
    teacher = StandIn()
    config = BuildConfig(views=2, size=32, gaussians=32, iterations=0)
    monkeypatch.setattr(embed, "RECIPE", config)
    monkeypatch.setattr(embed, "_load", lambda *_: teacher)
    return teacher


def test_both_steps_in_one_go_and_the_second_alone(tmp_path, quick, monkeypatch):
    out, raw = tmp_path / "sample", tmp_path / "raw"
    report = build_sample_set(out, raw, objects=3)
    assert report.objects == 3 and ShardSet(raw).teacher is None
    assert ShardSet(out).manifest["build"]["command"] == COMMAND
    fits = {path.name: path.stat().st_mtime_ns for path in raw.iterdir()}
    monkeypatch.setattr(embed, "_load", lambda *_: StandIn(seed=1))
    with pytest.raises(ShardError, match="same sources and options, got embedded"):
        build_sample_set(out, raw, objects=3)
    shutil.rmtree(out)
    build_sample_set(out, raw, objects=3)
    assert ShardSet(out).teacher.identity == "stand-in sha256:1"
    assert {path.name: path.stat().st_mtime_ns for path in raw.iterdir()} == fits


def test_the_command(tmp_path, quick):
    words = [*COMMAND.split()[1:3], "--out", str(tmp_path / "sample"), "--raw", str(tmp_path / "raw"), "--objects", "2"]
    first, again = (CliRunner().invoke(app, words) for _ in range(2))
    assert first.exit_code == again.exit_code == 0
    assert "2 objects" in first.stdout and "2 taken over" in again.stdout


def test_a_sample_with_a_failure_is_none(tmp_path, quick, monkeypatch):
    real = embed.catalogue_sources
    monkeypatch.setattr(
        embed, "catalogue_sources", lambda count: [*real(count - 1), Source("x", "mesh", path="/none/x.glb")]
    )
    with pytest.raises(ShardError, match="every object of the sample must work"):
        build_sample_set(tmp_path / "sample", tmp_path / "raw", objects=2)
    assert not (tmp_path / "sample").exists()


def test_without_the_sample_the_error_says_how_to_build_it(monkeypatch, tmp_path):
    monkeypatch.setattr(embed, "FOLDER", tmp_path)
    with pytest.raises(ShardError, match=r"sample must be there, got no such set; build it .*clipgs triplets sample"):
        sample_set()


def test_the_recipe_is_the_documented_one():
    assert (RECIPE.views, RECIPE.size, RECIPE.gaussians, RECIPE.seed, RECIPE.teacher) == (4, 96, 1_024, 0, None)
    assert Path(FOLDER).relative_to(ROOT).as_posix() == "data/triplets/sample"
