"""Farthest point sampling and nearest neighbours, exact, batched and masked; random points within gaussians.

Both are functions of the coordinates: permuting the points permutes the result. Where distances tie, the point wins
that comes first along the Z-order curve through the cloud's box; among points in one cell of the curve, that with the
lower first coordinate, then the next coordinates; among points in one place, that with the lower index. Distances are
sums of squared differences in float32, never ``|a|^2 + |b|^2 - 2ab``, which cancels away from the origin.

On the CPU numba kernels look only at points that their boxes do not rule out; on other devices plain tensor operations
look at all, with the same result.
"""

from typing import Any

import torch
from torch import Tensor

from .orders import CURVE_BITS, grid_cells, z_keys
from .rotations import quat_to_rotmat

_LARGEST = 1e18  # coordinate whose square is still finite


def farthest_points(points: Tensor, count: int, *, mask: Tensor | None = None) -> Tensor:
    """Choose points one after the other, each the farthest from those chosen before (exact FPS).

    Starts at the valid point that is farthest from the mean of the valid points. No point is chosen twice, also where
    points coincide; where fewer than ``count`` are valid, the list repeats from its start.

    Args:
        points: ``[B, N, D]`` float32, finite where valid; D is 3 for positions, any other works too.
        count: how many to choose, ``>= 1``.
        mask: ``[B, N]`` bool, True where a point is valid; all are without it.

    Returns:
        ``[B, count]`` int64 indices into N.

    Raises:
        TypeError, ValueError: when dtypes or shapes do not hold, a cloud has no valid point, or one is not finite.
    """
    valid = _checked(points, mask, "points")
    if isinstance(count, bool) or count < 1:
        raise ValueError(f"count must be at least 1, got {count!r}")
    points = points.detach()
    if points.device.type == "cpu":
        from .sampling_cpu import farthest_cpu

        return farthest_cpu(points, valid, int(count))
    return _farthest_any_device(points, valid, int(count))


def nearest(points: Tensor, centers: Tensor, k: int, *, mask: Tensor | None = None) -> Tensor:
    """The k valid points nearest to each centre, nearest first; errors as of `farthest_points`.

    Args:
        points, mask: as in `farthest_points`, with D = 3.
        centers: ``[B, G, 3]`` float32, finite.
        k: how many, ``>= 1``; where fewer points are valid, the nearest repeats at the end.

    Returns:
        ``[B, G, k]`` int64 indices into N.
    """
    valid = _checked(points, mask, "points")
    _checked(centers, None, "centers")
    if centers.shape[0] != points.shape[0] or centers.shape[2] != points.shape[2]:
        raise ValueError(
            f"centers must have shape [{points.shape[0]}, G, {points.shape[2]}], got {list(centers.shape)}"
        )
    if isinstance(k, bool) or k < 1:
        raise ValueError(f"k must be at least 1, got {k!r}")
    points, centers = points.detach(), centers.detach()
    if points.device.type == "cpu":
        from .sampling_cpu import nearest_cpu

        return nearest_cpu(points, centers, int(k), valid)
    return _nearest_any_device(points, centers, int(k), valid)


def points_within(means: Tensor, quats: Tensor, scales: Tensor, *, seed: int = 0) -> Tensor:
    """A random point within each gaussian: normally distributed about its centre, cut at 2 scales along its axes.

    Args:
        means, quats, scales: ``[N, 3]``, ``[N, 4]`` (wxyz) and ``[N, 3]`` (linear) of gaussians.
        seed: same seed, same points.

    Returns:
        ``[N, 3]``, in the frame of the means.
    """
    offsets = torch.randn(scales.shape, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2).to(scales)
    return means + (quat_to_rotmat(quats) @ (offsets * scales)[:, :, None])[:, :, 0]


def _checked(points: Any, mask: Tensor | None, name: str) -> Tensor:
    """The mask ``[B, N]`` of a batch of clouds that fulfils what the functions above promise to demand."""
    if not isinstance(points, Tensor) or points.dtype != torch.float32:
        got = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise TypeError(f"{name} must be a float32 tensor of shape [B, N, 3], got {got}")
    if points.ndim != 3 or points.shape[2] < 1:
        raise ValueError(f"{name} must have shape [B, N, 3], got {list(points.shape)}; add a batch dimension of 1?")
    shape = points.shape[:2]
    valid = torch.ones(shape, dtype=torch.bool, device=points.device) if mask is None else mask
    if valid.dtype != torch.bool or valid.shape != shape or valid.device != points.device:
        raise ValueError(
            f"mask must be bool of shape {list(shape)} on {points.device}, "
            f"got {valid.dtype} {list(valid.shape)} on {valid.device}"
        )
    if not bool(valid.any(dim=1).all()):
        empty = (~valid.any(dim=1)).nonzero()[:, 0].tolist()
        raise ValueError(f"every cloud needs at least one valid point, got none in {empty}")
    good = (points.detach().abs() < _LARGEST).all(dim=2)  # NaN is not below anything
    bad = int((valid & ~good).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite and below {_LARGEST:.0e} where the mask holds, got {bad} that are not; "
            "mask or remove them"
        )
    return valid


