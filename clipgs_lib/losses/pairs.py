"""Losses between two aligned sets of embeddings, and what all losses share: temperature, checks, masks, precision.

CLIP's pair loss; L_CON of ULIP, OpenShape and Uni3D is the sum of two of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..libraries import import_open_clip
from ..vectors import check_unit

P = ParamSpec("P")
R = TypeVar("R")
MAXIMUM = 100.0  # of the logit scale


class LogitScale(nn.Module):
    """Hold the learnable scale s = 1/τ of all logits as its logarithm, within ``[1, 100]`` (CLIP, Uni3D).

    Call the module for s, which is ``init`` at the start. `clamp_` after each optimiser step keeps the parameter itself
    in range; without it the value would still stop at the limit, but the parameter would get no gradient from beyond
    it.
    """

    def __init__(self, init: float = 1 / 0.07) -> None:
        super().__init__()
        if not 1 <= init <= MAXIMUM:
            raise ValueError(f"logit scale must hold 1 <= init <= {MAXIMUM:g}, got {init}; is this 1/scale?")
        self.log = nn.Parameter(torch.tensor(math.log(init)))

    def forward(self) -> Tensor:
        """The scale s, a scalar tensor, already exponentiated."""
        return self.log.clamp(0, math.log(MAXIMUM)).exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Put the parameter back into range, in place."""
        self.log.clamp_(0, math.log(MAXIMUM))


def same_rows(*ids: Tensor) -> Tensor:
    """Which objects of a batch must not be negatives of one another, from ids of their captions, objects, ...

    Args:
        ids: one or more ``[B]`` integer tensors; equal ids say "the same"; a negative id is shared with nobody.

    Returns:
        ``[B, B]`` bool, symmetric, True on the diagonal: rows that share any id. Give it as ``same`` to the losses over
        views, and ``~same`` as ``keep`` to those over pairs.

    Raises:
        ValueError: without ids, or when they are not integers ``[B]``.
    """
    if not ids or any(i.dim() != 1 or len(i) != len(ids[0]) or i.is_floating_point() for i in ids):
        raise ValueError(
            f"ids must be integer tensors [B] of one length, got {[(i.dtype, list(i.shape)) for i in ids]}"
        )
    same = torch.eye(len(ids[0]), dtype=torch.bool, device=ids[0].device)
    for i in ids:
        same = same | ((i[:, None] == i[None, :]) & (i >= 0)[:, None])  # [B, B]
    return same


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Run a loss outside autocast: logits of scale 100 lose their small differences in half precision."""

    @wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        kinds = {value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}
        with torch.autocast(kinds.pop() if kinds else "cpu", enabled=False):
            return loss(*args, **kwargs)

    return run


def embeddings(name: str, values: Tensor, shape: tuple[int, ...], valid: Tensor | None = None) -> Tensor:
    """Embeddings in at least float32, with their masked rows at zero, or ValueError about what is wrong with them.

    They must have the ``shape`` and unit-norm rows, but for those that are not ``valid``, bool of ``shape[:-1]``, which
    may hold anything, NaN included.
    """
    if tuple(values.shape) != shape or not values.is_floating_point():
        raise ValueError(f"{name} must be float {list(shape)}, got {values.dtype} {list(values.shape)}")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if valid is not None:
        check_mask(f"the mask of {name}", valid, shape[:-1])
        values = torch.where(valid[..., None], values, 0.0)
    check_unit(name, values, valid)
    return values


def check_mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a mask that is not bool of the given shape."""
    if mask.dtype != torch.bool or tuple(mask.shape) != tuple(shape):
        raise ValueError(f"{name} must be bool {list(shape)}, got {mask.dtype} {list(mask.shape)}")


def batch_of(name: str, values: Tensor) -> tuple[int, int]:
    """Size and width ``(B, D)`` of a batch of embeddings, or a sentence about why there is no loss for it."""
    if values.dim() != 2:
        raise ValueError(f"{name} must be [B, D], got {list(values.shape)}")
    if len(values) < 2:
        raise ValueError(
            f"a contrastive loss needs at least 2 objects, got {len(values)}: without negatives it is constant; "
            "use larger batches, and drop or merge a last batch of one"
        )
    return int(values.shape[0]), int(values.shape[1])


def scale_of(logit_scale: Tensor | float, like: Tensor) -> Tensor:
    """The exponentiated logit scale as a scalar tensor beside ``like``, or a sentence about what it should be."""
    scale = torch.as_tensor(logit_scale, dtype=like.dtype, device=like.device)
    if scale.numel() != 1 or not 0 < float(scale.detach()) < math.inf:
        raise ValueError(f"logit_scale must be one positive number (already exponentiated), got {logit_scale}")
    return scale.reshape(())


def local(rows: slice | None, size: int, device: torch.device) -> Tensor:
    """Indices ``[R]`` of the rows whose loss is wanted: all of them, or one process's rows of a gathered batch."""
    return torch.arange(size, device=device)[slice(None) if rows is None else rows]


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
    """Cross-entropy of each row ``[R]`` of ``logits [R, B]`` over its candidates ``keep [R, B]``; the target is one."""
    keep = keep | (torch.arange(logits.shape[1], device=logits.device) == target[:, None])  # [R, B]
    return F.cross_entropy(logits.masked_fill(~keep, -torch.inf), target, reduction="none")
