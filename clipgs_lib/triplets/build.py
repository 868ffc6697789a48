"""Building a set: every object through the same function, kept as it comes, packed into shards at the end.

Each finished object is one file under ``OUT/.building`` (whole or absent), so a build that was killed goes on where it
stood. Shards are packed from these files in the order of the sources: neither the number of workers nor the order in
which they finish shows in the result. An object that fails is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..shards.tar import KEY, ShardError
from ..shards.triplet import SCHEMA, Triplet, encode_triplet
from ..shards.writer import ShardLimits
from ..splits import RULE
from .pool import LIMIT, over_processes, over_ray
from .recipe import BuildConfig, Producer, Source, StopBuild
from .staging import BuildReport, Staging, finished_set, read_lost, staged

BATCH = 16  # objects that share a fit on CUDA: one alone leaves the device mostly idle, and more bring little


@dataclass(frozen=True)
class Outcome:
    """What came of one object: its bytes, or why there are none."""

    source: Source
    block: bytes = b""
    lost: tuple[str, ...] = ()  # names of textures and materials that its mesh should have
    error: str = ""  # "ShardError: ..."; empty when it worked
    place: str = ""  # "fitting.py, line 12, in fit"
    fatal: bool = False  # no other object would fare better


def build_triplets(
    sources: Sequence[Source],
    out: str | os.PathLike[str],
    config: BuildConfig | None = None,
    *,
    workers: int = 1,
    ray: str | None = None,
    limit: float = LIMIT,
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
        limit: seconds that one object may take before it is set aside and its process ended.
        limits: of the shards.
        produce: importable function that makes one object; None for `stages.produce`.
        progress: called with objects done, objects in all, objects set aside.

    Raises:
        ShardError: when the folder holds another set or another build runs in it, when no object worked or none
            could (`StopBuild`), or when the disk is full (what is finished is kept, and the same call goes on).
        ValueError: when two sources have one key, or a number is out of range.
    """
    began, folder, config = time.monotonic(), Path(out), config or BuildConfig()
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if not limit > 0:
        raise ValueError(f"limit must be a positive number of seconds, got {limit}")
    _check_sources(sources)
    recipe = _recipe(sources, config)
    finished = finished_set(folder, recipe)
    if finished is not None:
        return replace(finished, seconds=time.monotonic() - began)
    with staged(folder, recipe) as stage:
        todo = [source for source in sources if not stage.has(source.key)]
        counts = [len(sources) - len(todo), stage.failures()]
        resumed = counts[0]
        results = _make(todo, config, produce, partial(_share, workers=workers, ray=ray), limit)
        with closing(results):
            for outcome in results:
                if outcome.fatal:
                    raise ShardError(str(folder), "objects must be makeable", outcome.error, "mend it and build again")
                _keep(stage, outcome)
                counts = [counts[0] + 1, counts[1] + bool(outcome.error)]
                if progress is not None:
                    progress(counts[0], len(sources), counts[1])
        objects, aside = stage.pack([source.key for source in sources], recipe, limits)
    return BuildReport(folder, objects, aside, resumed, time.monotonic() - began, read_lost(folder))


def _keep(stage: Staging, outcome: Outcome) -> None:
    source = outcome.source
    if outcome.error:
        shown = source.name or f"{source.kind} {source.index}"
        stage.set_aside(source.key, shown, outcome.error, outcome.place)
    else:
        stage.keep(source.key, outcome.block, outcome.lost)


def _make(
    sources: Sequence[Source], config: BuildConfig, produce: Producer | None, share: Any, limit: float
) -> Generator[Outcome, None, None]:
    """Outcomes in the order in which they come. On CUDA, whole batches go to the workers and are fitted together.

    A batch whose process died, or took too long, is made again object by object, so that only the guilty one is lost.
    """
    if produce is not None or not config.device.startswith("cuda"):
        with closing(
            share(partial(_attempt, produce or _default_producer()), config, sources, _died, limit)
        ) as results:
            yield from results
        return
    batches = [tuple(sources[i : i + BATCH]) for i in range(0, len(sources), BATCH)]
    left = {source.key: source for source in sources}
    with closing(share(_attempt_together, config, batches, lambda *_: [], limit * BATCH)) as results:
        for outcomes in results:
            for outcome in outcomes:
                del left[outcome.source.key]
                yield outcome
    alone = [(source,) for source in left.values()]
    with closing(share(_attempt_together, config, alone, lambda one, how: [_died(one[0], how)], limit)) as results:
        for outcomes in results:
            yield from outcomes


