"""What all scores share: intervals by bootstrap, hits with ties, and checks of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..vectors import check_unit

TIE = 1e-6  # cosines closer than this are equal
RESAMPLES = 1000  # of each bootstrap


@dataclass(frozen=True)
class Interval:
    """A share with its 95 % bootstrap interval, all in [0, 1]."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def hit_rates(scores: Tensor, relevant: Tensor, ks: Sequence[int]) -> Tensor:
    """Probability ``[Q, len(ks)]`` float64 that a relevant item is among the first k, ties in random order.

    Args:
        scores: ``[Q, N]``, higher is better.
        relevant: ``[Q, N]`` bool, at least one True in each row.
        ks: numbers of results looked at.
    """
    return hit_probability(*places(scores, relevant), ks)


def places(scores: Tensor, relevant: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Items ``[Q]`` better than the best relevant one, and tied with it: those not relevant, and those relevant."""
    best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)  # [Q, 1]
    tied = (scores - best).abs() <= TIE  # [Q, N]
    better = ((scores > best) & ~tied).sum(dim=1)
    return better, (tied & ~relevant).sum(dim=1), (tied & relevant).sum(dim=1)


def reciprocal_rank(better: Tensor, wrong: Tensor) -> Tensor:
    """Expected 1 / rank ``[Q]`` float64 of one item behind ``better`` others, shuffled with ``wrong`` tied ones."""
    first, last = better.double() + 1, (better + wrong).double() + 1  # the ranks it can have
    return ((last + 1).digamma() - first.digamma()) / (last - first + 1)


def relevant_mask(relevant: Tensor, size: int) -> Tensor:
    """The ``[Q, N]`` bool mask of relevant items, from itself or from one index for each query."""
    if relevant.dim() == 2:
        return relevant
    return torch.arange(size, device=relevant.device) == relevant[:, None]  # [Q, N]


def hit_probability(better: Tensor, wrong: Tensor, right: Tensor, ks: Sequence[int]) -> Tensor:
    """Probability ``[Q, len(ks)]`` that the first k hold one of ``right`` tied items, shuffled with ``wrong`` ones."""
    columns = []
    wrong, right = wrong.double(), right.double()
    total = wrong + right
    for k in ks:
        drawn = torch.minimum((k - better).clamp(min=0).double(), total)  # places left for the tied
        left = (wrong - drawn).clamp(min=0)
        log_miss = (total - drawn + 1).lgamma() - (total + 1).lgamma() + (wrong + 1).lgamma() - (left + 1).lgamma()
        several = torch.where(drawn > wrong, 1.0, 1 - log_miss.exp())  # hypergeometric
        columns.append(torch.where(right == 1, drawn / total, several))
    return torch.stack(columns, dim=1)  # [Q, k]


def intervals(hits: np.ndarray, groups: np.ndarray, seed: int) -> tuple[Interval, ...]:
    """Mean over rows of ``hits [Q, k]`` with intervals from resampling groups ``[Q]`` of rows."""
    _, inverse = np.unique(groups, return_inverse=True)
    counts = np.bincount(inverse).astype(np.float64)  # [G] rows of each group
    sums = np.stack([np.bincount(inverse, weights=column) for column in hits.T], axis=1)  # [G, k]
    rng = np.random.default_rng(seed)
    size = len(counts)
    means = np.empty((RESAMPLES, hits.shape[1]))
    for i in range(RESAMPLES):
        times = np.bincount(rng.integers(0, size, size), minlength=size)  # [G] how often each group is drawn
        means[i] = times @ sums / (times @ counts)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    values = hits.mean(axis=0)
    return tuple(Interval(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True))


def checked(name: str, values: Tensor) -> Tensor:
    """Embeddings ``[N, D]`` in at least float32, or a sentence about what is wrong with them."""
    if values.dim() != 2 or not values.is_floating_point() or 0 in values.shape:
        raise ValueError(f"{name} must be float [N, D], not empty, got {values.dtype} {list(values.shape)}")
    values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    check_unit(name, values)
    return values
