"""Curation without a person: the set's categories answer, and what labels buy is measured over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...evaluation.evaluation_set import Progress
from ...evaluation.scores import intervals
from ...words import listing
from .ranking import LEAST, ask_next, fit_scores, text_features

STRATEGIES = ("active", "random")
TARGET = 0.9  # average precision that ``needed`` asks for


class Task(NamedTuple):
    """Something to look for, and the categories of the catalogue, the kits and the furniture that are it."""

    query: str
    labels: frozenset[str]


@cache
def tasks() -> Mapping[str, Task]:
    """The tasks of the table ``tasks.json`` beside this module, by name."""
    table = json.loads(Path(__file__).with_name("tasks.json").read_text(encoding="utf-8"))
    return {name: Task(entry["query"], frozenset(entry["labels"])) for name, entry in table.items()}


def task_of(name: str) -> Task:
    """A task by name; ValueError for another."""
    if name not in tasks():
        raise ValueError(f"the task must be one of {listing(list(tasks()))}, got {name!r}")
    return tasks()[name]


def oracle_curves(
    embeds: np.ndarray,
    query: np.ndarray,
    truth: Sequence[bool] | np.ndarray,
    *,
    seeds: int = 10,
    budget: int = 300,
    batch: int = 10,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label by the truth, round by round, and measure the ranking after each: chosen actively, and at random.

    Each seed draws half of the objects to label from; the other half is never labelled. Both strategies have the same
    classifier and the same text; at 0 labels it is the text alone that ranks.

    Args:
        embeds: ``[N, D]`` unit rows.
        query: ``[D]``, the text.
        truth: N answers, each kind at least four times.
        seeds: draws of the half, and of the random labels.
        budget: labels at most.
        batch: labels of a round.
        progress: called with runs done, and runs in all.

    Returns:
        ``labels``, numbers of labels; for each strategy ``held_out``, AP on the other half, and ``pool``, AP on the
        half itself with its labels known, as ``[value, low, high]`` for each number: means over seeds with their 95 %
        bootstrap intervals; ``needed``, labels from which on the mean is at least 0.9, None where it never is.
    """
    said = np.asarray(truth, bool)
    if min(said.sum(), (~said).sum()) < 2 * LEAST:
        got = f"{int(said.sum())} yes of {len(said)}"
        raise ValueError(
            f"the truth must hold at least {2 * LEAST} objects of each kind, got {got}; choose another task"
        )
    features, text_scores = text_features(embeds, query)
    numbers = list(range(0, min(budget, len(said) // 2) + 1, batch))
    result: dict[str, Any] = {"objects": len(said), "positives": int(said.sum()), "seeds": seeds, "labels": numbers}
    for place, strategy in enumerate(STRATEGIES):
        runs = []
        for seed in range(seeds):
            runs.append(_run(strategy, features, text_scores, said, numbers, np.random.default_rng(seed)))
            if progress:
                progress(place * seeds + seed + 1, len(STRATEGIES) * seeds)
        means = [intervals(np.stack(half), np.arange(seeds), seed=0) for half in zip(*runs, strict=True)]
        rounded = [[[round(x, 4) for x in (one.value, one.low, one.high)] for one in half] for half in means]
        result[strategy] = dict(zip(("held_out", "pool"), rounded, strict=True))
        needed = {name: _reached(numbers, curve, TARGET) for name, curve in result[strategy].items()}
        result[strategy]["needed"] = needed
    return result


def _run(
    strategy: str,
    features: np.ndarray,
    text: np.ndarray,
    truth: np.ndarray,
    numbers: Sequence[int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """AP on the half that is never labelled, and on the half that is, at each number of labels."""
    from sklearn.metrics import average_precision_score

    halves = np.zeros(len(truth), bool)
    while min(truth[halves].sum(), truth[~halves].sum()) < LEAST:
        halves = rng.permutation(len(truth)) < len(truth) // 2
    rows, scores, values = list[int](), text, list[list[float]]()
    for number in numbers:
        while len(rows) < number:
            free = halves.copy()
            free[rows] = False
            count = number - len(rows)
            if strategy == "random":
                rows += rng.permutation(np.flatnonzero(free))[:count].tolist()
            else:
                rows += ask_next(features, scores, free, count)
            yes = int(truth[rows].sum())
            if min(yes, len(rows) - yes) >= LEAST:
                scores = fit_scores(features, rows, truth[rows])
        known = scores.copy()
        known[rows] = np.where(truth[rows], scores.max() + 1, scores.min() - 1)
        pair = ((~halves, scores), (halves, known))
        values.append([float(average_precision_score(truth[half], by[half])) for half, by in pair])
    held_out, pool = np.array(values).T
    return held_out, pool


def _reached(numbers: Sequence[int], curve: Sequence[Sequence[float]], target: float) -> int | None:
    """The least number of labels from which on the mean does not fall below the target again."""
    below = [i for i, point in enumerate(curve) if point[0] < target]
    first = below[-1] + 1 if below else 0
    return numbers[first] if first < len(numbers) else None
