"""Labels of a person: an append-only file of strokes, saved one by one, that several windows may write to."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ...errors import ExplainedError
from ...files import LockedError, locked
from ...settings import from_plain

PATIENCE = 10.0  # seconds that a stroke waits for another window's


class LabelError(ExplainedError):
    """A file of labels that cannot be used; the sentence says why."""


@dataclass(frozen=True)
class Stroke:
    """One answer about one object, or the taking back of one: a line of the file."""

    key: str  # of the object
    answer: Literal["yes", "no", "skip", "undo"]
    labeller: str  # who
    time: str  # when, UTC, ISO 8601
    gallery: str  # hash of the set's content that the key is of
    id: str  # of this stroke
    undoes: str = ""  # id of the stroke that an undo takes back


class LabelFile:
    """Strokes in a JSON-lines file: each is appended under a lock and on the disk before `add` returns.

    A process that dies leaves at most a torn last line, which is no stroke: reading skips it, `add` removes it. The
    file is made by the first stroke; ``gallery`` is the hash of the set that is labelled, and strokes of another are
    refused.
    """

    def __init__(self, path: str | os.PathLike[str], gallery: str, labeller: str = "") -> None:
        self.path, self.gallery = Path(path), gallery
        self.labeller = labeller or os.environ.get("USER") or "unknown"

    def read(self) -> list[Stroke]:
        """All strokes of all windows, in their order; LabelError for a line that is none, or one of another set."""
        data = self.path.read_bytes() if self.path.exists() else b""
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        return [self._stroke(line, number) for number, line in enumerate(lines, start=1)]

    def _stroke(self, line: bytes, number: int) -> Stroke:
        where = f"{self.path}, line {number}"
        try:
            stroke = from_plain(Stroke, json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise LabelError(where, "a line must be a stroke", str(error)[:200], "remove the line") from None
        if stroke.gallery != self.gallery:
            must = f"labels must be of the set with the content {self.gallery[:12]}"
            todo = "name the set that was labelled, or another file of labels"
            raise LabelError(where, must, f"those of {stroke.gallery[:12]}", todo)
        return stroke

    def add(self, key: str, answer: Literal["yes", "no", "skip", "undo"], undoes: str = "") -> Stroke:
        """Append a stroke; `locked` keeps other windows out meanwhile.

        LabelError when the file is of another set; OSError when it cannot be written, or stays locked.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        stroke = Stroke(key, answer, self.labeller, now, self.gallery, secrets.token_hex(6), undoes)
        line = json.dumps(asdict(stroke)) + "\n"
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with locked(f"{self.path}.lock", "one window at a time may add a label"):
                    self.read()  # never append to another set's file
                    self._append(line.encode())
                return stroke
            except LockedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _append(self, line: bytes) -> None:
        with self.path.open("a+b") as file:
            file.seek(0)
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def standing(strokes: Sequence[Stroke]) -> list[Stroke]:
    """Answers that nobody took back, in their order; the last one about an object holds."""
    undone = {stroke.undoes for stroke in strokes if stroke.answer == "undo"}
    return [stroke for stroke in strokes if stroke.answer != "undo" and stroke.id not in undone]


def contradictions(answers: Sequence[Stroke]) -> list[str]:
    """A sentence for each object that got yes and no among answers that stand."""
    by_key = dict[str, list[Stroke]]()
    for stroke in answers:
        by_key.setdefault(stroke.key, []).append(stroke)
    return [
        f"{key}: {', then '.join(f'{one.answer} by {one.labeller}' for one in said)}; the last one counts"
        for key, said in by_key.items()
        if {"yes", "no"} <= {one.answer for one in said}
    ]
