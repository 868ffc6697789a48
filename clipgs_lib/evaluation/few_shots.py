"""n-way m-shot classification on frozen embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..vectors import unit
from .scores import Interval, checked, hit_rates, intervals, relevant_mask

METHODS = ("linear", "prototype")


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
    method: str  # one of METHODS
    eligible: int  # classes with enough objects, from which episodes are drawn

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
    embeds = checked("embeds", embeds).cpu()
    labels = target.cpu().numpy()
    if labels.shape != (len(embeds),) or labels.dtype.kind not in "iu":
        raise ValueError(f"target must be integers [{len(embeds)}], got {target.dtype} {list(target.shape)}")
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
    accuracies = np.array(scores)
    return FewShot(
        accuracy=intervals(accuracies[:, None], np.arange(episodes), seed)[0],
        std=float(accuracies.std(ddof=1)) if episodes > 1 else 0.0,
        chance=1 / ways,
        ways=ways,
        shots=shots,
        queries=queries,
        episodes=episodes,
        method=method,
        eligible=len(eligible),
    )


def _episode(labelled: Tensor, asked: Tensor, method: str, strength: float) -> float:
    """Accuracy of one episode from labelled ``[W, S, D]`` and asked ``[W, A, D]`` embeddings."""
    ways, dim = len(labelled), labelled.shape[2]
    truth = torch.arange(ways).repeat_interleave(asked.shape[1])  # [W*A]
    if method == "prototype":
        prototypes = unit(labelled.mean(dim=1))  # [W, D]
        scores = asked.reshape(-1, dim) @ prototypes.T  # [W*A, W]
    else:
        from sklearn.linear_model import LogisticRegression

        known = np.repeat(np.arange(ways), labelled.shape[1])
        model = LogisticRegression(C=strength, max_iter=1000).fit(labelled.reshape(-1, dim).double().numpy(), known)
        scores = torch.from_numpy(model.predict_proba(asked.reshape(-1, dim).double().numpy()))  # [W*A, W]
    return float(hit_rates(scores, relevant_mask(truth, ways), (1,)).mean())
