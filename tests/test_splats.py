"""The container: validation, choosing, moving."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from clipgs_lib import geometry
from clipgs_lib.splats import COLUMNS, Splats
from tests.conftest import make_splats


def covariances(splats: Splats) -> torch.Tensor:
    axes = geometry.quat_to_rotmat(splats.quats) * splats.scales[:, None, :]
    return axes @ axes.transpose(1, 2)  # [N, 3, 3]


def columns(splats: Splats) -> dict:
    return {name: getattr(splats, name) for name in COLUMNS}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"means": torch.zeros(100, 2)}, ValueError, r"means must have shape \[N, 3\], got \[100, 2\]"),
        ({"quats": torch.zeros(100, 3)}, ValueError, r"quats must have shape \[N, 4\].*point-cloud PLY"),
        ({"quats": torch.zeros(99, 4)}, ValueError, r"with N = 100 as in means, got \[99, 4\]"),
        ({"shN": torch.zeros(100, 5, 3)}, ValueError, "K-1 in 0, 3, 8, 15"),
        ({"sh0": torch.zeros(100, 3)}, ValueError, r"sh0 must have shape \[N, 1, 3\]"),
        ({"opacities": torch.full((100,), 2.5)}, ValueError, "are these logits"),
        ({"scales": torch.full((100, 3), -4.0)}, ValueError, "are these log-scales"),
        ({"means": torch.zeros(100, 3, dtype=torch.float64)}, TypeError, "float32 torch tensor.*float64"),
        ({"means": [[0.0, 0.0, 0.0]] * 100}, TypeError, "float32 torch tensor.*list"),
        ({"up_axis": "y"}, ValueError, "up_axis must be one of"),
        ({"opacities": torch.zeros(100, device="meta")}, ValueError, r"device of means \(cpu\), got meta"),
    ],
)
def test_what_must_hold_is_said(change, error, message):
    with pytest.raises(error, match=message):
        Splats(**{**columns(make_splats(100)), **change})


def test_non_finite_rows_are_kept_counted_and_pruned():
    base = columns(make_splats(10))
    base["means"][2, 1] = math.nan
    base["opacities"][3] = math.nan
    base["quats"][4] = 0
    base["opacities"][5] = 0.001
    base["scales"][6] = 0
    splats = Splats(**base)
    assert "2 not finite" in repr(splats)
    kept, report = splats.prune()
    assert report == (2, 1, 2, 5)
    assert report.removed == 5
    assert str(report).startswith("kept 5, removed 5")
    assert torch.equal(kept.means, splats.means[[0, 1, 7, 8, 9]])


def test_a_notebook_shows_a_table():
    shown = replace(make_splats(1200, degree=2), source="<b>.ply", up_axis="+y")._repr_html_()
    assert "<b>&lt;b&gt;.ply</b>" in shown and "Splats(" not in shown
    for fact in ("1,200", "2", "+y", "cpu"):
        assert f">{fact}</td>" in shown
    assert "extent" in shown and "extent" not in make_splats(10)[[]]._repr_html_()


def test_prune_of_clean_splats_returns_the_same_object():
    splats = make_splats(10)
    assert splats.prune()[0] is splats


def test_indexing():
    splats = make_splats(10, degree=1)
    assert len(splats[3]) == 1
    assert torch.equal(splats[-1].means, splats.means[9:])
    assert torch.equal(splats[2:5].quats, splats.quats[2:5])
    assert torch.equal(splats[[4, 1]].shN, splats.shN[[4, 1]])
    assert len(splats[[]]) == 0
    mask = splats.opacities > 0.5
    assert torch.equal(splats[mask].opacities, splats.opacities[mask])
    assert "0 gaussians" in repr(splats[[]])
    with pytest.raises(IndexError, match="out of range for 10"):
        splats[10]
    with pytest.raises(IndexError, match=r"mask must have shape \[10\]"):
        splats[torch.ones(9, dtype=torch.bool)]


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        make_splats(3).means = torch.zeros(3, 3)


def test_cat_pads_degrees_and_joins_names():
    a, b = make_splats(3, degree=0), make_splats(4, degree=2, seed=1)
    both = Splats.cat([a, b])
    assert len(both) == 7
    assert both.sh_degree == 2
    assert (both.shN[:3] == 0).all()
    assert torch.equal(both.shN[3:], b.shN)
    with pytest.raises(ValueError, match="at least one"):
        Splats.cat([])


def test_with_sh_degree_drops_and_pads():
    splats = make_splats(5, degree=3)
    assert torch.equal(splats.with_sh_degree(1).shN, splats.shN[:, :3])
    assert torch.equal(splats.with_sh_degree(1).with_sh_degree(3).shN[:, :3], splats.shN[:, :3])
    with pytest.raises(ValueError, match="degree must be"):
        splats.with_sh_degree(4)


def test_colors_round_trip():
    colors = torch.rand(6, 3)
    s = make_splats(6)
    made = Splats.from_colors(s.means, colors, quats=s.quats, scales=s.scales, opacities=s.opacities)
    assert torch.allclose(made.colors, colors, atol=1e-6)


@pytest.mark.parametrize("replacement", [False, True])
def test_subsample_gives_exactly_n_repeatably_and_prefers_what_is_seen(replacement):
    splats = make_splats(2000)
    opacities = splats.opacities.clone()
    opacities[:1000] = 0.01
    splats = Splats(**{**columns(splats), "opacities": opacities})
    some = splats.subsample(300, seed=4, replacement=replacement)
    assert len(some) == 300
    assert torch.equal(some.means, splats.subsample(300, seed=4, replacement=replacement).means)
    assert not torch.equal(some.means, splats.subsample(300, seed=5, replacement=replacement).means)
    assert (some.opacities > 0.02).float().mean() > 0.9
    if not replacement:
        assert len(torch.unique(some.means, dim=0)) == 300


def test_subsample_limits():
    splats = make_splats(10)
    assert torch.equal(splats.subsample(10).means, splats.means)
    assert len(splats.subsample(25, replacement=True)) == 25
    with pytest.raises(ValueError, match="replacement=True"):
        splats.subsample(11)
    with pytest.raises(ValueError, match="n >= 1"):
        splats.subsample(0)


def test_subsample_follows_its_weights():
    """With two kinds of equal size, one weighing nine times the other, draws go nine to one."""
    base = columns(make_splats(20000))
    base["scales"] = torch.full((20000, 3), 0.1)
    base["opacities"] = torch.where(torch.arange(20000) % 2 == 0, 0.9, 0.1)
    share = float((Splats(**base).subsample(400, seed=1).opacities > 0.5).float().mean())
    assert share == pytest.approx(0.9, abs=0.05)


def similarity(scale: float = 1.7, mirrored: bool = False) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    quat = torch.tensor([0.3, -0.5, 0.7, 0.4], dtype=torch.float64)
    matrix[:3, :3] = scale * geometry.quat_to_rotmat(quat)
    if mirrored:
        matrix[:3, 0] *= -1
    matrix[:3, 3] = torch.tensor([0.2, -1.0, 3.0], dtype=torch.float64)
    return matrix


@pytest.mark.parametrize("mirrored", [False, True])
def test_transform_carries_means_covariances_and_colours(mirrored):
    splats, matrix = make_splats(60, degree=3), similarity(mirrored=mirrored)
    moved = splats.transform(matrix, allow_reflection=True)
    linear = matrix[:3, :3].float()
    assert torch.allclose(moved.means, splats.means @ linear.T + matrix[:3, 3].float(), atol=1e-5)
    assert torch.allclose(covariances(moved), linear @ covariances(splats) @ linear.T, atol=1e-6)
    direction = torch.nn.functional.normalize(torch.randn(60, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    turned = direction @ (linear / 1.7).T
    before = torch.einsum("nk,nkc->nc", geometry.sh_basis(direction, 3), splats.sh)
    after = torch.einsum("nk,nkc->nc", geometry.sh_basis(turned, 3), moved.sh)
    assert torch.allclose(before, after, atol=1e-5)


def test_reflections_have_to_be_asked_for():
    with pytest.raises(ValueError, match="mirrors the object"):
        make_splats(3).transform(similarity(mirrored=True))


def test_inverse_transform_restores():
    splats, matrix = make_splats(40, degree=2), similarity()
    back = splats.transform(matrix).transform(torch.linalg.inv(matrix))
    assert torch.allclose(back.means, splats.means, atol=1e-5)
    assert torch.allclose(back.shN, splats.shN, atol=1e-5)
    assert torch.allclose(covariances(back), covariances(splats), atol=1e-6)


def test_up_axis_turns_with_the_object():
    splats = Splats(**columns(make_splats(3)), up_axis="+z")
    assert splats.rotate("x", -90).up_axis == "+y"
    assert splats.rotate("x", 90).up_axis == "-y"
    assert splats.rotate("z", 33).up_axis == "+z"
    assert splats.rotate("x", 33).up_axis == "unknown"


def test_transform_keeps_gradients():
    base = columns(make_splats(5, degree=1))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in base.items()}
    moved = Splats(**leaves).transform(similarity())
    sum(getattr(moved, name).square().sum() for name in COLUMNS).backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves.values())


def test_normalize_fits_the_unit_sphere_and_ignores_floaters_when_asked():
    splats = make_splats(1000)
    unit = splats.normalize()
    assert float(unit.means.norm(dim=1).max()) == pytest.approx(1.0, abs=1e-5)
    ratio = unit.scales / splats.scales
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-5)
    means = splats.means.clone()
    means[:3] = torch.tensor([500.0, 0.0, 0.0])
    robust = Splats(**{**columns(splats), "means": means}).normalize(quantile=0.01)
    assert 0.9 < float(robust.means[3:].norm(dim=1).max()) < 1.6
    assert float(robust.means[:3].norm(dim=1).min()) > 50
    with pytest.raises(ValueError, match="two different centres"):
        splats[[0, 0]].normalize()


def test_bounds_ignore_non_finite_and_check_the_quantile():
    base = columns(make_splats(10))
    base["means"][0] = math.inf
    low, high = Splats(**base).bounds()
    assert torch.equal(low, base["means"][1:].amin(0))
    assert torch.equal(high, base["means"][1:].amax(0))
    with pytest.raises(ValueError, match="quantile"):
        Splats(**base).bounds(0.5)
    with pytest.raises(ValueError, match="finite centre"):
        Splats(**base)[[0]].bounds()


def test_detach_and_to():
    base = columns(make_splats(3))
    base["means"].requires_grad_()
    splats = Splats(**base)
    assert not splats.detach().means.requires_grad
    assert torch.equal(splats.to("cpu").means, splats.means)
