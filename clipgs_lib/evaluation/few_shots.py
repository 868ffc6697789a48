"""n-way m-shot classification on frozen embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..vectors import unit
from .scores import Interval, checked, hit_rates, intervals, relevant_mask

METHODS = ("linear", "prototype")
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # inverse regularisations that a probe chooses from
FOLDS = 4  # of that choice, at most


@dataclass(frozen=True)
class FewShot:
    """n-way m-shot classification over random episodes."""

    accuracy: Interval  # mean over episodes; the bootstrap resamples episodes
    std: float  # standard deviation over episodes (n - 1); 0 for a single one
    chance: float  # 1 / ways
    ways: int  # classes in an episode
    shots: int  # labelled objects of each class
    queries: int  # objects of each class that are classified
    episodes: int
    method: str  # one of METHODS, or "probe"
    eligible: int  # classes with enough objects, from which episodes are drawn
    scores: tuple[float, ...]  # accuracy of each episode

    def __str__(self) -> str:
        return (
            f"{self.ways}-way {self.shots}-shot ({self.method}) {self.accuracy}, std {100 * self.std:.1f} over "
            f"{self.episodes} episodes (chance {100 * self.chance:.1f}) · {self.queries} queries of each class, "
            f"{self.eligible:,} classes eligible"
        )


def few_shot(
    embeds: Tensor,
    target: Tensor,
    ways: int,
    shots: int,
    *,
    queries: int = 20,
    episodes: int = 10,
    method: str = "linear",
    strength: float = 100.0,
    seed: int = 0,
) -> FewShot:
    """Learn ``ways`` classes from ``shots`` objects each, on frozen embeddings, and classify others; many times.

    Each episode draws classes, then disjoint labelled objects and queries of each. "linear" is scikit-learn's logistic
    regression on the embeddings; "prototype" takes the class whose labelled objects' renormalised mean is nearest.

    Args:
        embeds: ``[N, D]`` unit-norm, of held-out objects.
        target: ``[N]`` integer class of each.
        ways: classes in an episode, >= 2.
        shots: labelled objects of each class, >= 1.
        queries: objects of each class to classify. Classes with fewer than ``shots + queries`` objects are left out.
        episodes: how many.
        method: one of `METHODS`.
        strength: inverse regularisation C of "linear"; unit-norm features want more than scikit-learn's 1.
        seed: of episodes and bootstrap.

    Returns:
        Mean accuracy over episodes with its interval and spread.

    Raises:
        ValueError: for other shapes, bad rows (named), an unknown method, or too few classes with enough objects.
    """
    embeds, labels = _checked(embeds, target)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if ways < 2 or min(shots, queries, episodes) < 1:
        raise ValueError(
            f"few-shot needs ways >= 2 and shots, queries, episodes >= 1, got {ways}, {shots}, {queries}, {episodes}"
        )
    classes, counts = np.unique(labels, return_counts=True)
    eligible = classes[counts >= shots + queries]
    if len(eligible) < ways:
        raise ValueError(
            f"{ways}-way {shots}-shot needs {ways} classes of at least {shots + queries} objects (shots + queries), "
            f"got {len(eligible)} of {len(classes)}; lower ways, shots or queries"
        )
    scores = []
    for episode in range(episodes):
        rng = np.random.default_rng([seed, episode])
        chosen = rng.choice(eligible, ways, replace=False)
        drawn = [rng.permutation(np.flatnonzero(labels == c))[: shots + queries] for c in chosen]
        parts = embeds[torch.from_numpy(np.stack(drawn))]  # [ways, shots + queries, D]
        scores.append(_episode(parts[:, :shots], parts[:, shots:], method, strength))
    return _summary(scores, seed, ways=ways, shots=shots, queries=queries, method=method, eligible=len(eligible))


def linear_probe(
    embeds: Tensor, target: Tensor, shots: int, *, queries: int = 20, draws: int = 5, seed: int = 0
) -> FewShot:
    """Learn all classes at once from ``shots`` objects each, the regularisation chosen on these alone; several draws.

    As `few_shot`, with every class that has more than ``shots`` objects; logistic regression. With 2 shots or more
    its strength is one of `STRENGTHS`, by cross-validation on the labelled objects; with 1 it is the third.

    Args:
        embeds: ``[N, D]`` unit-norm.
        target: ``[N]`` integer class of each.
        shots: labelled objects of each class, >= 1.
        queries: objects of each class to classify, at most.
        draws: of labelled objects and queries.
        seed: of draws and bootstrap.

    Raises:
        ValueError: as `few_shot`.
    """
    embeds, labels = _checked(embeds, target)
    if min(shots, queries, draws) < 1:
        raise ValueError(f"a probe needs shots, queries and draws >= 1, got {shots}, {queries} and {draws}")
    classes, counts = np.unique(labels, return_counts=True)
    eligible = classes[counts > shots]
    if len(eligible) < 2:
        raise ValueError(
            f"a {shots}-shot probe needs 2 classes of at least {shots + 1} objects, got {len(eligible)} of "
            f"{len(classes)}; lower shots"
        )
    scores = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        drawn = [rng.permutation(np.flatnonzero(labels == c))[: shots + queries] for c in eligible]
        known, asked = np.concatenate([d[:shots] for d in drawn]), np.concatenate([d[shots:] for d in drawn])
        right = labels[asked] == _fit(embeds[known], labels[known], None).predict(embeds[asked].double().numpy())
        scores.append(float(right.mean()))
    ways = len(eligible)
    return _summary(scores, seed, ways=ways, shots=shots, queries=queries, method="probe", eligible=ways)


def _checked(embeds: Tensor, target: Tensor) -> tuple[Tensor, np.ndarray]:
    embeds, labels = checked("embeds", embeds).cpu(), target.cpu().numpy()
    if labels.shape != (len(embeds),) or labels.dtype.kind not in "iu":
        raise ValueError(f"target must be integers [{len(embeds)}], got {target.dtype} {list(target.shape)}")
    return embeds, labels


def _summary(scores: Sequence[float], seed: int, *, ways: int, **facts: Any) -> FewShot:
    accuracies, count = np.array(scores), len(scores)
    return FewShot(
        accuracy=intervals(accuracies[:, None], np.arange(count), seed)[0],
        std=float(accuracies.std(ddof=1)) if count > 1 else 0.0,
        chance=1 / ways,
        ways=ways,
        episodes=count,
        scores=tuple(scores),
        **facts,
    )


def _fit(embeds: Tensor, labels: np.ndarray, strength: float | None) -> Any:
    """Logistic regression on embeddings ``[N, D]``, by default with the strength that cross-validation chooses."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    shots = int(np.bincount(np.unique(labels, return_inverse=True)[1]).min())
    model: Any = LogisticRegression(C=STRENGTHS[2] if strength is None else strength, max_iter=1000)
    if strength is None and shots > 1:
        folds = StratifiedKFold(min(FOLDS, shots), shuffle=True, random_state=0)
        model = GridSearchCV(model, {"C": STRENGTHS}, cv=folds)
    return model.fit(embeds.double().numpy(), labels)


def _episode(labelled: Tensor, asked: Tensor, method: str, strength: float) -> float:
    """Accuracy of one episode from labelled ``[W, S, D]`` and asked ``[W, A, D]`` embeddings."""
    ways, dim = len(labelled), labelled.shape[2]
    truth = torch.arange(ways).repeat_interleave(asked.shape[1])  # [W*A]
    if method == "prototype":
        prototypes = unit(labelled.mean(dim=1))  # [W, D]
        scores = asked.reshape(-1, dim) @ prototypes.T  # [W*A, W]
    else:
        known = np.repeat(np.arange(ways), labelled.shape[1])
        model = _fit(labelled.reshape(-1, dim), known, strength)
        scores = torch.from_numpy(model.predict_proba(asked.reshape(-1, dim).double().numpy()))  # [W*A, W]
    return float(hit_rates(scores, relevant_mask(truth, ways), (1,)).mean())
