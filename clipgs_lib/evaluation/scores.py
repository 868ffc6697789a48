"""What all scores share: intervals by bootstrap, hits with ties, and checks of embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..vectors import check_unit

TIE = 1e-6  # cosines closer than this are equal
RESAMPLES = 1000  # of each bootstrap
_CELLS = 1 << 22  # weights of resamples held at a time

Statistic = Literal["mean", "median", "macro"]


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


def reciprocal_rank(better: Tensor, wrong: Tensor, right: Tensor) -> Tensor:
    """Expected 1 / rank ``[Q]`` float64 of the first of ``right`` items behind ``better`` others, shuffled with
    ``wrong`` tied ones."""
    first, last = better.double() + 1, (better + wrong).double() + 1  # the ranks it can have
    expected = ((last + 1).digamma() - first.digamma()) / (last - first + 1)  # of one item
    several = (right > 1) & (wrong > 0)
    expected[(right > 1) & (wrong == 0)] = 1 / first[(right > 1) & (wrong == 0)]
    cases, which = torch.stack([better, wrong, right], dim=1)[several].unique(dim=0, return_inverse=True)
    found = torch.empty(len(cases), dtype=torch.float64, device=expected.device)
    for case, (ahead, others, items) in enumerate(cases.tolist()):
        left = others + items - torch.arange(1, others + 2, dtype=torch.float64)  # tied ones behind each place
        log_ways = (left + 1).lgamma() - (left - items + 2).lgamma() - math.lgamma(items)
        log_all = math.lgamma(others + items + 1) - math.lgamma(others + 1) - math.lgamma(items + 1)
        found[case] = ((log_ways - log_all).exp() / (ahead + 1 + torch.arange(others + 1))).sum()
    expected[several] = found[which]
    return expected


def expected_rank(better: Tensor, wrong: Tensor, right: Tensor) -> Tensor:
    """Expected rank ``[Q]`` float64, from 1 on, of the first of ``right`` tied items, as in `reciprocal_rank`."""
    return better.double() + (wrong + right + 1).double() / (right + 1).double()


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
    low, high = np.quantile(resampled(hits, groups, seed), [0.025, 0.975], axis=0)
    values = hits.mean(axis=0)
    return tuple(Interval(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True))


def resampled(
    values: np.ndarray,
    groups: np.ndarray,
    seed: int,
    statistic: Statistic = "mean",
    classes: np.ndarray | None = None,
) -> np.ndarray:
    """A statistic of ``values [Q, k]`` where ``groups [Q]`` are drawn anew, as a whole: ``[RESAMPLES, k]``.

    Equal groups and seeds give the same draws, whatever the values.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    size, rng = int(inverse.max()) + 1, np.random.default_rng(seed)
    block = max(1, _CELLS // len(values))
    parts = []
    for start in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - start)
        drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)  # how often each is drawn
        parts.append(statistic_of(values, times[:, inverse].astype(np.float64), statistic, classes))
    return np.concatenate(parts)


def statistic_of(
    values: np.ndarray, weights: np.ndarray, statistic: Statistic, classes: np.ndarray | None = None
) -> np.ndarray:
    """Mean, median, or mean of the classes' means ("macro") of ``values [Q, k]`` under ``weights [n, Q]``: ``[n, k]``.

    Classes ``[Q]`` without weight do not count.
    """
    if statistic == "mean":
        return weights @ values / weights.sum(axis=1, keepdims=True)
    if statistic == "median":
        columns = []
        for column in values.T:
            order = np.argsort(column)
            below = np.cumsum(weights[:, order], axis=1)
            half = below[:, -1:] / 2
            first, last = (below >= half).argmax(axis=1), (below > half).argmax(axis=1)
            columns.append((column[order][first] + column[order][last]) / 2)
        return np.stack(columns, axis=1)
    assert classes is not None
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.append(True, classes[order][1:] != classes[order][:-1]))
    weights = weights[:, order]
    counts = np.add.reduceat(weights, starts, axis=1)  # [n, C]
    sums = [np.add.reduceat(weights * column[order], starts, axis=1) for column in values.T]
    means = np.stack(sums, axis=2) / np.maximum(counts, 1e-12)[..., None]  # [n, C, k]
    return means.sum(axis=1) / (counts > 0).sum(axis=1, keepdims=True)


def crossed_interval(table: np.ndarray) -> tuple[float, float]:
    """Mean of ``table [S, O]``, of S seeds crossed with O objects, and the half-width of its 95 % interval over both.

    Other seeds and other objects, 2 or more of each, would have given other means. The variance of the mean is that of
    the two-way random-effects model, (MS_seeds + MS_objects - MS_rest) / (S O), at least what seeds or objects alone
    give, with Satterthwaite's degrees of freedom for Student's t. 0 where all values are equal, which says nothing
    about certainty.
    """
    seeds, objects = table.shape
    mean, by_seed, by_object = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_object + mean
    freedom = np.array([seeds - 1, objects - 1, (seeds - 1) * (objects - 1)])
    spread = np.array([objects * by_seed.var(ddof=1), seeds * by_object.var(ddof=1), (rest**2).sum() / freedom[2]])
    total = max(spread[0] + spread[1] - spread[2], spread[0], spread[1])
    if total < 1e-12:
        return float(mean), 0.0
    effective = max(total**2 / (spread**2 / freedom).sum(), min(seeds, objects) - 1)
    return float(mean), float(stats.t.ppf(0.975, effective) * np.sqrt(total / (seeds * objects)))


def checked(name: str, values: Tensor) -> Tensor:
    """Embeddings ``[N, D]`` in at least float32, or a sentence about what is wrong with them."""
    if values.dim() != 2 or not values.is_floating_point() or 0 in values.shape:
        raise ValueError(f"{name} must be float [N, D], not empty, got {values.dtype} {list(values.shape)}")
    values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    check_unit(name, values)
    return values
