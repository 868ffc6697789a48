"""Checkpoints of a run: safetensors and JSON in a folder of their own that appears whole or not at all.

``OUT/checkpoints/step-00000200/`` holds ``tensors.safetensors`` (weights, averaged and best weights, state of the
optimiser) and ``state.json`` (format, step, what identifies the run, progress, sha256 of the tensors). Random numbers
and the position in the data follow from the seed and the step, so nothing else is needed to go on exactly. Nothing is
ever unpickled.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import file_sha256, write_text
from ..words import first_of

FORMAT = "clipgs-checkpoint/1"
TENSORS, STATE, FOLDER, METRICS = "tensors.safetensors", "state.json", "checkpoints", "metrics.jsonl"
_STEP = re.compile(r"step-(\d{8,})")


class Records:
    """``OUT/metrics.jsonl`` of a run in the folder ``out``: one JSON object per step, in order."""

    def __init__(self, out: Path) -> None:
        self.path = out / METRICS

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record at the end."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All records that are whole: the last line of a killed run may be cut off."""
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else ():
            with suppress(ValueError):
                rows.append(json.loads(line))
        return rows

    def trim(self, step: int) -> None:
        """Drop the records of steps after a checkpoint: they are done again."""
        if self.path.is_file():
            kept = [json.dumps(row) + "\n" for row in self.read() if row["step"] <= step]
            write_text(self.path, "".join(kept))


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written, or belongs to another run."""


def save_checkpoint(
    out: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Write a checkpoint beside its place, rename it, then delete all but the newest ``keep``, which is at least 1.

    To the plain JSON of ``state`` come ``format``, ``step`` and ``sha256``. CheckpointError when the disk is full or
    refuses; the checkpoints that were there stay as they are.
    """
    home = out / FOLDER
    draft, place = home / f".step-{step:08d}.partial", home / f"step-{step:08d}"
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        home.mkdir(parents=True, exist_ok=True)
        for left in home.glob(".step-*.partial"):  # of a run that was killed while saving
            shutil.rmtree(left)
        draft.mkdir()
        save_file(plain, str(draft / TENSORS))
        facts = dict(state) | {"format": FORMAT, "step": step, "sha256": file_sha256(draft / TENSORS)}
        (draft / STATE).write_text(json.dumps(facts, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
        for name in (TENSORS, STATE):
            with (draft / name).open("rb") as file:
                os.fsync(file.fileno())
        if place.exists():
            shutil.rmtree(place)
        draft.rename(place)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        size = sum(value.numel() * value.element_size() for value in plain.values())
        full = re.search("no space|too large|quota", str(error), re.IGNORECASE)  # safetensors has no numbers of errors
        must, todo = ("fit into", "make room") if full else ("be written into", "see to that folder")
        raise CheckpointError(
            f"a checkpoint of {size / 1e6:.1f} MB must {must} {home}, got: {error}; {todo} and go on with --resume, "
            "older checkpoints are intact"
        ) from error
    for old in checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    return place


def last_checkpoint(out: Path) -> Path:
    """The newest checkpoint of a run; CheckpointError when the folder has none."""
    paths = checkpoints(out)
    if not paths:
        raise CheckpointError(
            f"--resume needs a checkpoint in {out / FOLDER}, got {'none' if out.is_dir() else 'no such folder'}; "
            "check --out, or start the run without --resume"
        )
    return paths[-1]


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state of a checkpoint; CheckpointError when it is damaged or of another version."""
    todo = f"delete {path.name} to go on from the checkpoint before it"
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / STATE} must be JSON, got {str(error)[:200]}; {todo}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = repr(state.get("format"))[:60] if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path / STATE}: format must be {FORMAT!r}, got {got}; another version wrote it, update clipgs_lib"
        )
    try:
        digest = file_sha256(path / TENSORS)
        if digest != state.get("sha256"):
            want = str(state.get("sha256"))[:12]
            raise CheckpointError(f"{path / TENSORS} must have sha256 {want}..., got {digest[:12]}...; {todo}")
        tensors = load_file(path / TENSORS)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path / TENSORS} must be intact safetensors, got {str(error)[:200]}; {todo}") from None
    return tensors, state


def check_identity(path: Path, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """CheckpointError for a checkpoint of another run, naming what differs in its ``identity``, with both values."""
    old, new = flat(stored), flat(json.loads(json.dumps(expected)))
    odd = [name for name in sorted(set(old) | set(new)) if old.get(name) != new.get(name)]
    if odd:
        differ = (f"{name} is {reprlib.repr(old.get(name))} there, {reprlib.repr(new.get(name))} now" for name in odd)
        raise CheckpointError(
            f"{path} must be of this very run, got another: {first_of(differ, 6, between='; ')}; give the same "
            "settings, or another --out"
        )


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with ``prefix/`` before them."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix/``, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + "/")}


def checkpoints(out: Path) -> list[Path]:
    """All checkpoints of a run, the newest last."""
    home = out / FOLDER
    paths = [path for path in home.iterdir() if _STEP.fullmatch(path.name)] if home.is_dir() else []
    return sorted(paths, key=lambda path: int(path.name.removeprefix("step-")))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dots in its names; an empty one stays a value."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    out: dict[str, Any] = {}
    for name, entry in value.items():
        out |= flat(entry, f"{prefix}.{name}" if prefix else str(name))
    return out
