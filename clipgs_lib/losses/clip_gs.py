"""The whole loss of CLIP-GS."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .base import full_precision
from .pairs import pair_loss
from .voting import PAPER, Voting, image_voting_loss


class LossTerms(NamedTuple):
    """The parts of ``L = L_text + L_img``, scalars."""

    text: Tensor
    image: Tensor


@full_precision
def clip_gs_loss(
    shape: Tensor,
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor | float,
    voting: Voting = PAPER,
    *,
    same: Tensor | None = None,
    views_valid: Tensor | None = None,
    text_valid: Tensor | None = None,
    rows: slice | None = None,
) -> LossTerms:
    """Compute the loss of CLIP-GS: text loss and image voting loss, both with false negatives masked.

    Args:
        shape: ``[B, D]`` unit-norm embeddings of the splats.
        images: ``[B, K, D]`` unit-norm embeddings of their views.
        texts: ``[B, D]`` unit-norm embeddings of their captions.
        logit_scale: s = 1/τ, already exponentiated.
        voting: how views vote.
        same: ``[B, B]`` bool of false negatives, as of `same_rows`.
        views_valid: ``[B, K]`` bool.
        text_valid: ``[B]`` bool.
        rows: one process's rows of a gathered batch; losses are then their share, see `pair_loss`.

    Raises:
        ValueError: as `pair_loss` and `image_voting_loss`.
    """
    text = pair_loss(shape, texts, logit_scale, keep=None if same is None else ~same, valid=text_valid, rows=rows)
    masks = {"same": same, "views_valid": views_valid, "text_valid": text_valid}
    return LossTerms(text, image_voting_loss(shape, images, texts, logit_scale, voting, **masks, rows=rows))
