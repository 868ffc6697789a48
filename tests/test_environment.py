"""environment.yml names what pyproject.toml names, with the same bounds; what the package asks of its process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def normal(requirement: str) -> tuple[str, str]:
    """Name and version bound of a requirement, spelt one way."""
    name, bound = re.fullmatch(r"\s*([\w.-]+)\s*([^;]*?)\s*", requirement).groups()
    return re.sub(r"[-_.]+", "-", name).lower(), bound.replace(" ", "")


def test_environment_yml_is_in_step():
    [pip] = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    conda = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    assert pip[-1] == "--editable ."
    given = {normal(entry) for entry in [*pip[:-1], *conda]} - {("pip", "")}
    wanted = {normal(entry) for entry in PROJECT["dependencies"]} | {("python", PROJECT["requires-python"])}
    assert given - wanted == set(), "in environment.yml only"
    assert wanted - given == set(), "in pyproject.toml only"


def test_every_requirement_has_a_bound():
    named = PROJECT["dependencies"] + [entry for extra in PROJECT["optional-dependencies"].values() for entry in extra]
    assert [entry for entry in named if not normal(entry)[1]] == []


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_the_running_environment_has_it(requirement):
    packaging = pytest.importorskip("packaging.requirements")
    wanted = packaging.Requirement(requirement)
    assert wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_of_torch_sleep(given, expected):
    """OpenMP reads its policy when torch loads, so the package must not load torch before it has set it."""
    code = "import os, sys, clipgs_lib; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
