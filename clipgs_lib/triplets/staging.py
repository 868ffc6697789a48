"""Finished objects on their way into a set: one file each until all are there, then packed, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import locked
from ..shards.shard_set import ShardSet
from ..shards.tar import ShardError
from ..shards.writer import INDEX, MANIFEST, SHARD_NAME, replacing, write_set
from ..words import first_of, plural

QUARANTINE = "quarantine.jsonl"
LOST = "lost.jsonl"  # objects whose mesh lost a texture or a material
_STAGING = ".building"

Progress = Callable[[int, int, int], None]  # objects done, objects in all, objects set aside


@dataclass(frozen=True)
class BuildReport:
    """How a build ended."""

    folder: Path
    objects: int  # in the set
    quarantined: int  # set aside, listed in quarantine.jsonl
    resumed: int  # of both, taken over from a build that was stopped
    seconds: float  # wall clock of this run
    lost: Mapping[str, list[str]] = field(default_factory=dict)  # mesh -> textures and materials it should have

    def __str__(self) -> str:
        taken = f", {self.resumed:,} taken over" if self.resumed else ""
        aside = f", {self.quarantined:,} set aside in {QUARANTINE}" if self.quarantined else ""
        lines = [f"{self.folder}: {plural(self.objects, 'object')}{aside}{taken}, {self.seconds:.1f} s"]
        if self.lost:
            shown = [f"{mesh} ({first_of(names, 3)})" for mesh, names in self.lost.items()]
            lines.append(f"  {plural(len(self.lost), 'object')} lost a texture or a material: {first_of(shown, 5)}")
        return "\n".join(lines)


def complete(
    folder: Path,
    recipe: Mapping[str, Any],
    keys: Sequence[str],
    work: Callable[[Staging], Generator[int]],
    *,
    compress: bool = False,
    before: Sequence[bytes] = (),
    progress: Progress | None = None,
) -> BuildReport:
    """Make a set of ``keys`` by a ``recipe`` (plain JSON), or go on with it; a finished one is left as it is.

    ``work`` makes the objects that `Staging.has` not yet, and yields how many are done of all. ``before`` are lines of
    the quarantine that stand before those of this build.

    ShardError when the folder holds something else or another build runs in it, every object failed, or the disk is
    full.
    """
    began = time.monotonic()
    if (folder / MANIFEST).exists():
        done = ShardSet(folder)
        older = {"split_rule": recipe.get("split_rule")}  # sets made before it was recorded are sets all the same
        _same_recipe(folder, older | done.manifest["build"], recipe)
        aside = len(_lines_of(folder / QUARANTINE))
        if (folder / _STAGING).exists():  # killed after the last rename
            shutil.rmtree(folder / _STAGING)
        objects, resumed = len(done), len(done) + aside
    else:
        with staged(folder, recipe) as stage:
            resumed = sum(stage.has(key) for key in keys)
            with closing(work(stage)) as steps:
                for count in steps:
                    if progress is not None:
                        progress(count, len(keys), stage.aside)
            objects, aside = stage.pack(keys, recipe, compress, before)
    return BuildReport(folder, objects, aside, resumed, time.monotonic() - began, read_lost(folder))


def read_lost(folder: Path) -> dict[str, list[str]]:
    """File of a mesh, or else key -> textures and materials that were missing, of the objects that lost some."""
    return {entry.get("source", entry["key"]): entry["lost"] for entry in map(json.loads, _lines_of(folder / LOST))}


def read_quarantine(folder: Path) -> list[dict[str, str]]:
    """What a build set aside: key, source, reason, place of each; nothing when there was nothing."""
    entries = map(json.loads, _lines_of(folder / QUARANTINE))
    return [{name: str(entry.get(name, "")) for name in ("key", "source", "reason", "place")} for entry in entries]


def _lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def _same_recipe(folder: Path, there: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    old, new = {**there, **there.get("config", {})}, {**recipe, **recipe["config"]}
    names = [name for name in {**new, **old} if name not in ("config", "command") and old.get(name) != new.get(name)]
    if names:
        got = ", ".join(f"{name} {old.get(name)} there and {new.get(name)} now" for name in names)
        todo = "choose another folder, or remove this one to start anew"
        raise ShardError(folder, "the folder must be empty or of the same sources and options", got, todo)


@contextmanager
def staged(folder: Path, recipe: Mapping[str, Any]) -> Iterator[Staging]:
    """The place for finished objects, for one build at a time; removed once the set is complete."""
    place = folder / _STAGING
    if folder.exists() and not place.exists() and (others := sorted(path.name for path in folder.iterdir())):
        must = "the folder must be empty, or hold a build to go on with"
        raise ShardError(folder, must, first_of(others, 3), "choose another")
    place.mkdir(parents=True, exist_ok=True)
    must = "one build may run in a folder"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place / "lock", must))
        except OSError as error:
            raise ShardError(folder, must, str(error), "wait for the first") from error
        recipe_file = place / "recipe.json"
        if recipe_file.exists():
            _same_recipe(folder, json.loads(recipe_file.read_text(encoding="utf-8")), recipe)
        else:
            _write(recipe_file, json.dumps(recipe).encode())
        yield Staging(folder)
        shutil.rmtree(place)


class Staging:
    """Finished objects and failures as files, until they are packed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._place = folder, folder / _STAGING
        kept, failed = ({path.stem for path in self._place.glob(f"*/*{suffix}")} for suffix in (".tar", ".json"))
        self._have, self.aside = kept | failed, len(failed)  # when it was opened; set aside until now
        for path in [*self._place.glob("*/.*.partial"), *folder.glob(".*.partial")]:
            path.unlink()  # what a killed build was writing

    def has(self, key: str) -> bool:
        """Whether an object had been kept or set aside when this build began."""
        return key in self._have

    def keep(self, key: str, source: str, block: bytes, lost: Sequence[str]) -> None:
        """Keep an object's bytes, whole or not at all, and the names of what its mesh lost."""
        if lost:
            line = json.dumps({"key": key, "source": source, "lost": list(lost)}, ensure_ascii=False)
            _write(self._path(key, ".lost"), line.encode("utf-8", "backslashreplace"))
        _write(self._path(key, ".tar"), block)

    def set_aside(self, key: str, source: str, reason: str, place: str = "") -> None:
        """Keep the reason why there is no object."""
        entry = {"key": key, "source": source, "reason": reason, "place": place}
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace")
        _write(self._path(key, ".json"), line)
        self.aside += key not in self._have

    def pack(
        self, keys: Sequence[str], recipe: Mapping[str, Any], compress: bool, before: Sequence[bytes]
    ) -> tuple[int, int]:
        """Write quarantine, shards, index and manifest; returns how many objects and lines of the quarantine."""
        failed = [path.read_bytes() for key in keys if (path := self._path(key, ".json")).exists()]
        if failed and len(failed) == len(keys):
            first = json.loads(failed[0])["reason"]
            must = f"at least one of {plural(len(keys), 'object')} must work"
            raise ShardError(self.folder, must, f"failures only, the first: {first}", "mend it, remove the folder")
        shards = [path for path in self.folder.glob("*.tar*") if SHARD_NAME.fullmatch(path.name)]
        for old in [*shards, self.folder / INDEX, self.folder / QUARANTINE, self.folder / LOST]:
            old.unlink(missing_ok=True)  # of a packing that was killed
        lost = [path.read_bytes() for key in keys if (path := self._path(key, ".lost")).exists()]
        for name, lines in ((QUARANTINE, [*before, *failed]), (LOST, lost)):
            if lines:
                _write(self.folder / name, b"\n".join(lines) + b"\n")
        blocks = (path.read_bytes() for key in keys if (path := self._path(key, ".tar")).exists())
        manifest = write_set(self.folder, blocks, build=recipe, compress=compress)
        return int(manifest["objects"]), len(before) + len(failed)

    def _path(self, key: str, suffix: str) -> Path:
        part = hashlib.sha256(key.encode()).hexdigest()[:2]  # 256 folders, for the sake of large sets
        return self._place / part / f"{key}{suffix}"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as stream:
        stream.write(data)
