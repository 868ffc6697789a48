"""The run: data, encoder and checkpoints put together, and the loop that yields metrics."""

from __future__ import annotations

import ctypes
import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..encoders import Encoder, ViewTokens, build_encoder, init_from_point, load_encoder, save_encoder
from ..files import locked, write_text
from ..runtime import resolve_device, resolve_precision
from ..settings import read_file, to_plain
from ..weights import misfits
from .card import write_card
from .checkpoint import (
    FOLDER,
    METRICS,
    Records,
    check_identity,
    last_checkpoint,
    load_checkpoint,
    part,
    prefixed,
    save_checkpoint,
)
from .data import Batch, Objects, Plan, batches
from .distributed import Place, agree, join, wait
from .run_config import TrainConfig
from .step import Learner
from .validate import Validator

CONFIG, EXPORT = "config.json", "encoder"
_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2  # of mallopt(3)


def train(config: TrainConfig) -> Iterator[dict[str, Any]]:
    """Train an encoder on shards, and yield one record per step, for curves that grow while it runs.

    Under ``torchrun`` every process calls this with the same configuration and yields the same losses; only rank 0
    writes. In ``config.out``: ``metrics.jsonl`` (the records), ``checkpoints/``, ``config.json``, and ``encoder/``, the
    best averaged weights as `load_encoder` reads them, with a model card.

    Args:
        config: the run.

    Yields:
        ``step`` (done so far), ``epoch``, ``loss``, ``loss_text``, ``loss_image``, ``lr``, ``grad_norm``,
        ``logit_scale``, ``objects``, ``views``, ``seconds`` (of the whole run),
        ``objects_per_second``, ``share_data``, ``share_encoder``, ``share_loss``, ``share_optimizer`` (of the step's
        time); after a validation ``val_*``, see `Validator.measure`. The first record has step 0 and nothing but a
        validation. The last one has ``finished`` and what the test split gave. Before all of them, while the frozen
        tower of a multi-view encoder reads the views: ``step``, ``read`` and ``of``, in objects.

    Raises:
        ValueError: for settings, data or a checkpoint that do not fit (`ShardError`, `CheckpointError`), and when
            something is no longer finite (`DivergedError`).
        EncoderError: for an encoder that cannot be built or loaded.
        FileExistsError: when ``out`` holds another run and ``resume`` is not set.
        LockedError: when another process trains in ``out``.
    """
    threads = torch.get_num_threads()
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        with join(resolve_device(config.device)) as place:
            if place.device.type == "cpu":
                keep_freed_memory()
            begun, precision = Path(config.out) / CONFIG, config.precision
            if precision == "auto" and config.resume and begun.is_file():
                precision = read_file(begun)["precision"]  # a resumed run goes on as it began
            with _alone(config, place):
                config = replace(config, precision=resolve_precision(precision, place.device))
                yield from Trainer(config, place).run()
    finally:
        torch.set_num_threads(threads)


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks of any size; returns whether there was a glibc to tell.

    By default every large tensor is mapped anew and its pages are cleared by the kernel: on a CPU that is 40 % of the
    time of a training step of clipgs-mini. The process then keeps the most memory that it ever needed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * 1024 * 1024))
    return all(mallopt(name, value) == 1 for name, value in settings)


@contextmanager
def _alone(config: TrainConfig, place: Place) -> Iterator[None]:
    """Hold the run's folder, which one run at a time can; a folder in which nothing came to be goes again."""
    out = Path(config.out)
    if not place.first or (config.resume and not out.is_dir()):  # nothing to resume is said later
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock = out / "lock"
    with locked(lock, "one training may run in a folder"):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):
                out.rmdir()


