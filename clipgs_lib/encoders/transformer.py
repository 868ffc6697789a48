"""CLIP-GS and Uni3D's point encoder: one transformer of EVA-02 blocks, fed by one tokenizer or the other.

Parameter names are Uni3D's (``point_encoder.*`` of its checkpoints), but for the tokenizer's, which `published` maps.
"""

from typing import cast

import torch
from torch import Tensor, nn

from ..libraries import import_timm
from ..tokenizer import GSTokenizer, Patches, SplatBatch, Tokens
from .configs import EncoderConfig, EncoderError
from .encoder import TokenEncoder

POSITION_DIM = 128  # hidden channels of the positional MLP [C]


def eva_blocks(config: EncoderConfig) -> nn.ModuleDict:
    """``blocks`` and the last LayerNorm ``fc_norm`` of a timm EVA model; no rotary embedding, stem or head.

    Linear layers are drawn as torch draws them [I]. timm draws a deviation of 0.02, less with depth: CLS, the same for
    all, then drowns what the blocks bring, and a small encoder begins with every object in one place.
    """
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
        raise EncoderError(f"block must be an EVA model that timm can build, got {config.block!r}: {error}") from error
    if not isinstance(getattr(model, "fc_norm", None), nn.LayerNorm) or not hasattr(model, "blocks"):
        raise EncoderError(f"block must be an EVA model with a LayerNorm after its blocks, got {config.block!r}")
    heads = model.blocks[0].attn.num_heads
    if config.width % heads:
        raise EncoderError(f"width must be a multiple of the {heads} heads of {config.block}, got {config.width}")
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return nn.ModuleDict({"blocks": model.blocks, "fc_norm": model.fc_norm})


class SplatTransformer(TokenEncoder):
    """Tokens of a splat (or of its centres and colours) through a transformer into the teacher's space.

    EncoderError when timm cannot build such blocks.
    """

    block_parameters = r"visual\.blocks\.(\d+)\."
    last_parameters = ("visual.fc_norm.", "trans2embed.")
    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.inputs = "points" if config.tokenizer.attributes in ("points", "surface") else "splats"
        width = config.width
        self.tokenizer = GSTokenizer(config.tokenizer)
        self.encoder2trans = nn.Linear(config.tokenizer.dim, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Sequential(nn.Linear(3, POSITION_DIM), nn.GELU(), nn.Linear(POSITION_DIM, width))
        self.visual = eva_blocks(config)
        self.trans2embed = nn.Linear(width, config.embed_dim)

    def patchify(self, batch: SplatBatch) -> Patches:
        """Farthest points and their nearest neighbours."""
        return self.tokenizer.patchify(batch)

    def tokenize(self, batch: SplatBatch, patches: Patches | None = None) -> Tokens:
        """Patches and their tokens, mapped to the transformer's width."""
        tokens = self.tokenizer(batch, patches)
        return tokens._replace(tokens=self.encoder2trans(tokens.tokens))

    @property
    def blocks(self) -> nn.ModuleList:
        """EVA-02's, first to last."""
        return cast(nn.ModuleList, self.visual["blocks"])

    def enter(self, tokens: Tokens) -> Tensor:
        """``[B, 1+K, W]`` with CLS and positions."""
        x = tokens.tokens + self.pos_embed(tokens.centers)  # [B, G, W]
        cls = (self.cls_token + self.cls_pos).expand(len(x), -1, -1)
        return torch.cat([cls, x], dim=1)

    def leave(self, cls: Tensor) -> Tensor:
        """``[B, W]`` -> ``[B, D]``, not normalised."""
        return self.trans2embed(self.visual["fc_norm"](cls))
