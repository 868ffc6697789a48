"""Folders and sets into galleries, through the command too; splats back out of them; searches from the shell."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

import clipgs_lib as cg
from clipgs_lib.encoders import build_encoder, save_encoder
from clipgs_lib.gallery import Gallery, GalleryError, embedding
from clipgs_lib.gallery.embedding import embed_gallery, export_splats, open_splats
from clipgs_lib.shards import ShardSet
from clipgs_lib.triplets import BuildConfig
from clipgs_lib.vectors import unit

from ..conftest import clipgs, make_splats
from ..shards.shard_samples import TEACHER, make_set
from ..training.samples import SMALL
from .test_query import FakeTeacher

CUBE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nv 1 1 1\nv 0 1 1\n" + "".join(
    f"f {face}\n" for face in ("1 2 3 4", "5 6 7 8", "1 2 6 5", "3 4 8 7", "2 3 7 6", "1 4 8 5")
)
FEW = BuildConfig(iterations=0, gaussians=64, size=48, views=3)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    made = build_encoder("clipgs-mini", TEACHER.dim, **SMALL)
    info = {"teacher": {"identity": TEACHER.identity, "dim": TEACHER.dim}}
    return save_encoder(tmp_path_factory.mktemp("encoder"), made, info)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Splats in three formats, two meshes, one of them as PLY, and two files that are neither."""
    top = tmp_path_factory.mktemp("things")
    (top / "box cup").mkdir()
    for number, name in enumerate(("red_ball.ply", "knot.spz", "box cup/<b>bold<b>.splat")):
        cg.write_splats(make_splats(150, seed=number), top / name)
    (top / "box cup" / "cube.obj").write_text(CUBE)
    header = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    rows = "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    (top / "triangle.ply").write_text(header + rows)
    (top / "broken.ply").write_bytes(b"nothing of the kind")
    (top / "empty.spz").write_bytes(b"")
    (top / "notes.txt").write_text("mine")
    return top


def test_a_folder_of_all_kinds_becomes_a_gallery(folder, encoder, tmp_path):
    calls = []
    report = embed_gallery(folder, tmp_path, encoder=encoder, config=FEW, progress=lambda *args: calls.append(args))
    assert (report.objects, report.added, len(report.left_out)) == (5, 5, 2) and calls[-1] == (7, 7, 2)
    assert "5 objects, 5 added" in str(report) and "2 objects left out: broken-" in str(report)
    assert all("must" in reason for reason in report.left_out.values())
    gallery = Gallery.open(tmp_path, teacher=TEACHER.identity, dim=TEACHER.dim)
    assert gallery.encoder == cg.load_encoder(encoder).identity
    kinds = {meta["file"]: meta["kind"] for meta in gallery.meta}
    splats = {"red_ball.ply", "knot.spz", "box cup/<b>bold<b>.splat"}
    assert kinds == dict.fromkeys(splats, "splat") | {"box cup/cube.obj": "mesh", "triangle.ply": "mesh"}
    cube = next(row for row, meta in enumerate(gallery.meta) if meta["file"].endswith("cube.obj"))
    assert gallery.meta[cube]["category"] == "box cup" and "cube" in gallery.captions([cube])[0]
    for row, key in enumerate(gallery.keys):
        with Image.open(io.BytesIO(gallery.thumbnail(row)), formats=["WEBP"]) as picture:
            assert picture.size == (48, 48) and np.asarray(picture.convert("RGB")).std() > 1
        opened = open_splats(gallery, key, gaussians=64)
        assert len(opened) == (64 if gallery.meta[row]["kind"] == "mesh" else 150)
        fitted = opened if len(opened) == 64 else embedding._gaussians(opened, FEW, key)
        assert torch.allclose(cg.load_encoder(encoder).encode([fitted])[0], gallery.embeds[row], atol=1e-5)


def test_a_second_run_adds_what_is_new(folder, encoder, tmp_path, monkeypatch):
    top = tmp_path / "things"
    shutil.copytree(folder, top)
    monkeypatch.setattr(embedding, "_COMMIT", 2)
    embed, calls = embedding._embed, []

    def stopping(encoder, loaded, left_out):
        calls.append(list(loaded))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(encoder, loaded, left_out)

    monkeypatch.setattr(embedding, "_embed", stopping)
    with pytest.raises(KeyboardInterrupt):
        embed_gallery(top, tmp_path / "g", encoder=encoder, config=FEW)
    monkeypatch.setattr(embedding, "_embed", embed)
    before = len(Gallery.open(tmp_path / "g"))
    assert 1 <= before <= 2
    cg.write_splats(make_splats(80, seed=9), top / "late.ply")
    report = embed_gallery(top, tmp_path / "g", encoder=encoder, config=FEW)
    assert (report.objects, report.added) == (6, 6 - before)
    assert embed_gallery(top, tmp_path / "g", encoder=encoder, config=FEW).added == 0


