"""Teachers: frozen open_clip models that put pictures and texts into one space, and what tells them apart."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from ..libraries import import_open_clip
from ..vectors import unit
from ..weights import state_sha256
from ..words import facts_table
from .preprocess import Pictures, Preprocess, check_images

Templates = Sequence[str] | Sequence[Callable[[str], str]]


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
        batch_size: pictures or texts in one pass.

    Raises:
        ValueError: for a batch size below 1.
    """

    name: str  # as given to load_teacher, without folders
    identity: str  # "NAME sha256:DIGEST"
    digest: str  # sha256 of weights, configuration, preprocessing and tokenizer; equal digests embed equally
    embed_dim: int  # D
    logit_scale: float  # already exponentiated: cosines are multiplied by it
    logit_bias: float  # added to the scaled cosines (SigLIP); 0 for CLIP
    preprocess: Preprocess  # [B, H, W, 3] pictures -> [B, 3, h, w] input of the image tower
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
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.name, self.batch_size = name, batch_size
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

    def _exactly(self) -> torch.autocast:
        """Float32 also where an encoder around it computes in bf16."""
        return torch.autocast(self.device.type, enabled=False)

    def _encode(self, tower: Callable[..., torch.Tensor], items: Any, prepare: Callable[[Any], Any]) -> torch.Tensor:
        """Embed items ``[B, D]`` by a tower, `batch_size` of them at a time, each part prepared for it."""
        parts = []
        with self._exactly():
            for start in range(0, len(items), self.batch_size):
                parts.append(tower(prepare(items[start : start + self.batch_size]), normalize=False).float())
        return unit(torch.cat(parts)) if parts else torch.empty(0, self.embed_dim, device=self.device)

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
        return self._encode(self._model.encode_image, batch, lambda part: self.preprocess(part, self.device))

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
        return self._encode(self._model.encode_text, words, lambda part: self._tokenizer(part).to(self.device))

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
        words = check_texts(labels)
        with self._exactly():
            return unit(zero_shot_weights(self._model, self._tokenizer, words, templates, self.device))  # [C, D]

    def _repr_html_(self) -> str:
        name, _, digest = self.identity.partition(" sha256:")
        facts = {
            "embeddings": f"{self.embed_dim} numbers, unit-norm",
            "pictures": f"resized to {self.preprocess.width} x {self.preprocess.height} pixels",
            "computes": f"on {self.device}",
            "weights": f"frozen, sha256 {digest[:12]}",
        }
        return facts_table(f"Teacher {name}", facts)

    def __repr__(self) -> str:
        size = f"{self.preprocess.height}x{self.preprocess.width}"
        return f"Teacher({self.identity[:-52]}..., D={self.embed_dim}, {size} px, on {self.device})"


def zero_shot_weights(
    model: torch.nn.Module, tokenizer: Any, labels: Sequence[str], templates: Templates, device: torch.device | str
) -> torch.Tensor:
    """Classifier weights ``[C, D]`` float32 by open_clip's builder, as `Teacher.zero_shot_weights`."""
    if not labels or not templates:
        raise ValueError(f"zero-shot needs labels and templates, got {len(labels)} and {len(templates)}")
    for template in templates:
        if isinstance(template, str) and "{}" not in template:
            raise ValueError(f"a template needs {{}} where the label goes, got {template!r}")
    if len({isinstance(template, str) for template in templates}) > 1:
        raise ValueError("templates must be all texts or all callables, got both")
    build = import_open_clip().build_zero_shot_classifier
    weights = build(model, tokenizer, list(labels), list(templates), num_classes_per_batch=16, device=device)
    return weights.T.float().contiguous()  # [C, D]


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
