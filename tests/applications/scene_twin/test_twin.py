"""Searching, placing and setting straight, each against what must come out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from clipgs_lib.applications.scene_twin import assets_in, compose, crop, load_pool, make_twin, retrieve, score_rooms
from clipgs_lib.applications.scene_twin.placement import arrange, box_of, carriers, find_supports, fit_pose, overlaps
from clipgs_lib.applications.scene_twin.scenes import FLOOR, WALL, Pose, Scene, SceneObject
from clipgs_lib.applications.scene_twin.scoring import coarse_name, equal_yaws, yaw_error
from clipgs_lib.cli import app
from clipgs_lib.formats import read_splats
from clipgs_lib.rendering import look_at, pinhole, render
from clipgs_lib.splats import Splats

SAMPLE = "data/triplets/sample"
WIDTH, HEIGHT = 200, 150
VIEWMAT, K = look_at((0.3, 1.5, 3.0), (0.0, 0.4, 0.0)), pinhole(WIDTH, HEIGHT, 50)


def key_of(pool, category: str) -> str:
    return pool.keys[pool.categories.index(category)]


def drawn(shape: Splats, pose: Pose, *, depth: bool = True) -> Scene:
    """A scene that shows a shape at a pose, and nothing else."""
    with torch.no_grad():
        out = render(shape.transform(pose.matrix()), VIEWMAT[None], K[None], WIDTH, HEIGHT, background=(0.9, 0.9, 0.9))
    image = (out.colors[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    mask = (out.alphas[0, ..., 0] > 0.5).numpy()
    seen = out.depths[0, ..., 0].numpy() * mask if depth else None
    return Scene(image, seen, VIEWMAT, K, (SceneObject(1, "thing", mask),))


# ---- searching ---------------------------------------------------------------------------------------------------


def test_crops_show_the_object_alone():
    image = np.zeros((60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:20, 30:70] = True
    mask[10, 30] = False
    picture = crop(Scene(image, None, VIEWMAT, K, (SceneObject(1, "bar", mask),)), SceneObject(1, "bar", mask))
    dark = (picture < 128).all(axis=2)
    rows, columns = np.nonzero(dark)
    assert picture.shape == (224, 224, 3)
    assert (columns.min(), columns.max()) == (12, 211) and (rows.min(), rows.max()) == (87, 136)
    assert (picture[:87] == 255).all() and not dark[88, 13]  # white above, and where the mask has its hole


def test_ranks_are_those_of_the_recipe(room, pool):
    texts = pool.teacher.encode_text([f"A photo of {one.name}" for one in room.objects])
    images = pool.teacher.encode_image(np.stack([crop(room, one) for one in room.objects]))
    results = {mode: retrieve(room, pool, mode) for mode in ("text", "image", "fused")}
    for row, one in enumerate(room.objects):
        by_text = {key: float(texts[row] @ embed) for key, embed in zip(pool.keys, pool.embeds, strict=True)}
        by_image = {key: float(images[row] @ embed) for key, embed in zip(pool.keys, pool.embeds, strict=True)}
        first = sorted(by_text, key=by_text.get, reverse=True)[:50]
        fused = sorted(first, key=lambda key: by_text[key] + by_image[key], reverse=True)[:5]
        assert [match.key for match in results["fused"][one.number]] == fused
        assert results["text"][one.number][0].key == first[0]
        assert results["image"][one.number][0].key == max(by_image, key=by_image.get)
        assert results["fused"][one.number][0].score == pytest.approx(by_text[fused[0]] + by_image[fused[0]], abs=1e-5)


def test_what_carries_searches_the_clean_part(room, pool):
    mixed = replace(pool, clean=torch.tensor([i % 7 == 0 for i in range(len(pool.keys))]))
    found = retrieve(room, mixed, carriers=[room.objects[0].number])
    clean = {key for key, mine in zip(mixed.keys, mixed.clean.tolist(), strict=True) if mine}
    assert {match.key for match in found[room.objects[0].number]} <= clean
    others = {match.key for one in room.objects[1:] for match in found[one.number]}
    assert not others <= clean


def test_what_is_excluded_is_not_found(room, pool):
    best = {matches[0].key for matches in retrieve(room, pool).values()}
    again = retrieve(room, pool, exclude=best)
    assert not best & {match.key for matches in again.values() for match in matches}


def test_without_a_name_the_picture_decides(room, pool):
    nameless = replace(room, objects=tuple(replace(one, name="") for one in room.objects))
    assert retrieve(nameless, pool, "text") == retrieve(nameless, pool, "image")


def test_searches_that_cannot_be_are_refused(room, pool):
    with pytest.raises(ValueError, match="mode must be one of fused, text, image"):
        retrieve(room, pool, "sound")
    with pytest.raises(ValueError, match="not excluded, got none"):
        retrieve(room, pool, exclude=pool.keys)
    with pytest.raises(ValueError, match="must hold embedded objects"):
        load_pool([])
    with pytest.raises(ValueError, match="no key twice"):
        load_pool([SAMPLE, SAMPLE])


# ---- placing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("category", "yaw"), [("armchair", 33.0), ("chair", -140.0), ("piano", 75.0)])
def test_a_shape_is_found_where_it_was_drawn(pool, category, yaw):
    shape = pool.splats(key_of(pool, category))
    truth = Pose((-0.2, 0.45, 0.3), yaw, 0.6)
    fit = fit_pose(scene := drawn(shape, truth), scene.objects[0], shape)
    assert yaw_error(fit.pose.yaw, yaw) < 4 and abs(fit.pose.scale / 0.6 - 1) < 0.04
    assert np.abs(np.subtract(fit.pose.position, truth.position)).max() < 0.04
    assert fit.agreement > 0.85


def test_a_shape_cut_off_by_the_picture_keeps_its_size(pool):
    shape = pool.splats(key_of(pool, "bookshelf"))
    truth = Pose((-1.7, 0.6, 0.2), 20.0, 0.9)
    scene = drawn(shape, truth)
    assert scene.objects[0].mask[:, 0].any()  # it leaves the picture
    fit = fit_pose(scene, scene.objects[0], shape)
    assert abs(fit.pose.scale / 0.9 - 1) < 0.15


def test_without_depth_a_shape_stands_on_the_floor(pool):
    shape = pool.splats(key_of(pool, "armchair"))
    low = float(shape.bounds()[0][1])
    truth = Pose((0.1, -0.6 * low, 0.2), 33.0, 0.6)
    scene = drawn(shape, truth, depth=False)
    fit = fit_pose(scene, scene.objects[0], shape)
    assert np.abs(np.subtract(fit.pose.position, truth.position)).max() < 0.35
    assert find_supports(scene) == {1: FLOOR}


def test_what_stands_on_the_floor_touches_it(pool):
    shape = pool.splats(key_of(pool, "armchair"))
    low = float(shape[shape.opacities > 0.1].means[:, 1].min())
    truth = Pose((0.1, -0.6 * low, 0.2), 33.0, 0.6)
    scene = drawn(shape, truth)
    fit = fit_pose(scene, scene.objects[0], shape, on_floor=True)
    assert fit.pose.position[1] == pytest.approx(-low * fit.pose.scale, abs=1e-5)
    assert yaw_error(fit.pose.yaw, 33.0) < 4 and abs(fit.pose.scale / 0.6 - 1) < 0.04
    assert np.abs(np.subtract(fit.pose.position, truth.position)).max() < 0.04


def test_holes_and_zeros_in_depth_leave_a_pose(pool):
    shape = pool.splats(key_of(pool, "armchair"))
    truth = Pose((0.1, -0.6 * float(shape.bounds()[0][1]), 0.2), 33.0, 0.6)
    scene = drawn(shape, truth)
    holes = np.where(np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5, np.nan, scene.depth).astype(np.float32)
    fit = fit_pose(replace(scene, depth=holes), scene.objects[0], shape)
    assert np.abs(np.subtract(fit.pose.position, truth.position)).max() < 0.06
    nothing = replace(scene, depth=np.zeros((HEIGHT, WIDTH), np.float32))
    assert np.abs(np.subtract(fit_pose(nothing, scene.objects[0], shape).pose.position, truth.position)).max() < 0.35


def test_nothing_is_larger_than_the_room(pool):
    shape = pool.splats(key_of(pool, "chair"))
    scene = drawn(shape, Pose((0.0, 0.45, 0.3), 0.0, 0.6))
    mask = scene.objects[0].mask
    far = replace(scene, depth=np.where(mask, 40.0, 2.0).astype(np.float32))
    fit = fit_pose(far, scene.objects[0], shape)
    assert 2 * fit.pose.scale <= 1.001 * np.ptp(far.points(~mask), axis=0).max()


# ---- setting straight ----------------------------------------------------------------------------------------------


def cube(size: float = 1.0) -> Splats:
    """Gaussians at the corners, and on a grid over the top, of a cube about the origin with sides ``2 * size``."""
    grid = torch.linspace(-size, size, 9)
    x, y, z = (each.flatten() for each in torch.meshgrid(grid, grid[[0, -1]], grid, indexing="ij"))
    means = torch.stack([x, y, z], dim=1)
    n = len(means)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    return Splats.from_colors(
        means, torch.full((n, 3), 0.5), quats=quats, scales=torch.full((n, 3), 0.02), opacities=torch.full((n,), 0.9)
    )


def test_boxes_are_pushed_apart_along_the_least_overlap():
    shapes = {1: cube(), 2: cube()}
    poses = {1: Pose((0.0, 0.7, 0.0), 0.0, 0.5), 2: Pose((0.9, 0.1, 0.2), 0.0, 0.5)}
    out = arrange(poses, shapes, {1: FLOOR, 2: FLOOR})
    assert overlaps(poses, shapes, {}) == [(1, 2)] and overlaps(out, shapes, {}) == []
    assert out[1].position == pytest.approx((-0.05, 0.5, 0.0), abs=2e-3)  # 10 cm of x, shared; onto the floor
    assert out[2].position == pytest.approx((0.95, 0.5, 0.2), abs=2e-3)


def test_a_cup_stands_on_its_table_and_goes_along():
    shapes = {1: cube(), 2: cube(), 3: cube()}
    poses = {
        1: Pose((0.0, 0.5, 0.0), 0.0, 0.5),
        2: Pose((0.2, 1.2, 0.1), 15.0, 0.1),
        3: Pose((0.8, 0.5, 0.0), 0.0, 0.5),
    }
    supports = {1: FLOOR, 2: 1, 3: FLOOR}
    out = arrange(poses, shapes, supports)
    assert box_of(shapes[2], out[2])[0][1] == pytest.approx(1.0, abs=1e-6)  # the table's top
    assert out[2].position[0] - out[1].position[0] == pytest.approx(0.2, abs=1e-6)
    assert overlaps(out, shapes, supports) == []


def test_what_hangs_stays_and_what_carries_may_hold_within():
    shapes = {1: cube(), 2: cube()}
    poses = {1: Pose((0.0, 1.5, 0.0), 0.0, 0.3), 2: Pose((0.0, 0.5, 2.0), 0.0, 0.5)}
    out = arrange(poses, shapes, {1: WALL, 2: FLOOR})
    assert out[1] == poses[1]
    assert overlaps({1: poses[2], 2: poses[2]}, shapes, {1: 2}) == []  # a cup within a bookcase


def test_a_circle_of_supports_ends():
    supports = {1: 2, 2: 1}
    assert carriers(1, supports) == (2, 1)
    shapes = {1: cube(), 2: cube()}
    poses = {1: Pose((0.0, 0.5, 0.0), 0.0, 0.5), 2: Pose((0.1, 0.5, 0.0), 0.0, 0.5)}
    assert set(arrange(poses, shapes, supports)) == {1, 2}


def test_supports_of_a_room_are_found(room):
    found = find_supports(room)
    right = [found[one.number] == one.truth.support for one in room.objects]
    assert np.mean(right) >= 0.8 and found[room.objects[0].number] == FLOOR


def test_what_a_scene_says_of_supports_counts(room):
    said = replace(room, objects=tuple(replace(one, support=WALL) for one in room.objects))
    assert set(find_supports(said).values()) == {WALL}


# ---- the whole -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin(room, pool):
    few = replace(room, objects=room.objects[:2])
    return make_twin(few, pool)


def test_a_twin_is_one_scene_a_graph_and_a_picture(twin, tmp_path):
    twin.save(tmp_path, name="t.spz")
    merged = read_splats(tmp_path / "t.spz")
    assert len(merged) == sum(len(shape) for shape in twin.shapes.values())
    graph = json.loads((tmp_path / "graph.json").read_text())
    assert [row["key"] for row in graph["objects"]] == list(twin.chosen.values())
    assert len(graph["objects"][0]["candidates"]) == 5 and (tmp_path / "before_after.png").stat().st_size > 1000
    low, high = (torch.tensor(0.0), torch.tensor(1.0))
    assert bool(((twin.draw() >= low) & (twin.draw() <= high)).all())


def test_a_person_may_choose_another_shape(twin, pool):
    number = twin.scene.objects[0].number
    other = twin.matches[number][1].key
    changed = twin.changed(pool, {number: other})
    second = twin.scene.objects[1].number
    assert changed.chosen[number] == other and changed.fits[second] == twin.fits[second]


def test_a_person_may_move_an_object(twin, pool):
    first, second = (one.number for one in twin.scene.objects)
    x, y, z = twin.poses[first].position
    moved = twin.changed(pool, moved={first: replace(twin.poses[first], position=(x, y + 1.0, z - 0.1))})
    assert moved.poses[first].position == pytest.approx((x, y, z - 0.1), abs=0.02)  # it falls onto the floor
    assert moved.chosen == twin.chosen and moved.fits[second] is twin.fits[second]


def test_changes_that_cannot_be_are_refused(twin, pool):
    number = twin.scene.objects[0].number
    with pytest.raises(ValueError, match="objects to change must be among 1, 2, got 99"):
        twin.changed(pool, {99: pool.keys[0]})
    with pytest.raises(ValueError, match="must be one of the pool's 248, got 'nothing'"):
        twin.changed(pool, {number: "nothing"})


def test_yaws_are_compared_over_turns_that_look_alike(pool):
    assert yaw_error(179.0, -179.0) == pytest.approx(2.0)
    assert yaw_error(100.0, 5.0, (0.0, 90.0)) == pytest.approx(5.0)
    assert len(equal_yaws(cube())) == 4  # quarter turns
    assert equal_yaws(pool.splats(key_of(pool, "armchair"))) == [0.0]


def test_scores_go_on_where_they_stopped(pool, tmp_path, monkeypatch):
    from clipgs_lib.applications.scene_twin import scoring

    monkeypatch.setattr(scoring, "compose", lambda seed, assets: compose(seed, assets, width=200, height=150, small=1))
    pools = {"bag-mean": pool, "again": pool}
    first = score_rooms(1, pools, tmp_path, seed=4)
    rows = {(row["encoder"], row["mode"], row["metric"]): row for row in first["rows"]}
    for mode in ("fused", "text", "image"):
        for metric in ("instance R@1", "instance R@5", "category R@1", "category R@5"):
            row = rows["bag-mean", mode, metric]
            assert row["n"] == 0 or 0 <= row["low"] <= row["value"] <= row["high"] <= 1
            assert {**row, "encoder": "again"} == rows["again", mode, metric]
            assert mode == "image" or rows["bag-mean", mode + ", coarse names", metric]["n"] == row["n"]
        either = rows["bag-mean", mode, "either R@1"]
        assert either["n"] == rows["bag-mean", mode, "category R@1"]["n"]
    assert ("bag-mean", "image, coarse names", "instance R@1") not in rows  # names do not matter to it
    for other in ("text", "image", "text, coarse names", "image, coarse names"):
        for metric in ("instance R@1", "category R@1", "either R@1"):
            assert ("bag-mean", f"fused - {other}", metric) in rows
    paired = rows["bag-mean", "fused - image", "instance R@1"]
    hits = [rows["bag-mean", mode, "instance R@1"]["value"] for mode in ("fused", "image")]
    assert paired["value"] == pytest.approx(hits[0] - hits[1], abs=1e-3) and 0 < paired["p"] <= 1 and paired["verdict"]
    supports = [rows["bag-mean", which, "support right"] for which in ("twin", "twin by text", "twin by image")]
    assert supports[0]["value"] == supports[1]["value"] == supports[2]["value"]  # of the picture, whatever is chosen
    true = {metric: row for (encoder, mode, metric), row in rows.items() if mode == "twin of the true shapes"}
    assert true["position error fitted"]["value"] < 0.5 and true["support right"]["value"] >= 0.5
    assert first["encoders"]["bag-mean"] == pool.encoder.identity and "sha256:" in first["teacher"]
    monkeypatch.setattr(scoring, "score_room", None)  # a room that is there is not made again
    assert score_rooms(1, pools, tmp_path, seed=4) == first
    with pytest.raises(ValueError, match="at least 1 room"):
        score_rooms(0, pools, tmp_path)


@pytest.mark.parametrize(
    ("name", "coarse"),
    [
        ("red office chair", "chair"),
        ("chair", "chair"),
        ("Table with tablecloth", "table"),
        ("sofa 2 seats", "sofa"),
        ("plate, glass and cutlery", "plate"),
        ("apple imac 2004", "imac"),
    ],
)
def test_coarse_names_are_heads(name, coarse):
    assert coarse_name(name) == coarse


def test_both_kinds_of_searches_are_averaged(room, pool):
    """By hand: three shapes, of which one is the first object of the room and one is said to be of its category."""
    from clipgs_lib.applications.scene_twin.scoring import _hits_of

    one = replace(room.objects[0], support=FLOOR)
    keys = (one.truth.key, *[key for key in pool.keys if key != one.truth.key][:2])
    text = pool.teacher.encode_text([f"A photo of {one.name}"])[0]
    towards, away = text, -text
    for embeds, instance, category in (
        ((towards, away, away), 1.0, None),
        ((towards, 0.5 * text, away), 1.0, 1.0),
        ((away, 0.5 * text, towards), 0.0, 0.0),
        ((away, towards, 0.5 * text), 0.0, 1.0),
    ):
        small = replace(
            pool,
            keys=keys,
            categories=(one.truth.category, one.truth.category if category is not None else "x", "y"),
            embeds=torch.stack(embeds),
            clean=torch.ones(3, dtype=torch.bool),
        )
        hits = _hits_of(replace(room, objects=(one,)), small, "text")
        assert hits["instance R@1"] == [instance]
        assert hits["category R@1"] == ([] if category is None else [category])
        assert hits["either R@1"] == ([] if category is None else [(instance + category) / 2])


def test_searching_again_gives_the_twin_of_that_mode(twin, pool):
    again, anew = twin.searched(pool, "text"), make_twin(twin.scene, pool, "text")
    assert again.chosen == anew.chosen and again.matches == anew.matches
    for number, pose in again.poses.items():
        assert pose.position == pytest.approx(anew.poses[number].position, abs=1e-5)


def test_values_of_rooms_are_summed_up_by_room():
    from clipgs_lib.applications.scene_twin.scoring import _summary

    name, paired = ("e", "fused", "R@1"), ("e", "fused - text", "R@1")
    rooms = [{name: [1.0, 0.0], paired: [1.0, 1.0]}, {name: [1.0], paired: [1.0]}, {name: [], paired: [1.0]}]
    row, difference = _summary(rooms)
    assert row["value"] == pytest.approx(2 / 3, abs=1e-4) and row["median"] == 1 and row["n"] == 3
    assert 0.5 <= row["low"] < 2 / 3 < row["high"] == 1 and "p" not in row
    assert difference["low"] == difference["high"] == 1 and difference["p"] < 0.01
    assert _summary([{name: []}]) == [{"encoder": "e", "mode": "fused", "metric": "R@1", "n": 0}]


def test_a_pool_without_furniture_cannot_be_scored(pool):
    with pytest.raises(ValueError, match="must hold furniture"):
        assets_in({})
    assert {asset.source.key for asset in assets_in(pool.owners)} <= set(pool.keys)


def test_the_command_makes_a_twin(room, tmp_path):
    replace(room, objects=room.objects[:1]).write(tmp_path / "scene")
    words = ["twin", str(tmp_path / "scene"), "--pool", SAMPLE, "--out", str(tmp_path / "out"), "--encoder", "bag-mean"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"twin.ply", "graph.json", "before_after.png"}
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["twin", str(tmp_path / "empty"), *words[2:]])
    assert result.exit_code != 0 and "must hold a scene: image.png, scene.json" in result.output
    result = CliRunner().invoke(app, ["twin", "--pool", SAMPLE, "--out", str(tmp_path)])
    assert result.exit_code == 2 and "exactly one of SCENE and --compose" in result.output
    for extra in (["--mode", "text"], ["--boxes", "README.md"]):
        result = CliRunner().invoke(app, ["twin", "--compose", "1", "--pool", SAMPLE, "--out", str(tmp_path), *extra])
        assert result.exit_code == 2 and "--boxes and --mode must come with SCENE, got --compose" in result.output
    result = CliRunner().invoke(app, [*words, "--encoder", "clipgs-mini"])
    assert result.exit_code == 2 and "one encoder must search" in result.output


def test_what_cannot_be_written_or_searched_is_refused_before_the_work(tmp_path, monkeypatch):
    import clipgs_lib.applications.scene_twin as house

    def words(pool: str = SAMPLE, name: str = "t.ply") -> list[str]:
        return ["twin", str(tmp_path), "--pool", pool, "--out", str(tmp_path / "out"), "--name", name]

    monkeypatch.setattr(house, "read_scene", None)  # nothing is read yet
    result = CliRunner().invoke(app, words(name="twin.obj"))
    assert result.exit_code == 2 and "must end in a suffix of a writable format, got '.obj'" in result.output
    result = CliRunner().invoke(app, words(name="no/folder.ply"))
    assert result.exit_code == 2 and "--name must be the name of a file in --out, got 'no/folder.ply'" in result.output
    result = CliRunner().invoke(app, words(pool=str(tmp_path / "nothing")))
    assert result.exit_code == 2 and "must name an existing file or folder" in result.output
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="a set must have a manifest"):
        load_pool([tmp_path / "empty"])
    assert not (tmp_path / "out").exists()


def test_progress_counts_the_objects_that_are_placed(room, pool):
    calls = []
    make_twin(replace(room, objects=room.objects[:2]), pool, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(1, 2), (2, 2)]
    assert load_pool.__kwdefaults__["encoder"] == "duoduo-mini"
