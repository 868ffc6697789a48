"""Training of encoders on triplets and of `mini` on views: one schedule, checkpoint, record and card for both."""

from __future__ import annotations

from .ablation import Grid, ablate
from .augment import AugmentConfig, augment
from .checkpoint import CheckpointError
from .data import Objects
from .distributed import gather_with_grad
from .loop import train
from .mini_map import MiniConfig, train_mini
from .run_config import TrainConfig
from .step import DivergedError
