"""Teachers: frozen open_clip models that put pictures and texts into one space, and what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ..vectors import unit
from ..weights import state_sha256
from ..words import facts_table
from .preprocess import Pictures, Preprocess, check_images
from .zero_shot import Templates, zero_shot_weights

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TeacherError(RuntimeError):
    """A teacher that cannot be had, with the way to get it."""


class Teacher:
    """A frozen pair of towers of open_clip, in eval mode; `load_teacher` is the usual way in.

    Args:
        model: an open_clip model with float32 weights.
        tokenizer: its tokenizer.
        name: for people; no folders.
        model_cfg: open_clip's model configuration, part of the identity.
        device: where to put the towers.
        precision: ``"fp32"``, or ``"bf16"``/``"fp16"`` through autocast; weights stay float32, and so the
            identity stays the same.
        batch_size: pictures or texts in one pass.

    Raises:
        ValueError: for an unknown precision or a batch size below 1.
    """

    name: str  # as given to load_teacher, without folders
    identity: str  # "NAME sha256:DIGEST"
    digest: str  # sha256 of weights, configuration, preprocessing and tokenizer; equal digests embed equally
    embed_dim: int  # D
    logit_scale: float  # already exponentiated: cosines are multiplied by it
    logit_bias: float  # added to the scaled cosines (SigLIP); 0 for CLIP
    preprocess: Preprocess  # [B, H, W, 3] pictures -> [B, 3, h, w] input of the image tower
    precision: str  # fp32, bf16 or fp16, of the arithmetic inside the towers
    device: torch.device  # where embeddings come out
    batch_size: int  # pictures or texts in one pass through a tower

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        model_cfg: dict[str, Any],
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch_size: int = 64,
    ) -> None:
        if precision not in _DTYPES:
            raise ValueError(f"precision must be one of {', '.join(_DTYPES)}, got {precision!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.name, self.precision, self.batch_size = name, precision, batch_size
        self.device = torch.device(device)
        self.preprocess = Preprocess.from_config(model.visual.preprocess_cfg)
        self.digest = compute_digest(model, model_cfg, self.preprocess, tokenizer)
        self.identity = f"{name} sha256:{self.digest}"
        self.embed_dim = int(model_cfg["embed_dim"])
        self.logit_scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = 0.0 if bias is None else float(bias.detach())
        self._model = model.requires_grad_(False).eval().to(self.device)
        self._tokenizer = tokenizer

    @property
    def tower(self) -> torch.nn.Module:
        """The image tower: ``[B, 3, h, w]``, preprocessed, to embeddings ``[B, D]`` that are not normalised."""
        return self._model.visual

    def _autocast(self) -> torch.autocast:
        dtype = _DTYPES[self.precision]
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def _unit(self, parts: list[torch.Tensor]) -> torch.Tensor:
        if not parts:
            return torch.empty(0, self.embed_dim, device=self.device)
        return unit(torch.cat(parts))  # [B, D]

    # no_grad, not inference_mode: on CPU, bf16 autocast under inference_mode casts the weights anew at every layer
    @torch.no_grad()
    def encode_image(self, images: Pictures) -> torch.Tensor:
        """Embed pictures.

        Args:
            images: ``[B, H, W, 3]`` RGB, float in ``[0, 1]`` or uint8; ``B`` may be 0. Or a list of paths, PIL images
                and arrays of any sizes, see `preprocess.read_picture`.

        Returns:
            ``[B, D]`` float32, unit-norm, on the teacher's device.

        Raises:
            ValueError: for another shape, type or range, or a picture that cannot be read.
        """
        batch = images if isinstance(images, list | tuple) else check_images(images)
        parts = []
        for start in range(0, len(batch), self.batch_size):
            pixels = self.preprocess(batch[start : start + self.batch_size], self.device)
            with self._autocast():
                parts.append(self._model.encode_image(pixels, normalize=False).float())
        return self._unit(parts)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts; what exceeds the tower's context length is cut.

        Args:
            texts: any number of non-empty texts.

        Returns:
            ``[T, D]`` float32, unit-norm, on the teacher's device.

        Raises:
            ValueError: for a single str, an empty text, or text that is not Unicode.
        """
        words = check_texts(texts)
        parts = []
        for start in range(0, len(words), self.batch_size):
            tokens = self._tokenizer(words[start : start + self.batch_size]).to(self.device)
            with self._autocast():
                parts.append(self._model.encode_text(tokens, normalize=False).float())
        return self._unit(parts)

    @torch.no_grad()
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
        with self._autocast():
            weights = zero_shot_weights(self._model, self._tokenizer, check_texts(labels), templates, self.device)
        return unit(weights)  # [C, D]

    def _repr_html_(self) -> str:
        name, _, digest = self.identity.partition(" sha256:")
        facts = {
            "embeddings": f"{self.embed_dim} numbers, unit-norm",
            "pictures": f"resized to {self.preprocess.width} x {self.preprocess.height} pixels",
            "computes": f"{self.precision} on {self.device}",
            "weights": f"frozen, sha256 {digest[:12]}",
        }
        return facts_table(f"Teacher {name}", facts)

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
    parts = {"model": config, "preprocess": asdict(preprocess), "probe": probe}
    return state_sha256(parts, model.state_dict())
