"""Texts of an object: where each came from, how well it fits, and which one a training step sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Source = Literal["raw", "filtered", "enriched"]
SOURCES: tuple[str, ...] = get_args(Source)


@dataclass(frozen=True)
class Caption:
    """One text of an object.

    Args:
        text: any string; only ``filtered`` and ``enriched`` texts are promised to be clean.
        source: ``raw`` as it was found, ``filtered`` after `captions_filter`, ``enriched`` by `captions_enrich`.
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
