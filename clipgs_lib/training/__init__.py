"""Training encoders on shards of triplets: configuration, loop, checkpoints, several processes."""

from __future__ import annotations

from .augment import AugmentConfig, augment
from .checkpoint import CheckpointError
from .config import TrainConfig
from .data import Objects
from .distributed import gather_with_grad
from .loop import train
from .step import DivergedError

__all__ = [
    "AugmentConfig",
    "CheckpointError",
    "DivergedError",
    "Objects",
    "TrainConfig",
    "augment",
    "gather_with_grad",
    "train",
]
