"""Initial gaussians: exactly n, on the surface, flat, evenly spread, in the right colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from clipgs_lib import geometry
from clipgs_lib.fitting import init_from_mesh, init_from_points, init_from_splats, init_random
from clipgs_lib.fitting.starts import _thin
from clipgs_lib.formats import PointCloud
from clipgs_lib.meshes import Mesh
from clipgs_lib.splats import COLUMNS
from tests.fitting.fitting_scenes import BLUE, RED, ball, plate, stool


def cloud_of(mesh, count=3000, *, colors=True, normals=False):
    samples = mesh.sample(count, np.random.default_rng(3))
    return PointCloud(
        torch.from_numpy(samples.points),
        torch.from_numpy(samples.colors) if colors else None,
        torch.from_numpy(samples.normals) if normals else None,
    )


def normals_of(splats):
    thin = splats.scales.argmin(dim=1)
    return geometry.quat_to_rotmat(splats.quats).gather(2, thin[:, None, None].expand(-1, 3, 1))[:, :, 0]


def purity(splats):
    """Distance of each colour to the nearer of red and blue."""
    return torch.cdist(splats.colors, torch.tensor([RED, BLUE])).amin(dim=1)


@pytest.mark.parametrize("n", [4, 57, 1024])
def test_exactly_n_from_everything(n):
    mesh = ball()
    starts = [
        init_from_mesh(mesh, n),
        init_from_points(cloud_of(mesh), n),
        init_from_splats(init_from_mesh(mesh, 200), n),
        init_random([-1, -1, -1], [1, 1, 1], n),
    ]
    for splats in starts:
        assert len(splats) == n and bool(splats.finite_mask().all())
        assert bool((splats.scales > 0).all())
        assert splats.sh_degree == 0


def test_gaussians_of_a_mesh_lie_flat_on_it_and_evenly():
    splats = init_from_mesh(ball("plain"), 500)
    radii = splats.means.norm(dim=1)
    assert float(radii.min()) > 0.95 and float(radii.max()) <= 1.0001
    along = (normals_of(splats) * splats.means / radii[:, None]).sum(dim=1).abs()
    assert float(along.quantile(0.05)) > 0.97
    assert float((splats.scales.amin(dim=1) / splats.scales.amax(dim=1)).median()) < 0.3
    nearest = cKDTree(splats.means.numpy()).query(splats.means.numpy(), k=2)[0][:, 1]
    random = ball().sample(500, np.random.default_rng(0)).points
    random_nearest = cKDTree(random).query(random, k=2)[0][:, 1]
    assert nearest.std() / nearest.mean() < 0.6 * random_nearest.std() / random_nearest.mean()


def test_the_frame_is_kept():
    splats = init_from_mesh(ball(), 64)
    assert splats.up_axis == "+y" and splats.source == "ball with checks"
    assert init_from_mesh(ball(), 64, sh_degree=2).shN.shape == (64, 8, 3)


def test_size_and_place_of_the_object_do_not_matter():
    part = ball().parts[0]
    far = replace(part, vertices=(part.vertices * 50 + 200).astype(np.float32))
    moved, near = init_from_mesh(Mesh((far,)), 300), init_from_mesh(ball(), 300)
    assert float((moved.means.mean(dim=0) - 200).abs().max()) < 3
    assert float(moved.scales.median() / near.scales.median()) == pytest.approx(50, rel=0.05)


def test_colours_do_not_run_across_an_edge_of_the_texture():
    splats = init_from_mesh(ball("halves"), 400)
    assert float((purity(splats) < 0.05).float().mean()) > 0.9


def test_both_sides_of_a_thin_plate_keep_their_colour():
    splats = init_from_mesh(plate(), 300)
    up = splats.means[:, 1] > 0
    assert 0.35 < float(up.float().mean()) < 0.65
    assert float((purity(splats) < 0.1).float().mean()) > 0.9
    red = splats.colors[:, 0] > splats.colors[:, 2]
    assert float((red == up).float().mean()) > 0.95


def test_gaussians_stay_within_narrow_parts():
    splats = init_from_mesh(stool(), 512)
    legs = splats[splats.means[:, 1] < 0.2]
    nearest = (legs.means[:, [0, 2]].abs() - 0.5).abs().amax(dim=1)
    assert float(nearest.max()) <= 0.051
    rotations = geometry.quat_to_rotmat(legs.quats)
    sideways = ((rotations * legs.scales[:, None, :]) ** 2).sum(dim=2).sqrt()[:, [0, 2]]
    assert float(sideways.amax(dim=1).quantile(0.9)) < 0.1


def test_points_without_normals_get_them_from_their_neighbours():
    splats = init_from_points(cloud_of(ball()), 300)
    along = (normals_of(splats) * torch.nn.functional.normalize(splats.means, dim=1)).sum(dim=1).abs()
    assert float(along.quantile(0.1)) > 0.9
    given = init_from_points(cloud_of(ball(), normals=True), 300)
    assert float((splats.means.norm(dim=1) - 1).abs().max()) < 0.1
    assert float((given.means.norm(dim=1) - 1).abs().max()) < 0.1


def test_points_without_colours_are_grey():
    splats = init_from_points(cloud_of(ball(), colors=False), 64)
    assert torch.allclose(splats.colors, torch.full((64, 3), 0.4), atol=1e-5)


def test_more_gaussians_than_points():
    splats = init_from_points(cloud_of(ball(), 50), 400)
    assert len(splats) == 400 and bool(splats.finite_mask().all())


def test_the_real_point_cloud(real_data):
    from clipgs_lib.formats import read_points

    cloud = read_points(real_data / "pointclouds" / "openshape_owl.ply")
    splats = init_from_points(cloud, 512)
    distance = cKDTree(cloud.points.numpy()).query(splats.means.numpy())[0]
    size = float((cloud.points.amax(dim=0) - cloud.points.amin(dim=0)).norm())
    assert len(splats) == 512 and float(distance.max()) < 0.05 * size


def test_random_fills_the_box():
    splats = init_random([0, 0, 5], [1, 2, 6], 2000)
    low, high = splats.bounds()
    assert torch.allclose(low, torch.tensor([0.0, 0.0, 5.0]), atol=0.05)
    assert torch.allclose(high, torch.tensor([1.0, 2.0, 6.0]), atol=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: init_from_mesh(ball(), 100, seed=seed),
        lambda seed: init_from_points(cloud_of(ball(), 5000), 100, seed=seed),
        lambda seed: init_from_splats(init_from_mesh(ball(), 50), 100, seed=seed),
        lambda seed: init_random([0, 0, 0], [1, 1, 1], 100, seed=seed),
    ],
    ids=["mesh", "points", "splats", "random"],
)
def test_the_same_seed_gives_the_same_gaussians(make):
    first, again, other = make(0), make(0), make(1)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in COLUMNS)
    assert not torch.equal(first.means, other.means)


def test_thinning_is_farthest_point_sampling():
    points = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    chosen = [int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmax())]
    while len(chosen) < 40:
        squares = ((points[:, None].astype(np.float64) - points[chosen]) ** 2).sum(axis=2)
        chosen.append(int(squares.min(axis=1).argmax()))
    assert _thin(points, 40).tolist() == chosen


@pytest.mark.parametrize("n", [0, 3, -1, 2**20 + 1, 10.0, True])
def test_counts_out_of_range_are_refused(n):
    with pytest.raises(ValueError, match=r"n must be a whole number of gaussians in 4\.\."):
        init_from_mesh(ball(), n)


def test_points_that_cannot_be_covered_are_refused():
    for points in (torch.zeros(3, 3), torch.zeros(50, 3), torch.full((50, 3), float("nan"))):
        with pytest.raises(ValueError, match="at least 4 finite points that differ"):
            init_from_points(PointCloud(points, None, None), 16)


@pytest.mark.parametrize("high", [[0, 0, 0], [1, 1, float("nan")], [-1, 1, 1], [1, 1]])
def test_boxes_without_size_are_refused(high):
    with pytest.raises(ValueError, match="the box must have finite corners"):
        init_random([0, 0, 0], high, 16)
