"""What a notebook's last run left behind, and the key that says whether it would come out the same again.

The key covers what a notebook can read: its source (outputs do not count), its parameters, the files and folders that
these name, the sources of `clipgs_lib` and the installed packages. Sources are hashed by content, since they are small
and an editor's save should not count. Data files are listed by path, size and modification time, since hashing
gigabytes would cost more than some notebooks: a touched file costs one needless run, never a stale result.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .. import runtime
from ..files import write_text
from .notebooks import Notebook

Status = Literal["passed", "failed"]
_PACKAGE = Path(__file__).resolve().parent.parent
_SOURCES = (".py", ".js", ".css", ".j2", ".md", ".json")


@dataclass(frozen=True)
class Outcome:
    """How one run of one notebook ended."""

    name: str
    status: Status
    seconds: float  # wall clock, from the start of its process to the end of its page
    finished: float  # unix time
    key: str  # from `input_key`
    parameters: dict[str, Any]  # values given to it, others at their defaults
    metrics: dict[str, Any] = field(default_factory=dict)  # as recorded; empty when it failed
    findings: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)  # metric -> what it is, and its unit
    error: str = ""  # one line; empty when it passed
    place: str = ""  # "cell 3, line 2: 1 / 0" for a failing cell
    log: str = ""  # path of the log


def expected_seconds(notebooks: Sequence[Notebook], folder: Path) -> dict[str, float]:
    """How long notebooks will probably run, in seconds; 0 where nothing is known.

    It is what the last success here took, else what the notebook says of itself, scaled as much as those with a
    success here took longer than they say.
    """
    last = {notebook.name: load_outcome(folder, notebook.name) for notebook in notebooks}
    took = {name: outcome.seconds for name, outcome in last.items() if outcome and outcome.status == "passed"}
    ratios = [took[n.name] / n.seconds for n in notebooks if n.name in took and n.seconds]
    scale = statistics.median(ratios) if ratios else 1.0
    return {notebook.name: took.get(notebook.name, notebook.seconds * scale) for notebook in notebooks}


def input_key(notebook: Notebook, parameters: Mapping[str, Any], shared: str) -> str:
    """Sha256 of everything that the result depends on; ``shared`` is from `shared_key`, defaults are in the source."""
    inputs = [p for p in notebook.parameters.values() if p.names_path and p.name != "OUT_DIR"]
    paths = [p.split(str(parameters.get(p.name) or p.default or ""))[1] for p in inputs]
    read = [_manifest(notebook.path.parent / path) for path in paths if path]
    text = json.dumps([notebook.name, notebook.digest, dict(parameters), read, shared], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def shared_key() -> str:
    """Sha256 of `clipgs_lib`'s sources, the installed packages, and the list of real data files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in _PACKAGE.rglob("*") if p.suffix in _SOURCES):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes())
    installed = sorted(f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions())
    digest.update("\n".join(installed).encode())
    real = runtime.real_data_dir()
    digest.update((_manifest(real) if real else "no real data").encode())
    return digest.hexdigest()


def load_outcome(folder: Path, name: str) -> Outcome | None:
    """The last outcome of a notebook, or None when there is none that this version can read."""
    try:
        return Outcome(**json.loads(_state_path(folder, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def save_outcome(folder: Path, outcome: Outcome) -> None:
    """Keep an outcome beside the executed notebooks, for the next run and the index page."""
    path = _state_path(folder, outcome.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(outcome), indent=1) + "\n")


def is_current(folder: Path, name: str, key: str, out_dir: Path) -> bool:
    """Whether the last run passed with this very key and what it wrote is still there."""
    outcome = load_outcome(folder, name)
    kept = [folder / f"{name}.ipynb", folder / f"{name}.html", out_dir / runtime.METRICS_FILE]
    return bool(outcome and outcome.status == "passed" and outcome.key == key and all(p.is_file() for p in kept))


def _state_path(folder: Path, name: str) -> Path:
    return folder / ".state" / f"{name}.json"


def _manifest(path: Path) -> str:
    """Hash over the path, size and modification time of a file, or of every file below a folder."""
    lines = []
    alone: list[tuple[str, list[str], list[str]]] = [(str(path.parent), [], [path.name])]
    for root, folders, files in os.walk(path) if path.is_dir() else alone:
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(root, name)
            try:
                status = file.stat()
            except OSError:
                lines.append(f"{file} unreadable")
                continue
            lines.append(f"{file} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
