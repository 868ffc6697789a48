"""Zero-shot classification: words become classifier weights, and ranks become Top-k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..libraries import import_open_clip

Templates = Sequence[str] | Sequence[Callable[[str], str]]


def zero_shot_weights(
    model: torch.nn.Module, tokenizer: Any, labels: Sequence[str], templates: Templates, device: torch.device | str
) -> torch.Tensor:
    """Classifier weights ``[C, D]`` float32 by open_clip's builder: the renormalised mean of each label's prompts.

    Raises:
        ValueError: without labels or templates, or when a text template has no ``{}``.
    """
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


@dataclass(frozen=True)
class Ranking:
    """How well pictures find their labels among some candidates."""

    objects: int  # how many were ranked
    candidates: int  # labels to choose from
    top1: float  # share in [0, 1]
    top5: float  # share in [0, 1]
    mrr: float  # mean of 1 / rank, in (0, 1]

    @property
    def chance1(self) -> float:
        """Top-1 of blind guessing."""
        return 1 / self.candidates

    @property
    def chance5(self) -> float:
        """Top-5 of blind guessing."""
        return min(1.0, 5 / self.candidates)


def rank_labels(embeddings: torch.Tensor, weights: torch.Tensor, target: torch.Tensor) -> Ranking:
    """Rank the labels of each embedding; a tie counts against it.

    Args:
        embeddings: ``[B, D]``.
        weights: ``[C, D]``.
        target: ``[B]`` index of the true label.

    Raises:
        ValueError: for an empty batch.
    """
    if not len(embeddings):
        raise ValueError("a ranking needs at least one embedding, got none")
    scores = embeddings @ weights.T  # [B, C]
    own = scores.gather(1, target[:, None])
    rank = (scores >= own).sum(dim=1).float()  # [B], 1 = first
    first, five = (rank <= 1).float().mean(), (rank <= 5).float().mean()
    return Ranking(len(embeddings), len(weights), float(first), float(five), float((1 / rank).mean()))
