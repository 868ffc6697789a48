"""Caption, its score by a teacher, and drawing one per step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipgs_lib.captions.caption import Caption, draw_caption, score_captions

TEXTS = [Caption("a red mug", "filtered"), Caption("a blue mug", "enriched"), Caption("mug_02", "raw", score=0.1)]
AXES = {"a red mug": [2.0, 0.0], "a blue mug": [0.0, 3.0], "mug_02": [1.0, 1.0]}


def encode(texts: list[str]) -> torch.Tensor:
    return torch.tensor([AXES[text] for text in texts])


def test_a_caption_refuses_other_words_and_numbers():
    with pytest.raises(ValueError, match="source must be one of raw, filtered, enriched, got 'made up'"):
        Caption("x", "made up")
    with pytest.raises(ValueError, match="score must be a finite number or None, got nan"):
        Caption("x", "raw", float("nan"))
    with pytest.raises(TypeError, match="text must be a string, got NoneType"):
        Caption(None, "raw")


def test_the_score_is_the_mean_cosine_over_views():
    views = torch.tensor([[5.0, 0.0], [0.0, 0.1], [-1.0, 0.0]])  # cosines with x: 1, 0, -1; with y: 0, 1, 0
    scored = score_captions(TEXTS, views, encode)
    assert [c.score for c in scored] == pytest.approx([0.0, 1 / 3, np.sqrt(0.5) / 3], abs=1e-6)
    assert [(c.text, c.source) for c in scored] == [(c.text, c.source) for c in TEXTS]


def test_scores_stay_in_range_in_half_precision():
    views = torch.full((4, 512), 0.31, dtype=torch.float16)
    (scored,) = score_captions([Caption("x", "raw")], views, lambda texts: views[: len(texts)])
    assert scored.score is not None and 0.999 < scored.score <= 1


def test_nothing_to_score_asks_no_teacher():
    assert score_captions([], torch.ones(1, 2), lambda texts: pytest.fail("was asked")) == []


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (torch.ones(0, 2), r"image_embeds must have shape \[V, D\] with V >= 1, got \[0, 2\]"),
        (torch.ones(2), r"image_embeds must have shape \[V, D\]"),
        (torch.ones(3, 5), r"encode_text must return \[3, 5\] .* got \[3, 2\]; were the views embedded by another"),
        (torch.full((1, 2), torch.nan), "embeddings must be finite"),
    ],
)
def test_unfit_embeddings_are_refused(views, message):
    with pytest.raises(ValueError, match=message):
        score_captions(TEXTS, views, encode)


def frequencies(captions, n=4000):
    rng = np.random.default_rng(0)
    drawn = [draw_caption(captions, rng) for _ in range(n)]
    return {caption: drawn.count(caption) / n for caption in set(captions)}


def test_sources_are_drawn_before_texts():
    many = [*TEXTS, *(Caption(f"text {i}", "enriched") for i in range(9))]
    shares = frequencies(many)
    assert shares[TEXTS[0]] == pytest.approx(1 / 3, abs=0.03)  # the only filtered one
    assert sum(v for c, v in shares.items() if c.source == "enriched") == pytest.approx(1 / 3, abs=0.03)
    assert shares[TEXTS[1]] == pytest.approx(1 / 30, abs=0.015)


def test_equal_seeds_draw_equal_texts():
    one, two = (np.random.default_rng(7) for _ in range(2))
    assert [draw_caption(TEXTS, one) for _ in range(20)] == [draw_caption(TEXTS, two) for _ in range(20)]
