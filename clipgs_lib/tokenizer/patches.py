"""Cutting objects into patches: farthest points as centres, and the gaussians nearest to each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import ORDERS, farthest_points, nearest
from .batch import SplatBatch


class Patches(NamedTuple):
    """G patches of M gaussians for each of B objects.

    ``centers [B, G, 3]`` are means of gaussians. ``indices [B, G, M]`` (int64) are rows of the object, nearest to the
    centre first, so that the first is the centre itself or coincides with it; in an object of fewer than M gaussians
    the first repeats. ``mask [B, G]`` (bool) is False for the patches of an object of fewer than G gaussians that
    repeat earlier ones.
    """

    centers: Tensor
    indices: Tensor
    mask: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """Values of the gaussians of each patch: ``[B, N, ...]`` to ``[B, G, M, ...]``."""
        rows = torch.arange(len(values), device=values.device)[:, None, None]
        return values[rows, self.indices]

    def coverage(self, mask: Tensor) -> Tensor:
        """Share ``[B]`` of the gaussians marked in ``mask [B, N]`` that lie in at least one patch."""
        covered = torch.zeros_like(mask).scatter(1, self.indices.flatten(1), True)
        return (covered & mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)


@torch.no_grad()
def patchify(batch: SplatBatch, groups: int, group_size: int, *, sort: str | None = None) -> Patches:
    """Cut each object into ``groups`` patches of ``group_size`` gaussians (CLIP-GS, "GS Tokenizer"; Uni3D's Group).

    A function of the set of gaussians: their order changes nothing but ``indices``, which follow it.

    Args:
        batch: B objects, each with at least one gaussian.
        groups, group_size: G and M, ``>= 1``.
        sort: order of the patches by their centres: "xyz", "hilbert" or "z"; None keeps the order in which farthest
            point sampling chose them, coarse to fine. Masked patches are last in either case.

    Raises:
        ValueError: when one of these does not hold.
    """
    if sort is not None and sort not in ORDERS:
        raise ValueError(f"sort must be None or one of {', '.join(ORDERS)}, got {sort!r}")
    chosen = farthest_points(batch.means, groups, mask=batch.mask)  # [B, G]
    centers = batch.means.detach().gather(1, chosen[..., None].expand(-1, -1, 3))
    indices = nearest(batch.means, centers, group_size, mask=batch.mask)  # [B, G, M]
    counts = batch.mask.sum(dim=1, keepdim=True)
    mask = torch.arange(groups, device=batch.device)[None] < counts  # [B, G]
    patches = Patches(centers, indices, mask)
    return patches if sort is None else _sorted(patches, sort)


def _sorted(patches: Patches, name: str) -> Patches:
    """The patches along an order of their centres; repeated patches stay last."""
    order = ORDERS[name](patches.centers)  # [B, G]
    late = ~patches.mask.gather(1, order)
    order = order.gather(1, late.int().argsort(dim=1, stable=True))
    rows = torch.arange(len(order), device=order.device)[:, None]
    return Patches(patches.centers[rows, order], patches.indices[rows, order], patches.mask)
