"""What all scores share, and what ranks by cosine: hits with ties, intervals by bootstrap, retrieval, zero-shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from scipy.special import gammaln
from torch import Tensor

from ..vectors import check_unit, rows_of

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


def hit_rates(scores: Tensor, relevant: Tensor, ks: Sequence[int]) -> np.ndarray:
    """Probability ``[Q, len(ks)]`` float64 that a relevant item is among the first k, ties in random order.

    Args:
        scores: ``[Q, N]``, higher is better.
        relevant: ``[Q, N]`` bool, at least one True in each row.
        ks: numbers of results looked at.
    """
    return hit_probability(*places(scores, relevant), ks=ks)


def places(scores: Tensor, relevant: Tensor) -> np.ndarray:
    """Items better than the best relevant one, and tied with it: those not relevant, and those relevant ``[3, Q]``."""
    best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)  # [Q, 1]
    tied = (scores - best).abs() <= TIE  # [Q, N]
    masks = ((scores > best) & ~tied, tied & ~relevant, tied & relevant)
    return torch.stack([mask.sum(dim=1) for mask in masks]).cpu().numpy()


def hit_probability(better: np.ndarray, wrong: np.ndarray, right: np.ndarray, *, ks: Sequence[int]) -> np.ndarray:
    """Probability ``[Q, len(ks)]`` that the first k hold one of ``right`` tied items, shuffled with ``wrong`` ones."""
    wrong, right = wrong[:, None], right[:, None]
    drawn = np.clip(np.asarray(ks) - better[:, None], 0, wrong + right)  # [Q, k] places left for the tied
    return np.where(right == 1, drawn / (wrong + right), 1 - _missed(wrong, right, drawn))


def _missed(wrong: Any, right: Any, drawn: np.ndarray) -> np.ndarray:
    """Probability that none of ``right`` items is drawn (hypergeometric)."""
    left, total = np.maximum(wrong - drawn, 0), wrong + right
    log_ways = gammaln(wrong + 1) - gammaln(left + 1) + gammaln(total - drawn + 1) - gammaln(total + 1)
    return np.where(drawn > wrong, 0.0, np.exp(log_ways))


def reciprocal_rank(better: np.ndarray, wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Expected 1 / rank ``[Q]`` float64 of the first of ``right`` items behind ``better`` others, shuffled with
    ``wrong`` tied ones."""
    cases, which = np.unique(np.stack([better, wrong, right], axis=1), axis=0, return_inverse=True)
    expected = np.empty(len(cases))
    for case, (ahead, others, items) in enumerate(cases.tolist()):
        drawn = np.arange(others + 2)
        expected[case] = (-np.diff(_missed(others, items, drawn)) / (ahead + drawn[1:])).sum()
    return expected[which]


