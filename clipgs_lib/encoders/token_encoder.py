"""Encoders that cut a splat into patches, turn each into a token and run a transformer over the tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..geometry import ORDERS, points_within
from ..splats import Splats
from ..tokenizer import Patches, SplatBatch, collate
from ..vectors import unit
from .base import Encoder
from .config import EncoderConfig, PointBertConfig

_OCCLUDED = 64  # objects with a patch left out that run as one batch


class TokenOutput(NamedTuple):
    """What enters the transformer for each patch, before its position is added."""

    tokens: Tensor  # [B, G, W] float
    centers: Tensor  # [B, G, 3] of the patches, in the normalised frame
    indices: Tensor  # [B, G, M] int64, gaussians of each patch
    mask: Tensor  # [B, G] bool; False for a repeated patch of an object with too few gaussians


class TokenEncoder(Encoder):
    """Splats -> ``[B, D]``: patches, tokens, and blocks ``block(x [B, L, W], attn_mask=...)`` over CLS and tokens."""

    config: EncoderConfig | PointBertConfig

    # ---- to be filled in -------------------------------------------------------------------------------------

    @abstractmethod
    def patchify(self, batch: SplatBatch) -> Patches:
        """Cut objects into patches."""

    @abstractmethod
    def tokenize(self, batch: SplatBatch, patches: Patches | None = None) -> TokenOutput:
        """Turn the patches of B objects into a token each; None cuts them first."""

    @abstractmethod
    def enter(self, tokens: TokenOutput) -> tuple[Tensor, Tensor | None]:
        """What the first block gets ``[B, 1+K, W]``, CLS first, and which keys may be looked at."""

    @abstractmethod
    def leave(self, cls: Tensor) -> Tensor:
        """The CLS token ``[B, W]`` after the last block, in the teacher's space ``[B, D]``."""

    # ---- for everybody ---------------------------------------------------------------------------------------

    def collate(self, objects: Sequence[Splats], *, normalize: bool = True) -> SplatBatch:
        """Splats, each centred and scaled to the unit sphere, as one batch on the encoder's device."""
        batch = collate(objects, normalize=normalize, color_default=self.config.color_default)
        return (on_surface(batch) if self.config.attributes == "surface" else batch).to(self.device)

    def embed(self, tokens: TokenOutput) -> Tensor:
        """Run the transformer over what `tokenize` made: ``[B, D]``, **not** normalised."""
        x, attend = self.enter(tokens)
        for block in self.blocks:
            x = block(x, attn_mask=attend)
        return self.leave(x[:, 0])

    def forward(self, batch: SplatBatch) -> Tensor:
        """Embed B objects on the encoder's device, with gradients: ``[B, D]``, **not** normalised."""
        patches = self.patchify(batch)
        if self.training and self.config.patch_dropout > 0:  # before the tokens are made, which takes most of the time
            patches = drop_patches(patches, self.config.patch_dropout)
        return self.embed(self.tokenize(batch, patches))

    def tokens(self, splats: Splats | Sequence[Splats]) -> TokenOutput:
        """Tokens of one object or many, as they enter the transformer, with the patches they stand for."""
        with self._evaluating():
            return self.tokenize(self.collate(self.listed(splats)))

    def relevance(self, splats: Splats, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How much each patch speaks for a direction, by occlusion: what the cosine loses when it is left out.

        Args:
            splats: one object.
            direction: ``[D]`` unit-norm, such as the embedding of a text.

        Returns:
            ``[G]`` differences of cosines, 0 where masked; and ``indices [G, M]`` and ``mask [G]`` of the patches.
        """
        with self._evaluating():
            tokens = self.tokenize(self.collate([splats]))
            whole = unit(self.embed(tokens))[0]
            keep = tokens.mask & ~torch.eye(tokens.mask.shape[1], dtype=torch.bool, device=self.device)  # [G, G]
            left = []
            for mask in keep.split(_OCCLUDED):
                rows = TokenOutput(*(part.expand(len(mask), *part.shape[1:]) for part in tokens[:3]), mask)
                left.append(unit(self.embed(rows)))
            change = (whole - torch.cat(left)) @ direction.to(self.device)  # [G]
        return change.cpu(), tokens.indices[0].cpu(), tokens.mask[0].cpu()


def on_surface(batch: SplatBatch) -> SplatBatch:
    """Move each gaussian of a batch to a point on what its object's gaussians cover, and give it the colour there.

    A set of splats keeps no mesh, so these points stand for points sampled on one: as many as there were centres, in
    their frame, drawn by opacity and visible area as `fitting.init_from_splats` draws them, and the same whatever the
    order of the gaussians. The other attributes are as before, and belong to other points.
    """
    means, colors = batch.means.clone(), batch.colors.clone()
    for row, mask in enumerate(batch.mask):
        columns = {name: getattr(batch, name)[row, mask] for name in ("quats", "scales", "opacities")}
        part = Splats.from_colors(means[row, mask], colors[row, mask], **columns)
        part = part[ORDERS["xyz"](part.means, bits=20)].subsample(len(part), replacement=True)
        means[row, mask], colors[row, mask] = points_within(part.means, part.quats, part.scales), part.colors
    return replace(batch, means=means, colors=colors)


def attended(mask: Tensor) -> Tensor | None:
    """Which keys attention may look at ``[B, 1, 1, 1+G]``, CLS first; None where all patches ``[B, G]`` are real.

    None lets attention take its fastest kernels, which know no mask.
    """
    if bool(mask.all()):
        return None
    return nn.functional.pad(mask, (1, 0), value=True)[:, None, None, :]


def drop_patches(patches: Patches, share: float) -> Patches:
    """Leave out a random ``share`` of each object's G patches, repeated ones first (FLIP, arXiv 2212.00794).

    ``max(1, int(G * (1 - share)))`` of each object stay, in their order.
    """
    kept = max(1, int(patches.mask.shape[1] * (1 - share)))
    luck = torch.rand(patches.mask.shape, device=patches.mask.device).masked_fill(~patches.mask, -1.0)
    index = luck.topk(kept, dim=1).indices.sort(dim=1).values  # [B, K]
    rows = torch.arange(len(index), device=index.device)[:, None]
    return Patches(*(column[rows, index] for column in patches))
