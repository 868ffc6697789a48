"""`runtime`: seeds, device, folders, and the metrics file that the runner demands."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from clipgs_lib import runtime


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """`runtime.start` with folders under tmp_path; a test overrides what it is about."""
    monkeypatch.setattr(runtime, "_latest", None)
    data = tmp_path / "data"
    data.mkdir()

    def start(**changes):
        given = {"NOTEBOOK": "07_x", "SEED": 3, "DEVICE": "cpu", "DATA_DIR": data, "OUT_DIR": tmp_path / "o" / "p"}
        given |= {"TEACHER": None} | {name.upper(): value for name, value in changes.items()}
        return runtime.start(
            given.pop("NOTEBOOK"), given | {"json": json, "Path": Path, "small": 1, "ALSO": np.zeros(2)}
        )

    return start


def test_start_seeds_all_three_generators(begin):
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    begin(seed=11)
    first = draw()
    begin(seed=11)
    assert draw() == first
    begin(seed=12)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_start_makes_the_folder_and_prints_one_line(begin, capsys):
    run = begin(seed=5)
    assert run.out_dir.is_dir() and run.out_dir.is_absolute()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert torch.__version__ in lines[0] and "cpu" in lines[0] and "seed 5" in lines[0]
    assert f"{torch.get_num_threads()} threads" in lines[0]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "7"])
def test_bad_seeds_are_refused(begin, seed):
    with pytest.raises(ValueError, match="SEED must be an integer in 0"):
        begin(seed=seed)


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "cuda:x", "", "mps"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ValueError, match='device must be "auto"'):
        runtime.resolve_device(name)


def test_cuda_without_a_gpu_says_what_to_pass(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match=r'needs CUDA, but .*; pass "auto" or "cpu"'):
        runtime.resolve_device("cuda")


def test_cuda_index_must_exist(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runtime.resolve_device("auto") == torch.device("cuda")
    assert runtime.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"'cuda:2' does not exist, this machine has 2 GPU"):
        runtime.resolve_device("cuda:2")


def test_bad_folders_are_refused(begin, tmp_path):
    with pytest.raises(FileNotFoundError, match="DATA_DIR must be an existing folder"):
        begin(data_dir=tmp_path / "nowhere")
    taken = tmp_path / "taken"
    taken.write_text("x")
    with pytest.raises(NotADirectoryError, match="OUT_DIR must be a folder"):
        begin(out_dir=taken)
    with pytest.raises(ValueError, match="without folder"):
        begin(notebook="a/01.ipynb")


def test_a_missing_parameter_is_named():
    with pytest.raises(ValueError, match="must include DATA_DIR, OUT_DIR, got SEED, DEVICE, TEACHER"):
        runtime.start("07_x", {"SEED": 1, "DEVICE": "cpu", "TEACHER": "mini"})


def test_folders_are_made_and_emptied_on_demand(begin):
    run = begin()
    (run.folder("set") / "a.txt").write_text("x")
    assert (run.folder("set") / "a.txt").is_file() and run.folder("set").parent == run.out_dir
    assert list(run.folder("set", fresh=True).iterdir()) == []


def test_committed_results_are_read_where_they_are(begin):
    run = begin()
    assert run.results("ablation") is None
    (run.data_dir / "results").mkdir()
    (run.data_dir / "results" / "ablation.json").write_text("[1, 2]")
    assert run.results("ablation") == [1, 2]


def test_record_writes_everything_the_runner_needs(begin, tmp_path):
    before = time.time()
    run = begin(teacher="mini", views=8, labels=["a", "b"])
    runtime.record(
        {"psnr": torch.tensor(31.5), "n": np.int64(4), "ok": np.bool_(True), "by": {"ply": [1, 2.5]}},
        findings="SOG is smallest.",
    )
    document = json.loads((tmp_path / "o" / "p" / "metrics.json").read_text())
    assert document["metrics"] == {"psnr": 31.5, "n": 4, "ok": True, "by": {"ply": [1, 2.5]}}
    assert document["findings"] == ["SOG is smallest."]
    assert document["notebook"] == "07_x" and document["seed"] == 3 and document["device"] == "cpu"
    assert document["parameters"]["VIEWS"] == 8 and document["parameters"]["LABELS"] == ["a", "b"]
    assert document["parameters"]["TEACHER"] == "mini" and document["parameters"]["SEED"] == 3
    assert set(document["parameters"]) == {*runtime.REQUIRED, "VIEWS", "LABELS"}, "UPPER_CASE names with plain values"
    assert document["versions"]["torch"] == torch.__version__
    assert before <= document["began"] <= document["recorded"] <= time.time()
    assert 0 <= document["seconds"] <= time.time() - before
    assert [p.name for p in run.out_dir.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("metrics", "error", "words"),
    [
        ({"a": {"b": [1, float("nan")]}}, ValueError, r"metrics\.a\.b\[1\] must be a finite number, got nan"),
        ({"loss": torch.tensor(float("inf"))}, ValueError, r"metrics\.loss must be a finite number, got inf"),
        ({"x": np.float32("-inf")}, ValueError, r"metrics\.x must be a finite number, got -inf"),
        ({"x": torch.zeros(3)}, TypeError, r"metrics\.x must be a scalar"),
        ({"x": np.zeros((2, 2))}, TypeError, r"metrics\.x must be a scalar"),
        ({"x": object()}, TypeError, r"metrics\.x must be a number, text"),
        ({3: 1}, TypeError, "must have text as keys, got 3"),
        ({}, ValueError, "metrics must name at least one number"),
    ],
)
def test_record_refuses_what_json_cannot_hold_and_writes_nothing(begin, metrics, error, words):
    run = begin()
    runtime.record({"good": 1})
    good = (run.out_dir / "metrics.json").read_bytes()
    with pytest.raises(error, match=words):
        runtime.record(metrics)
    assert (run.out_dir / "metrics.json").read_bytes() == good
    assert [p.name for p in run.out_dir.iterdir()] == ["metrics.json"]


def test_labels_are_of_metrics(begin, tmp_path):
    begin()
    with pytest.raises(ValueError, match="labels must be of metrics, got top; there are top1"):
        runtime.record({"top1": 0.5}, labels={"top": "Top-1, share"})
    runtime.record({"top1": 0.5}, labels={"top1": "Top-1, share"})
    assert json.loads((tmp_path / "o" / "p" / "metrics.json").read_text())["labels"] == {"top1": "Top-1, share"}


def test_record_before_start_says_so(monkeypatch):
    monkeypatch.setattr(runtime, "_latest", None)
    with pytest.raises(RuntimeError, match=r"call clipgs_lib\.runtime\.start"):
        runtime.record({"a": 1})


def test_real_data_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIPGS_REAL_DATA", "")
    assert runtime.real_data_dir() is None and runtime.real_files("*") == []
    monkeypatch.setenv("CLIPGS_REAL_DATA", str(tmp_path))
    assert runtime.real_data_dir() == tmp_path
    (tmp_path / "b.jpg").touch()
    (tmp_path / "a.jpg").touch()
    assert runtime.real_files("*.jpg") == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    monkeypatch.setenv("CLIPGS_REAL_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="CLIPGS_REAL_DATA must name a folder"):
        runtime.real_data_dir()
    monkeypatch.delenv("CLIPGS_REAL_DATA")
    monkeypatch.setattr(runtime, "_PROJECT", tmp_path / "project")
    assert runtime.real_data_dir() is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert runtime.real_data_dir() == tmp_path / "shared" / "data"


# ---- precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "bf16"])
def test_auto_is_bf16_where_the_cpu_has_it(monkeypatch, capability):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, capability: True})
    assert runtime.native_bf16(cpu) and runtime.resolve_precision("auto", cpu) == "bf16"
    with runtime.mixed_precision("auto", cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_auto_is_fp32_where_bf16_would_be_emulated(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True, "avx512_bf16": False})
    assert not runtime.native_bf16(cpu) and runtime.resolve_precision("auto", cpu) == "fp32"
    with runtime.mixed_precision("auto", cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert runtime.resolve_precision("bf16", cpu) == "bf16"  # who asks for it gets it


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_asks_the_gpu(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert runtime.resolve_precision("auto", torch.device("cuda")) == precision


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="got 'half'"):
        runtime.resolve_precision("half", torch.device("cpu"))


def test_this_cpu_is_asked():
    """The names asked for are those that torch uses, on the machines that it knows."""
    known = torch.cpu.get_capabilities()
    expected = {"x86_64": ("avx512_bf16", "amx_bf16"), "aarch64": ("bf16",)}.get(known.get("architecture"), ())
    assert set(expected) <= set(known)
