"""The optimisation behind `fitting`: its settings, its loop, its result.

There is one loop, for a batch of objects that are drawn, measured and moved together. `fit` is a batch of one, and so
is every object on the CPU, where the rasteriser draws one object at a time anyway.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..rendering import Cameras, render
from ..splats import Splats
from .columns import MEANS, SCALES, SH, Adam, activate, confine, pack, relocate, unpack
from .starts import check_count
from .supervision import Scene, Views, check_views, photometric_loss, split_views

# Learning rates, per step: of means in units of the object's radius, of scales' logarithms and of opacities' logits.
_LR_MEANS, _LR_QUATS, _LR_SCALES, _LR_OPACITIES, _LR_SH0, _LR_SHN = 1e-3, 5e-3, 2e-2, 3e-2, 1e-2, 5e-3
_DECAY = 0.1  # of the rate of the means, from the first step to the last
_SSIM_WEIGHT = 0.2  # of 1 - SSIM, beside L1
_RELOCATE_UNTIL = 0.75  # share of the steps after which no gaussian is moved any more
_DEAD_OPACITY = 0.02  # below this a gaussian is dead
_DEAD_WEIGHT = 0.02  # so is one that makes up less of the training views than this share of the mean


@dataclass(frozen=True)
class FitConfig:
    """How to fit. The defaults fit 1,024 gaussians to views of 128 px within seconds on one core."""

    iterations: int = 400  # steps; 0 measures the initialisation, on all views
    holdout: int = 6  # one view in so many is kept from training and measured at the end
    sh_degree: int = 0  # of the colours, 0 to 3
    relocate_every: int = 75  # steps between relocations of dead gaussians; 0 never
    check_every: int = 100  # steps between measurements for the curve
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the views; training composites over random ones
    threads: int = 1  # of torch and the rasteriser during the fit: small pictures gain more from a second process
    seed: int = 0  # of view order, backgrounds and relocation

    def __post_init__(self) -> None:
        counts = ("iterations", 0), ("holdout", 2), ("relocate_every", 0), ("check_every", 1), ("threads", 1)
        for name, low in counts:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be a whole number >= {low}, got {value!r}")
        if self.sh_degree not in (0, 1, 2, 3):
            raise ValueError(f"sh_degree must be 0, 1, 2 or 3, got {self.sh_degree!r}")


class CurvePoint(NamedTuple):
    """State of a fit at one moment."""

    iteration: int  # steps done
    seconds: float  # since the start
    psnr: float  # dB, mean over up to 8 training views at full size


class FitJob(NamedTuple):
    """What `fit` takes, for `fit_many`; `fitting.mesh_job` and `fitting.splat_job` make them."""

    views: Views  # V >= 2 pictures over `FitConfig.background`
    cameras: Cameras  # V cameras of their size
    init: Splats  # n gaussians, on the device to fit on
    seed: int | None = None  # None takes that of the configuration


class FitResult(NamedTuple):
    """Fitted splats and how good they are."""

    splats: Splats  # n gaussians, in the frame of the initial ones
    psnr: float  # dB, mean over the held-out views, on the views' background
    ssim: float  # mean over the held-out views
    iterations: int  # steps taken
    seconds: float  # of optimisation, with its measurements, without the final one; of the batch as a whole
    curve: tuple[CurvePoint, ...]  # from step 0 to the last


def fit(views: Views, cameras: Cameras, init: Splats, config: FitConfig | None = None) -> FitResult:
    """Optimise ``init`` until it looks like ``views``; the number of gaussians stays.

    Every step draws some training views over a random background, which punishes holes and floaters alike. On the CPU
    the result is the same for the same seed; on CUDA gradients are summed in no fixed order. Views, cameras and
    gaussians are used on the device of ``init``.

    Args:
        views, cameras, init: as of a `FitJob`; 4 to 2^20 finite gaussians.
        config: None takes the defaults.

    Raises:
        ValueError: when views, cameras and gaussians do not fit together or are not finite; the message says which.
    """
    config = config or FitConfig()
    job = FitJob(views, cameras, init)
    _check_job(job, config)
    return _fit_together([job], config)[0]


def fit_many(jobs: Sequence[FitJob], config: FitConfig | None = None, *, batch: int = 16) -> list[FitResult]:
    """Fit many objects as `fit` does, each with the same settings and by itself; one result per job, in order.

    On CUDA, neighbours of equal n, number and size of views share every call of the rasteriser and of the optimiser,
    which one small object leaves mostly idle. On the CPU, and below 32 gaussians (see
    `rendering.rasterize.rasterize_cuda_batch`), they are fitted one after the other.

    Args:
        jobs: what to fit; one ``init`` lies on one device.
        config: of all; None takes the defaults.
        batch: objects at once, at most, ``>= 1``; 30 views of 128 px take 8 MB each.

    Raises:
        ValueError: when a job does not hold together, as in `fit`; the message says which. Nothing was fitted then.
    """
    config = config or FitConfig()
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be a whole number >= 1, got {batch!r}")
    for number, job in enumerate(jobs):
        try:
            _check_job(job, config)
        except ValueError as error:
            raise ValueError(f"job {number} of {len(jobs)}: {error}") from error
    return [result for group in _groups(jobs, batch) for result in _fit_together(group, config)]


def _check_job(job: FitJob, config: FitConfig) -> None:
    """Raise ValueError unless views, cameras and gaussians fit together and are finite."""
    check_count(len(job.init))
    colors, _ = check_views(job.views, job.cameras)
    if config.iterations:
        split_views(len(colors), config.holdout)
    _extent(job.init)
    render(job.init[[]], *job.cameras)  # draws nothing, but checks the cameras


def _groups(jobs: Sequence[FitJob], batch: int) -> Iterator[list[FitJob]]:
    """Runs of neighbours, in order, that can be drawn in one call."""

    def likeness(job: FitJob) -> tuple[object, ...]:
        together = job.init.device.type == "cuda" and len(job.init) >= 32
        return together, job.init.device, len(job.init), tuple(job.views.colors.shape)

    for (together, *_), run in groupby(jobs, likeness):
        group, most = list(run), batch if together else 1
        yield from (group[i : i + most] for i in range(0, len(group), most))


def _fit_together(jobs: Sequence[FitJob], config: FitConfig) -> list[FitResult]:
    """Fit objects of equal n, number and size of views, on one device, that were checked."""
    device = jobs[0].init.device
    inits = [job.init.detach().with_sh_degree(config.sh_degree) for job in jobs]
    extents = [_extent(init) for init in inits]
    seeds = [config.seed if job.seed is None else job.seed for job in jobs]
    views = [(*check_views(job.views, job.cameras), job.cameras) for job in jobs]
    every = list(range(len(views[0][0])))
    held, kept = split_views(len(every), config.holdout) if config.iterations else (every, every)
    with _arithmetic(config.threads, device):
        scene = Scene.of(views, config.background, device)
        starts = torch.stack([pack(init, extent) for init, extent in zip(inits, extents, strict=True)])
        batch = _Batch(scene.pick(kept), starts, extents, seeds, config)
        batch.run()
        parameters = batch.parameters.detach()
        columns, test = activate(parameters), scene.pick(held)
        ratios, likenesses = (values.tolist() for values in test.quality(columns))
    splats = (unpack(rows, init) for rows, init in zip(parameters, inits, strict=True))
    seconds = batch.curves[0][-1].seconds
    return [
        FitResult(one, ratio, likeness, config.iterations, seconds, tuple(curve))
        for one, ratio, likeness, curve in zip(splats, ratios, likenesses, batch.curves, strict=True)
    ]


class _Batch:
    """B objects, of ``parameters [B, N, D]`` and sizes ``extents``, in the middle of their fits to training views."""

    # Each has dice, an order of views and backgrounds to itself.

    def __init__(
        self, scene: Scene, parameters: Tensor, extents: list[float], seeds: list[int], config: FitConfig
    ) -> None:
        self.begin = time.perf_counter()
        self.config, self.scene, self.parameters = config, scene, parameters.requires_grad_()
        self.probe = scene.pick(_spread(scene.alphas.shape[1], 8))
        self.extents = torch.tensor(extents, device=parameters.device)[:, None, None]  # [B, 1, 1]
        self.adam = Adam(self.parameters, torch.stack([_rates(parameters, extent) for extent in extents]))
        self.dice = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.orders = [_epochs(scene.alphas.shape[1], dice) for dice in self.dice]
        self.error = torch.zeros_like(parameters[..., 0]).detach()  # [B, N]
        self.curves: list[list[CurvePoint]] = [[] for _ in extents]

    def run(self) -> None:
        """Take all steps."""
        config = self.config
        self.check(0)
        for done in range(1, config.iterations + 1):
            self.step((done - 1) / max(config.iterations - 1, 1))
            every, last = config.relocate_every, _RELOCATE_UNTIL * config.iterations
            if every and done % every == 0 and done <= last:
                self.relocate()
            if done % config.check_every == 0 or done == config.iterations:
                self.check(done)

    def step(self, share: float) -> None:
        """One step of every object, ``share`` in ``[0, 1]`` of the way."""
        pictures = self.scene.pick_each([next(order) for order in self.orders])
        behind = torch.stack([torch.rand(3, generator=dice) for dice in self.dice]).to(self.parameters.device)
        drawn, targets = pictures.draw(activate(self.parameters), behind), pictures.over(behind)
        loss = photometric_loss(drawn.flatten(0, 1), targets.flatten(0, 1), _SSIM_WEIGHT)
        (gradient,) = torch.autograd.grad(len(drawn) * loss, self.parameters)  # of each object as if it were alone
        size = self.parameters.detach()[..., SCALES].amax(dim=-1).exp()
        self.error += gradient[..., MEANS].norm(dim=-1) * size
        self.adam.step(gradient, _DECAY**share)
        confine(self.parameters, self.extents)

    def relocate(self) -> None:
        """Move the dead gaussians of every object."""
        visible = self.scene.visibility(activate(self.parameters.detach()))
        seen = visible >= _DEAD_WEIGHT * visible.mean(dim=1, keepdim=True)
        rows = self.parameters.detach()
        for i, dice in enumerate(self.dice):
            self.adam.clear(i, relocate(rows[i], self.error[i], seen[i], dead_opacity=_DEAD_OPACITY, generator=dice))
        self.error.zero_()

    def check(self, done: int) -> None:
        """Measure all after ``done`` steps."""
        ratios = self.probe.psnr(activate(self.parameters.detach())).tolist()
        seconds = time.perf_counter() - self.begin
        for curve, ratio in zip(self.curves, ratios, strict=True):
            curve.append(CurvePoint(done, seconds, ratio))


def _rates(parameters: Tensor, extent: float) -> Tensor:
    """Learning rate of every column ``[1, D]``."""
    higher = parameters.shape[-1] - SH - 3
    rates = [_LR_MEANS * extent] * 3 + [_LR_QUATS] * 4 + [_LR_SCALES] * 3 + [_LR_OPACITIES]
    return torch.tensor([[*rates, *[_LR_SH0] * 3, *[_LR_SHN] * higher]], device=parameters.device)


def _epochs(count: int, generator: torch.Generator) -> Iterator[int]:
    """Indices of views, all of them in a new order again and again."""
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices below ``count``, evenly spread."""
    return sorted({i * count // min(count, most) for i in range(min(count, most))})


def _extent(init: Splats) -> float:
    """Half the diagonal of the box about the centres, which must be finite and not all in one place."""
    bad = int((~init.finite_mask()).sum())
    if bad:
        raise ValueError(f"initial gaussians must be finite, got {bad} of {len(init)} that are not; prune() them first")
    low, high = init.bounds()
    extent = float((high - low).norm()) / 2
    if not extent > 0:
        raise ValueError("initial gaussians must not all lie in one place, got one place; start from a mesh or points")
    return extent


@contextmanager
def _arithmetic(threads: int, device: torch.device) -> Iterator[None]:
    """On the CPU let torch (and with it the rasteriser) use ``threads``; on CUDA blur in full float32; then set back.

    SSIM takes differences of blurred squares, of which TF32's 10 bits would leave mostly noise.
    """
    cudnn: Any = torch.backends.cudnn  # whose `conv` torch leaves untyped
    before, precision = torch.get_num_threads(), cudnn.conv.fp32_precision
    if device.type == "cpu":
        torch.set_num_threads(threads)
    else:
        cudnn.conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if device.type != "cpu":
            cudnn.conv.fp32_precision = precision
