"""Any open_clip model as a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..vectors import unit
from .base import PRECISIONS, Teacher, check_texts, compute_digest
from .preprocess import Preprocess, check_images
from .zero_shot import Templates, zero_shot_weights

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class OpenClipTeacher(Teacher):
    """Two towers of open_clip, frozen and in eval mode.

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
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
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

    def _autocast(self) -> torch.autocast:
        dtype = _DTYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def _unit(self, parts: list[torch.Tensor]) -> torch.Tensor:
        if not parts:
            return torch.empty(0, self.embed_dim, device=self.device)
        return unit(torch.cat(parts))  # [B, D]

    # no_grad, not inference_mode: on CPU, bf16 autocast under inference_mode casts the weights anew at every layer
    @torch.no_grad()
    def encode_image(self, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Embed pictures; see `Teacher.encode_image`."""
        batch = check_images(images)
        parts = []
        for chunk in batch.split(self.batch_size) if len(batch) else ():
            pixels = self.preprocess(chunk, self.device)
            with self._autocast():
                parts.append(self._model.encode_image(pixels, normalize=False).float())
        return self._unit(parts)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts; see `Teacher.encode_text`."""
        words = check_texts(texts)
        parts = []
        for start in range(0, len(words), self.batch_size):
            tokens = self._tokenizer(words[start : start + self.batch_size]).to(self.device)
            with self._autocast():
                parts.append(self._model.encode_text(tokens, normalize=False).float())
        return self._unit(parts)

    @torch.no_grad()
    def zero_shot_weights(self, labels: Sequence[str], templates: Templates = ("a photo of a {}.",)) -> torch.Tensor:
        """Classifier weights of labels; see `Teacher.zero_shot_weights`."""
        with self._autocast():
            weights = zero_shot_weights(self._model, self._tokenizer, check_texts(labels), templates, self.device)
        return unit(weights)  # [C, D]
