"""Scenes in memory and as folders, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.applications.scene_twin import compose, read_scene
from clipgs_lib.applications.scene_twin.composer import FURNITURE, catalogue_assets, furniture_assets
from clipgs_lib.applications.scene_twin.scenes import FLOOR, Pose, Scene, SceneError, SceneObject, Truth, segmented
from clipgs_lib.rendering import look_at, pinhole

VIEWMAT = look_at((0.0, 1.0, 3.0), (0.0, 0.5, 0.0))


def simple(**changes) -> Scene:
    """Two objects in a picture of 40 x 60 pixels."""
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 3:20, 0:30], masks[1, 30:, 45:] = True, True
    truth = Truth("a", "chair", Pose((0.1, 0.5, 0.2), 30.0, 0.7), (0.4, 0.9, 0.5), FLOOR)
    objects = (SceneObject(1, "chair", masks[0], truth=truth), SceneObject(7, "mug", masks[1], support=1))
    depth = rng.uniform(0.5, 5, (40, 60)).astype(np.float32)
    image = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    return replace(Scene(image, depth, VIEWMAT, pinhole(60, 40, 60), objects), **changes)


def test_folders_round_trip(tmp_path):
    scene = simple()
    again = read_scene(scene.write(tmp_path / "s"))
    assert (again.image == scene.image).all() and np.abs(again.depth - scene.depth).max() <= 5.1e-4
    assert torch.equal(again.viewmat, scene.viewmat) and torch.equal(again.K, scene.K) and again.name == "s"
    for one, other in zip(scene.objects, again.objects, strict=True):
        assert (one.mask == other.mask).all()
        assert (one.number, one.name, one.support, one.truth) == (
            *(other.number, other.name, other.support, other.truth),
        )


def test_without_depth_no_depth_comes_back(tmp_path):
    assert read_scene(simple(depth=None).write(tmp_path)).depth is None


def test_polygons_are_masks(tmp_path):
    simple().write(tmp_path)
    facts = json.loads((tmp_path / "scene.json").read_text())
    facts["annotations"][0]["segmentation"] = [[10, 5, 20, 5, 20, 15, 10, 15]]
    (tmp_path / "scene.json").write_text(json.dumps(facts))
    mask = read_scene(tmp_path).objects[0].mask
    assert mask[5:16, 10:21].all() and mask.sum() == 11 * 11


def test_points_are_where_the_camera_sees_them():
    scene = simple()
    points = scene.points(scene.objects[0].mask)
    local = points @ scene.viewmat[:3, :3].numpy().T + scene.viewmat[:3, 3].numpy()
    assert np.allclose(local[:, 2], scene.depth[scene.objects[0].mask], atol=1e-5)
    pixels = local @ scene.K.numpy().T
    rows, columns = np.nonzero(scene.objects[0].mask)
    assert np.allclose(pixels[:, :2] / pixels[:, 2:], np.stack([columns, rows], axis=1) + 0.5, atol=1e-3)


def test_holes_in_depth_are_no_points():
    scene = simple()
    depth = scene.depth.copy()
    depth[3:10], depth[12, 0] = 0, np.nan
    assert len(replace(scene, depth=depth).points(scene.objects[0].mask)) == 10 * 30 - 1


def changed_mask(scene: Scene, mask: np.ndarray) -> dict:
    return {"objects": (replace(scene.objects[0], mask=mask), scene.objects[1])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda s: changed_mask(s, np.zeros((40, 60), bool)), "must have pixels inside the picture"),
        (lambda s: changed_mask(s, np.ones((20, 60), bool)), r"must be bool \[40, 60\]"),
        (lambda s: changed_mask(s, np.ones((40, 60))), r"must be bool \[40, 60\]"),
        (lambda s: {"objects": (s.objects[0], s.objects[0])}, "different numbers from 1 on, got 1, 1"),
        (lambda s: {"objects": ()}, "got none"),
        (lambda s: {"objects": (replace(s.objects[0], support=3),)}, "must stand on another of the scene, got 3"),
        (lambda s: {"depth": s.depth[:20]}, "depth must be"),
        (lambda s: {"depth": -s.depth}, "metres >= 0"),
        (lambda s: {"image": s.image / 255}, "image must be uint8"),
        (lambda s: {"viewmat": 2 * s.viewmat}, "rigid"),
    ],
)
def test_what_is_no_scene_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        simple(**changes(simple()))


def annotated(**changes):
    """A change of the first annotation of ``scene.json``."""
    return lambda facts: facts["annotations"][0].update(changes)


def listed(**changes):
    """A change of lists of ``scene.json``: rows that are put after those that are there."""
    return lambda facts: [facts[name].append(row) for name, row in changes.items()]


CUT = {"size": [40, 60], "counts": [5, 3, 32]}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (annotated(segmentation=[[100, 100, 120, 100, 120, 120]]), "inside the picture"),
        (annotated(segmentation=[]), "inside the picture, got none"),
        (annotated(segmentation=[[1, 2, 9, 2, 9]]), "object 1 must be .* of at least 3 points, got one of 5 values"),
        (annotated(segmentation=[[1, 2, 9, 2]]), "at least 3 points, got one of 4 values"),
        (annotated(segmentation=[[1, 2, 9, 2, 9, float("nan")]]), "of object 1 must be finite, got nan"),
        (annotated(segmentation=[1, 2, 9, 2, 9, 9]), "of object 1 must be a list, got 1"),
        (annotated(segmentation=None), "segmentation of object 1 must be a list, got None"),
        (annotated(segmentation=CUT), r"must fill the image \[40, 60\], got 40 pixels of size \[40, 60\]"),
        (
            annotated(segmentation=CUT | {"size": [4, 10]}),
            r"must fill the image \[40, 60\], got 40 pixels of size \[4, 10",
        ),
        (annotated(segmentation=CUT | {"counts": [-1, 2401]}), "must fill the image"),
        (annotated(segmentation=CUT | {"counts": [0.5, 2399.5]}), "object 1 must be a whole number, got 0.5"),
        (annotated(segmentation=CUT | {"counts": "53P"}), "lengths of object 1 must be numbers .* got '53P'"),
        (annotated(category_id=99), "must name one of the categories 1, 2, got 99"),
        (annotated(category_id=None), "must name one of the categories 1, 2, got None"),
        (annotated(id="one"), "id of an annotation must be a whole number, got 'one'"),
        (annotated(id=7), "different numbers"),
        (annotated(support="floor"), "support of object 1 must be a whole number, got 'floor'"),
        (annotated(image_id=2), "must be of image 1, the one that scene.json lists, got some of image 2"),
        (lambda facts: facts["categories"][1].update(name=5), "name of category 2 must be a text, got 5"),
        (lambda facts: facts["categories"][1].pop("name"), "name of category 2 must be a text, got None"),
        (listed(categories={"id": 1, "name": "sofa"}), "categories must have different ids, got 1, 2, 1"),
        (listed(images={"id": 2, "file_name": "b.png"}), "must list one image, got 2: image.png, b.png; keep one"),
        (lambda facts: facts["images"].clear(), "must list one image, got none"),
        (lambda facts: facts["images"][0].update(width=61), r"that scene.json states, \[61, 40\], got \[60, 40\]"),
        (lambda facts: facts.pop("camera"), "nothing called 'camera'"),
    ],
)
def test_broken_folders_are_refused(tmp_path, break_it, message):
    simple().write(tmp_path)
    facts = json.loads((tmp_path / "scene.json").read_text())
    break_it(facts)
    (tmp_path / "scene.json").write_text(json.dumps(facts))
    with pytest.raises(SceneError, match=message):
        read_scene(tmp_path)


@pytest.mark.parametrize("text", ["[]", "[1]", "{", '{"images": 3}'])
def test_what_is_no_list_of_instances_is_refused(tmp_path, text):
    simple().write(tmp_path)
    (tmp_path / "scene.json").write_text(text)
    with pytest.raises(SceneError, match="must hold a scene"):
        read_scene(tmp_path)


@pytest.mark.parametrize("picture", [np.full((40, 60), 90, np.uint8), np.full((40, 60, 3), 90, np.uint8)])
def test_depth_of_8_bits_is_no_millimetres(tmp_path, picture):
    simple().write(tmp_path)
    Image.fromarray(picture).save(tmp_path / "depth.png")
    with pytest.raises(SceneError, match=r"one channel of 16 bits, millimetres .* got Pillow's mode (L|RGB)"):
        read_scene(tmp_path)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(SceneError, match="must hold a scene"):
        read_scene(tmp_path / "nothing")


def test_a_function_may_make_the_masks():
    scene = simple()
    masks = [one.mask for one in scene.objects]
    made = segmented(scene.image, ["chair", "mug"], lambda image, names: masks, scene.viewmat, scene.K)
    assert [(one.number, one.name) for one in made.objects] == [(1, "chair"), (2, "mug")]
    with pytest.raises(ValueError, match="one mask for each of 2 names, got 1"):
        segmented(scene.image, ["chair", "mug"], lambda image, names: masks[:1], scene.viewmat, scene.K)


@pytest.fixture(scope="module")
def room() -> Scene:
    return compose(2, catalogue_assets(), width=160, height=120)


def test_rooms_repeat_by_seed(room):
    again = compose(2, catalogue_assets(), width=160, height=120)
    assert (again.image == room.image).all() and [o.truth for o in again.objects] == [o.truth for o in room.objects]
    other = compose(3, catalogue_assets(), width=160, height=120)
    assert [o.truth for o in other.objects] != [o.truth for o in room.objects]


def test_the_truth_of_a_room_fits_its_picture(room):
    total = np.sum([one.mask for one in room.objects], axis=0)
    assert total.max() == 1  # each pixel belongs to one object at most
    for one in room.objects:
        low, high = np.array(one.truth.pose.position) - one.truth.pose.scale, 0
        high = low + 2 * one.truth.pose.scale
        points = room.points(one.mask)
        assert ((points > low - 0.02) & (points < high + 0.02)).all()  # within the sphere's box
        below = one.truth.pose.position[1] - one.truth.size[1] / 2
        if one.truth.support == FLOOR:
            assert abs(below) < 1e-5


def test_things_do_not_touch_but_what_carries_them(room):
    by_number = {one.number: one for one in room.objects}
    for one in room.objects:
        support = one.truth.support
        if support > 0:
            table = by_number[support].truth
            below = one.truth.pose.position[1] - one.truth.size[1] / 2
            assert below <= table.pose.position[1] + table.size[1] / 2 + 1e-3
            assert np.abs(np.subtract(one.truth.pose.position, table.pose.position)[[0, 2]]).max() < table.pose.scale


def test_what_is_larger_than_a_room_fits_none():
    giants = [replace(asset, length=30.0) for asset in catalogue_assets(60)]
    with pytest.raises(ValueError, match="must fit a room"):
        compose(0, giants, width=64, height=48)
    with pytest.raises(ValueError, match="must fit a room"):
        compose(0, [], width=64, height=48)


@pytest.mark.skipif(not any(FURNITURE.glob("*.sh3f")), reason="apt-get install sweethome3d-furniture")
def test_furniture_keeps_its_sizes():
    assets = furniture_assets()
    roles = {asset.role for asset in assets}
    assert roles == {"table", "floor", "small", "wall"} and len(assets) > 300
    table = next(asset for asset in assets if asset.role == "table" and asset.name == "coffee table")
    low, high = table.read().bounds()
    assert max(high - low) == pytest.approx(table.length, rel=1e-4) and table.top is not None
