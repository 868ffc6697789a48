"""Train the image tower of `mini` against its locked text tower (LiT): ``clipgs teacher train``.

A step is a function of the seed and its number alone, so a run that was stopped goes on exactly where it was.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..runtime import mixed_precision, resolve_device
from ..settings import from_plain, to_plain
from ..teachers import Preprocess, mini
from .checkpoint import Records, check_identity, checkpoints, load_checkpoint, part, prefixed, save_checkpoint
from .mini_augment import PictureAugment, augment_pictures
from .mini_card import evaluate_split, label_weights, write_mini_card
from .mini_loss import masked_contrastive
from .mini_views import ViewedObject, ViewSet, read_views
from .optim import load_optimizer, lr_at, optimizer_tensors, set_lr


def train_mini(
    views: str | Path,
    out: str | Path,
    settings: Mapping[str, Any],
    *,
    device: str = "auto",
    threads: int = 0,
    about: str = "",
) -> Iterator[dict[str, Any]]:
    """Train, going on where the folder's checkpoint stopped, then measure the test split and write the model card.

    Args:
        views: folder with ``views.jsonl``.
        out: folder of the tower, ``metrics.jsonl``, the checkpoint and the model card.
        settings: plain values of `MiniConfig` that differ.
        device: auto, cpu, cuda or cuda:N.
        threads: of torch on the CPU; 0: as torch decides.
        about: a sentence on the data and their licence, for the model card.

    Yields:
        A record per step, as in ``metrics.jsonl``; the last one has ``finished`` and ``card``, its path.

    Raises:
        ValueError: for settings that do not fit the views, or another run in ``out``.
        FileNotFoundError: without ``views.jsonl``.
    """
    if threads:
        torch.set_num_threads(threads)
    config, plain = from_plain(MiniConfig, settings), to_plain(MiniConfig())
    trainer = MiniTrainer(read_views(views), Path(out), config, resolve_device(device))
    yield from trainer.run()
    words = ["clipgs", "teacher", "train", "--views", Path(views).name, "--out", Path(out).name]  # no folders of here
    for name, value in to_plain(config).items():
        words += ["--set", f"{name}={value}"] if value != plain[name] else []
    yield {"step": trainer.step, "finished": True, "card": str(trainer.finish(shlex.join(words), about))}


@dataclass(frozen=True)
class MiniConfig:
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
        return lr_at(step, steps=self.steps, warmup=self.warmup, peak=self.lr)


class MiniTrainer:
    """A run over one folder of views, with its output in another.

    Args:
        views: what to train on.
        out: folder for the tower, ``metrics.jsonl``, the checkpoint and the model card.
        config: the run.
        device: where the towers are.

    Raises:
        ValueError: when there are fewer training objects than a batch holds.
    """

    def __init__(
        self,
        views: ViewSet,
        out: Path,
        config: MiniConfig,
        device: str | torch.device = "cpu",
        augmentation: PictureAugment | None = None,
    ) -> None:
        self.views, self.out, self.config, self.device = views, out, config, torch.device(device)
        self.augmentation, self.records = augmentation or PictureAugment(), Records(out)
        self.objects = views.split("train")
        if len(self.objects) < config.batch_size:
            raise ValueError(
                f"batch_size must be at most the number of training objects, got {config.batch_size} for "
                f"{len(self.objects)}; lower batch_size"
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
        """Train, from where the folder's checkpoint stopped, and yield each record of ``metrics.jsonl``.

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
            self.records.append(record)
            if "score" in record or self.step == last:
                self._save()
            yield record

    def _train_step(self) -> float:
        config = self.config
        set_lr(self.optimizer, config.lr_at(self.step))
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
            raise RuntimeError(f"the loss must stay finite, got {float(loss)} at step {self.step}; lower lr")
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
        names = [choices[int(at * len(choices))] for choices, at in zip(files, drawn, strict=True)]
        places = [self._place[name] for name in names]
        for name, place in zip(names, places, strict=True):
            if not self._known[place]:
                self._views[place], self._known[place] = self.views.read(name, self.config.read_size), True
        pixels = self._views[places]  # [B, S, S, 4]
        views = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # [B, 4, S, S]
        pictures = augment_pictures(views, self.config.size_at(self.step), self.augmentation, rng).to(self.device)
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
        return {"score": round(score, 5)} | {
            f"val_{part}": {"top1": r.at(1).value, "top5": r.at(5).value, "mrr": r.mrr, "objects": r.objects}
            for part, r in results.items()
        }

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
        facts = {"command": command, "about": about or "not described", "seconds": self.seconds}
        facts |= {"device": str(self.device), "threads": torch.get_num_threads(), "records": self.records.read()}
        return write_mini_card(self.out, self.views, asdict(self.config), parts, facts)

    def _identity(self) -> dict[str, Any]:
        return {"config": to_plain(self.config), "views": self.views.sha256}

    def _save(self) -> None:
        tensors = prefixed("visual", self.model.visual.state_dict()) | {"logit_scale": self.model.logit_scale.detach()}
        tensors |= prefixed("optimizer", optimizer_tensors(self.optimizer))
        progress = {"best": self.best, "seconds": self.seconds}
        save_checkpoint(self.out, self.step, tensors, {"identity": self._identity(), "progress": progress}, keep=1)

    def _resume(self) -> None:
        if paths := checkpoints(self.out):
            tensors, state = load_checkpoint(paths[-1])
            check_identity(paths[-1], state["identity"], self._identity())
            self.model.visual.load_state_dict(part("visual", tensors))
            with torch.no_grad():
                self.model.logit_scale.copy_(tensors["logit_scale"])
            load_optimizer(self.optimizer, part("optimizer", tensors))
            self.step, progress = int(state["step"]), state["progress"]
            self.best, self.seconds = progress["best"], progress["seconds"]
        self.records.trim(self.step)


