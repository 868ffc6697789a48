"""The Makefile's promises that need no installation."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


@pytest.fixture
def make(tmp_path):
    """Run make in a folder that holds only the Makefile and pyproject.toml; returns exit code and all output."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}

    def run(*words):
        done = subprocess.run(["make", *words], cwd=tmp_path, capture_output=True, text=True, env=clean)
        return done.returncode, done.stdout + done.stderr

    return run


def fake_python(folder: Path, version: str) -> Path:
    """A Python that claims to be of another version and can make empty environments."""
    path = folder / "fake"
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = -c ]; then exec python3 -c "import sys; sys.version_info = {version}; $2"; fi\n'
        'mkdir -p "$3/bin" && for t in python clipgs; do printf "#!/bin/sh\\necho $t \\"\\$@\\"\\n" > "$3/bin/$t"; '
        'chmod +x "$3/bin/$t"; done\n'
    )
    path.chmod(0o755)
    return path


def test_help_is_the_default_and_lists_the_commands(make):
    code, said = make()
    assert code == 0
    for target in ("run", "test", "lab", "bench", "clean"):
        assert f"make {target} " in said


def test_missing_and_old_pythons_are_refused(make, tmp_path):
    code, said = make("run", "PYTHON=no-such-python")
    assert code != 0 and "error: no-such-python not found; run make PYTHON=" in said
    code, said = make("run", f"PYTHON={fake_python(tmp_path, '(3, 10, 4)')}")
    assert code != 0 and "error: Python 3.11 or newer is needed" in said and "is 3.10.4" in said
    assert not (tmp_path / ".venv").exists()


def test_run_installs_once_and_again_when_pyproject_changes(make, tmp_path):
    python = f"PYTHON={fake_python(tmp_path, '(3, 12, 0)')}"
    code, said = make("run", python, "JOBS=3", "ARGS=01_splats -p SEED 1")
    assert code == 0, said
    assert "pip install" in said and said.rstrip().endswith("clipgs notebooks run --jobs 3 01_splats -p SEED 1")
    code, said = make("run", python)
    assert code == 0 and "pip install" not in said and "clipgs notebooks run --jobs 2" in said
    later = (tmp_path / ".venv" / ".run").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    code, said = make("run", python)
    assert code == 0 and "pip install" in said
