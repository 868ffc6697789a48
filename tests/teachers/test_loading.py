"""Every way to name a teacher, and what is said when it cannot be had."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipgs_lib.libraries import import_open_clip, prepare_torchvision
from clipgs_lib.teachers import TeacherError, load_teacher

from . import tiny

TAGGED = "ViT-B-32/laion2b_s34b_b79k"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty hub cache and no names on the network; returns the cache."""
    from huggingface_hub import constants

    def no_address(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.getaddrinfo", no_address)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    return tmp_path / "hub"


def test_torchvision_imports_beside_this_torch():
    """In a fresh process, as the first thing that touches torchvision."""
    code = "from clipgs_lib.libraries import import_open_clip; print(import_open_clip().__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "open_clip"


def test_torchvision_operators_are_declared_or_native():
    native = prepare_torchvision()
    boxes, scores = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]), torch.tensor([0.9, 0.8])
    if native:
        assert torch.ops.torchvision.nms(boxes, scores, 0.5).tolist() == [0]
    else:  # declared without an implementation: a call fails loudly
        with pytest.raises(NotImplementedError):
            torch.ops.torchvision.nms(boxes, scores, 0.5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_file(weights, tmp_path, teacher, suffix):
    file = tiny.save_weights(tmp_path / f"w{suffix}")
    assert load_teacher(f"{tiny.NAME}@{file}", device="cpu").digest == teacher.digest


def test_a_local_folder(tmp_path):
    folder = tiny.save_folder(tmp_path / "own clip")
    teacher = load_teacher(f"local-dir:{folder}", device="cpu")
    assert teacher.name == "own clip" and teacher.embed_dim == 16
    assert teacher.preprocess.mean == (0.5, 0.5, 0.5)
    moved = folder.rename(tmp_path / "moved")
    assert load_teacher(f"local-dir:{moved}", device="cpu").digest == teacher.digest


def test_a_folder_without_weights_is_not_random(tmp_path):
    folder = tiny.save_folder(tmp_path / "own")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(TeacherError, match="could not be loaded"):
        load_teacher(f"local-dir:{folder}", device="cpu")


def test_a_tag_brings_its_preprocessing_and_activation(weights, monkeypatch, teacher):
    told = {"file": str(weights), "mean": (0.4, 0.4, 0.4), "quick_gelu": True}
    pretrained = import_open_clip().pretrained._PRETRAINED
    monkeypatch.setitem(pretrained, tiny.NAME, {"home": told})
    tagged = load_teacher(f"{tiny.NAME}/home", device="cpu")
    assert tagged.name == f"{tiny.NAME}/home" and tagged.preprocess.mean == (0.4, 0.4, 0.4)
    assert any(type(m).__name__ == "QuickGELU" for m in tagged._model.modules())
    local = load_teacher(f"{tiny.NAME}/home@{weights}", device="cpu")
    assert local.digest == tagged.digest != teacher.digest


def test_a_repository_in_the_cache_needs_no_network(offline, tmp_path):
    repository = offline / "models--org--tiny"
    tiny.save_folder(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    hub = load_teacher("hf-hub:org/tiny", device="cpu")
    folder = shutil.copytree(repository / "snapshots" / "abc", tmp_path / "copy")
    assert hub.name == "hf-hub:org/tiny"
    assert hub.digest == load_teacher(f"local-dir:{folder}", device="cpu").digest


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (TAGGED, "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("hf-hub:org/absent", "hf download org/absent"),
    ],
)
def test_without_network_the_error_says_how(offline, name, command):
    start = time.monotonic()
    with pytest.raises(TeacherError) as caught:
        load_teacher(name)
    text = str(caught.value)
    assert f"load_teacher({name!r})" in text and command in text and 'load_teacher("mini")' in text
    assert time.monotonic() - start < 10  # no minute of retries; a bound on hanging, not a benchmark


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nope", "knows no such model"),
        ("", "knows no such model"),
        ("ViT-B-32", "must be one of"),
        ("ViT-B-32/wrong", "laion2b_s34b_b79k.*got 'wrong'"),
    ],
)
def test_names_of_no_form(name, words):
    with pytest.raises(ValueError, match=words):
        load_teacher(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-B-32@/absent/model.pt", "check the path"),
        ("ViT-B-32@model.onnx", "check the path"),
        ("local-dir:/absent", "open_clip_config.json"),
    ],
)
def test_files_that_are_not_there(name, words):
    with pytest.raises(TeacherError, match=words):
        load_teacher(name)


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_unpickled(weights, tmp_path):
    torch.save({"state_dict": {"text_projection": Bomb(tmp_path / "boom")}}, tmp_path / "evil.pt")
    with pytest.raises(TeacherError, match="nothing but tensors"):
        load_teacher(f"{tiny.NAME}@{tmp_path / 'evil.pt'}", device="cpu")
    assert not (tmp_path / "boom").exists()