class _TextBank:
    """Embeddings of all training texts; the tower is locked, so they are made once."""

    def __init__(
        self, objects: Sequence[ViewedObject], model: Any, tokenizer: Any, device: torch.device, label_share: float
    ) -> None:
        names = sorted({obj.label for obj in objects})
        prompts = [[prompt.format(name) for prompt in mini.PROMPTS] for name in names]
        words = sorted({text for obj in objects for text in obj.texts} | {text for texts in prompts for text in texts})
        place = {text: index for index, text in enumerate(words)}
        self.labels = torch.tensor([names.index(obj.label) for obj in objects])
        self.of_object = [[place[text] for text in obj.texts if text != obj.label] for obj in objects]
        self.of_label = [[place[text] for text in texts] for texts in prompts]
        self.label_share = label_share
        self.bank_labels = torch.arange(len(names), device=device)
        parts = [words[start : start + 256] for start in range(0, len(words), 256)]
        with torch.no_grad():
            made = [model.encode_text(tokenizer(part).to(device), normalize=True) for part in parts]
        self.embeddings = torch.cat(made)  # [U, D]

    def draw(self, rows: Sequence[int], rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One text per object ``[B, D]``, one prompt per label ``[L, D]``, and which of the first are specific."""
        drawn = torch.rand(len(rows), generator=rng) >= self.label_share
        specific = drawn & torch.tensor([bool(self.of_object[row]) for row in rows])
        lists = [
            self.of_object[row] if said else self.of_label[int(self.labels[row])]
            for row, said in zip(rows, specific.tolist(), strict=True)
        ]
        device = self.embeddings.device
        return self._pick(lists, rng), self._pick(self.of_label, rng), specific.to(device)

    def _pick(self, lists: Sequence[Sequence[int]], rng: torch.Generator) -> torch.Tensor:
        at = torch.rand(len(lists), generator=rng).tolist()
        return self.embeddings[[texts[int(a * len(texts))] for texts, a in zip(lists, at, strict=True)]]


def _optimizer(model: Any, config: MiniConfig) -> torch.optim.Optimizer:
    named = {**dict(model.visual.named_parameters()), "logit_scale": model.logit_scale}
    groups = []
    for decay, matrices in ((config.weight_decay, True), (0.0, False)):
        names = [name for name, value in named.items() if (value.ndim > 1) is matrices]
        values = [named[name] for name in names]
        groups.append({"params": values, "names": names, "weight_decay": decay, "lr_scale": 1.0})
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
