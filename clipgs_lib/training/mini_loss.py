"""The loss that trains `mini` against its locked text tower: contrastive, without the negatives that are none."""

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
    specific: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE in which a text that is true of another picture too is no negative of that picture.

    Such are the texts of its own label: counting them would push a picture from its own words, so their logits are set
    to ``-inf`` before the softmax. Each picture's own text stays its only positive. A ``specific`` text tells what
    others of its label are not ("a red striped mug"), so it stays a negative of theirs: this is where colours and
    patterns are learned.

    Args:
        images: ``[B, D]`` unit-norm.
        texts: ``[B, D]`` unit-norm; row ``i`` belongs to picture ``i``.
        labels: ``[B]`` integers.
        logit_scale: exponentiated scale (1 / temperature).
        bank: ``[M, D]`` unit-norm further texts, negatives of the picture-to-text half only.
        bank_labels: ``[M]`` their labels.
        specific: ``[B]`` bool, texts that are true of their own picture alone; None: of none.

    Returns:
        The mean of both directions, a scalar.
    """
    same = labels[:, None] == labels[None, :]  # [B, B]
    if specific is not None:
        same = same & ~specific[None, :]
    same.fill_diagonal_(False)
    logits = (logit_scale * images @ texts.T).masked_fill(same, -torch.inf)  # [B, B]
    to_text = logits
    if bank is not None and bank_labels is not None:
        known = labels[:, None] == bank_labels[None, :]  # [B, M]
        extra = (logit_scale * images @ bank.T).masked_fill(known, -torch.inf)
        to_text = torch.cat([logits, extra], dim=1)  # [B, B + M]
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(to_text, target) + F.cross_entropy(logits.T, target)) / 2