def test_weights_of_another_model(weights, tmp_path):
    state = load_file(weights)
    state["text_projection"] = state["text_projection"][:, :8].contiguous()
    save_file(state, str(tmp_path / "w.safetensors"))
    with pytest.raises(TeacherError, match=f"fit {tiny.NAME}"):
        load_teacher(f"{tiny.NAME}@{tmp_path / 'w.safetensors'}", device="cpu")
    (tmp_path / "w.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(TeacherError, match="SafetensorError"):
        load_teacher(f"{tiny.NAME}@{tmp_path / 'w.safetensors'}", device="cpu")


def keep(path, state):
    """Save tensors by name as the suffix says, inside a checkpoint unless it is safetensors."""
    if path.suffix == ".safetensors":
        save_file(state, str(path))
    else:
        torch.save({"epoch": 1, "state_dict": state, "optimizer": {"lr": 0.1}}, path)
    return path


@pytest.mark.parametrize(
    ("file", "wrapper"),
    [
        ("lightning.ckpt", "model."),
        ("compiled", "_orig_mod."),
        ("stacked.pt2", "module._orig_mod."),
        ("deep.pth", "_orig_mod.model.module."),
        ("w.safetensors", "model."),
        ("w.v2.bin", ""),
    ],
)
def test_wrappers_of_trainers_and_any_suffix(weights, teacher, tmp_path, file, wrapper):
    state = {wrapper + key: value for key, value in load_file(weights).items()}
    loaded = load_teacher(f"{tiny.NAME}@{keep(tmp_path / file, state)}", device="cpu")
    assert loaded.digest == teacher.digest and loaded.logit_bias == 0


def test_one_tower_compiled(weights, teacher, tmp_path):
    state = {key.replace("visual.", "visual._orig_mod."): value for key, value in load_file(weights).items()}
    assert load_teacher(f"{tiny.NAME}@{keep(tmp_path / 'w.pt', state)}", device="cpu").digest == teacher.digest


def test_a_suffix_says_nothing(weights, teacher, tmp_path):
    file = shutil.copy(weights, tmp_path / "safetensors.pt")
    assert load_teacher(f"{tiny.NAME}@{file}", device="cpu").digest == teacher.digest


@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_bias_of_siglip(weights, teacher, tmp_path, shape, caplog):
    state = {f"module.{key}": value for key, value in load_file(weights).items()}
    state["module.logit_bias"] = torch.full(shape, -7.5)
    loaded = load_teacher(f"{tiny.NAME}@{keep(tmp_path / 'siglip.pt', state)}", device="cpu")
    assert loaded.logit_bias == -7.5 and loaded.logit_scale == teacher.logit_scale
    assert torch.equal(loaded.encode_text(["a cat"]), teacher.encode_text(["a cat"]))
    assert not caplog.records  # no word of weights that were not loaded


def test_keys_that_do_not_fit_are_named(weights, tmp_path):
    state = load_file(weights)
    state["adapter.weight"] = state.pop("ln_final.bias")
    with pytest.raises(TeacherError, match=r"missing or unexpected") as caught:
        load_teacher(f"{tiny.NAME}@{keep(tmp_path / 'w.pt', state)}", device="cpu")
    text = str(caught.value)
    assert "ln_final.bias is missing" in text and "adapter.weight is unknown" in text
    assert "pickle" not in text and "TorchScript" not in text
    doubled = {**state, **{f"module.{key}": value for key, value in state.items()}}
    with pytest.raises(TeacherError, match="both with and without a wrapper's prefix"):
        load_teacher(f"{tiny.NAME}@{keep(tmp_path / 'w.pt', doubled)}", device="cpu")


def test_pickles_are_blamed_where_they_are(weights, tmp_path):
    file = tmp_path / "w.pt"
    torch.save({"state_dict": load_file(weights), "args": argparse.Namespace(lr=1)}, file)
    with pytest.raises(TeacherError, match=r"argparse.Namespace; objects are never unpickled"):
        load_teacher(f"{tiny.NAME}@{file}", device="cpu")
    keep(file, load_file(weights))
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(TeacherError, match="damaged") as caught:
        load_teacher(f"{tiny.NAME}@{file}", device="cpu")
    assert "unpickled" not in str(caught.value)


def test_reported_checkpoints(cases, tmp_path):
    """Cases 23 and 24."""
    spec = importlib.util.spec_from_file_location("make_cases", cases / "make_cases.py")
    make_cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_cases)
    model, biases = make_cases.clip_checkpoints(tmp_path, import_open_clip())
    texts = ["a red chair", "a lamp"]
    with torch.no_grad():
        expected = model.encode_text(import_open_clip().get_tokenizer("tiny-case")(texts), normalize=True)
    for file, bias in biases.items():
        loaded = load_teacher(f"tiny-case@{tmp_path / file}", device="cpu")
        assert loaded.logit_bias == bias
        torch.testing.assert_close(loaded.encode_text(texts), expected, atol=1e-4, rtol=0)


def test_a_broken_configuration(tmp_path):
    folder = tiny.save_folder(tmp_path / "own")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 16}}))
    with pytest.raises(TeacherError, match="own"):
        load_teacher(f"local-dir:{folder}", device="cpu")
