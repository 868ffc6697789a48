"""The interface of all teachers, its errors, and the identity by which teachers are told apart."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from .preprocess import Preprocess
from .zero_shot import Templates

PRECISIONS = ("fp32", "bf16", "fp16")


class TeacherError(RuntimeError):
    """A teacher that cannot be had, with the way to get it."""


class Teacher(ABC):
    """A frozen pair of towers that puts pictures and texts into one space."""

    name: str  # as given to load_teacher, without folders
    identity: str  # "NAME sha256:DIGEST"
    digest: str  # sha256 of weights, configuration, preprocessing and tokenizer; equal digests embed equally
    embed_dim: int  # D
    logit_scale: float  # already exponentiated: cosines are multiplied by it
    logit_bias: float  # added to the scaled cosines (SigLIP); 0 for CLIP
    preprocess: Preprocess  # [B, H, W, 3] pictures -> [B, 3, h, w] input of the image tower
    precision: str  # one of PRECISIONS, of the arithmetic inside the towers
    device: torch.device  # where embeddings come out
    batch_size: int  # pictures or texts in one pass through a tower

    @abstractmethod
    def encode_image(self, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Embed pictures.

        Args:
            images: ``[B, H, W, 3]`` RGB, float in ``[0, 1]`` or uint8; ``B`` may be 0.

        Returns:
            ``[B, D]`` float32, unit-norm, on the teacher's device.

        Raises:
            ValueError: for another shape, type or range.
        """

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts; what exceeds the tower's context length is cut.

        Args:
            texts: any number of non-empty texts.

        Returns:
            ``[T, D]`` float32, unit-norm, on the teacher's device.

        Raises:
            ValueError: for a single str, an empty text, or text that is not Unicode.
        """

    @abstractmethod
    def zero_shot_weights(self, labels: Sequence[str], templates: Templates = ("a photo of a {}.",)) -> torch.Tensor:
        """Classifier weights: each label's prompts are embedded, averaged and renormalised (open_clip's builder).

        Args:
            labels: class names.
            templates: texts with ``{}`` for the label, or functions of it.

        Returns:
            ``[C, D]`` float32, unit-norm; scores are ``encode_image(...) @ weights.T``.

        Raises:
            ValueError: without labels or templates, or for a template without ``{}``.
        """

    def __repr__(self) -> str:
        size = f"{self.preprocess.height}x{self.preprocess.width}"
        return f"Teacher({self.identity[:-52]}..., D={self.embed_dim}, {size} px, {self.precision} on {self.device})"


def check_texts(texts: Sequence[str]) -> list[str]:
    """Texts as a list, or a sentence about what is wrong with them."""
    if isinstance(texts, str):
        raise ValueError(f"encode_text needs a list of texts, got one str; write [{texts[:40]!r}]")
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"texts must be non-empty strings, got {text!r} at {index}; leave it out")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise ValueError(f"texts must be Unicode, got half of a surrogate pair at {index}; decode it anew")
    return list(texts)


def compute_digest(model: torch.nn.Module, model_cfg: dict[str, Any], preprocess: Preprocess, tokenizer: Any) -> str:
    """sha256 over everything that decides an embedding: configuration, preprocessing, tokenizer and weights.

    The tokenizer counts through what it makes of a fixed sentence. Names of towers on a hub do not count.
    """
    probe = tokenizer(["A 3D-printed, striped mug & 2 naïve cafés 猫"])[0].tolist()
    named = ("hf_model_name", "hf_tokenizer_name", "hf_model_pretrained", "timm_model_pretrained")
    config = {
        key: {k: v for k, v in value.items() if k not in named} if isinstance(value, dict) else value
        for key, value in model_cfg.items()
    }
    told = {"model": config, "preprocess": asdict(preprocess), "probe": probe}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
