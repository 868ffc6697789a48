"""Several objects fitted together: each as if it were alone. The CUDA call is drawn by the CPU rasteriser here."""

from __future__ import annotations

import inspect
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from clipgs_lib.fitting import FitConfig, FitJob, fit, fit_many, init_from_mesh, mesh_job, optimise
from clipgs_lib.fitting.optimise import _fit_together, _groups
from clipgs_lib.fitting.supervision import Scene, photometric_loss
from clipgs_lib.rendering import Cameras, Gaussians, render
from clipgs_lib.rendering.rasterize import rasterize_cuda_batch
from clipgs_lib.splats import COLUMNS, Splats
from tests.conftest import make_splats
from tests.fitting.fitting_scenes import ball, cameras_about, ground_truth, plate, stool

BUSY = FitConfig(iterations=30, check_every=10, relocate_every=10, seed=3)


@cache
def jobs(n: int = 80) -> tuple[FitJob, ...]:
    meshes = (ball("checks"), stool(), plate(), ball("dots"))
    return tuple(
        FitJob(ground_truth(mesh, cameras_about()), cameras_about(), init_from_mesh(mesh, n)) for mesh in meshes
    )


def dead_third(job: FitJob) -> FitJob:
    """The job with gaussians that have to be relocated."""
    init = job.init
    opacities = torch.where(torch.arange(len(init)) % 3 == 0, 1e-3, init.opacities)
    return job._replace(init=Splats(init.means, init.quats, init.scales, opacities, init.sh0, init.shN))


def same(a: Splats, b: Splats) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in COLUMNS)


def assert_alike(together, alone):
    for one, other in zip(together, alone, strict=True):
        assert same(one.splats, other.splats)
        assert one.iterations == other.iterations
        assert [point.iteration for point in one.curve] == [point.iteration for point in other.curve]
        assert [point.psnr for point in one.curve] == pytest.approx([point.psnr for point in other.curve], abs=1e-4)
        assert (one.psnr, one.ssim) == pytest.approx((other.psnr, other.ssim), abs=1e-4)


@pytest.fixture
def gsplat_calls(monkeypatch):
    """gsplat's `rasterization` with its real signature and shape rules, drawn object by object on the CPU."""
    import gsplat

    signature, calls = inspect.signature(gsplat.rasterization), []

    def rasterization(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        a = SimpleNamespace(**call.arguments)
        calls.append(a)
        batch, n = a.means.shape[:-1]
        cameras = a.viewmats.shape[1]
        assert a.quats.shape == (batch, n, 4) and a.scales.shape == (batch, n, 3) and a.opacities.shape == (batch, n)
        assert a.colors.shape == (batch, n, (a.sh_degree + 1) ** 2, 3) and a.Ks.shape == (batch, cameras, 3, 3)
        assert a.backgrounds.shape == (batch, cameras, 3) and (a.render_mode, a.packed) == ("RGB", False)
        pictures = [
            render(
                Gaussians(
                    a.means[i], a.quats[i], a.scales[i], a.opacities[i], a.colors[i, :, :1], a.colors[i, :, 1:]
                ),
                a.viewmats[i], a.Ks[i], a.width, a.height, background=a.backgrounds[i],
            )
            for i in range(batch)
        ]  # fmt: skip
        return torch.stack([p.colors for p in pictures]), torch.stack([p.alphas for p in pictures]), {}

    monkeypatch.setattr(gsplat, "rasterization", rasterization)
    return calls


def test_many_on_the_cpu_are_one_after_the_other():
    many = fit_many(jobs()[:2], BUSY, batch=2)
    assert_alike(many, [fit(*job[:3], BUSY) for job in jobs()[:2]])


def test_objects_in_a_batch_do_not_know_of_each_other():
    crowd = [dead_third(job) for job in jobs()]
    assert_alike(_fit_together(crowd, BUSY), [fit(*job[:3], BUSY) for job in crowd])


def test_relocation_is_by_object():
    crowd = [jobs()[0], dead_third(jobs()[1])]
    with_it = _fit_together(crowd, BUSY)
    without = _fit_together(crowd, FitConfig(**{**vars(BUSY), "relocate_every": 0}))
    alive = [int((result.splats.opacities > 0.05).sum()) for result in (with_it[1], without[1])]
    assert alive[0] > alive[1] + 10


def test_no_steps_for_a_batch():
    results = _fit_together(jobs(), FitConfig(iterations=0))
    assert all(result.iterations == 0 and len(result.curve) == 1 for result in results)
    assert all(torch.allclose(a.splats.means, b.init.means) for a, b in zip(results, jobs(), strict=True))


def test_weights_and_harmonics_in_a_batch(monkeypatch):
    monkeypatch.setattr(optimise, "_SSIM_WEIGHT", 0.0)
    config = FitConfig(iterations=20, sh_degree=1)
    together, alone = _fit_together(jobs(), config), [fit(*job[:3], config) for job in jobs()]
    for one, other in zip(together, alone, strict=True):
        assert one.splats.sh_degree == 1 and one.psnr == pytest.approx(other.psnr, abs=0.01)
        assert float((one.splats.means - other.splats.means).abs().max()) < 1e-3


def test_the_loss_of_objects_is_the_sum_of_theirs():
    x, y = torch.rand(2, 3, 2, 20, 24, 3, generator=torch.Generator().manual_seed(0))
    want = sum(photometric_loss(a, b, 0.2) for a, b in zip(x, y, strict=True))
    at_once = 3 * photometric_loss(x.flatten(0, 1), y.flatten(0, 1), 0.2)
    assert float(at_once) == pytest.approx(float(want), rel=1e-6)


def test_one_call_draws_what_single_ones_do(gsplat_calls):
    views = cameras_about(4)
    scenes = [make_splats(40, 1, seed=s) for s in (1, 2)]
    columns = [torch.stack([getattr(s, name) for s in scenes]) for name in COLUMNS]
    columns[0][1, 3], columns[1][0, 5], columns[4][1, 7] = float("nan"), 0.0, float("inf")
    columns = [column.requires_grad_() for column in columns]
    viewmats, Ks = views.viewmats.reshape(2, 2, 4, 4), views.Ks.reshape(2, 2, 3, 3)
    behind = torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(1))
    colors = rasterize_cuda_batch(Gaussians(*columns), Cameras(viewmats, Ks, 48, 40), behind)
    wants = [
        render(Gaussians(*(column[i] for column in columns)), viewmats[i], Ks[i], 48, 40, background=behind[i]).colors
        for i in range(2)
    ]
    assert len(gsplat_calls) == 1 and colors.shape == (2, 2, 40, 48, 3)
    assert torch.allclose(colors, torch.stack(wants), atol=1e-5)
    weights = torch.rand(colors.shape, generator=torch.Generator().manual_seed(2))
    got = torch.autograd.grad((weights * colors).sum(), columns)
    want = torch.autograd.grad((weights * torch.stack(wants)).sum(), columns)
    for name, a, b in zip(COLUMNS, got, want, strict=True):
        assert bool(a.isfinite().all()) and float((a - b).norm()) <= 1e-4 * float(b.norm()), name
    assert float(got[0][1, 3].abs().sum() + got[4][1, 7].abs().sum() + got[1][0, 5].abs().sum()) == 0


