"""Scores against scikit-learn and naive loops, chance of a constant encoder, intervals, and refusals."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from torch.nn.functional import normalize

from clipgs_lib import evaluation
from clipgs_lib.evaluation import scores as ranking


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def labelled(size: int = 120, classes: int = 12, noise: float = 0.9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy embeddings [N, D], class embeddings [C, D] and targets [N]; classes 10 and 11 have no objects."""
    weights = unit(classes, 16, seed=1)
    target = torch.randint(0, 10, (size,), generator=torch.Generator().manual_seed(2))
    return normalize(weights[target] + noise * unit(size, 16, seed=3) * 2, dim=-1), weights, target


def values(found: tuple[evaluation.Interval, ...]) -> list[float]:
    return [interval.value for interval in found]


# ---- parity ------------------------------------------------------------------------------------------------------


def test_zero_shot_is_scikit_learns_top_k():
    embeds, weights, target = labelled()
    found = evaluation.zero_shot(embeds, weights, target)
    scores = (embeds @ weights.T).numpy()
    for k, value in zip(found.ks, values(found.values), strict=True):
        assert value == pytest.approx(top_k_accuracy_score(target, scores, k=k, labels=range(12)), abs=1e-12)
    assert 0.1 < found.at(1).value < found.at(3).value < found.at(5).value < 1
    assert found.chance == pytest.approx([1 / 12, 3 / 12, 5 / 12])


@pytest.mark.parametrize("cells", [1, 70, 1 << 24])
def test_retrieval_is_a_naive_loop_in_chunks_of_any_size(cells, monkeypatch):
    monkeypatch.setattr(ranking, "CELLS", cells)
    queries, gallery = unit(40, 8, seed=4), unit(33, 8, seed=5)
    gallery[:30] = normalize(gallery[:30] + queries[:30], dim=-1)
    relevant = torch.arange(40) % 33
    found = evaluation.retrieval(queries, gallery, relevant)
    for k, value in zip(found.ks, values(found.values), strict=True):
        hits = [int(relevant[q]) in (gallery @ queries[q]).argsort(descending=True)[:k].tolist() for q in range(40)]
        assert value == pytest.approx(sum(hits) / 40)
    assert found.chance == pytest.approx([1 / 33, 5 / 33, 10 / 33])
    one_hot = torch.nn.functional.one_hot(relevant, 33).bool()
    assert evaluation.retrieval(queries, gallery, one_hot) == found


def test_several_relevant_items_count_once_and_raise_chance():
    queries, gallery = unit(20, 8, seed=6), unit(9, 8, seed=7)
    relevant = torch.rand(20, 9, generator=torch.Generator().manual_seed(8)) < 0.3
    relevant[:, 0] |= ~relevant.any(dim=1)
    found = evaluation.retrieval(queries, gallery, relevant, ks=(1, 2, 4))
    for k, value, chance in zip(found.ks, values(found.values), found.chance, strict=True):
        hits = [bool(relevant[q, (gallery @ queries[q]).topk(k).indices].any()) for q in range(20)]
        assert value == pytest.approx(sum(hits) / 20)
        blind = [1 - math.comb(9 - int(r.sum()), k) / math.comb(9, k) for r in relevant]
        assert chance == pytest.approx(sum(blind) / 20)


# ---- ties --------------------------------------------------------------------------------------------------------


def test_ties_count_as_their_mean_over_all_orders():
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.1, 0.5]])
    for right in ([1], [0], [4], [1, 2], [1, 2, 3], [4, 5]):
        relevant = torch.zeros(1, 6, dtype=torch.bool)
        relevant[0, right] = True
        ks = (1, 2, 3, 4, 5, 6)
        hits = np.zeros(6)
        orders = list(itertools.permutations(range(6)))
        for order in orders:  # a random order of equals: sort by score, then by place in the permutation
            ranked = sorted(range(6), key=lambda j: (-float(scores[0, j]), order[j]))
            hits += [bool(set(ranked[:k]) & set(right)) for k in ks]
        assert evaluation.hit_rates(scores, relevant, ks)[0].tolist() == pytest.approx(list(hits / len(orders)))


def test_reciprocal_ranks_count_ties_as_their_mean_over_all_orders():
    embeds, weights = torch.eye(4)[[0, 1, 3]], torch.eye(4)
    embeds = torch.cat(
        [embeds[:2], normalize(torch.tensor([[2.0, 1, 1, 1]]), dim=1)]
    )  # the last: one better, three tie
    made = evaluation.zero_shot(embeds, weights, torch.tensor([0, 1, 3]))
    assert made.mrr == pytest.approx((1 + 1 + (1 / 2 + 1 / 3 + 1 / 4) / 3) / 3)
    same = evaluation.zero_shot(embeds[:1].expand(2, -1), weights[:1].expand(10, -1), torch.tensor([0, 9]))
    assert same.mrr == pytest.approx(sum(1 / rank for rank in range(1, 11)) / 10) and same.at(1).value == 0.1


