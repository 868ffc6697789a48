"""Cameras: axes, orbits, and turntables that frame what is there."""

from __future__ import annotations

import pytest
import torch

from clipgs_lib.formats import read_splats
from clipgs_lib.rendering import Cameras, look_at, orbit_cameras, pinhole, render, turntable_cameras
from clipgs_lib.rendering.cameras import visible_sphere, weighted_quantiles
from clipgs_lib.splats import UP_AXES, Splats


def to_camera(viewmat: torch.Tensor, point: tuple[float, float, float]) -> list[float]:
    return (viewmat[:3, :3] @ torch.tensor(point) + viewmat[:3, 3]).tolist()


def test_look_at_has_opencv_axes():
    viewmat = look_at((0.0, 0.0, 5.0), (0.0, 0.0, 0.0), "+y")
    assert to_camera(viewmat, (0.0, 0.0, 0.0)) == pytest.approx([0, 0, 5], abs=1e-6)  # ahead
    assert to_camera(viewmat, (0.0, 1.0, 0.0)) == pytest.approx([0, -1, 5], abs=1e-6)  # up is -y in the picture
    assert to_camera(viewmat, (1.0, 0.0, 0.0)) == pytest.approx([1, 0, 5], abs=1e-6)  # right is +x
    colmap = look_at((0.0, 0.0, -5.0), (0.0, 0.0, 0.0), "-y")
    assert torch.allclose(colmap[:3, :3], torch.eye(3), atol=1e-7)


def test_look_at_is_rigid_and_takes_batches():
    eyes = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    viewmats = look_at(eyes, (0.0, 0.1, 0.0), (0.2, 1.0, 0.1))
    rotation = viewmats[..., :3, :3]
    assert viewmats.shape == (3, 2, 4, 4)
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-6)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(3, 2), atol=1e-6)
    assert torch.allclose((rotation @ eyes[..., None])[..., 0], -viewmats[..., :3, 3], atol=1e-6)


@pytest.mark.parametrize(
    ("eye", "up", "words"),
    [
        ((0.0, 0.0, 0.0), "+y", "eye away from the target"),
        ((float("nan"), 0.0, 0.0), "+y", "eye away from the target"),
        ((0.0, 2.0, 0.0), "+y", "parallel to the line of sight"),
        ((0.0, 2.0, 1.0), "unknown", "up must be one of"),
        ((0.0, 2.0, 1.0), "y", "up must be one of"),
    ],
)
def test_look_at_refuses(eye, up, words):
    with pytest.raises(ValueError, match=words):
        look_at(eye, (0.0, 0.0, 0.0), up)


@pytest.mark.parametrize("up", UP_AXES[:-1])
def test_orbits_stay_level_and_at_a_distance(up):
    views = orbit_cameras(5, center=(1.0, 2.0, 3.0), distance=4.0, elevation=30, up=up, width=64, height=48)
    axis, sign = "xyz".index(up[1]), 1 if up[0] == "+" else -1
    offsets = views.centers - torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(offsets.norm(dim=1), torch.full((5,), 4.0), atol=1e-5)
    assert torch.allclose(sign * offsets[:, axis], torch.full((5,), 2.0), atol=1e-5)  # sin 30 degrees
    assert (sign * views.viewmats[:, 1, axis] < -0.8).all()  # picture up is world up
    level = offsets.clone()
    level[:, axis] = 0
    level = level / level.norm(dim=1, keepdim=True)
    turn = sign * torch.linalg.cross(level, level.roll(-1, 0))[:, axis]
    assert torch.allclose(turn, torch.full((5,), torch.sin(torch.tensor(2 * torch.pi / 5))), atol=1e-5)


def test_the_first_camera_faces_the_front_and_the_next_its_right():
    assert torch.allclose(orbit_cameras(1, elevation=0).centers, torch.tensor([[0.0, 0.0, 3.0]]), atol=1e-6)
    colmap = orbit_cameras(1, elevation=0, up="-y")
    assert torch.allclose(colmap.centers, torch.tensor([[0.0, 0.0, -3.0]]), atol=1e-6)
    assert torch.allclose(orbit_cameras(4, elevation=0).centers[1], torch.tensor([3.0, 0.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "at least 1 camera"),
        ({"distance": 0.0}, "distance must be positive"),
        ({"elevation": 90.0}, "the poles have no up"),
        ({"up": "unknown"}, "up must be one of"),
        ({"fov": 180.0}, "fov must lie between"),
        ({"width": 0}, "at least 1 pixel"),
    ],
)
def test_orbit_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        orbit_cameras(**({"n": 1} | arguments))


