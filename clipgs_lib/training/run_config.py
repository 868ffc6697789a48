"""What decides a training run: a frozen dataclass, read from JSON or YAML, that refuses what it does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..losses.voting import Reduction, Voting, Weighting
from ..settings import to_plain
from .augment import AugmentConfig

# fields that do not change the numbers of a run: a resumed run may have others
FREE = (
    "steps",  # a finished run may go on; the cosine of the learning rate then ends at the new number
    "shards",
    "out",
    "resume",
    "save_every",
    "keep",
    "device",
    "workers",
    "memory_gb",
    "about",
    "threads",
)


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Where the paper is silent the default is Uni3D's recipe, scaled to a small batch."""

    shards: tuple[str, ...]  # folders of finished sets, all embedded by one teacher
    out: str  # folder of the run; must not hold another one
    encoder: str = "clipgs-mini"  # a name of `encoder_names()`
    encoder_options: Mapping[str, Any] = field(default_factory=dict)  # fields of EncoderConfig that differ
    init: str = "none"  # shipped name or folder of an encoder to start from, e.g. point-mini; none: at random
    resume: bool = False  # go on with the run in `out`

    steps: int = 2000  # optimiser steps; 0: the weights as they are, measured and exported
    batch_size: int = 64  # objects per step, over all ranks and micro-batches
    accumulate: int = 1  # micro-batches per step and rank; the loss is still that of the whole batch
    views: int = 5  # K views drawn per object and step [N: 5]; multi-view encoders read 1 to K of them
    seed: int = 0  # of everything that is drawn

    # contrastive_3d: L_CON of the point line (ULIP, OpenShape), texts plus one random view each
    loss: Literal["clip_gs", "contrastive_3d"] = "clip_gs"
    # of clip_gs; pair: one random view [P]; mean: the direction of the mean of the K views
    image_loss: Literal["voting", "pair", "mean", "multi_positive"] = "voting"
    weighting: Weighting = "cosine"  # S_i of Eq. 4
    reduction: Reduction = "mean"  # over the K views
    exclude_own: bool = True  # an object's other views are no negatives
    vote_temperature: float = 0.07  # of softmax weighting
    logit_scale: float = 1 / 0.07  # at the start; learned, clamped to [1, 100]

    lr: float = 1e-3  # peak learning rate
    warmup: int = 100  # steps of linear warm-up
    weight_decay: float = 0.1  # of AdamW, on matrices only
    betas: tuple[float, float] = (0.9, 0.98)  # of AdamW
    layer_decay: float = 0.95  # learning rate factor per transformer layer below the last
    clip: float = 5.0  # largest norm of all gradients together
    ema: float = 0.999  # decay of the averaged weights, reached slowly: min(ema, (1 + step) / (10 + step))
    # statistics of batch norm in training: of the rank's own objects (the stored ones are averaged over ranks), of all
    # ranks' objects (CUDA only), or the stored ones. Only with the last two does a step not depend on the number of
    # ranks and micro-batches.
    batch_norm: Literal["local", "sync", "frozen"] = "local"
    # of the encoder's arithmetic (autocast; the loss is fp32); auto: bf16 where the hardware has it, and a resumed run
    # goes on as it began
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # torch.compile the transformer
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    train_split: str = "train"
    max_objects: int = 0  # of that split, drawn by the hashes of their keys, so that fewer are part of more; 0: all
    val_split: str = "val"  # chooses the best weights; none: no validation, the last weights count
    test_split: str = "test"  # measured once at the end, if the sets have it
    validate_every: int = 200  # steps
    zero_shot: str = "teacher"  # class weights: by the shards' teacher, its name for `load_teacher` here, or none
    prompts: tuple[str, ...] = ("{}", "a {}", "a 3d model of a {}")  # texts of a class

    save_every: int = 200  # steps between checkpoints
    keep: int = 2  # newest checkpoints that stay
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    threads: int = 0  # of torch on the CPU; 0: as torch decides
    workers: int = 1  # threads that prepare batches ahead; 0: prepare them when needed
    memory_gb: float = 8.0  # sets whose splats and embeddings need more are streamed from disk
    about: str = ""  # a sentence on the data, for the model card

    def __post_init__(self) -> None:
        for rule, holds in self._rules().items():
            if not holds:
                name = rule.split()[0]
                raise ValueError(f"{rule}, got {name} = {getattr(self, name)!r}")

    def _rules(self) -> dict[str, bool]:
        counts = ("accumulate", "views", "validate_every", "save_every", "keep")
        least = ("steps", "warmup", "workers", "max_objects")
        finite = ("lr", "weight_decay", "memory_gb")
        return {
            "shards must name at least one folder": bool(self.shards),
            "batch_size must be at least 2, because a contrastive loss over one object is constant": self.batch_size
            >= 2,
            **{f"{name} must be at least 1": getattr(self, name) >= 1 for name in counts},
            **{f"{name} must be at least 0": getattr(self, name) >= 0 for name in least},
            **{f"{name} must be finite and at least 0": 0 <= getattr(self, name) < math.inf for name in finite},
            "layer_decay must lie in (0, 1]": 0 < self.layer_decay <= 1,
            "ema must lie in [0, 1)": 0 <= self.ema < 1,
            "clip must be above 0": self.clip > 0,
            "vote_temperature must be above 0": self.vote_temperature > 0,
            "logit_scale must lie in [1, 100]": 1 <= self.logit_scale <= 100,
            "seed must lie in 0 .. 2**31 - 1": 0 <= self.seed < 2**31,
            "prompts must each contain {}": bool(self.prompts) and all("{}" in prompt for prompt in self.prompts),
        }

    @property
    def views_drawn(self) -> int:
        """How many views of an object a step draws."""
        return 1 if self.loss == "contrastive_3d" or self.image_loss == "pair" else self.views

    @property
    def voting(self) -> Voting:
        """How views vote in the loss."""
        return Voting(self.weighting, self.reduction, self.exclude_own, self.vote_temperature)

    def ema_at(self, step: int) -> float:
        """Decay of the averaged weights at a step."""
        return min(self.ema, (1 + step) / (10 + step))

    def identity(self) -> dict[str, Any]:
        """The fields that a resumed run must share; of files and folders their names."""
        values = {name: value for name, value in to_plain(self).items() if name not in FREE}
        return values | {name: Path(values[name]).name for name in ("init", "zero_shot")}


def lr_at(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """Learning rate of a step: linear warm-up to ``peak``, then a cosine to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * 0.5 * (1 + math.cos(math.pi * done))
