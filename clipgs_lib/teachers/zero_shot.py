"""Zero-shot classification: words become classifier weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
