"""One differentiable rasteriser for both back ends."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..splats import Splats, check_column
from .cameras import Cameras, Gaussians, check_cameras

MAX_SIDE = 16384
MAX_PIXELS = 2**28


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
        from .cuda import rasterize_cuda as back_end
    elif device.type == "cpu":
        from .cpu import rasterize_cpu as back_end
    else:
        raise ValueError(f"gaussians must be on the CPU or a CUDA device, got {device}; move them with .to()")
    return RenderOutput(*back_end(gaussians, cameras, degree, colors))


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