# ---- devices without numba kernels; also what the kernels are tested against ---------------------------------------


def _farthest_any_device(points: Tensor, valid: Tensor, count: int) -> Tensor:
    """`farthest_points` as tensor operations, one step of all clouds at a time."""
    order = _canonical_order(points, valid)  # [B, N], valid ones first
    points = points.gather(1, order[..., None].expand_as(points)).masked_fill(~valid.gather(1, order)[..., None], 0.0)
    counts = valid.sum(dim=1)
    tail = torch.arange(points.shape[1], device=points.device)
    backwards = (tail[-1] - tail)[None]  # [1, N]: among equals the first gives the largest key
    beyond = tail[None] >= counts[:, None]
    means = (points.double().sum(dim=1) / counts[:, None]).float()
    distances = _squares(points, means[:, None]).masked_fill(beyond, -1.0)
    closest = torch.full_like(distances, torch.inf).masked_fill(beyond, -1.0)
    chosen = []
    for _ in range(min(count, points.shape[1])):
        key = (_bits(distances) << 32) | backwards
        last = tail[-1] - (key.amax(dim=1) & 0xFFFFFFFF)  # [B]
        chosen.append(last)
        closest = closest.scatter(1, last[:, None], -1.0)
        center = points.gather(1, last[:, None, None].expand(-1, 1, points.shape[2]))
        closest = distances = torch.minimum(closest, _squares(points, center))
    ranks = torch.stack(chosen, dim=1)  # [B, min(count, N)]
    repeated = torch.arange(count, device=points.device)[None] % counts[:, None]  # [B, count]
    return order.gather(1, ranks.gather(1, repeated))


def _nearest_any_device(points: Tensor, centers: Tensor, k: int, valid: Tensor) -> Tensor:
    """`nearest` as tensor operations, a slab of centres at a time so that distances stay below about 1 GB."""
    order = _canonical_order(points, valid)
    points = points.gather(1, order[..., None].expand_as(points))
    masked = ~valid.gather(1, order)
    ranks = torch.arange(points.shape[1], device=points.device)
    count = min(k, points.shape[1])
    step = max(1, 2**26 // max(1, points.shape[0] * points.shape[1]))
    slabs = []
    for slab in centers.split(step, dim=1):
        squares = _squares(points[:, None].nan_to_num(), slab[:, :, None])  # [B, g, N]
        keys = (_bits(squares.masked_fill(masked[:, None], torch.inf)) << 32) | ranks
        slabs.append(keys.topk(count, dim=2, largest=False, sorted=True).values & 0xFFFFFFFF)
    indices = torch.cat(slabs, dim=1)  # [B, G, count], ranks
    indices = torch.cat([indices, indices[..., :1].expand(-1, -1, k - count)], dim=2)
    short = torch.arange(k, device=points.device)[None] >= valid.sum(dim=1)[:, None]  # [B, k]
    indices = torch.where(short[:, None], indices[..., :1], indices)
    return order.gather(1, indices.flatten(1)).view(indices.shape)


def _canonical_order(points: Tensor, valid: Tensor) -> Tensor:
    """Permutations ``[B, N]``: valid points first, by key along the Z-order curve, then coordinates, then index."""
    first = valid.int().argmax(dim=1)[:, None, None].expand(-1, 1, points.shape[2])
    points = torch.where(valid[..., None], points, points.gather(1, first))  # leaves the box as it is
    axes = torch.nn.functional.pad(points[..., :3], (0, max(0, 3 - points.shape[2])))
    columns = [~valid, z_keys(grid_cells(axes, CURVE_BITS)), *points.unbind(2)]  # the first matters most
    order = torch.arange(points.shape[1], device=points.device).expand(points.shape[:2])
    for column in columns[::-1]:
        order = order.gather(1, column.gather(1, order).argsort(dim=1, stable=True))
    return order


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances ``[...]`` of ``[..., D]``, summed from the first axis on."""
    total = (a[..., 0] - b[..., 0]).square()
    for d in range(1, a.shape[-1]):
        total = total + (a[..., d] - b[..., d]).square()
    return total


def _bits(values: Tensor) -> Tensor:
    """int64 that sort like the float32 ``values``, of which the negative ones are all -1."""
    return torch.where(values < 0, -1, values.view(torch.int32).long())
