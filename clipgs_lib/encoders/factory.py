"""Encoders by name."""

from typing import Any

from ..tokenizer import TokenizerConfig
from .bag import BagOfViews
from .configs import (
    AnyConfig,
    BagConfig,
    EncoderConfig,
    EncoderError,
    MultiViewConfig,
    PointBertConfig,
    VoxelConfig,
    override,
)
from .duoduo import build_multi_view
from .encoder import Encoder
from .pointbert import PointBert
from .transformer import SplatTransformer
from .voxels import VoxelEncoder

UNI3D_DIM = 1024  # of EVA02-E-14-plus, the teacher of Uni3D's weights [C]
# Uni3D's sizes [C]: the timm model whose blocks are used, width, depth
UNI3D = {
    "tiny": ("eva02_tiny_patch14_224", 192, 12),
    "small": ("eva02_small_patch14_224", 384, 12),
    "base": ("eva02_base_patch14_448", 768, 12),
    "large": ("eva02_large_patch14_448", 1024, 24),
    "giant": ("eva_giant_patch14_560", 1408, 40),
}
SIZES = ("mini", *UNI3D)
FAMILIES = {"clipgs": "all", "point": "points", "naive": "naive"}  # and the attributes that they read, in any size


def _transformer(family: str, size: str) -> EncoderConfig:
    """Uni3D's, or ``mini``: half the depth of tiny, an eighth of the patches of half the size, thinner within a patch.

    Most of a small model's time goes into the patches; on two CPU cores this one trains on tens of splats a second.
    """
    tokens: dict[str, Any] = {"attributes": FAMILIES[family], "groups": 512, "group_size": 64, "dim": 512}
    block, width, depth = UNI3D["tiny" if size == "mini" else size]
    sizes: dict[str, Any] = {"width": width, "depth": depth, "embed_dim": UNI3D_DIM}
    if family == "naive":
        tokens |= {"squash": "none", "rotation": "quat"}
    if size == "mini":
        tokens |= {"groups": 64, "group_size": 32, "dim": 256, "combine": "cycle"}
        tokens |= {"point_widths": (32, 64, 128), "attribute_widths": (32, 64, 128)}
        sizes |= {"depth": 6, "embed_dim": 384, "drop_path": 0.0}
    return EncoderConfig(name=f"{family}-{size}", tokenizer=TokenizerConfig(**tokens), block=block, **sizes)


CONFIGS: dict[str, AnyConfig] = {
    **{f"{family}-{size}": _transformer(family, size) for family in FAMILIES for size in SIZES},
    "pointbert": PointBertConfig(),
    # as large as the other minis, with as many patches, which cover 3/4 of 1,024 gaussians; larger balls cover less
    "pointbert-mini": PointBertConfig(
        name="pointbert-mini",
        groups=64,
        group_size=32,
        width=192,
        depth=6,
        heads=3,
        mlp_dim=768,
        embed_dim=384,
        patch_dropout=0.5,
    ),
    "voxel-mini": VoxelConfig(),
    # DuoduoCLIP [C], and the same idea over mini
    "duoduo-mini": MultiViewConfig(),
    "duoduo-b32": MultiViewConfig(name="duoduo-b32", teacher="ViT-B-32/laion2b_s34b_b79k", depth=6, embed_dim=512),
    "bag-mean": BagConfig(),
    "bag-max": BagConfig(name="bag-max", pool="max"),
}


def encoder_names() -> list[str]:
    """All names that `build_encoder` knows."""
    return list(CONFIGS)


def encoder_config(name: str, embed_dim: int | None = None, **overrides: Any) -> AnyConfig:
    """Settings by name.

    Args:
        name: one of `encoder_names`. ``clipgs-SIZE`` reads all attributes of a splat, ``point-SIZE`` only centres and
            colours, ``naive-SIZE`` all 14 numbers of a gaussian as further channels of the point model. ``mini`` is
            ours, about 3M parameters; the other sizes are Uni3D's; ``pointbert`` is OpenShape's, ``voxel-mini`` a 3D
            CNN; ``duoduo-mini`` and ``duoduo-b32`` read views through the tower of a ``teacher``; ``bag-mean`` and
            ``bag-max`` are that teacher's embeddings of the views as one, without weights.
        embed_dim: D; without it the dimension of the teacher that the size is made for.
        **overrides: other settings, of the encoder or its tokenizer, by name (``depth=4``, ``groups=64``).

    Raises:
        EncoderError: for an unknown name or setting.
    """
    if name not in CONFIGS:
        raise EncoderError(f"an encoder's name must be one of {', '.join(CONFIGS)}, got {name!r}")
    return override(CONFIGS[name], overrides if embed_dim is None else {**overrides, "embed_dim": embed_dim})


def build_encoder(name_or_config: str | AnyConfig, embed_dim: int | None = None, **overrides: Any) -> Encoder:
    """Build an encoder with new weights, drawn from torch's generator; a multi-view one with the tower of its teacher.

    Args:
        name_or_config: one of `encoder_names`, or settings.
        embed_dim: D, if other than the settings say.
        **overrides: settings to change, as for `encoder_config`.

    Raises:
        EncoderError: for an unknown name or setting, or settings that do not go together.
    """
    config = encoder_config(name_or_config) if isinstance(name_or_config, str) else name_or_config
    config = override(config, overrides if embed_dim is None else {**overrides, "embed_dim": embed_dim})
    if isinstance(config, MultiViewConfig):
        return build_multi_view(config)
    if isinstance(config, EncoderConfig):
        return SplatTransformer(config)
    if isinstance(config, PointBertConfig):
        return PointBert(config)
    return VoxelEncoder(config) if isinstance(config, VoxelConfig) else BagOfViews(config)
