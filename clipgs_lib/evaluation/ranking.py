"""Retrieval and zero-shot classification: both rank candidates by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..vectors import rows_of
from .scores import Interval, checked, expected_rank, hit_probability, intervals, places, reciprocal_rank, relevant_mask

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
    found, blind = [], []  # places of each query; those of a random order
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        mask = relevant_mask(relevant[part], len(gallery))  # [q, N]
        with torch.autocast(queries.device.type, enabled=False):  # half precision would make ties of neighbours
            found.append(torch.stack(places(queries[part] @ gallery.T, mask)))
        right = mask.sum(dim=1)
        blind.append(torch.stack([torch.zeros_like(right), len(gallery) - right, right]))
    better, wrong, tied = torch.cat(found, dim=1)  # [Q] each
    none, others, right = torch.cat(blind, dim=1)
    return Ranks(
        ks=ks,
        hits=hit_probability(better, wrong, tied, ks).cpu().numpy(),
        reciprocal=reciprocal_rank(better, wrong, tied).cpu().numpy(),
        rank=expected_rank(better, wrong, tied).cpu().numpy(),
        chance=tuple(hit_probability(none, others, right, ks).mean(dim=0).tolist()),
        chance_reciprocal=float(reciprocal_rank(none, others, right).mean()),
        chance_rank=float(np.median(expected_rank(none, others, right).cpu().numpy())),
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
