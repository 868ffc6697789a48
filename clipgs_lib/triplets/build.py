"""Building a set: every object through the same function, kept as it comes, packed into shards at the end.

Each finished object is one file under ``OUT/.building`` (whole or absent), so a build that was killed goes on where it
stood. Shards are packed from these files in the order of the sources: neither the number of workers nor the order in
which they finish shows in the result. An object that fails is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..splats import UP_AXES
from .build_pool import over_processes, over_ray
from .shards import SCHEMA, Triplet, encode_triplet
from .shards_set import ShardSet
from .shards_tar import KEY, ShardError
from .shards_write import INDEX, MANIFEST, SHARD_NAME, ShardLimits, replacing, write_set

QUARANTINE = "quarantine.jsonl"
_STAGING = ".building"


@dataclass(frozen=True)
class BuildConfig:
    """What goes into each object. Equal configs, sources and library versions give equal sets."""

    views: int = 12  # pictures per object (36 in the paper)
    size: int = 224  # pixels per side of a picture
    elevations: tuple[float, float] = (-20.0, 70.0)  # belt of the cameras, degrees; (-90, 90) is the whole sphere
    gaussians: int = 1_024  # per object
    iterations: int = 600  # of fitting; 0 keeps the initialisation
    teacher: str | None = None  # name for `teachers.load_teacher`; None leaves embeddings out
    device: str = "cpu"  # where to fit and embed; on "cuda" fits repeat within tolerance, not bit for bit
    quality: int = 90  # of the WebPs, 1 to 100
    seed: int = 0
    up_axis: str | None = None  # of meshes and splats: one of `splats.UP_AXES`; None as the file says
    factors: str = "linear"  # base colour factors of glTF, see `importing.read_mesh`

    def __post_init__(self) -> None:
        limits = {
            "views": (2, 1_000),
            "size": (16, 4_096),
            "gaussians": (4, 1 << 20),
            "iterations": (0, 1_000_000),
            "quality": (1, 100),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number in {low}..{high:,}, got {value!r}")
        if not -90 <= self.elevations[0] < self.elevations[1] <= 90:
            raise ValueError(f"elevations must rise within -90..90 degrees, got {self.elevations}")
        words = {"up_axis": (None, *UP_AXES), "factors": ("linear", "srgb", "guess")}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Source:
    """One object to build."""

    key: str  # its name in the set, see `shards_tar.KEY`
    kind: str  # "catalogue", "mesh" or "splat"
    index: int = 0  # of the catalogue
    seed: int = 0  # of the catalogue
    path: str = ""  # of the file
    name: str = ""  # of the file, below the folder that was given; goes into the set, unlike `path`
    bytes: int = 0  # of the file, to notice another one when a build goes on
    info: Mapping[str, str] = field(default_factory=dict)  # what a table said: name, label, caption, source, licence


class StopBuild(Exception):
    """Raised by a producer when no object could work, such as for want of the teacher; ends the build."""


Producer = Callable[[Source, BuildConfig], Triplet]


@dataclass(frozen=True)
class Outcome:
    """What came of one object: its bytes, or why there are none."""

    source: Source
    block: bytes = b""
    error: str = ""  # "ShardError: ..."; empty when it worked
    place: str = ""  # "fitting.py, line 12, in fit"
    fatal: bool = False  # no other object would fare better


@dataclass(frozen=True)
class BuildReport:
    """How a build ended."""

    folder: Path
    objects: int  # in the set
    quarantined: int  # set aside, listed in quarantine.jsonl
    resumed: int  # of both, taken over from a build that was stopped
    seconds: float  # wall clock of this run

    def __str__(self) -> str:
        taken = f", {self.resumed:,} taken over" if self.resumed else ""
        aside = f", {self.quarantined:,} set aside in {QUARANTINE}" if self.quarantined else ""
        return f"{self.folder}: {self.objects:,} objects{aside}{taken}, {self.seconds:.1f} s"


def build_triplets(
    sources: Sequence[Source],
    out: str | os.PathLike[str],
    config: BuildConfig | None = None,
    *,
    workers: int = 1,
    ray: str | None = None,
    limits: ShardLimits | None = None,
    produce: Producer | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> BuildReport:
    """Build a set, or go on with one that was stopped; a finished one is left as it is.

    In a script, call it under ``if __name__ == "__main__"``: worker processes import the script.

    Args:
        sources: objects in the order of the set; see `build_sources.catalogue_sources` and `folder_sources`.
        out: folder of the set, made when missing.
        config: None takes the defaults.
        workers: processes, or CPUs of a Ray started here (``ray="local"``).
        ray: address of a Ray cluster, which then does the work; only this process writes.
        limits: of the shards.
        produce: importable function that makes one object; None for `build_stages.produce`.
        progress: called with objects done, objects in all, objects set aside.

    Raises:
        ShardError: when the folder holds another set or another build runs in it, when no object worked or none
            could (`StopBuild`), or when the disk is full (what is finished is kept, and the same call goes on).
        ValueError: when two sources have one key, or a number is out of range.
    """
    began, folder, config = time.monotonic(), Path(out), config or BuildConfig()
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    _check_sources(sources)
    recipe = _recipe(sources, config)
    finished = _finished(folder, recipe)
    if finished is not None:
        return replace(finished, seconds=time.monotonic() - began)
    with _staged(folder, recipe) as stage:
        todo = [source for source in sources if not stage.has(source)]
        counts = [len(sources) - len(todo), stage.failures()]
        resumed = counts[0]
        results = _results(partial(_attempt, produce or _default_producer(), config), todo, config, workers, ray)
        with closing(results):
            for outcome in results:
                if outcome.fatal:
                    raise ShardError(str(folder), "objects must be makeable", outcome.error, "mend it and build again")
                stage.keep(outcome)
                counts = [counts[0] + 1, counts[1] + bool(outcome.error)]
                if progress is not None:
                    progress(counts[0], len(sources), counts[1])
        objects = stage.pack(sources, recipe, limits)
    return BuildReport(folder, objects, counts[1], resumed, time.monotonic() - began)


def _results(
    work: Callable[[Source], Outcome], todo: Sequence[Source], config: BuildConfig, workers: int, ray: str | None
) -> Generator[Outcome, None, None]:
    if ray is not None:
        return over_ray(work, todo, ray, _died, workers=workers, gpus=float(config.device != "cpu"))
    return over_processes(work, todo, workers, _died)


def _attempt(produce: Producer, config: BuildConfig, source: Source) -> Outcome:
    """Make one object in a worker. Whatever goes wrong is its outcome: one object of many must not stop the rest."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            triplet = produce(source, config)
        if triplet.key != source.key:
            raise ShardError(f"object {source.key}", "produce must keep the source's key", repr(triplet.key))
        notes = [str(w.message) for w in caught if w.category.__module__.startswith("clipgs_lib")]
        if notes:
            triplet = replace(triplet, provenance=triplet.provenance | {"notes": notes})
        return Outcome(source, encode_triplet(triplet))
    except StopBuild as error:
        return Outcome(source, error=str(error), fatal=True)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
        words = str(error).replace(source.path, source.name) if source.path else str(error)
        return Outcome(source, error=f"{type(error).__name__}: {words}"[:2_000], place=place)


