"""Farthest points and nearest neighbours: kernels against slow references, invariances, odd clouds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipgs_lib.geometry import farthest_points, nearest, points_within
from clipgs_lib.geometry.sampling import _farthest_any_device, _nearest_any_device


def cloud(batch: int, n: int, seed: int = 0) -> torch.Tensor:
    """Points near ellipsoids ``[B, N, 3]``, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(batch, n, 3, generator=generator), dim=-1)
    return directions * torch.tensor([1.0, 0.5, 0.7]) + 0.01 * torch.randn(batch, n, 3, generator=generator) + 3


def naive_farthest(points: torch.Tensor, count: int) -> list[int]:
    """Farthest points of one cloud ``[N, 3]`` in float64, one after the other."""
    points = points.double()
    chosen = [int((points - points.mean(dim=0)).square().sum(dim=1).argmax())]
    while len(chosen) < count:
        distances = (points[:, None] - points[chosen]).square().sum(dim=2).amin(dim=1)
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
    return chosen


@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 64, 500])
def test_farthest_points_equal_the_naive_loop(n):
    points = cloud(2, n)
    count = min(n, 60)
    assert farthest_points(points, count).tolist() == [naive_farthest(part, count) for part in points]


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (33, 32), (64, 64), (700, 40)])
def test_neighbours_equal_those_of_all_distances(n, k):
    points = cloud(2, n)
    centers = torch.cat([points[:, : min(n, 9)], cloud(2, 5, seed=1) + 0.5], dim=1)  # also some outside of the cloud
    distances = torch.cdist(centers.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(nearest(points, centers, k), distances.topk(k, dim=2, largest=False).indices)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_kernels_equal_plain_tensor_operations(data):
    """Small whole coordinates, so that distances tie, points coincide and boxes touch."""
    batch, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 120))
    side, width = data.draw(st.integers(0, 6)), data.draw(st.sampled_from([1, 2, 3, 3, 3, 5]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    points = torch.randint(-side, side + 1, (batch, n, width), generator=generator).float()
    mask = torch.rand(batch, n, generator=generator) < data.draw(st.sampled_from([0.2, 0.7, 1.0]))
    mask[:, data.draw(st.integers(0, n - 1))] = True
    points[~mask] = torch.nan
    count = data.draw(st.integers(1, 140))
    chosen = farthest_points(points, count, mask=mask)
    assert torch.equal(chosen, _farthest_any_device(points, mask, count))
    centers = points.gather(1, chosen[..., None].expand(-1, -1, width))
    k = data.draw(st.integers(1, 140))
    assert torch.equal(nearest(points, centers, k, mask=mask), _nearest_any_device(points, centers, k, mask))


@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
def test_permuted_points_give_permuted_results(grid):
    axis = torch.arange(7.0)
    points = torch.cartesian_prod(axis, axis, axis)[None] if grid else cloud(1, 343)
    shuffle = torch.randperm(343, generator=torch.Generator().manual_seed(5))
    first, second = farthest_points(points, 50), farthest_points(points[:, shuffle], 50)
    assert torch.equal(first, shuffle[second])
    centers = points[:, first[0]]
    assert torch.equal(nearest(points, centers, 9), shuffle[nearest(points[:, shuffle], centers, 9)])


def test_no_point_is_chosen_twice_where_points_coincide():
    points = cloud(1, 40).repeat(1, 5, 1)
    chosen = farthest_points(points, 200)[0]
    assert torch.equal(chosen.sort().values, torch.arange(200))
    assert len({tuple(row) for row in points[0, chosen[:40]].tolist()}) == 40  # places first, then the copies
    near = nearest(points, points[:, :3], 5)
    assert torch.equal(near % 40, torch.arange(3)[None, :, None].expand(1, 3, 5))


def test_too_few_points_repeat():
    points, mask = cloud(2, 10), torch.zeros(2, 10, dtype=torch.bool)
    mask[0, [2, 5, 7]], mask[1] = True, True
    chosen = farthest_points(points, 8, mask=mask)
    assert chosen[0, :3].sort().values.tolist() == [2, 5, 7]
    assert torch.equal(chosen[0], chosen[0, torch.arange(8) % 3])
    near = nearest(points, points[:, :2], 6, mask=mask)
    assert near[0, 0, :3].sort().values.tolist() == [2, 5, 7] and (near[0, 0, 3:] == near[0, 0, 0]).all()
    assert torch.equal(chosen[1], farthest_points(points[1:], 8)[0])


def test_spread_of_farthest_points_covers_the_cloud():
    points = cloud(1, 2000)
    chosen = points[0, farthest_points(points, 64)[0]]
    drawn = points[0, torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:64]]
    reach = [torch.cdist(points[0], few).amin(dim=1).max() for few in (chosen, drawn)]
    assert reach[0] < 0.6 * reach[1]


def test_distances_are_of_real_differences():
    """Far from the origin, where ``|a|^2 + |b|^2 - 2ab`` in float32 has no digits left."""
    points = cloud(1, 300) + 1000
    exact = torch.cdist(points.double(), points.double()).topk(8, dim=2, largest=False).indices
    assert torch.equal(nearest(points, points, 8), exact)


def test_any_number_of_threads_gives_the_same(monkeypatch):
    points = cloud(4, 300)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        chosen = farthest_points(points, 32)
        results.append((chosen, nearest(points, points[:, :20], 7)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_features_of_any_width():
    points = torch.randn(1, 200, 9, generator=torch.Generator().manual_seed(0))
    assert farthest_points(points, 40)[0].tolist() == naive_farthest(points[0], 40)


def test_what_cannot_be_sampled_is_refused():
    points, bad = torch.zeros(2, 5, 3), torch.zeros(2, 5, 3)
    bad[1, 2, 0] = torch.nan
    bad[1, 3, 1] = 1e30
    with pytest.raises(ValueError, match=r"points must be finite and below 1e\+18 where the mask holds, got 2"):
        farthest_points(bad, 3)
    with pytest.raises(ValueError, match="centers must be finite"):
        nearest(points, bad, 3)
    with pytest.raises(ValueError, match=r"at least one valid point, got none in \[1\]"):
        farthest_points(points, 3, mask=torch.tensor([[True] * 5, [False] * 5]))
    with pytest.raises(ValueError, match=r"points must have shape \[B, N, 3\], got \[5, 3\]"):
        farthest_points(points[0], 3)
    with pytest.raises(TypeError, match=r"float32 tensor of shape \[B, N, 3\], got torch\.float64"):
        farthest_points(points.double(), 3)
    with pytest.raises(ValueError, match=r"mask must be bool of shape \[2, 5\]"):
        farthest_points(points, 3, mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"centers must have shape \[2, G, 3\]"):
        nearest(points, torch.zeros(1, 4, 3), 3)
    for function in (lambda: farthest_points(points, 0), lambda: nearest(points, points, 0)):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            function()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same():
    points = cloud(3, 800)
    mask = torch.rand(3, 800, generator=torch.Generator().manual_seed(0)) < 0.8
    chosen = farthest_points(points, 64, mask=mask)
    assert torch.equal(farthest_points(points.cuda(), 64, mask=mask.cuda()).cpu(), chosen)
    centers = points.gather(1, chosen[..., None].expand(-1, -1, 3))
    near = nearest(points.cuda(), centers.cuda(), 16, mask=mask.cuda())
    assert torch.equal(near.cpu(), nearest(points, centers, 16, mask=mask))


def test_points_within_gaussians_follow_their_axes_and_are_cut_at_two_scales():
    count = 4000
    quats = torch.tensor([0.5, 0.5, 0.5, 0.5]).repeat(count, 1)  # x goes to y, y to z, z to x
    scales = torch.tensor([1.0, 0.1, 0.0]).repeat(count, 1)
    points = points_within(torch.full((count, 3), 7.0), quats, scales, seed=1) - 7
    assert float(points[:, 0].abs().max()) < 1e-5  # the thin axis
    assert float(points[:, 1].abs().max()) == pytest.approx(2.0, abs=1e-3)
    torch.testing.assert_close(points.std(dim=0), torch.tensor([0.0, 0.96, 0.096]), atol=0.03, rtol=0)
    again = points_within(torch.full((count, 3), 7.0), -quats, scales, seed=1) - 7  # the same rotation
    torch.testing.assert_close(again, points)
    assert not torch.allclose(points_within(torch.zeros(count, 3), quats, scales), points)
