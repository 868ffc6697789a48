"""Triplets of furniture: what a catalogue of Sweet Home 3D says reaches the set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.triplets import folder_sources
from clipgs_lib.triplets.build import build_triplets
from clipgs_lib.triplets.recipe import BuildConfig

from ..meshes.test_sweethome import BED, catalogue


def test_furniture_is_built_with_what_its_catalogue_says(tmp_path):
    shop = tmp_path / "shop"
    shop.mkdir()
    both = BED + "name#8=Gone\nmodel#8=/shop/gone.obj\nwidth#8=1\ndepth#8=1\nheight#8=1\n"
    catalogue(shop / "a.sh3f", both)
    (shop / "b.sh3f").write_bytes(b"no zip")
    bed, gone, broken = folder_sources(shop)
    assert bed.info["label"] == "double bed, café ☃ 😀" and bed.info["caption"].endswith("wood, sleep")
    assert (bed.info["source"], bed.info["licence"]) == ("The shop, by Ann", "CC-BY é 4.0")
    config = BuildConfig(views=2, size=32, gaussians=40, iterations=0, teacher=None)
    report = build_triplets([bed, gone, broken], tmp_path / "set", config)
    assert (report.objects, report.quarantined) == (1, 2)
    (triplet,) = ShardSet(tmp_path / "set")
    facts = triplet.provenance["furniture"]
    assert (facts["category"], facts["tags"], facts["creator"]) == ("Bedroom", ["Wood", "Sleep"], "Ann")
    assert (facts["size_cm"], facts["elevation_cm"], facts["drop_on_top_cm"]) == ([160, 90, 200.5], 5, 40)
    assert facts["unit_cm"] == pytest.approx(np.linalg.norm([160, 90, 200.5]) / 2, rel=1e-4)
    assert str(tmp_path) not in json.dumps(triplet.provenance)
    reasons = (tmp_path / "set" / "quarantine.jsonl").read_text()
    assert "no such file" in reasons and "intact zip" in reasons


def test_a_table_names_furniture_by_the_path_in_its_zip(tmp_path):
    catalogue(tmp_path / "a.sh3f")
    (tmp_path / "t.csv").write_text("path,label\na.sh3f/shop/bed/a.obj,bed\n")
    (source,) = folder_sources(tmp_path, labels=tmp_path / "t.csv")
    assert (source.info["label"], source.info["name"]) == ("bed", "Double bed, café ☃ 😀")
