"""Losses between splats and several views each: CLIP-GS's image voting (Eq. 4), and an alternative.

The whole loss of CLIP-GS is L_text, which is `pair_loss` of splats and texts, plus `image_voting_loss`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..settings import check
from .pairs import batch_of, check_mask, cross_entropy, embeddings, full_precision, local, scale_of

Weighting = Literal["cosine", "softmax", "normalised", "uniform", "top1"]  # cosine: the paper's S, as others note it
Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class Voting:
    """How an object's views vote (S of Eq. 4) and what they compete with.

    "cosine" is S = max(0, cos(text, view)). All others average to 1 over an object's valid views, so that equal views
    vote 1 each: "softmax" n·softmax(cos / temperature), "normalised" n·S / ΣS, "uniform" 1, "top1" n for the
    view of the largest cosine (the first of equals) and 0 for the others; n is the number of valid views.

    Negative cosines: a negative vote would push a splat away from its own view, so votes stop at 0 (our choice; the
    paper does not say). An object all of whose cosines are <= 0 gets no vote under "cosine" and "normalised".
    An object without a caption has no cosine, so no vote, save under "uniform".

    Raises:
        ValueError: for an unknown choice, or a temperature <= 0.
    """

    weighting: Weighting = "cosine"  # of the votes, as above
    reduction: Reduction = "mean"  # over an object's valid views; "sum" is K times "mean" when all have K views
    exclude_own: bool = True  # an object's other views are no negatives
    temperature: float = 0.07  # of "softmax"; the paper's normalisation is unknown, this is CLIP's first τ

    def __post_init__(self) -> None:
        check(self)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}; use weighting='top1' for its limit")


PAPER = Voting()


@torch.no_grad()
def voting_weights(
    images: Tensor,
    texts: Tensor,
    voting: Voting = PAPER,
    *,
    views_valid: Tensor | None = None,
    text_valid: Tensor | None = None,
) -> Tensor:
    """Compute the votes S of Eq. 4: how much each view of an object counts, from the frozen teacher's embeddings.

    Args:
        images: ``[B, K, D]`` unit-norm.
        texts: ``[B, D]`` unit-norm.
        voting: its weighting and temperature.
        views_valid: ``[B, K]`` bool, False for views that an object does not have; they get 0.
        text_valid: ``[B]`` bool, False for objects without a caption.

    Returns:
        ``[B, K]`` >= 0, without gradient.

    Raises:
        ValueError: for other shapes, non-finite or unnormalised rows.
    """
    images, there = _views(images, views_valid)
    texts = embeddings("texts", texts, (len(images), images.shape[2]), text_valid)
    if voting.weighting == "uniform":
        return there.to(images.dtype)
    cosine = torch.einsum("bkd,bd->bk", images, texts)  # [B, K]
    if voting.weighting == "cosine":
        votes = cosine.clamp(min=0)
    elif voting.weighting == "softmax":
        votes = (cosine / voting.temperature).masked_fill(~there, -torch.inf).softmax(dim=1)
    elif voting.weighting == "normalised":
        positive = torch.where(there, cosine.clamp(min=0), 0.0)
        votes = positive / positive.sum(dim=1, keepdim=True).clamp(min=torch.finfo(cosine.dtype).tiny)
    else:
        best = cosine.masked_fill(~there, -torch.inf).argmax(dim=1, keepdim=True)  # [B, 1]
        votes = torch.zeros_like(cosine).scatter(1, best, 1.0)
    if voting.weighting != "cosine":
        votes = votes * there.sum(dim=1, keepdim=True)
    has_text = there if text_valid is None else there & text_valid[:, None]
    return torch.where(has_text, votes, 0.0)  # an object without views has NaN votes up to here


class _Logits(NamedTuple):
    """Scaled similarities between one process's splats and all views, with what may be compared to what."""

    chosen: Tensor  # [R] rows of the batch that are computed
    back: Tensor  # [R, K, B] of their views with all splats
    matching: Tensor  # [R, K] of the chosen splats with their own views
    others: Tensor  # [R] log of the summed exponentials of the views of other objects; -inf without any
    keep: Tensor  # [B, B] bool: object j may be a negative of object i; False on the diagonal
    there: Tensor  # [B, K] bool: the view exists


