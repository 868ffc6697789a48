"""An ablation: a grid of training runs that differ in little, each with several seeds, and what every object gave.

Every run has its folder below ``OUT/runs``, named by arm, seed and a hash of all that decides its weights. So a
finished run is not done again, a killed one goes on from its last checkpoint, and changed settings begin anew beside
the old ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..catalogue import KINDS
from ..encoders import Encoder, EncoderError, encoder_config, load_encoder
from ..evaluation import embed_set, hit_rates, load_set
from ..evaluation.benchmarks import build_pairs, pair_hits
from ..evaluation.evaluation_set import class_weights
from ..evaluation.results import verdict_on
from ..evaluation.run import Progress
from ..evaluation.scores import crossed_interval, intervals
from ..files import locked, write_text
from ..pool import over_processes
from ..runtime import resolve_device
from ..settings import from_plain
from ..shards import ShardSet
from .card import TASKS
from .checkpoint import Records, checkpoints
from .data import Objects
from .loop import EXPORT, train
from .run_config import TrainConfig

METRICS = {name: words for name, words in TASKS if name in ("text_r1", "image_r1", "zero_shot_top1", "zero_shot_top5")}
METRICS |= {str(kind): f"text finds its side of a pair that differs in {kind} alone" for kind in KINDS}
PAIRS = "catalogue pairs"  # name of a target
_NAMES = ("start", "against")  # what an arm has beside settings: names of other arms
_GIVEN = ("out", "seed", "resume")  # settings that the grid decides
_POLL = 2.0  # seconds between two looks at how far the runs are

_load_set, _words = functools.cache(load_set), functools.cache(class_weights)


@dataclass(frozen=True)
class Grid:
    """Which arms are compared, and on what."""

    common: Mapping[str, Any]  # settings of `TrainConfig` for all arms
    # name -> settings that differ (steps: 0 leaves weights as they are), and other arms: `start`, one above it from
    # whose weights of the same seed it starts; `against`, the one that it is compared with instead of the baseline
    arms: Mapping[str, Mapping[str, Any]]
    baseline: str  # the arm that others are compared with; its shards are measured
    seeds: tuple[int, ...] = (0, 1, 2)  # at least 3
    splits: tuple[str, ...] = ("test",)  # of the shards, each measured by itself
    others: tuple[str, ...] = ()  # sets that no arm learns from, each measured as a whole
    pairs: int = 64  # minimal pairs of each kind; 0: none
    metrics: tuple[str, ...] = tuple(METRICS)  # to be compared

    def __post_init__(self) -> None:
        names = list(self.arms)
        if self.baseline not in names:
            raise ValueError(f"baseline must be one of the arms {', '.join(names)}, got {self.baseline!r}")
        if len(set(self.seeds)) < max(3, len(self.seeds)):
            raise ValueError(f"seeds must be 3 or more different ones, got {list(self.seeds)}")
        if unknown := sorted(set(self.metrics) - set(METRICS)):
            raise ValueError(f"metrics must be among {', '.join(METRICS)}, got {', '.join(unknown)}")
        for place, (name, arm) in enumerate(self.arms.items()):
            for key, allowed in (("start", names[:place]), ("against", {*names} - {name})):
                if key in arm and arm[key] not in allowed:
                    where = "an arm above it" if key == "start" else "another arm"
                    raise ValueError(f"{key} of arm {name!r} must be {where}, got {arm[key]!r}")
            self.config(name)

    def config(self, arm: str) -> TrainConfig:
        """Settings of an arm, without seed and folder; its mappings are merged with the common ones.

        Raises:
            ValueError: for settings that a run does not have, that do not hold, or that the grid decides.
        """
        values = dict(self.common)
        for name, value in ((name, value) for name, value in self.arms[arm].items() if name not in _NAMES):
            both = isinstance(value, Mapping) and isinstance(values.get(name), Mapping)
            values[name] = {**values[name], **value} if both else value
        if given := [name for name in _GIVEN if name in values]:
            raise ValueError(f"arm {arm!r} must leave {', '.join(_GIVEN)} to the grid, got {', '.join(given)}")
        try:
            config: TrainConfig = from_plain(TrainConfig, values | {"out": "-"})
            encoder_config(config.encoder, **config.encoder_options)
        except (ValueError, EncoderError) as error:
            raise ValueError(f"arm {arm!r}: {error}") from None
        return config


class ArmRun(NamedTuple):
    """One training run of an ablation."""

    arm: str
    folder: Path
    config: TrainConfig
    level: int  # how many runs come before it, from the weights of the last of which it starts


class Target(NamedTuple):
    """What is measured of every run."""

    name: str  # of the split or the set; PAIRS
    folders: tuple[str, ...]
    split: str = "all"


def ablate(
    grid: Grid, out: str | os.PathLike[str], *, jobs: int = 1, command: str = "", progress: Progress | None = None
) -> dict[str, Any]:
    """Train and measure every arm with every seed, and compare the arms; what is finished is not done again.

    In a script, call it under ``if __name__ == "__main__"``: worker processes import the script.

    Args:
        grid: what to run.
        out: folder of the ablation, made when missing.
        jobs: processes, each with one thread of torch.
        command: how it was called, for the results.
        progress: called every other second, from another thread, and after every run, with steps done, steps in all,
            which run ended last and how.

    Returns:
        What is written into ``OUT/ablation.json``: ``command``, ``date``, ``hardware``, ``settings`` of the
        baseline, ``arms`` (what differs), ``sets`` (with their hashes), ``runs`` (arm, seed, steps, seconds),
        ``failed`` (arm, seed, error; such as training that diverged, while the other runs went on), and what `compare`
        makes of the results.

    Raises:
        ShardError, EncoderError, ValueError: for sets or weights that are not there, or of different teachers.
        LockedError: when another ablation runs in ``out``.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    done, failed, lost = list[dict[str, Any]](), list[dict[str, Any]](), set[str]()
    with locked(folder / "lock", "one ablation may run in a folder"):
        runs, targets = runs_of(grid, folder), _targets(grid, folder, jobs)
        with _watched(runs, progress) as say:
            for level in range(1 + max(run.level for run in runs)):
                for run, result in _results([run for run in runs if run.level == level], targets, jobs, lost):
                    entry = {"arm": run.arm, "seed": run.config.seed} | result
                    if "error" in entry:
                        failed.append(entry)
                        lost.add(str(run.folder / EXPORT))
                    else:
                        done.append(entry)
                    ended = entry.get("error") or f"{entry['seconds']:.0f} s"
                    say(f"{len(done) + len(failed)} of {len(runs)} runs; {run.arm}, seed {run.config.seed}: {ended}")
        document = _facts(grid, jobs) | {"command": command, "failed": failed}
        document["runs"] = [{name: entry[name] for name in ("arm", "seed", "steps", "seconds")} for entry in done]
        against = {arm: str(changes.get("against", grid.baseline)) for arm, changes in grid.arms.items()}
        document |= compare(done, against, grid.metrics)
        write_text(folder / "ablation.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document


def runs_of(grid: Grid, out: Path) -> list[ArmRun]:
    """All runs of a grid, arm by arm."""
    made: dict[tuple[str, int], ArmRun] = {}
    weights = functools.cache(lambda name: load_encoder(name).identity)
    for arm, changes in grid.arms.items():
        plain = grid.config(arm)
        for seed in grid.seeds:
            before = made.get((changes.get("start", ""), seed))
            config = replace(plain, seed=seed, init=str(before.folder / EXPORT) if before else plain.init)
            start = before.folder.name if before else "none" if config.init == "none" else weights(config.init)
            digest = _digest(config.identity(), config.steps, start, _content(config.shards))
            name = f"{re.sub(r'[^A-Za-z0-9]+', '-', arm).strip('-')}-{seed}-{digest}"
            level = before.level + 1 if before else 0
            folder = out / "runs" / name
            made[arm, seed] = ArmRun(arm, folder, replace(config, out=str(folder)), level)
    return list(made.values())


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def _content(folders: Sequence[str]) -> list[str]:
    return [ShardSet(folder).manifest["content_sha256"] for folder in folders]


def _targets(grid: Grid, out: Path, jobs: int) -> list[Target]:
    """What is to be measured, all of one teacher; pairs are built if they are not there."""
    config = grid.config(grid.baseline)
    targets = [Target(split, config.shards, split) for split in grid.splits]
    targets += [Target(Path(folder).name, (folder,)) for folder in grid.others]
    teacher = Objects([*config.shards, *grid.others]).teacher
    if grid.pairs:
        name = config.zero_shot if config.zero_shot != "teacher" else teacher.identity.rpartition(" sha256:")[0]
        pairs = build_pairs(out / f"pairs-{grid.pairs}", grid.pairs, name, workers=jobs)
        pairs.check_teacher(teacher.identity, teacher.dim)
        targets.append(Target(PAIRS, (str(pairs.folder),)))
    return targets


def _results(
    runs: Sequence[ArmRun], targets: Sequence[Target], jobs: int, lost: Collection[str]
) -> Iterator[tuple[ArmRun, dict[str, Any]]]:
    """Results of runs, as they come, or their errors; a run that would start from ``lost`` weights does not begin."""
    digest = _digest([(target, _content(target.folders)) for target in targets])
    left: list[tuple[ArmRun, Path]] = []
    for run in runs:
        file = run.folder / f"result-{digest}.json"
        if run.config.init in lost:
            yield run, {"error": "the run whose weights it starts from failed"}
        elif file.is_file():
            yield run, json.loads(file.read_text(encoding="utf-8"))
        else:
            left.append((run, file))
    work = functools.partial(_attempt, tuple(targets))
    for (run, _), result, how in over_processes(work, left, workers=jobs, limit=math.inf):
        yield run, result or {"error": how}


def _attempt(targets: tuple[Target, ...], item: tuple[ArmRun, Path]) -> dict[str, Any]:
    """Train and measure one run, in a worker; whatever goes wrong with it is its result."""
    run, file = item
    try:
        begun = bool(checkpoints(run.folder))
        if not begun:  # what a run left that was killed before its first checkpoint
            shutil.rmtree(run.folder, ignore_errors=True)
        for _ in train(replace(run.config, resume=begun)):
            pass
        last, began = Records(run.folder).read()[-1], time.monotonic()
        encoder = load_encoder(run.folder / EXPORT, resolve_device(run.config.device))
        scores = {target.name: _measure(encoder, target, run.config) for target in targets}
        seconds = round(last.get("seconds", 0) + time.monotonic() - began, 1)
        result = {"steps": last["step"], "seconds": seconds, "scores": scores}
        write_text(file, json.dumps(result, allow_nan=False) + "\n")
    except Exception as error:  # one run must not stop the others
        return {"error": f"{type(error).__name__}: {error}"[:1000]}
    return result


# ---- measuring ---------------------------------------------------------------------------------------------------


def _measure(encoder: Encoder, target: Target, config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Metric -> ``hits``, what every object gave in [0, 1], and ``chance``, what guessing gives."""
    chosen = _load_set(target.folders, target.split)
    parts = zip(chosen.shards, chosen.keys, strict=True)
    shapes = torch.cat([embed_set(encoder, shards, keys, precision="fp32") for shards, keys in parts])  # [N, D]
    if target.name == PAIRS:
        texts = chosen.texts[chosen.owners.int().argmax(dim=0)]  # [N, D]: every side has one text
        by_kind = pair_hits(chosen.names, shapes, texts)
        return {kind: {"hits": hits.tolist(), "chance": 0.5} for kind, hits in by_kind.items()}
    scores = {"text_r1": _scored(chosen.texts @ shapes.T, chosen.owners, owners=chosen.owners)}
    if encoder.inputs != "views":  # else it would look for what it was shown
        scores["image_r1"] = _scored(shapes @ chosen.bag().T, torch.eye(len(shapes), dtype=torch.bool))
    names = sorted({row["category"] for shards in chosen.shards for row in shards.rows} - {""})
    right = torch.tensor([[label == name for name in names] for label in chosen.labels])  # [N, C]
    known = right.any(dim=1)
    if config.zero_shot != "none" and len(names) > 1 and known.any():
        words = _words(chosen.teacher, tuple(names), config.prompts, config.zero_shot, str(encoder.device))
        for k in (1, 5):
            scores[f"zero_shot_top{k}"] = _scored(shapes[known] @ words.T, right[known], k)
    return scores


def _scored(scores: Tensor, relevant: Tensor, k: int = 1, owners: Tensor | None = None) -> dict[str, Any]:
    """Hits among the first k of each query, or of each object its mean over the queries that are its, ``[Q, N]``."""
    hits, chance = (hit_rates(each, relevant, (k,))[:, 0] for each in (scores, torch.zeros_like(scores)))  # [Q]
    if owners is not None:
        hits, chance = (owners.T.numpy() @ each / owners.sum(dim=0).numpy() for each in (hits, chance))  # [N]
    return {"hits": [round(value, 5) for value in hits.tolist()], "chance": float(chance.mean())}


# ---- arms side by side -------------------------------------------------------------------------------------------


def compare(results: Sequence[Mapping[str, Any]], against: Mapping[str, str], metrics: Sequence[str]) -> dict[str, Any]:
    """Rows and verdicts of an ablation, all values shares in [0, 1] but for the words.

    Args:
        results: of the runs: ``arm``, ``seed`` and ``scores``, which is target -> metric -> ``hits`` of every object
            and ``chance``.
        against: arm -> the arm that it is compared with; itself for the baseline.
        metrics: which of `METRICS`.

    Returns:
        ``metrics``, in words. ``rows``: ``target``, ``metric``, ``arm``, ``seed``, ``value``, ``low`` and ``high``
        (95 %, bootstrap over objects), ``n`` objects (or pairs), ``chance``. ``verdicts``, of arms with at least two
        seeds: the same over all ``seeds`` (their number; intervals by `crossed_interval`), and, but for the baseline
        and where fewer than two seeds are there of both, ``against``, ``difference``, ``smallest``, the half-width of
        its interval, which is the smallest difference that this run could have shown, and the ``verdict``: better,
        worse or not distinguishable. Each verdict errs once in twenty times; nothing corrects for their
        number.
    """
    rows = list[dict[str, Any]]()
    hits: dict[tuple[str, str, float], dict[str, dict[int, np.ndarray]]] = {}  # of a task -> of an arm -> of a seed
    for result in sorted(results, key=lambda result: (list(against).index(result["arm"]), result["seed"])):
        for target, scores in result["scores"].items():
            for metric in (name for name in metrics if name in scores):
                values, chance = np.array(scores[metric]["hits"]), scores[metric]["chance"]
                hits.setdefault((target, metric, chance), {}).setdefault(result["arm"], {})[result["seed"]] = values
                score = intervals(values[:, None], np.arange(len(values)), 0)[0]
                row = {"target": target, "metric": metric, "arm": result["arm"], "seed": result["seed"]}
                row |= {"value": score.value, "low": score.low, "high": score.high, "n": len(values), "chance": chance}
                rows.append(row)
    verdicts = [
        {"target": target, "metric": metric, "chance": chance, "arm": arm}
        | _verdict(arms[arm], arms.get(against[arm], {}), against[arm])
        for (target, metric, chance), arms in hits.items()
        for arm in arms
        if len(arms[arm]) > 1
    ]
    return {"metrics": {metric: METRICS[metric] for metric in metrics}, "rows": rows, "verdicts": verdicts}


def _verdict(arm: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], name: str) -> dict[str, Any]:
    """An arm's values by seed, by themselves and beside those of the arm that it is compared with."""
    value, half = crossed_interval(np.stack(list(arm.values())))
    facts: dict[str, Any] = {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}
    facts |= {"seeds": len(arm), "n": len(next(iter(arm.values())))}
    both = [seed for seed in arm if seed in other]
    if arm is other or len(both) < 2:
        return facts
    difference, smallest = crossed_interval(np.stack([arm[seed] - other[seed] for seed in both]))
    facts |= {"against": name, "difference": difference, "smallest": smallest}
    return facts | {"verdict": verdict_on(difference - smallest, difference + smallest)}


# ---- what goes with it -------------------------------------------------------------------------------------------


@contextmanager
def _watched(runs: Sequence[ArmRun], progress: Progress | None) -> Iterator[Callable[[str], None]]:
    """Say every other second how many steps are done; the function given does so at once, with a text beside."""
    over, said, total = threading.Event(), [""], sum(run.config.steps for run in runs)

    def look(text: str = "") -> None:
        if text:
            said.append(text)
        if progress is not None:
            rows = [Records(run.folder).read()[-1:] for run in runs]
            progress(sum(row[0]["step"] for row in rows if row), total, said[-1])

    def watch() -> None:
        while not over.wait(_POLL):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield look
    finally:
        over.set()
        thread.join()


def _facts(grid: Grid, jobs: int) -> dict[str, Any]:
    """What was run, when and where."""
    config = grid.config(grid.baseline)
    folders = (*config.shards, *grid.others)
    cuda = resolve_device(config.device).type == "cuda"
    where = torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} cores ({platform.machine()}), no GPU"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{where}, {jobs} at a time, torch {torch.__version__}",
        "settings": config.identity() | {"steps": config.steps},
        "arms": grid.arms,
        "baseline": grid.baseline,
        "sets": {Path(folder).name: digest for folder, digest in zip(folders, _content(folders), strict=True)},
    }
