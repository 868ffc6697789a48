"""Streams that break or cannot say everything (cases 27 and 30)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from .conftest import clipgs


def test_pipes_that_close(cases):
    command = f"{sys.executable} -m clipgs_lib diagnose --json {cases}/plain.ply {cases}/17_rgb_bytes/rgb.ply | head -1"
    for line in (command, command.replace("--json ", "")):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert "Traceback" not in done.stderr and "Broken pipe" not in done.stderr, done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_streams_that_cannot_say_everything(cases, tmp_path, encoding):
    path = tmp_path / "ключ_✗.ply"
    shutil.copy(cases / "plain.ply", path)
    env = {"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "clipgs_lib", "diagnose", path], capture_output=True, env=env)
    assert done.returncode in (0, 1) and b"Traceback" not in done.stderr and b"20" in done.stdout


def test_json_report_is_json(cases):
    json.loads(clipgs("diagnose", "--json", cases / "plain.ply").stdout)
