"""Numbers and limits of the figure about what a fit costs (how it looks was checked by eye)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipgs_lib.plots import fitting_tradeoff


def cells(counts=(256, 1024), starts=("mesh", "points", "random"), steps=(600, 0, 120)):
    return [
        {
            "start": start,
            "n": n,
            "iterations": iterations,
            "psnr": 20 + n / 256 + iterations / 100 - 3 * k,
            "psnr_worst": 15.0 + iterations / 100,
            "cpu_seconds": 0.3 + iterations / 200,
            "objects": 4,
        }
        for n in counts
        for k, start in enumerate(starts)
        for iterations in steps
    ]


def test_every_measured_cell_is_drawn_once():
    figure = fitting_tradeoff(cells())
    solid = [trace for trace in figure.data if trace.line.dash == "solid"]
    assert len(figure.data) == 2 * 3 * 3 and len(solid) == 2 * 3 * 2
    assert all(tuple(trace.x) == (0, 120, 600) for trace in figure.data)  # in order, whatever the rows' order
    first = solid[0]
    assert first.name == "from the mesh" and tuple(first.y) == pytest.approx((21, 22.2, 27))
    seconds = [trace for trace in solid if trace.yaxis in ("y3", "y4")]
    assert len(seconds) == 6 and all(tuple(trace.y) == pytest.approx((0.3, 0.9, 3.3)) for trace in seconds)
    assert [a.text for a in figure.layout.annotations] == ["256 gaussians", "1,024 gaussians"]
    assert "over 4 real meshes" in figure.layout.title.subtitle.text


def test_each_start_has_one_colour_and_one_entry_in_the_legend():
    figure = fitting_tradeoff(cells())
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert shown == ["from the mesh", "from points", "at random"]
    assert all(len({t.line.color for t in figure.data if t.name == name}) == 1 for name in shown)
    assert len({trace.line.color for trace in figure.data}) == 3


def test_a_table_with_gaps_is_drawn():
    figure = fitting_tradeoff(cells(counts=(512,), starts=("random",), steps=(60,)))
    assert len(figure.data) == 3 and figure.data[0].name == "at random"
    assert [trace.showlegend for trace in figure.data] == [True, False, False]


def test_the_committed_measurements_are_drawn():
    path = Path(__file__).resolve().parents[2] / "data" / "results" / "fitting_tradeoff.json"
    figure = fitting_tradeoff(json.loads(path.read_text())["trade-off"]["rows"])
    assert all(value > 0 for trace in figure.data for value in trace.y)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "at least one measured cell, got none"),
        ([{"start": "mesh"}], "row 0 must have .*, got none of n, iterations, psnr"),
        ([*cells(), {**cells()[0], "start": "luck"}], "row 18: start must be one of mesh, points, random, got 'luck'"),
    ],
)
def test_rows_that_cannot_be_drawn_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        fitting_tradeoff(rows)