def _share(
    attempt: Any, config: BuildConfig, items: Sequence[Any], dead: Any, limit: float, *, workers: int, ray: str | None
) -> Generator[Any, None, None]:
    """Items over processes, or over the workers of a Ray cluster."""
    work = partial(attempt, config)
    if ray is None:
        return over_processes(work, items, workers, dead, limit)
    return over_ray(work, items, ray, dead, workers=workers, gpus=float(config.device != "cpu"), limit=limit)


def _attempt(produce: Producer, config: BuildConfig, source: Source) -> Outcome:
    """Make one object in a worker. Whatever goes wrong is its outcome: one object of many must not stop the rest."""
    attempt = _Attempt(source)
    with attempt:
        attempt.finish(produce(source, config))
    return attempt.outcome


def _attempt_together(config: BuildConfig, sources: Sequence[Source]) -> list[Outcome]:
    """Make some objects in a worker, fitted in one batch; one by one when the batch does not work as a whole."""
    from .stages import fit_together, making

    attempts = [_Attempt(source) for source in sources]
    jobs = dict[int, Any]()
    steps = [making(source, config) for source in sources]
    for number, attempt in enumerate(attempts):
        with attempt:
            try:
                jobs[number] = next(steps[number])
            except StopIteration as end:
                attempt.finish(end.value)
    try:
        results: Sequence[Any] = fit_together(list(jobs.values()), config) if jobs else ()
    except (ValueError, RuntimeError):  # one of them is no good, or the memory of the device does not do for all
        results = [None] * len(jobs)
    for (number, job), result in zip(jobs.items(), results, strict=True):
        with attempts[number] as attempt:
            try:
                steps[number].send(result or fit_together([job], config)[0])
            except StopIteration as end:
                attempt.finish(end.value)
    return [attempt.outcome for attempt in attempts]


class _Attempt:
    """One object on its way: a context, in which warnings become notes and errors the outcome."""

    def __init__(self, source: Source) -> None:
        self.source, self.outcome, self.notes = source, Outcome(source), list[str]()

    def finish(self, triplet: Triplet) -> None:
        """Encode what came of it."""
        if triplet.key != self.source.key:
            raise ShardError(f"object {self.source.key}", "produce must keep the source's key", repr(triplet.key))
        self._note()
        if self.notes:
            triplet = replace(triplet, provenance=triplet.provenance | {"notes": self.notes})
        self.outcome = Outcome(self.source, encode_triplet(triplet), lost=tuple(triplet.provenance.get("lost", ())))

    def _note(self) -> None:
        self.notes += [str(w.message) for w in self._caught if w.category.__module__.startswith("clipgs_lib")]
        self._caught.clear()

    def __enter__(self) -> _Attempt:
        self._catching = warnings.catch_warnings(record=True)
        self._caught: Any = self._catching.__enter__()  # a list, as told to record
        warnings.simplefilter("always")
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self._note()
        self._catching.__exit__(kind, error, trace)
        if isinstance(error, StopBuild):
            self.outcome = Outcome(self.source, error=str(error), fatal=True)
        elif isinstance(error, Exception):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
            words = str(error).replace(self.source.path, self.source.name) if self.source.path else str(error)
            self.outcome = Outcome(self.source, error=f"{type(error).__name__}: {words}"[:2_000], place=place)
        return error is None or isinstance(error, Exception)


def _died(source: Source, how: str) -> Outcome:
    return Outcome(source, error=how)


def _default_producer() -> Producer:
    from .stages import produce

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
    return {
        "config": json.loads(json.dumps(asdict(config))),  # as it will be read back
        "sources": len(sources),
        "sources_sha256": digest,
        "object_schema": SCHEMA,
        "split_rule": RULE,
    }
