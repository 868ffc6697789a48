"""The whole loss of CLIP-GS, with what it counted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .base import full_precision
from .pairs import pair_loss
from .voting import TEMPERATURE, image_voting_loss, voting_weights


class LossTerms(NamedTuple):
    """``L = L_text + L_img`` and how much of the batch took part; counts are of the whole (gathered) batch."""

    total: Tensor  # scalar: text + image
    text: Tensor  # scalar
    image: Tensor  # scalar
    objects: Tensor  # int scalar: splats in the batch
    captioned: Tensor  # int scalar: objects with a caption; the others are masked out of the text loss
    viewed: Tensor  # int scalar: objects with at least one view; the others are masked out of the image loss
    views: Tensor  # int scalar: views that are there
    muted: Tensor  # int scalar: views that are there but vote 0 (cosine <= 0, no caption, or beaten under top1)


@full_precision
def clip_gs_loss(
    shape: Tensor,
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor | float,
    *,
    weighting: str = "cosine",
    reduction: str = "mean",
    exclude_own: bool = True,
    negatives: str = "object",
    same: Tensor | None = None,
    views_valid: Tensor | None = None,
    text_valid: Tensor | None = None,
    temperature: float = TEMPERATURE,
    rows: slice | None = None,
) -> LossTerms:
    """Compute the loss of CLIP-GS: text loss plus image voting loss, both with false negatives masked.

    Args:
        shape: ``[B, D]`` unit-norm embeddings of the splats.
        images: ``[B, K, D]`` unit-norm embeddings of their views.
        texts: ``[B, D]`` unit-norm embeddings of their captions.
        logit_scale: s = 1/τ, already exponentiated.
        weighting: see `voting_weights`.
        reduction: see `image_voting_loss`, as for all that follow.
        exclude_own: leave an object's other views out of its negatives.
        negatives: "object" or "view".
        same: ``[B, B]`` bool of false negatives, as of `same_rows`.
        views_valid: ``[B, K]`` bool.
        text_valid: ``[B]`` bool.
        temperature: of weighting "softmax".
        rows: one process's rows of a gathered batch; losses are then their share, see `pair_loss`.

    Returns:
        The losses, scalars, and counts.

    Raises:
        ValueError: as `pair_loss` and `image_voting_loss`.
    """
    text = pair_loss(shape, texts, logit_scale, keep=None if same is None else ~same, valid=text_valid, rows=rows)
    image = image_voting_loss(
        shape,
        images,
        texts,
        logit_scale,
        weighting=weighting,
        reduction=reduction,
        exclude_own=exclude_own,
        negatives=negatives,
        same=same,
        views_valid=views_valid,
        text_valid=text_valid,
        temperature=temperature,
        rows=rows,
    )
    votes = voting_weights(images, texts, weighting, views_valid, text_valid=text_valid, temperature=temperature)
    there = torch.ones_like(votes, dtype=torch.bool) if views_valid is None else views_valid
    return LossTerms(
        total=text + image,
        text=text,
        image=image,
        objects=torch.tensor(len(shape), device=shape.device),
        captioned=torch.tensor(len(shape), device=shape.device) if text_valid is None else text_valid.sum(),
        viewed=there.any(dim=1).sum(),
        views=there.sum(),
        muted=(there & (votes == 0)).sum(),
    )
