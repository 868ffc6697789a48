"""From a few labels to a ranking of all objects: a small classifier on frozen embeddings, and what to ask next.

The recipe is in the spirit of NuiScene's filtering of Objaverse, which was not published (REFERENCE §6): text query,
labels, logistic regression, a few rounds of active learning, a threshold at a target precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from ...evaluation import Interval

STRENGTH = 10.0  # inverse regularisation C, for features of mean square length 1
TEXT_WEIGHT = 0.3  # of the text score beside them: a few labels trust the query, many overrule it
LEAST = 2  # labels of each class that a classifier needs, so that each half of a fold has one
FOLDS, RESAMPLES = 5, 200
_BAND = 4  # candidates of a round, as a multiple of its size


@dataclass(frozen=True, eq=False)
class Ranking:
    """What n labels say of all N objects."""

    scores: np.ndarray  # [N] of the classifier, 0 is undecided
    probabilities: np.ndarray  # [N] that a person would say yes
    rows: np.ndarray  # [n] labelled objects
    truth: np.ndarray  # [n] bool, what was said
    held_out: np.ndarray  # [n] their scores by classifiers that did not see them
    ap: Interval  # average precision of held_out; the bootstrap resamples labels


@dataclass(frozen=True, eq=False)
class Selection:
    """The objects of a target precision."""

    kept: np.ndarray  # [N] bool
    threshold: float  # least probability of an object that is kept without a label; above 1 when none is
    precision: Interval  # expected share of yes among the kept; the bootstrap resamples labels


def text_features(embeds: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of a classifier, and the text ranking ``[N]`` that stands in for one before there are labels.

    Of ``embeds [N, D]``, unit rows, and ``query [D]``, a text in the same space: ``[N, D + 1]`` float32, embeddings
    centred and of mean square length 1, and the text score, which by itself has mean 0 and deviation 1.
    """
    centred = embeds - embeds.mean(axis=0)
    scores = embeds @ query
    scores = (scores - scores.mean()) / max(float(scores.std()), 1e-12)
    scale = max(float(np.sqrt(np.square(centred).sum(axis=1).mean())), 1e-12)
    features = np.concatenate([centred / scale, TEXT_WEIGHT * scores[:, None]], axis=1)
    return features.astype(np.float32), scores