def test_scores_that_float32_cannot_tell_apart_are_ties():
    relevant = torch.tensor([[True, False]])
    for lead, expected in ((4e-7, 0.5), (-4e-7, 0.5), (1e-4, 0.0), (-1e-4, 1.0)):
        scores = torch.tensor([[0.5, 0.5 + lead]], dtype=torch.float64)
        assert evaluation.hit_rates(scores, relevant, (1,)).item() == expected


def test_an_encoder_that_says_the_same_to_everything_scores_chance():
    same = unit(1, 16).expand(50, 16)
    target = torch.zeros(50, dtype=torch.long)  # all at the first place, which argmax and topk would flatter
    found = evaluation.zero_shot(same, same[:7], target)
    assert values(found.values) == pytest.approx(found.chance)
    assert values(found.values) == pytest.approx([1 / 7, 3 / 7, 5 / 7])
    many = torch.zeros(50, 50, dtype=torch.bool)
    many[:, :5] = True
    recalls = evaluation.retrieval(same, same, many)
    assert values(recalls.values) == pytest.approx(recalls.chance)
    shots = evaluation.few_shot(same, torch.arange(50) % 5, 5, 2, queries=3, episodes=3)
    assert shots.mean() == pytest.approx(0.2)


def test_more_results_than_candidates_are_a_certain_hit_and_chance_says_so():
    embeds, weights, target = labelled()
    found = evaluation.zero_shot(embeds, weights, target, ks=(1, 12, 50))
    assert values(found.values)[1:] == [1, 1] and found.chance[1:] == (1, 1)


