"""OpenShape's point transformer ("PPAT") with the parameter names of its published PointBERT checkpoints.

Patches are balls: a set abstraction (PointNet++, arXiv 1706.02413) turns each into a vector, which with its centre is
lifted to the transformer's width. There are no other positions. Centres and colours are read, nothing else of a splat.
"""

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from .. import geometry
from ..tokenizer import Patches, SplatBatch, Tokens
from .configs import PointBertConfig
from .encoder import Inputs, TokenEncoder

HEAD_DIM = 64  # channels of a head [C]
_IN_DIM = 9  # centred xyz, xyz, rgb [C]
_HIDDEN = (64, 64)  # channels of the set abstraction before its output [C]
_CELLS = 2**15  # per unit length, for the order within a ball


class PointBert(TokenEncoder):
    """Centres and colours through OpenShape's transformer into the teacher's space."""

    inputs: Inputs = "points"
    block_parameters = r"ppat\.transformer\.layers\.(\d+)\."
    last_parameters = ("proj.",)
    config: PointBertConfig

    def __init__(self, config: PointBertConfig) -> None:
        super().__init__(config)
        self.ppat = PatchTransformer(config)
        self.proj = nn.Linear(config.width, config.embed_dim)

    @torch.no_grad()
    def patchify(self, batch: SplatBatch) -> Patches:
        """Balls about spread-out centres."""
        index = geometry.farthest_points(batch.means, self.config.groups, mask=batch.mask)  # [B, G]
        centers = batch.means.gather(1, index[..., None].expand(-1, -1, 3))
        indices = ball_query(batch, centers, self.config.radius, self.config.group_size)
        ranks = torch.arange(self.config.groups, device=batch.device)
        return Patches(centers, indices, ranks < batch.mask.sum(dim=1, keepdim=True))

    def tokenize(self, batch: SplatBatch, patches: Patches | None = None) -> Tokens:
        """Patches, each lifted to the transformer's width."""
        patches = self.patchify(batch) if patches is None else patches
        near = patches.gather(torch.cat([batch.means, batch.colors], dim=-1))  # [B, G, M, 6]
        offsets = near[..., :3] - patches.centers[:, :, None]
        tokens = self.ppat.lift_patches(patches.centers, torch.cat([offsets, near], dim=-1))
        return Tokens(tokens, *patches)

    @property
    def blocks(self) -> nn.ModuleList:
        """PPAT's, first to last."""
        return cast(nn.ModuleList, self.ppat.transformer["layers"])

    def enter(self, tokens: Tokens) -> Tensor:
        """``[B, 1+K, W]`` with CLS."""
        return torch.cat([self.ppat.cls_token.expand(len(tokens.mask), 1, -1), tokens.tokens], dim=1)

    def leave(self, cls: Tensor) -> Tensor:
        """``[B, W]`` -> ``[B, D]``, not normalised."""
        return self.proj(cls)


class PatchTransformer(nn.Module):
    """The parts of PPAT, named as in the checkpoints: ``sa``, ``lift``, ``cls_token``, ``transformer``."""

    def __init__(self, config: PointBertConfig) -> None:
        super().__init__()
        widths = (_IN_DIM, *_HIDDEN, config.patch_dim)
        self.sa = nn.ModuleDict(
            {
                "mlp_convs": nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths)),
                "mlp_bns": nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:]),
            }
        )
        lift, norm = nn.Conv1d(config.patch_dim + 3, config.width, 1), nn.LayerNorm(config.width)
        self.lift = nn.ModuleDict({"0": lift, "2": norm})
        self.cls_token = nn.Parameter(torch.randn(config.width))
        blocks = [Block(config.width, config.heads, config.mlp_dim) for _ in range(config.depth)]
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(blocks)})

    def lift_patches(self, centers: Tensor, patches: Tensor) -> Tensor:
        """``[B, G, 3]`` and ``[B, G, M, 9]`` -> ``[B, G, W]``."""
        x = patches.permute(0, 3, 2, 1)  # [B, 9, M, G]
        convs, norms = cast(nn.ModuleList, self.sa["mlp_convs"]), cast(nn.ModuleList, self.sa["mlp_bns"])
        for conv, norm in zip(convs, norms, strict=True):
            x = norm(conv(x)).relu()
        x = torch.cat([centers.transpose(1, 2), x.amax(dim=2)], dim=1)  # [B, 3 + C, G]
        return self.lift["2"](self.lift["0"](x).transpose(1, 2))


class Block(nn.ModuleList):
    """Self-attention with heads of 64 channels, then an MLP, each after a LayerNorm and added to what went in."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        inner = heads * HEAD_DIM
        attention = {
            "to_qkv": nn.Linear(width, 3 * inner, bias=False),
            "to_out": nn.Sequential(nn.Linear(inner, width)),
        }
        mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))
        steps = (nn.ModuleDict(attention), nn.ModuleDict({"net": mlp}))
        super().__init__(nn.ModuleDict({"norm": nn.LayerNorm(width), "fn": step}) for step in steps)

    def forward(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        """``[B, L, W]`` and which keys may be looked at ``[B, 1, 1, L]`` (None: all) -> ``[B, L, W]``."""
        attention, mlp = cast(Any, self[0]), cast(Any, self[1])
        qkv = attention["fn"]["to_qkv"](attention["norm"](x))
        q, k, v = qkv.unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)  # 3 x [B, H, L, 64]
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)  # [B, H, L, 64]
        x = x + attention["fn"]["to_out"](y.transpose(1, 2).flatten(2))
        return x + mlp["fn"]["net"](mlp["norm"](x))


def ball_query(batch: SplatBatch, centers: Tensor, radius: float, count: int) -> Tensor:
    """Up to ``count`` gaussians within ``radius`` of each of ``centers [B, G, 3]``: ``[B, G, count]`` int64 into the N.

    Each centre lies on a gaussian of its object; the first one within reach fills the places that stay empty. OpenShape
    takes the first in the order of its shuffled points. The order here is as arbitrary but a function of the
    coordinates, so that the order of the file does not matter.
    """
    rows = []
    for points, mask, middles in zip(batch.means, batch.mask, centers, strict=True):  # [N, 3], [N], [G, 3]
        order = scattered_order(points)
        order = order[mask[order]]  # [n], real gaussians
        apart = torch.cdist(middles, points[order], compute_mode="donot_use_mm_for_euclid_dist")  # [G, n]
        place = torch.arange(len(order), device=order.device).masked_fill(apart > radius, len(order))  # [G, n]
        nearest = place.topk(min(count, len(order)), dim=1, largest=False, sorted=True).values
        nearest = nn.functional.pad(nearest, (0, count - nearest.shape[1]), value=len(order))
        rows.append(order[nearest.where(nearest < len(order), nearest[:, :1])])
    return torch.stack(rows)


def scattered_order(points: Tensor) -> Tensor:
    """An arbitrary but fixed order of points ``[N, 3]`` that depends on their coordinates alone ``[N]`` int64."""
    cells = (points.detach() * _CELLS).round().long()
    mixed = cells[:, 0] * 73_856_093 ^ cells[:, 1] * 19_349_663 ^ cells[:, 2] * 83_492_791
    for factor in (0x45D9F3B, 0x119DE1F3):  # spread every bit over the low 32
        mixed = ((mixed ^ (mixed >> 16)) * factor) & 0xFFFFFFFF
    return mixed.argsort(stable=True)
