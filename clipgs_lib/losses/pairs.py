"""The loss between two aligned sets of embeddings: CLIP's. L_CON of ULIP, OpenShape and Uni3D is the sum of two."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..libraries import import_open_clip
from .base import batch_of, check_mask, embeddings, full_precision, local, scale_of


@full_precision
def pair_loss(
    a: Tensor,
    b: Tensor,
    logit_scale: Tensor | float,
    *,
    keep: Tensor | None = None,
    valid: Tensor | None = None,
    rows: slice | None = None,
) -> Tensor:
    """Compute CLIP's symmetric loss ``½ (CE(s·a bᵀ) + CE(s·b aᵀ))``; CLIP-GS's text loss is this with splats and texts.

    Without masks and rows it is open_clip's ``ClipLoss``. Uniform logits give log B, B candidates in each direction.

    Args:
        a: ``[B, D]`` unit-norm embeddings of the splats.
        b: ``[B, D]`` unit-norm embeddings of their texts (or one image each).
        logit_scale: s = 1/τ, already exponentiated.
        keep: ``[B, B]`` bool, True where b of column j is a candidate for a of row i (and, transposed, the reverse).
            False takes the pair out of both softmaxes (its logit is -inf). The diagonal is always kept.
        valid: ``[B]`` bool, False for objects that have no b. They are left out of both means and their b is no
            candidate; their a stays a negative. Without any valid object the loss is 0.
        rows: the rows of a gathered batch that are this process's own. The result is then their share of the loss: the
            shares of all processes sum to the loss of the whole batch.

    Returns:
        Scalar.

    Raises:
        ValueError: for fewer than 2 objects, other shapes, non-finite or unnormalised rows (named).
    """
    size, dim = batch_of("a", a)
    a = embeddings("a", a, (size, dim))
    b = embeddings("b", b, (size, dim), valid)
    scale = scale_of(logit_scale, a)
    if keep is None and valid is None and rows is None:
        return import_open_clip().loss.ClipLoss()(a, b, scale)
    keep = torch.ones(size, size, dtype=torch.bool, device=a.device) if keep is None else keep
    valid = torch.ones(size, dtype=torch.bool, device=a.device) if valid is None else valid
    check_mask("keep", keep, (size, size))
    index = local(rows, size, a.device)  # [R]
    forward = cross_entropy(scale * a[index] @ b.T, keep[index] & valid, index)
    backward = cross_entropy(scale * b[index] @ a.T, keep.T[index], index)
    both = torch.where(valid[index], forward + backward, 0.0)  # [R]
    return both.sum() / (2 * valid.sum().clamp(min=1))


def cross_entropy(logits: Tensor, keep: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each row ``[R]`` over its kept candidates; the target is always kept.

    Args:
        logits: ``[R, B]``, finite.
        keep: ``[R, B]`` bool.
        target: ``[R]`` columns.
    """
    keep = keep | (torch.arange(logits.shape[1], device=logits.device) == target[:, None])  # [R, B]
    return F.cross_entropy(logits.masked_fill(~keep, -torch.inf), target, reduction="none")
