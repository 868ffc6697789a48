"""The real stages: from catalogue, mesh and splat files to triplets, and the command that runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from clipgs_lib import catalogue
from clipgs_lib.cli import app
from clipgs_lib.formats import write_splats
from clipgs_lib.meshes import Mesh, Part
from clipgs_lib.rendering import render
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.shards.tar import ShardError
from clipgs_lib.shards.triplet import decode_triplet, encode_triplet
from clipgs_lib.splits import SPLITS, assign
from clipgs_lib.triplets import stages
from clipgs_lib.triplets.build import build_triplets
from clipgs_lib.triplets.recipe import BuildConfig, StopBuild, catalogue_sources, folder_sources
from clipgs_lib.triplets.stages import cameras_of, group_of, load_thing, produce

from ..conftest import make_splats

CONFIG = BuildConfig(views=4, size=64, gaussians=256, iterations=0)
CUBE = """
v -1 -1 -1
v 1 -1 -1
v 1 1 -1
v -1 1 -1
v -1 -1 1
v 1 -1 1
v 1 1 1
v -1 1 1
f 1 3 2
f 1 4 3
f 5 6 7
f 5 7 8
f 1 2 6
f 1 6 5
f 2 3 7
f 2 7 6
f 3 4 8
f 3 8 7
f 4 1 5
f 4 5 8
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    top = tmp_path / "meshes"
    (top / "wooden_box").mkdir(parents=True)
    (top / "wooden_box" / "crate 01.obj").write_text(CUBE)
    (top / "broken.obj").write_text("v 0 0 0\n")
    return top


def test_an_object_of_the_catalogue_is_made_alike_each_time():
    [source] = catalogue_sources(1, start=7)
    triplet = produce(source, CONFIG)
    assert encode_triplet(triplet) == encode_triplet(produce(source, CONFIG))
    assert (len(triplet.splats), len(triplet.views), triplet.key) == (256, 4, "catalogue-000007")
    assert triplet.images().shape == (4, 64, 64, 3) and triplet.texts and triplet.category
    assert triplet.provenance["psnr"] > 12 and triplet.provenance["catalogue"]["index"] == 7
    assert float(triplet.splats.means.norm(dim=1).max()) < 1.1


def test_the_splats_lie_where_the_views_say():
    """Splats drawn from the stored cameras look like the stored views, after a trip through the shard."""
    [source] = catalogue_sources(1)
    triplet = decode_triplet(encode_triplet(produce(source, CONFIG)), "test")
    drawn = render(triplet.splats, *cameras_of(triplet), background=(1.0, 1.0, 1.0)).colors.clamp(0, 1)
    views = torch.from_numpy(triplet.images()).float() / 255
    errors = ((drawn - views) ** 2).mean(dim=(1, 2, 3))
    others = ((drawn - views.roll(1, dims=0)) ** 2).mean(dim=(1, 2, 3))
    assert bool((errors < 0.03).all()) and bool((errors < others).all())


