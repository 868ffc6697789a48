"""A set embedded anew: splats and views byte for byte, embeddings and scores anew, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from clipgs_lib.captions.caption import Caption
from clipgs_lib.cli import app
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.shards.tar import ShardError, unpack_members
from clipgs_lib.shards.triplet import Triplet, encode_triplet, encode_view
from clipgs_lib.shards.writer import write_set
from clipgs_lib.triplets import embed
from clipgs_lib.triplets.build import build_triplets
from clipgs_lib.triplets.embed import embed_triplets
from clipgs_lib.triplets.inspection import summarize
from clipgs_lib.triplets.recipe import BuildConfig, catalogue_sources

from ..shards.shard_samples import make_set, make_triplet, small_shards


class StandIn:
    """A teacher that projects the mean colour of pictures and the letters of texts, and counts its calls."""

    name, embed_dim = "stand-in", 8

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.identity = f"stand-in sha256:{seed}"
        self.calls: list[int] = []
        self._eye, self._ear = torch.randn(3, 8, generator=generator), torch.randn(256, 8, generator=generator)

    def encode_image(self, images):
        self.calls.append(len(images))
        return torch.nn.functional.normalize(torch.from_numpy(images).float().mean(dim=(1, 2)) @ self._eye, dim=1)

    def encode_text(self, texts):
        counts = torch.zeros(len(texts), 256)
        for row, text in enumerate(texts):
            for char in text.encode():
                counts[row, char] += 1
        return torch.nn.functional.normalize(counts @ self._ear, dim=1)


def members(shards: ShardSet, number: int) -> dict[str, bytes]:
    return {part: bytes(data) for _, part, data in unpack_members(shards.block(number), "test")}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_splats_views_and_texts_stay_and_embeddings_are_new(tmp_path):
    old, teacher = ShardSet(make_set(tmp_path / "old")), StandIn()
    report = embed_triplets(old, tmp_path / "new", teacher, batch=10)
    assert (report.objects, report.quarantined, report.resumed) == (21, 0, 0)
    assert teacher.calls == [10, 10, 10, 10, 2]
    new = ShardSet(tmp_path / "new")
    assert new.verify() == [] and (new.teacher.identity, new.teacher.dim) == ("stand-in sha256:0", 8)
    for number in range(21):
        before, after = members(old, number), members(new, number)
        assert old.rows[number]["key"] == new.rows[number]["key"] and set(before) == set(after)
        same = [part for part in before if part.startswith(("view", "splat"))]
        assert len(same) == 3 and all(before[part] == after[part] for part in same)
        triplet, was = new.read(number), old.read(number)
        assert [(c.text, c.source) for c in triplet.texts] == [(c.text, c.source) for c in was.texts]
        assert triplet.provenance == was.provenance
        image, text = triplet.image_embeds.astype(np.float32), triplet.text_embeds.astype(np.float32)
        assert np.allclose(image, teacher.encode_image(triplet.images()), atol=1e-3)
        assert np.allclose([c.score for c in triplet.texts], (image @ text.T).mean(axis=0), atol=2e-3)
    assert new.manifest["build"]["embedded"]["from_sha256"] == old.manifest["content_sha256"]
    assert new.manifest["build"]["what"] == "test" and new.manifest["build"]["config"] == {"teacher": "stand-in"}


def test_fitting_without_and_embedding_later_is_building_with(tmp_path, monkeypatch):
    """Both ways give the same bytes, as long as each object makes up one batch."""
    monkeypatch.setattr("clipgs_lib.triplets.stages._teacher", lambda *_: StandIn())
    sources = catalogue_sources(2)
    options = {"views": 2, "size": 32, "gaussians": 16, "iterations": 0}
    from clipgs_lib.triplets.stages import produce

    blocks = [encode_triplet(produce(source, BuildConfig(**options, teacher="stand-in"))) for source in sources]
    build_triplets(sources, tmp_path / "raw", BuildConfig(**options))
    embed_triplets(tmp_path / "raw", tmp_path / "set", StandIn(), batch=1)
    new = ShardSet(tmp_path / "set")
    assert sorted(new.block(i) for i in range(2)) == sorted(blocks)


def test_it_goes_on_and_ends_in_the_same_bytes(tmp_path, monkeypatch):
    old = make_set(tmp_path / "old")
    embed_triplets(old, tmp_path / "whole", StandIn(), batch=10)
    keep, count = embed.Staging.keep, {"left": 8}

    def killed(self, *arguments):
        count["left"] -= 1
        if count["left"] < 0:
            raise KeyboardInterrupt
        keep(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embed.Staging, "keep", killed)
        embed_triplets(old, tmp_path / "new", StandIn(), batch=10)
    assert not (tmp_path / "new" / "manifest.json").exists()
    with pytest.raises(ShardError, match="same sources and options, got embedded"):
        embed_triplets(old, tmp_path / "new", StandIn(seed=1), batch=10)
    seen, teacher = [], StandIn()
    report = embed_triplets(old, tmp_path / "new", teacher, batch=10, progress=lambda *counts: seen.append(counts))
    assert (report.objects, report.resumed) == (21, 8) and teacher.calls == [10, 10, 10, 2]  # the first chunk was whole
    assert seen == [(5, 21, 0), (10, 21, 0), (15, 21, 0), (20, 21, 0), (21, 21, 0)]
    assert files(tmp_path / "new") == files(tmp_path / "whole")
    again = StandIn()
    assert embed_triplets(old, tmp_path / "new", again, batch=10).resumed == 21 and again.calls == []


def test_damaged_objects_and_impossible_texts_are_set_aside(tmp_path):
    old = make_set(tmp_path / "old", (("train", 4),))
    (old / "quarantine.jsonl").write_text('{"key": "x", "source": "x.glb", "reason": "no faces", "place": ""}\n')
    row = ShardSet(old).rows[2]
    with (old / row["shard"]).open("r+b") as stream:
        stream.seek(row["offset"] + 600)
        stream.write(b"????")
    report = embed_triplets(old, tmp_path / "new", StandIn(), batch=100)
    assert (report.objects, report.quarantined) == (3, 2)
    lines = [json.loads(line) for line in (tmp_path / "new" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["x", row["key"]] and "another version" in lines[1]["reason"]
    assert summarize(tmp_path / "new").quarantined[0][1] == 1
    assert embed_triplets(old, tmp_path / "new", StandIn(), batch=100).quarantined == 2


def test_an_empty_set_gives_an_empty_set(tmp_path):
    (tmp_path / "old").mkdir()
    write_set(tmp_path / "old", [], build={})
    report = embed_triplets(tmp_path / "old", tmp_path / "new", StandIn())
    assert (report.objects, report.quarantined) == (0, 0) and len(ShardSet(tmp_path / "new")) == 0


def test_what_meshes_lost_is_still_known(tmp_path):
    (tmp_path / "old").mkdir()
    lost = {"lost": ["wood.png"], "file": "a/chair.obj"}
    blocks = [encode_triplet(make_triplet(i, provenance=lost if i else {"lost": 3})) for i in range(2)]
    write_set(tmp_path / "old", blocks, build={})
    report = embed_triplets(tmp_path / "old", tmp_path / "new", StandIn())
    assert report.lost == summarize(report.folder).lost == {"a/chair.obj": ["wood.png"]}


def test_pictures_of_several_sizes(tmp_path):
    wide: Triplet = make_triplet(1, views=(encode_view(np.full((8, 30, 3), 200, np.uint8)),) * 2)
    write_set(tmp_path, [encode_triplet(t) for t in (make_triplet(0), wide, make_triplet(2))], build={})
    teacher = StandIn()
    embed_triplets(tmp_path, tmp_path.with_name("new"), teacher)
    assert sorted(teacher.calls) == [2, 4]
    for triplet in map(ShardSet(tmp_path.with_name("new")).read, range(3)):
        assert np.allclose(triplet.image_embeds, teacher.encode_image(triplet.images()), atol=1e-3)


def test_what_is_refused(tmp_path):
    old = make_set(tmp_path / "old", (("train", 2),))
    with pytest.raises(ShardError, match="must have a folder of its own, got that of the old one"):
        embed_triplets(old, tmp_path / "x" / ".." / "old", StandIn())
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        embed_triplets(old, tmp_path / "new", StandIn(), batch=0)
    with pytest.raises(ValueError, match=r"no-such-model"):
        embed_triplets(old, tmp_path / "new", "no-such-model")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.txt").write_text("mine")
    with pytest.raises(ShardError, match=r"must be empty, or hold a build to go on with, got thesis.txt"):
        embed_triplets(old, tmp_path / "new", StandIn())


def test_compressed_shards_hold_the_same_objects(tmp_path):
    old = make_set(tmp_path / "old")
    for name in ("plain", "packed"):
        with small_shards(5):
            embed_triplets(old, tmp_path / name, StandIn(), compress=name == "packed", command="make it")
    plain, packed = ShardSet(tmp_path / "plain"), ShardSet(tmp_path / "packed")
    assert packed.manifest["build"]["command"] == "make it"
    assert packed.verify() == [] and plain.manifest["content_sha256"] == packed.manifest["content_sha256"]
    assert [packed.block(i) for i in range(21)] == [plain.block(i) for i in range(21)]
    assert {path.suffix for path in packed.folder.iterdir()} == {".gz", ".json", ".parquet"}


def test_the_command_embeds_by_mini(tmp_path):
    texts = (Caption("a red mug", "filtered"), Caption("a cup", "enriched"))
    (tmp_path / "old").mkdir()
    write_set(tmp_path / "old", [encode_triplet(make_triplet(0, teacher=None, texts=texts))], build={})
    words = ["triplets", "embed", str(tmp_path / "old"), "--teacher", "mini", "--out", str(tmp_path / "new")]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0 and "1 object" in ran.stdout, ran.output
    new = ShardSet(tmp_path / "new")
    assert new.teacher.identity.startswith("mini sha256:") and all(c.score is not None for c in new.read(0).texts)
    same = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "old")])
    assert same.exit_code == 2 and "folder of its own" in same.stderr