class Trainer:
    """One process's part of a run; `train` is the usual way in."""

    def __init__(self, config: TrainConfig, place: Place) -> None:
        self.config, self.place, self.out = config, place, Path(config.out)
        self.records = Records(self.out)
        path = last_checkpoint(self.out) if config.resume else None
        used = [name for name in (METRICS, FOLDER, EXPORT) if (self.out / name).exists()]
        if used and not config.resume:
            raise FileExistsError(
                f"--out must be a folder without another run, got {self.out} with {', '.join(used)}; "
                "go on with --resume, or choose another folder"
            )
        self.objects = Objects(config.shards, config.memory_gb)
        encoder = make_encoder(config, self.objects).to(place.device)
        self.objects.read_for(encoder, self.out.parent)
        self.plan = Plan(self.objects, config, place)
        self.identity: dict[str, Any] = {
            "config": config.identity(),
            "encoder": encoder.config.to_dict(),
            "teacher": {"identity": self.objects.teacher.identity, "dim": self.objects.teacher.dim},
            "data": [entry["content_sha256"] for entry in self.objects.facts()],
            "streamed_by": 0 if self.objects.in_memory else place.world,
        }
        agree(json.dumps(self.identity, sort_keys=True), place)
        self.step = 0
        self.progress: dict[str, Any] = {"best": {"step": 0, "score": None, "metrics": {}}, "seconds": 0.0}
        self.learner = Learner(encoder, config, place)
        self.best_weights = self._averaged()
        if path is not None:
            self._resume(path)
        if place.first:
            self.out.mkdir(parents=True, exist_ok=True)
            if config.resume:
                self.records.trim(self.step)
            write_text(self.out / CONFIG, json.dumps(to_plain(config), indent=1) + "\n")
        wait(place)
        self.validator = Validator(self.objects, config, place)

    # ---- the loop --------------------------------------------------------------------------------------------

    def run(self) -> Iterator[dict[str, Any]]:
        """Train from where the run stands to its end, and yield records; see `train`."""
        loader = batches(self.objects, self.plan, self.config, self.step)
        with closing(loader):
            yield from self._read()
            if not self.config.resume:
                record = self._record({"step": 0, "epoch": 0.0} | self._validate())
                self._save()
                yield record
            while self.step < self.config.steps:
                yield self._record(self._one_step(loader))
                if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                    self._save()
            yield self._finish()

    def _read(self) -> Iterator[dict[str, Any]]:
        """Keep all samples from now on, if they fit; a frozen tower that reads their views says how far it is."""
        for number in range(len(self.objects) if self.objects.in_memory else 0):
            if isinstance(self.objects.sample(number).content, ViewTokens) and number % 50 == 0:
                yield {"step": self.step, "read": number, "of": len(self.objects)}

    def _one_step(self, loader: Iterator[Batch]) -> dict[str, Any]:
        start = time.perf_counter()
        batch = next(loader)
        waited = time.perf_counter() - start
        metrics = self.learner.update(batch)
        self.step += 1
        taken = time.perf_counter() - start
        spent = {name[8:]: metrics.pop(name) for name in list(metrics) if name.startswith("seconds_")}
        spent["data"] = waited
        record: dict[str, Any] = {"step": self.step, "epoch": round(self.plan.epoch(self.step), 4), **metrics}
        record |= {f"share_{name}": round(value / taken, 4) for name, value in sorted(spent.items())}
        record["objects_per_second"] = round(metrics["objects"] / taken, 2)
        if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
            record |= self._validate()
        self.progress["seconds"] += time.perf_counter() - start
        return record | {"seconds": round(self.progress["seconds"], 3)}

    def _validate(self) -> dict[str, float]:
        """Metrics of held-out objects; keeps the weights if they are the best so far."""
        split = self.config.val_split
        metrics = {} if split == "none" else self.validator.measure(self.learner.average, split)
        if not metrics:
            if self.step:
                self._keep({}, None)
            return {}
        best = self.progress["best"]["score"]
        if best is None or metrics["score"] > best:
            self._keep(metrics, metrics["score"])
        return _named("val_", metrics)

    def _keep(self, metrics: dict[str, float], score: float | None) -> None:
        self.progress["best"] = {"step": self.step, "score": score, "metrics": metrics}
        self.best_weights = self._averaged()
        self._export({"val": metrics})

    def _finish(self) -> dict[str, Any]:
        """Measure the best weights once on the test split, export them and write the model card."""
        encoder = self.learner.average
        encoder.load_state_dict(self.best_weights)  # the run is over, so those ahead of them are not needed again
        split = self.config.test_split
        test = {} if split == "none" else self.validator.measure(encoder, split)
        best = self.progress["best"]
        info = self._export({"val": best["metrics"]} | ({"test": test} if test else {}))
        if self.place.first:
            write_card(
                self.out / EXPORT,
                config=self.config,
                encoder=encoder,
                info=info,
                records=self.records.read(),
                place=self.place,
                progress=self.progress,
            )
        return {
            "step": self.step,
            "finished": True,
            "best_step": best["step"],
            "encoder": str(self.out / EXPORT),
            **_named("test_", test),
        }

    # ---- files -----------------------------------------------------------------------------------------------

    def _record(self, record: dict[str, Any]) -> dict[str, Any]:
        if self.place.first:
            self.records.append(record)
        return record

    def _export(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Write the best weights, as far as they are known, and return what goes with them."""
        data = {"sets": self.objects.facts(), "step": self.progress["best"]["step"], "seed": self.config.seed}
        info = {"teacher": self.identity["teacher"], "data": data, "metrics": metrics}
        if self.place.first:
            save_encoder(self.out / EXPORT, self.learner.average, info, half=True, state=self.best_weights)
        return info

    def _averaged(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.learner.average.state_dict().items()}

    def _save(self) -> None:
        if self.place.first:
            tensors = self.learner.tensors() | prefixed("best", self.best_weights)
            state = {"identity": self.identity, "progress": self.progress}
            save_checkpoint(self.out, self.step, tensors, state, keep=self.config.keep)
        wait(self.place)

    def _resume(self, path: Path) -> None:
        tensors, state = load_checkpoint(path)
        check_identity(path, state["identity"], self.identity)
        self.learner.load(tensors)
        self.step, self.progress = int(state["step"]), state["progress"]
        if self.config.steps < self.step:
            raise ValueError(f"steps must be at least the {self.step} that are done, got {self.config.steps}")
        self.best_weights = {name: value.to(self.place.device) for name, value in part("best", tensors).items()}


def _named(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of a split for a record, without their intervals."""
    return {prefix + name: round(value, 5) for name, value in metrics.items() if not name.startswith(("low_", "high_"))}


def make_encoder(config: TrainConfig, objects: Objects) -> Encoder:
    """A new encoder in the space of the sets' teacher, with weights drawn from the seed or taken from ``config.init``.

    EncoderError when it cannot be built; ValueError when the weights to start from belong to another teacher.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        options = {n: tuple(v) if isinstance(v, list) else v for n, v in config.encoder_options.items()}
        encoder = build_encoder(config.encoder, embed_dim=objects.teacher.dim, **options)
    if not any(value.requires_grad for value in encoder.parameters()):
        measure = f"measure it with clipgs evaluate SET --encoder {config.encoder}"
        raise ValueError(f"--encoder must have weights to train, got {config.encoder}, which has none; {measure}")
    seen = getattr(encoder.config, "teacher_sha256", None)
    if seen is not None and not objects.teacher.identity.endswith(f" sha256:{seen}"):
        raise ValueError(
            f"--encoder must read views through the tower of the shards' teacher {objects.teacher}, got "
            f"{config.encoder} with sha256:{seen}; name it with --set encoder_options.teacher=NAME, or embed them anew"
        )
    if config.init == "none":
        return encoder
    start = load_encoder(config.init)
    teacher = start.info.get("teacher", {})
    if teacher.get("identity") != objects.teacher.identity or start.embed_dim != objects.teacher.dim:
        raise ValueError(
            f"--init must be an encoder of the shards' teacher {objects.teacher}, got {config.init} of "
            f"{teacher.get('identity')!r} (D = {start.embed_dim}); start from another, or build shards with that one"
        )
    if misfits(start.state_dict(), encoder.state_dict()):  # of points, for an encoder of all attributes
        init_from_point(encoder, start)
    else:
        encoder.load_state_dict(start.state_dict())
    return encoder