def fit_ranking(features: np.ndarray, rows: Sequence[int], truth: Sequence[bool], seed: int = 0) -> Ranking:
    """Fit a class-weighted logistic regression, with cross-validated AP and probabilities calibrated by Platt's method.

    Of ``features [N, F]`` n ``rows`` were answered by ``truth``; ``seed`` draws folds and bootstrap. Labels asked for
    by score or by chance alike may be used: how likely a yes is at a score does not depend on it. ValueError with fewer
    than `LEAST` labels of a class.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    chosen, said = np.asarray(rows, np.int64), np.asarray(truth, bool)
    counts = int(said.sum()), int((~said).sum())
    if min(counts) < LEAST:
        got = f"{counts[0]} yes and {counts[1]} no"
        raise ValueError(f"there must be at least {LEAST} labels of each kind, got {got}; label more")
    model = _classifier()
    folds = StratifiedKFold(min(FOLDS, *counts), shuffle=True, random_state=seed)
    held_out = cross_val_predict(model, features[chosen], said, cv=folds, method="decision_function")
    scores = model.fit(features[chosen], said).decision_function(features)
    slope, offset = _sigmoid(held_out, said, np.ones(len(said)))
    probabilities = expit(slope * scores + offset)
    return Ranking(scores, probabilities, chosen, said, held_out, _average_precision(held_out, said, seed))


def fit_scores(features: np.ndarray, rows: Sequence[int], truth: np.ndarray) -> np.ndarray:
    """The scores ``[N]`` of `fit_ranking` alone, for n labels of both kinds."""
    return _classifier().fit(features[rows], truth).decision_function(features)


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)


def _sigmoid(held_out: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the probability at a score, fitted to held-out scores ``[n]`` (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(held_out[:, None], truth, sample_weight=weights)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _resamples(truth: np.ndarray, seed: int) -> np.ndarray:
    """How often each label is drawn ``[RESAMPLES, n]``, class by class, so that both stay present."""
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    draws = (np.concatenate([rng.choice(one, len(one)) for one in classes]) for _ in range(RESAMPLES))
    return np.stack([np.bincount(draw, minlength=len(truth)) for draw in draws])


def _average_precision(scores: np.ndarray, truth: np.ndarray, seed: int) -> Interval:
    times = np.concatenate([np.ones((1, len(truth)), np.int64), _resamples(truth, seed)])
    values = average_precisions(scores, truth, times)
    return _interval(float(values[0]), values[1:])


def average_precisions(scores: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Scikit-learn's ``average_precision_score`` for many samples at once, which hold each label ``times [R, n]``.

    One by one, its checks of the input are most of the time of a refit. ``scores [n]``, ``truth [n]`` bool; ``[R]``.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of runs of equal scores
    drawn, hits = (np.cumsum(times[:, order] * part, axis=1)[:, ends] for part in (1, truth[order]))
    gained = np.diff(hits, axis=1, prepend=0)
    return (gained * hits / np.maximum(drawn, 1)).sum(axis=1) / hits[:, -1]


def _interval(value: float, values: Sequence[float] | np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(value, min(value, float(low)), max(value, float(high)))


def ask_next(features: np.ndarray, scores: np.ndarray, free: np.ndarray, count: int) -> list[int]:
    """Choose what to label next: half by the highest scores, the others undecided and unlike each other.

    Of ``features [N, F]`` and ``scores [N]``, 0 undecided, ``count`` rows of those that are ``free [N]``, fewer when
    fewer are: the highest scores first; then farthest-point sampling within the band of the most undecided.
    """
    left = np.flatnonzero(free)
    best = left[np.argsort(-scores[left], kind="stable")[: -(-count // 2)]]
    left = left[~np.isin(left, best)]
    band = left[np.argsort(np.abs(scores[left]), kind="stable")[: _BAND * count]]
    chosen = list[int]()
    distances = np.full(len(band), np.inf)  # [M] to the nearest one chosen
    for _ in range(min(count - len(best), len(band))):
        place = int(distances.argmax())  # first the most undecided: all are infinitely far
        chosen.append(int(band[place]))
        distances = np.minimum(distances, np.square(features[band] - features[band[place]]).sum(axis=1))
        distances[place] = -1
    return [*best.tolist(), *chosen]


def select(ranking: Ranking, precision: float, seed: int = 0) -> Selection:
    """Keep as many objects as leave the expected share of yes among them at or above ``precision``, in ``(0, 1]``.

    What a person said is certain: yes is kept, no is not. The others come in by their probability, the highest first,
    and never below one half: labels do not make room for what is hardly a yes. ValueError for another target.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision must lie in (0, 1], got {precision}")
    certain = ranking.rows[ranking.truth]
    order = np.argsort(-ranking.scores, kind="stable")
    others = order[~np.isin(order, ranking.rows)]
    chances = ranking.probabilities[others]
    shares = (len(certain) + chances.cumsum()) / (len(certain) + np.arange(1, len(others) + 1))
    count = int(((shares >= precision - 1e-9) & (chances >= 0.5)).sum())  # both fall with the score
    taken = others[:count]
    kept = np.zeros(len(ranking.scores), bool)
    kept[certain] = kept[taken] = True

    def share(weights: np.ndarray) -> float:
        slope, offset = _sigmoid(ranking.held_out, ranking.truth, weights)
        sure = expit(slope * ranking.scores[taken] + offset).sum()
        return float((len(certain) + sure) / max(1, len(certain) + count))

    values = [share(times) for times in _resamples(ranking.truth, seed)]
    threshold = float(chances[count - 1]) if count else 1.1
    return Selection(kept, threshold, _interval(share(np.ones(len(ranking.truth))), values))
