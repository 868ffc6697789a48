"""Retrieval and zero-shot classification: both rank candidates by cosine."""

from __future__ import annotations

import math
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
class _Ranked:
    """How often the right thing is among the first k."""

    ks: tuple[int, ...]
    values: tuple[Interval, ...]  # at each of ks: mean over queries or objects
    chance: tuple[float, ...]  # at each of ks: of a random order
    objects: int  # what the bootstrap resamples; queries may share one

    def at(self, k: int) -> Interval:
        """The score at k, one of ``ks``."""
        if k not in self.ks:
            raise ValueError(f"k must be one of those computed, {', '.join(map(str, self.ks))}, got {k}")
        return self.values[self.ks.index(k)]

    def _line(self, name: str) -> str:
        columns = zip(self.ks, self.values, self.chance, strict=True)
        return " · ".join(f"{name}{k} {value} (chance {100 * c:.3g})" for k, value, c in columns)


@dataclass(frozen=True)
class Recalls(_Ranked):
    """Retrieval: how often something relevant is among the first k."""

    queries: int
    gallery: int  # items searched

    def __str__(self) -> str:
        scores = self._line("R@")
        return f"{scores} · {self.queries:,} queries of {self.objects:,} objects in a gallery of {self.gallery:,}"


@dataclass(frozen=True)
class TopK(_Ranked):
    """Zero-shot classification: how often the right class is among the first k."""

    classes: int  # to choose from
    mrr: float  # mean reciprocal rank of the right class, in (0, 1]
    class_accuracy: tuple[float, ...]  # at the first of ks, of each class; NaN for classes without objects
    class_counts: tuple[int, ...]  # objects of each class

    @property
    def macro(self) -> float:
        """Mean of the accuracies of the classes that have objects, at the first of ks."""
        return float(np.nanmean(self.class_accuracy))

    def __str__(self) -> str:
        seen = sum(count > 0 for count in self.class_counts)
        scores = self._line("Top-")
        return (
            f"{scores} · macro Top-{self.ks[0]} {100 * self.macro:.1f} % · {self.objects:,} objects of {seen:,} "
            f"classes, {self.classes:,} to choose from"
        )


def retrieval(
    queries: Tensor,
    gallery: Tensor,
    relevant: Tensor,
    ks: Sequence[int] = (1, 5, 10),
    *,
    objects: Tensor | None = None,
    seed: int = 0,
) -> Recalls:
    """Search a gallery for each query; with several relevant items the first one found counts.

    Args:
        queries: ``[Q, D]`` unit-norm.
        gallery: ``[N, D]`` unit-norm, on the same device.
        relevant: ``[Q]`` integer index into the gallery, or ``[Q, N]`` bool (several items with one caption, say).
        ks: increasing numbers of results looked at. From the size of the gallery on, recall and chance are 1.
        objects: ``[Q]`` integer ids of what the queries belong to (several views of one object); None for one each.
        seed: of the bootstrap.

    Returns:
        The recalls at ``ks``: the mean over queries, with chance and intervals.

    Raises:
        ValueError: for other shapes, non-finite or unnormalised rows (named), or queries without a relevant item.
    """
    found = rank(queries, gallery, relevant, ks)
    if objects is None:
        objects = torch.arange(len(queries))
    if objects.shape != (len(queries),) or objects.is_floating_point():
        raise ValueError(f"objects must be integers [{len(queries)}], got {objects.dtype} {list(objects.shape)}")
    groups = objects.cpu().numpy()
    return Recalls(
        ks=found.ks,
        values=intervals(found.hits, groups, seed),
        chance=found.chance,
        queries=len(queries),
        objects=len(np.unique(groups)),
        gallery=len(gallery),
    )


def zero_shot(embeds: Tensor, weights: Tensor, target: Tensor, ks: Sequence[int] = (1, 3, 5), *, seed: int = 0) -> TopK:
    """Classify objects by the nearest class embedding (REFERENCE: CLIP's zero-shot inference).

    Args:
        embeds: ``[N, D]`` unit-norm embeddings, one for each object.
        weights: ``[C, D]`` unit-norm class embeddings, as of ``teacher.zero_shot_weights``, on the same device.
        target: ``[N]`` integer index of the right class.
        ks: increasing; from C on, accuracy and chance are 1.
        seed: of the bootstrap.

    Returns:
        Top-k accuracies with chance and intervals, and the accuracy of each class.

    Raises:
        ValueError: for other shapes, non-finite or unnormalised rows (named), or targets outside ``[0, C)``.
    """
    if target.dim() != 1:
        raise ValueError(f"target must be [N] class indices, got {list(target.shape)}")
    found = rank(embeds, weights, target, ks, ("embeds", "weights"))
    classes = target.cpu().numpy()
    counts = np.bincount(classes, minlength=len(weights))
    sums = np.bincount(classes, weights=found.hits[:, 0], minlength=len(weights))
    return TopK(
        ks=found.ks,
        values=intervals(found.hits, np.arange(len(embeds)), seed),
        chance=found.chance,
        objects=len(embeds),
        classes=len(weights),
        mrr=float(found.reciprocal.mean()),
        class_accuracy=tuple(s / c if c else math.nan for s, c in zip(sums.tolist(), counts.tolist(), strict=True)),
        class_counts=tuple(counts.tolist()),
    )


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
