"""Whole fits on small textured objects."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from clipgs_lib.fitting import (
    FitConfig,
    fit,
    fit_many,
    init_from_mesh,
    init_from_points,
    init_from_splats,
    init_random,
    mesh_fits,
    mesh_job,
    optimise,
    splat_job,
)
from clipgs_lib.fitting.supervision import split_views
from clipgs_lib.meshes import Mesh
from clipgs_lib.rendering import Cameras, MeshViews, psnr, render, render_views
from clipgs_lib.splats import COLUMNS, Splats
from tests.fitting.fitting_scenes import Views, ball, cameras_about, ground_truth, opaque, stool, views_of
from tests.fitting.test_starts import cloud_of

SHORT = FitConfig(iterations=60, check_every=30, relocate_every=30)


@cache
def truth(name: str = "checks") -> MeshViews:
    return ground_truth(stool() if name == "stool" else ball(name), cameras_about())


def start(n: int = 250, name: str = "checks") -> Splats:
    return init_from_mesh(stool() if name == "stool" else ball(name), n)


def same(a: Splats, b: Splats) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in COLUMNS)


@pytest.mark.parametrize(("name", "least"), [("checks", 21), ("stripes", 21), ("dots", 21), ("stool", 25)])
def test_a_fit_of_few_gaussians_improves_on_its_start(name, least):
    result = fit(truth(name), cameras_about(), start(name=name), FitConfig(iterations=150))
    assert result.psnr > least and result.ssim > 0.85
    assert result.psnr > fit(truth(name), cameras_about(), start(name=name), FitConfig(iterations=0)).psnr + 3
    assert len(result.splats) == 250 and bool(result.splats.finite_mask().all())
    assert result.iterations == 150
    assert result.splats.up_axis == "+y"


def test_what_gaussians_can_show_is_found_again():
    """The target is made of as many gaussians; the start has other places, sizes and colours."""
    goal, g = opaque(init_from_mesh(stool(), 150), 0.95), torch.Generator().manual_seed(0)
    noisy = Splats(
        goal.means + 0.02 * torch.randn(150, 3, generator=g), goal.quats,
        goal.scales * torch.exp(0.3 * torch.randn(150, 3, generator=g)), 0.8 * goal.opacities,
        goal.sh0 + 0.5 * torch.randn(150, 1, 3, generator=g), goal.shN,
    )  # fmt: skip
    result = fit(views_of(goal, cameras_about()), cameras_about(), noisy, FitConfig(iterations=250))
    assert result.curve[0].psnr < 25 and result.psnr > 35 and result.ssim > 0.99


def test_the_reported_psnr_is_that_of_the_held_out_views():
    cameras = cameras_about()
    result = fit(truth(), cameras, start(), SHORT)
    held, _ = split_views(14, SHORT.holdout)
    picture = render(result.splats, cameras.viewmats[held], cameras.Ks[held], 48, 48, background=(1.0, 1.0, 1.0))
    assert result.psnr == pytest.approx(float(psnr(picture.colors.clamp(0, 1), truth().colors[held]).mean()), abs=0.02)


def test_held_out_views_teach_nothing():
    held, _ = split_views(14, SHORT.holdout)
    colors, alphas = truth().colors.clone(), truth().alphas.clone()
    colors[held], alphas[held] = 0.0, 1.0
    honest, poisoned = (fit(views, cameras_about(), start(), SHORT) for views in (truth(), Views(colors, alphas)))
    assert same(honest.splats, poisoned.splats)
    assert poisoned.psnr < honest.psnr - 10


def test_a_seed_decides_everything():
    first, again = (fit(truth(), cameras_about(), start(), SHORT) for _ in range(2))
    other = fit(truth(), cameras_about(), start(), FitConfig(iterations=60, seed=1))
    assert same(first.splats, again.splats) and first.psnr == again.psnr
    assert not same(first.splats, other.splats)


def test_the_initial_gaussians_and_the_threads_are_left_alone():
    init, threads = start(), torch.get_num_threads()
    before = [getattr(init, name).clone() for name in COLUMNS]
    fit(truth(), cameras_about(), init, FitConfig(iterations=5, threads=threads + 1))
    assert all(torch.equal(getattr(init, name), old) for name, old in zip(COLUMNS, before, strict=True))
    assert torch.get_num_threads() == threads


def test_the_curve_has_a_point_for_every_check():
    result = fit(truth(), cameras_about(), start(), FitConfig(iterations=50, check_every=20))
    assert [point.iteration for point in result.curve] == [0, 20, 40, 50]
    assert result.curve[0].psnr < result.curve[-1].psnr and result.seconds == result.curve[-1].seconds


def test_relocation_brings_dead_gaussians_back():
    init = start(300)
    opacities = init.opacities.clone()
    opacities[torch.arange(300) % 3 > 0] = 1e-3
    crippled = Splats(init.means, init.quats, init.scales, opacities, init.sh0, init.shN)
    with_it, without = (
        fit(truth(), cameras_about(), crippled, FitConfig(iterations=160, relocate_every=every)) for every in (40, 0)
    )
    alive = [int((result.splats.opacities > 0.05).sum()) for result in (with_it, without)]
    assert len(with_it.splats) == 300 and bool(with_it.splats.finite_mask().all())
    assert alive[0] > alive[1] + 60
    assert with_it.psnr > without.psnr


def test_relocation_does_not_take_black_gaussians_for_dead():
    """Regression: black parts lost their gaussians, since clamped colours get no gradient."""
    black = Mesh(tuple(replace(part, base_color=(0.0, 0.0, 0.0, 1.0)) for part in stool().parts), up_axis="+y")
    views = ground_truth(black, cameras_about())
    scores = [
        fit(views, cameras_about(), init_from_mesh(black, 250), FitConfig(iterations=120, relocate_every=every)).psnr
        for every in (30, 0)
    ]
    assert scores[0] > scores[1] - 0.5


def test_from_points_and_at_random():
    points = init_from_points(cloud_of(ball()), 250)
    random = init_random([-1, -1, -1], [1, 1, 1], 250)
    config = FitConfig(iterations=150)
    scores = [fit(truth(), cameras_about(), init, config).psnr for init in (start(), points, random)]
    assert scores[0] > scores[2] + 3 and scores[1] > scores[2] and scores[2] > 15


def test_the_background_of_the_views_does_not_matter():
    black = render_views(ball(), cameras_about(), light=0.0, background=(0.0, 0.0, 0.0))
    on_black = fit(black, cameras_about(), start(), FitConfig(iterations=60, background=(0.0, 0.0, 0.0)))
    on_white = fit(truth(), cameras_about(), start(), FitConfig(iterations=60))
    assert float((on_black.splats.means - on_white.splats.means).abs().median()) < 2e-3
    assert on_black.psnr > 19


def test_holes_stay_open():
    """Between the legs of the stool there is nothing, over any background."""
    result = fit(truth("stool"), cameras_about(), start(name="stool"), FitConfig(iterations=150))
    alphas = render(result.splats, *cameras_about()).alphas[..., 0]
    covered = torch.nn.functional.max_pool2d(truth("stool").alphas, 5, stride=1, padding=2) > 0
    assert float(alphas[~covered].mean()) < 0.003
    inside = torch.nn.functional.max_pool2d(1 - truth("stool").alphas, 3, stride=1, padding=1) == 0
    assert float(alphas[inside].mean()) > 0.95


def test_colours_that_change_with_the_view_need_harmonics(monkeypatch):
    monkeypatch.setattr(optimise, "_LR_SHN", 0.02)
    g = torch.Generator().manual_seed(0)
    dense = opaque(init_from_mesh(ball("plain"), 2000, seed=99, sh_degree=1), 0.98)
    shiny = Splats(
        dense.means, dense.quats, dense.scales, dense.opacities, dense.sh0,
        0.5 * torch.randn(1, 3, 3, generator=g).expand(2000, 3, 3).contiguous(),
    )  # fmt: skip
    views = views_of(shiny, cameras_about())
    flat, bent = (fit(views, cameras_about(), start(), FitConfig(iterations=120, sh_degree=n)) for n in (0, 1))
    assert flat.splats.sh_degree == 0 and bent.splats.sh_degree == 1
    assert bent.psnr > flat.psnr + 3


def test_alphas_with_and_without_a_channel():
    deep = Views(truth().colors, truth().alphas[..., None])
    assert same(fit(deep, cameras_about(), start(), SHORT).splats, fit(truth(), cameras_about(), start(), SHORT).splats)


@pytest.mark.parametrize("n", [100, 900])
def test_splats_are_fitted_again_to_fewer_and_to_more(n):
    big = opaque(init_from_mesh(stool(), 600, seed=5), 0.97)
    far = Splats(20 * big.means + 7, big.quats, 20 * big.scales, big.opacities, big.sh0, big.shN, up_axis="-y")
    config = FitConfig(iterations=80)
    (result,) = fit_many([splat_job(far, n, config, views=14, size=48)], config)
    assert len(result.splats) == n and result.splats.up_axis == "-y"
    assert result.psnr > (27 if n == 100 else 30)
    low, high = far.bounds()
    assert bool((result.splats.means > low - 2).all() & (result.splats.means < high + 2).all())


def test_refit_needs_something_visible():
    ghosts = Splats(*(getattr(start(), name) for name in COLUMNS[:3]), torch.zeros(250), start().sh0, start().shN)
    with pytest.raises(ValueError, match="refit needs visible gaussians, got none among 250"):
        splat_job(ghosts, 100)


def fit_mesh(mesh, n, config, **options):
    return fit(*mesh_job(mesh, n, config, **options)[:3], config)


@pytest.mark.parametrize(("pattern", "least"), [("checks", 19), ("stripes", 19), ("dots", 19), ("stool", 23)])
def test_the_initialisation_of_a_mesh_alone_is_a_fair_picture(pattern, least, monkeypatch):
    monkeypatch.setattr(mesh_fits, "render_views", partial(render_views, light=0.0))
    mesh = stool() if pattern == "stool" else ball(pattern)
    result = fit_mesh(mesh, 2048, FitConfig(iterations=0), views=12, size=96)
    assert result.psnr > least


def test_without_steps_only_two_views_are_drawn_to_measure():
    mesh, measured = stool(), FitConfig(iterations=0)
    job, whole = mesh_job(mesh, 256, measured, size=64), mesh_job(mesh, 256, size=64)
    held = [split_views(36, measured.holdout)[0][i] for i in (1, 4)]
    assert len(whole.views.colors) == 36 and torch.equal(job.cameras.viewmats, whole.cameras.viewmats[held])
    assert torch.equal(job.views.colors, whole.views.colors[held])
    drawn = render(job.init, *job.cameras, background=measured.background).colors
    expected = torch.stack([psnr(a, b) for a, b in zip(drawn, job.views.colors, strict=True)]).mean()
    assert fit(*job[:3], measured).psnr == pytest.approx(float(expected), abs=1e-3)
    [one] = fit_many([splat_job(start(), 60, measured, views=2, size=32)], measured)
    assert one.iterations == 0 and one.psnr > 5  # one view is enough to measure


def test_a_mesh_is_fitted_in_its_own_frame():
    result = fit_mesh(stool(), 512, FitConfig(iterations=120), views=14, size=64)
    assert result.psnr > 25 and result.splats.source == "stool" and result.splats.up_axis == "+y"
    low, high = result.splats.bounds(0.01)
    assert torch.allclose(low, torch.tensor([-0.6, -0.8, -0.6]), atol=0.06)
    assert torch.allclose(high, torch.tensor([0.6, 0.4, 0.6]), atol=0.06)


def test_a_small_mesh_far_from_the_origin():
    part = ball().parts[0]
    moved = replace(ball(), parts=(replace(part, vertices=(0.02 * part.vertices + 3).astype(part.vertices.dtype)),))
    assert fit_mesh(moved, 256, FitConfig(iterations=60), views=8, size=48).psnr > 19


def broken(change):
    colors, alphas = truth().colors.clone(), truth().alphas.clone()
    return change(colors, alphas)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c, a: Views(c.index_fill(0, torch.tensor([2]), float("nan")), a),
            "views.colors must be finite, got 1 of 14",
        ),
        (lambda c, a: Views(c, a + float("inf")), "views.alphas must be finite, got 14 of 14"),
        (lambda c, a: Views(c[:5], a[:5]), r"views.colors must have shape \[14, 48, 48, 3\]"),
        (lambda c, a: Views(c, a[:, :20]), r"views.alphas must have shape \[14, 48, 48, 1\]"),
        (lambda c, a: Views(255 * c, a), r"views.colors must lie in \[0, 1\], got .* divide 8-bit values by 255"),
    ],
)
def test_views_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        fit(broken(change), cameras_about(), start(), SHORT)


def test_no_views_are_refused():
    none = Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 3, 3), 48, 48)
    with pytest.raises(ValueError, match="at least 2 views"):
        fit(Views(torch.zeros(0, 48, 48, 3), torch.zeros(0, 48, 48, 1)), none, start(), SHORT)


def test_starts_that_cannot_be_fitted_are_refused():
    good = start()
    columns = {name: getattr(good, name) for name in COLUMNS}
    with pytest.raises(ValueError, match=r"n must be a whole number of gaussians in 4\.\."):
        fit(truth(), cameras_about(), good[:3], SHORT)
    lost = Splats(**{**columns, "means": good.means.index_fill(0, torch.tensor([1]), float("nan"))})
    with pytest.raises(ValueError, match=r"initial gaussians must be finite, got 1 of 250 that are not; prune\(\)"):
        fit(truth(), cameras_about(), lost, SHORT)
    heap = Splats(**{**columns, "means": torch.zeros(250, 3)})
    with pytest.raises(ValueError, match="must not all lie in one place"):
        fit(truth(), cameras_about(), heap, SHORT)


def test_a_start_from_splats_shows_what_they_show():
    dense = init_from_mesh(ball(), 2000, seed=99)
    again = init_from_splats(dense, 500)
    pictures = [render(s, *cameras_about(), background=(1.0, 1.0, 1.0)).colors for s in (dense, again)]
    assert float(psnr(*pictures).mean()) > 20
