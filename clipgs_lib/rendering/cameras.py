"""What a rasteriser takes: gaussians, and pinhole cameras with OpenCV axes (x right, y down, z forward)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..splats import UP_AXES, Splats

_OUTSIDE = 0.002  # share of the visible substance that may lie outside
_MARGIN = 1.05  # on the distance of turntables, for some space about the object
NEAR = 0.01  # scene units; what lies nearer to the camera is not drawn, as in gsplat
# Seen from azimuth 0 an object shows its front: the side that files with this up-axis usually call so.
FRONT = {"+y": "+z", "-y": "-z", "+z": "-y", "-z": "+y", "+x": "+z", "-x": "+z"}


class Cameras(NamedTuple):
    """C cameras of one picture size; ``render(splats, *cameras)`` takes them as they are.

    Args:
        viewmats: ``[C, 4, 4]`` world to camera, OpenCV axes.
        Ks: ``[C, 3, 3]`` intrinsics in pixels; the centre of the top left pixel is (0.5, 0.5).
        width, height: pixels.
    """

    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    @property
    def centers(self) -> Tensor:
        """Positions of the cameras in the world ``[C, 3]``."""
        rotation, shift = self.viewmats[:, :3, :3], self.viewmats[:, :3, 3]
        return -(rotation.transpose(1, 2) @ shift[:, :, None])[:, :, 0]


class Gaussians(NamedTuple):
    """The six attributes of `Splats` as plain tensors, for fitting, where a new `Splats` each step is in the way.

    Leading dimensions ``[..., N, D]`` are objects that are fitted together; `render` takes one object.
    """

    means: Tensor  # [..., N, 3]
    quats: Tensor  # [..., N, 4] wxyz, any non-zero length
    scales: Tensor  # [..., N, 3] linear, >= 0
    opacities: Tensor  # [..., N] in [0, 1]
    sh0: Tensor  # [..., N, 1, 3]
    shN: Tensor  # [..., N, K-1, 3], K-1 in 0, 3, 8, 15


def check_cameras(viewmats: Tensor, Ks: Tensor) -> tuple[Tensor, Tensor]:
    """``viewmats [C, 4, 4]`` and ``Ks [C, 3, 3]`` in float64 on the CPU; TypeError or ValueError unless all holds."""
    if not isinstance(viewmats, Tensor) or not isinstance(Ks, Tensor):
        got = f"{type(viewmats).__name__} and {type(Ks).__name__}"
        raise TypeError(f"viewmats and Ks must be torch tensors [C, 4, 4] and [C, 3, 3], got {got}")
    count = viewmats.shape[0] if viewmats.ndim else 0
    if tuple(viewmats.shape) != (count, 4, 4):
        raise ValueError(f"viewmats must have shape [C, 4, 4], got {list(viewmats.shape)}; add a camera dimension?")
    if tuple(Ks.shape) != (count, 3, 3):
        raise ValueError(f"Ks must have shape [C, 3, 3] with C = {count} as in viewmats, got {list(Ks.shape)}")
    views, intrinsics = viewmats.detach().double().cpu(), Ks.detach().double().cpu()
    rotations = views[:, :3, :3]
    errors = (rotations @ rotations.transpose(1, 2) - torch.eye(3, dtype=torch.float64)).abs().amax(dim=(1, 2))
    last = views[:, 3] - torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    rigid = (errors < 1e-3) & (torch.linalg.det(rotations) > 0) & (last == 0).all(dim=1)
    if not bool(rigid.all() & views.isfinite().all()):
        raise ValueError(
            "viewmats must be rigid and finite world-to-camera matrices (rotation, translation, last row 0 0 0 1), got "
            f"a scaled, mirrored or non-finite one (off a rotation by {float(errors.max()):.2g}); scale or mirror the "
            "object, not the camera"
        )
    below = intrinsics[:, (1, 2, 2, 2), (0, 0, 1, 2)] - torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    if not bool(intrinsics.isfinite().all() & (intrinsics[:, (0, 1), (0, 1)] > 0).all() & (below == 0).all()):
        must = "Ks must read [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], finite, with focal lengths fx, fy > 0 in pixels"
        raise ValueError(f"{must}, got another")
    return views, intrinsics


def pinhole(width: int, height: int, fov: float) -> Tensor:
    """Intrinsics ``[3, 3]`` of a camera that looks through the middle of the picture.

    Args:
        width, height: pixels, ``>= 1``.
        fov: field of view across the **shorter** side, degrees in (0, 180).

    Raises:
        ValueError: when a number is out of range.
    """
    if width < 1 or height < 1:
        raise ValueError(f"width and height must be at least 1 pixel, got {width} x {height}")
    if not 0 < fov < 180:
        raise ValueError(f"fov must lie between 0 and 180 degrees, got {fov}")
    focal = 0.5 * min(width, height) / math.tan(math.radians(fov) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)


def look_at(
    eye: Tensor | Sequence[float], target: Tensor | Sequence[float], up: Tensor | Sequence[float] | str = "+y"
) -> Tensor:
    """World-to-camera matrices of cameras at ``eye`` that look at ``target``.

    Args:
        eye: ``[..., 3]``.
        target: ``[..., 3]``.
        up: which way is up in the picture: ``[..., 3]``, or one of ``UP_AXES`` but "unknown".

    Returns:
        ``[..., 4, 4]`` float32, OpenCV axes.

    Raises:
        ValueError: when ``eye`` and ``target`` coincide, or ``up`` is parallel to the line of sight.
    """
    position = torch.as_tensor(eye, dtype=torch.float64)
    forward = torch.as_tensor(target, dtype=torch.float64).to(position.device) - position
    up_vector = axis_vector(up) if isinstance(up, str) else torch.as_tensor(up, dtype=torch.float64)
    position, forward, up_vector = torch.broadcast_tensors(position, forward, up_vector.to(position.device))
    length = forward.norm(dim=-1, keepdim=True)
    if not bool((length > 0).all() & length.isfinite().all()):
        raise ValueError("look_at needs an eye away from the target, got both in one place or a non-finite one")
    forward = forward / length
    right = torch.linalg.cross(forward, up_vector / up_vector.norm(dim=-1, keepdim=True))
    length = right.norm(dim=-1, keepdim=True)
    if not bool((length > 1e-6).all()):
        raise ValueError("up must not be parallel to the line of sight, got such an up; choose another up vector")
    right = right / length
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)  # [..., 3, 3]
    viewmats = torch.eye(4, dtype=torch.float64, device=position.device).repeat(*position.shape[:-1], 1, 1)
    viewmats[..., :3, :3] = rotation
    viewmats[..., :3, 3] = -(rotation @ position[..., None])[..., 0]
    return viewmats.float()


def orbit_cameras(
    n: int,
    *,
    center: Tensor | Sequence[float] = (0.0, 0.0, 0.0),
    distance: float = 3.0,
    elevation: float = 15.0,
    up: str = "+y",
    width: int = 256,
    height: int = 256,
    fov: float = 40.0,
) -> Cameras:
    """``n`` cameras evenly spaced on a circle about ``center``, counter-clockwise seen from above.

    The first faces the front (+z for up +y, -z for -y, -y for +z).

    Args:
        n: how many, ``>= 1``.
        center: ``[3]`` point that all of them look at.
        distance: from the centre, scene units, ``> 0``.
        elevation: degrees above the horizon, between -90 and 90 (excluded).
        up: one of ``UP_AXES`` but "unknown".
        width, height: pixels.
        fov: across the shorter side of the picture, degrees.

    Raises:
        ValueError: when a number is out of range.
    """
    _check_ring(n, distance)
    if not -90 < elevation < 90:
        raise ValueError(f"elevation must lie between -90 and 90 degrees, got {elevation}; the poles have no up")
    angles = torch.deg2rad(360.0 / n * torch.arange(n, dtype=torch.float64))[:, None]
    level = math.radians(elevation)
    return _around(center, distance, up, math.cos(level), math.sin(level), angles, width, height, fov)


def sphere_cameras(
    n: int = 12,
    *,
    center: Tensor | Sequence[float] = (0.0, 0.0, 0.0),
    distance: float = 3.2,
    up: str = "+y",
    width: int = 224,
    height: int = 224,
    fov: float = 40.0,
    elevations: tuple[float, float] = (-90.0, 90.0),
) -> Cameras:
    """``n`` cameras spread evenly over a sphere, or a belt of it (a Fibonacci lattice), that look at its centre.

    The defaults frame `Mesh.normalize`'s unit sphere. The first cameras look from above, the last from below, none
    from a pole; CLIP-GS takes 36 views of an object.

    Args:
        n: how many, ``>= 1``; a single one looks at the front.
        center, distance, up, width, height, fov: as in `orbit_cameras`.
        elevations: lowest and highest of the belt, degrees, ``-90 <= lowest < highest <= 90``.

    Raises:
        ValueError: when a number is out of range.
    """
    _check_ring(n, distance)
    if not -90 <= elevations[0] < elevations[1] <= 90:
        raise ValueError(f"elevations must rise within -90..90 degrees, got {elevations}")
    index = torch.arange(n, dtype=torch.float64)[:, None]
    bottom, top = (math.sin(math.radians(degrees)) for degrees in elevations)
    level = top - (top - bottom) * (2 * index + 1) / (2 * n)  # sine of the elevation
    angles = index * math.pi * (3 - math.sqrt(5))  # the golden angle
    return _around(center, distance, up, (1 - level**2).sqrt(), level, angles, width, height, fov)


def _check_ring(n: int, distance: float) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1 camera, got {n}")
    if not (distance > 0 and math.isfinite(distance)):
        raise ValueError(f"distance must be positive and finite, got {distance}")


def _around(
    center: Tensor | Sequence[float],
    distance: float,
    up: str,
    away: Tensor | float,
    level: Tensor | float,
    angles: Tensor,
    width: int,
    height: int,
    fov: float,
) -> Cameras:
    """Cameras at the azimuths ``angles [n, 1]``, ``away`` and ``level`` the cosine and sine of their elevations."""
    up_vector = axis_vector(up)
    front = axis_vector(FRONT[up])
    side = torch.linalg.cross(up_vector, front)
    directions = away * (angles.cos() * front + angles.sin() * side) + level * up_vector  # [n, 3]
    target = torch.as_tensor(center, dtype=torch.float64).detach().cpu()
    viewmats = look_at(target + distance * directions, target, up)
    return Cameras(viewmats, pinhole(width, height, fov).repeat(len(angles), 1, 1), width, height)


def turntable_cameras(
    splats: Splats,
    n: int,
    *,
    width: int = 256,
    height: int = 256,
    fov: float = 40.0,
    elevation: float = 15.0,
    up: str | None = None,
) -> Cameras:
    """`orbit_cameras` at 1.05 of the distance where the splats just fit the picture from all around.

    The middle and the size are taken where the visible substance lies (opacity times area), so a
    few floaters far off, or a haze of transparent gaussians, do not shrink the object. Cameras keep so far off
    that the rasterisers' near plane (0.01) cuts nothing away: an object much smaller than that appears small.

    Args:
        splats: what to frame; at least one gaussian with finite centre.
        n, width, height, fov, elevation: as in `orbit_cameras`.
        up: one of ``UP_AXES``; None takes ``splats.up_axis``, and "unknown" means "+y".

    Raises:
        ValueError: when there is nothing to frame or a number is out of range.
    """
    up = up or splats.up_axis
    up = "+y" if up == "unknown" else up
    center, radius = visible_sphere(splats)
    orbit = partial(orbit_cameras, center=center, elevation=elevation, up=up, width=width, height=height, fov=fov)
    distance = _MARGIN * _fitting_distance(splats, center, orbit(12))
    return orbit(n, distance=max(distance, radius + 2 * NEAR))


def visible_sphere(splats: Splats) -> tuple[Tensor, float]:
    """Centre ``[3]`` and radius of the sphere that holds the visible substance (opacity times area, giants capped), but
    for 0.2 % at either end of each axis; ValueError when no gaussian has a finite centre.
    """
    means, sizes, weights = _substance(splats)
    corners = [weighted_quantiles(means[:, axis], weights, (_OUTSIDE, 1 - _OUTSIDE)) for axis in range(3)]
    center = torch.tensor(corners, dtype=torch.float64).mean(dim=1)
    radius = weighted_quantiles((means - center).norm(dim=1) + sizes, weights, (1 - _OUTSIDE,))[0]
    return center, radius if radius > 1e-9 else 1.0


def _substance(splats: Splats) -> tuple[Tensor, Tensor, Tensor]:
    """Centres ``[M, 3]``, largest scales ``[M]`` and visible shares ``[M]`` of at most 50,000 finite ones, float64."""
    splats.bounds()  # says what is wrong when there is nothing to frame
    keep = splats.means.detach().isfinite().all(dim=1).nonzero()[:, 0]
    chosen = splats[keep[:: math.ceil(len(keep) / 50_000)]].detach().to("cpu")
    sizes = torch.nan_to_num(chosen.scales.amax(dim=1), nan=0.0, posinf=0.0).double()
    area = torch.nan_to_num(chosen.area(), nan=0.0, posinf=0.0)
    area = area.clamp_max(10 * area.median())  # a few giants must not outweigh the object
    weights = torch.nan_to_num(chosen.opacities * area, nan=0.0).double()
    return chosen.means.double(), sizes, weights if float(weights.sum()) > 0 else torch.ones_like(weights)


def _fitting_distance(splats: Splats, center: Tensor, ring: Cameras) -> float:
    """Distance from ``center`` at which, seen from every direction of the ring, the substance fits the picture."""
    means, sizes, weights = _substance(splats)
    tangents = torch.tensor([ring.width, ring.height]).double() / (2 * ring.Ks[0, 0, 0])
    distances = []
    for rotation in ring.viewmats[:, :3, :3].double():
        local = (means - center) @ rotation.T  # [M, 3]
        needed = ((local[:, :2].abs() + sizes[:, None]) / tangents).amax(dim=1) - local[:, 2]
        distances.append(weighted_quantiles(needed, weights, (1 - _OUTSIDE,))[0])
    return max(distances)


def weighted_quantiles(values: Tensor, weights: Tensor, quantiles: Sequence[float]) -> list[float]:
    """The values ``[N]`` below which the given shares of the weight ``[N]`` lie."""
    return np.quantile(values.numpy(), quantiles, weights=weights.numpy(), method="inverted_cdf").tolist()


def axis_vector(axis: str) -> Tensor:
    """Unit vector ``[3]`` (float64) of one of ``UP_AXES``; ValueError for "unknown" or another word."""
    if axis not in UP_AXES or axis == "unknown":
        raise ValueError(f"up must be one of {', '.join(UP_AXES[:-1])}, got {axis!r}")
    vector = torch.zeros(3, dtype=torch.float64)
    vector["xyz".index(axis[1])] = 1.0 if axis[0] == "+" else -1.0
    return vector