@full_precision
def image_voting_loss(
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
) -> Tensor:
    """Compute Eq. 4 of CLIP-GS: ``-1/(2N) Σ_i red_k S_ik (log p(view ik | splat i) + log p(splat i | view ik))``.

    Each view takes its turn as the positive. For view -> splat the candidates are the B splats. For splat -> view they
    are the positive and the views of the other objects, each of which counts once (the mean of its views'
    exponentials; the paper does not say), so uniform logits give log B and K equal views are the same as one. With
    ``exclude_own=False`` an object's K-1 other views are negatives of its own splat too: log(B + (K-1)/K).

    Args:
        shape: ``[B, D]`` unit-norm embeddings of the splats.
        images: ``[B, K, D]`` unit-norm embeddings of their views, from the frozen teacher.
        texts: ``[B, D]`` unit-norm embeddings of their captions; they only vote, and get no gradient.
        logit_scale: s = 1/τ, already exponentiated.
        voting: how views vote.
        same: ``[B, B]`` bool, symmetric, True for objects that must not be each other's negatives, as of `same_rows`;
            their logits become -inf. The diagonal does not matter.
        views_valid: ``[B, K]`` bool, False for views that are not there. They are no candidates.
        text_valid: ``[B]`` bool, False for objects without a caption. They cannot vote, save with "uniform"; their
            views and splats stay negatives.
        rows: one process's rows of a gathered batch; the result is their share of the loss, see `pair_loss`.

    Returns:
        Scalar. N counts the objects that have a view and, save with "uniform", a caption; 0 when there are none.

    Raises:
        ValueError: for fewer than 2 objects, other shapes, or bad rows (named).
    """
    votes = voting_weights(images, texts, voting, views_valid=views_valid, text_valid=text_valid)
    logits = _logits(shape, images, logit_scale, same, views_valid, rows)
    counted = logits.there.any(dim=1)  # [B]
    if text_valid is not None and voting.weighting != "uniform":
        counted = counted & text_valid
    against = [logits.matching[..., None], logits.others[:, None, None].expand(-1, votes.shape[1], 1)]  # [R, K, 1] each
    if not voting.exclude_own:
        against.append(_own_negatives(logits))
    forward = torch.cat(against, dim=2).logsumexp(dim=2) - logits.matching  # [R, K]
    backward = _view_to_splat(logits)  # [R, K]
    voted = torch.where(logits.there[logits.chosen], votes[logits.chosen] * (forward + backward), 0.0)  # [R, K]
    if voting.reduction == "mean":
        voted = voted / logits.there[logits.chosen].sum(dim=1, keepdim=True).clamp(min=1)
    return voted.sum() / (2 * counted.sum().clamp(min=1))


@full_precision
def multi_positive_loss(
    shape: Tensor,
    positives: Tensor,
    logit_scale: Tensor | float,
    *,
    same: Tensor | None = None,
    valid: Tensor | None = None,
    rows: slice | None = None,
) -> Tensor:
    """Compute a decoupled multi-positive loss, in the manner of HOLA (2026): the published alternative to voting.

    Positives are averaged outside the softmax and left out of the denominator, which holds negatives only:
    ``1/(2N) Σ_i mean_k (log Σ_neg exp(s_neg) - s_ik)`` in both directions. Each other object counts once, as in
    `image_voting_loss`, so uniform logits give log(B - 1). The loss may become negative. The form is
    ours, after the idea in HOLA's abstract; it is not a copy of its formula.

    Args:
        shape, logit_scale, same, rows: as in `image_voting_loss`. An object without any negative left is not counted.
        positives: ``[B, K, D]`` unit-norm: an object's views, its texts, or both.
        valid: ``[B, K]`` bool, False for positives that are not there.

    Returns:
        Scalar. N counts the objects that have a positive and a negative; 0 when there are none.
    """
    logits = _logits(shape, positives, logit_scale, same, valid, rows)
    here = logits.there[logits.chosen]  # [R, K]
    counted = (logits.keep & logits.there.any(dim=1)).any(dim=1) & logits.there.any(dim=1)  # [B]
    forward = logits.others[:, None] - logits.matching  # [R, K]
    keep = logits.keep[logits.chosen]  # [R, B]
    backward = logits.back.masked_fill(~keep[:, None], -torch.inf).logsumexp(dim=2) - logits.matching  # [R, K]
    both = torch.where(here & counted[logits.chosen][:, None], forward + backward, 0.0)  # [R, K]
    return (both.sum(dim=1) / here.sum(dim=1).clamp(min=1)).sum() / (2 * counted.sum().clamp(min=1))


