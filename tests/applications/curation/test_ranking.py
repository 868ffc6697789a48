"""The classifier against scikit-learn, its limits, what is asked next, and the threshold at a precision."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold

from clipgs_lib.applications.curation import ranking as module
from clipgs_lib.applications.curation.ranking import ask_next, fit_ranking, fit_scores, select, text_features


def objects(count=400, dim=16, share=0.2, gap=1.0, seed=0):
    """Unit rows of two kinds, the truth, and a text near the rarer kind."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < share
    way = rng.normal(size=dim)
    embeds = rng.normal(size=(count, dim)) + 1 + gap * truth[:, None] * way
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True), truth, (way + 1) / np.linalg.norm(way + 1)


def test_features_are_centred_scaled_and_end_with_the_text():
    embeds, _, query = objects()
    features, scores = text_features(embeds, query)
    assert features.shape == (400, 17) and features.dtype == np.float32
    assert np.allclose(features[:, :-1].mean(axis=0), 0, atol=1e-5)
    assert np.isclose(np.square(features[:, :-1]).sum(axis=1).mean(), 1, atol=1e-5)
    assert np.argmax(scores) == np.argmax(embeds @ query) and np.isclose(scores.std(), 1)
    assert np.allclose(features[:, -1], module.TEXT_WEIGHT * scores, atol=1e-5)
    same, flat = text_features(np.tile(embeds[:1], (5, 1)), query)
    assert np.isfinite(same).all() and np.abs(flat).max() < 1, "equal objects are no division by zero"


def test_scores_ap_and_probabilities_are_scikit_learns():
    embeds, truth, query = objects()
    features, _ = text_features(embeds, query)
    rows = np.arange(60)
    ranking = fit_ranking(features, rows, truth[rows], seed=3)
    model = LogisticRegression(C=module.STRENGTH, class_weight="balanced", max_iter=1000)
    assert np.allclose(ranking.scores, model.fit(features[rows], truth[rows]).decision_function(features), atol=1e-4)
    assert np.allclose(fit_scores(features, rows, truth[rows]), ranking.scores)
    assert ranking.ap.value == pytest.approx(average_precision_score(truth[rows], ranking.held_out))
    assert 0 <= ranking.ap.low <= ranking.ap.value <= ranking.ap.high <= 1
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    whole = CalibratedClassifierCV(model, method="sigmoid", cv=folds, ensemble=False).fit(features[rows], truth[rows])
    theirs = whole.predict_proba(features)[:, 1]  # Platt's smoothed targets instead of our ridge
    assert np.corrcoef(theirs, ranking.probabilities)[0, 1] > 0.99
    assert np.array_equal(np.argsort(ranking.scores), np.argsort(ranking.probabilities, kind="stable"))


