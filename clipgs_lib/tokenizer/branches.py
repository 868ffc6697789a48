"""The two branches of the GS refinement block: a mini-PointNet on positions and colours, convolutions on everything.

Both take patches as rows ``[P, M, C]``, real ones only, so that batch statistics never see padding. Layers keep the
names, shapes and meaning of `torch.nn.Conv1d`; they are computed as products of rows, which on the CPU is faster.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
