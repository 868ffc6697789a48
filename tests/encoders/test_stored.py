"""Encoders on disk: what is kept, what is refused and how it says so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import clipgs_lib as cg
from clipgs_lib.encoders import EncoderError, build_encoder, encoder_names, load_encoder, save_encoder, stored
from clipgs_lib.tokenizer import collate

from ..conftest import make_splats

INFO = {
    "teacher": {"identity": "mini sha256:abc", "dim": 384},
    "data": {"objects": 12, "sha256": "def"},
    "metrics": {"recall_at_1": 0.25, "epochs": [1, 2]},
}


@pytest.fixture(scope="module")
def encoder():
    """A little one with used batch statistics."""
    torch.manual_seed(0)
    made = build_encoder("clipgs-mini", depth=1, groups=20, group_size=8)
    made.train()
    made(collate([make_splats(50, seed=s) for s in range(3)]))
    return made


@pytest.fixture
def folder(encoder, tmp_path):
    """It, saved."""
    return save_encoder(tmp_path / "deep" / "folder", encoder, INFO)


@pytest.fixture
def edited(folder):
    """A function that rewrites entries of its ``config.json``; None deletes one."""

    def edit(**changes):
        path = folder / "config.json"
        document = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
        return folder

    return edit


def test_round_trip(encoder, folder):
    objects = [make_splats(n, seed=n) for n in (15, 70)]
    loaded = load_encoder(folder)
    assert torch.equal(loaded.encode(objects), encoder.encode(objects))
    assert loaded.identity == encoder.identity
    assert loaded.config == encoder.config
    assert loaded.info == INFO
    assert not loaded.training
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]
    assert load_encoder(str(folder), teacher="mini sha256:abc").embed_dim == 384


def test_pointbert_round_trip(tmp_path):
    made = build_encoder("pointbert", depth=1, groups=12, group_size=8)
    loaded = load_encoder(save_encoder(tmp_path, made))
    assert loaded.identity == made.identity
    assert loaded.info == {"teacher": {}, "data": {}, "metrics": {}}


def test_saving_again_keeps_what_the_checkpoint_told(folder, tmp_path):
    loaded = load_encoder(folder)
    assert load_encoder(save_encoder(tmp_path / "copy", loaded)).info == INFO


def test_half_is_half_the_size_and_nearly_the_same(encoder, folder, tmp_path):
    half = save_encoder(tmp_path / "half", encoder, INFO, half=True)
    sizes = [(path / "weights.safetensors").stat().st_size for path in (half, folder)]
    assert sizes[0] < 0.53 * sizes[1]
    stored = load_file(half / "weights.safetensors")
    assert stored["trans2embed.weight"].dtype == torch.float16
    assert stored["tokenizer.points.first_conv.1.running_var"].dtype == torch.float32
    loaded = load_encoder(half)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    splats = make_splats(60, seed=4)
    assert float((loaded.encode(splats) * encoder.encode(splats)).sum()) > 0.9999


def test_loading_leaves_the_generator_alone(folder):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    load_encoder(folder)
    assert torch.equal(torch.rand(3), want)


def test_shipped_ones_are_found_by_name(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "SHIPPED", tmp_path)
    with pytest.raises(
        EncoderError, match=r"data/encoders/clipgs-mini, got none \(none is shipped yet\).*clipgs train"
    ):
        cg.load_encoder("clipgs-mini")
    save_encoder(tmp_path / "clipgs-mini", encoder)
    assert cg.load_encoder("clipgs-mini").identity == encoder.identity
    with pytest.raises(EncoderError, match=r"shipped name or a folder.*'mine' \(shipped are clipgs-mini\)"):
        load_encoder("mine")
    with pytest.raises(EncoderError, match="shipped name or a folder"):
        load_encoder(tmp_path / "nowhere" / "clipgs-mini")
    assert "point-mini" in encoder_names()


def test_truncated(folder):
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="it is cut short, damaged or of another checkpoint: copy both files anew"):
        load_encoder(folder)


def test_one_flipped_bit(folder):
    weights = folder / "weights.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-7] ^= 1
    weights.write_bytes(blob)
    with pytest.raises(EncoderError, match="must have the sha256"):
        load_encoder(folder)


def test_weights_of_another_checkpoint(encoder, folder, tmp_path):
    other = save_encoder(tmp_path / "other", build_encoder(encoder.config), INFO)
    (other / "weights.safetensors").replace(folder / "weights.safetensors")
    with pytest.raises(EncoderError, match="of another checkpoint"):
        load_encoder(folder)


def test_missing_files(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match=r"must hold config.json, got none"):
        load_encoder(tmp_path / "empty")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"must hold weights.safetensors, got none"):
        load_encoder(folder)


def test_config_that_is_not_ours(folder):
    path = folder / "config.json"
    text = path.read_text()
    for broken, message in (
        (text[: len(text) // 2], "must be JSON, got .*damaged"),
        ("[1, 2]", "must say format 'clipgs-encoder'"),
        (text.replace('"clipgs-encoder"', '"another"'), "file of something else"),
    ):
        path.write_text(broken)
        with pytest.raises(EncoderError, match=message):
            load_encoder(folder)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(EncoderError, match="must be JSON"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "must be of version 1, got 2; update clipgs_lib to read it"),
        ({"version": None}, "must be of version 1, got None"),
        ({"license": "x"}, r"unknown \['license'\], missing \[\]"),
        ({"sha256": None}, r"unknown \[\], missing \['sha256'\]"),
        ({"sha256": 7}, "must have the sha256"),
        ({"metrics": [1]}, "metrics in .* must be a dictionary, got list"),
        ({"config": {"kind": "cnn"}}, "kind must be one of"),
        ({"embed_dim": 512}, "must be that of its config: 384"),
    ],
)
def test_entries_that_do_not_hold(edited, changes, message):
    with pytest.raises(EncoderError, match=message):
        load_encoder(edited(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 2}, r"weights in .* must fit its config.json: visual.blocks.1.* is missing.*and \d+ more"),
        ({"width": 96}, r"has \[1, 1, 192\], not \[1, 1, 96\]"),
        (
            {"colour": "red"},
            "settings of EncoderConfig .*; got unknown colour; were they written by a newer clipgs_lib",
        ),
        ({"depth": "many"}, "depth must be a whole number, got 'many'"),
        ({"patch_dropout": "half"}, "patch_dropout must be a number, got 'half'"),
        ({"block": 7}, "block must be a text, got 7"),
        ({"tokenizer": 7}, "tokenizer must be a mapping, got 7"),
    ],
)
def test_weights_of_other_settings(edited, encoder, changes, message):
    with pytest.raises(EncoderError, match=message):
        load_encoder(edited(config={**encoder.config.to_dict(), **changes}))


def test_tokenizer_settings_are_strict(edited, encoder):
    config = encoder.config.to_dict()
    config["tokenizer"] = {**config["tokenizer"], "magic": 1}
    with pytest.raises(EncoderError, match=r"got unknown tokenizer\.magic"):
        load_encoder(edited(config=config))
    config["tokenizer"] = {**encoder.config.to_dict()["tokenizer"], "attributes": "points"}
    with pytest.raises(EncoderError, match=r"tokenizer.attributes.* is unknown"):
        load_encoder(edited(config=config))


def test_another_teacher_is_refused(folder):
    with pytest.raises(EncoderError, match="must be 'real sha256:1', but it was trained against 'mini sha256:abc'"):
        load_encoder(folder, teacher="real sha256:1")


def test_weights_that_are_no_safetensors(folder, edited):
    import hashlib

    blob = b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense"
    (folder / "weights.safetensors").write_bytes(blob)
    with pytest.raises(EncoderError, match="must be a safetensors file"):
        load_encoder(edited(sha256=hashlib.sha256(blob).hexdigest()))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"seed": 1}, "info must hold teacher, data, metrics only, got seed"),
        ({"teacher": "mini"}, r"info\['teacher'\] must be a dictionary, got str"),
        ({"teacher": {"dim": 512}}, "teacher's dimension must be the encoder's 384, got 512"),
        ({"metrics": {"loss": float("nan")}}, "finite numbers"),
        ({"metrics": {"loss": torch.zeros(1)}}, "finite numbers"),
    ],
)
def test_info_that_cannot_be_kept(encoder, tmp_path, info, message):
    with pytest.raises(EncoderError, match=message):
        save_encoder(tmp_path / "new", encoder, info)
    assert not (tmp_path / "new").exists()


def test_weights_that_cannot_be_kept(tmp_path):
    encoder = build_encoder("point-mini", depth=1)
    encoder.cls_pos.data[0, 0, 0] = 1e6
    save_encoder(tmp_path / "full", encoder)
    with pytest.raises(EncoderError, match=r"fit float16 for half=True, got 1e\+06 in cls_pos"):
        save_encoder(tmp_path / "half", encoder, half=True)
    encoder.cls_pos.data[0, 0, 0] = torch.nan
    with pytest.raises(EncoderError, match="NaN or infinity in cls_pos; nothing was saved"):
        save_encoder(tmp_path / "full", encoder)
    assert load_encoder(tmp_path / "full").cls_pos[0, 0, 0].item() == 1e6


def test_other_weights_of_the_same_encoder_are_kept(encoder, tmp_path):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    loaded = load_encoder(save_encoder(tmp_path / "other", encoder, INFO, state=state))
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    with pytest.raises(EncoderError, match="state must fit the encoder: cls_pos is missing; more is unknown"):
        save_encoder(tmp_path / "odd", encoder, state={"more": state.pop("cls_pos"), **state})


def test_out_of_disk_keeps_the_old_checkpoint(encoder, folder, monkeypatch):
    other = build_encoder(replace(encoder.config, embed_dim=16))
    written = []

    def full(path, text, **options):
        written.append(path.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        save_encoder(folder, other)
    monkeypatch.undo()
    assert written[0].endswith(".partial")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]
    assert load_encoder(folder).identity == encoder.identity


def test_nothing_but_tensors_is_read(folder):
    """The file's bytes go to safetensors alone: a pickle with the right sum is refused."""
    import hashlib

    torch.save({"weights": torch.zeros(2)}, folder / "weights.safetensors")
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document["sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(EncoderError, match="safetensors"):
        load_encoder(folder)
    save_file({"extra": torch.zeros(1)}, folder / "weights.safetensors")
    document["sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(EncoderError, match="is missing"):
        load_encoder(folder)
