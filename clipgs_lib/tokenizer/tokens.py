"""The GS Tokenizer: splats cut into patches (farthest points, and the gaussians nearest to each), patches to tokens."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import ORDERS, farthest_points, nearest, quat_to_rotmat
from .batch import SplatBatch
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
    """A token for each patch, and the columns of `Patches` that it stands for."""

    tokens: Tensor  # [B, G, W]; of the tokenizer zero where the mask is False
    centers: Tensor  # [B, G, 3]
    indices: Tensor  # [B, G, M] int64
    mask: Tensor  # [B, G] bool


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
        return Tokens(tokens, *patches)

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


class PointPatchEncoder(nn.Module):
    """Uni3D's mini-PointNet: one vector of the positions and colours of a patch, or of other ``channels``.

    Names and shapes in the state dict are those of Uni3D's ``point_encoder.encoder``: ``first_conv.0, 1, 3`` and
    ``second_conv.0, 1, 3``. ``widths`` are the channels ``a, b, c`` of 6 -> a -> b, max over the patch beside each,
    2 b -> c -> ``dim``, max.
    """

    def __init__(self, dim: int, widths: tuple[int, int, int] = (128, 256, 512), channels: int = 6) -> None:
        super().__init__()
        first, middle, second = widths
        self.dim, self.channels = dim, channels
        self.first_conv = nn.Sequential(
            nn.Conv1d(channels, first, 1), nn.BatchNorm1d(first), nn.ReLU(), nn.Conv1d(first, middle, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * middle, second, 1), nn.BatchNorm1d(second), nn.ReLU(), nn.Conv1d(second, dim, 1)
        )

    def forward(self, points: Tensor) -> Tensor:
        """Encode patches ``[P, M, 6]``, positions about the patch's centre, then RGB in ``[0, 1]``, as ``[P, dim]``."""
        patches, size, _ = points.shape
        expand, norm, lift = _layers(self.first_conv)
        rows = F.relu(norm(_pointwise(expand, points.reshape(patches * size, self.channels))))
        local = _pointwise(lift, rows)  # [P * M, b]
        pooled = local.view(patches, size, -1).amax(dim=1)  # [P, b]
        mix, norm, last = _layers(self.second_conv)
        weight = mix.weight[:, :, 0]  # [c, 2 b]: the pooled half is the same for all of a patch
        shared = F.linear(pooled, weight[:, : pooled.shape[1]], mix.bias)  # [P, c]
        mixed = F.linear(local, weight[:, pooled.shape[1] :]).view(patches, size, -1) + shared[:, None]
        rows = F.relu(norm(mixed.flatten(0, 1)))
        return _pointwise(last, rows).view(patches, size, -1).amax(dim=1)


class AttributeEncoder(nn.Module):
    """Three convolutions along the sorted gaussians of a patch, pooled: one vector of all attributes.

    Width 3, strides 1, 1, 2, each with batch norm and ReLU [P]; then a linear layer to the width of the tokens and a
    layer norm, whose weight and bias start at zero when ``zero_init`` holds: the output is then exactly zero, and
    gradients reach the branch through the norm's weight from the first step on. (A zero batch norm *before* a ReLU
    would stay zero for ever.) The pool over the sequence is "max" or "mean"; ``norm_inputs`` standardises the input.
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        widths: tuple[int, int, int] = (64, 128, 256),
        *,
        pool: str = "max",
        zero_init: bool = True,
        norm_inputs: bool = True,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.norm_inputs = nn.BatchNorm1d(channels, affine=False) if norm_inputs else nn.Identity()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for before, after, stride in zip((channels, *widths), widths, (1, 1, 2), strict=False):
            self.convs.append(nn.Conv1d(before, after, 3, stride, padding=1, bias=False))
            self.norms.append(nn.BatchNorm1d(after))
        self.proj = nn.Linear(widths[-1], dim)
        self.out_norm = nn.LayerNorm(dim)
        if zero_init:
            nn.init.zeros_(self.out_norm.weight)
            nn.init.zeros_(self.out_norm.bias)

    def forward(self, features: Tensor, orders: Tensor) -> Tensor:
        """Encode patches of attributes ``[P, M, C]`` as ``[P, dim]``.

        ``orders [O, P, M]`` int64 are the sequences in which to see each patch; the result is the mean over O.
        """
        patches, size, channels = features.shape
        features = self.norm_inputs(features.reshape(patches * size, channels)).view(patches, size, channels)
        rows = torch.arange(patches, device=features.device)[:, None]
        sequences = torch.cat([features[rows, order] for order in orders])  # [O * P, M, C]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            sequences = _convolved(cast(nn.Conv1d, conv), sequences)
            sequences = F.relu(norm(sequences.flatten(0, 1))).view(sequences.shape)
        pooled = sequences.amax(dim=1) if self.pool == "max" else sequences.mean(dim=1)  # [O * P, width]
        return self.out_norm(self.proj(pooled.view(len(orders), patches, -1).mean(dim=0)))


def _layers(block: nn.Sequential) -> tuple[nn.Conv1d, nn.BatchNorm1d, nn.Conv1d]:
    """The layers with weights of convolution, norm, ReLU, convolution."""
    return cast(nn.Conv1d, block[0]), cast(nn.BatchNorm1d, block[1]), cast(nn.Conv1d, block[3])


def _pointwise(conv: nn.Conv1d, rows: Tensor) -> Tensor:
    """A convolution of width 1 of rows ``[R, C]``."""
    return F.linear(rows, conv.weight[:, :, 0], conv.bias)


def _convolved(conv: nn.Conv1d, sequences: Tensor) -> Tensor:
    """A convolution of width 3, padded by one zero, of channels-last sequences ``[P, M, C]``."""
    count, _, channels = sequences.shape
    padded = F.pad(sequences, (0, 0, 1, 1))
    windows = padded.unfold(1, 3, conv.stride[0])  # [P, M', C, 3]
    weight = conv.weight.flatten(1)  # [out, 3 C], channel-major like the windows
    return F.linear(windows.reshape(count, -1, 3 * channels), weight)
