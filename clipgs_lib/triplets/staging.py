"""Finished objects on their way into a set: one file each until all are there, then packed, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import locked
from ..shards.shard_set import ShardSet
from ..shards.tar import ShardError
from ..shards.writer import INDEX, MANIFEST, SHARD_NAME, ShardLimits, replacing, write_set
from ..words import first_of, plural

QUARANTINE = "quarantine.jsonl"
LOST = "lost.jsonl"  # objects whose mesh lost a texture or a material
_STAGING = ".building"


@dataclass(frozen=True)
class BuildReport:
    """How a build ended."""

    folder: Path
    objects: int  # in the set
    quarantined: int  # set aside, listed in quarantine.jsonl
    resumed: int  # of both, taken over from a build that was stopped
    seconds: float  # wall clock of this run
    lost: Mapping[str, list[str]] = field(default_factory=dict)  # key -> textures and materials missing from its mesh

    def __str__(self) -> str:
        taken = f", {self.resumed:,} taken over" if self.resumed else ""
        aside = f", {self.quarantined:,} set aside in {QUARANTINE}" if self.quarantined else ""
        lines = [f"{self.folder}: {plural(self.objects, 'object')}{aside}{taken}, {self.seconds:.1f} s"]
        if self.lost:
            shown = [f"{key} ({first_of(names, 3)})" for key, names in self.lost.items()]
            lines.append(f"  {plural(len(self.lost), 'object')} lost a texture or a material: {first_of(shown, 5)}")
        return "\n".join(lines)


def finished_set(folder: Path, recipe: Mapping[str, Any]) -> BuildReport | None:
    """The report of a finished set by the same recipe; None when there is no set yet."""
    if not (folder / MANIFEST).exists():
        return None
    done = ShardSet(folder)
    older = {"split_rule": recipe.get("split_rule")}  # sets made before the rule was recorded are sets all the same
    _same_recipe(folder, older | done.manifest["build"], recipe)
    path = folder / QUARANTINE
    aside = len(path.read_bytes().splitlines()) if path.exists() else 0
    if (folder / _STAGING).exists():  # killed after the last rename
        shutil.rmtree(folder / _STAGING)
    return BuildReport(folder, len(done), aside, len(done) + aside, 0.0, read_lost(folder))


def read_lost(folder: Path) -> dict[str, list[str]]:
    """Key -> textures and materials that were missing, of the objects that lost some."""
    path = folder / LOST
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {entry["key"]: entry["lost"] for entry in map(json.loads, lines)}


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
        self._have = {path.stem for pattern in ("*/*.tar", "*/*.json") for path in self._place.glob(pattern)}
        for path in [*self._place.glob("*/.*.partial"), *folder.glob(".*.partial")]:
            path.unlink()  # what a killed build was writing

    def has(self, key: str) -> bool:
        """Whether an object was kept or set aside."""
        return key in self._have

    def failures(self) -> int:
        """Objects set aside."""
        return sum(1 for _ in self._place.glob("*/*.json"))

    def keep(self, key: str, block: bytes, lost: Sequence[str] = ()) -> None:
        """Keep an object's bytes, whole or not at all, and the names of what its mesh lost."""
        if lost:
            _write(self._path(key, ".lost"), json.dumps({"key": key, "lost": list(lost)}, ensure_ascii=False).encode())
        _write(self._path(key, ".tar"), block)

    def set_aside(self, key: str, source: str, reason: str, place: str = "") -> None:
        """Keep the reason why there is no object."""
        entry = {"key": key, "source": source, "reason": reason, "place": place}
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace")
        _write(self._path(key, ".json"), line)

    def pack(
        self,
        keys: Sequence[str],
        recipe: Mapping[str, Any],
        limits: ShardLimits | None = None,
        before: Sequence[bytes] = (),
    ) -> tuple[int, int]:
        """Write quarantine, shards, index and manifest.

        Args:
            keys: of all objects, in their order.
            recipe: for the manifest.
            before: lines of the quarantine that stand before those of this build.

        Returns:
            How many objects the set has, and how many lines its quarantine.

        Raises:
            ShardError: when every object failed, or the disk is full.
        """
        failed = [path.read_bytes() for key in keys if (path := self._path(key, ".json")).exists()]
        if len(failed) == len(keys):
            first = json.loads(failed[0])["reason"]
            must = f"at least one of {plural(len(keys), 'object')} must work"
            raise ShardError(self.folder, must, f"failures only, the first: {first}", "mend it, remove the folder")
        shards = [path for path in self.folder.glob("*.tar*") if SHARD_NAME.fullmatch(path.name)]
        for old in [*shards, self.folder / INDEX, self.folder / QUARANTINE, self.folder / LOST]:
            old.unlink(missing_ok=True)  # of a packing that was killed
        lines = [*before, *failed]
        if lines:
            _write(self.folder / QUARANTINE, b"\n".join(lines) + b"\n")
        lost = [path.read_bytes() for key in keys if (path := self._path(key, ".lost")).exists()]
        if lost:
            _write(self.folder / LOST, b"\n".join(lost) + b"\n")
        blocks = (path.read_bytes() for key in keys if (path := self._path(key, ".tar")).exists())
        return int(write_set(self.folder, blocks, build=recipe, limits=limits)["objects"]), len(lines)

    def _path(self, key: str, suffix: str) -> Path:
        part = hashlib.sha256(key.encode()).hexdigest()[:2]  # 256 folders, for the sake of large sets
        return self._place / part / f"{key}{suffix}"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as stream:
        stream.write(data)
