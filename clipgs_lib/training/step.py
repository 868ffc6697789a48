"""One optimiser step: forward, loss over all ranks' objects, backward, clipping, averaging.

The loss always sees the whole batch. With micro-batches the encoder runs twice (GradCache, arXiv 2101.06983): first
without gradients for all embeddings, then, with the loss's gradient of each embedding known, once more for the weights.
Random numbers are seeded per step, rank and micro-batch, so both passes draw the same and any step can be repeated.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..encoders import Encoder
from ..losses import LogitScale, image_voting_loss, multi_positive_loss, pair_loss, same_rows
from ..runtime import mixed_precision
from ..vectors import unit
from ..words import first_of
from .checkpoint import part, prefixed
from .data import Batch
from .distributed import Place, gather, gather_with_grad
from .run_config import TrainConfig, lr_at

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class DivergedError(ValueError):
    """A loss, gradient or embedding that is not finite; the message names the objects of the batch."""


class Learner:
    """Encoder (on the device, trained in place), logit scale, optimiser and averaged weights of a run."""

    def __init__(self, encoder: Encoder, config: TrainConfig, place: Place) -> None:
        if config.batch_norm == "sync":
            if place.device.type != "cuda":
                raise ValueError("batch_norm='sync' needs CUDA, since torch has no other; use 'local' or 'frozen'")
            encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
        self.encoder, self.config, self.place = encoder, config, place
        self.scale = LogitScale(config.logit_scale).to(place.device)
        self.average = copy.deepcopy(encoder).eval().requires_grad_(False)
        if config.compile:
            for block in encoder.blocks:
                block.compile()
        self.model: nn.Module = encoder
        if place.world > 1:
            self.model = DistributedDataParallel(encoder, broadcast_buffers=False, gradient_as_bucket_view=True)
        groups = parameter_groups(encoder, config.weight_decay, config.layer_decay)
        scale = {"params": [self.scale.log], "names": ["logit_scale"], "weight_decay": 0.0, "lr_scale": 1.0}
        self.optimizer = torch.optim.AdamW([*groups, scale], lr=config.lr, betas=config.betas, fused=True)

    # ---- one step --------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> dict[str, float]:
        """Do one optimiser step, and say how it went; DivergedError, the weights as before, for what is not finite."""
        clock = _Clock(self.place.device)
        config = self.config
        lr = lr_at(batch.step, steps=config.steps, warmup=config.warmup, peak=config.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.optimizer.zero_grad(set_to_none=True)
        self.encoder.train()
        if self.config.batch_norm == "frozen":
            for norm in _norms(self.encoder):
                norm.eval()
        devices = [self.place.device] if self.place.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            embeds = self._forward(batch)
            clock.lap("encoder")
            leaf = embeds.detach().float().requires_grad_()
            losses, views = self._losses(leaf, batch)
            losses.sum().backward()
            both = losses.detach()
            if self.place.world > 1:
                dist.all_reduce(both)
            clock.lap("loss")
            if not torch.isfinite(both).all():
                raise DivergedError(self._sentence("the loss", batch))
            assert leaf.grad is not None
            self._backward(batch, embeds, leaf.grad * self.place.world)  # DDP divides by the number of ranks
        clock.lap("encoder")
        norm = self._finish(batch)
        clock.lap("optimizer")
        text, image = both.tolist()
        return {
            "loss": text + image,
            "loss_text": text,
            "loss_image": image,
            "lr": lr,
            "grad_norm": norm,
            "logit_scale": float(self.scale().detach()),
            "objects": sum(batch.sizes),
            "views": views,
            **{f"seconds_{name}": value for name, value in clock.seconds.items()},
        }

    def _forward(self, batch: Batch) -> Tensor:
        """Embeddings of this rank's objects ``[b, D]``; with a graph when there is a single micro-batch."""
        if len(batch.parts) == 1:
            self._seed(batch.step, 0)
            with mixed_precision(self.config.precision, self.place.device):
                return self.model(batch.parts[0].to(self.place.device))
        embeds = []
        with torch.no_grad(), _still(self.encoder), mixed_precision(self.config.precision, self.place.device):
            for index, piece in enumerate(batch.parts):
                self._seed(batch.step, index)
                embeds.append(self.encoder(piece.to(self.place.device)))
        return torch.cat(embeds)

    def _backward(self, batch: Batch, embeds: Tensor, grad: Tensor) -> None:
        if len(batch.parts) == 1:
            embeds.backward(grad.to(embeds.dtype))
            return
        pieces = grad.split([len(piece) for piece in batch.parts])
        for index, (piece, piece_grad) in enumerate(zip(batch.parts, pieces, strict=True)):
            self._seed(batch.step, index)
            last = index == len(batch.parts) - 1
            quiet = isinstance(self.model, DistributedDataParallel) and not last
            with self.model.no_sync() if quiet else nullcontext():  # type: ignore[operator]
                with mixed_precision(self.config.precision, self.place.device):
                    again = self.model(piece.to(self.place.device))
                again.backward(piece_grad.to(again.dtype))

    def _losses(self, leaf: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """This rank's share of the text and image loss of all ranks' objects ``[2]``; how many views they have."""
        config, device, sizes = self.config, self.place.device, batch.sizes
        everyone = gather_with_grad(leaf, sizes)  # [B, D]
        bad = ~everyone.detach().isfinite().all(dim=1)  # [B]
        if bool(bad.any()):
            raise DivergedError(self._sentence("embeddings", batch, bad))
        shape = nn.functional.normalize(everyone, dim=-1)
        names = ("images", "views_valid", "texts", "text_ids", "ids")
        all_of = {name: gather(getattr(batch, name).to(device), sizes) for name in names}
        same = same_rows(all_of["text_ids"], all_of["ids"])  # of objects that drew equal texts
        start = sum(sizes[: self.place.rank])
        rows = slice(start, start + sizes[self.place.rank]) if self.place.world > 1 else None
        text, image = _loss(config, shape, all_of, self.scale(), same, rows)
        return torch.stack([text, image]), int(all_of["views_valid"].sum())

    def _finish(self, batch: Batch) -> float:
        """Clip, step, clamp, average; returns the norm of all gradients before clipping."""
        if self.place.world > 1 and self.scale.log.grad is not None:
            dist.all_reduce(self.scale.log.grad)  # shares sum to the gradient of the whole
        values = [value for group in self.optimizer.param_groups for value in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(values, self.config.clip))
        if not norm < float("inf"):
            raise DivergedError(self._sentence("gradients", batch))
        self.optimizer.step()
        self.scale.clamp_()
        if self.place.world > 1 and self.config.batch_norm != "frozen":  # all ranks get the mean of their statistics
            for buffer in (one for one in self.encoder.buffers() if one.is_floating_point()):
                dist.all_reduce(buffer)
                buffer /= self.place.world
        average = get_ema_multi_avg_fn(self.config.ema_at(batch.step))
        average(list(self.average.parameters()), list(self.encoder.parameters()), None)
        for mine, other in zip(self.average.buffers(), self.encoder.buffers(), strict=True):
            mine.copy_(other)  # statistics of batch norms, ...
        return norm

    def _sentence(self, what: str, batch: Batch, bad: Tensor | None = None) -> str:
        keys = list(batch.keys)
        if bad is not None:
            start = sum(batch.sizes[: self.place.rank])
            keys = [key for key, odd in zip(keys, bad[start : start + len(keys)].tolist(), strict=True) if odd]
        return (
            f"{what} must stay finite, got NaN or infinity in step {batch.step} for the objects: "
            f"{first_of(keys, 64) or 'of another rank'}; look at them with clipgs triplets inspect, lower lr, or "
            "use precision fp32"
        )

    def _seed(self, step: int, index: int) -> None:
        key = np.random.SeedSequence([self.config.seed, 3, step, self.place.rank, index])
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0]))

    # ---- state -----------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        state, names = self.optimizer.state_dict()["state"], self._optimized()
        return {
            **prefixed("encoder", self.encoder.state_dict()),
            **prefixed("average", self.average.state_dict()),
            **{f"optimizer/{names[i]}:{key}": value for i, entry in state.items() for key, value in entry.items()},
            "logit_scale": self.scale.log.detach(),
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.encoder.load_state_dict(part("encoder", tensors))
        self.average.load_state_dict(part("average", tensors))
        state, places = dict[int, dict[str, Tensor]](), {name: i for i, name in enumerate(self._optimized())}
        for key, value in part("optimizer", tensors).items():
            name, _, entry = key.rpartition(":")
            state.setdefault(places[name], {})[entry] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.scale.log.copy_(tensors["logit_scale"])

    def _optimized(self) -> list[str]:
        """Names of the optimiser's parameters, in its order."""
        return [name for group in self.optimizer.param_groups for name in group["names"]]


def _loss(
    config: TrainConfig, shape: Tensor, batch: Mapping[str, Tensor], scale: Tensor, same: Tensor, rows: slice | None
) -> tuple[Tensor, Tensor]:
    """Text and image loss, both with 1/(2N) as in the published code; the papers' 1/(4N) is half of it."""
    texts, views, there = batch["texts"], batch["images"], batch["views_valid"]
    text = pair_loss(shape, texts, scale, keep=~same, rows=rows)
    if config.loss == "contrastive_3d" or config.image_loss == "pair":
        image = pair_loss(shape, views[:, 0], scale, keep=~same, valid=there[:, 0], rows=rows)
    elif config.image_loss == "voting":
        image = image_voting_loss(shape, views, texts, scale, config.voting, same=same, views_valid=there, rows=rows)
    elif config.image_loss == "multi_positive":
        image = multi_positive_loss(shape, views, scale, same=same, valid=there, rows=rows)
    else:
        image = pair_loss(shape, unit(views.sum(dim=1)), scale, keep=~same, valid=there.any(dim=1), rows=rows)
    return text, image


def _norms(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if isinstance(part, _NORMS)]


@contextmanager
def _still(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from moving their running statistics for a while."""
    norms = _norms(module)
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


class _Clock:
    """Seconds per part of a step; a GPU is waited for at each lap."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict[str, float]()
        self._last = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lap(self, name: str) -> None:
        now = self._now()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def parameter_groups(encoder: Encoder, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW: ``params``, ``names``, ``weight_decay`` and ``lr_scale``, the factor of the learning rate.

    Vectors (norms, biases, a single token) are not decayed. A layer L of 0 .. depth + 1, see `Encoder.layer_of`, learns
    at ``layer_decay ** (depth + 1 - L)``.
    """
    last = len(encoder.blocks) + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, value in encoder.named_parameters():
        if not value.requires_grad:  # of a frozen tower
            continue
        layer, decayed = encoder.layer_of(name), sum(size > 1 for size in value.shape) > 1
        empty: dict[str, Any] = {"params": [], "names": [], "lr_scale": layer_decay ** (last - layer)}
        group = groups.setdefault((layer, decayed), empty | {"weight_decay": weight_decay if decayed else 0.0})
        group["params"].append(value)
        group["names"].append(name)
    return list(groups.values())