def expected_rank(better: np.ndarray, wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Expected rank ``[Q]`` float64, from 1 on, of the first of ``right`` tied items, as in `reciprocal_rank`."""
    return better + (wrong + right + 1) / (right + 1)


def relevant_mask(relevant: Tensor, size: int) -> Tensor:
    """The ``[Q, N]`` bool mask of relevant items, from itself or from one index for each query."""
    if relevant.dim() == 2:
        return relevant
    return torch.arange(size, device=relevant.device) == relevant[:, None]  # [Q, N]


def intervals(hits: np.ndarray, groups: np.ndarray, seed: int) -> tuple[Interval, ...]:
    """Mean over rows of ``hits [Q, k]`` with intervals from resampling groups ``[Q]`` of rows."""
    low, high = np.quantile(resampled(hits, groups, seed), [0.025, 0.975], axis=0)
    values = hits.mean(axis=0)
    return tuple(Interval(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True))


def resampled(
    values: np.ndarray, groups: np.ndarray, seed: int, statistic: Statistic = "mean", classes: np.ndarray | None = None
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
    members = (classes[:, None] == np.unique(classes)).astype(np.float64)  # [Q, C]
    counts = weights @ members  # [n, C]
    sums = np.stack([(weights * column) @ members for column in values.T], axis=2)  # [n, C, k]
    return (sums / np.maximum(counts, 1e-12)[..., None]).sum(axis=1) / (counts > 0).sum(axis=1, keepdims=True)


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


CELLS = 1 << 24  # similarities held in memory at a time


@dataclass(frozen=True)
class Ranked:
    """How often the right thing is among the first k, by `retrieval` or `zero_shot`."""

    ks: tuple[int, ...]
    values: tuple[Interval, ...]  # at each of ks: mean over queries, which the bootstrap resamples
    chance: tuple[float, ...]  # at each of ks: of a random order
    mrr: float  # mean reciprocal rank of the first right thing, in (0, 1]
    objects: int  # queries
    candidates: int  # items of the gallery, or classes

    def at(self, k: int) -> Interval:
        """The score at k, one of ``ks``."""
        if k not in self.ks:
            raise ValueError(f"k must be one of those computed, {', '.join(map(str, self.ks))}, got {k}")
        return self.values[self.ks.index(k)]


def retrieval(queries: Tensor, gallery: Tensor, relevant: Tensor, ks: Sequence[int] = (1, 5, 10)) -> Ranked:
    """Search a gallery for each query; with several relevant items the first one found counts.

    Args:
        queries: ``[Q, D]`` unit-norm.
        gallery: ``[N, D]`` unit-norm, on the same device.
        relevant: ``[Q]`` integer index into the gallery, or ``[Q, N]`` bool (several items with one caption, say).
        ks: increasing numbers of results looked at. From the size of the gallery on, recall and chance are 1.

    Returns:
        The recalls at ``ks``: the mean over queries, with chance and intervals.

    Raises:
        ValueError: for other shapes, non-finite or unnormalised rows (named), or queries without a relevant item.
    """
    return _ranked(rank(queries, gallery, relevant, ks), len(gallery))


def zero_shot(embeds: Tensor, weights: Tensor, target: Tensor, ks: Sequence[int] = (1, 3, 5)) -> Ranked:
    """Classify objects by the nearest class embedding (REFERENCE: CLIP's zero-shot inference).

    Args:
        embeds: ``[N, D]`` unit-norm embeddings, one for each object.
        weights: ``[C, D]`` unit-norm class embeddings, as of ``teacher.zero_shot_weights``, on the same device.
        target: ``[N]`` integer index of the right class.
        ks: increasing; from C on, accuracy and chance are 1.

    Returns:
        Top-k accuracies with chance and intervals.

    Raises:
        ValueError: for other shapes, non-finite or unnormalised rows (named), or targets outside ``[0, C)``.
    """
    if target.dim() != 1:
        raise ValueError(f"target must be [N] class indices, got {list(target.shape)}")
    return _ranked(rank(embeds, weights, target, ks, ("embeds", "weights")), len(weights))


def _ranked(ranks: Ranks, candidates: int) -> Ranked:
    count = len(ranks.hits)
    values = intervals(ranks.hits, np.arange(count), seed=0)
    return Ranked(ranks.ks, values, ranks.chance, float(ranks.reciprocal.mean()), count, candidates)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where each of Q queries finds the first thing that it looks for, ties in random order."""

    ks: tuple[int, ...]
    hits: np.ndarray  # [Q, k] probability to be among the first k
    reciprocal: np.ndarray  # [Q] expected 1 / rank
    rank: np.ndarray  # [Q] expected rank, from 1 on
    chance: tuple[float, ...]  # hits of a random order, for each of ks
    chance_reciprocal: float
    chance_rank: float  # median


@torch.no_grad()
def rank(
    queries: Tensor,
    gallery: Tensor,
    relevant: Tensor,
    ks: Sequence[int],
    names: tuple[str, str] = ("queries", "gallery"),
) -> Ranks:
    """Rank a gallery by cosine for each query, in blocks of queries; arguments and errors are those of `retrieval`."""
    (name, other), ks = names, tuple(ks)
    queries, gallery = checked(name, queries), checked(other, gallery)
    if not ks or ks[0] < 1 or any(a >= b for a, b in pairwise(ks)):
        raise ValueError(f"ks must be increasing numbers >= 1, got {ks}")
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{name} and {other} must have one width, got {queries.shape[1]} and {gallery.shape[1]}; "
            "are they of different teachers?"
        )
    _check_relevant(relevant, len(queries), len(gallery))
    step = max(1, CELLS // len(gallery))
    ranked, count = [], []  # places of each query, relevant items of each
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        mask = relevant_mask(relevant[part], len(gallery))  # [q, N]
        with torch.autocast(queries.device.type, enabled=False):  # half precision would make ties of neighbours
            ranked.append(places(queries[part] @ gallery.T, mask))
        count.append(mask.sum(dim=1).cpu().numpy())
    tied, right = np.concatenate(ranked, axis=1), np.concatenate(count)
    blind = np.stack([np.zeros_like(right), len(gallery) - right, right])  # places in a random order
    return Ranks(
        ks=ks,
        hits=hit_probability(*tied, ks=ks),
        reciprocal=reciprocal_rank(*tied),
        rank=expected_rank(*tied),
        chance=tuple(hit_probability(*blind, ks=ks).mean(axis=0).tolist()),
        chance_reciprocal=float(reciprocal_rank(*blind).mean()),
        chance_rank=float(np.median(expected_rank(*blind))),
    )


def _check_relevant(relevant: Tensor, queries: int, size: int) -> None:
    """Refuse targets of another shape, and targets that the gallery does not hold."""
    if relevant.dtype == torch.bool and relevant.shape == (queries, size):
        missing = ~relevant.any(dim=1)
    elif relevant.shape == (queries,) and relevant.dtype in (torch.int64, torch.int32):
        missing = (relevant < 0) | (relevant >= size)
    else:
        raise ValueError(
            f"targets must be integers [{queries}] or bool [{queries}, {size}], got {relevant.dtype} "
            f"{list(relevant.shape)}"
        )
    if bool(missing.any()):
        raise ValueError(
            f"each query needs its target among the {size} candidates; queries {rows_of(missing)} have none: "
            "leave them out and report how many, or complete the gallery"
        )
