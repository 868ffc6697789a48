"""A small set of four kinds, with a teacher that knows their names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ..training.samples import KINDS, TEACHER, make_set


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Seventy objects: 46 to train, 12 to validate, 12 to test."""
    return make_set(tmp_path_factory.mktemp("sets") / "kinds")


class Knowing:
    """A teacher of the set's space: each kind's name lies where its objects do; pictures by their mean colour."""

    identity, digest = TEACHER.identity, "00"
    preprocess, embed_dim, device = SimpleNamespace(height=16), TEACHER.dim, torch.device("cpu")
    tower = torch.nn.Linear(3, 5)

    def __init__(self) -> None:
        rows = [np.random.default_rng(kind).normal(size=TEACHER.dim) for kind in range(len(KINDS))]
        self.words = dict(zip(KINDS, normalize(torch.from_numpy(np.stack(rows)).float(), dim=1), strict=True))
        self.colors = torch.randn(3, TEACHER.dim, generator=torch.Generator().manual_seed(0))

    def zero_shot_weights(self, labels, prompts):
        return torch.stack([self.words.get(label, self.colors[0] / self.colors[0].norm()) for label in labels])

    def encode_image(self, images):
        return normalize(images.mean(dim=(1, 2)) @ self.colors, dim=1)


@pytest.fixture
def knowing(monkeypatch):
    teacher = Knowing()
    for room in ("evaluation.evaluation_set", "encoders.duoduo"):
        monkeypatch.setattr(f"clipgs_lib.{room}.load_teacher", lambda name, device: teacher)
    return teacher
