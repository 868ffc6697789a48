"""Encoders that cut a splat into patches, turn each into a token and run a transformer over the tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

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
        """The patches that `tokenize` would make; a loader may do so ahead, in its own processes."""

    @abstractmethod
    def tokenize(self, batch: SplatBatch, patches: Patches | None = None) -> TokenOutput:
        """Cut objects into patches and turn each into a token.

        Args:
            batch: B objects, from `clipgs_lib.tokenizer.collate`.
            patches: of this batch, when they are known already.
        """

    @abstractmethod
    def enter(self, tokens: TokenOutput) -> tuple[Tensor, Tensor | None]:
        """What the first block gets ``[B, 1+K, W]``, CLS first, and which keys may be looked at."""

    @abstractmethod
    def leave(self, cls: Tensor) -> Tensor:
        """The CLS token ``[B, W]`` after the last block, in the teacher's space ``[B, D]``."""

    @abstractmethod
    def block_attention(self, block: Any, x: Tensor, attend: Tensor | None) -> Tensor:
        """Softmaxed attention of one block ``[B, H, 1+K, 1+K]`` for what enters it."""

    # ---- for everybody ---------------------------------------------------------------------------------------

    def listed(self, objects: Splats | Sequence[Splats]) -> list[Splats]:
        """Splats as a list, whether one is given or many."""
        return [objects] if isinstance(objects, Splats) else list(objects)

    def collate(self, objects: Sequence[Splats], *, normalize: bool = True) -> SplatBatch:
        """Splats, each centred and scaled to the unit sphere, as one batch on the encoder's device."""
        batch = collate(objects, normalize=normalize, color_default=self.config.color_default)
        return (on_surface(batch) if self.config.attributes == "surface" else batch).to(self.device)

    def embed(self, tokens: TokenOutput) -> Tensor:
        """Run the transformer.

        Args:
            tokens: from `tokenize`.

        Returns:
            ``[B, D]``, **not** normalised.
        """
        x, attend = self.enter(tokens)
        for block in self.blocks:
            x = block(x, attn_mask=attend)
        return self.leave(x[:, 0])

    def forward(self, batch: SplatBatch, patches: Patches | None = None) -> Tensor:
        """Embed a batch, with gradients.

        Args:
            batch: B objects, on the encoder's device.
            patches: of this batch, when they are known already.

        Returns:
            ``[B, D]``, **not** normalised.
        """
        patches = self.patchify(batch) if patches is None else patches
        if self.training and self.config.patch_dropout > 0:  # before the tokens are made, which takes most of the time
            patches = drop_patches(patches, self.config.patch_dropout)
        return self.embed(self.tokenize(batch, patches))

    def tokens(self, splats: Splats | Sequence[Splats]) -> TokenOutput:
        """Tokens of objects, as they enter the transformer, with the patches they stand for.

        Args:
            splats: one object or many, which run as one batch.
        """
        with self._evaluating():
            return self.tokenize(self.collate(self.listed(splats)))

    def attention(self, splats: Splats | Sequence[Splats], layer: int = -1) -> Tensor:
        """Who looks at whom in one block: softmaxed attention; the first row and column are the CLS token's.

        Args:
            splats: one object or many, which run as one batch.
            layer: which block, counted from the last if negative.

        Returns:
            ``[B, H, 1+G, 1+G]``; rows sum to 1, and patches masked for want of gaussians get 0.

        Raises:
            ValueError: when there is no such block.
        """
        depth = self.config.depth
        if not -depth <= layer < depth:
            raise ValueError(f"layer must lie in {-depth} .. {depth - 1}, got {layer}")
        with self._evaluating():
            x, attend = self.enter(self.tokenize(self.collate(self.listed(splats))))
            for block in self.blocks[: layer % depth]:
                x = block(x, attn_mask=attend)
            return self.block_attention(self.blocks[layer % depth], x, attend)

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

    def _with_cls(self, cls: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """CLS ``[B, 1, W]`` before patches ``[B, G, W]``, and which keys may be looked at."""
        return torch.cat([cls, x], dim=1), attended(mask)


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
    """Leave out a random share of each object's patches, repeated ones first (FLIP, arXiv 2212.00794).

    Args:
        patches: G of each object.
        share: in ``[0, 1)``.

    Returns:
        ``max(1, int(G * (1 - share)))`` of each object, in their order.
    """
    kept = max(1, int(patches.mask.shape[1] * (1 - share)))
    luck = torch.rand(patches.mask.shape, device=patches.mask.device).masked_fill(~patches.mask, -1.0)
    index = luck.topk(kept, dim=1).indices.sort(dim=1).values  # [B, K]
    rows = torch.arange(len(index), device=index.device)[:, None]
    return Patches(*(column[rows, index] for column in patches))
