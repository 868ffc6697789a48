"""Numbers of the figures that compare methods (how they look was checked by eye)."""

from __future__ import annotations

import numpy as np
import pytest

from clipgs_lib.plots import comparison_figure, cost_figure, robustness_figure

MARKUP = "<b>one</b>"


def rows(metrics=("cosine", "Top-5"), methods=(MARKUP, "two"), tasks=("unchanged", "turned", "as spz")):
    made = []
    for number, (metric, method, task) in enumerate((m, n, t) for m in metrics for n in methods for t in tasks):
        value = 0.9 - 0.01 * number
        made.append({"metric": metric, "method": method, "task": task, "value": value})
        made[-1] |= {"low": value - 0.1, "high": value + 0.05}
    return made


def test_each_metric_has_a_panel_and_each_method_a_colour():
    figure = robustness_figure(rows(), title=MARKUP)
    assert len(figure.data) == 4 and [trace.showlegend for trace in figure.data] == [True, True, False, False]
    first, second, third, _ = figure.data
    assert np.allclose(first.x, [0.9, 0.89, 0.88]) and np.allclose(first.error_x.arrayminus, 0.1)
    assert np.allclose(first.error_x.array, 0.05) and np.allclose(np.round(first.y), [0, 1, 2])
    assert first.marker.color == third.marker.color != second.marker.color
    assert first.name == "&lt;b&gt;one&lt;/b&gt;" and "<b>" not in figure.layout.title.text
    assert list(figure.layout.yaxis.ticktext) == ["unchanged", "turned", "as spz"]
    assert figure.layout.yaxis.range == (2.5, -0.5), "the first change on top"


def test_without_words_there_is_one_panel():
    figure = robustness_figure(rows(metrics=("cosine",), methods=("two",)))
    assert len(figure.data) == 1 and not hasattr(figure.layout, "xaxis2")


@pytest.mark.parametrize("found", [[], rows(metrics=("Top-5",))])
def test_rows_of_something_else_are_refused(found):
    with pytest.raises(ValueError, match="must hold the metric cosine"):
        robustness_figure(found)


@pytest.mark.parametrize("chance", [0.1, None])
def test_the_subtitle_speaks_of_chance_where_it_is_drawn(chance):
    facts = {"protocol": "twin", "task": "rooms", "n": 5, "chance": chance}
    figure = comparison_figure([row | facts for row in rows(tasks=("rooms",))], {"IoU": ("twin", "rooms", "cosine")})
    assert len(figure.layout.shapes) == (chance is not None)
    assert ("chance" in figure.layout.title.subtitle.text) == (chance is not None)


def test_quality_against_time_has_a_dot_for_every_method_that_was_timed():
    quality = [
        {"method": name, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 74}
        for name, value in (("views", 0.6), (MARKUP, 0.4), ("untimed", 0.9))
    ]
    cost = [{"method": name, "metric": "ms", "value": value} for name, value in (("views", 200.0), (MARKUP, 20.0))]
    cost.append({"method": "untimed", "metric": "MB", "value": 3.0})
    figure = cost_figure(quality, cost, "Top-5", title=MARKUP)
    assert [(float(dot.x[0]), float(dot.y[0])) for dot in figure.data] == [(200, 60), (20, pytest.approx(40))]
    assert all(np.allclose(dot.error_y.array, 10) and np.allclose(dot.error_y.arrayminus, 10) for dot in figure.data)
    assert figure.layout.xaxis.type == "log" and "one thread" in figure.layout.xaxis.title.text
    low, high = figure.layout.xaxis.range
    assert 10**low < 20 and 10**high > 200 and "74 objects" in figure.layout.title.subtitle.text
    assert "<img" not in figure.data[1].name + figure.layout.title.text
    with pytest.raises(ValueError, match="must hold the metric ms of a method of quality, got views"):
        cost_figure(quality[2:], cost, "Top-5")
