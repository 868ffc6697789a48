"""Augmentation and views, each against something slower or simpler."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.training.augment import PictureAugment, augment_pictures
from clipgs_lib.training.mini_views import read_views
from tests.teachers import tiny

STILL = PictureAugment((1, 1), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)


def views(count: int = 8) -> torch.Tensor:
    made = torch.zeros(count, 4, 32, 32)
    made[:, 0, 8:24, 8:24] = 1  # a red square
    made[:, 3, 8:24, 8:24] = 1
    return made


def test_still_augmentation_is_white_behind_the_view():
    made = augment_pictures(views(2), 32, STILL, torch.Generator().manual_seed(0))
    expected = torch.ones(2, 3, 32, 32)
    expected[:, 1:, 8:24, 8:24] = 0
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_augmentation_is_of_the_seed_and_in_range():
    one, two, other = (
        augment_pictures(views(), 24, PictureAugment(), torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert one.shape == (8, 3, 24, 24) and torch.equal(one, two) and not torch.equal(one, other)
    assert float(one.min()) >= 0 and float(one.max()) <= 1


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({"scale": (0.5, 0.5)}, False),
        ({"shift": 0.3}, False),
        ({"turn": 30.0}, False),
        ({"white": 0.0}, False),
        ({"brightness": 0.5}, False),
        ({"contrast": 0.5}, False),
        ({"saturation": 0.5}, False),
        ({"hue": 0.3}, False),
        ({"gray": 1.0}, False),
        ({"blur": 1.0}, False),
        ({"mirror": 1.0}, True),  # the square is its own mirror image
    ],
)
def test_each_change_changes(changes, keeps):
    plain = augment_pictures(views(), 32, STILL, torch.Generator().manual_seed(0))
    changed = augment_pictures(
        views(), 32, PictureAugment(**{**STILL.__dict__, **changes}), torch.Generator().manual_seed(0)
    )
    assert torch.allclose(plain, changed, atol=1e-4) is keeps


def test_scale_and_mirror_do_what_they_say():
    half = augment_pictures(views(1), 32, PictureAugment(**{**STILL.__dict__, "scale": (0.5, 0.5)}), torch.Generator())
    assert float((half[0, 1] < 0.5).float().mean()) == pytest.approx(0.25 * 0.25, rel=0.1)
    left = views(1).clone()
    left[..., 16:] = 0
    config = PictureAugment(**{**STILL.__dict__, "mirror": 1.0})
    made = augment_pictures(left, 32, config, torch.Generator().manual_seed(0))
    assert torch.all(made[0, 1, 10:22, 18:22] < 0.01) and torch.all(made[0, 1, 10:22, 10:14] > 0.99)


def test_full_hue_turn_is_the_identity():
    from clipgs_lib.training.augment import _hue_turns

    turns = _hue_turns(50, 0.5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(turns @ torch.ones(3), torch.ones(50, 3))  # gray stays gray
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(50))


def test_views_are_read(tmp_path):
    made = read_views(tiny.save_views(tmp_path, {"apple": "val"}))
    assert len(made.split("train")) == 15 and "apple" not in {obj.label for obj in made.split("train")}
    assert made.read("boat_0.png", 32).shape == (32, 32, 4)
    assert made.read("boat_0.png", 16).shape == (16, 16, 4)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "opaque.png")
    assert (made.read("opaque.png", 32)[..., 3] == 255).all()
    Image.new("L", (4000, 8)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match="at most 2048"):
        made.read("wide.png", 32)


GOOD = {"object": "a", "label": "cup", "texts": ["a cup"], "split": "train", "files": ["a.png"]}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([GOOD | {"files": ["../a.png"]}], "inside the folder"),
        ([GOOD | {"files": ["/a.png"]}], "inside the folder"),
        ([GOOD | {"files": []}], "at least one file"),
        ([GOOD | {"texts": [" "]}], "non-empty texts"),
        ([GOOD | {"split": "dev"}], "got 'dev'"),
        ([GOOD, GOOD], "twice"),
        ([GOOD | {"group": "g"}, GOOD | {"object": "b", "group": "g", "split": "test"}], "share a split"),
        ([{"object": "a"}], "line 1 must hold"),
        (["text"], "line 1 must hold"),
    ],
)
def test_bad_view_lists(tmp_path, rows, words):
    (tmp_path / "views.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=words):
        read_views(tmp_path)


def test_no_view_list(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"views\.jsonl"):
        read_views(tmp_path)


def test_straight_alpha_survives_resizing(tmp_path):
    """Shrinking must not mix in the colour hidden under transparent pixels."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :13] = (255, 0, 0, 255)
    tiny.save_views(tmp_path)
    Image.fromarray(pixels).save(tmp_path / "half.png")
    made = read_views(tmp_path).read("half.png", 8)
    assert (made[made[..., 3] > 0][:, 0] >= 250).all()
