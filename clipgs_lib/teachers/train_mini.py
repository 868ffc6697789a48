"""Train the image tower of `mini` against its locked text tower (LiT): ``python -m clipgs_lib.teachers.train_mini``.

A step is a function of the seed and its number alone, so a run that was stopped goes on exactly where it was.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..files import replacing
from ..runtime import mixed_precision
from . import mini
from .augment import AugmentConfig, augment
from .contrastive import masked_contrastive
from .mini_report import Facts, evaluate_split, label_weights, write_card
from .preprocess import Preprocess
from .views import ViewedObject, ViewSet, read_views

CURVES, CHECKPOINT = "curves.jsonl", "checkpoint.pt"


@dataclass(frozen=True)
class TrainConfig:
    """One run; with the views it decides every number of it."""

    steps: int = 1000  # optimiser steps
    batch_size: int = 64  # objects per step, one view each
    lr: float = 1e-3  # peak learning rate, warmed up linearly, then cosine to 0
    weight_decay: float = 0.05  # of AdamW, on matrices and kernels only
    warmup: int = 50  # steps
    image_tower: str = "resnet18"  # timm model
    image_size: int = 64  # pixels, of the finished tower
    small_size: int = 64  # pixels in the first part of the run, which is cheaper
    small_share: float = 0.7  # of the run at small_size; 600 steps at a small rate were too few to get used to 96 px
    read_size: int = 128  # pixels at which views are read before they are changed
    validate_every: int = 100  # steps; the best of these is kept
    val_views: int = 4  # views averaged per object when validating
    label_share: float = 0.6  # of texts that say only the label, by `mini.PROMPTS`; the rest are the object's own
    precision: str = "auto"  # arithmetic of the image tower: fp32, bf16, auto (bf16 where the hardware has it)
    seed: int = 0

    def size_at(self, step: int) -> int:
        """Picture size of a step, pixels."""
        return self.small_size if step < self.small_share * self.steps else self.image_size

    def lr_at(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * 0.5 * (1 + float(np.cos(np.pi * done)))


class Trainer:
    """A run over one folder of views, with its output in another.

    Args:
        views: what to train on.
        out: folder for the tower, ``curves.jsonl``, the checkpoint and the model card.
        config: the run.
        device: where the towers are.

    Raises:
        ValueError: when there are fewer training objects than a batch holds.
    """

    def __init__(
        self,
        views: ViewSet,
        out: Path,
        config: TrainConfig,
        device: str = "cpu",
        augmentation: AugmentConfig | None = None,
    ) -> None:
        self.views, self.out, self.config, self.device = views, out, config, torch.device(device)
        self.augmentation = augmentation or AugmentConfig()
        self.objects = views.split("train")
        if len(self.objects) < config.batch_size:
            raise ValueError(
                f"batch_size must be at most the number of training objects, got {config.batch_size} for "
                f"{len(self.objects)}; lower --batch-size"
            )
        self.mini_config = mini.default_config(config.image_tower, config.image_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model: Any = mini.build_model(self.mini_config).to(self.device)
        self.model.visual.to(memory_format=torch.channels_last)
        self.model.eval()
        self.tokenizer = mini.build_tokenizer(self.mini_config)
        self.preprocess = Preprocess.from_config(self.model.visual.preprocess_cfg)
        self.optimizer = _optimizer(self.model, config)
        self.texts = _TextBank(self.objects, self.model, self.tokenizer, self.device, config.label_share)
        self.words = label_weights(views, self.model, self.tokenizer)
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        # views, kept once decoded, in one block: thousands of small ones among large temporaries would tear the heap
        self._place = {file: i for i, file in enumerate(file for obj in self.objects for file in obj.files)}
        self._views = np.empty((len(self._place), config.read_size, config.read_size, 4), np.uint8)  # filled as read
        self._known = np.zeros(len(self._place), bool)

    def run(self, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Train, from where the folder's checkpoint stopped, and yield each record of ``curves.jsonl``.

        Args:
            until: stop (resumably) after this step; by default the run goes to its end.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        last = self.config.steps if until is None else min(until, self.config.steps)
        while self.step < last:
            start = time.perf_counter()
            loss = self._train_step()
            self.step += 1
            record: dict[str, Any] = {"step": self.step, "loss": round(loss, 5), "lr": self.config.lr_at(self.step - 1)}
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                record |= self._validate()
            self.seconds += time.perf_counter() - start
            record["seconds"] = round(self.seconds, 2)
            with (self.out / CURVES).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if "score" in record or self.step == last:
                self._save()
            yield record

    def _train_step(self) -> float:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr_at(self.step)
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        rows = self._rows_of(self.step)
        pictures = self._pictures(rows, rng)
        labels = self.texts.labels[rows].to(self.device)
        texts, bank, specific = self.texts.draw(rows, rng)
        self.model.visual.train()
        with mixed_precision(config.precision, self.device):
            features = self.model.visual(pictures)
        features = F.normalize(features.float(), dim=-1)  # [B, D]
        scale = self.model.logit_scale.exp()
        loss = masked_contrastive(features, texts, labels, scale, bank, self.texts.bank_labels, specific)
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss must stay finite, got {float(loss)} at step {self.step}; lower --lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.visual.parameters(), 5.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, float(np.log(100)))
        self.model.visual.eval()
        return float(loss.detach())

    def _rows_of(self, step: int) -> list[int]:
        """Training objects of a step: each epoch is a permutation of its own, cut into whole batches."""
        size, count = self.config.batch_size, len(self.objects)
        epoch, place = divmod(step, count // size)
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + 500_009 * (epoch + 1))
        return torch.randperm(count, generator=rng)[place * size : (place + 1) * size].tolist()

    def _pictures(self, rows: Sequence[int], rng: torch.Generator) -> torch.Tensor:
        drawn = torch.rand(len(rows), generator=rng).tolist()
        files = [self.objects[row].files for row in rows]
        names = [own[int(at * len(own))] for own, at in zip(files, drawn, strict=True)]
        places = [self._place[name] for name in names]
        for name, place in zip(names, places, strict=True):
            if not self._known[place]:
                self._views[place], self._known[place] = self.views.read(name, self.config.read_size), True
        pixels = self._views[places]  # [B, S, S, 4]
        views = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # [B, 4, S, S]
        pictures = augment(views, self.config.size_at(self.step), self.augmentation, rng).to(self.device)
        mean, std = (
            torch.tensor(v, device=self.device)[:, None, None] for v in (self.preprocess.mean, self.preprocess.std)
        )
        return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)

    def _validate(self) -> dict[str, Any]:
        results = evaluate_split(self.views, "val", self.model, self.preprocess, self.words, self.config.val_views)
        if not results:
            return {}
        score = float(np.mean([results[part].mrr for part in ("seen", "unseen") if part in results]))
        if score > self.best:
            self.best = score
            mini.save_mini(self.out, self.model, self.mini_config | {"val_score": score, "step": self.step})
        return {"score": round(score, 5)} | {f"val_{part}": asdict(value) for part, value in results.items()}

    def finish(self, command: str, about: str = "") -> Path:
        """Measure the best tower, as saved, once on the test split, and write the model card.

        Args:
            command: that made it, for the card.
            about: a sentence on the data and their licence, for the card.
        """
        if self.best < 0:
            mini.save_mini(self.out, self.model, self.mini_config | {"step": self.step})
        model = mini.open_mini(self.out)[0].to(self.device).eval()
        parts = {
            split: evaluate_split(self.views, split, model, self.preprocess, self.words, self.config.val_views)
            for split in ("val", "test", "unseen")
        }
        facts = Facts(command, about or "not described", self.seconds, str(self.device), torch.get_num_threads())
        return write_card(self.out, self.views, asdict(self.config), parts, facts)

    def _fingerprint(self) -> str:
        return json.dumps({"config": asdict(self.config), "views": self.views.sha256}, sort_keys=True)

    def _save(self) -> None:
        state = {
            "fingerprint": self._fingerprint(),
            "visual": self.model.visual.state_dict(),
            "logit_scale": self.model.logit_scale.detach(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {"step": self.step, "best": self.best, "seconds": self.seconds},
        }
        with replacing(self.out / CHECKPOINT) as draft:
            torch.save(state, draft)

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.is_file():
            (self.out / CURVES).unlink(missing_ok=True)
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["fingerprint"] != self._fingerprint():
            raise ValueError(f"{path} is of a run with other settings or views; give another --out, or delete it")
        self.model.visual.load_state_dict(state["visual"])
        with torch.no_grad():
            self.model.logit_scale.copy_(state["logit_scale"])
        self.optimizer.load_state_dict(state["optimizer"])
        progress = state["progress"]
        self.step, self.best, self.seconds = progress["step"], progress["best"], progress["seconds"]
        lines = (self.out / CURVES).read_text(encoding="utf-8").splitlines(keepends=True)[: self.step]
        (self.out / CURVES).write_text("".join(lines), encoding="utf-8")  # steps after the checkpoint are done again


class _TextBank:
    """Embeddings of all training texts; the tower is locked, so they are made once."""

    def __init__(
        self, objects: Sequence[ViewedObject], model: Any, tokenizer: Any, device: torch.device, label_share: float
    ) -> None:
        names = sorted({obj.label for obj in objects})
        prompts = [[prompt.format(name) for prompt in mini.PROMPTS] for name in names]
        words = sorted({text for obj in objects for text in obj.texts} | {text for own in prompts for text in own})
        place = {text: index for index, text in enumerate(words)}
        self.labels = torch.tensor([names.index(obj.label) for obj in objects])
        self.of_object = [[place[text] for text in obj.texts if text != obj.label] for obj in objects]
        self.of_label = [[place[text] for text in own] for own in prompts]
        self.label_share = label_share
        self.bank_labels = torch.arange(len(names), device=device)
        parts = [words[start : start + 256] for start in range(0, len(words), 256)]
        with torch.no_grad():
            made = [model.encode_text(tokenizer(part).to(device), normalize=True) for part in parts]
        self.embeddings = torch.cat(made)  # [U, D]

    def draw(self, rows: Sequence[int], rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One text per object ``[B, D]``, one prompt per label ``[L, D]``, and which of the first are specific."""
        own = torch.rand(len(rows), generator=rng) >= self.label_share
        specific = own & torch.tensor([bool(self.of_object[row]) for row in rows])
        lists = [
            self.of_object[row] if said else self.of_label[int(self.labels[row])]
            for row, said in zip(rows, specific.tolist(), strict=True)
        ]
        device = self.embeddings.device
        return self._pick(lists, rng), self._pick(self.of_label, rng), specific.to(device)

    def _pick(self, lists: Sequence[Sequence[int]], rng: torch.Generator) -> torch.Tensor:
        at = torch.rand(len(lists), generator=rng).tolist()
        return self.embeddings[[own[int(a * len(own))] for own, a in zip(lists, at, strict=True)]]


