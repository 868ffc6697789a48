"""The optimisation behind `fitting`: its settings, its loop, its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..rendering import Cameras
from ..splats import Splats
from .fitting_init import check_count
from .fitting_loop import MEANS, SCALES, SH, Adam, activate, confine, pack, relocate, unpack
from .fitting_loss import photometric_loss
from .fitting_scene import Scene, Views, check_views, draw, split_views

Progress = Callable[[int, int, float], None]  # steps done, steps in all, PSNR of training views in dB


@dataclass(frozen=True)
class FitConfig:
    """How to fit. The defaults fit 1,024 gaussians to views of 128 px within seconds on one core.

    Learning rates are per step; those of means are in units of the object's radius.
    """

    iterations: int = 400  # steps; 0 measures the initialisation
    views_per_step: int = 1  # pictures drawn in one step
    holdout: int = 6  # one view in so many is kept from training and measured at the end
    sh_degree: int = 0  # of the colours, 0 to 3
    ssim_weight: float = 0.2  # of 1 - SSIM, beside L1
    opacity_weight: float = 0.0  # of the mean opacity: clears haze
    scale_weight: float = 0.0  # of the mean scale in radii: shrinks what is not needed
    lr_means: float = 1e-3  # at the first step, in radii
    lr_means_final: float = 1e-4  # at the last step, reached by exponential decay
    lr_quats: float = 5e-3
    lr_scales: float = 2e-2  # of the logarithm
    lr_opacities: float = 3e-2  # of the logit
    lr_sh0: float = 1e-2
    lr_shN: float = 5e-3
    relocate_every: int = 75  # steps between relocations of dead gaussians; 0 never
    relocate_until: float = 0.75  # share of the steps after which none is moved any more
    dead_opacity: float = 0.02  # below this a gaussian is dead
    dead_weight: float = 0.02  # so is one that makes up less of the training views than this share of the mean
    target_psnr: float | None = None  # dB on training views at which to stop early
    check_every: int = 100  # steps between measurements for `curve`, `progress` and the early stop
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the views; training composites over random ones
    threads: int = 1  # of torch and the rasteriser during the fit: small pictures gain more from a second process
    seed: int = 0  # of view order, backgrounds and relocation

    def __post_init__(self) -> None:
        least = {
            "iterations": 0,
            "views_per_step": 1,
            "holdout": 2,
            "relocate_every": 0,
            "check_every": 1,
            "threads": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be a whole number >= {low}, got {value!r}")
        if self.sh_degree not in (0, 1, 2, 3):
            raise ValueError(f"sh_degree must be 0, 1, 2 or 3, got {self.sh_degree!r}")
        for name in ("relocate_until", "dead_opacity", "dead_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")
        weights = ("ssim_weight", "opacity_weight", "scale_weight", "lr_means", "lr_means_final")
        for name in (*weights, "lr_quats", "lr_scales", "lr_opacities", "lr_sh0", "lr_shN"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)!r}")


class CurvePoint(NamedTuple):
    """State of a fit at one moment."""

    iteration: int  # steps done
    seconds: float  # since the start
    psnr: float  # dB, mean over up to 8 training views at full size


class FitResult(NamedTuple):
    """Fitted splats and how good they are."""

    splats: Splats  # n gaussians, in the frame of the initial ones
    psnr: float  # dB, mean over the held-out views, on the views' background
    ssim: float  # mean over the held-out views
    iterations: int  # steps taken
    seconds: float  # of optimisation, with its measurements, without the final one
    curve: tuple[CurvePoint, ...]  # from step 0 to the last
    reached: bool  # whether `FitConfig.target_psnr` was met (False without a target)


def fit(
    views: Views, cameras: Cameras, init: Splats, config: FitConfig | None = None, *, progress: Progress | None = None
) -> FitResult:
    """Optimise ``init`` until it looks like ``views``; the number of gaussians stays.

    Every step draws some training views over a random background, which punishes holes and floaters alike. On the CPU
    the result is the same for the same seed; on CUDA gradients are summed in no fixed order. Views, cameras and
    gaussians are used on the device of ``init``.

    Args:
        views: V >= 2 pictures over ``config.background``.
        cameras: V cameras of their size.
        init: n gaussians, 4 to 2^20, finite.
        config: None takes the defaults.
        progress: called at every check.

    Raises:
        ValueError: when views, cameras and gaussians do not fit together or are not finite; the message says which.
    """
    config = config or FitConfig()
    check_count(len(init))
    colors, alphas = check_views(views, cameras)
    held, kept = split_views(len(colors), config.holdout)
    init = init.detach().with_sh_degree(config.sh_degree)
    extent = _extent(init)
    with _threads(config.threads, init.device):
        scene = Scene.of(colors, alphas, cameras, config.background, init.device)
        parameters, curve, reached = _optimise(scene.pick(kept), pack(init, extent), extent, config, progress)
        columns, test = activate(parameters), scene.pick(held)
        scores = test.psnr(columns), test.ssim(columns)
    return FitResult(unpack(parameters, init), *scores, curve[-1].iteration, curve[-1].seconds, tuple(curve), reached)


def _optimise(
    scene: Scene, parameters: Tensor, extent: float, config: FitConfig, progress: Progress | None
) -> tuple[Tensor, list[CurvePoint], bool]:
    """Parameters after the steps, how it went, and whether the target was reached."""
    begin = time.perf_counter()
    generator = torch.Generator().manual_seed(config.seed)
    parameters.requires_grad_()
    adam = Adam(parameters, _rates(parameters, extent, config))
    probe = scene.pick(_spread(len(scene.alphas), 8))
    order = _epochs(len(scene.alphas), generator)
    error = torch.zeros(len(parameters), device=parameters.device)
    curve = [_check(probe, parameters, 0, begin)]
    for step in range(config.iterations):
        if config.target_psnr is not None and curve[-1].psnr >= config.target_psnr:
            break
        pictures = scene.pick([next(order) for _ in range(config.views_per_step)])
        gradient = _gradient(parameters, pictures, torch.rand(3, generator=generator), extent, config)
        size = parameters.detach()[:, SCALES].amax(dim=1).exp()
        error += gradient[:, MEANS].norm(dim=1) * size
        share = step / max(config.iterations - 1, 1)
        adam.step(gradient, (config.lr_means_final / config.lr_means) ** share if config.lr_means else 0.0)
        confine(parameters, extent)
        done = step + 1
        if (
            config.relocate_every
            and done % config.relocate_every == 0
            and done <= config.relocate_until * config.iterations
        ):
            visible = scene.visibility(activate(parameters.detach()))
            seen = visible >= config.dead_weight * visible.mean()
            adam.clear(relocate(parameters, error, seen, dead_opacity=config.dead_opacity, generator=generator))
            error.zero_()
        if done % config.check_every == 0 or done == config.iterations:
            curve.append(_check(probe, parameters, done, begin))
            if progress is not None:
                progress(done, config.iterations, curve[-1].psnr)
    reached = config.target_psnr is not None and curve[-1].psnr >= config.target_psnr
    return parameters.detach(), curve, reached


def _gradient(parameters: Tensor, scene: Scene, background: Tensor, extent: float, config: FitConfig) -> Tensor:
    """Gradient ``[N, D]`` of the loss over the views of ``scene``."""
    columns = activate(parameters)
    behind = background.to(parameters.device)
    loss = photometric_loss(draw(columns, scene.cameras, behind), scene.over(behind), config.ssim_weight)
    if config.opacity_weight:
        loss = loss + config.opacity_weight * columns.opacities.mean()
    if config.scale_weight:
        loss = loss + config.scale_weight * columns.scales.mean() / extent
    (gradient,) = torch.autograd.grad(loss, parameters)
    return gradient


def _check(probe: Scene, parameters: Tensor, iteration: int, begin: float) -> CurvePoint:
    ratio = probe.psnr(activate(parameters.detach()))
    return CurvePoint(iteration, time.perf_counter() - begin, ratio)


def _rates(parameters: Tensor, extent: float, config: FitConfig) -> Tensor:
    """Learning rate of every column ``[D]``."""
    higher = parameters.shape[1] - SH - 3
    rates = [config.lr_means * extent] * 3 + [config.lr_quats] * 4 + [config.lr_scales] * 3 + [config.lr_opacities]
    return torch.tensor([*rates, *[config.lr_sh0] * 3, *[config.lr_shN] * higher], device=parameters.device)


def _epochs(count: int, generator: torch.Generator) -> Iterator[int]:
    """Indices of views, all of them in a new order again and again."""
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices below ``count``, evenly spread."""
    return sorted({i * count // min(count, most) for i in range(min(count, most))})


def _extent(init: Splats) -> float:
    """Half the diagonal of the box about the centres.

    Raises:
        ValueError: when a gaussian is not finite or all centres coincide.
    """
    bad = int((~init.finite_mask()).sum())
    if bad:
        raise ValueError(f"initial gaussians must be finite, got {bad} of {len(init)} that are not; prune() them first")
    low, high = init.bounds()
    extent = float((high - low).norm()) / 2
    if not extent > 0:
        raise ValueError("initial gaussians must not all lie in one place, got one place; start from a mesh or points")
    return extent


@contextmanager
def _threads(count: int, device: torch.device) -> Iterator[None]:
    """Let torch (and with it the rasteriser) use ``count`` threads, on the CPU, and set it back."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
