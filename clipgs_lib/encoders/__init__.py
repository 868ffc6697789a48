"""Encoders of splats behind one interface: CLIP-GS, Uni3D's and OpenShape's point models, by name or from disk."""

from __future__ import annotations

from .adoption import Adoption
from .base import Encoder, TokenOutput
from .checkpoint import load_encoder, save_encoder
from .config import EncoderConfig, EncoderError, PointBertConfig, config_from_dict
from .factory import build_encoder, encoder_config, encoder_names
from .published import import_openshape, import_uni3d, init_from_point

__all__ = [
    "Adoption",
    "Encoder",
    "EncoderConfig",
    "EncoderError",
    "PointBertConfig",
    "TokenOutput",
    "build_encoder",
    "config_from_dict",
    "encoder_config",
    "encoder_names",
    "import_openshape",
    "import_uni3d",
    "init_from_point",
    "load_encoder",
    "save_encoder",
]
