"""Numbers and limits of the figures about training and retrieval (how they look was checked by eye)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from clipgs_lib.plots import (
    MAX_POINTS,
    ablation_figure,
    curves_figure,
    similarity_figure,
    trend_figure,
)
from clipgs_lib.plots.learning import SHORT
from clipgs_lib.plots.style import shorten

MARKUP = "<img src=x onerror=alert(1)>"


def rows(count: int, scale: float = 1.0) -> list[dict[str, float | None]]:
    return [{"step": i, "loss": scale / (i + 1), "top1": i / count if i % 10 == 0 else None} for i in range(count)]


# ---- curves --------------------------------------------------------------------------------------------------------


def test_each_metric_has_a_panel_and_each_run_a_line():
    runs = {MARKUP: rows(100), "b": rows(50, 2.0)}
    figure = curves_figure(runs, ["loss", "top1"], title=MARKUP)
    assert len(figure.data) == 4
    first, second, third, _ = figure.data
    assert np.allclose(first.y, [1 / (i + 1) for i in range(100)]) and len(second.x) == 50
    assert third.x.tolist() == list(range(0, 100, 10))
    assert first.name == "&lt;img src=x onerror=alert(1)&gt;" and "<" not in figure.layout.title.text
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    assert first.line.color == third.line.color != second.line.color
    assert figure.layout.title.subtitle.text == ""


def test_what_cannot_be_drawn_is_counted():
    bad = [
        {"step": 0, "loss": float("nan")},
        {"step": 1, "loss": 0.0},
        {"step": 2, "loss": 3},
        {"step": 3},
        {"loss": 1},
    ]
    figure = curves_figure({"a": bad}, ["loss"])
    assert figure.data[0].x.tolist() == [1, 2] and not figure.layout.showlegend
    assert figure.layout.title.subtitle.text.startswith("1 point not finite")


def test_long_runs_are_thinned_and_keep_their_end():
    figure = curves_figure({"a": rows(3 * MAX_POINTS)}, ["loss"])
    assert len(figure.data[0].x) <= MAX_POINTS and figure.data[0].x[-1] == 3 * MAX_POINTS - 1


def test_many_runs_stay_apart():
    figure = curves_figure({str(i): rows(3) for i in range(20)}, ["loss"])
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == 20


@pytest.mark.parametrize(
    ("runs", "metrics", "words"),
    [
        ({}, ["loss"], "needs runs, metrics"),
        ({"a": rows(3)}, [], "needs runs, metrics"),
        ({"a": rows(3)}, ["los"], "hold numbers 'step' and 'los', got none; check the names"),
        ({"a": []}, ["loss"], "got none"),
    ],
)
def test_curves_of_nothing_are_refused(runs, metrics, words):
    with pytest.raises(ValueError, match=words):
        curves_figure(runs, metrics)


# ---- similarity ----------------------------------------------------------------------------------------------------


def test_matrices_share_one_scale_and_equal_labels_stay_apart():
    before, after = torch.eye(3), 2 * torch.eye(3)[[1, 0, 2]]
    labels = ["a chair", "a chair", MARKUP + "x" * 60]
    figure = similarity_figure({"before": before, "after": after}, labels, labels)
    heats = [trace for trace in figure.data if isinstance(trace, go.Heatmap)]
    assert np.array_equal(heats[0].z, before.numpy()) and np.array_equal(heats[1].z, after.numpy())
    assert {trace.coloraxis for trace in heats} == {"coloraxis"}
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 2)
    assert figure.layout.xaxis.tickvals == (0, 1, 2) and figure.layout.xaxis.ticktext[:2] == ("a chair", "a chair")
    assert all("<img" not in text and len(text) < SHORT + 20 for text in figure.layout.yaxis.ticktext)
    assert "&lt;img" in heats[0].customdata[2][2]
    numbers = [text for row in heats[1].text for text in row]
    bold = [text for text in numbers if text.startswith("<b>")]
    assert bold == ["<b>2.00</b>"] * 3 and len(numbers) == 9 and heats[1].texttemplate == "%{text}"


def test_large_matrices_ring_the_best_of_each_row():
    matrix = np.random.default_rng(0).normal(size=(40, 60))
    matrix[3] = np.nan
    figure = similarity_figure({"": matrix}, [f"s{i}" for i in range(40)], [f"t{i}" for i in range(60)])
    heat, ring = figure.data
    assert ring.y.tolist() == [row for row in range(40) if row != 3]
    assert ring.x.tolist() == np.delete(matrix, 3, axis=0).argmax(axis=1).tolist()
    assert heat.customdata is None and len(figure.to_json()) < 60_000
    assert len(figure.layout.xaxis.ticktext) < 60  # labels that would overlap are left out


@pytest.mark.parametrize(
    ("matrices", "words"),
    [
        ({}, "got {}"),
        ({"a": np.zeros((2, 3))}, r"shape \[2, 2\], .* got {'a': \[2, 3\]}"),
        ({"a": np.full((2, 2), np.nan)}, "0 finite"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(matrices, words):
    with pytest.raises(ValueError, match=words):
        similarity_figure(matrices, ["a", "b"], ["c", "d"])


def test_a_matrix_with_too_many_cells_is_refused():
    with pytest.raises(ValueError, match="got 90,000"):
        similarity_figure({"a": np.zeros((300, 300))}, ["s"] * 300, ["t"] * 300)


# ---- ablation ------------------------------------------------------------------------------------------------------


def ablation(arms: Sequence[str]) -> dict[str, Any]:
    """Results of four arms as `training.ablate` gives them, the first of which is the baseline."""
    task = {"target": "test", "metric": "text_r1", "n": 56, "chance": 0.02}
    verdicts = [task | {"arm": arm, "value": 0.3, "low": 0.2, "high": 0.4, "seeds": 3} for arm in arms]
    for row, word in zip(verdicts[1:], ("better", "worse", "not distinguishable from noise"), strict=True):
        row |= {"difference": 0.1, "smallest": 0.2, "verdict": word}
    seeds = [{"seed": seed, "value": 0.25 + 0.05 * seed} for seed in range(3)]
    rows = [task | {"arm": arm} | seed for arm in arms for seed in seeds]
    return {"metrics": {"text_r1": "text finds its splat, R@1"}, "verdicts": verdicts, "rows": rows}


def test_an_ablation_is_coloured_by_its_verdicts_and_shows_single_runs():
    results = ablation(["as they are", "naive", "tokenizer", "voting"])
    figure = ablation_figure(results, "test", "text_r1")
    bars, *runs = figure.data
    assert bars.x.tolist() == [30.0] * 4 and len(set(bars.marker.color)) == 4  # in percent
    assert [dots.x.tolist() for dots in runs] == [[25.0, 30.0, 35.0]] * 4
    assert "3 seeds and 56 objects" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text.startswith("text finds its splat, R@1, % (test)<br>grey: baseline")
    assert np.allclose(bars.error_x.array, 10) and np.allclose(bars.error_x.arrayminus, 10)
    assert figure.layout.xaxis.range[0] == 0 and figure.layout.xaxis.range[1] > 40
    assert figure.layout.yaxis.range == (3.5, -0.5)  # the first on top
    assert any(note.text == "chance 2" for note in figure.layout.annotations)
    marked = ablation_figure(ablation([MARKUP, "naive", "tokenizer", "voting"]), "test", "text_r1", title=MARKUP)
    assert "<img" not in marked.layout.yaxis.ticktext[0] and "<img" not in marked.layout.title.text
    with pytest.raises(ValueError, match="must be among test text_r1, got val text_r1"):
        ablation_figure(results, "val", "text_r1")


def trend() -> dict[str, Any]:
    """Results of arms with 300, 10 and 3,000 objects, and the largest with fewer steps, of two metrics."""
    arms = {"some": {"max_objects": 300}, "few": {"max_objects": 10}, "many": {"max_objects": 3000}}
    arms["short"] = {"max_objects": 3000, "steps": 50}
    values = {"few": 0.1, "some": 0.2, "many": 0.4, "short": 0.3}
    task = {"target": "furniture", "seeds": 3, "n": 820, "chance": 0.01}
    verdicts = [
        task
        | {"metric": metric, "arm": arm, "value": values[arm], "low": values[arm] - 0.05, "high": values[arm] + 0.1}
        for metric in ("text_r1", "image_r1")
        for arm in arms
    ]
    metrics = {"text_r1": "text", "image_r1": "own views", "zero_shot_top1": "not measured"}
    return {"metrics": metrics, "verdicts": verdicts, "rows": [], "arms": arms, "settings": {"steps": 100}}


def test_a_trend_has_a_line_per_metric_over_the_arms_that_differ_in_the_setting_alone():
    figure = trend_figure(trend(), "furniture", "max_objects", axis=MARKUP, title=MARKUP)
    assert [line.name for line in figure.data] == ["text", "own views"]
    assert all(list(line.x) == [10, 300, 3000] for line in figure.data)  # in order, without the arm of fewer steps
    assert np.allclose(figure.data[0].y, [10, 20, 40])
    assert np.allclose(figure.data[0].error_y.array, 10) and np.allclose(figure.data[0].error_y.arrayminus, 5)
    assert figure.layout.xaxis.type == "log" and figure.layout.xaxis.ticktext == ("10", "300", "3,000")
    assert "3 seeds over 820 objects" in figure.layout.title.subtitle.text and "<img" not in figure.layout.title.text
    assert "<img" not in figure.layout.xaxis.title.text
    steps = trend_figure(trend(), "furniture", "steps")
    assert steps.layout.xaxis.title.text == "steps"
    assert list(steps.data[0].x) == [50, 100] and np.allclose(steps.data[0].y, [30, 40])


@pytest.mark.parametrize("change", [("furniture", "lr"), ("test", "max_objects")])
def test_a_trend_of_one_value_or_of_another_target_is_refused(change):
    with pytest.raises(
        ValueError, match=f"differ in {change[1]} alone and be measured on {change[0]}, got the arms some"
    ):
        trend_figure(trend(), *change)


def test_labels_are_cut_before_they_are_escaped():
    assert shorten("a  b\n c", 9) == "a b c" and shorten("<" * 9, 3) == "&lt;&lt;…"