def _views(images: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Checked views ``[B, K, D]``, absent ones at zero, and which are there ``[B, K]``."""
    if images.dim() != 3 or images.shape[1] == 0:
        raise ValueError(f"images must be [B, K, D] with K >= 1, got {list(images.shape)}; is the view axis missing?")
    images = embeddings("images", images, tuple(images.shape), valid)
    there = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device) if valid is None else valid
    return images, there


def _logits(
    shape: Tensor,
    images: Tensor,
    logit_scale: Tensor | float,
    same: Tensor | None,
    valid: Tensor | None,
    rows: slice | None,
) -> _Logits:
    """Check the inputs, and compute what the losses over views have in common."""
    size, dim = batch_of("shape", shape)
    shape = embeddings("shape", shape, (size, dim))
    if images.dim() == 3 and (images.shape[0], images.shape[2]) != (size, dim):
        raise ValueError(f"images must be [{size}, K, {dim}] like shape, got {list(images.shape)}")
    images, there = _views(images, valid)
    scale = scale_of(logit_scale, shape)
    keep = ~torch.eye(size, dtype=torch.bool, device=shape.device)
    if same is not None:
        check_mask("same", same, (size, size))
        keep = keep & ~same
    chosen = local(rows, size, shape.device)
    toward = scale * torch.einsum("rd,jkd->rjk", shape[chosen], images)  # [R, B, K]
    back = scale * torch.einsum("rkd,jd->rkj", images[chosen], shape)  # [R, K, B]
    matching = back.gather(2, chosen[:, None, None].expand(-1, back.shape[1], 1)).squeeze(2)  # [R, K]
    return _Logits(chosen, back, matching, _others(toward, keep[chosen], there), keep, there)


def _others(toward: Tensor, keep: Tensor, there: Tensor) -> Tensor:
    """Log-sum-exp ``[R]`` of the views of other objects; -inf (torch then gives gradient 0) where there are none."""
    allowed = keep[:, :, None] & there  # [R, B, K]
    toward = toward - there.sum(dim=1).clamp(min=1).to(toward.dtype).log()[:, None]  # log n_j
    return toward.masked_fill(~allowed, -torch.inf).flatten(1).logsumexp(dim=1)


def _own_negatives(logits: _Logits) -> Tensor:
    """Logits ``[R, K, K]`` of the object's other views, for each view as positive; -inf for itself and absent ones."""
    here = logits.there[logits.chosen]  # [R, K]
    count = here.shape[1]
    against = logits.matching[:, None, :].expand(-1, count, -1)  # [R, K, K]
    against = against - here.sum(dim=1).clamp(min=1).to(against.dtype).log()[:, None, None]
    itself = torch.eye(count, dtype=torch.bool, device=against.device)
    return against.masked_fill(itself | ~here[:, None, :], -torch.inf)


def _view_to_splat(logits: _Logits) -> Tensor:
    """Cross-entropy ``[R, K]`` of each view of the chosen objects over all splats that may be compared."""
    rows, views, size = logits.back.shape
    keep = logits.keep[logits.chosen].repeat_interleave(views, dim=0)  # [R*K, B]
    target = logits.chosen.repeat_interleave(views)  # [R*K]
    return cross_entropy(logits.back.reshape(rows * views, size), keep, target).view(rows, views)
