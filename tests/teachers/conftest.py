"""A tiny open_clip model, saved once, for all tests of teachers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipgs_lib.teachers import Teacher, load_teacher

from . import tiny


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Weights of the tiny model, which open_clip knows by name."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.register(folder / "configs")
    return tiny.save_weights(folder / "weights.safetensors")


@pytest.fixture(scope="session")
def teacher(weights) -> Teacher:
    """The tiny model as a teacher, with batches of 3."""
    return load_teacher(f"{tiny.NAME}@{weights}", device="cpu", batch_size=3)


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """These towers are tiny: more threads would only wait for each other, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