def test_splats_that_are_gone_are_told(folder, encoder, tmp_path):
    top = tmp_path / "things"
    shutil.copytree(folder, top)
    embed_gallery(top, tmp_path / "g", encoder=encoder, config=FEW)
    gallery = Gallery.open(tmp_path / "g")
    shutil.rmtree(top)
    with pytest.raises(GalleryError, match=r"must lie where they were when they were embedded, got .*; put them back"):
        open_splats(gallery, gallery.keys[0])
    with pytest.raises(KeyError):
        open_splats(gallery, "nobody")
    bare = Gallery(gallery.embeds[:1], ["a"], [{"origin": "/etc/passwd", "caption": "/etc/passwd"}], teacher="t")
    with pytest.raises(GalleryError, match="must lie where they were"):
        open_splats(bare, "a")


def test_exports_hold_the_splats_and_what_they_are_or_nothing(folder, encoder, tmp_path):
    top = tmp_path / "things"
    shutil.copytree(folder, top)
    embed_gallery(top, tmp_path / "g", encoder=encoder, config=FEW)
    gallery, out = Gallery.open(tmp_path / "g"), tmp_path / "out"
    keys = [gallery.keys[4], gallery.keys[0]]
    out.mkdir()  # an empty folder may be there
    table = pandas.read_parquet(export_splats(gallery, keys, out))
    assert table.key.tolist() == keys and sorted(path.name for path in out.iterdir()) == [
        *table.file,
        "manifest.parquet",
    ]
    assert set(table.teacher) == {gallery.teacher} and set(table.encoder) == {gallery.encoder}
    assert table.caption.tolist() == gallery.captions([4, 0])
    for key, file in zip(keys, table.file, strict=True):
        assert torch.allclose(cg.read_splats(out / file).means, open_splats(gallery, key).means)
    with pytest.raises(GalleryError, match="to a new or empty folder, got 2 objects and something at that place"):
        export_splats(gallery, keys, out)
    with pytest.raises(GalleryError, match="got 0 objects and nothing"):
        export_splats(gallery, [], tmp_path / "new")
    with pytest.raises(KeyError):
        export_splats(gallery, ["nobody"], tmp_path / "new")
    (top / gallery.meta[0]["file"]).unlink()
    with pytest.raises(GalleryError, match="must lie where they were"):
        export_splats(gallery, keys, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g", "out", "things"]  # nothing half-written


def test_a_set_gives_its_splats_views_and_texts(encoder, tmp_path):
    shards = ShardSet(make_set(tmp_path / "set"))
    embed_gallery(shards.folder, tmp_path / "g", encoder=encoder)
    gallery = Gallery.open(tmp_path / "g")
    assert gallery.keys == [row["key"] for row in shards.rows] and len(gallery) == 21
    triplet = shards.read("object-0003")
    row = gallery.row("object-0003")
    facts = {"source": "test 3", "licence": "CC0-1.0", "kind": "set", "origin": str(shards.folder.resolve())}
    assert gallery.meta[row] == {"caption": triplet.caption, "category": "kind0", "split": "train"} | facts
    assert gallery.thumbnail(row) == triplet.views[0]
    assert torch.equal(open_splats(gallery, "object-0003").means, triplet.splats.means)
    expected = cg.load_encoder(encoder).encode([triplet.splats])[0]
    assert torch.allclose(gallery.embeds[row], expected, atol=1e-5)
    assert gallery.search(torch.ones(16), 21, where="split=val").keys == [
        key for key in gallery.search(torch.ones(16), 21).keys if shards.read(key).split == "val"
    ]


@pytest.mark.parametrize("pool", ["bag-mean", "bag-max"])
def test_bags_of_views_of_a_set_are_what_it_has_stored(tmp_path, pool):
    shards = ShardSet(make_set(tmp_path / "set"))
    embed_gallery(shards.folder, tmp_path / "g", encoder=pool)
    gallery = Gallery.open(tmp_path / "g", teacher=TEACHER.identity)
    views = unit(torch.from_numpy(shards.read(4).image_embeds))
    assert torch.allclose(gallery.embeds[4], unit(views.mean(dim=0) if pool == "bag-mean" else views.amax(dim=0)))
    assert gallery.encoder.startswith(f"{pool} sha256:")


def test_bags_of_views_of_a_folder_are_of_mini(folder, tmp_path):
    top = tmp_path / "things"
    top.mkdir()
    for name in ("red_ball.ply", "box cup/cube.obj"):
        shutil.copy(folder / name, top)
    assert embed_gallery(top, tmp_path / "h", encoder="bag-mean", config=FEW).added == 2
    gallery, teacher = Gallery.open(tmp_path / "h"), cg.load_teacher("mini", device="cpu")
    assert gallery.teacher == teacher.identity
    source = next(one for one in embedding.folder_sources(top, kind="any") if one.key == gallery.keys[0])
    views = embedding.draw_views(embedding._read(source, FEW)[1], FEW)[1]
    expected = unit(teacher.encode_image(views).mean(dim=0))
    assert torch.allclose(gallery.embeds[0], expected, atol=1e-4)


def test_what_makes_no_gallery_is_refused(encoder, tmp_path):
    nobody = save_encoder(tmp_path / "nobody", cg.load_encoder(encoder), {})
    shards = make_set(tmp_path / "set")
    with pytest.raises(GalleryError, match="an encoder must say whose space it embeds into"):
        embed_gallery(shards, tmp_path / "g", encoder=nobody)
    embed_gallery(shards, tmp_path / "g", encoder="bag-mean")
    with pytest.raises(GalleryError, match=r"the encoder must be bag-mean sha256.* got clipgs-mini"):
        embed_gallery(shards, tmp_path / "g", encoder=encoder)


def test_the_commands(folder, encoder, tmp_path, monkeypatch):
    first = clipgs("embed", folder, "--out", tmp_path / "g", "--encoder", encoder, "--gaussians", 64)
    assert first.returncode == 1 and "5 objects, 5 added" in first.stdout and "2 objects left out" in first.stdout
    gallery = Gallery.open(tmp_path / "g")
    like = clipgs("search", tmp_path / "g", "--like", gallery.keys[2], "-k", 3)
    assert like.returncode == 0 and gallery.keys[2] in like.stdout.splitlines()[-3], like.stderr
    teacher = FakeTeacher()
    monkeypatch.setattr("clipgs_lib.evaluation.load_teacher_of", lambda info, device: teacher)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    words = ["a <b>mug</b>", "--image", tmp_path / "red.png", "--minus", "wood", "--where", "kind=mesh"]
    found = clipgs("search", tmp_path / "g", *words, "--json", "--sheet", tmp_path / "sheet.png")
    answer = json.loads(found.stdout)
    assert [(one["kind"], one["name"], one["weight"]) for one in answer["terms"]] == [
        ("text", "a <b>mug</b>", 1.0), ("picture", "red.png", 1.0), ("text", "wood", -0.5),
    ]  # fmt: skip
    assert answer["rows"] == len(answer["hits"]) == 2 and all(len(hit["contributions"]) == 3 for hit in answer["hits"])
    teacher.seen.clear()
    assert clipgs("search", tmp_path / "g", *words, "--template", "one {}", "--template", "my {}.").returncode == 0
    assert {"one a <b>mug</b>", "my a <b>mug</b>.", "one wood", "my wood."} <= set(teacher.seen)
    assert not {"a <b>mug</b>", "wood"} & set(teacher.seen)
    taken = clipgs("search", tmp_path / "g", *words, "--export", tmp_path / "taken")
    assert taken.returncode == 0 and len(list((tmp_path / "taken").glob("*.ply"))) == 2, taken.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300 and sheet.height > 100
    for words, sentence in (
        ([], "there is nothing to search for"),
        (["the"], "must say what to look for"),
        (["mug", "--template", "{}", "--template", "a mug"], "templates must be texts with {} where the words go"),
        (["mug", "--where", "nonsense"], "FIELD SIGN VALUE"),
        (["--image", tmp_path / "g" / "gallery.json"], "must be a picture"),
    ):
        failed = clipgs("search", tmp_path / "g", *words)
        assert failed.returncode == 2 and sentence in failed.stderr, failed.stderr
    nothing = clipgs("search", tmp_path / "g", "mug", "--where", "key=nobody")
    assert nothing.stdout.strip() == "no row may come" and nothing.returncode == 0