def _died(source: Source, how: str) -> Outcome:
    return Outcome(source, error=how)


def _default_producer() -> Producer:
    from .build_stages import produce

    return produce


def _check_sources(sources: Sequence[Source]) -> None:
    if not sources:
        raise ValueError("a build needs at least one source, got none; is the folder empty?")
    seen = set[str]()
    for source in sources:
        if not KEY.fullmatch(source.key) or source.key in seen:
            raise ValueError(f"keys must be unique and 1 to 64 of A-Z a-z 0-9 _ -, got {source.key!r}; rename the file")
        seen.add(source.key)


def _recipe(sources: Sequence[Source], config: BuildConfig) -> dict[str, Any]:
    """What the set depends on, as it stands in the manifest."""
    parts = [[s.key, s.kind, s.index, s.seed, s.name, s.bytes, sorted(s.info.items())] for s in sources]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    told = json.loads(json.dumps(asdict(config)))  # as it will be read back
    return {"config": told, "sources": len(sources), "sources_sha256": digest, "object_schema": SCHEMA}


def _finished(folder: Path, recipe: Mapping[str, Any]) -> BuildReport | None:
    """The report of a finished set by the same recipe; None when there is no set yet."""
    if not (folder / MANIFEST).exists():
        return None
    done = ShardSet(folder)
    _same_recipe(folder, done.manifest["build"], recipe)
    path = folder / QUARANTINE
    aside = len(path.read_bytes().splitlines()) if path.exists() else 0
    if (folder / _STAGING).exists():  # killed after the last rename
        shutil.rmtree(folder / _STAGING)
    return BuildReport(folder, len(done), aside, len(done) + aside, 0.0)


