"""Copies of meshes in other colours: the same shape and split, texts that are true; other sets as before."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from clipgs_lib import catalogue
from clipgs_lib.captions.attributes import family_of, measure
from clipgs_lib.captions.enrich import caption_object, without_looks
from clipgs_lib.cli import app
from clipgs_lib.colors import COLORS, oklab
from clipgs_lib.meshes import Mesh, Part
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.triplets.build import _recipe, build_triplets
from clipgs_lib.triplets.copies import _outside, copy_captions, paint_copy, with_copies
from clipgs_lib.triplets.recipe import BuildConfig, Source, catalogue_sources, folder_sources
from clipgs_lib.triplets.stages import load_thing

from ..meshes.test_sweethome import BED
from ..meshes.test_sweethome import catalogue as furniture

CONFIG = BuildConfig(views=2, size=32, gaussians=40, iterations=0)
CORNERS = np.array(list(itertools.product((-0.5, 0.5), repeat=3)), np.float32)
QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
FACES = np.array([[q[i] for i in t] for q in QUADS for t in ((0, 1, 2), (0, 2, 3))], np.int32)


def box(size, center=(0, 0, 0), color="red") -> Part:
    return Part(CORNERS * np.float32(size) + np.float32(center), FACES, (*COLORS[color], 1.0))


def table() -> Mesh:
    """A large red top on a green block."""
    return Mesh((box((1.6, 0.7, 1.6), (0, 0.3, 0)), box((1, 0.4, 1), (0, -0.3, 0), "green")), "+y").normalize()


def folder_of_boxes(top, count):
    for i in range(count):
        (top / f"b{i}.mtl").write_text("newmtl one\nKd 0.8 0.1 0.1\nnewmtl two\nKd 0.1 0.2 0.8\n")
        low = [f"v {x} {y} {z * (1 + i / 7)}" for x, y, z in CORNERS.tolist()]
        high = [f"v {x} {y + 1} {z * (1 + i / 7)}" for x, y, z in CORNERS.tolist()]
        faces = [[" ".join(map(str, face + 1 + first)) for face in FACES] for first in (0, 8)]
        lines = [f"mtllib b{i}.mtl", *low, *high, "usemtl one", *(f"f {f}" for f in faces[0])]
        (top / f"b{i}.obj").write_text("\n".join([*lines, "usemtl two", *(f"f {f}" for f in faces[1])]))
    rows = [f"b{i}.obj\tred chest {'x' * i}\tCC0" for i in range(count)]
    (top / "t.tsv").write_text("\n".join(["path\tlabel\tlicence", *rows]))
    return folder_sources(top, labels=top / "t.tsv")


def test_copies_follow_their_mesh_under_their_own_keys():
    sources = [Source("a", "mesh", info={"label": "chair"}), Source("b", "mesh")]
    assert with_copies(sources, 0) == sources
    made = with_copies(sources, 2)
    assert [(s.key, s.copy) for s in made] == [("a", 0), ("a-c1", 1), ("a-c2", 2), ("b", 0), ("b-c1", 1), ("b-c2", 2)]
    assert made[2].info == sources[0].info
    with pytest.raises(ValueError, match=r"copies must be in 0\.\.99, got -1"):
        with_copies(sources, -1)
    with pytest.raises(ValueError, match="copies must be of meshes, got catalogue; leave --copies out"):
        with_copies(catalogue_sources(1), 1)


def test_a_recipe_without_copies_is_what_it_was():
    sources = [Source("a", "mesh", name="a.obj", bytes=7, info={"label": "chair"})]
    before = json.dumps(
        [["a", "mesh", 0, 0, "a.obj", 7, [["label", "chair"]]]]
    )  # the digest of sets made before copies
    assert _recipe(sources, CONFIG)["sources_sha256"] == hashlib.sha256(before.encode()).hexdigest()
    digests = {_recipe(with_copies(sources, n), CONFIG)["sources_sha256"] for n in range(3)}
    assert len(digests) == 3
    assert set(_recipe(sources, CONFIG)["config"]) == set(BuildConfig.__dataclass_fields__)


def test_all_copies_of_a_mesh_are_in_its_split(tmp_path):
    sources = with_copies(folder_of_boxes(tmp_path, 12), 2)
    things = [load_thing(source, CONFIG, seed) for seed, source in enumerate(sources)]
    splits = [thing.split for thing in things[::3]]
    assert len(set(splits)) > 1  # else this proves nothing
    for first, *copies in (things[i : i + 3] for i in range(0, len(things), 3)):
        for copy in copies:
            assert (copy.split, copy.category) == (first.split, first.category)
            same = {name: first.provenance[name] for name in ("group", "licence", "source", "file_sha256")}
            assert same.items() <= copy.provenance.items()
            assert not any(caption.text.startswith("red chest") for caption in copy.captions)  # the label's own words
        assert any("red chest" in caption.text for caption in first.captions) and "copy" not in first.provenance
    assert things[1].provenance["copy"]["of"] == sources[0].key
    assert things[1].provenance["copy"]["changes"]["colors"]


def test_the_shape_stays_and_the_seed_decides():
    mesh = table()
    looks = set()
    for seed in range(6):
        one, two = paint_copy(mesh, seed), paint_copy(mesh, seed)
        assert one.changes == two.changes and one.mesh.n_faces == mesh.n_faces
        assert np.array_equal(one.mesh.bounds(), mesh.bounds()) and one.mesh.up_axis == "+y"
        rng = [np.random.default_rng(0) for _ in range(2)]
        assert np.array_equal(one.mesh.sample(500, rng[0]).colors, two.mesh.sample(500, rng[1]).colors)
        looks.add(json.dumps(one.changes))
    assert len(looks) == 6


def test_the_words_are_what_is_measured():
    """Of boxes and of the catalogue's objects, whose colours are in many parts and textures."""
    patterns = 0
    shapes = [table()] * 12 + [catalogue.make(i).mesh for i in range(0, 60, 4)]
    for seed, mesh in enumerate(shapes):
        painted = paint_copy(mesh, seed)
        found = caption_object(["gizmo"], painted.mesh, seed=seed)
        shares = measure(painted.mesh, seed=seed + 1).palette.shares  # of other samples
        families = {family_of(name) for name in shares}
        said = " ".join(caption.text for caption in copy_captions(painted, found)).replace("white background", "")
        for name in COLORS:
            if f" {name} " in said.replace("light ", "light-").replace("dark ", "dark-"):
                assert family_of(name) in families, (seed, name, shares)
        if painted.feature:
            patterns += 1
            assert f"gizmo with {painted.feature}" in said
            assert family_of(painted.changes["second"]) in families
        elif painted.adjective:
            assert f"{painted.adjective} gizmo" in said
        else:
            assert family_of(painted.color) in families
    assert patterns >= 4


