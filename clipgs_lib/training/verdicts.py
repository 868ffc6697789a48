"""Arms of an ablation side by side: values with intervals, and verdicts paired by seed and by object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..catalogue import KINDS
from ..evaluation.scores import intervals
from .card import TASKS

BETTER, WORSE, NOISE = "better", "worse", "not distinguishable from noise"
METRICS = {name: words for name, words in TASKS if name in ("text_r1", "image_r1", "zero_shot_top1", "zero_shot_top5")}
METRICS |= {str(kind): f"text finds its side of a pair that differs in {kind} alone" for kind in KINDS}


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


def compare(results: Sequence[Mapping[str, Any]], against: Mapping[str, str], metrics: Sequence[str]) -> dict[str, Any]:
    """Rows and verdicts of an ablation, all values shares in [0, 1] but for the words.

    Args:
        results: of the runs: ``arm``, ``seed`` and ``scores``, which is target -> metric -> ``hits`` of every object
            and ``chance``.
        against: arm -> the arm that it is compared with; itself for the baseline.
        metrics: which of `METRICS`.

    Returns:
        ``metrics``, in words. ``rows``: ``target``, ``metric``, ``arm``, ``seed``, ``value``, ``low`` and ``high``
        (95 %, bootstrap over objects), ``n`` objects (or pairs), ``chance``. ``verdicts``, of arms with at least two
        seeds: the same over all ``seeds`` (their number; intervals by `crossed_interval`), and, but for the baseline
        and where fewer than two seeds are there of both, ``against``, ``difference``, ``smallest``, the half-width of
        its interval, which is the smallest difference that this run could have shown, and the ``verdict``: better,
        worse or not distinguishable from noise. Each verdict errs once in twenty times; nothing corrects for their
        number.
    """
    rows = list[dict[str, Any]]()
    hits: dict[tuple[str, str, float], dict[str, dict[int, np.ndarray]]] = {}  # of a task -> of an arm -> of a seed
    for result in sorted(results, key=lambda result: (list(against).index(result["arm"]), result["seed"])):
        for target, scores in result["scores"].items():
            for metric in (name for name in metrics if name in scores):
                values, chance = np.array(scores[metric]["hits"]), scores[metric]["chance"]
                hits.setdefault((target, metric, chance), {}).setdefault(result["arm"], {})[result["seed"]] = values
                score = intervals(values[:, None], np.arange(len(values)), 0)[0]
                row = {"target": target, "metric": metric, "arm": result["arm"], "seed": result["seed"]}
                row |= {"value": score.value, "low": score.low, "high": score.high, "n": len(values), "chance": chance}
                rows.append(row)
    verdicts = [
        {"target": target, "metric": metric, "chance": chance, "arm": arm}
        | _verdict(arms[arm], arms.get(against[arm], {}), against[arm])
        for (target, metric, chance), arms in hits.items()
        for arm in arms
        if len(arms[arm]) > 1
    ]
    return {"metrics": {metric: METRICS[metric] for metric in metrics}, "rows": rows, "verdicts": verdicts}


def _verdict(arm: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], name: str) -> dict[str, Any]:
    """An arm's values by seed, by themselves and beside those of the arm that it is compared with."""
    value, half = crossed_interval(np.stack(list(arm.values())))
    facts: dict[str, Any] = {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}
    facts |= {"seeds": len(arm), "n": len(next(iter(arm.values())))}
    both = [seed for seed in arm if seed in other]
    if arm is other or len(both) < 2:
        return facts
    difference, smallest = crossed_interval(np.stack([arm[seed] - other[seed] for seed in both]))
    verdict = NOISE if abs(difference) <= smallest else BETTER if difference > 0 else WORSE
    return facts | {"against": name, "difference": difference, "smallest": smallest, "verdict": verdict}
