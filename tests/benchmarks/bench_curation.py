"""What labels buy on real sets, whether a target precision is met, and how long a refit takes at 100,000 objects.

    python tests/benchmarks/bench_curation.py SET... [--encoder NAME]... [--seeds N] [--budget N] [--out FILE]

An oracle answers by the sets' categories (`clipgs curate SET --oracle all` draws the same curves). The peer in the same
run is random labelling with the same classifier and text. The true precision is that of the objects kept without a
label, beside what was expected of them. Times are CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipgs_lib.applications.curation import embeds_of, oracle_curves, tasks, texts_of
from clipgs_lib.applications.curation.ranking import LEAST, ask_next, fit_ranking, select, text_features
from clipgs_lib.files import write_text
from clipgs_lib.shards import ShardSet

LEAST_POSITIVES, LABELS, BATCH, TARGET = 10, 100, 10, 0.9


def precision_met(features: np.ndarray, text: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, float]:
    """Label `LABELS` objects of the whole set actively, select at `TARGET`, and look at what was kept."""
    rows, scores, free = list[int](), text, np.ones(len(truth), bool)
    free[np.random.default_rng(seed).permutation(len(truth))[: len(truth) // 20]] = (
        False  # seeds differ in what they see
    )
    while len(rows) < LABELS:
        rows += ask_next(features, scores, free & ~np.isin(np.arange(len(truth)), rows), BATCH)
        if min(truth[rows].sum(), len(rows) - truth[rows].sum()) >= LEAST:
            ranking = fit_ranking(features, rows, truth[rows], seed)
            scores = ranking.scores
    chosen = select(ranking, TARGET, seed)
    return {
        "expected": chosen.precision.value,
        "low": chosen.precision.low,
        "high": chosen.precision.high,
        "true": float(truth[chosen.kept].mean()) if chosen.kept.any() else 1.0,
        "recall": float(truth[chosen.kept].sum() / truth.sum()),
        "kept": int(chosen.kept.sum()),
    }


def refit_seconds(count: int = 100_000, dim: int = 384, labels: int = 300, repeats: int = 5) -> dict[str, float]:
    """CPU seconds of a refit (fit, folds, calibration, AP, scores of all) and of choosing the next page."""
    rng = np.random.default_rng(0)
    truth = rng.random(count) < 0.1
    embeds = (
        rng.normal(size=(count, dim)).astype(np.float32) + truth[:, None] * rng.normal(size=dim).astype(np.float32) / 4
    )
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    features, _ = text_features(embeds, embeds[truth].mean(axis=0))
    rows = rng.permutation(count)[:labels]
    fits, asks = [], []
    for _ in range(repeats):
        began = time.process_time()
        ranking = fit_ranking(features, rows, truth[rows])
        fitted = time.process_time()
        ask_next(features, ranking.scores, np.ones(count, bool), 12)
        fits.append(fitted - began)
        asks.append(time.process_time() - fitted)
    seconds = {"refit": statistics.median(fits), "ask_next": statistics.median(asks)}
    return {"objects": count, "dim": dim, "labels": labels} | {name: round(value, 3) for name, value in seconds.items()}


def measure(folder: str, encoder: str, seeds: int, budget: int) -> dict[str, Any]:
    """Curves and precisions of each task that the set has objects of."""
    shards = ShardSet(folder)
    embeds = embeds_of(shards, encoder, cache="build/embeds")
    queries = dict(zip(tasks(), texts_of(shards, [task.query for task in tasks().values()]), strict=True))
    rows = {}
    for name, task in tasks().items():
        truth = np.array([row["category"] in task.labels for row in shards.rows])
        if truth.sum() < LEAST_POSITIVES:
            continue
        rows[name] = oracle_curves(embeds, queries[name], truth, seeds=seeds, budget=budget, batch=BATCH)
        features, text = text_features(embeds, queries[name])
        runs = [precision_met(features, text, truth, seed) for seed in range(min(seeds, 5))]
        rows[name]["at_precision"] = {key: round(statistics.mean(run[key] for run in runs), 4) for key in runs[0]}
        needed = {way: rows[name][way]["needed"] for way in ("active", "random")}
        print(shards.folder.name, encoder, name, int(truth.sum()), needed, rows[name]["at_precision"], flush=True)
    return rows


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--encoder", action="append")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(words)
    results: dict[str, Any] = {
        "command": shlex.join(["python", "tests/benchmarks/bench_curation.py", *words]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "caveat": (
            "clipgs-mini was trained on the train splits of kits and catalogue; the teacher's on all three; "
            "categories answer, so an object whose category is wrong or vague counts as a mistake"
        ),
        "target_precision": TARGET,
        "refit": refit_seconds(),
        "sets": {},
    }
    print(results["refit"])
    for folder in options.sets:
        name = Path(folder).name
        results["sets"][name] = {
            encoder: measure(folder, encoder, options.seeds, options.budget)
            for encoder in options.encoder or ["clipgs-mini", "bag-mean"]
        }
    if options.out:
        write_text(options.out, json.dumps(results) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
