"""The loss that trains `mini` against its locked text tower: contrastive, with same-label pairs taken out."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def masked_contrastive(
    images: torch.Tensor,
    texts: torch.Tensor,
    labels: torch.Tensor,
    logit_scale: torch.Tensor,
    bank: torch.Tensor | None = None,
    bank_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE in which another sample of the same label is neither positive nor negative.

    Such a sample carries the same words, so counting it as a negative would push a picture from its own caption; its
    logit is set to ``-inf`` before the softmax. Each picture's own text stays its only positive.

    Args:
        images: ``[B, D]`` unit-norm.
        texts: ``[B, D]`` unit-norm; row ``i`` belongs to picture ``i``.
        labels: ``[B]`` integers.
        logit_scale: exponentiated scale (1 / temperature).
        bank: ``[M, D]`` unit-norm further texts, negatives of the picture-to-text half only.
        bank_labels: ``[M]`` their labels.

    Returns:
        The mean of both directions, a scalar.
    """
    same = labels[:, None] == labels[None, :]  # [B, B]
    same.fill_diagonal_(False)
    logits = (logit_scale * images @ texts.T).masked_fill(same, -torch.inf)  # [B, B]
    to_text = logits
    if bank is not None and bank_labels is not None:
        known = labels[:, None] == bank_labels[None, :]  # [B, M]
        extra = (logit_scale * images @ bank.T).masked_fill(known, -torch.inf)
        to_text = torch.cat([logits, extra], dim=1)  # [B, B + M]
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(to_text, target) + F.cross_entropy(logits.T, target)) / 2
