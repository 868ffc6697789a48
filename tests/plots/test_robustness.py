"""Numbers of the figures that compare methods (how they look was checked by eye)."""

from __future__ import annotations

import numpy as np
import pytest

from clipgs_lib.plots import comparison_figure, robustness_figure

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
