"""One differentiable rasteriser for both back ends, and the CUDA one: gsplat, imported here alone and lazily."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..splats import Splats, check_column
from .cameras import Cameras, Gaussians, check_cameras

MAX_SIDE = 16384
MAX_PIXELS = 2**28
_CLASSIC: dict[str, Any] = {"packed": False, "rasterize_mode": "classic"}


class RenderOutput(NamedTuple):
    """Pictures of C cameras.

    Args:
        colors: ``[C, H, W, 3]`` linear combination of the gaussians' colours and the background; ``>= 0``
            with a background ``>= 0``, may exceed 1.
        alphas: ``[C, H, W, 1]`` in ``[0, 1)``, how much of the background is covered.
        depths: ``[C, H, W, 1]`` expected z depth in scene units, ``sum(w z) / sum(w)``; 0 where alpha is 0.
    """

    colors: Tensor
    alphas: Tensor
    depths: Tensor


def render(
    splats: Splats | Gaussians,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    sh_degree: int | None = None,
    background: Tensor | tuple[float, float, float] | None = None,
) -> RenderOutput:
    """Draw gaussians through pinhole cameras; differentiable with respect to all six attributes and the background.

    On CUDA this is gsplat 1.5.3's ``rasterization``; on the CPU a numba tile rasteriser with the same rules.

    The rules are those of gsplat 1.5.3 in classic mode. EWA projection with a low-pass of 0.3 px^2; centres
    nearer than z = 0.01 or farther than 1e10 are not drawn; the Jacobian is taken at x/z and y/z clamped to the
    picture and 30 % of its half width beyond; gaussians are sorted by float32 z depth, ties by index;
    ``alpha = min(0.999, opacity * exp(-sigma))`` at pixel centres (+0.5), contributions below 1/255 are skipped;
    a pixel stops before the gaussian that would leave a transmittance of 1e-4 or less; colours are
    ``max(0, 0.5 + SH)``. gsplat bounds a gaussian by min(3.33, sqrt(2 ln(255 opacity))) standard deviations,
    outside of which alpha is below 1/255 anyway: bounds and tiles never change a pixel, here or there.

    A gaussian with a non-finite attribute (among those in use at this SH degree) or a zero quaternion is left
    out and gets zero gradient. Gradients flow to the six attributes and the background, not to the cameras.
    On the CPU, pictures and gradients are bit-identical from run to run and for any number of threads
    (``torch.get_num_threads()``); on CUDA gradients are summed in no fixed order.

    Args:
        splats: N gaussians, 0 included; float32.
        viewmats: ``[C, 4, 4]`` world to camera, OpenCV axes, rigid. Moved to the gaussians' device.
        Ks: ``[C, 3, 3]`` intrinsics in pixels, without skew. Moved to the gaussians' device.
        width, height: pixels, 1 to 16384.
        sh_degree: highest degree of spherical harmonics to use, 0 to 3; None uses all there are.
        background: ``[3]`` or ``[C, 3]`` colour behind everything; None is black.

    Raises:
        TypeError: when an attribute is not a float32 tensor, or cameras are no tensors.
        ValueError: when shapes, devices, ranges or cameras are wrong; the message says which.
    """
    gaussians = Gaussians(*(getattr(splats, name) for name in Gaussians._fields))
    for name, column in gaussians._asdict().items():
        check_column(name, column, gaussians.means)
    device = gaussians.means.device
    _, intrinsics = check_cameras(viewmats, Ks)
    if bool((intrinsics[:, 0, 1] != 0).any()):
        raise ValueError(
            "Ks must read [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], got one with skew; undistort the pictures"
        )
    if viewmats.requires_grad or Ks.requires_grad:
        raise ValueError("cameras get no gradient here, got viewmats or Ks that require one; detach them")
    _check_size(width, height, len(viewmats))
    cameras = Cameras(viewmats.to(device, torch.float32), Ks.to(device, torch.float32), width, height)
    if sh_degree is not None and sh_degree not in (0, 1, 2, 3):
        raise ValueError(f"sh_degree must be 0, 1, 2, 3 or None, got {sh_degree!r}")
    degree = {0: 0, 3: 1, 8: 2, 15: 3}[gaussians.shN.shape[1]]
    degree = degree if sh_degree is None else min(degree, sh_degree)
    colors = _check_background(background, len(viewmats), device)
    if device.type == "cuda":
        return RenderOutput(*rasterize_cuda(gaussians, cameras, degree, colors))
    if device.type != "cpu":
        raise ValueError(f"gaussians must be on the CPU or a CUDA device, got {device}; move them with .to()")
    from .cpu import rasterize_cpu

    return RenderOutput(*rasterize_cpu(gaussians, cameras, degree, colors))


def _check_size(width: int, height: int, cameras: int) -> None:
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
            raise ValueError(f"{name} must be a whole number of pixels in 1..{MAX_SIDE}, got {value!r}")
    if cameras * width * height > MAX_PIXELS:
        raise ValueError(
            f"a call may draw at most {MAX_PIXELS:,} pixels, got {cameras} x {width} x {height}; "
            "draw fewer cameras at a time"
        )


def _check_background(
    background: Tensor | tuple[float, float, float] | None, count: int, device: torch.device
) -> Tensor:
    """Colours ``[C, 3]`` float32."""
    if background is None:
        return torch.zeros(count, 3, device=device)
    colors = torch.as_tensor(background).to(device, torch.float32)
    if tuple(colors.shape) not in ((3,), (count, 3)):
        raise ValueError(f"background must have shape [3] or [C, 3] with C = {count}, got {list(colors.shape)}")
    if not bool(colors.detach().isfinite().all()):
        raise ValueError("background must be finite, got NaN or infinity")
    return colors.expand(count, 3)


# ---- CUDA ------------------------------------------------------------------------------------------------------------


def rasterize_cuda(
    gaussians: Gaussians, cameras: Cameras, degree: int, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rasterise one object on the GPU with gsplat 1.5.3, classic mode; arguments are those of `render`, checked.

    Returns:
        colours ``[C, H, W, 3]``, alphas ``[C, H, W, 1]``, depths ``[C, H, W, 1]``.
    """
    import gsplat

    means, quats, scales, opacities, sh0, shN = gaussians
    sh = torch.cat([sh0, shN[:, : (degree + 1) ** 2 - 1]], dim=1)  # [N, K, 3]
    rows = (means, quats, scales, opacities[:, None], sh.flatten(1))
    good = torch.stack([row.detach().isfinite().all(dim=1) for row in rows]).all(dim=0)
    good &= (quats.detach() != 0).any(dim=1)
    if not bool(good.all()):  # one such gaussian would turn every pixel it meets into NaN
        means, quats, scales, opacities, sh = (t[good] for t in (means, quats, scales, opacities, sh))
    if len(means) == 0 or len(cameras.Ks) == 0:
        nothing = means.sum() + quats.sum() + scales.sum() + opacities.sum() + sh.sum()  # keeps the gradients zero
        colors = (background + 0 * nothing)[:, None, None, :].expand(-1, cameras.height, cameras.width, -1)
        return colors, torch.zeros_like(colors[..., :1]), torch.zeros_like(colors[..., :1])
    pictures, alphas, _ = gsplat.rasterization(
        *(means, quats, scales, opacities, sh, *cameras),
        **_CLASSIC | {"sh_degree": degree, "backgrounds": background, "render_mode": "RGB+ED"},
    )
    return pictures[..., :3], alphas, pictures[..., 3:]