def test_autocast_and_half_precision_do_not_blur_the_ranks():
    embeds, weights, target = labelled(size=300)
    exact = evaluation.zero_shot(embeds, weights, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert evaluation.zero_shot(embeds, weights, target) == exact
    halves = evaluation.zero_shot(embeds.half(), weights.half(), target)
    assert halves.at(1).value == pytest.approx(exact.at(1).value, abs=0.01)


# ---- intervals ---------------------------------------------------------------------------------------------------


def test_intervals_have_the_width_of_the_binomial_and_repeat_with_the_seed():
    embeds, weights, target = labelled(size=400)
    found = evaluation.zero_shot(embeds, weights, target)
    top = found.at(1)
    half = 1.96 * math.sqrt(top.value * (1 - top.value) / 400)
    assert top.low == pytest.approx(top.value - half, abs=0.01) and top.high == pytest.approx(
        top.value + half, abs=0.01
    )
    assert evaluation.zero_shot(embeds, weights, target) == evaluation.zero_shot(embeds, weights, target)
    hits = ranking.rank(embeds, weights, target, (1,)).hits
    assert evaluation.scores.intervals(hits, np.arange(400), 1)[0] != top


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for trial in range(60):
        hits = np.random.default_rng(trial).random((80, 1)) < 0.3
        interval = evaluation.scores.intervals(hits.astype(float), np.arange(80), trial)[0]
        covered += interval.low <= 0.3 <= interval.high
    assert 51 <= covered <= 60  # 95 % of 60 is 57


def test_many_queries_of_one_object_do_not_narrow_the_interval():
    """Ten copies of each query are ten times the queries, but no more objects."""
    queries, gallery = unit(50, 8, seed=4), unit(50, 8, seed=5)
    gallery = normalize(gallery + queries, dim=-1)
    once = evaluation.retrieval(queries, gallery, torch.arange(50))
    ids = torch.arange(50).repeat_interleave(10)
    hits = ranking.rank(queries[ids], gallery, ids, (1,)).hits
    [many] = evaluation.scores.intervals(hits, ids.numpy(), 0)
    naive = evaluation.retrieval(queries[ids], gallery, ids).at(1)
    width = {name: r.high - r.low for name, r in (("once", once.at(1)), ("many", many), ("naive", naive))}
    assert width["many"] == pytest.approx(width["once"], rel=0.05) and width["naive"] < 0.5 * width["once"]
    assert many.value == pytest.approx(once.at(1).value)


def test_resampled_means_are_over_the_drawn_queries_when_objects_have_uneven_numbers():
    groups = np.repeat(np.arange(6), [1, 2, 3, 10, 20, 40])
    assert evaluation.scores.intervals(np.ones((76, 1)), groups, 0) == (evaluation.Interval(1, 1, 1),)


# ---- few-shot ----------------------------------------------------------------------------------------------------


def test_few_shot_learns_classes_and_random_labels_stay_at_chance():
    embeds, _, target = labelled(size=300)
    options = {"queries": 10, "episodes": 8}
    found = evaluation.few_shot(embeds, target, 5, 5, **options)
    more = evaluation.few_shot(embeds, target, 5, 10, **options)
    assert 0.45 < found.mean() < more.mean() < 1 and found.std() > 0
    assert np.array_equal(evaluation.few_shot(embeds, target, 5, 5, **options), found)
    assert not np.array_equal(evaluation.few_shot(embeds, target, 5, 5, **options, seed=1), found)
    shuffled = target[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    blind = evaluation.few_shot(embeds, shuffled, 5, 5, **options)
    assert blind.mean() == pytest.approx(0.2, abs=0.07)
    assert evaluation.few_shot(embeds, target, 2, 5, queries=5).mean() > 0.7


def test_an_episode_is_scikit_learns_logistic_regression():
    embeds, _, target = labelled(size=300)
    found = evaluation.few_shot(embeds, target, 3, 4, queries=6, episodes=1, seed=5)
    rng = np.random.default_rng([5, 0])
    chosen = rng.choice(np.arange(10), 3, replace=False)
    drawn = [rng.permutation(np.flatnonzero(target.numpy() == c))[:10] for c in chosen]
    known, asked = np.concatenate([d[:4] for d in drawn]), np.concatenate([d[4:] for d in drawn])
    model = LogisticRegression(C=100.0, max_iter=1000).fit(embeds[known].double(), target[known])
    assert found == pytest.approx(model.score(embeds[asked].double(), target[asked]))


def test_classes_with_too_few_objects_are_not_drawn():
    embeds, _, _ = labelled(size=60)
    target = torch.tensor([0] * 20 + [1] * 20 + [2] * 15 + [3] * 5)
    assert len(evaluation.few_shot(embeds, target, 3, 5, queries=10, episodes=2)) == 2
    with pytest.raises(ValueError, match=r"4 classes of at least 15 objects .* got 3 of 4; lower ways"):
        evaluation.few_shot(embeds, target, 4, 5, queries=10)


# ---- telling -----------------------------------------------------------------------------------------------------


def test_results_say_what_they_are_of_and_go_into_json():
    embeds, weights, target = labelled()
    top = evaluation.zero_shot(embeds, weights, target, ks=(1, 3))
    recalls = evaluation.retrieval(embeds, weights, target, ks=(1,))
    assert (top.objects, top.candidates, recalls.objects, recalls.candidates) == (120, 12, 120, 12)
    assert [json.dumps(asdict(found)) for found in (top, recalls)]
    assert str(evaluation.Interval(0.368, 0.3312, 0.402)) == "36.8 % [33.1, 40.2]"
    with pytest.raises(ValueError, match="one of those computed, 1, 3, got 5"):
        top.at(5)


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_in_a_gallery_of_one_everybody_is_right_and_so_is_guessing():
    one = evaluation.retrieval(unit(5, 8, seed=1), unit(1, 8, seed=2), torch.zeros(5, dtype=torch.int64))
    assert set(values(one.values)) == {1.0} and set(one.chance) == {1.0}


def test_bad_input_is_told_what_to_do():
    embeds, weights, target = labelled()
    broken = embeds.clone()
    broken[[3, 7]] = math.nan
    far = target.clone()
    far[[0, 9]] = torch.tensor([12, -1])
    nobody = torch.zeros(120, 12, dtype=torch.bool)
    nobody[5:, 0] = True
    zero_shot, retrieval, few_shot = evaluation.zero_shot, evaluation.retrieval, evaluation.few_shot
    cases = [
        (lambda: zero_shot(broken, weights, target), r"embeds must be finite, got NaN or inf in rows 3, 7;"),
        (lambda: zero_shot(2 * embeds, weights, target), r"embeds must be unit-norm.*rows 0, 1, .* and 112 more"),
        (lambda: zero_shot(embeds, 0 * weights, target), r"weights must be unit-norm"),
        (lambda: zero_shot(embeds[:, :8] / embeds[:, :8].norm(dim=1, keepdim=True), weights, target), r"teachers\?"),
        (lambda: zero_shot(embeds, weights, far), r"target among the 12 candidates; queries 0, 9 have none"),
        (lambda: zero_shot(embeds, weights, target[:5]), r"targets must be integers \[120\]"),
        (lambda: zero_shot(embeds, weights, target.float()), r"targets must be integers \[120\] .* torch.float32"),
        (lambda: zero_shot(embeds, weights, nobody), r"target must be \[N\]"),
        (lambda: zero_shot(embeds[:0], weights, target[:0]), r"embeds must be float \[N, D\], not empty"),
        (lambda: zero_shot(embeds, weights, target, ks=(3, 1)), r"increasing numbers >= 1, got \(3, 1\)"),
        (lambda: zero_shot(embeds, weights, target, ks=()), r"increasing numbers"),
        (lambda: retrieval(embeds, weights, nobody), r"queries 0, 1, 2, 3, 4 have none.*complete the gallery"),
        (lambda: retrieval(embeds, broken, torch.arange(120)), r"gallery must be finite, got NaN or inf in rows 3, 7;"),
        (lambda: retrieval(embeds, weights[:0], target), r"gallery must be float \[N, D\], not empty"),
        (lambda: few_shot(broken, target, 2, 2), r"embeds must be finite"),
        (lambda: few_shot(embeds, target[:3], 2, 2), r"target must be integers \[120\]"),
        (lambda: few_shot(embeds, target, 1, 2), r"ways >= 2"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
