"""Settings: strict, complete, and back from JSON."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from clipgs_lib.settings import from_plain, to_plain
from clipgs_lib.training import TrainConfig
from clipgs_lib.training.card import command_of
from clipgs_lib.training.run_config import lr_at

PLAIN = {"shards": ["a"], "out": "b"}


def test_json_and_back():
    config = from_plain(
        TrainConfig, PLAIN | {"augment": {"drop": 0.1}, "encoder_options": {"depth": 1}, "betas": [0.8, 0.9]}
    )
    assert from_plain(TrainConfig, json.loads(json.dumps(to_plain(config)))) == config
    assert config.augment.drop == 0.1 and config.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 3}, "unknown batch"),
        ({"augment": {"drip": 1}}, "unknown augment.drip"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"batch_size": "many"}, "batch_size must be a whole number, got 'many'"),
        ({"batch_size": 2.5}, "whole number"),
        ({"weighting": "loud"}, "weighting must be one of cosine, softmax"),
        ({"compile": 1}, "compile must be true or false"),
        ({"lr": float("nan")}, "lr must be finite"),
        ({"betas": [0.9]}, "list of 2"),
        ({"prompts": ["a thing"]}, "prompts must each contain"),
        ({"loss": "voting"}, "loss must be one of clip_gs, contrastive_3d"),
        ({"layer_decay": 0}, "layer_decay"),
        ({"shards": []}, "shards must name"),
    ],
)
def test_what_does_not_hold_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        from_plain(TrainConfig, PLAIN | change)


def test_missing_settings_are_named():
    with pytest.raises(ValueError, match="must include out"):
        from_plain(TrainConfig, {"shards": ["a"]})


def test_warm_up_and_cosine():
    rates = [lr_at(step, steps=100, warmup=10, peak=1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) == rates[10]
    assert rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_the_command_of_the_card_holds_every_departure_and_no_folder_of_this_machine():
    config = from_plain(
        TrainConfig,
        {"shards": ["/here/one", "/here/two"], "out": "/there/run", "augment": {"drop": 0.1}, "lr": 0.002, "steps": 7},
    )
    command = command_of(config)
    assert "/here" not in command and "/there" not in command
    assert "--shards one" in command and "--set augment.drop=0.1" in command and "--set lr=0.002" in command
    assert "--set steps=7" in command and "weight_decay" not in command
    started = from_plain(TrainConfig, PLAIN | {"init": "/here/point/encoder"})
    assert "--init encoder" in command_of(started) and "/here" not in json.dumps(started.identity())