def rasterize_cuda_batch(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> Tensor:
    """Draw B objects, each through C cameras, in one call of gsplat 1.5.3; arguments are not checked.

    As `rasterize_cuda`, with all harmonics that there are. A gaussian that is not finite is drawn with opacity 0,
    since all objects keep the same N.

    Args:
        gaussians: ``[B, N, ...]`` on a CUDA device. ``N >= 32`` where B > 1: gsplat's backward pass sums gradients
            of equal gaussian index within a warp of 32, whatever their object.
        cameras: of viewmats ``[B, C, 4, 4]`` and Ks ``[B, C, 3, 3]``.
        background: ``[B, C, 3]``.

    Returns:
        colours ``[B, C, H, W, 3]``.

    Raises:
        ValueError: when B > 1 and N < 32.
    """
    import gsplat

    means, quats, scales, opacities, sh0, shN = gaussians
    if len(means) > 1 and means.shape[1] < 32:
        raise ValueError(f"a batch of objects needs N >= 32 gaussians each, got {means.shape[1]}; draw them one by one")
    sh = torch.cat([sh0, shN], dim=2)  # [B, N, K, 3]
    rows = (means, quats, scales, opacities[..., None], sh.flatten(2))
    good = torch.stack([row.detach().isfinite().all(dim=2) for row in rows]).all(dim=0)
    good &= (quats.detach() != 0).any(dim=2)  # [B, N]
    means, quats, scales = (torch.where(good[..., None], row, 1.0) for row in rows[:3])
    opacities, sh = torch.where(good, opacities, 0.0), torch.where(good[..., None, None], sh, 0.0)
    colors, _, _ = gsplat.rasterization(
        *(means, quats, scales, opacities, sh, *cameras),
        **_CLASSIC | {"sh_degree": math.isqrt(sh.shape[2]) - 1, "backgrounds": background, "render_mode": "RGB"},
    )
    return colors
