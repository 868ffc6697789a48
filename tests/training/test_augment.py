"""Changed splats stay physical."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipgs_lib import geometry
from clipgs_lib.training import AugmentConfig, augment

from ..conftest import make_splats

QUIET = {"turn": False, "size": 1.0, "jitter": 0.0, "drop": 0.0, "no_color": 0.0}


def covariances(splats):
    axes = geometry.quat_to_rotmat(splats.quats) * splats.scales[:, None]
    return axes @ axes.transpose(1, 2)


def splats_up(axis: str = "+z", count: int = 200):
    from dataclasses import replace

    return replace(make_splats(count), up_axis=axis)


@pytest.mark.parametrize("axis", ["+x", "-y", "+z"])
def test_a_turn_carries_means_and_covariances_and_keeps_the_up_axis(axis):
    before = splats_up(axis)
    after = augment(before, np.random.default_rng(0), AugmentConfig(**QUIET | {"turn": True}))
    turn = torch.linalg.lstsq(before.means, after.means).solution.T
    assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-5) and torch.linalg.det(turn) > 0
    up = torch.eye(3)["xyz".index(axis[1])]
    assert torch.allclose(turn @ up, up, atol=1e-5) and not torch.allclose(turn, torch.eye(3), atol=1e-2)
    assert torch.allclose(covariances(after), turn @ covariances(before) @ turn.T, atol=1e-6)


def test_a_change_of_size_carries_the_scales():
    before = splats_up()
    after = augment(before, np.random.default_rng(1), AugmentConfig(**QUIET | {"size": 1.5}))
    factor = float(after.means.norm() / before.means.norm())
    assert 1 / 1.5 <= factor <= 1.5 and abs(factor - 1) > 0.01
    assert torch.allclose(after.scales, before.scales * factor)
    assert torch.equal(after.quats, before.quats)


def test_jitter_is_bounded_and_moves_centres_only():
    before = splats_up()
    after = augment(before, np.random.default_rng(2), AugmentConfig(**QUIET | {"jitter": 0.01}))
    moved = (after.means - before.means).abs()
    assert 0 < float(moved.max()) <= 0.03 + 1e-6
    assert torch.equal(after.scales, before.scales) and torch.equal(after.sh0, before.sh0)


def test_dropping_keeps_whole_gaussians_and_at_least_some():
    before = splats_up(count=100)
    config = AugmentConfig(**QUIET | {"drop": 0.9, "keep": 50})
    counts = set()
    for seed in range(8):
        after = augment(before, np.random.default_rng(seed), config)
        rows = (before.means[None] == after.means[:, None]).all(dim=2).nonzero()[:, 1]
        assert torch.equal(before.scales[rows], after.scales) and torch.equal(rows, rows.sort().values)
        counts.add(len(after))
    assert min(counts) == 50 and len(counts) > 2


def test_colour_is_dropped_for_the_object_as_a_whole():
    config = AugmentConfig(**QUIET | {"no_color": 0.5})
    seen = set()
    for seed in range(12):
        after = augment(splats_up(), np.random.default_rng(seed), config)
        gone = torch.allclose(after.colors, torch.tensor(0.4))
        assert gone or torch.equal(after.sh0, splats_up().sh0)
        seen.add(gone)
    assert seen == {True, False}


def test_without_a_known_up_axis_nothing_turns():
    before = splats_up("unknown")
    assert torch.equal(
        augment(before, np.random.default_rng(0), AugmentConfig(**QUIET | {"turn": True})).means, before.means
    )


def test_the_same_seed_gives_the_same_change():
    first, second = (augment(splats_up(), np.random.default_rng(5), AugmentConfig()) for _ in range(2))
    assert torch.equal(first.means, second.means) and torch.equal(first.quats, second.quats)


@pytest.mark.parametrize("wrong", [{"size": 0.5}, {"drop": 1.0}, {"jitter": -1}, {"no_color": 2}, {"keep": 0}])
def test_impossible_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f"augment: {next(iter(wrong))}"):
        AugmentConfig(**wrong)