def test_a_palette_keeps_its_shades_and_a_picture_is_one_colour():
    shades = np.array([[[200, 40, 40], [150, 20, 20], [30, 60, 200], [20, 40, 140]]], np.uint8)
    uvs = np.array([[(i + 0.5) / 4, 0.5] for i in range(4)], np.float32).repeat(8, axis=0)
    row = np.concatenate([CORNERS + np.float32([2 * i, 0, 0]) for i in range(4)])
    faces = np.concatenate([FACES + np.int32(8 * i) for i in range(4)])
    mesh = Mesh((Part(row, faces, (1.0, 1.0, 1.0, 1.0), uvs, shades),), "+y").normalize()
    painted = next(p for p in (paint_copy(mesh, seed) for seed in range(20)) if not (p.feature or p.adjective))
    new = painted.mesh.parts[0].texture
    assert set(painted.changes["colors"]) <= {"red", "blue"} and not np.array_equal(new, shades)
    light = oklab(new[0] / 255)[:, 0]
    assert light[0] > light[1] + 0.02 and light[2] > light[3] + 0.02
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    square = Part(CORNERS, FACES, (1.0, 1.0, 1.0, 1.0), CORNERS[:, :2].copy(), noise)
    assert all(len(paint_copy(Mesh((square,)).normalize(), seed).changes["colors"]) == 1 for seed in range(4))


