"""All protocols over sets and encoders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..encoders import Encoder, build_encoder, load_encoder
from ..runtime import resolve_device
from ..settings import to_plain
from ..teachers import Teacher
from .benchmarks import EvaluationWarning, build_pairs, class_list, open_folder
from .evaluation_set import ALL, BAG, EvaluationSet, embed_set, load_set, load_teacher_of
from .protocols import (
    few_shot_protocol,
    pairs_protocol,
    retrieval_protocol,
    targets_of,
    views_protocol,
    zero_shot_protocol,
)
from .results import Results
from .robustness import cost_protocol, robustness_protocol

PROTOCOLS = ("zero-shot", "few-shot", "retrieval", "robustness", "cost")
FURTHER = ("pairs", "views")  # which not everyone asks for
Progress = Callable[[int, int, str], None]  # done, of, what


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is measured, and on what."""

    split: str = "all"  # of the sets: train, val, test, unseen, or all
    classes: str = (
        "labels"  # to choose from: labels (those of the sets), modelnet40, scanobjectnn, objaverse-lvis, FILE
    )
    prompts: tuple[str, ...] = ("{}", "a {}", "a 3d model of a {}")  # texts of a class, averaged
    zero_shot: str = "teacher"  # teacher of the words: that of the sets, by its name for load_teacher here, or none
    queries: int = 15  # few-shot: objects of each class to classify, at most
    episodes: int = 20  # few-shot: of each n-way m-shot task
    draws: int = 5  # few-shot: of the labelled objects of a linear probe
    objects: int = 48  # robustness: at most, since each is embedded some 15 times
    views: int = 4  # robustness: pictures of each changed object, for methods that read views
    timed: int = 12  # cost: objects
    pairs: int = 128  # pairs: of each kind, built once below the work folder, 4 objects a second
    seed: int = 0  # of everything random, bootstraps included
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    precision: str = "auto"  # of encoders: auto, fp32 or bf16

    def __post_init__(self) -> None:
        least = {"queries": 1, "episodes": 2, "draws": 2, "objects": 2, "views": 1, "timed": 2, "pairs": 2, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.prompts or not all("{}" in prompt for prompt in self.prompts):
            raise ValueError(f"prompts must each contain {{}}, got {list(self.prompts)}")


def evaluate(
    encoders: Sequence[str],
    sets: Sequence[str | os.PathLike[str]],
    protocols: Sequence[str] = PROTOCOLS,
    config: EvaluationConfig | None = None,
    *,
    work: str | os.PathLike[str] = "build/evaluation",
    progress: Progress | None = None,
) -> Results:
    """Measure encoders, and beside them the bag of views, on the objects of a split.

    Args:
        encoders: names or folders, as `load_encoder` takes them, of one teacher.
        sets: folders of finished sets of that teacher, or one folder of meshes in the layout of ModelNet40.
        protocols: some of `PROTOCOLS`, and "pairs" (minimal pairs of the catalogue, built on first use) or "views" (by
            the number of views, of methods that read them).
        config: None takes the defaults.
        work: folder for embeddings, which are kept (see `embed_set`), and for sets built of meshes.
        progress: called with what is done of how much, and what it is.

    Raises:
        ShardError: for a set that is broken, or of another teacher.
        EncoderError: for an encoder that cannot be loaded, or of another teacher.
        ValueError: for an unknown protocol, too few objects, a class list that cannot be used, or words that cannot be
            had.
    """
    config, say = config or EvaluationConfig(), progress or (lambda done, of, what: None)
    if unknown := [name for name in protocols if name not in (*PROTOCOLS, *FURTHER)]:
        raise ValueError(f"protocols must be some of {', '.join((*PROTOCOLS, *FURTHER))}, got {', '.join(unknown)}")
    if not encoders or len(set(encoders)) < len(encoders):
        raise ValueError(f"encoders must be one or more, each once, got {list(encoders)}")
    device = resolve_device(config.device)
    info = load_encoder(encoders[0], device).info  # a bag of views has none
    teacher = str(info.get("teacher", {}).get("identity", "mini sha256:")).rpartition(" sha256:")[0]
    folders = [open_folder(one, teacher, work, lambda done, of, _: say(done, of, "objects built")) for one in sets]
    objects = load_set(folders, config.split, lambda done, of: say(done, of, "objects read"))
    known: Any = {"teacher": objects.teacher.identity, "embed_dim": objects.teacher.dim}
    loaded = {name: load_encoder(name, device, **known) for name in encoders}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", EvaluationWarning)
        results = _Run(objects, loaded, config, Path(work), say)(protocols)
    results.notes += dict.fromkeys(str(warning.message) for warning in caught)
    return results


class _Run:
    """Protocols over objects and encoders that are loaded."""

    def __init__(
        self, objects: EvaluationSet, encoders: dict[str, Encoder], config: EvaluationConfig, work: Path, say: Progress
    ) -> None:
        self.objects, self.encoders, self.config, self.work, self.say = objects, encoders, config, work, say
        self.results = Results(self._facts(), seed=config.seed)
        self.results.labels = dict(zip(objects.names, objects.labels, strict=True))
        contents = {shards.manifest["content_sha256"] for shards in objects.shards}
        trained = {name: encoder for name, encoder in encoders.items() if encoder.info.get("data")}  # a bag is not
        sets = {name: encoder.info["data"].get("sets", []) for name, encoder in trained.items()}
        strange = [name for name, rows in sets.items() if not contents & {row.get("content_sha256") for row in rows}]
        if strange:
            self.results.notes.append(f"not trained on any of these sets: {', '.join(strange)}")
        if strange and len(strange) == len(trained):  # then no label is one that training had
            self.objects = replace(objects, trained=frozenset())

    def __call__(self, protocols: Sequence[str]) -> Results:
        """What the protocols measure, in their order."""
        objects, results, config = self.objects, self.results, self.config
        teacher, classes, weights = self._words(protocols)
        methods = dict[str, Tensor]()
        if {"zero-shot", "few-shot", "retrieval"} & set(protocols):
            methods = {BAG: objects.bag()} | {name: self._embed(name) for name in self.encoders}
        if "zero-shot" in protocols and weights is not None:
            zero_shot_protocol(results, objects, methods, classes, weights)
        if "few-shot" in protocols:
            self.say(0, 1, "few-shot episodes")
            counts = {"queries": config.queries, "episodes": config.episodes, "draws": config.draws}
            few_shot_protocol(results, objects, methods, **counts)
        if "retrieval" in protocols:
            retrieval_protocol(results, objects, methods, self._blind())
        anew, drawn = dict(self.encoders), dict[str, Any]()
        if teacher is not None:
            title, _, digest = objects.teacher.identity.rpartition(" sha256:")
            name = title if config.zero_shot == "teacher" else config.zero_shot
            bag = build_encoder("bag-mean", objects.teacher.dim, teacher=name, teacher_sha256=digest)
            anew, drawn = {BAG: bag.to(teacher.device)} | anew, {"size": teacher.preprocess.height}
        if "robustness" in protocols:
            options: Any = {"count": config.objects, "views": config.views} | drawn
            options["progress"] = lambda done, of: self.say(done, of, "changes of splats")
            robustness_protocol(results, objects, anew, classes, weights, **options)
        if "cost" in protocols:
            self.say(0, 1, "time of single objects")
            tower = None if teacher is None else teacher.tower
            cost_protocol(results, objects, anew, tower=tower, count=config.timed, **drawn)
        if "pairs" in protocols:
            pairs = self._minimal_pairs()
            methods = {BAG: pairs.bag()} | {name: self._embed(name, objects=pairs) for name in self.encoders}
            pairs_protocol(results, pairs, methods)
        if "views" in protocols:
            views_protocol(results, objects, self._by_views(), classes, weights)
        return results

    def _minimal_pairs(self) -> EvaluationSet:
        """Minimal pairs of the catalogue, embedded by the sets' teacher."""
        teacher, count, zero_shot = self.objects.teacher, self.config.pairs, self.config.zero_shot
        name = zero_shot if zero_shot not in ("teacher", "none") else teacher.identity.rpartition(" sha256:")[0]
        self.say(0, 1, "minimal pairs")
        pairs = build_pairs(self.work / f"pairs-{count}", count, name)
        pairs.check_teacher(teacher.identity, teacher.dim)
        return load_set((pairs.folder,), "all")

    def _embed(self, name: str, views: slice = ALL, objects: EvaluationSet | None = None) -> Tensor:
        objects = objects or self.objects
        options: Any = {"precision": self.config.precision, "cache": self.work, "views": views}
        options["progress"] = lambda done, of: self.say(done, of, f"objects embedded by {name}")
        sets = zip(objects.shards, objects.keys, strict=True)
        return torch.cat([embed_set(self.encoders[name], shards, keys, **options) for shards, keys in sets])

    def _lookers(self) -> list[str]:
        return [name for name, encoder in self.encoders.items() if encoder.inputs == "views"]

    def _by_views(self) -> dict[int, dict[str, Tensor]]:
        """Embeddings by 1, 2, 4, ... of an object's views, evenly out of them, of methods that read views."""
        if len(lookers := self._lookers()) < len(self.encoders):
            self.results.notes.append("views: only methods that read views have a part")
        least, made = min(map(len, self.objects.images)), dict[int, dict[str, Tensor]]()
        for count in (2**power for power in range(least.bit_length())):
            views = slice(0, count * (least // count), least // count)
            made[count] = {BAG: self.objects.bag(views), **{name: self._embed(name, views) for name in lookers}}
        return made

    def _blind(self) -> dict[str, Tensor | None]:
        """Embeddings without the first view, of methods that read views."""
        lookers = self._lookers()
        rest = slice(1, None)
        if min(map(len, self.objects.images)) > 1:
            return {BAG: self.objects.bag(rest), **{name: self._embed(name, rest) for name in lookers}}
        note = "retrieval: there are objects with one view, so methods that read views have no part in image tasks"
        self.results.notes.append(note)
        return dict.fromkeys([BAG, *lookers])

    def _words(self, protocols: Sequence[str]) -> tuple[Teacher | None, list[str], Tensor | None]:
        """The teacher, the classes and the embeddings of their names, where they are needed and can be had."""
        if self.config.zero_shot == "none" or not {"zero-shot", "robustness", "cost", "views"} & set(protocols):
            if "zero-shot" in protocols:
                self.results.notes.append("zero-shot: left out, as zero_shot=none says")
            return None, [], None
        teacher = load_teacher_of(self.objects.teacher, self.config.zero_shot, resolve_device(self.config.device))
        labels = [row["category"] for shards in self.objects.shards for row in shards.rows]
        classes = class_list(self.config.classes, labels)
        if len(classes) < 2 or not targets_of(self.objects.labels, classes)[0]:
            self.results.notes.append(f"zero-shot: left out, no object has a label among {len(classes)} classes")
            return teacher, [], None
        return teacher, classes, teacher.zero_shot_weights(classes, list(self.config.prompts)).float().cpu()

    def _facts(self) -> dict[str, Any]:
        objects = self.objects
        sets = [
            {"name": one.folder.resolve().name, "content_sha256": one.manifest["content_sha256"], "objects": len(keys)}
            for one, keys in zip(objects.shards, objects.keys, strict=True)
        ]
        methods = {name: {"identity": one.identity, "reads": one.inputs} for name, one in self.encoders.items()}
        return {
            "sets": sets,
            "objects": len(objects),
            "labels": len(set(objects.labels) - {""}),
            "methods": {BAG: {"identity": objects.teacher.identity, "reads": "views"}} | methods,
            "settings": to_plain(self.config),
            "version": __version__,
            "threads": torch.get_num_threads(),
        }
