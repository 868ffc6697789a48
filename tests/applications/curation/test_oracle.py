"""The loop without a person: active labels beat random ones where kinds are rare; seeds repeat."""

from __future__ import annotations

import numpy as np
import pytest

from clipgs_lib.applications.curation import oracle, oracle_curves, task_of, tasks

from .test_ranking import objects


def test_the_tasks_have_a_query_and_labels_that_no_two_share():
    assert {"food", "buildings", "things to sit on", "lamps", "vehicles"} == set(tasks())
    labels = [label for task in tasks().values() for label in task.labels]
    assert len(labels) == len(set(labels)) and all(label == label.lower().strip() for label in labels)
    assert all(task.query for task in tasks().values())
    with pytest.raises(ValueError, match=r"the task must be one of food, .* and vehicles, got 'cars'"):
        task_of("cars")


@pytest.fixture(scope="module")
def curves():
    embeds, truth, query = objects(count=600, share=0.08, gap=1.2)
    return oracle_curves(embeds, query, truth, seeds=4, budget=60, batch=10)


def test_curves_have_a_point_for_each_number_of_labels(curves):
    assert curves["labels"] == [0, 10, 20, 30, 40, 50, 60] and curves["seeds"] == 4
    for strategy in oracle.STRATEGIES:
        for name in ("held_out", "pool"):
            points = np.array(curves[strategy][name])
            assert points.shape == (7, 3) and ((points >= 0) & (points <= 1)).all()
            assert (points[:, 1] <= points[:, 0]).all() and (points[:, 0] <= points[:, 2]).all()
    assert curves["active"]["held_out"][0] == curves["random"]["held_out"][0], "without labels the text ranks for both"


def test_active_labels_beat_random_ones_where_the_kind_is_rare(curves):
    assert curves["active"]["pool"][4][0] > curves["random"]["pool"][4][0] + 0.05
    assert curves["active"]["held_out"][4][0] > curves["random"]["held_out"][4][0]


def test_the_pool_is_perfect_once_all_of_it_is_labelled():
    embeds, truth, query = objects(count=60, share=0.3)
    curves = oracle_curves(embeds, query, truth, seeds=2, budget=1000, batch=10)
    assert curves["labels"][-1] == 30 and curves["active"]["pool"][-1] == [1, 1, 1]
    assert curves["active"]["needed"]["pool"] <= 30
    again = oracle_curves(embeds, query, truth, seeds=2, budget=1000, batch=10)
    assert again == curves, "seeds repeat"


def test_needed_is_where_the_mean_stays_at_the_target():
    points = [[value, 0, 1] for value in (0.5, 0.92, 0.8, 0.9, 0.95)]
    assert oracle._reached([0, 10, 20, 30, 40], points, 0.9) == 30
    assert oracle._reached([0, 10, 20, 30, 40], points, 0.99) is None
    assert oracle._reached([0, 10, 20, 30, 40], points, 0.1) == 0


def test_a_task_with_too_few_objects_is_refused():
    embeds, _, query = objects(count=40)
    with pytest.raises(ValueError, match="at least 4 objects of each kind, got 3 yes of 40"):
        oracle_curves(embeds, query, np.arange(40) < 3)


def test_progress_counts_runs():
    embeds, truth, query = objects(count=60, share=0.3)
    said = []
    oracle_curves(embeds, query, truth, seeds=2, budget=10, progress=lambda *numbers: said.append(numbers))
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]
