"""A small set that can be learned, and runs over it that take a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgs_lib.captions.caption import Caption
from clipgs_lib.evaluation import EvaluationConfig, evaluate
from clipgs_lib.settings import from_plain
from clipgs_lib.shards.triplet import TeacherInfo, Triplet, encode_triplet, encode_view
from clipgs_lib.shards.writer import write_set
from clipgs_lib.splats import Splats
from clipgs_lib.training import TrainConfig

from ..shards.shard_samples import small_shards

TEACHER = TeacherInfo("stand-in sha256:00", 16)
KINDS = ("ball", "rod", "disk", "cloud")
STRETCH = torch.tensor([[1.0, 1.0, 1.0], [0.1, 1.0, 0.1], [1.0, 0.1, 1.0], [0.6, 0.3, 1.0]])
VIEW = encode_view(np.zeros((4, 4, 3), np.uint8))
SMALL: dict[str, Any] = {
    "groups": 8,
    "group_size": 8,
    "dim": 16,
    "point_widths": [8, 8, 16],
    "attribute_widths": [4, 8, 16],
    "width": 24,
    "depth": 2,
}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float16)


def make_object(number: int, split: str, **changes: Any) -> Triplet:
    """An object whose kind is seen in shape, colour, views and texts."""
    rng, kind = np.random.default_rng([7, number]), number % len(KINDS)
    count = 40 + number % 9
    g = torch.Generator().manual_seed(number)
    color = torch.full((count, 3), 0.2)
    color[:, kind % 3] = 0.9
    splats = Splats.from_colors(
        torch.randn(count, 3, generator=g) * STRETCH[kind],
        color,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=-1),
        scales=0.01 + 0.05 * torch.rand(count, 3, generator=g),
        opacities=torch.full((count,), 0.8),
        up_axis="+y",
    )
    base = np.random.default_rng(kind).normal(size=TEACHER.dim)
    own = base + 0.3 * rng.normal(size=TEACHER.dim)
    columns: dict[str, Any] = {
        "key": f"object-{number:04d}",
        "splats": splats,
        "views": (VIEW,) * 3,
        "texts": (
            Caption(f"{KINDS[kind]} {number}", "raw"),
            Caption(f"a {KINDS[kind]}", "filtered"),
            Caption(f"a {KINDS[kind]} of number {number}", "enriched"),
        ),
        "category": KINDS[kind],
        "split": split,
        "provenance": {"source": f"object {number}", "licence": "CC0-1.0"},
        "teacher": TEACHER,
        "image_embeds": unit(own + 0.2 * rng.normal(size=(3, TEACHER.dim))),
        "text_embeds": unit(np.stack([own, base, own])),
    }
    return Triplet(**(columns | changes))


def make_set(folder: Path, train: int = 46, first: int = 0, **changes: Any) -> Path:
    """``train`` objects to learn from, 12 each to validate and test."""
    splits = ["train"] * train + ["val"] * 12 + ["test"] * 12
    folder.mkdir(parents=True)
    blocks = [encode_triplet(make_object(first + n, split, **changes)) for n, split in enumerate(splits)]
    with small_shards(20):
        write_set(folder, blocks, build={"what": "test"})
    return folder


def found_by_text(encoders: Sequence[str], shards: Path, work: Path, split: str = "all") -> dict[str, float]:
    """R@1 of texts that look for their objects, of each encoder and of the bag of views, by `clipgs evaluate`."""
    chosen = EvaluationConfig(split=split, device="cpu", precision="fp32")  # as `config` below
    rows = evaluate(encoders, [shards], ["retrieval"], chosen, work=work).rows
    return {
        row["method"]: row["value"]
        for row in rows
        if row["task"].startswith("text -> 3D, gallery") and row["metric"] == "R@1"
    }


def config(shards: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run of 12 steps."""
    plain: dict[str, Any] = {
        "shards": [str(shards)],
        "out": str(out),
        "encoder_options": SMALL,
        "steps": 12,
        "batch_size": 16,
        "views": 2,
        "lr": 3e-3,
        "warmup": 2,
        "validate_every": 6,
        "save_every": 4,
        "zero_shot": "none",
        "device": "cpu",
        "precision": "fp32",  # numbers are compared, on machines with bf16 too
        "ema": 0.9,
        "augment": {"keep": 16},
    }
    return from_plain(TrainConfig, plain | changes)
