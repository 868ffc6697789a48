"""Zero-shot, few-shot and retrieval: what methods reach, from their frozen embeddings of the same objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..vectors import unit
from ..words import plural
from .benchmarks import class_id, pair_hits
from .evaluation_set import EvaluationSet
from .results import Measured, Results, class_rows
from .scores import TIE, Ranks, checked, hit_rates, rank, relevant_mask

TOP = (1, 3, 5)
RECALLS = (1, 5, 10)
EPISODES = ((10, 10), (5, 5), (10, 5), (20, 5), (50, 5))  # ways and shots of the paper (section 4.3)
SHOTS = (1, 2, 4, 8, 16)  # of the linear probe


def targets_of(labels: Sequence[str], classes: Sequence[str]) -> tuple[list[int], Tensor]:
    """Objects whose label is among the classes, and which of them it is ``[N]``; case does not count."""
    ids = {class_id(name): number for number, name in enumerate(classes)}
    known = [row for row, label in enumerate(labels) if label and class_id(label) in ids]
    return known, torch.tensor([ids[class_id(labels[row])] for row in known], dtype=torch.int64)


def zero_shot_protocol(
    results: Results, objects: EvaluationSet, methods: Mapping[str, Tensor], classes: Sequence[str], weights: Tensor
) -> None:
    """Classify objects by the nearest class name: all of them, and those whose label training had or had not.

    All C classes, with their embeddings ``weights [C, D]``, are candidates in each of the three. Objects whose label is
    none of them are left out; ValueError when none is left. ``methods`` are ``[N, D]`` unit rows by name.
    """
    known, target = targets_of(objects.labels, classes)
    if not known:
        raise ValueError(f"zero-shot needs objects whose label is one of the {len(classes)} classes, got none")
    if left := len(objects) - len(known):
        results.notes.append(f"zero-shot: {left} objects left out, whose label is unknown or no class")
    trained = {class_id(label) for label in objects.trained}
    names, labels = np.array(objects.names)[known], np.array(objects.labels)[known]
    seen = np.array([class_id(label) in trained for label in labels])
    for method, embeds in methods.items():
        ranks = rank(embeds[known], weights, target, TOP, ("embeds", "weights"))
        accuracy, confusion = _confusion(embeds[known].float() @ weights.T, target)
        counts = np.bincount(target, minlength=len(classes))
        results.classes += class_rows(method, classes, accuracy, counts, results.seed)
        results.confusion += [
            {"method": method, "label": classes[a], "taken_for": classes[b], "n": float(confusion[a, b])}
            for a, b in confusion.nonzero().tolist()
        ]
        tasks = {"all labels": np.ones(len(known), bool)}
        if seen.any() and not seen.all():
            tasks |= {"labels that training had": seen, "labels that training had not": ~seen}
        for task, rows in tasks.items():
            place = ("zero-shot", task)
            results.measured += _ranked(place, "Top-", method, ranks, names, rows)
            facts: dict[str, Any] = {"chance": ranks.chance[0], "statistic": "macro", "labels": labels[rows]}
            macro = Measured(*place, "macro Top-1", method, ranks.hits[rows, 0], names[rows], **facts)
            results.measured.append(macro)


def _confusion(scores: Tensor, target: Tensor) -> tuple[np.ndarray, Tensor]:
    """Accuracy of each class ``[C]``, and objects of a class (row) taken for another ``[C, C]``; ties are shared."""
    best = (scores >= scores.amax(dim=1, keepdim=True) - TIE).double()
    matrix = torch.zeros(scores.shape[1], scores.shape[1], dtype=torch.float64)
    matrix.index_add_(0, target, best / best.sum(dim=1, keepdim=True))
    return (matrix.diag() / matrix.sum(dim=1).clamp_min(1)).numpy(), matrix


def _ranked(
    place: tuple[str, str],
    prefix: str,
    method: str,
    ranks: Ranks,
    objects: np.ndarray,
    rows: np.ndarray | slice = slice(None),
) -> list[Measured]:
    """The hits at each k and the reciprocal rank of some queries."""
    made = [
        Measured(*place, f"{prefix}{k}", method, ranks.hits[rows, column], objects[rows], ranks.chance[column])
        for column, k in enumerate(ranks.ks)
    ]
    return [*made, Measured(*place, "MRR", method, ranks.reciprocal[rows], objects[rows], ranks.chance_reciprocal)]


def few_shot_protocol(
    results: Results,
    objects: EvaluationSet,
    methods: Mapping[str, Tensor],
    *,
    queries: int = 15,
    episodes: int = 20,
    draws: int = 5,
) -> None:
    """Episodes of the paper, and linear probes, as far as there are objects of enough classes.

    Where classes have fewer than ``shots + queries`` objects, fewer are asked for: as many as enough classes have. What
    cannot be measured at all is a note. ``methods`` are ``[N, D]`` unit rows by name; numbers as in `EvaluationConfig`.
    """
    labels = np.array([class_id(label) for label in objects.labels])
    known = np.flatnonzero(labels != "")
    counts = np.sort(np.unique(labels[known], return_counts=True)[1])[::-1]
    target = torch.from_numpy(np.unique(labels[known], return_inverse=True)[1])
    left_out = []
    for method, embeds in methods.items():
        for ways, shots in EPISODES:
            asked = min(queries, int(counts[ways - 1]) - shots) if len(counts) >= ways else 0
            if asked < 1:
                left_out.append(f"{ways}-way {shots}-shot")
                continue
            scores = few_shot(embeds[known], target, ways, shots, queries=asked, episodes=episodes, seed=results.seed)
            task = f"{ways}-way {shots}-shot, {asked} queries of each class"
            results.measured.append(_shots(task, method, scores, ways))
        for shots in SHOTS:
            if (ways := int((counts > shots).sum())) < 2:
                left_out.append(f"{shots}-shot probe")
                continue
            scores = linear_probe(embeds[known], target, shots, queries=queries, draws=draws, seed=results.seed)
            results.measured.append(_shots(f"linear probe, {shots}-shot, {ways} classes", method, scores, ways))
    if left_out:
        names = ", ".join(dict.fromkeys(left_out))
        got = f"{len(counts)} labels of at most {counts[0] if len(counts) else 0} objects"
        results.notes.append(f"few-shot: {names} need more objects of more labels than there are, got {got}")


def _shots(task: str, method: str, scores: np.ndarray, ways: int) -> Measured:
    names = np.array([f"episode {number}" for number in range(len(scores))])
    return Measured("few-shot", task, "accuracy", method, scores, names, 1 / ways)


def retrieval_protocol(
    results: Results, objects: EvaluationSet, methods: Mapping[str, Tensor], blind: Mapping[str, Tensor | None]
) -> None:
    """Search texts, pictures and objects by each other; of several right answers the first found counts.

    A text is right for every object that has it. The picture is the first view of an object; of methods that read
    views, ``blind`` has embeddings without it, or None where there is no other. "same label": whatever belongs to an
    object of that label is right, which is only asked where labels repeat.
    """
    names = np.array(objects.names)
    kinds = [class_id(label) or f"object {number}" for number, label in enumerate(objects.labels)]
    groups = {"": np.arange(len(names)), ", same label": np.unique(kinds, return_inverse=True)[1]}
    if groups[", same label"].max() + 1 == len(names):
        del groups[", same label"]
    first_owner = names[objects.owners.int().argmax(dim=1).numpy()]  # whose queries a text counts among
    pictures = unit(torch.stack([rows[0] for rows in objects.images]))
    if len(objects) <= RECALLS[-1]:
        results.notes.append(
            f"retrieval: R@{RECALLS[-1]} is certain in a gallery of {len(objects)}, and chance says so"
        )
    for suffix, group in groups.items():
        codes = torch.from_numpy(group)
        right = codes[:, None] == codes  # [N, N]
        members = torch.zeros(len(objects.texts), int(codes.max()) + 1).index_add_(1, codes, objects.owners.float())
        owners = members[:, codes] > 0  # [T, N]
        for method, embeds in methods.items():
            unseen = blind.get(method, embeds)
            tasks = {
                "text -> 3D": (objects.texts, embeds, owners, first_owner),
                "3D -> text": (embeds, objects.texts, owners.T, names),
            }
            if unseen is not None:
                tasks["image -> 3D"] = (pictures, unseen, right, names)
                tasks["3D -> image"] = (unseen, pictures, right, names)
            if method not in blind and not suffix:
                tasks["3D -> mean of its views"] = (embeds, objects.bag(), right, names)
            for task, (queries, gallery, relevant, units) in tasks.items():
                ranks = rank(queries, gallery, relevant, RECALLS)
                place = ("retrieval", f"{task}{suffix}, gallery of {len(gallery):,}")
                results.measured += _ranked(place, "R@", method, ranks, units)
                facts: dict[str, Any] = {"chance": ranks.chance_rank, "unit": "rank", "statistic": "median"}
                results.measured.append(Measured(*place, "median rank", method, ranks.rank, units, **facts))


def views_protocol(
    results: Results,
    objects: EvaluationSet,
    methods: Mapping[int, Mapping[str, Tensor]],
    classes: Sequence[str],
    weights: Tensor | None,
) -> None:
    """Find class names and objects as in the protocols above, by ``methods`` that saw so many views of each object.

    Without ``weights`` only texts ask.
    """
    names, owner = np.array(objects.names), objects.owners.int().argmax(dim=1).numpy()
    known, target = targets_of(objects.labels, classes)
    for count, embeds_of in methods.items():
        for method, embeds in embeds_of.items():
            if weights is not None:
                ranks = rank(embeds[known], weights, target, TOP, ("embeds", "weights"))
                place = ("views", f"zero-shot, {plural(count, 'view')}")
                results.measured += _ranked(place, "Top-", method, ranks, names[known])
            ranks = rank(objects.texts, embeds, objects.owners, RECALLS)
            place = ("views", f"text -> 3D, {plural(count, 'view')}")
            results.measured += _ranked(place, "R@", method, ranks, names[owner])


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


def pairs_protocol(results: Results, pairs: EvaluationSet, methods: Mapping[str, Tensor]) -> None:
    """Tell the sides of minimal pairs apart by their texts; ``methods`` are ``[N, D]`` unit rows, of a set of pairs."""
    texts = pairs.texts[pairs.owners.int().argmax(dim=0)]  # [N, D]: every side has one text
    for method, embeds in methods.items():
        for kind, hits in pair_hits(pairs.names, embeds, texts).items():
            names = np.array([f"{kind} {number}" for number in range(len(hits))])
            results.measured.append(Measured("pairs", f"{kind} alone", "right side", method, hits, names, chance=0.5))