def test_patterns_need_room_and_are_seen_from_outside():
    bars = tuple(box((0.04, 2, 0.04), (x, 0, z)) for x in (-0.5, 0.5) for z in (-0.5, 0.5))
    frame = Mesh(bars, "+y").normalize()
    assert all("pattern" not in paint_copy(frame, seed).changes for seed in range(12))
    layers = tuple(box((s, s, s), color="green") for s in np.linspace(0.3, 0.7, 9))
    full = Mesh((box((1, 1, 1)), *layers), "+y").normalize()
    assert {next(iter(paint_copy(full, seed).changes["colors"])) for seed in range(4)} == {"red"}
    rays = np.random.default_rng(0).normal(size=(12_000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    assert _outside(np.concatenate([rays, 0.5 * rays])).reshape(2, -1).mean(axis=1) == pytest.approx([1, 0], abs=0.03)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("red apple", "apple"),
        ("apple red", "apple"),
        ("a red apple", "an apple"),
        ("a black and white cow", "a cow"),
        ("dark blue wooden chair", "chair"),
        ("house with red roof", "house with roof"),
        ("table in light brown", "table"),
        ("bed, wood, white, sleep", "bed, wood, sleep"),
        ("foundation large stone", "large foundation"),
        ("orange", "orange"),
        ("wine glass", "wine glass"),
        ("ice cream truck", "ice cream truck"),
        ("light switch", "light switch"),
        ("redwood", "redwood"),
    ],
)
def test_names_lose_their_looks(text, plain):
    assert without_looks(text) == plain


def test_furniture_is_copied_with_its_catalogue(tmp_path):
    furniture(tmp_path / "a.sh3f", BED)
    bed, copy = (load_thing(source, CONFIG, 0) for source in with_copies(folder_sources(tmp_path), 1))
    assert copy.provenance["furniture"] == bed.provenance["furniture"] and copy.split == bed.split
    assert copy.provenance["licence"] == bed.provenance["licence"] and copy.provenance["copy"]["of"]


def test_a_build_with_copies_goes_on_and_another_number_is_another_set(tmp_path):
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    folder_of_boxes(meshes, 1)
    words = ["triplets", "build", "--meshes", str(meshes), "--labels", str(meshes / "t.tsv"), "--teacher", "none"]
    words += ["--views", "2", "--size", "32", "--gaussians", "16", "--iterations", "0", "--out", str(tmp_path / "set")]
    ran = CliRunner().invoke(app, [*words, "--copies", "2"])
    assert ran.exit_code == 0 and "3 objects" in ran.stdout, ran.output
    keys = [triplet.key for triplet in ShardSet(tmp_path / "set")]
    assert keys == [keys[0], f"{keys[0]}-c1", f"{keys[0]}-c2"]
    assert "3 taken over" in CliRunner().invoke(app, [*words, "--copies", "2"]).stdout
    fewer = CliRunner().invoke(app, words)
    assert fewer.exit_code == 2 and "sources 3 there and 1 now" in fewer.stderr
    wrong = CliRunner().invoke(
        app, ["triplets", "build", "--catalogue", "1", "--out", str(tmp_path / "x"), "--copies", "1"]
    )
    assert wrong.exit_code == 2 and "copies must be of meshes" in wrong.stderr


def test_sets_without_copies_are_bytes_of_the_meshes_alone(tmp_path):
    sources = folder_of_boxes(tmp_path, 1)
    build_triplets(sources, tmp_path / "alone", CONFIG)
    build_triplets(with_copies(sources, 1), tmp_path / "both", CONFIG)
    assert ShardSet(tmp_path / "alone").block(0) == ShardSet(tmp_path / "both").block(0)
