"""Protocols on embeddings, against scikit-learn, torchmetrics and naive loops."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, label_ranking_average_precision_score
from torch.nn.functional import normalize

from clipgs_lib import evaluation
from clipgs_lib.evaluation import Results, protocols, scores
from clipgs_lib.libraries import prepare_torchvision

from .test_scores import labelled, unit

CLASSES = [f"kind {number}" for number in range(12)]


def bench(size=120, views=3, trained=("kind 1", "kind 2"), noise=0.9):
    """Labelled objects as `load_set` gives them, and their embeddings, class embeddings and targets."""
    embeds, weights, target = labelled(size, noise=noise)
    texts = unit(size + 12, 16, seed=9)
    owners = torch.zeros(size + 12, size, dtype=torch.bool)
    owners[torch.arange(size), torch.arange(size)] = True
    owners[size + target, torch.arange(size)] = True  # the name of the kind belongs to all of it
    texts[:size] = normalize(embeds + texts[:size], dim=1)
    used = owners.any(dim=1)
    images = tuple(normalize(row + 0.5 * unit(views, 16, seed=100 + i), dim=1) for i, row in enumerate(embeds))
    objects = evaluation.EvaluationSet(
        shards=(),
        keys=(tuple(f"object {i}" for i in range(size)),),
        labels=tuple(CLASSES[t] for t in target),
        trained=frozenset(trained),
        images=images,
        texts=texts[used],
        captions=tuple(f"text {i}" for i in used.nonzero()[:, 0].tolist()),
        owners=owners[used],
        teacher=SimpleNamespace(identity="t"),
    )
    return objects, embeds, weights, target


def values(results, **wanted):
    rows = [row for row in results.rows if all(row[key] == value for key, value in wanted.items())]
    return {(row["task"].split(", gallery")[0], row["metric"]): row["value"] for row in rows}


def test_zero_shot_by_class_and_confusion_are_scikit_learns():
    objects, embeds, weights, target = bench()
    results = Results(labels=dict(zip(objects.names, objects.labels, strict=True)))
    protocols.zero_shot_protocol(results, objects, {"one": embeds}, CLASSES, weights)
    scores_ = embeds @ weights.T
    guess = scores_.argmax(dim=1)
    found = values(results)
    assert found["all labels", "macro Top-1"] == pytest.approx(balanced_accuracy_score(target, guess))
    hot = torch.nn.functional.one_hot(target, 12)
    assert found["all labels", "MRR"] == pytest.approx(label_ranking_average_precision_score(hot, scores_))
    matrix = np.zeros((12, 12))
    for row in results.confusion:
        matrix[CLASSES.index(row["label"]), CLASSES.index(row["taken_for"])] = row["n"]
    assert np.array_equal(matrix, confusion_matrix(target, guess, labels=range(12)))
    assert [row["value"] for row in results.classes] == pytest.approx(matrix.diagonal()[:10] / matrix[:10].sum(axis=1))
    seen = np.isin(target, [1, 2])
    right = (guess == target).numpy()
    assert found["labels that training had", "Top-1"] == pytest.approx(right[seen].mean())
    assert found["labels that training had not", "Top-1"] == pytest.approx(right[~seen].mean())


def test_scores_are_torchmetrics():
    prepare_torchvision()  # which it imports
    functional = pytest.importorskip("torchmetrics.functional", reason="torchmetrics is not installed")
    objects, embeds, weights, target = bench()
    results = Results()
    protocols.zero_shot_protocol(results, objects, {"one": embeds}, CLASSES, weights)
    protocols.retrieval_protocol(results, objects, {"one": embeds}, {})
    found, logits = values(results), embeds @ weights.T
    for k in (1, 3, 5):
        top = functional.classification.multiclass_accuracy(logits, target, 12, average="micro", top_k=k)
        assert found["all labels", f"Top-{k}"] == pytest.approx(float(top), abs=1e-6)
    macro = functional.classification.multiclass_accuracy(logits[:, :10], target, 10, average="macro")
    limited = Results()
    protocols.zero_shot_protocol(limited, objects, {"one": embeds}, CLASSES[:10], weights[:10])
    assert values(limited)["all labels", "macro Top-1"] == pytest.approx(float(macro), abs=1e-6)
    matrix = functional.classification.multiclass_confusion_matrix(logits, target, 12)
    for row in results.confusion:
        assert row["n"] == float(matrix[CLASSES.index(row["label"]), CLASSES.index(row["taken_for"])])
    rows = objects.texts @ embeds.T
    mrr = [functional.retrieval.retrieval_reciprocal_rank(r, o) for r, o in zip(rows, objects.owners, strict=True)]
    assert found["text -> 3D", "MRR"] == pytest.approx(float(torch.stack(mrr).mean()), abs=1e-6)
    hits = [functional.retrieval.retrieval_hit_rate(r, o, 5) for r, o in zip(rows, objects.owners, strict=True)]
    assert found["text -> 3D", "R@5"] == pytest.approx(float(torch.stack(hits).mean()), abs=1e-6)


def test_objects_without_labels_and_labels_without_objects_are_left_out_and_counted():
    objects, embeds, weights, _ = bench()
    unknown = replace(objects, labels=("", "another", *objects.labels[2:]))
    results = Results()
    protocols.zero_shot_protocol(results, unknown, {"one": embeds}, CLASSES, weights)
    assert [row["n"] for row in results.rows if row["task"] == "all labels"] == [118] * 5
    assert results.notes == ["zero-shot: 2 objects left out, whose label is unknown or no class"]
    assert {row["label"] for row in results.classes} == set(CLASSES[:10])
    for labels in ((), ("", "x")):
        with pytest.raises(ValueError, match="objects whose label is one of the 12 classes, got none"):
            none = replace(objects, labels=labels)
            protocols.zero_shot_protocol(Results(), none, {"one": embeds}, CLASSES, weights)


def test_retrieval_is_a_naive_loop_over_all_pairs():
    objects, embeds, _, _ = bench(size=40)
    results = Results()
    blind = objects.bag(slice(1, None))
    protocols.retrieval_protocol(results, objects, {"bag": objects.bag(), "one": embeds}, {"bag": blind})
    one, bag = values(results, method="one"), values(results, method="bag")
    labels = np.array(objects.labels)
    pictures = torch.stack([rows[0] for rows in objects.images])

    def naive(queries, gallery, right):
        ranks = [
            min(order.tolist().index(j) + 1 for j in np.flatnonzero(r))
            for order, r in zip((queries @ gallery.T).argsort(dim=1, descending=True), right, strict=True)
        ]
        return np.mean(np.array(ranks) <= 5), np.mean(1 / np.array(ranks)), np.median(ranks)

    same = labels[:, None] == labels
    owners = objects.owners.numpy()
    cases = {
        "text -> 3D": (objects.texts, embeds, owners),
        "3D -> text": (embeds, objects.texts, owners.T),
        "image -> 3D": (pictures, embeds, np.eye(40, dtype=bool)),
        "3D -> image": (embeds, pictures, np.eye(40, dtype=bool)),
        "3D -> mean of its views": (embeds, objects.bag(), np.eye(40, dtype=bool)),
        "text -> 3D, same label": (objects.texts, embeds, owners @ same),
        "image -> 3D, same label": (pictures, embeds, same),
    }
    for task, (queries, gallery, right) in cases.items():
        got = [one[task, metric] for metric in ("R@5", "MRR", "median rank")]
        assert got == pytest.approx(naive(queries, gallery, right), abs=1e-9), task
    assert ("3D -> mean of its views", "R@1") not in bag, "that would look for what it was shown"
    assert bag["image -> 3D", "MRR"] == pytest.approx(naive(pictures, blind, np.eye(40, dtype=bool))[1])
    assert bag["text -> 3D", "MRR"] == pytest.approx(naive(objects.texts, objects.bag(), owners)[1])


def test_one_view_leaves_nothing_for_methods_that_must_not_see_it_and_small_galleries_say_so():
    objects, embeds, _, _ = bench(size=8, views=1)
    results = Results()
    protocols.retrieval_protocol(results, objects, {"bag": objects.bag(), "one": embeds}, {"bag": None})
    assert {task for task, _ in values(results, method="bag")} >= {"text -> 3D"}
    assert not any("image" in task for task, _ in values(results, method="bag"))
    assert values(results, method="one")["image -> 3D", "R@10"] == 1
    assert "R@10 is certain in a gallery of 8" in results.notes[0]


def test_embeddings_that_are_not_finite_or_of_another_width_are_refused():
    objects, embeds, weights, _ = bench()
    broken = embeds.clone()
    broken[5] = torch.nan
    with pytest.raises(ValueError, match="embeds must be finite, got NaN or inf in rows 5"):
        protocols.zero_shot_protocol(Results(), objects, {"one": broken}, CLASSES, weights)
    with pytest.raises(ValueError, match="gallery must be finite, got NaN or inf in rows 5"):
        protocols.retrieval_protocol(Results(), objects, {"one": broken}, {})
    with pytest.raises(ValueError, match="must have one width, got 16 and 8; are they of different teachers"):
        protocols.retrieval_protocol(Results(), objects, {"one": normalize(embeds[:, :8], dim=1)}, {})


def test_reciprocal_and_rank_of_several_tied_items_are_the_mean_over_all_orders():
    for ahead, wrong, right in ((0, 3, 2), (2, 1, 3), (1, 0, 2), (0, 2, 1)):
        places = []
        for order in set(itertools.permutations([1] * right + [0] * wrong)):
            places.append(ahead + 1 + order.index(1))
        args = [np.array([n]) for n in (ahead, wrong, right)]
        assert scores.reciprocal_rank(*args).item() == pytest.approx(np.mean(1 / np.array(places)))
        assert scores.expected_rank(*args).item() == pytest.approx(np.mean(places))


# ---- few-shot ------------------------------------------------------------------------------------------------------


def test_few_shot_measures_what_there_are_objects_for_and_says_what_not():
    objects, embeds, _, target = bench(size=150)
    results = Results()
    protocols.few_shot_protocol(results, objects, {"one": embeds, "two": objects.bag()}, queries=4, episodes=3, draws=2)
    tasks = {row["task"]: row for row in results.rows if row["method"] == "one"}
    least = int(np.sort(np.bincount(target))[::-1][9])
    name = f"10-way 5-shot, {min(4, least - 5)} queries of each class"
    direct = evaluation.few_shot(embeds, target, 10, 5, queries=min(4, least - 5), episodes=3)
    assert tasks[name]["value"] == pytest.approx(direct.mean()) and tasks[name]["n"] == 3
    assert tasks[name]["std"] == pytest.approx(direct.std(ddof=1)) and tasks[name]["chance"] == 0.1
    assert "linear probe, 4-shot, 10 classes" in tasks
    assert len(results.notes) == 1 and "50-way 5-shot" in results.notes[0] and "got 10 labels" in results.notes[0]
    assert {pair["metric"] for pair in results.pairs} == {"accuracy"}, "episodes are the same for all"


def test_a_probe_of_one_shot_is_plain_logistic_regression():
    embeds, _, target = labelled(size=300)
    found = evaluation.linear_probe(embeds, target, 1, queries=5, draws=1, seed=3)
    rng = np.random.default_rng([3, 0])
    drawn = [rng.permutation(np.flatnonzero(target.numpy() == c))[:6] for c in range(10)]
    known, asked = [d[0] for d in drawn], np.concatenate([d[1:] for d in drawn])
    model = LogisticRegression(C=100.0, max_iter=1000).fit(embeds[known].double(), target[known])
    assert found[0] == pytest.approx(model.score(embeds[asked].double(), target[asked]))
    assert len(found) == 1


def test_more_shots_help_and_strength_is_chosen_on_the_shots_alone(monkeypatch):
    embeds, _, target = labelled(size=300)
    few, many = (evaluation.linear_probe(embeds, target, shots, draws=3) for shots in (1, 8))
    assert few.mean() < many.mean()
    calls = []
    fit = evaluation.protocols._fit
    monkeypatch.setattr(evaluation.protocols, "_fit", lambda x, y, s: calls.append((len(x), s)) or fit(x, y, s))
    evaluation.linear_probe(embeds, target, 4, draws=2)
    assert calls == [(40, None)] * 2
    model = fit(embeds[:40].numpy(), target[:40].numpy(), None)
    assert model.best_params_["C"] in evaluation.protocols.STRENGTHS


@pytest.mark.parametrize(
    ("shots", "changes", "words"),
    [
        (0, {}, "needs shots, queries and draws >= 1, got 0"),
        (4, {"draws": 0}, "got 4, 20 and 0"),
        (200, {}, "a 200-shot probe needs 2 classes of at least 201 objects, got 0 of 10; lower shots"),
    ],
)
def test_probes_that_cannot_be_are_refused(shots, changes, words):
    embeds, _, target = labelled()
    with pytest.raises(ValueError, match=words):
        evaluation.linear_probe(embeds, target, shots, **changes)