def test_a_folder_of_meshes_with_a_broken_one(folder, tmp_path):
    sources = folder_sources(folder)
    assert [source.name for source in sources] == ["broken.obj", "wooden_box/crate 01.obj"]
    report = build_triplets(sources, tmp_path / "set", CONFIG)
    assert (report.objects, report.quarantined) == (1, 1)
    shards = ShardSet(tmp_path / "set")
    triplet = shards.read(0)
    assert triplet.category == "wooden box" and triplet.key.startswith("crate-01-")
    assert triplet.provenance["file"] == "wooden_box/crate 01.obj" and len(triplet.provenance["file_sha256"]) == 64
    assert any("box" in caption.text for caption in triplet.texts)
    [line] = (tmp_path / "set" / "quarantine.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["source"] == "broken.obj" and entry["reason"].startswith("MeshError: broken.obj: ")
    assert str(tmp_path) not in line and str(tmp_path).encode() not in shards.block(0)


def test_what_filtering_did_is_kept_with_the_object(folder, tmp_path):
    table = tmp_path / "labels.tsv"
    table.write_text("path\tname\tlabel\tcaption\ncrate 01.obj\tCrate_01\tcrate\tUltimate Crates Pack\n")
    [source] = [s for s in folder_sources(folder, labels=table) if "crate" in s.name]
    triplet = decode_triplet(encode_triplet(produce(source, CONFIG)), "test")
    assert triplet.provenance["filter"] == {
        "kept": 1,
        "changed": 1,
        "removed": {"duplicate": 1, "pack-name": 1},
        "texts": [["crate", "duplicate"], ["Ultimate Crates Pack", "pack-name"]],
    }


def test_synonyms_of_a_table_go_into_the_texts(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label,synonyms\ncrate 01.obj,sofa,davenport; chesterfield ;\n")
    [source] = [s for s in folder_sources(folder, labels=table) if "crate" in s.name]
    assert source.info["synonyms"] == "davenport; chesterfield ;"
    words = " ".join(" ".join(c.text for c in load_thing(source, CONFIG, seed).captions) for seed in range(6))
    assert "davenport" in words and "chesterfield" in words
    assert "couch" not in words  # our own table has it, but the user's group wins


def test_an_object_without_a_text_is_refused_before_its_mesh_is_read(folder, tmp_path):
    (folder / "every model.obj").write_text("this is no mesh")
    report = build_triplets(folder_sources(folder), tmp_path / "set", CONFIG)
    assert (report.objects, report.quarantined) == (1, 2)
    lines = [json.loads(line) for line in (tmp_path / "set" / "quarantine.jsonl").read_text().splitlines()]
    [reason] = [line["reason"] for line in lines if line["source"] == "every model.obj"]
    assert reason == (
        "ValueError: an object must have a text, got none after filtering 'every model' (several-objects); "
        "name it in the table of labels"
    )


def test_a_table_of_labels(folder, tmp_path):
    table = tmp_path / "labels.tsv"
    rows = [
        "path\tname\tlabel\tlicence",
        "data/meshes/wooden_box/crate 01.obj\tcrate\tchest\tCC0",
        "x/broken.obj\tno\tno\tno",
    ]
    table.write_text("\n".join(rows))
    broken, crate = folder_sources(folder, labels=table)
    assert dict(crate.info) == {"name": "crate", "label": "chest", "licence": "CC0"}
    assert dict(broken.info) == {"name": "no", "label": "no", "licence": "no"}  # "x" may be the folder's other name
    table.write_text("file\tlabel\n")
    with pytest.raises(ValueError, match="must have a column 'path', got"):
        folder_sources(folder, labels=table)


def test_folders_without_meshes_are_refused(tmp_path):
    with pytest.raises(ShardError, match=r"must hold files that end in .glb .* got none"):
        folder_sources(tmp_path)
    with pytest.raises(ShardError, match="got no such folder"):
        folder_sources(tmp_path / "typo")
    with pytest.raises(ValueError, match="kind must be"):
        folder_sources(tmp_path, kind="points")
    with pytest.raises(ValueError, match="count >= 1"):
        catalogue_sources(0)
    with pytest.raises(ValueError, match="split of train, val, test, got 1, 0 and 'unseen'"):
        catalogue_sources(1, split="unseen")


def test_the_catalogue_gives_the_objects_of_one_split():
    places = [catalogue.make(i, 3).split for i in range(30)]
    for split in SPLITS:
        assert [source.index for source in catalogue_sources(30, 3, split=split)] == [
            i for i, place in enumerate(places) if place == split
        ]
    [first, *_] = [i for i, place in enumerate(places) if place != "train"]
    with pytest.raises(ValueError, match="must lie in the split 'train', got none"):
        catalogue_sources(1, 3, start=first, split="train")


def test_few_splats_are_taken_as_they_are_and_many_are_fitted(tmp_path):
    write_splats(make_splats(100), tmp_path / "few.ply")
    write_splats(make_splats(700, seed=1), tmp_path / "many.ply")
    few, many = (produce(source, CONFIG) for source in folder_sources(tmp_path, kind="splat"))
    assert len(few.splats) == 100 and few.provenance["fit"] == "as they came" and "psnr" not in few.provenance
    assert len(many.splats) == 256 and "psnr" in many.provenance
    assert few.images().min() < 200


def cube(scale: float = 1.0, color: float = 0.5, faces: int = 12) -> Mesh:
    rows = [line.split() for line in CUBE.splitlines() if line]
    vertices = np.array([row[1:] for row in rows if row[0] == "v"], np.float32) * np.float32([scale, 1, 1])
    triangles = np.array([row[1:] for row in rows if row[0] == "f"], np.int32)[:faces] - 1
    return Mesh((Part(vertices, triangles, base_color=(color, 0.2, 0.2, 1.0)),)).normalize()


def test_twins_share_a_split_and_shares_hold():
    assert group_of(cube(color=0.1)) == group_of(cube(color=0.9))
    splits = [assign(group_of(cube(scale=1 + i / 20))) for i in range(300)]
    counts = {name: splits.count(name) for name in ("train", "val", "test")}
    assert sum(counts.values()) == 300 and 180 < counts["train"] < 280 and min(counts.values()) > 8


def test_the_teacher_embeds_views_as_read_and_scores_texts(monkeypatch):
    class StandIn:
        identity, embed_dim = "stand-in sha256:0", 8
        seen: np.ndarray

        def encode_image(self, images):
            self.seen = images
            return torch.nn.functional.normalize(
                torch.from_numpy(images).float().mean(dim=(1, 2)) @ torch.ones(3, 8), dim=1
            )

        def encode_text(self, texts):
            return torch.nn.functional.normalize(torch.ones(len(texts), 8) + torch.arange(8) / 8, dim=1)

    teacher = StandIn()
    monkeypatch.setattr(stages, "_teacher", lambda *_: teacher)
    [source] = catalogue_sources(1)
    triplet = produce(source, BuildConfig(views=3, size=48, gaussians=64, iterations=0, teacher="stand-in"))
    assert np.array_equal(teacher.seen, triplet.images())
    assert triplet.image_embeds.shape == (3, 8) and triplet.text_embeds.shape == (len(triplet.texts), 8)
    cosine = float((triplet.image_embeds.astype(np.float32) @ triplet.text_embeds[0].astype(np.float32)).mean())
    assert triplet.texts[0].score == pytest.approx(cosine, abs=2e-3)
    assert decode_triplet(encode_triplet(triplet), "test").teacher.dim == 8


def test_without_its_teacher_a_build_stops():
    config = BuildConfig(views=2, size=32, gaussians=16, iterations=0, teacher="no-such-model")
    with pytest.raises(StopBuild, match="no teacher 'no-such-model'"):
        produce(catalogue_sources(1)[0], config)


def test_cameras_that_are_none_are_refused():
    triplet = produce(catalogue_sources(1)[0], CONFIG)
    triplet.provenance["cameras"]["viewmats"].pop()
    with pytest.raises(ShardError, match="provenance must hold a camera per view"):
        cameras_of(triplet)


def test_the_command_takes_a_belt_and_a_limit(folder, tmp_path):
    words = ["triplets", "build", "--meshes", str(folder), "--out", str(tmp_path / "set"), "--teacher", "none"]
    words += ["--views", "4", "--size", "32", "--gaussians", "16", "--iterations", "0", "--limit", "500"]
    ran = CliRunner().invoke(app, [*words, "--elevations", "0", "5"])
    assert "1 object" in ran.stdout, ran.output
    shards = ShardSet(tmp_path / "set")
    assert shards.manifest["build"]["config"]["elevations"] == [0.0, 5.0] and "limit" not in str(shards.manifest)
    centers = torch.linalg.inv(cameras_of(shards.read(0)).viewmats)[:, :3, 3]
    heights = torch.rad2deg(torch.asin(centers[:, 1] / centers.norm(dim=1)))
    assert bool((heights > -0.01).all()) and bool((heights < 5.01).all())
    wrong = CliRunner().invoke(app, [*words, "--elevations", "5", "0"])
    assert wrong.exit_code == 2 and "elevations must rise within -90..90 degrees" in wrong.stderr


def test_the_command_builds_and_goes_on(folder, tmp_path):
    words = ["triplets", "build", "--meshes", str(folder), "--out", str(tmp_path / "set"), "--teacher", "none"]
    words += ["--views", "2", "--size", "32", "--gaussians", "16", "--iterations", "0"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 1 and "1 object, 1 set aside in quarantine.jsonl" in ran.stdout  # 1: one was set aside
    again = CliRunner().invoke(app, words)
    assert "2 taken over" in again.stdout
    other = CliRunner().invoke(app, [*words, "--seed", "5"])
    assert other.exit_code == 2 and "seed 0 there and 5 now" in other.stderr
    assert ShardSet(tmp_path / "set").manifest["build"]["config"]["elevations"] == [-20.0, 70.0]
    both = CliRunner().invoke(app, [*words, "--catalogue", "3"])
    assert both.exit_code == 2 and "exactly one of --meshes, --splats and --catalogue" in both.stderr
    where = CliRunner().invoke(app, [*words, "--split", "train"])
    assert where.exit_code == 2 and "--split needs --catalogue, got --meshes" in where.stderr
