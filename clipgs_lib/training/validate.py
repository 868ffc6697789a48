"""Held-out objects: zero-shot classification by category, retrieval from splats to pictures and texts to splats.

The teacher is needed once, for the words of the categories; it reads no picture here. Beside the encoder stands the bag
of views: the mean of the teacher's own embeddings of an object's pictures, which needs no encoder at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from ..encoders import Encoder
from ..evaluation import Recalls, TopK, retrieval, zero_shot
from ..files import replacing
from ..runtime import mixed_precision
from ..shards import TeacherInfo
from ..teachers import TeacherError, load_teacher
from ..vectors import unit
from .config import TrainConfig
from .data import Objects, Sample
from .distributed import Place, gather, share, shares

CLASSES = "class_weights.safetensors"
_CHUNK = 64  # objects decoded at a time


class Validator:
    """Measures an encoder on the objects of a split.

    Args:
        objects: all sets.
        config: the run.
        place: this process; ranks share the objects.
        out: the run's folder, where class weights are kept.

    Raises:
        ValueError: when class weights cannot be had.
    """

    def __init__(self, objects: Objects, config: TrainConfig, place: Place, out: Path) -> None:
        self.objects, self.config, self.place = objects, config, place
        self.labels = objects.categories()
        self.weights: Tensor | None = None
        if config.zero_shot != "none" and len(self.labels) > 1:
            self.weights = self._class_weights(out / CLASSES)

    def measure(self, encoder: Encoder, split: str) -> dict[str, float]:
        """Metrics of one split, by names without its name; empty when it has fewer than 2 objects.

        Args:
            encoder: in any mode.
            split: which objects.

        Returns:
            ``zero_shot_top1``, ``..3``, ``..5`` over all categories of the sets; ``image_r1``, ``..5``, ``..10``: a
            splat finds the mean of its own views; ``text_r1``, ...: a text finds a splat that has it; ``score``: the
            mean of the first of each; ``views_*``: the same for the bag of views; ``chance_*``; ``low_*`` and
            ``high_*``: 95 % intervals; ``objects``. All shares in ``[0, 1]``.
        """
        numbers = self.objects.numbers(split)
        if len(numbers) < 2:
            return {}
        shapes, samples = self._embed(encoder, numbers)
        views = torch.stack([unit(unit(sample.image_embeds).mean(dim=0)) for sample in samples])  # [N, D]
        metrics = self._against_words(shapes, samples) | self._retrieve(shapes, views, samples, pictures=True)
        firsts = [metrics[key] for key in ("zero_shot_top1", "image_r1", "text_r1") if key in metrics]
        bag = self._against_words(views, samples) | self._retrieve(views, views, samples, pictures=False)
        metrics |= {f"views_{key}": value for key, value in bag.items() if key.startswith(("zero", "text"))}
        return metrics | {"objects": len(numbers), "score": sum(firsts) / len(firsts)}

    def _embed(self, encoder: Encoder, numbers: Sequence[int]) -> tuple[Tensor, list[Sample]]:
        mine = numbers[share(len(numbers), self.place)]
        device = self.place.device
        parts = [torch.empty(0, encoder.embed_dim, device=device)]
        with mixed_precision(self.config.precision, device):
            for start in range(0, len(mine), _CHUNK):
                chunk = [self.objects.sample(number).splats for number in mine[start : start + _CHUNK]]
                parts.append(encoder.encode(chunk))
        shapes = gather(torch.cat(parts), shares(len(numbers), self.place.world)).cpu()
        return shapes, [self.objects.sample(number) for number in numbers]

    def _against_words(self, embeds: Tensor, samples: Sequence[Sample]) -> dict[str, float]:
        known = [row for row, sample in enumerate(samples) if sample.triplet.category]
        if self.weights is None or not known:
            return {}
        target = torch.tensor([self.labels.index(samples[row].triplet.category) for row in known])
        return _scores("zero_shot_top", zero_shot(embeds[known], self.weights, target))

    def _retrieve(self, embeds: Tensor, views: Tensor, samples: Sequence[Sample], pictures: bool) -> dict[str, float]:
        metrics = {}
        if pictures:
            metrics = _scores("image_r", retrieval(embeds, views, torch.arange(len(embeds))))
        rows: dict[int, list[int]] = {}  # objects that have a text
        texts: dict[int, Tensor] = {}
        for place, sample in enumerate(samples):
            for identity, embed in self._texts(sample):
                rows.setdefault(identity, []).append(place)
                texts[identity] = embed
        relevant = torch.zeros(len(texts), len(samples), dtype=torch.bool)  # [Q, N]
        for query, objects in enumerate(rows.values()):
            relevant[query, objects] = True
        if texts:
            metrics |= _scores("text_r", retrieval(torch.stack(list(texts.values())), embeds, relevant))
        return metrics

    def _texts(self, sample: Sample) -> list[tuple[int, Tensor]]:
        """Id and embedding of each text that training may draw."""
        weights, captions = self.config.text_sources, sample.triplet.texts
        return [
            (identity, unit(row))
            for identity, caption, row in zip(sample.text_ids, captions, sample.text_embeds, strict=True)
            if weights is None or weights.get(caption.source, 0) > 0
        ]

    def _class_weights(self, kept: Path) -> Tensor:
        teacher = self.objects.teacher
        given = Path(self.config.zero_shot)
        if self.config.zero_shot != "teacher":
            return read_class_weights(given, self.labels, teacher)
        if kept.is_file():
            return read_class_weights(kept, self.labels, teacher)
        weights = teach_class_weights(self.labels, teacher, self.config.prompts, self.place.device)
        if self.place.first:
            write_class_weights(kept, weights, self.labels, teacher)
        return weights


def _scores(prefix: str, result: Recalls | TopK) -> dict[str, float]:
    """Scores by name, with ``low_``, ``high_`` (95 % interval) and ``chance_`` before it."""
    scores = result.recalls if isinstance(result, Recalls) else result.tops
    named: dict[str, float] = {}
    for k, score, chance in zip(result.ks, scores, result.chance, strict=True):
        name = f"{prefix}{k}"
        named |= {name: score.value, f"low_{name}": score.low, f"high_{name}": score.high, f"chance_{name}": chance}
    return named


def teach_class_weights(
    labels: Sequence[str], teacher: TeacherInfo, prompts: Sequence[str], device: torch.device
) -> Tensor:
    """Embed category names with the teacher that a set names.

    Args:
        labels: C names.
        teacher: of the set; the part of its identity before the hash is what `load_teacher` takes.
        prompts: texts with ``{}`` for the name.
        device: where it runs.

    Returns:
        ``[C, D]`` float32 unit rows, on the CPU.

    Raises:
        ValueError: when the teacher cannot be had here, or is another than the set's.
    """
    name = teacher.identity.rpartition(" sha256:")[0]
    way = "give class weights of that teacher with zero_shot=FILE.safetensors, or zero_shot=none"
    try:
        loaded = load_teacher(name, device=device)
    except (TeacherError, ValueError) as error:
        raise ValueError(f"zero-shot needs the shards' teacher {name!r}, got: {error}; {way}") from error
    if loaded.identity != teacher.identity:
        raise ValueError(
            f"the teacher must be the shards' {teacher.identity}, got {loaded.identity}; build them again, or {way}"
        )
    return loaded.zero_shot_weights(list(labels), list(prompts)).float().cpu()


def write_class_weights(path: Path, weights: Tensor, labels: Sequence[str], teacher: TeacherInfo) -> None:
    """Keep class weights ``[C, D]`` with their names and teacher in one file."""
    metadata = {"labels": json.dumps(list(labels)), "teacher": teacher.identity}
    with replacing(path) as draft:
        draft.write_bytes(save({"weights": weights.contiguous()}, metadata=metadata))


def read_class_weights(path: Path, labels: Sequence[str], teacher: TeacherInfo) -> Tensor:
    """Class weights ``[C, D]`` in the order of ``labels``.

    Raises:
        ValueError: when the file is none, is of another teacher, or lacks a label.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            weights, names = file.get_tensor("weights").float(), json.loads(metadata.get("labels", "[]"))
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} must be class weights as safetensors, got: {str(error)[:200]}") from None
    if metadata.get("teacher") != teacher.identity or weights.shape != (len(names), teacher.dim):
        got = f"{list(weights.shape)} of {metadata.get('teacher')}"
        raise ValueError(f"{path} must hold [C, {teacher.dim}] of {teacher.identity}, got {got}; make it anew")
    missing = sorted(set(labels) - set(names))
    if missing:
        raise ValueError(f"{path} must name every category, got none for {', '.join(missing[:5])}; make it anew")
    return unit(weights[[names.index(label) for label in labels]])
