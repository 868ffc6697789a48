"""Parameter groups with layer decay, averaged weights, and their state as named tensors."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders import Encoder


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


def lr_at(step: int, *, steps: int, warmup: int, peak: float, last: float = 0.0) -> float:
    """Learning rate of a step: linear warm-up to ``peak``, then a cosine to ``last``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * done))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group ``lr`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser whose groups have ``names``, as ``NAME:KEY -> tensor``."""
    out = {}
    for name, value in _named(optimizer):
        for key, tensor in optimizer.state[value].items():
            out[f"{name}:{key}"] = torch.as_tensor(tensor)
    return out


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; KeyError for parameters that the optimiser does not have."""
    values = dict(_named(optimizer))
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition(":")
        value = values[name]
        where = "cpu" if entry == "step" and not optimizer.defaults.get("fused") else value.device
        optimizer.state[value][entry] = tensor.to(where).clone()


def _named(optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


class Average:
    """Exponential moving average of a model's weights; buffers are copied (statistics of batch norms, ...).

    ``module`` begins as its copy, in eval mode, without gradients.
    """

    def __init__(self, model: Encoder) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: Encoder, decay: float) -> None:
        """Move towards the weights of ``model``: ``average = decay * average + (1 - decay) * weights``."""
        average: list[Tensor] = list(self.module.parameters())
        weights = [value.detach() for value in model.parameters()]
        torch._foreach_lerp_(average, weights, 1 - decay)
        for mine, other in zip(self.module.buffers(), model.buffers(), strict=True):
            mine.copy_(other)
