"""What tests of the scene twin search, and a room that they rebuild."""

from __future__ import annotations

import pytest

from clipgs_lib.applications.scene_twin import compose, load_pool
from clipgs_lib.applications.scene_twin.composer import catalogue_assets


@pytest.fixture(scope="module")
def pool():
    return load_pool(["data/triplets/sample"], encoder="bag-mean")


@pytest.fixture(scope="module")
def room():
    return compose(4, catalogue_assets(), width=320, height=240)
