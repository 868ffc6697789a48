"""The trainer of `mini`: it learns a toy set, goes on exactly where it stopped, and reports what it measured."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from clipgs_lib.cli import app
from clipgs_lib.settings import to_plain
from clipgs_lib.teachers import load_teacher, mini
from clipgs_lib.training import mini as training
from clipgs_lib.training import train_mini
from clipgs_lib.training.checkpoint import METRICS
from clipgs_lib.training.mini import MiniConfig, MiniTrainer
from clipgs_lib.training.mini_augment import PictureAugment
from clipgs_lib.training.mini_views import read_views
from tests.teachers import tiny

STILL = PictureAugment((1, 1), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
TOY = MiniConfig(
    steps=6,
    batch_size=4,
    warmup=2,
    image_tower="test_resnet",
    image_size=32,
    small_size=32,
    read_size=32,
    validate_every=3,
    val_views=2,
)
SPLITS = {"apple": "val", "boat": "test", "chair": "val"}


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return tiny.save_views(tmp_path_factory.mktemp("views"), SPLITS)


def replaced(**changes) -> MiniConfig:
    return MiniConfig(**{**TOY.__dict__, **changes})


def test_it_overfits_sixteen_pictures(tmp_path):
    everything = read_views(tiny.save_views(tmp_path / "views"))
    config = replaced(steps=60, batch_size=16, lr=3e-3, validate_every=100)
    trainer = MiniTrainer(everything, tmp_path / "out", config, augmentation=STILL)
    losses = [record["loss"] for record in trainer.run()]
    assert losses[-1] < 0.1 * losses[0]


def test_resuming_is_exact(views, tmp_path):
    whole = list(MiniTrainer(read_views(views), tmp_path / "whole", TOY).run())
    first = list(MiniTrainer(read_views(views), tmp_path / "parts", TOY).run(until=3))
    (tmp_path / "parts" / METRICS).open("a").write('{"step": 4, "loss": 9}\n')  # killed after a record
    rest = list(MiniTrainer(read_views(views), tmp_path / "parts", TOY).run())

    def without_time(records):
        return [{key: value for key, value in record.items() if key != "seconds"} for record in records]

    assert without_time(first + rest) == without_time(whole)
    weights = [(tmp_path / name / mini.WEIGHTS).read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    lines = (tmp_path / "parts" / METRICS).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_another_run_is_not_resumed(views, tmp_path):
    list(MiniTrainer(read_views(views), tmp_path, TOY).run(until=1))
    with pytest.raises(ValueError, match=r"got another: config\.seed is 0 there, 1 now; give the same settings"):
        next(MiniTrainer(read_views(views), tmp_path, replaced(seed=1)).run())


def test_the_seed_decides(views, tmp_path):
    losses = [
        [record["loss"] for record in MiniTrainer(read_views(views), tmp_path / name, replaced(seed=seed)).run(until=2)]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_building_a_trainer_leaves_the_global_seed_alone(views, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    MiniTrainer(read_views(views), tmp_path, TOY)
    assert torch.equal(torch.rand(1), expected)


def test_an_epoch_shows_every_object_once(views, tmp_path):
    trainer = MiniTrainer(read_views(views), tmp_path, replaced(batch_size=4))
    steps = len(trainer.objects) // 4  # 13 objects: the last one waits for another epoch
    rows = [row for step in range(steps) for row in trainer._rows_of(step)]
    assert len(set(rows)) == len(rows) == 12
    assert rows[:4] != trainer._rows_of(steps)  # the next epoch has another order


def test_only_the_image_tower_moves(views, tmp_path):
    trainer = MiniTrainer(read_views(views), tmp_path, TOY)
    text = {key: value.clone() for key, value in trainer.model.text.state_dict().items()}
    image = {key: value.clone() for key, value in trainer.model.visual.state_dict().items()}
    list(trainer.run(until=2))
    assert all(torch.equal(value, trainer.model.text.state_dict()[key]) for key, value in text.items())
    assert not torch.equal(image["head.proj.weight"], trainer.model.visual.state_dict()["head.proj.weight"])


def test_sizes_and_learning_rates():
    config = MiniConfig(steps=100, warmup=10, small_size=64, image_size=96, small_share=0.7, lr=1.0)
    assert [config.size_at(step) for step in (0, 69, 70, 99)] == [64, 64, 96, 96]
    assert config.lr_at(0) == pytest.approx(0.1) and config.lr_at(9) == config.lr_at(10) == pytest.approx(1)
    assert config.lr_at(99) < 0.001


def test_too_few_objects(views, tmp_path):
    with pytest.raises(ValueError, match="got 64 for 13"):
        MiniTrainer(read_views(views), tmp_path, replaced(batch_size=64))


def test_a_run_writes_tower_curves_and_card(views, tmp_path, monkeypatch):
    about = "coloured squares, CC0."
    told = list(train_mini(views, tmp_path, to_plain(TOY), device="cpu", about=about))
    assert told[-1]["finished"] and told[-1]["card"] == str(tmp_path / mini.CARD)
    records = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert len(records) == 6 and set(records[2]) >= {"step", "loss", "lr", "seconds", "score", "val_unseen"}
    best = max(records[2]["score"], records[5]["score"])
    config = json.loads((tmp_path / mini.CONFIG).read_text())
    assert config["val_score"] == pytest.approx(best, abs=1e-5)
    card = (tmp_path / mini.CARD).read_text()
    assert str(views) not in card and f"--views {views.name}" in card
    assert about in card and "--set steps=6" in card and read_views(views).sha256 in card
    assert "| val | unseen | 2 | 2 |" in card and "| test | all | 1 | 16 |" in card
    monkeypatch.setattr(mini, "FOLDER", tmp_path)
    assert load_teacher("mini", device="cpu").encode_image(tiny.pictures(1)).shape == (1, 384)


def test_the_command_goes_on_with_a_run(views, tmp_path):
    list(MiniTrainer(read_views(views), tmp_path, TOY).run(until=3))
    options = [word for name, value in to_plain(TOY).items() for word in ("--set", f"{name}={value}")]
    command = ["teacher", "train", "--views", str(views), "--out", str(tmp_path), "--device", "cpu", *options]
    result = CliRunner().invoke(app, [*command, "--steps", "6"])
    assert result.exit_code == 0 and f"model card: {tmp_path / mini.CARD}" in result.output
    assert [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    refused = CliRunner().invoke(app, [*command, "--seed", "1"])
    assert refused.exit_code == 2 and "config.seed is 0 there, 1 now" in " ".join(refused.output.split())


def test_the_test_split_waits_for_the_end(views, tmp_path, monkeypatch):
    asked = []
    real = training.evaluate_split
    monkeypatch.setattr(training, "evaluate_split", lambda v, split, *a: asked.append(split) or real(v, split, *a))
    trainer = MiniTrainer(read_views(views), tmp_path, TOY)
    list(trainer.run())
    assert asked == ["val", "val"]
    trainer.finish("command")
    assert asked == ["val", "val", "val", "test", "unseen"]