def test_a_batch_of_very_few_gaussians_is_refused(gsplat_calls):
    few = make_splats(31)
    columns = Gaussians(*(getattr(few, name).expand(2, *getattr(few, name).shape) for name in COLUMNS))
    views = cameras_about(2)
    cameras = Cameras(views.viewmats[:, None], views.Ks[:, None], 48, 48)
    with pytest.raises(ValueError, match="needs N >= 32 gaussians each, got 31; draw them one by one"):
        rasterize_cuda_batch(columns, cameras, torch.zeros(2, 1, 3))


def test_whole_fits_through_the_one_call(gsplat_calls, monkeypatch):
    alone = [fit(*job[:3], BUSY) for job in jobs()[:2]]
    assert gsplat_calls == []
    monkeypatch.setattr(Scene, "draw", Scene._draw_together)
    assert_alike(_fit_together(jobs()[:2], BUSY), alone)
    assert len(gsplat_calls) >= BUSY.iterations and all(len(call.means) == 2 for call in gsplat_calls)


class Pile:
    """Stands for gaussians on any device."""

    def __init__(self, n: int, device: str) -> None:
        self.n, self.device = n, torch.device(device)

    def __len__(self) -> int:
        return self.n


def pile(n: int = 64, device: str = "cuda:0", views: int = 14, side: int = 48) -> FitJob:
    return FitJob(SimpleNamespace(colors=torch.zeros(views, side, side, 3)), None, Pile(n, device))


@pytest.mark.parametrize(
    ("row", "sizes"),
    [
        ([pile()] * 5, [2, 2, 1]),
        ([pile(), pile(65), pile(65)], [1, 2]),
        ([pile(), pile(views=15), pile(side=32), pile(side=32)], [1, 1, 2]),
        ([pile(), pile(device="cuda:1")], [1, 1]),
        ([pile(31)] * 2, [1, 1]),
        ([pile(device="cpu")] * 3, [1, 1, 1]),
        ([], []),
    ],
)
def test_neighbours_that_are_alike_share_a_batch(row, sizes):
    groups = list(_groups(row, 2))
    assert [len(group) for group in groups] == sizes
    assert [job for group in groups for job in group] == row


def test_a_job_that_does_not_hold_is_named_before_any_is_fitted(monkeypatch):
    monkeypatch.setattr(optimise, "_fit_together", lambda *_: pytest.fail("fitted"))
    dim = jobs()[1]
    bad = dim._replace(init=dim.init[:3])
    with pytest.raises(ValueError, match=r"job 1 of 2: n must be a whole number of gaussians in 4\.\."):
        fit_many([jobs()[0], bad], BUSY)
    skewed = dim._replace(cameras=dim.cameras._replace(viewmats=2 * dim.cameras.viewmats))
    with pytest.raises(ValueError, match="job 0 of 1: viewmats must be rigid"):
        fit_many([skewed], BUSY)
    with pytest.raises(ValueError, match="batch must be a whole number >= 1, got 0"):
        fit_many(jobs(), BUSY, batch=0)
    assert fit_many([], BUSY) == []


def test_a_job_of_a_mesh_is_fitted_alone_as_among_others():
    job = mesh_job(stool(), 100, BUSY, views=8, size=40)
    (result,) = fit_many([job], BUSY)
    assert same(result.splats, fit(*job[:3], BUSY).splats)


@pytest.mark.cuda
def test_a_batch_on_cuda_is_as_good_as_fits_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    config = FitConfig(iterations=120, check_every=20, relocate_every=30)
    moved = [dead_third(job)._replace(init=dead_third(job).init.to("cuda")) for job in jobs(250)]
    together = fit_many(moved, config, batch=3)
    for one, job in zip(together, jobs(250), strict=True):
        other = fit(*dead_third(job), config)
        assert one.splats.device.type == "cuda" and bool(one.splats.finite_mask().all())
        assert one.curve[0].psnr == pytest.approx(other.curve[0].psnr, abs=0.05)
        assert one.psnr == pytest.approx(other.psnr, abs=0.7)
