"""Training of encoders on triplets and of `mini` on views: one schedule, checkpoint, record and card for both."""

from __future__ import annotations

from .ablation import Grid, ablate
from .augment import AugmentConfig, augment
from .checkpoint import CheckpointError
from .config import TrainConfig
from .data import Objects
from .distributed import gather_with_grad
from .loop import train
from .mini import MiniConfig, train_mini
from .step import DivergedError
