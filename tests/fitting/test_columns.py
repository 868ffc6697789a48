"""The pieces of a fit: the loss beside `rendering.ssim`, Adam beside torch's, parameters, relocation, settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clipgs_lib.fitting import FitConfig, init_from_mesh
from clipgs_lib.fitting.columns import MEANS, OPACITY, SCALES, Adam, activate, confine, pack, relocate, unpack
from clipgs_lib.fitting.supervision import Scene, photometric_loss, split_views
from clipgs_lib.rendering import render, ssim
from clipgs_lib.splats import COLUMNS
from tests.conftest import make_splats
from tests.fitting.fitting_scenes import ball, cameras_about, opaque


def pair(*shape):
    g = torch.Generator().manual_seed(4)
    x = torch.rand(*shape, generator=g)
    return x.requires_grad_(), (0.7 * x.detach() + 0.3 * torch.rand(*shape, generator=g))


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (3, 21, 37, 3), (2, 1, 40, 3), (1, 4, 3, 3)])
def test_the_loss_and_its_gradient_agree_with_the_measure(shape):
    x, y = pair(*shape)
    fast = photometric_loss(x, y, 0.2)
    slow = (x - y).abs().mean() + 0.2 * (1 - ssim(x, y)).mean()
    assert float(fast.detach()) == pytest.approx(float(slow.detach()), rel=1e-5)
    (got,), (want,) = torch.autograd.grad(3 * fast, x), torch.autograd.grad(3 * slow, x)
    assert torch.allclose(got, want, atol=2e-5 * float(want.abs().max()))


def test_the_loss_of_equal_pictures_is_nothing():
    x, _ = pair(1, 32, 32, 3)
    loss = photometric_loss(x, x.detach().clone(), 0.2)
    (gradient,) = torch.autograd.grad(loss, x)
    assert abs(float(loss.detach())) < 1e-6 and float(gradient.abs().max()) < 1e-6


def test_without_ssim_the_loss_is_l1():
    x, y = pair(2, 8, 8, 3)
    assert torch.equal(photometric_loss(x, y, 0.0), (x - y).abs().mean())


def test_threads_do_not_change_the_loss():
    x, y = pair(4, 33, 20, 3)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            loss = photometric_loss(x, y, 0.2)
            results.append((loss, *torch.autograd.grad(loss, x)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("degree", [0, 2])
def test_parameters_and_splats_are_two_ways_to_say_one_thing(degree):
    splats = make_splats(50, degree)
    back = unpack(pack(splats, 1.0), splats)
    for name in COLUMNS:
        assert torch.allclose(getattr(back, name), getattr(splats, name), atol=1e-5), name


def test_adam_steps_as_torch_does():
    start = torch.randn(20, 14, generator=torch.Generator().manual_seed(0))
    ours, theirs = start.clone(), start.clone().requires_grad_()
    rates = torch.full((14,), 0.01)
    adam, peer = Adam(ours, rates), torch.optim.Adam([theirs], lr=0.01, eps=1e-15)
    for i in range(5):
        gradient = torch.randn(20, 14, generator=torch.Generator().manual_seed(i + 1))
        adam.step(gradient, 1.0)
        theirs.grad = gradient.clone()
        peer.step()
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_rates_are_by_column_and_means_have_a_factor():
    parameters = torch.zeros(4, 14)
    rates = torch.arange(14.0)
    Adam(parameters, rates).step(torch.ones(4, 14), 0.5)
    want = -rates.clone()
    want[MEANS] *= 0.5
    assert torch.allclose(parameters, want.expand(4, 14), atol=1e-5)


def test_cleared_rows_forget():
    adam = Adam(torch.zeros(3, 14), torch.ones(14))
    adam.step(torch.ones(3, 14), 1.0)
    adam.clear(torch.tensor([1]))
    assert bool((adam.first[1] == 0).all() & (adam.second[1] == 0).all()) and bool((adam.first[0] != 0).all())


def test_confined_parameters_stay_finite():
    parameters = torch.full((2, 14), 1e4)
    parameters[1] = -1e4
    confine(parameters, 2.0)
    columns = activate(parameters)
    assert float(unpack(parameters, make_splats(2)).colors.min()) >= 0
    assert float(columns.scales.max()) == pytest.approx(2.0) and float(columns.scales.min()) == pytest.approx(2e-5)
    assert float(columns.opacities.min()) > 0 and float(columns.opacities.max()) < 1


def test_visibility_counts_the_pixels_that_a_gaussian_makes_up():
    splats = make_splats(60)
    black = unpack(pack(splats, 3.0), splats)
    black.sh0.fill_(-3.0)  # below black, where colours get no gradient
    cameras = cameras_about(5)
    alphas = render(black, *cameras).alphas
    scene = Scene.of([(torch.zeros(5, 48, 48, 3), torch.zeros(5, 48, 48, 1), cameras)], (0.0, 0.0, 0.0), black.device)
    columns = activate(pack(black, 3.0)[None])
    visible = scene.visibility(columns)[0]
    assert float(visible.sum()) == pytest.approx(float(alphas.sum()), rel=1e-4)
    hidden = columns._replace(opacities=columns.opacities.index_fill(1, torch.tensor([7]), 0.0))
    assert float(scene.visibility(hidden)[0, 7]) == 0 < float(visible[7])


def relocated(parameters, error, seen=None, seed=0):
    seen = torch.ones(len(parameters), dtype=torch.bool) if seen is None else seen
    generator = torch.Generator().manual_seed(seed)
    return relocate(parameters, error, seen, dead_opacity=0.02, generator=generator)


def test_relocation_moves_the_dead_to_the_error_and_keeps_n():
    parameters = pack(make_splats(40), 3.0)
    parameters[:, OPACITY] = 1.0
    parameters[:5, OPACITY] = -6.0  # 0.002
    parameters[5, MEANS] = float("nan")
    seen = torch.ones(40, dtype=torch.bool)
    seen[6] = False
    error = torch.zeros(40)
    error[20:30] = 1.0
    before = parameters.clone()
    rows = relocated(parameters, error, seen)
    assert len(parameters) == 40 and bool(parameters.isfinite().all())
    dead, donors = rows[:7], rows[7:]
    assert dead.tolist() == list(range(7))
    assert len(set(donors.tolist())) == 7 and int(donors.min()) >= 20 and int(donors.max()) < 30
    middle = (parameters[dead, MEANS] + parameters[donors, MEANS]) / 2
    assert torch.allclose(middle, before[donors, MEANS], atol=1e-5)
    assert bool((parameters[dead, MEANS] != parameters[donors, MEANS]).any(dim=1).all())
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[rows] = False
    assert torch.equal(parameters[untouched], before[untouched])


def test_a_split_hardly_changes_the_picture():
    splats = opaque(init_from_mesh(ball(), 150), 0.7)
    parameters = pack(splats, 1.0)
    lost = torch.arange(150) < 10
    parameters[lost, OPACITY] = -8.0
    camera = cameras_about(4)
    before = render(unpack(parameters, splats), *camera).colors
    relocated(parameters, torch.where(lost, 0.0, 1.0))
    after = render(unpack(parameters, splats), *camera).colors
    assert float((after - before).abs().mean()) < 0.01


def test_nothing_is_relocated_without_dead_or_without_error():
    parameters = pack(make_splats(10), 3.0)
    parameters[:, OPACITY] = 1.0
    assert len(relocated(parameters, torch.ones(10))) == 0
    parameters[:, OPACITY] = -8.0
    before = parameters.clone()
    assert len(relocated(parameters, torch.ones(10))) == 0 and torch.equal(parameters, before)


def test_more_dead_than_living_share_what_there_is():
    parameters = pack(make_splats(10), 3.0)
    parameters[:, OPACITY] = -8.0
    parameters[:3, OPACITY] = 1.0
    rows = relocated(parameters, torch.ones(10))
    assert len(rows) == 6 and bool(parameters.isfinite().all())


def test_relocation_shortens_the_longest_axis_only():
    parameters = pack(make_splats(2), 3.0)
    parameters[0, OPACITY], parameters[1, OPACITY] = -8.0, 0.0
    parameters[1, SCALES] = torch.tensor([0.1, 0.4, 0.2]).log()
    relocated(parameters, torch.ones(2))
    assert torch.allclose(parameters[1, SCALES].exp(), torch.tensor([0.1, 0.4 * 0.75**0.5, 0.2]))


@pytest.mark.parametrize(
    ("count", "holdout", "held"), [(12, 6, [3, 9]), (2, 6, [1]), (3, 2, [1]), (36, 12, [6, 18, 30]), (2, 2, [1])]
)
def test_views_are_split(count, holdout, held):
    test, train = split_views(count, holdout)
    assert test == held and sorted(test + train) == list(range(count)) and train


@pytest.mark.parametrize("count", [0, 1])
def test_one_view_is_too_few(count):
    with pytest.raises(ValueError, match="at least 2 views, one to train on and one to measure"):
        split_views(count, 6)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"iterations": -1}, "iterations must be a whole number >= 0"),
        ({"iterations": 1.5}, "iterations must be a whole number >= 0"),
        ({"holdout": 1}, "holdout must be a whole number >= 2"),
        ({"sh_degree": 4}, "sh_degree must be 0, 1, 2 or 3"),
    ],
)
def test_settings_out_of_range_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        replace(FitConfig(), **setting)
