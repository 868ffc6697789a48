"""The bag of views: stored embeddings and pictures give the same; what it is beside loops; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import clipgs_lib as cg
from clipgs_lib.encoders import (
    EncoderError,
    build_encoder,
    duoduo,
    encoder_config,
    load_encoder,
    pool_views,
    save_encoder,
)
from clipgs_lib.teachers import load_teacher


@pytest.fixture(scope="module")
def views():
    """Three objects of 1 to 3 pictures, and mini's embeddings of them as a set stores them."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (count, 40, 40, 3)).astype(np.uint8) for count in (2, 1, 3)]
    teacher = load_teacher("mini", device="cpu")
    return pictures, [teacher.encode_image(some).half().numpy() for some in pictures]


def test_mean_and_maximum_beside_loops():
    rows = torch.tensor([[3.0, 4.0, 0.0], [0.0, -2.0, 0.0]])
    mean = [(0.6 + 0) / 2, (0.8 - 1) / 2, 0.0]
    torch.testing.assert_close(pool_views(rows), torch.nn.functional.normalize(torch.tensor(mean), dim=0))
    top = torch.nn.functional.normalize(torch.tensor([0.6, 0.8, 0.0]), dim=0)
    torch.testing.assert_close(pool_views(rows, "max"), top)
    torch.testing.assert_close(pool_views(rows[:1], "max"), pool_views(rows[:1]))


@pytest.mark.parametrize("name", ["bag-mean", "bag-max"])
def test_pictures_and_stored_embeddings_give_the_same(views, name):
    pictures, stored = views
    encoder = build_encoder(name)
    assert encoder.inputs == "views" and sum(value.numel() for value in encoder.parameters()) == 0
    embeds = encoder.encode(stored)
    assert embeds.shape == (3, 384) and encoder._teacher is None  # nobody asked for it
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(encoder.encode(pictures), embeds, atol=2e-3, rtol=0)
    torch.testing.assert_close(encoder.encode([stored[0], pictures[1], stored[2]]), embeds, atol=2e-3, rtol=0)
    torch.testing.assert_close(encoder.encode(list(pictures[2])), embeds[2:], atol=2e-3, rtol=0)  # pictures of one
    expected = torch.stack([pool_views(torch.from_numpy(some), name[4:]) for some in stored])
    torch.testing.assert_close(embeds, expected, atol=1e-6, rtol=0)
    flipped = [some[::-1].copy() for some in stored]
    torch.testing.assert_close(encoder.encode(flipped, batch_size=1), embeds, atol=1e-6, rtol=0)
    assert encoder.encode(stored[0]).shape == (1, 384) and encoder.encode([stored[1]]).shape == (1, 384)


def test_it_is_loaded_by_name_for_any_teacher_and_from_a_folder(views, tmp_path):
    stored = views[1]
    mean = cg.load_encoder("bag-mean")
    assert mean.config == encoder_config("bag-mean") and not mean.training
    loaded = load_encoder(save_encoder(tmp_path, mean))
    assert torch.equal(loaded.encode(stored), mean.encode(stored)) and loaded.identity == mean.identity
    other = load_encoder("bag-max", teacher="ViT-X/tag sha256:ab12", embed_dim=6)
    assert (other.config.teacher, other.config.teacher_sha256, other.embed_dim) == ("ViT-X/tag", "ab12", 6)
    assert other.info["teacher"] == {"identity": "ViT-X/tag sha256:ab12", "dim": 6}
    assert other.encode(torch.eye(6)).shape == (1, 6) and other.identity != load_encoder("bag-max").identity


def test_the_teacher_is_loaded_once_and_only_for_pictures(views, monkeypatch):
    pictures, _ = views
    calls = []
    monkeypatch.setattr(duoduo, "load_teacher", lambda *a, **k: calls.append(a) or load_teacher(*a, **k))
    encoder = build_encoder("bag-mean")
    first = encoder.encode(pictures, batch_size=1)
    assert torch.equal(encoder.encode(pictures, batch_size=2), first) and calls == [("mini",)]


def test_bad_views_are_refused_with_a_sentence(views):
    pictures, stored = views
    encoder = build_encoder("bag-mean")
    with pytest.raises(ValueError, match="at least one view, got none for object 1; leave it out"):
        encoder.encode([stored[0], stored[0][:0]])
    with pytest.raises(ValueError, match=r"must be finite \[V, 384\] of mini, got \[2, 7\]"):
        encoder.encode(np.ones((2, 7)))
    with pytest.raises(ValueError, match="got some that are not finite"):
        encoder.encode(np.full((2, 384), np.nan))
    with pytest.raises(ValueError, match="of one size, got 32 x 32, 40 x 40 pixels"):
        encoder.encode([pictures[0][0], np.zeros((32, 32, 3), np.uint8)])
    with pytest.raises(EncoderError, match=r"needs the teacher 'mini' with sha256 00\.\.\., got Teacher"):
        build_encoder("bag-mean", teacher_sha256="00").encode(pictures)
    with pytest.raises(EncoderError, match="bag-mean needs the teacher 'nobody', got"):
        build_encoder("bag-mean", teacher="nobody").encode(pictures)
    with pytest.raises(EncoderError, match="pool must be mean or max, got 'median'"):
        build_encoder("bag-mean", pool="median")