def _same_recipe(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if there == wanted:
        return
    old, new = {**there, **there.get("config", {})}, {**wanted, **wanted["config"]}
    names = [name for name in new if name != "config" and old.get(name) != new[name]]
    got = ", ".join(f"{name} {old.get(name)} there and {new[name]} now" for name in names)
    todo = "choose another folder, or remove this one to start anew"
    raise ShardError(str(folder), "the folder must be empty or of the same sources and options", got, todo)


# ---- staging -----------------------------------------------------------------------------------------------------


@contextmanager
def _staged(folder: Path, recipe: Mapping[str, Any]) -> Iterator[_Staging]:
    """The place for finished objects, for one build at a time; removed once the set is complete."""
    place = folder / _STAGING
    strangers = [] if place.exists() or not folder.exists() else [p.name for p in folder.iterdir()]
    if strangers:
        got = ", ".join(sorted(strangers)[:3])
        raise ShardError(str(folder), "the folder must be empty, or hold a build to go on with", got, "choose another")
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process dies
        except OSError:
            raise ShardError(str(folder), "one build may run in a folder", "a second", "wait for the first") from None
        recipe_file = place / "recipe.json"
        if recipe_file.exists():
            _same_recipe(folder, json.loads(recipe_file.read_text(encoding="utf-8")), recipe)
        else:
            with replacing(recipe_file) as stream:
                stream.write(json.dumps(recipe).encode())
        yield _Staging(folder)
        shutil.rmtree(place)


class _Staging:
    """Finished objects and failures as files, until they are packed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._place = folder, folder / _STAGING
        self._have = {path.stem for pattern in ("*/*.tar", "*/*.json") for path in self._place.glob(pattern)}
        for path in [*self._place.glob("*/.*.partial"), *folder.glob(".*.partial")]:
            path.unlink()  # what a killed build was writing

    def has(self, source: Source) -> bool:
        return source.key in self._have

    def failures(self) -> int:
        return sum(1 for _ in self._place.glob("*/*.json"))

    def keep(self, outcome: Outcome) -> None:
        """Write one outcome, whole or not at all."""
        path = self._path(outcome.source, ".json" if outcome.error else ".tar")
        path.parent.mkdir(exist_ok=True)
        data = outcome.block
        if outcome.error:
            source = outcome.source
            entry = {"key": source.key, "source": source.name or f"{source.kind} {source.index}"}
            data = json.dumps(entry | {"reason": outcome.error, "place": outcome.place}, ensure_ascii=False).encode(
                "utf-8", "backslashreplace"
            )
        with replacing(path) as stream:
            stream.write(data)

    def pack(self, sources: Sequence[Source], recipe: Mapping[str, Any], limits: ShardLimits | None) -> int:
        """Write quarantine, shards, index and manifest; returns the number of objects."""
        failed = [path.read_bytes() for s in sources if (path := self._path(s, ".json")).exists()]
        if len(failed) == len(sources):
            first = json.loads(failed[0])["reason"]
            must = f"at least one of {len(sources):,} objects must work"
            raise ShardError(str(self.folder), must, f"failures only, the first: {first}", "mend it, remove the folder")
        shards = [path for path in self.folder.glob("*.tar") if SHARD_NAME.fullmatch(path.name)]
        for old in [*shards, self.folder / INDEX, self.folder / QUARANTINE]:
            old.unlink(missing_ok=True)  # of a packing that was killed
        if failed:
            with replacing(self.folder / QUARANTINE) as stream:
                stream.write(b"\n".join(failed) + b"\n")
        blocks = (path.read_bytes() for s in sources if (path := self._path(s, ".tar")).exists())
        return int(write_set(self.folder, blocks, build=recipe, limits=limits)["objects"])

    def _path(self, source: Source, suffix: str) -> Path:
        part = hashlib.sha256(source.key.encode()).hexdigest()[:2]  # 256 folders, for the sake of large sets
        return self._place / part / f"{source.key}{suffix}"
