"""The figure of AP against labels: a panel for each task, bands, the text, and what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from clipgs_lib.plots import labels_figure

MARKUP = "<img src=x onerror=alert(1)>"


def curves(first: float = 0.3) -> dict:
    """As `oracle_curves` gives them."""
    rise = [[min(1, first + 0.1 * k), min(1, first + 0.1 * k) - 0.05, min(1, first + 0.1 * k + 0.05)] for k in range(8)]
    slow = [[first + 0.02 * k, first, first + 0.2] for k in range(8)]
    halves = {"active": {"pool": rise, "held_out": slow}, "random": {"pool": slow, "held_out": slow}}
    return {"objects": 1000, "positives": 70, "seeds": 5, "labels": list(range(0, 80, 10))} | halves


def test_each_task_has_a_panel_with_both_ways_their_bands_and_the_text():
    figure = labels_figure({"food": curves(), MARKUP: curves(0.5)}, title=MARKUP)
    lines = [trace for trace in figure.data if trace.name]
    assert [trace.name for trace in lines] == ["asked by the ranking", "asked at random", "text alone"] * 2
    assert len(figure.data) == 10 and [trace.showlegend for trace in lines] == [True] * 3 + [False] * 3
    assert np.allclose(lines[0].y, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]) and list(lines[0].x) == list(
        range(0, 80, 10)
    )
    assert np.allclose(lines[2].y, 0.3) and np.allclose(lines[5].y, 0.5), "the text needs no labels"
    band = figure.data[0]
    assert np.allclose(band.y[:8] - band.y[:7:-1], [0.1] * 7 + [0.05])
    words = [annotation.text for annotation in figure.layout.annotations]
    assert "food (70 of 1,000)" in words and not any("<img" in text for text in [*words, figure.layout.title.text])
    assert "mean of 5 seeds" in figure.layout.title.subtitle.text


def test_no_task_is_refused():
    with pytest.raises(ValueError, match="needs tasks, got none"):
        labels_figure({})
