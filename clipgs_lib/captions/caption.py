"""Texts of an object: where each came from, how well it fits, and which one a training step sees."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from ..vectors import unit

Source = Literal["raw", "filtered", "enriched"]
SOURCES: tuple[str, ...] = get_args(Source)


@dataclass(frozen=True)
class Caption:
    """One text of an object.

    Args:
        text: any string; only ``filtered`` and ``enriched`` texts are promised to be clean.
        source: ``raw`` as it was found, ``filtered`` after `captions.filtering`, ``enriched`` by `captions.enrich`.
        score: how well it fits the object's views by a teacher, a mean cosine in ``[-1, 1]``; None when not scored.

    Raises:
        ValueError: when the source is another word, or the score is not a finite number.
        TypeError: when the text is no string.
    """

    text: str
    source: Source
    score: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"text must be a string, got {type(self.text).__name__}")
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"score must be a finite number or None, got {self.score}")


def score_captions(
    captions: Sequence[Caption], image_embeds: Tensor, encode_text: Callable[[list[str]], Tensor]
) -> list[Caption]:
    """Score each text by its mean cosine with the views of the object.

    Args:
        captions: texts of one object; may be empty.
        image_embeds: ``[V, D]`` embeddings of its views by the teacher, any non-zero length.
        encode_text: the teacher's text tower, ``T`` strings -> ``[T, D]``.

    Returns:
        The same texts in the same order with ``score`` set, in ``[-1, 1]``.

    Raises:
        ValueError: when there is no view, the embeddings are not finite, or the two towers disagree about D.
    """
    if not captions:
        return []
    if image_embeds.ndim != 2 or len(image_embeds) == 0:
        raise ValueError(f"image_embeds must have shape [V, D] with V >= 1, got {list(image_embeds.shape)}")
    text_embeds = encode_text([caption.text for caption in captions])  # [T, D]
    want = [len(captions), image_embeds.shape[1]]
    if list(text_embeds.shape) != want:
        raise ValueError(
            f"encode_text must return {want} to match the captions and the image embeddings, got "
            f"{list(text_embeds.shape)}; were the views embedded by another teacher?"
        )
    images, texts = unit(image_embeds.detach().cpu()), unit(text_embeds.detach().cpu())
    scores = (texts @ images.T).mean(dim=1)  # [T]
    if not bool(scores.isfinite().all()):
        raise ValueError("embeddings must be finite, got NaN or infinity; does the teacher overflow in half precision?")
    return [replace(c, score=float(s)) for c, s in zip(captions, scores.clamp(-1, 1), strict=True)]


def draw_caption(captions: Sequence[Caption], rng: np.random.Generator) -> Caption:
    """Draw one of an object's texts, at least one, for a training step: first a source, then one of its texts.

    All sources that the object has are drawn alike, as OpenShape does.
    """
    present = sorted({caption.source for caption in captions})
    source = present[int(rng.choice(len(present), p=np.full(len(present), 1 / len(present))))]
    pool = [caption for caption in captions if caption.source == source]
    return pool[int(rng.integers(len(pool)))]
