"""What is shipped beside the code: settings for large machines name real parameters, data keep to their budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgs_lib.runner import find_notebooks, read_parameters_file, resolve_parameters
from clipgs_lib.settings import from_plain, read_file
from clipgs_lib.training import Grid

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = sorted((ROOT / "notebooks" / "full").glob("[0-9]*.yaml"))
GRIDS = sorted((ROOT / "notebooks" / "full").glob("*_ablation.yaml"))
BUDGET = {  # bytes
    "": 52e6,
    "teachers": 14e6,
    "encoders/clipgs-mini": 8e6,
    "encoders/point-mini": 8e6,
    "encoders/duoduo-mini": 4e6,
    "triplets": 12e6,
}


@pytest.mark.parametrize("path", SETTINGS, ids=[path.stem for path in SETTINGS])
def test_settings_for_large_machines_name_parameters_of_their_notebook(path):
    (notebook,) = find_notebooks(ROOT / "notebooks", [path.stem[:2]])
    given = read_parameters_file(path)
    told = resolve_parameters({notebook.name: notebook.parameters}, [], given)[notebook.name]
    assert given and {name: told[name] for name in given} == given


@pytest.mark.parametrize("path", GRIDS, ids=[path.stem for path in GRIDS])
def test_grids_of_ablations_hold(path):
    grid = from_plain(Grid, read_file(path))
    assert len(grid.arms) > 1 and f"{path.stem}.yaml --out" in path.read_text(encoding="utf-8")


def test_there_are_settings():
    names = ("design", "tokenizer", "voting", "scaling", "representation", "fitting")
    assert {f"{name}_ablation" for name in names} <= {path.stem for path in GRIDS}
    assert {"04_training", "05_voting_loss"} <= {path.stem for path in SETTINGS}


@pytest.mark.parametrize("folder", BUDGET)
def test_data_stay_within_their_budget(folder):
    size = sum(path.stat().st_size for path in (ROOT / "data" / folder).rglob("*") if path.is_file())
    assert 0 < size <= BUDGET[folder], f"data/{folder} holds {size:,} bytes"


@pytest.mark.parametrize(
    "folder", ["teachers/mini", "encoders/clipgs-mini", "encoders/point-mini", "encoders/duoduo-mini"]
)
def test_weights_come_with_a_card(folder):
    card = (ROOT / "data" / folder / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("Licence", "Data"))
    assert "clipgs train" in card or "clipgs teacher train" in card
    assert "/tmp" not in card and "/home" not in card