def test_field_of_view_spans_the_shorter_side():
    K = pinhole(200, 100, 90)
    assert torch.allclose(K, torch.tensor([[50.0, 0, 100], [0, 50, 50], [0, 0, 1]]), atol=1e-4)
    assert torch.equal(pinhole(100, 200, 90)[:2, :2], K[:2, :2])


def test_weighted_quantiles_by_hand():
    values, weights = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 8.0])
    assert weighted_quantiles(values, weights, (0.05, 0.5, 0.95)) == [1.0, 2.0, 3.0]


def covered(splats: Splats, views: Cameras) -> torch.Tensor:
    return render(splats, *views).alphas[..., 0] > 0.05


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
@pytest.mark.parametrize("up", ["+y", "-z"])
def test_turntable_frames_whatever_size_and_place(splats_factory, scale, up):
    splats = splats_factory(600, 0)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] *= scale
    matrix[:3, 3] = 7 * scale
    views = turntable_cameras(splats.transform(matrix), 3, width=96, height=64, up=up)
    for mask in covered(splats.transform(matrix), views):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        assert rows.max() - rows.min() > 0.6 * 64
        assert columns.min() > 0
        assert columns.max() < 95


def test_a_tiny_object_is_small_but_not_cut_away(splats_factory):
    splats = splats_factory(600, 0)
    tiny = Splats(splats.means * 1e-3, splats.quats, splats.scales * 1e-3, splats.opacities, splats.sh0, splats.shN)
    mask = covered(tiny, turntable_cameras(tiny, 1, width=96, height=64))[0]
    assert 50 < int(mask.sum()) < 96 * 64 / 4


def test_floaters_do_not_shrink_the_object(splats_factory):
    splats = splats_factory(600, 0)
    far = splats_factory(6, 0, seed=4)
    floaters = Splats(far.means * 500, far.quats, far.scales * 0.3, far.opacities * 0.05, far.sh0, far.shN)
    center, radius = visible_sphere(splats)
    with_center, with_radius = visible_sphere(Splats.cat([splats, floaters]))
    assert torch.allclose(center, with_center, atol=0.05 * radius)
    assert with_radius == pytest.approx(radius, rel=0.05)


def test_turntable_takes_up_from_the_splats(splats_factory):
    from dataclasses import replace

    splats = replace(splats_factory(50), up_axis="-y")
    assert torch.equal(turntable_cameras(splats, 2).viewmats, turntable_cameras(splats, 2, up="-y").viewmats)
    unknown = replace(splats, up_axis="unknown")
    assert torch.equal(turntable_cameras(unknown, 2).viewmats, turntable_cameras(splats, 2, up="+y").viewmats)


def test_frame_survives_one_gaussian_invisible_ones_and_non_finite_ones(splats_factory):
    one = splats_factory(1)
    assert visible_sphere(one)[1] > 0
    clear = Splats(one.means, one.quats, one.scales, one.opacities * 0, one.sh0, one.shN)
    assert torch.allclose(visible_sphere(clear)[0].float(), one.means[0], atol=1e-6)
    bad = splats_factory(3, seed=2)
    bad.means[0], bad.scales[1], bad.opacities[2] = float("nan"), float("inf"), float("nan")
    assert visible_sphere(Splats.cat([splats_factory(50), bad]))[1] == pytest.approx(
        visible_sphere(splats_factory(50))[1], rel=0.05
    )
    point = Splats(one.means, one.quats, one.scales * 0, one.opacities, one.sh0, one.shN)
    assert visible_sphere(point)[1] == 1.0


def test_nothing_to_frame_is_said(splats_factory):
    with pytest.raises(ValueError, match="at least one gaussian with a finite centre"):
        turntable_cameras(splats_factory(1)[[]], 2)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["ply/hamburger.ply", "ply/monkey.ply", "splat/guitar.splat", "spz/playbot_sh2_v4.spz"]
)
def test_real_objects_fill_the_picture_and_are_not_cut(real_data, name):
    splats = read_splats(real_data / "splats" / name)
    for mask in covered(splats, turntable_cameras(splats, 3, width=96, height=96)):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        assert max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) > 0.6 * 96
        border = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.float().mean() < 0.03
