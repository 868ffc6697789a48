"""Building a set: every object through the same function, kept as it comes, packed into shards at the end.

Each finished object is one file under ``OUT/.building`` (whole or absent), so a build that was killed goes on where it
stood. Shards are packed from these files in the order of the sources: neither the number of workers nor the order in
which they finish shows in the result. An object that fails is set aside with its reason, and the rest goes on.
"""

import hashlib
import json
import os
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..fitting import FitResult
from ..pool import LIMIT, over_processes, over_ray
from ..shards.tar import KEY, ShardError
from ..shards.triplet import SCHEMA, Triplet, encode_triplet
from ..splits import RULE
from . import stages
from .recipe import BuildConfig, Source, StopBuild
from .staging import BuildReport, Progress, Staging, complete

BATCH = 16  # objects that share a fit on CUDA: one alone leaves the device mostly idle, and more bring little

Producer = Callable[[Source, BuildConfig], Triplet]


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
    produce: Producer | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a set, or go on with one that was stopped; a finished one is left as it is.

    In a script, call it under ``if __name__ == "__main__"``: worker processes import the script.

    Args:
        sources: objects in the order of the set; see `catalogue_sources` and `folder_sources`.
        out: folder of the set, made when missing.
        config: None takes the defaults.
        workers: processes, or CPUs of a Ray started here (``ray="local"``).
        ray: address of a Ray cluster, which then does the work; only this process writes.
        limit: seconds that one object may take before it is set aside and its process ended.
        produce: importable function that makes one object; None for `stages.produce`.
        progress: called with objects done, objects in all, objects set aside.

    Raises:
        ShardError: when the folder holds another set or another build runs in it, when no object worked or none
            could (`StopBuild`), or when the disk is full (what is finished is kept, and the same call goes on).
        ValueError: when two sources have one key, or a number is out of range.
    """
    config = config or BuildConfig()
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if not limit > 0:
        raise ValueError(f"limit must be a positive number of seconds, got {limit}")
    _check_sources(sources)
    share: Any = partial(over_processes, workers=workers)
    if ray is not None:
        share = partial(over_ray, address=ray, workers=workers, gpus=float(config.device != "cpu"))

    def work(stage: Staging) -> Generator[int]:
        left = [source for source in sources if not stage.has(source.key)]
        with closing(_outcomes(left, config, produce, share, limit)) as outcomes:
            for done, outcome in enumerate(outcomes, start=len(sources) - len(left) + 1):
                source = outcome.source
                if outcome.fatal:
                    raise ShardError(str(out), "objects must be makeable", outcome.error, "mend it and build again")
                shown = source.name or f"{source.kind} {source.index}"
                if outcome.error:
                    stage.set_aside(source.key, shown, outcome.error, outcome.place)
                else:
                    stage.keep(source.key, shown, outcome.block, outcome.lost)
                yield done

    keys = [source.key for source in sources]
    return complete(Path(out), _recipe(sources, config), keys, work, progress=progress)


def _outcomes(
    sources: Sequence[Source], config: BuildConfig, produce: Producer | None, share: Any, limit: float
) -> Generator[Outcome]:
    """Outcomes in the order in which they come. On CUDA, whole batches go to the workers and are fitted together.

    A batch whose process died, or took too long, is made again object by object, so that only the guilty one is lost.
    """
    left = {source.key: source for source in sources}
    together = produce is None and config.device.startswith("cuda")
    for size in (BATCH, 1) if together else (1,):
        items = list(left.values())
        batches = [items[i : i + size] for i in range(0, len(items), size)]
        with closing(share(partial(_attempt, produce, config), batches, limit=limit * size)) as results:
            for batch, outcomes, how in results:
                lost = [] if size > 1 else [Outcome(source, error=how) for source in batch]
                for outcome in outcomes or lost:
                    del left[outcome.source.key]
                    yield outcome


def _attempt(produce: Producer | None, config: BuildConfig, sources: Sequence[Source]) -> list[Outcome]:
    """Make some objects in a worker, fitted in one batch; one by one when the batch does not work as a whole.

    Whatever goes wrong with an object is its outcome: one of many must not stop the rest.
    """
    attempts = [_Attempt(source) for source in sources]
    for attempt in attempts:
        with attempt.watched():
            if produce is None:
                attempt.begun = stages.begin(attempt.source, config)
            else:
                attempt.finish(produce(attempt.source, config))
    begun = [attempt for attempt in attempts if attempt.begun is not None]
    jobs = {attempt.source.key: attempt.begun.job for attempt in begun if attempt.begun and attempt.begun.job}
    results = dict[str, FitResult]()
    if len(jobs) > 1:
        with suppress(ValueError, RuntimeError):  # one is no good, or the memory of the device does not do for all
            results = dict(zip(jobs, stages.fit_together(list(jobs.values()), config), strict=True))
    for attempt in begun:
        with attempt.watched():
            attempt.finish(stages.finish(attempt.begun, config, results.get(attempt.source.key)))
    return [attempt.outcome for attempt in attempts]


class _Attempt:
    """One object on its way."""

    def __init__(self, source: Source) -> None:
        self.source, self.outcome, self.notes = source, Outcome(source), list[str]()
        self.begun: Any = None  # a `stages.Begun`

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

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While it is worked on, warnings become notes and an error the outcome."""
        with warnings.catch_warnings(record=True) as self._caught:
            warnings.simplefilter("always")
            try:
                yield
            except StopBuild as error:
                self.outcome = Outcome(self.source, error=str(error), fatal=True)
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
                words = str(error).replace(self.source.path, self.source.name) if self.source.path else str(error)
                self.outcome = Outcome(self.source, error=f"{type(error).__name__}: {words}"[:2_000], place=place)
            self._note()


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
    parts = [
        [s.key, s.kind, s.index, s.seed, s.name, s.bytes, sorted(s.info.items()), *([s.copy] if s.copy else [])]
        for s in sources
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {
        "config": json.loads(json.dumps(asdict(config))),  # as it will be read back
        "sources": len(sources),
        "sources_sha256": digest,
        "object_schema": SCHEMA,
        "split_rule": RULE,
    }
