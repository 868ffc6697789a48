"""n-way m-shot classification on frozen embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .scores import checked, hit_rates, relevant_mask

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # inverse regularisations that a probe chooses from
EPISODE_STRENGTH = 100.0  # that of episodes: unit-norm features want more than scikit-learn's 1
FOLDS = 4  # of the choice of a probe, at most


def few_shot(
    embeds: Tensor, target: Tensor, ways: int, shots: int, *, queries: int = 20, episodes: int = 10, seed: int = 0
) -> np.ndarray:
    """Learn ``ways`` classes from ``shots`` objects each, on frozen embeddings, and classify others; many times.

    Each episode draws 2 or more classes, then disjoint labelled objects and ``queries`` of each, and fits
    scikit-learn's logistic regression to the labelled ones. Classes with fewer than ``shots + queries`` objects are
    left out.

    Args:
        embeds: ``[N, D]`` unit-norm, of held-out objects.
        target: ``[N]`` integer class of each.

    Returns:
        The accuracy of each episode ``[episodes]`` float64, ties counted as their mean; chance is 1 / ways.

    Raises:
        ValueError: for other shapes, bad rows (named), or too few classes with enough objects.
    """
    if ways < 2 or min(shots, queries, episodes) < 1:
        raise ValueError(
            f"few-shot needs ways >= 2 and shots, queries, episodes >= 1, got {ways}, {shots}, {queries}, {episodes}"
        )
    scores = []
    for x, y, asked, truth in _draws(embeds, target, ways, shots, queries, queries, episodes, seed):
        model = _fit(x, y, EPISODE_STRENGTH)
        chances = torch.from_numpy(model.predict_proba(asked))  # [ways * queries, ways]
        right = torch.from_numpy(np.searchsorted(model.classes_, truth))
        scores.append(float(hit_rates(chances, relevant_mask(right, ways), (1,)).mean()))
    return np.array(scores)


def linear_probe(
    embeds: Tensor, target: Tensor, shots: int, *, queries: int = 20, draws: int = 5, seed: int = 0
) -> np.ndarray:
    """Learn all classes at once from ``shots`` objects each, the regularisation chosen on these alone; several draws.

    As `few_shot`, with every class that has more than ``shots`` objects, of which at most ``queries`` others are asked.
    With 2 shots or more the strength is one of `STRENGTHS`, by cross-validation on the labelled objects; with 1 it is
    the third. The result is the accuracy of each draw ``[draws]`` float64.
    """
    if min(shots, queries, draws) < 1:
        raise ValueError(f"a probe needs shots, queries and draws >= 1, got {shots}, {queries} and {draws}")
    drawn = _draws(embeds, target, None, shots, 1, queries, draws, seed)
    return np.array([float((_fit(x, y, None).predict(asked) == truth).mean()) for x, y, asked, truth in drawn])


def _draws(
    embeds: Tensor, target: Tensor, ways: int | None, shots: int, least: int, most: int, count: int, seed: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Labelled embeddings and their classes, then ``least`` to ``most`` asked ones of each class, drawn many times.

    Of ``ways`` classes at a time, or of all that have enough objects.
    """
    rows, labels = checked("embeds", embeds).cpu().double().numpy(), target.cpu().numpy()
    if labels.shape != (len(rows),) or labels.dtype.kind not in "iu":
        raise ValueError(f"target must be integers [{len(rows)}], got {target.dtype} {list(target.shape)}")
    classes, counts = np.unique(labels, return_counts=True)
    eligible = classes[counts >= shots + least]
    if len(eligible) < (ways or 2):
        enough = f"{ways or 2} classes of at least {shots + least} objects"
        got = f"got {len(eligible)} of {len(classes)}"
        if ways is None:
            raise ValueError(f"a {shots}-shot probe needs {enough}, {got}; lower shots")
        raise ValueError(
            f"{ways}-way {shots}-shot needs {enough} (shots + queries), {got}; lower ways, shots or queries"
        )
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        chosen = eligible if ways is None else rng.choice(eligible, ways, replace=False)
        drawn = [rng.permutation(np.flatnonzero(labels == c))[: shots + most] for c in chosen]
        known, asked = (np.concatenate(part) for part in zip(*((d[:shots], d[shots:]) for d in drawn), strict=True))
        yield rows[known], labels[known], rows[asked], labels[asked]


def _fit(embeds: np.ndarray, labels: np.ndarray, strength: float | None) -> Any:
    """Logistic regression on embeddings ``[N, D]``, by default with the strength that cross-validation chooses."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    shots = int(np.unique(labels, return_counts=True)[1].min())
    model: Any = LogisticRegression(C=STRENGTHS[2] if strength is None else strength, max_iter=1000)
    if strength is None and shots > 1:
        folds = StratifiedKFold(min(FOLDS, shots), shuffle=True, random_state=0)
        model = GridSearchCV(model, {"C": STRENGTHS}, cv=folds)
    return model.fit(embeds, labels)
