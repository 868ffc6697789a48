"""Weights from elsewhere: published checkpoints of Uni3D, OpenShape and DuoduoCLIP, and our own point models.

Checkpoints are read as tensors and nothing else; `adoption` tells what went where.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from ..weights import WeightsError, read_weights
from .adoption import Adoption, adopt
from .configs import EncoderError
from .duoduo import VitViews
from .encoder import Encoder
from .factory import FAMILIES, UNI3D, build_encoder
from .transformer import SplatTransformer

# The convolution of a mini-PointNet that sees the channels of a gaussian, in our names and in Uni3D's
_FIRST = re.compile(r".*\bfirst_conv\.0\.weight")
# Where Uni3D's mini-PointNet lives in our tokenizer, and the branch that it knows nothing of.
_POINT_BRANCH = "tokenizer.points."
_ATTRIBUTES = {"tokenizer.attributes.": "new: reads the other attributes, and adds exactly zero at the start"}
_UNI3D_UNUSED = {
    r"logit_scale": "training only: exp of it multiplies the cosines",
    r"point_encoder\.visual\.(cls_token|pos_embed|patch_embed\.proj\.(weight|bias))": "stem for pictures, never run",
    r"point_encoder\.visual\.head\.(weight|bias)": "classifier for pictures, never run",
}
_DUODUO_UNUSED = {
    r"contrastive_loss\.logit_scale": "training only: exp of it multiplies the cosines",
    r"duoduoclip\.logit_scale": "of the CLIP that training began with, not used",
    r"duoduoclip\.(transformer|token_embedding|positional_embedding|ln_final|text_projection)\b.*": (
        "text tower, never trained: that of the teacher"
    ),
}


def import_uni3d(
    path: str | os.PathLike[str], size: str, *, family: str = "clipgs", **overrides: Any
) -> tuple[Encoder, Adoption]:
    """Build an encoder from a published Uni3D checkpoint (github.com/baaivision/Uni3D, MIT).

    Args:
        path: ``.pt`` with ``{"module": state_dict}``, or ``.safetensors`` with the same names (``point_encoder.*``).
        size: tiny, small, base, large or giant.
        family: "clipgs" reads all attributes and gives, before any training, what the point model gives; "point" is
            the point model itself, and so does "naive", whose further channels begin with zeros.
        **overrides: settings to change, as for `build_encoder`.

    Returns:
        The encoder in evaluation mode, and the table of what went where.

    Raises:
        EncoderError: when the file cannot be read, holds more or less than this model, or is of another size.
    """
    if size not in UNI3D or family not in FAMILIES:
        raise EncoderError(
            f"size must be one of {', '.join(UNI3D)} and family {' or '.join(FAMILIES)}, got {size!r} and {family!r}"
        )
    state = _read(path)
    encoder = build_encoder(f"{family}-{size}", **overrides)
    return encoder.eval(), adopt_uni3d(encoder, state, f"{Path(path).name} -> {encoder.config.name}")


def adopt_uni3d(encoder: Encoder, state: Mapping[str, Tensor], title: str) -> Adoption:
    """Copy a state dict of Uni3D's published names into an encoder of that size; as `import_uni3d`, without a file."""
    state = _widened(state, encoder)
    return adopt(encoder, state, title=title, rename=_uni3d_name, unused=_UNI3D_UNUSED, fresh=_ATTRIBUTES)


def import_openshape(path: str | os.PathLike[str], **overrides: Any) -> tuple[Encoder, Adoption]:
    """Build ``pointbert`` from a published OpenShape checkpoint (huggingface.co/OpenShape, Apache-2.0).

    Args:
        path: ``.pt`` with ``{"state_dict": ...}``, or ``.safetensors`` with the same names (``ppat.*``,
            ``proj.*``); the one in ViT-bigG-14's space, which is of this shape.
        **overrides: settings to change; results and errors are those of `import_uni3d`.
    """
    state = _read(path)
    encoder = build_encoder("pointbert", **overrides)
    title = f"{Path(path).name} -> {encoder.config.name}"
    return encoder.eval(), adopt(encoder, state, title=title, rename=str, unused={}, fresh={})


