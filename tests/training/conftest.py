"""One small set for all tests of training, and one thread: these tensors are tiny."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .samples import make_set


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """70 objects: 46 to train, 12 to validate, 12 to test."""
    return make_set(tmp_path_factory.mktemp("sets") / "kinds")


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