def test_the_bootstrap_of_ap_is_scikit_learns_with_weights():
    rng = np.random.default_rng(1)
    truth, scores = rng.random(50) < 0.3, rng.normal(size=50)
    values = [average_precision_score(truth, scores, sample_weight=times) for times in module._resamples(truth, seed=5)]
    found = module._average_precision(scores, truth, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_average_precisions_of_tied_scores_and_absent_labels_are_scikit_learns():
    rng = np.random.default_rng(3)
    scores, truth = rng.integers(0, 6, 40) / 5 - 0.4, rng.random(40) < 0.4
    times = rng.integers(0, 3, (50, 40))
    expected = [average_precision_score(truth, scores, sample_weight=one) for one in times]
    assert np.allclose(module.average_precisions(scores, truth, times), expected, rtol=1e-12)


def test_the_same_labels_in_the_same_order_give_the_same_numbers():
    embeds, truth, query = objects()
    features, _ = text_features(embeds, query)
    one, two = (fit_ranking(features, range(40), truth[:40], seed=1) for _ in range(2))
    assert np.array_equal(one.held_out, two.held_out) and one.ap == two.ap
    assert select(one, 0.8).precision == select(two, 0.8).precision


def test_a_perfect_text_and_labels_give_a_perfect_ranking():
    embeds, truth, query = objects(gap=20)
    features, _ = text_features(embeds, query)
    ranking = fit_ranking(features, range(50), truth[:50])
    assert ranking.ap.value == 1 and average_precision_score(truth, ranking.scores) == 1
    chosen = select(ranking, 0.9)
    assert (chosen.kept & truth).sum() == truth.sum() and chosen.kept.sum() < 1.3 * truth.sum()


@pytest.mark.parametrize("truth", [[True] * 6, [False] * 6, [True] + [False] * 5, []])
def test_labels_of_one_kind_are_refused_with_a_sentence(truth):
    with pytest.raises(ValueError, match=rf"at least 2 labels of each kind, got {sum(truth)} yes and .*label more"):
        fit_ranking(np.eye(6, dtype=np.float32), range(len(truth)), truth)


def test_what_is_asked_is_the_best_and_the_undecided_apart_from_each_other():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 8))
    scores = rng.normal(size=500)
    free = rng.random(500) < 0.8
    asked = ask_next(features, scores, free, 12)
    assert len(set(asked)) == 12 and free[asked].all()
    left = np.flatnonzero(free)
    assert set(asked[:6]) == set(left[np.argsort(-scores[left])[:6]])
    others = left[~np.isin(left, asked[:6])]
    band = others[np.argsort(np.abs(scores[others]))[:48]]
    assert asked[6] == band[0] and set(asked[6:]) <= set(band)
    apart = lambda rows: min(np.linalg.norm(features[a] - features[b]) for a in rows for b in rows if a != b)  # noqa: E731
    assert apart(asked[6:]) > apart(band[:6])


def test_copies_are_not_asked_twice_in_a_round():
    features = np.repeat(np.random.default_rng(0).normal(size=(40, 4)), 5, axis=0)  # every object five times
    asked = ask_next(features, np.linspace(-1, 1, 200), np.ones(200, bool), 20)
    assert len({tuple(features[row]) for row in asked[10:]}) == 10


def test_asking_for_more_than_there_are_gives_all_once():
    free = np.array([True, False, True, True, False])
    assert sorted(ask_next(np.eye(5), np.arange(5.0), free, 12)) == [0, 2, 3]
    assert ask_next(np.eye(5), np.arange(5.0), ~np.ones(5, bool), 3) == []


def test_a_selection_keeps_as_many_as_its_target_allows():
    embeds, truth, query = objects(gap=0.5, count=2000)
    features, _ = text_features(embeds, query)
    ranking = fit_ranking(features, range(150), truth[:150])
    counts = []
    for target in (0.3, 0.5, 0.7, 0.9, 1.0):
        chosen = select(ranking, target)
        labelled = chosen.kept[ranking.rows]
        assert np.array_equal(labelled, ranking.truth), "what a person said is certain"
        taken = chosen.kept.copy()
        taken[ranking.rows] = False
        sure = (ranking.truth.sum() + ranking.probabilities[taken].sum()) / chosen.kept.sum()
        assert chosen.precision.value == pytest.approx(sure) and sure >= target - 1e-6
        assert chosen.precision.low <= sure <= chosen.precision.high
        if taken.any():
            assert ranking.probabilities[taken].min() == chosen.threshold >= 0.5
        free = np.setdiff1d(np.flatnonzero(~chosen.kept), ranking.rows)
        best = ranking.probabilities[free].max()
        more = (sure * chosen.kept.sum() + best) / (chosen.kept.sum() + 1)
        assert more < target or best < 0.5, "one more would be too many"
        counts.append(int(chosen.kept.sum()))
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_the_expected_precision_is_about_the_true_one_when_labels_are_random():
    embeds, truth, query = objects(gap=0.45, count=4000, dim=8)
    features, _ = text_features(embeds, query)
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(4000)[:200]
        chosen = select(fit_ranking(features, rows, truth[rows]), 0.7)
        assert abs(truth[chosen.kept].mean() - chosen.precision.value) < 0.12


@pytest.mark.parametrize("precision", [0, -1, 1.01, float("nan")])
def test_a_precision_out_of_range_is_refused(precision):
    embeds, truth, query = objects()
    ranking = fit_ranking(text_features(embeds, query)[0], range(50), truth[:50])
    with pytest.raises(ValueError, match=r"precision must lie in \(0, 1\], got"):
        select(ranking, precision)