def import_duoduo(path: str | os.PathLike[str], **overrides: Any) -> tuple[Encoder, Adoption]:
    """Build ``duoduo-b32`` from a published DuoduoCLIP checkpoint (github.com/3dlg-hcvc/DuoduoCLIP).

    Embeddings lie in the space of ``ViT-B-32/laion2b_s34b_b79k``, whose text tower goes with them. Theirs are of
    pictures cropped to 208 of 224 pixels at random, in evaluation too; ours are of whole ones.

    Args:
        path: Lightning's ``.ckpt`` with ``{"state_dict": ...}`` such as ``Four_1to6F_bs1600_LT6.ckpt``, or
            ``.safetensors`` with the same names (``duoduoclip.*``).
        **overrides: settings to change: ``depth`` for other files than those of "LT6", in which the last 6 of 12 blocks
            see all views; ``teacher`` for another ViT of open_clip. Results and errors are those of `import_uni3d`.
    """
    state = _read(path)
    encoder = build_encoder("duoduo-b32", **({"teacher": "ViT-B-32"} | overrides))
    if not isinstance(encoder, VitViews):
        raise EncoderError(f"teacher must be a ViT of open_clip, got {overrides['teacher']!r}; leave it out")
    first = len(encoder.tower.transformer.resblocks) - len(encoder.cross)  # block that sees all views

    def rename(key: str) -> str:
        name = key.removeprefix("duoduoclip.visual.")
        if name == key:
            return f"(not below duoduoclip.visual) {key}"
        block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.(.+)", name)
        if block and int(block[1]) >= first:
            return f"cross.{int(block[1]) - first}.{block[2]}"
        return f"tower_weights.{name}"

    title = f"{Path(path).name} -> {encoder.config.name}"
    return encoder.eval(), adopt(encoder, state, title=title, rename=rename, unused=_DUODUO_UNUSED, fresh={})


def init_from_point(clipgs: Encoder, point: Encoder) -> Adoption:
    """Start CLIP-GS, or naive tokens, from a point model of ours, as the paper does from Uni3D.

    Args:
        clipgs: gets the weights; its attribute branch keeps its own, which add exactly zero as long as it is untrained.
            Of naive tokens the channels that the point model does not know begin with zeros, and so add nothing either.
        point: a point model of the same size; with as many patches as large, both then embed exactly alike.

    Returns:
        The table of what went where.

    Raises:
        EncoderError: when they are not of these kinds or sizes.
    """
    for encoder, attributes in ((clipgs, ("all", "naive")), (point, ("points",))):
        got = encoder.config.tokenizer.attributes if isinstance(encoder, SplatTransformer) else "no tokenizer of ours"
        if got not in attributes:
            needed = " or ".join(map(repr, attributes))
            raise EncoderError(
                f"init_from_point(clipgs, point) needs an encoder of attributes {needed}, got "
                f"{encoder.config.name} with {got!r}; build them as clipgs-SIZE (or naive-SIZE) and point-SIZE"
            )
    title, state = f"{point.config.name} -> {clipgs.config.name}", _widened(point.state_dict(), clipgs)
    return adopt(clipgs, state, title=title, rename=str, unused={}, fresh=_ATTRIBUTES)


def _widened(state: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """A point model's weights, for naive tokens with zeros for what it does not see of a gaussian."""
    more = encoder.tokenizer.points.channels - 6 if isinstance(encoder, SplatTransformer) else 0
    return {key: pad(one, (0, 0, 0, more)) if _FIRST.fullmatch(key) else one for key, one in state.items()}


def _uni3d_name(key: str) -> str:
    """Ours for a published name."""
    name = key.removeprefix("point_encoder.")
    if name == key:
        return f"(not below point_encoder) {key}"
    if name.startswith("encoder."):
        return _POINT_BRANCH + name.removeprefix("encoder.")
    return name.replace("visual.norm.", "visual.fc_norm.")  # timm's name where a model pools its CLS token


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    try:
        return read_weights(path)
    except WeightsError as error:
        raise EncoderError(str(error)) from error
