"""Held-out objects: zero-shot classification by category, retrieval from splats to pictures and texts to splats.

The teacher is needed once, for the words of the categories; it reads no picture here. Beside the encoder stands the bag
of views: the mean of the teacher's own embeddings of an object's pictures, which needs no encoder at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..encoders import BagOfViews, Encoder, pool_views
from ..evaluation import Ranked, retrieval, zero_shot
from ..evaluation.evaluation_set import CHUNK, class_weights
from ..runtime import mixed_precision
from ..vectors import unit
from .data import Objects, Sample
from .distributed import Place, gather, share, shares
from .run_config import TrainConfig


class Validator:
    """Measures an encoder on the objects of a split, which ranks share; ValueError when class weights cannot be had."""

    def __init__(self, objects: Objects, config: TrainConfig, place: Place) -> None:
        self.objects, self.config, self.place = objects, config, place
        self.labels = objects.categories()
        self.weights: Tensor | None = None
        if config.zero_shot != "none" and len(self.labels) > 1:
            words = (self.labels, config.prompts, config.zero_shot, str(place.device))
            self.weights = class_weights(objects.teacher, *words)

    def measure(self, encoder: Encoder, split: str) -> dict[str, float]:
        """Metrics of one split, by names without its name; empty when it has fewer than 2 objects.

        Args:
            encoder: in any mode.
            split: which objects; "all" for those of every split.

        Returns:
            ``zero_shot_top1``, ``..3``, ``..5`` over all categories of the sets; ``image_r1``, ``..5``, ``..10``: a
            splat finds the mean of its own views (trivial for encoders that read these, and left out);
            ``text_r1``, ...: a text finds a splat that has it; ``score``: the mean of the first of each; ``views_*``:
            the same for the bag of views; ``chance_*``; ``low_*`` and ``high_*``: 95 % intervals; ``objects``. All
            shares in ``[0, 1]``.

        Raises:
            ValueError: when there is nothing to measure.
        """
        numbers = self.objects.numbers(split)
        if len(numbers) < 2:
            return {}
        shapes, samples = self._embed(encoder, numbers)
        views = torch.stack([pool_views(sample.image_embeds) for sample in samples])  # [N, D]
        metrics = self._against_words(shapes, samples) | self._by_text(shapes, samples)
        if encoder.inputs != "views":  # else it would look for what it was shown
            metrics |= _scores("image_r", retrieval(shapes, views, torch.arange(len(shapes))))
        firsts = [metrics[key] for key in ("zero_shot_top1", "image_r1", "text_r1") if key in metrics]
        bag = self._against_words(views, samples) | self._by_text(views, samples)
        metrics |= {f"views_{key}": value for key, value in bag.items() if key.startswith(("zero", "text"))}
        if not firsts:
            raise ValueError("a split must have texts or words to be measured by, got none; set val_split=none")
        return metrics | {"objects": len(numbers), "score": sum(firsts) / len(firsts)}

    def _embed(self, encoder: Encoder, numbers: Sequence[int]) -> tuple[Tensor, list[Sample]]:
        mine = numbers[share(len(numbers), self.place)]
        device = self.place.device
        parts = [torch.empty(0, encoder.embed_dim, device=device)]
        with mixed_precision(self.config.precision, device):
            for start in range(0, len(mine), CHUNK):
                chunk = [self.objects.sample(number) for number in mine[start : start + CHUNK]]
                given = isinstance(encoder, BagOfViews)  # what it makes of views lies in the set
                parts.append(encoder.encode([one.image_embeds if given else one.content for one in chunk]))
        shapes = gather(torch.cat(parts), shares(len(numbers), self.place.world)).cpu()
        return shapes, [self.objects.sample(number) for number in numbers]

    def _against_words(self, embeds: Tensor, samples: Sequence[Sample]) -> dict[str, float]:
        known = [row for row, sample in enumerate(samples) if sample.category]
        if self.weights is None or not known:
            return {}
        target = torch.tensor([self.labels.index(samples[row].category) for row in known])
        return _scores("zero_shot_top", zero_shot(embeds[known], self.weights, target))

    def _by_text(self, embeds: Tensor, samples: Sequence[Sample]) -> dict[str, float]:
        """Scores of the texts, each looking for the objects that have it."""
        rows: dict[int, list[int]] = {}  # objects that have a text
        texts: dict[int, Tensor] = {}
        for place, sample in enumerate(samples):
            for identity, row in zip(sample.text_ids, sample.text_embeds, strict=True):
                rows.setdefault(identity, []).append(place)
                texts[identity] = row
        if not texts:
            return {}
        relevant = torch.zeros(len(texts), len(samples), dtype=torch.bool)  # [Q, N]
        for query, objects in enumerate(rows.values()):
            relevant[query, objects] = True
        return _scores("text_r", retrieval(unit(torch.stack(list(texts.values()))), embeds, relevant))


def _scores(prefix: str, result: Ranked) -> dict[str, float]:
    """Scores by name, with ``low_``, ``high_`` (95 % interval) and ``chance_`` before it."""
    named: dict[str, float] = {}
    for k, score, chance in zip(result.ks, result.values, result.chance, strict=True):
        name = f"{prefix}{k}"
        named |= {name: score.value, f"low_{name}": score.low, f"high_{name}": score.high, f"chance_{name}": chance}
    return named