def _optimizer(model: Any, config: TrainConfig) -> torch.optim.Optimizer:
    weights = [p for p in model.visual.parameters() if p.ndim > 1]
    others = [p for p in model.visual.parameters() if p.ndim <= 1] + [model.logit_scale]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: every field of `TrainConfig` is an option."""
    parser = argparse.ArgumentParser(prog="python -m clipgs_lib.teachers.train_mini", description=__doc__)
    parser.add_argument("--views", type=Path, required=True, help="folder with views.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, curves, checkpoint, model card")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as torch decides")
    parser.add_argument("--about", default="", help="a sentence on the data and their licence, for the model card")
    for name, value in asdict(TrainConfig()).items():
        kind = (lambda word: word.lower() in ("1", "true", "yes")) if isinstance(value, bool) else type(value)
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=value)
    given = vars(parser.parse_args(arguments))
    if given["threads"]:
        torch.set_num_threads(given["threads"])
    config = TrainConfig(**{name: given[name] for name in asdict(TrainConfig())})
    trainer = Trainer(read_views(given["views"]), given["out"], config, given["device"])
    for record in trainer.run():
        if record["step"] % 20 == 0 or "score" in record:
            print(json.dumps(record), flush=True)
    words = sys.argv[1:] if arguments is None else arguments
    shown = [Path(word).name if Path(word).is_absolute() else word for word in words]  # no folders of this machine
    command = shlex.join(["python", "-m", "clipgs_lib.teachers.train_mini", *shown])
    print(f"model card: {trainer.finish(command, given['about'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
