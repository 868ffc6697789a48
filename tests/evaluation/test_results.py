"""Intervals and paired comparisons against naive resampling, and what is written and said."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clipgs_lib import evaluation
from clipgs_lib.evaluation import Measured, Results, scores


def measured(values, method="one", metric="Top-1", objects=None, **facts):
    values = np.asarray(values, np.float64)
    names = np.array([f"object {i}" for i in range(len(values))]) if objects is None else np.asarray(objects)
    return Measured("zero-shot", "all labels", metric, method, values, names, **{"chance": 0.1} | facts)


@pytest.mark.parametrize("statistic", ["mean", "median", "macro"])
def test_a_statistic_of_a_resample_is_that_of_the_repeated_values(statistic):
    rng = np.random.default_rng(0)
    values, classes = rng.integers(0, 5, (30, 2)).astype(float), rng.integers(0, 4, 30)
    times = rng.integers(0, 3, (6, 30))
    times[0, classes == 2] = 0  # a class that no object was drawn of
    found = scores.statistic_of(values, times.astype(float), statistic, classes)
    for row, count in enumerate(times):
        many, kinds = np.repeat(values, count, axis=0), np.repeat(classes, count)
        naive = {
            "mean": many.mean(axis=0),
            "median": np.median(many, axis=0),
            "macro": np.mean([many[kinds == kind].mean(axis=0) for kind in np.unique(kinds)], axis=0),
        }
        assert found[row] == pytest.approx(naive[statistic])


def test_blocks_of_resamples_change_nothing_but_the_draws(monkeypatch):
    values = np.random.default_rng(1).random((40, 1))
    whole = scores.intervals(values, np.arange(40), 0)[0]
    monkeypatch.setattr(scores, "_CELLS", 400)
    parts = scores.intervals(values, np.arange(40), 0)[0]
    assert parts.value == whole.value and parts.low == pytest.approx(whole.low, abs=0.02)


def test_a_paired_comparison_sees_what_two_intervals_hide():
    """Hits of one method are those of another, and a few more: far apart in pairs, not side by side."""
    rng = np.random.default_rng(3)
    weak = rng.random(300) < 0.4
    strong = weak | (rng.random(300) < 0.05)
    results = Results(measured=[measured(weak, "weak"), measured(strong, "strong")])
    low, high = (row["low"] for row in results.rows), [row["high"] for row in results.rows]
    assert list(low)[1] < high[0], "the intervals overlap"
    [pair] = results.pairs
    assert (pair["a"], pair["b"], pair["verdict"], pair["n"]) == ("strong", "weak", "better", 300)
    assert pair["difference"] == pytest.approx(np.mean(strong) - np.mean(weak)) and pair["p"] < 0.01
    other = Results(measured=[measured(strong, "strong"), measured(weak, "weak")]).pairs[0]
    assert other["verdict"] == "worse" and other["difference"] == -pair["difference"]


def test_p_of_a_paired_difference_is_about_that_of_a_t_test():
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.1, 0.2):
        a, b = rng.normal(shift, 1, 200), rng.normal(0, 1, 200)
        pair = Results(measured=[measured(b, "b"), measured(a, "a")]).pairs[0]
        assert pair["p"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.25, abs=0.02)
        assert (pair["verdict"] == "not distinguishable") == (pair["low"] <= 0 <= pair["high"])


def test_the_same_method_twice_cannot_be_told_apart_and_ranks_are_better_when_small():
    values = np.random.default_rng(5).random(50)
    pair = Results(measured=[measured(values, "a"), measured(values, "b")]).pairs[0]
    assert (pair["p"], pair["low"], pair["high"], pair["verdict"]) == (1, 0, 0, "not distinguishable")
    ranks = [
        measured(values * 10 + shift, name, unit="rank", statistic="median") for shift, name in ((0, "a"), (9, "b"))
    ]
    assert Results(measured=ranks).pairs[0]["verdict"] == "worse"
    apart = [measured(values, "a"), measured(values, "b", objects=[f"other {i}" for i in range(50)])]
    assert Results(measured=apart).pairs == [], "other objects are no pairs"


def test_files_hold_all_that_comparisons_need(tmp_path):
    rng = np.random.default_rng(6)
    rows = [measured(rng.random(20) < share, name) for share, name in ((0.3, "a"), (0.8, "b"))]
    rows.append(measured(rng.random(20), "a", "cosine", chance=None, unit="cosine"))
    results = Results({"sets": []}, ["a note"], rows, labels={"object 1": "chair"})
    table = pd.read_parquet(results.write(tmp_path / "scores.json"))
    written = json.loads((tmp_path / "scores.json").read_text())
    assert (
        written["schema"] == evaluation.results.SCHEMA and written["notes"] == ["a note"] and len(written["rows"]) == 3
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.json", "scores.parquet"]
    for row in written["rows"]:
        part = table[(table.method == row["method"]) & (table.metric == row["metric"])]
        assert part.value.mean() == pytest.approx(row["value"], abs=1e-5) and len(part) == row["n"] == 20
        assert row["low"] <= row["value"] <= row["high"]
    assert written["rows"][2]["chance"] is None
    hits = {
        name: part.value.to_numpy() for name, part in table[table.metric == "Top-1"].groupby("method", observed=True)
    }
    assert written["pairs"][0]["difference"] == pytest.approx((hits["b"] - hits["a"]).mean(), abs=1e-5)
    assert set(table[table.object == "object 1"].label) == {"chair"}
    text = results.tables()
    for words in ("zero-shot, all labels (n = 20)", "chance", "Top-1: b against a +", ": better", "note: a note"):
        assert words in text


def test_intervals_of_classes_are_binomial():
    rows = evaluation.results.class_rows("one", ["a", "b", "c"], np.array([0.5, 0.0, 1.0]), np.array([100, 0, 3]), 0)
    assert [(row["label"], row["n"], row["value"]) for row in rows] == [("a", 100, 0.5), ("c", 3, 1.0)]
    assert rows[0]["high"] - rows[0]["low"] == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 100), abs=0.03)
