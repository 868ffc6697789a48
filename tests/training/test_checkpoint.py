"""Checkpoints appear whole, are checked when read, and leave what was there alone."""

from __future__ import annotations

import json
import resource

import pytest
import torch

from clipgs_lib.training import CheckpointError
from clipgs_lib.training.checkpoint import check_identity, last_checkpoint, load_checkpoint, save_checkpoint

TENSORS = {"a": torch.arange(5.0), "b/c": torch.tensor(3)}


def test_round_trip_and_keep_last(tmp_path):
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, TENSORS, {"progress": {"x": 1.5}}, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000010"]
    tensors, state = load_checkpoint(last_checkpoint(tmp_path))
    assert state["step"] == 10 and state["progress"] == {"x": 1.5}
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())


def test_a_missing_run_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        last_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="got none"):
        last_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path, share):
    path = save_checkpoint(tmp_path, 1, TENSORS, {})
    data = (path / "tensors.safetensors").read_bytes()
    (path / "tensors.safetensors").write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"sha256.*delete step-00000001"):
        load_checkpoint(path)


def test_another_version_and_damaged_json_are_named(tmp_path):
    path = save_checkpoint(tmp_path, 1, TENSORS, {})
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"format": "clipgs-checkpoint/2"}))
    with pytest.raises(CheckpointError, match="another version wrote it"):
        load_checkpoint(path)
    (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="must be JSON"):
        load_checkpoint(path)


def test_a_full_disk_leaves_older_checkpoints_and_no_rest(tmp_path):
    first = save_checkpoint(tmp_path, 1, TENSORS, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # writes past 1000 bytes fail, as on a full disk
    try:
        with pytest.raises(CheckpointError, match=r"must fit into.*make room.*older checkpoints are intact"):
            save_checkpoint(tmp_path, 2, {"a": torch.zeros(10_000)}, {}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [first.name]
    assert load_checkpoint(last_checkpoint(tmp_path))[1]["step"] == 1


def test_room_is_asked_for_only_where_it_lacks(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"must be written into .*File exists.*older checkpoints") as caught:
        save_checkpoint(tmp_path, 1, TENSORS, {})
    assert "make room" not in str(caught.value)


def test_what_a_killed_save_left_is_neither_read_nor_kept(tmp_path):
    save_checkpoint(tmp_path, 1, TENSORS, {})
    (tmp_path / "checkpoints" / ".step-00000009.partial").mkdir()
    assert last_checkpoint(tmp_path).name == "step-00000001"
    save_checkpoint(tmp_path, 2, TENSORS, {})
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_another_run_is_refused_with_both_values(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"config.lr is 0.1 there, 0.2 now; teacher.identity is 'a' there, 'b' now"
    ):
        check_identity(
            tmp_path,
            {"config": {"lr": 0.1, "n": 1}, "teacher": {"identity": "a"}},
            {"config": {"lr": 0.2, "n": 1}, "teacher": {"identity": "b"}},
        )
