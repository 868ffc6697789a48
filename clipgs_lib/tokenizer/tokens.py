"""The GS Tokenizer: splats cut into patches (farthest points, and the gaussians nearest to each), patches to tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..geometry import ORDERS, farthest_points, nearest, quat_to_rotmat
from .batch import SplatBatch
from .branches import AttributeEncoder, PointPatchEncoder
from .config import TokenizerConfig


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


class Tokens(NamedTuple):
    """``tokens [B, G, dim]`` (zero where ``patches.mask`` is False) and the patches that they stand for."""

    tokens: Tensor
    patches: Patches


class GSTokenizer(nn.Module):
    """Splats to tokens, as in CLIP-GS: patches, linear & norm, order indicator, refinement block.

    The result is a function of the set of gaussians: their order, the sign of their quaternions and the padding of the
    batch change it by rounding only.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        channels = len(config.channels) if config.attributes == "naive" else 6
        self.points = PointPatchEncoder(config.dim, config.point_widths, channels)
        self.attributes: AttributeEncoder | None = None
        if config.attributes == "all":
            self.attributes = AttributeEncoder(
                len(config.channels),
                config.dim,
                config.attribute_widths,
                pool=config.pool,
                zero_init=config.zero_init,
                norm_inputs=config.norm_inputs,
            )

    def patchify(self, batch: SplatBatch) -> Patches:
        """The patches that `forward` would make; a loader may do so ahead, in its own processes."""
        return patchify(batch, self.config.groups, self.config.group_size, sort=self.config.sort_patches)

    def forward(self, batch: SplatBatch, patches: Patches | None = None) -> Tokens:
        """Tokens ``[B, G, dim]`` of B objects in the unit sphere, and their patches, which may be known already."""
        patches = self.patchify(batch) if patches is None else patches
        where = patches.mask.nonzero(as_tuple=True)  # object and patch of P real patches
        rows = patches.indices[where]  # [P, M]
        objects = where[0][:, None]
        offsets = batch.means[objects, rows] - patches.centers[where][:, None]  # [P, M, 3]
        features = torch.cat([offsets, batch.colors[objects, rows]], dim=2)  # [P, M, 6]
        if self.config.attributes in ("all", "naive"):
            features = attribute_channels(batch, objects, rows, offsets, self.config)  # these six and more
        values = self.points(features[..., : self.points.channels])
        if self.attributes is not None:
            values = values + self.attributes(features, self._orders(offsets, where[1]))
        tokens = values.new_zeros(*patches.mask.shape, self.config.dim).index_put(where, values)
        return Tokens(tokens, patches)

    @torch.no_grad()
    def _orders(self, offsets: Tensor, ranks: Tensor) -> Tensor:
        """Sequences ``[O, P, M]`` in which the attribute branch sees patches ``offsets [P, M, 3]`` of ranks ``[P]``."""
        config = self.config
        if not config.order_within:  # nearest first, as they come
            return torch.arange(offsets.shape[1], device=offsets.device).expand(1, *offsets.shape[:2])
        if config.combine == "average" or len(config.orders) == 1:
            return torch.stack([ORDERS[name](offsets) for name in config.orders])
        turn = ranks % len(config.orders)
        out = torch.empty(offsets.shape[:2], dtype=torch.int64, device=offsets.device)
        for index, name in enumerate(config.orders):
            out[turn == index] = ORDERS[name](offsets[turn == index])
        return out[None]


def attribute_channels(
    batch: SplatBatch, objects: Tensor, rows: Tensor, offsets: Tensor, config: TokenizerConfig
) -> Tensor:
    """All attributes of gaussians ("linear & norm"), in the order of `TokenizerConfig.channels`.

    Args:
        objects, rows: ``[P, 1]`` and ``[P, M]`` int64 into B and N.
        offsets: ``[P, M, 3]`` means relative to the centre of the patch.
        config: squash and rotation.

    Returns:
        ``[P, M, 19]``, or 14 channels with quaternions.
    """
    opacities, scales = batch.opacities[objects, rows][..., None], batch.scales[objects, rows]
    if config.squash == "sigmoid":  # of the stored logit and log: sigmoid(logit(o)) = o, sigmoid(log(s)) = s / (1 + s)
        scales = scales / (1 + scales)
    elif config.squash == "sigmoid-linear":
        opacities, scales = opacities.sigmoid(), scales.sigmoid()
    quats = batch.quats[objects, rows]
    if config.rotation == "matrix":
        rotations = quat_to_rotmat(quats).flatten(2)
    else:  # the first component that is not zero is positive: one quaternion for each rotation
        first = (quats != 0).int().argmax(dim=-1, keepdim=True)
        rotations = nn.functional.normalize(quats * quats.gather(-1, first).sign(), dim=-1)
    return torch.cat([offsets, batch.colors[objects, rows], opacities, scales, rotations], dim=2)
