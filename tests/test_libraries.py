"""What third-party libraries need before their first use (case 26: neither home nor package can be written to)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# numba looks for a folder where a kernel is declared, so importing the renderer's tells; compiling them would take long
READS = """
import sys
import clipgs_lib as cg
import clipgs_lib.rendering.cpu, clipgs_lib.geometry.sampling_cpu
print(len(cg.read_splats(sys.argv[1])))
"""


def homeless(**more: str) -> dict[str, str]:
    """An environment without a home and without a folder for numba."""
    names = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return kept | {"HOME": "/proc/none", "PYTHONDONTWRITEBYTECODE": "1"} | more


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="mounting needs root")
def test_without_a_home_on_a_read_only_mount(tmp_path, splats_factory):
    import clipgs_lib as cg

    file = cg.write_splats(splats_factory(20), tmp_path / "a.ply")
    package, temporary = tmp_path / "package", tmp_path / "tmp"
    package.mkdir()
    temporary.mkdir()
    mount = f"mount --bind {ROOT / 'clipgs_lib'} {package}/clipgs_lib && mount -o remount,ro,bind {package}/clipgs_lib"
    (package / "clipgs_lib").mkdir()
    (package / "script.py").write_text(READS)
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode != 0:
        pytest.skip("this container may not mount")
    (package / "probe.sh").write_text(f"{mount} && exec {sys.executable} {package}/script.py {file}\n")
    done = subprocess.run(
        ["unshare", "-m", "sh", package / "probe.sh"],
        env=homeless(TMPDIR=str(temporary), PYTHONPATH=str(package)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "20"
    assert list(temporary.glob("clipgs-numba-*/*/*.nbi")), "what was compiled is kept"


PROBE = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("libraries", sys.argv[1])
libraries = importlib.util.module_from_spec(spec)
spec.loader.exec_module(libraries)
access = os.access
libraries.os.access = lambda path, mode: str(path) != os.path.dirname(sys.argv[1]) and access(path, mode)
libraries.give_numba_a_cache()
print(os.environ.get("NUMBA_CACHE_DIR"))
"""


def cache_dir(**environment: str) -> str:
    """Where numba is sent when the package's folder cannot be written to."""
    words = [sys.executable, "-c", PROBE, ROOT / "clipgs_lib" / "libraries.py"]
    return subprocess.run(words, env=homeless(**environment), capture_output=True, text=True, check=True).stdout.strip()


def test_numba_goes_elsewhere_only_when_it_must(tmp_path):
    temporary = str(tmp_path)
    assert cache_dir(HOME=temporary, TMPDIR=temporary) == "None", "the home will do"
    assert cache_dir(NUMBA_CACHE_DIR="/x", TMPDIR=temporary) == "/x", "the user has said where"
    folder = Path(temporary, f"clipgs-numba-{os.getuid()}")
    assert cache_dir(TMPDIR=temporary) == cache_dir(TMPDIR=temporary) == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert cache_dir(TMPDIR=temporary) != str(folder), "others could put code there"
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    assert cache_dir(TMPDIR=temporary) != str(folder), "nor where a link leads"
