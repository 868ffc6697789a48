"""Scenes of splats with boxes: cut out, retrieved and placed again, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from clipgs_lib.applications.scene_twin import load_pool, make_twin, read_scene, retrieve
from clipgs_lib.applications.scene_twin.placement import find_supports
from clipgs_lib.applications.scene_twin.scenes import SceneError, _from_splats
from clipgs_lib.applications.scene_twin.scoring import equal_yaws, yaw_error
from clipgs_lib.cli import app
from clipgs_lib.formats import write_splats
from clipgs_lib.splats import Splats

SAMPLE = "data/triplets/sample"


@pytest.fixture(scope="module")
def files(room, pool, tmp_path_factory):
    """A composed room as one splat file, and its true boxes."""
    folder = tmp_path_factory.mktemp("scene")
    parts = [pool.splats(one.truth.key).transform(one.truth.pose.matrix()) for one in room.objects]
    write_splats(replace(Splats.cat(parts), up_axis="unknown"), folder / "room.ply")
    boxes = [
        {
            "id": one.number,
            "name": one.truth.category,
            "center": one.truth.pose.position,
            "size": one.truth.size,
            "yaw": one.truth.pose.yaw,
        }
        for one in room.objects
    ]
    (folder / "boxes.json").write_text(json.dumps({"boxes": boxes, "floor": 0.0}))
    return folder / "room.ply", folder / "boxes.json"


@pytest.fixture(scope="module")
def scene(files):
    return read_scene(*files)


def test_objects_are_cut_out_whole_and_turned_to_the_front(scene, room, pool):
    for one, other in zip(scene.objects, room.objects, strict=True):
        shape = pool.splats(other.truth.key)
        assert abs(len(one.cut) / len(shape) - 1) < 0.03
        distances = torch.cdist(one.cut.means, shape.normalize().means)
        assert float(distances.min(dim=1).values.median()) < 0.05  # a stray one makes it smaller
        assert one.name == other.name and one.mask.any() and (one.view.image[~one.view.objects[0].mask] > 100).all()


def test_the_very_objects_are_retrieved_by_their_gaussians(scene, room, pool):
    truths = {one.number: one.truth.key for one in room.objects}
    clipgs = load_pool([SAMPLE], encoder="clipgs-mini")
    for each in (pool, clipgs):  # one looks at views of what was cut out, one reads its gaussians
        found = retrieve(scene, each, "image")
        assert {number: matches[0].key for number, matches in found.items()} == truths
        fused = retrieve(scene, each)
        assert np.mean([fused[number][0].key == key for number, key in truths.items()]) > 0.8


def test_a_twin_stands_where_the_scene_does(scene, room, pool, tmp_path):
    few = replace(scene, objects=(scene.objects[0], scene.objects[5]))
    truths = {one.number: one.truth for one in room.objects}
    twin = make_twin(few, pool, "image")
    for number, pose in twin.poses.items():
        truth = truths[number]
        assert np.abs(np.subtract(pose.position, truth.pose.position)).max() < 0.03
        assert abs(pose.scale / truth.pose.scale - 1) < 0.04
        assert yaw_error(pose.yaw, truth.pose.yaw, equal_yaws(twin.shapes[number])) < 3
    twin.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"twin.ply", "graph.json", "before_after.png"}


def test_supports_are_those_of_the_boxes(scene, room):
    assert find_supports(scene) == {one.number: one.truth.support for one in room.objects}


@pytest.mark.parametrize(("up_axis", "axis", "degrees"), [("+z", "x", 90.0), ("-y", "x", 180.0), ("-z", "x", -90.0)])
def test_scenes_in_other_axes_and_units_are_the_same(scene, files, up_axis, axis, degrees, tmp_path):
    from clipgs_lib.formats import read_splats
    from clipgs_lib.geometry import rotation_about

    matrix = torch.eye(4, dtype=torch.float64)
    turn = rotation_about(axis, degrees)
    matrix[:3, :3], matrix[:3, 3] = 100 * turn, torch.tensor([3.0, 20.0, 5.0])  # centimetres
    facts = json.loads(files[1].read_text())
    for box in facts["boxes"]:
        center = 100 * turn @ torch.tensor(box["center"], dtype=torch.float64) + matrix[:3, 3]
        size = 100 * turn.abs() @ torch.tensor(box["size"], dtype=torch.float64)
        box |= {"center": center.tolist(), "size": size.tolist()}
    (tmp_path / "b.json").write_text(json.dumps({"boxes": facts["boxes"], "up_axis": up_axis, "metres": 0.01}))
    write_splats(read_splats(files[0]).transform(matrix), tmp_path / "s.ply")
    other = read_scene(tmp_path / "s.ply", tmp_path / "b.json")
    for one, two in zip(scene.objects, other.objects, strict=True):
        assert abs(len(one.cut) - len(two.cut)) <= 2  # on the edge of two boxes roundings decide
        assert torch.allclose(one.cut.means.mean(dim=0), two.cut.means.mean(dim=0), atol=0.01)
        assert torch.allclose(one.cut.means.std(dim=0), two.cut.means.std(dim=0), atol=0.01)
    middles = [
        each.objects[0].view.points(each.objects[0].view.objects[0].mask).mean(axis=0) for each in (scene, other)
    ]
    assert middles[0][1] == pytest.approx(middles[1][1], abs=0.01)  # the lowest box stands on the floor


def cloud(n: int = 400, seed: int = 0) -> Splats:
    """Gaussians in a box of 2 x 1 x 1 about (0, 0.5, 0)."""
    generator = torch.Generator().manual_seed(seed)
    means = (torch.rand(n, 3, generator=generator) - 0.5) * torch.tensor([2.0, 1.0, 1.0]) + torch.tensor([0, 0.5, 0])
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    scales = torch.full((n, 3), 0.05)
    return Splats.from_colors(means, torch.rand(n, 3), quats=quats, scales=scales, opacities=torch.full((n,), 0.9))


def test_gaussians_go_to_the_smallest_box_that_holds_them():
    large = {"id": 1, "center": [0, 0.5, 0], "size": [2.1, 1.1, 1.1]}
    small = {"id": 2, "center": [0.5, 0.5, 0], "size": [1, 1, 1], "yaw": 45}
    one, two = _from_splats(cloud(), {"boxes": [large, small], "floor": 0.0}).objects
    x, z = cloud().means[:, 0] - 0.5, cloud().means[:, 2]
    inside = torch.maximum((x + z).abs(), (x - z).abs()) / 2**0.5 <= 0.5
    assert len(one.cut) + len(two.cut) == 400 and len(two.cut) == int(inside.sum())
    assert one.mask.any() and two.mask.any()


def test_what_is_hidden_has_its_outline_and_what_is_large_is_covered_anew():
    behind = replace(small := cloud(300), means=0.3 * small.means + torch.tensor([0, 0.3, -3.0]))
    boxes = [
        {"id": 1, "center": [0, 0.5, 0], "size": [2, 1, 1]},
        {"id": 2, "center": [0, 0.45, -3], "size": [0.6, 0.3, 0.3]},
    ]
    near, far = _from_splats(Splats.cat([cloud(3_000), behind]), {"boxes": boxes}).objects
    assert len(near.cut) == 1_024 and len(far.cut) == 300
    assert far.mask.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["boxes"][0].update(center=[90, 0, 0]), "box 1 'coffee table' must lie in the scene and hold"),
        (lambda f: f["boxes"][0].update(size=[1e-3, 1e-3, 1e-3], center=[0.1, 2.4, 0.1]), "got 0 in"),
        (lambda f: f["boxes"][0].update(size=[400, 80, 400]), "are up_axis and metres right"),
        (lambda f: f["boxes"][1].update(id=1), "different numbers from 1 on, got 1, 1, 3"),
        (lambda f: f["boxes"][1].update(id=0), "different numbers from 1 on"),
        (lambda f: f["boxes"][2].update(size=[1, 2]), "entry 3 of boxes.size must be a list of 3"),
        (lambda f: f["boxes"][2].update(center=[1, float("nan"), 2]), "box 3 must have a finite center"),
        (lambda f: f["boxes"][2].update(size=[1, 0, 2]), "sizes > 0"),
        (lambda f: f["boxes"][2].update(yaw="left"), "entry 3 of boxes.yaw must be a number"),
        (lambda f: f["boxes"][2].update(label="x"), "got unknown .*label"),
        (lambda f: f["boxes"].append(3), "entry 8 of boxes must be a mapping, got 3"),
        (lambda f: f.update(boxes=[]), "must be a box and metres > 0, got 0"),
        (lambda f: f.update(metres=-1.0), "metres > 0, got 7 and -1.0"),
        (lambda f: f.update(up_axis="up"), "up must be one of"),
        (lambda f: f.pop("boxes"), "nothing called 'boxes'"),
    ],
)
def test_boxes_that_cannot_be_are_refused(files, tmp_path, change, message):
    facts = json.loads(files[1].read_text())
    change(facts)
    (tmp_path / "b.json").write_text(json.dumps(facts))
    with pytest.raises(SceneError, match=message):
        read_scene(files[0], tmp_path / "b.json")


def test_files_that_are_missing_or_no_such_files_are_refused(files, tmp_path):
    for path, boxes, message in (
        (files[0], tmp_path / "nothing.json", "No such file .*nothing.json"),
        (tmp_path / "nothing.ply", files[1], "nothing.ply"),
        (files[1], files[1], "boxes.json"),  # no splats
        (files[0], None, "or splats with boxes"),
    ):
        with pytest.raises(SceneError, match=message):
            read_scene(path, boxes)
    (tmp_path / "b.json").write_text("[1")
    with pytest.raises(SceneError, match="must be JSON"):
        read_scene(files[0], tmp_path / "b.json")


def test_the_command_takes_splats_with_boxes(files, tmp_path):
    facts = json.loads(files[1].read_text())
    facts["boxes"] = facts["boxes"][2:3]
    (tmp_path / "b.json").write_text(json.dumps(facts))
    words = ["twin", str(files[0]), "--boxes", str(tmp_path / "b.json"), "--pool", SAMPLE, "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, [*words, "--encoder", "bag-mean", "--name", "twin.spz"])
    assert result.exit_code == 0, result.output
    assert {file.name for file in (tmp_path / "o").iterdir()} == {"twin.spz", "graph.json", "before_after.png"}
    result = CliRunner().invoke(app, [words[0], *words[2:], "--compose", "2"])
    assert result.exit_code == 2 and "--boxes and --mode must come with SCENE" in result.output
    result = CliRunner().invoke(app, [*words, "--seed", "1"])
    assert result.exit_code == 2 and "--seed must come with --compose" in result.output
    result = CliRunner().invoke(app, [*words[:2], "--boxes", "missing.json", *words[4:]])
    assert result.exit_code == 2 and "nothing there" in result.output
    result = CliRunner().invoke(app, [*words[:2], *words[4:]])
    assert result.exit_code == 2 and "or splats with boxes" in result.output
