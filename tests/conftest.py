"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import traceback
import warnings
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from typer.testing import CliRunner

from clipgs_lib import cli
from clipgs_lib.splats import Splats

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = Path("/usr/bin/chromium")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``browser`` where there is none."""
    if item.get_closest_marker("browser"):
        if not CHROMIUM.exists():
            pytest.skip(f"no browser at {CHROMIUM}; install Debian's chromium")
        pytest.importorskip("playwright", reason="playwright drives the browser")


@pytest.fixture(scope="session")
def shots() -> Path:
    """Folder that browser tests leave their pictures in, for people to look at: ``build/screenshots``."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real meshes and splats: ``CLIPGS_REAL_DATA``, or ``../shared/data`` beside the project."""
    folder = Path(os.environ.get("CLIPGS_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "splats").is_dir():
        pytest.skip(f"real data not found at {folder}; set CLIPGS_REAL_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def furniture() -> Path:
    """The furniture of Sweet Home 3D, as Debian's package puts it."""
    folder = Path("/usr/share/sweethome3d/furniture")
    if not folder.is_dir():
        pytest.skip("apt-get install sweethome3d-furniture")
    return folder


def make_splats(n: int = 100, degree: int = 0, seed: int = 0) -> Splats:
    """A random cloud of ``n`` gaussians about the unit ball, for tests."""
    g = torch.Generator().manual_seed(seed)
    quats = torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=-1)
    return Splats(
        means=0.5 * torch.randn(n, 3, generator=g),
        quats=quats,
        scales=0.02 + 0.08 * torch.rand(n, 3, generator=g),
        opacities=0.05 + 0.9 * torch.rand(n, generator=g),
        sh0=0.8 * torch.randn(n, 1, 3, generator=g),
        shN=0.2 * torch.randn(n, (degree + 1) ** 2 - 1, 3, generator=g),
    )


def clipgs(*words: object) -> CompletedProcess[str]:
    """The finished command, run in this process: a fresh one spends its seconds on importing torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = CliRunner().invoke(cli.app, [str(word) for word in words])
    error = done.exception
    trace = [] if error is None or isinstance(error, SystemExit) else traceback.format_exception(error)
    return CompletedProcess(words, done.exit_code, done.stdout, done.stderr + "".join(trace))


@pytest.fixture
def splats_factory():
    """`make_splats`, as a fixture."""
    return make_splats


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder of small inputs for reported faults: ``../shared/cases`` beside the project, or ``CLIPGS_CASES``."""
    folder = Path(os.environ.get("CLIPGS_CASES", ROOT.parent / "shared" / "cases"))
    if not (folder / "plain.ply").is_file():
        pytest.skip(f"reported cases not found at {folder}; set CLIPGS_CASES")
    return folder.resolve()
