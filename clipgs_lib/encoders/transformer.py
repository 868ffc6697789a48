"""CLIP-GS and Uni3D's point encoder: one transformer of EVA-02 blocks, fed by one tokenizer or the other.

Parameter names are Uni3D's (``point_encoder.*`` of its checkpoints), but for the tokenizer's, which `published` maps.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from ..libraries import import_timm
from ..tokenizer import GSTokenizer, Patches, SplatBatch
from .base import Encoder, TokenOutput
from .config import EncoderConfig, EncoderError

POSITION_DIM = 128  # hidden channels of the positional MLP [C]


class Blocks(nn.Module):
    """The blocks and the last LayerNorm of a timm EVA model; no rotary embedding, no picture stem, no head."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        try:
            model = import_timm().create_model(
                config.block,
                embed_dim=config.width,
                depth=config.depth,
                drop_path_rate=config.drop_path,
                use_rot_pos_emb=False,
                num_classes=0,
            )
        except (RuntimeError, TypeError) as error:
            raise EncoderError(
                f"block must be an EVA model that timm can build, got {config.block!r}: {error}"
            ) from error
        if not isinstance(getattr(model, "fc_norm", None), nn.LayerNorm) or not hasattr(model, "blocks"):
            raise EncoderError(f"block must be an EVA model with a LayerNorm after its blocks, got {config.block!r}")
        heads = model.blocks[0].attn.num_heads
        if config.width % heads:
            raise EncoderError(f"width must be a multiple of the {heads} heads of {config.block}, got {config.width}")
        self.blocks = model.blocks
        self.fc_norm = model.fc_norm

    def forward(self, x: Tensor, attend: Tensor | None) -> Tensor:
        """``[B, 1+G, W]`` with CLS first, and which keys may be looked at -> ``[B, W]``."""
        for block in self.blocks:
            x = block(x, attn_mask=attend)
        return self.fc_norm(x[:, 0])

    def attention_maps(self, x: Tensor, attend: Tensor | None, layer: int) -> Tensor:
        """Softmaxed attention of block ``layer`` ``[B, H, 1+G, 1+G]``, caught inside that block."""
        for block in self.blocks[:layer]:
            x = block(x, attn_mask=attend)
        attention = self.blocks[layer].attn
        caught: list[Tensor] = []
        fused, attention.fused_attn = attention.fused_attn, False  # the fused kernel keeps no map
        watch = attention.attn_drop.register_forward_hook(lambda module, args, out: caught.append(out))
        try:
            self.blocks[layer](x, attn_mask=attend)
        finally:
            watch.remove()
            attention.fused_attn = fused
        return caught[0]


class SplatTransformer(Encoder):
    """Tokens of a splat (or of its centres and colours) through a transformer into the teacher's space.

    Args:
        config: sizes and switches.

    Raises:
        EncoderError: when timm cannot build such blocks.
    """

    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        width = config.width
        self.tokenizer = GSTokenizer(config.tokenizer)
        self.encoder2trans = nn.Linear(config.tokenizer.dim, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Sequential(nn.Linear(3, POSITION_DIM), nn.GELU(), nn.Linear(POSITION_DIM, width))
        self.visual = Blocks(config)
        self.trans2embed = nn.Linear(width, config.embed_dim)

    def patchify(self, batch: SplatBatch) -> Patches:
        """Farthest points and their nearest neighbours."""
        return self.tokenizer.patchify(batch)

    def tokenize(self, batch: SplatBatch, patches: Patches | None = None) -> TokenOutput:
        """Patches and their tokens, mapped to the transformer's width."""
        tokens, patches = self.tokenizer(batch, patches)
        return TokenOutput(self.encoder2trans(tokens), patches.centers, patches.indices, patches.mask)

    def embed(self, tokens: TokenOutput) -> Tensor:
        """``[B, D]``, not normalised."""
        return self.trans2embed(self.visual(*self._enter(tokens)))

    def attention_maps(self, tokens: TokenOutput, layer: int) -> Tensor:
        """Softmaxed attention of one block ``[B, H, 1+G, 1+G]``."""
        return self.visual.attention_maps(*self._enter(tokens), layer)

    def layer_of(self, parameter: str) -> int:
        """0 for tokenizer, CLS and positions, ``1 .. depth`` for the blocks, ``depth + 1`` for what comes after."""
        if block := re.match(r"visual\.blocks\.(\d+)\.", parameter):
            return int(block[1]) + 1
        return self.config.depth + 1 if parameter.startswith(("visual.fc_norm.", "trans2embed.")) else 0

    def _enter(self, tokens: TokenOutput) -> tuple[Tensor, Tensor | None]:
        """``[B, 1+K, W]`` with CLS and positions, patch dropout done, and which keys may be looked at."""
        x = tokens.tokens + self.pos_embed(tokens.centers)  # [B, G, W]
        return self._with_cls((self.cls_token + self.cls_pos).expand(len(x), -1, -1), x, tokens.mask)
