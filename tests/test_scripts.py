"""The scripts of `.ci/` and the benchmarks, which CI itself does not run to their end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_the_script_for_a_gpu_says_that_there_is_none(tmp_path):
    words = [sys.executable, ".ci/gpu", "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "no CUDA device: nothing of .ci/gpu was run\n")
    assert not list(tmp_path.iterdir())


def test_every_benchmark_finds_what_it_imports(tmp_path):
    """Outside the test runner, which finds the modules of the tests by itself."""
    files = sorted(map(str, (ROOT / "tests" / "benchmarks").glob("bench_*.py")))
    code = "import runpy, sys; [runpy.run_path(file, run_name='imported') for file in sys.argv[1:]]"
    done = subprocess.run([sys.executable, "-P", "-c", code, *files], cwd=tmp_path, capture_output=True, text=True)
    assert files and done.returncode == 0, done.stderr
