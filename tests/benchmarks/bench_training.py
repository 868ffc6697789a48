"""Throughput and memory of training steps on a CPU, and where the time goes.

    python tests/benchmarks/bench_training.py [--names clipgs-mini ...] [--batch 8] [--threads N] [--compile]

Random objects of 1,024 gaussians and random weights (speed depends on neither). Every variant runs in a process of its
own, whose peak memory is told. Times are CPU seconds of the whole process, the best of the steps, because other work on
the machine stretches wall clocks; ratios are to the first variant of a name, fp32 with glibc's own handling of freed
memory. `prepare` is what the loader's thread does for a step; it must stay below the rest for the loader to keep up.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgs_lib.captions.caption import Caption
from clipgs_lib.shards.triplet import TeacherInfo, Triplet, encode_triplet, encode_view
from clipgs_lib.shards.writer import write_set
from clipgs_lib.splats import Splats
from clipgs_lib.training import Objects, TrainConfig
from clipgs_lib.training.data import Plan, make_batch
from clipgs_lib.training.distributed import Place
from clipgs_lib.training.loop import keep_freed_memory, make_encoder
from clipgs_lib.training.step import Learner

DIM, GAUSSIANS = 384, 1024
VARIANTS = (
    {"keep": False, "precision": "fp32"},
    {"keep": True, "precision": "fp32"},
    {"keep": True, "precision": "bf16"},
)


def random_object(number: int) -> Triplet:
    """A cloud with random embeddings."""
    g = torch.Generator().manual_seed(number)
    rows = torch.nn.functional.normalize(torch.randn(9, DIM, generator=g), dim=-1).half().numpy()
    splats = Splats.from_colors(
        torch.randn(GAUSSIANS, 3, generator=g),
        torch.rand(GAUSSIANS, 3, generator=g),
        quats=torch.randn(GAUSSIANS, 4, generator=g),
        scales=0.05 * torch.rand(GAUSSIANS, 3, generator=g),
        opacities=torch.rand(GAUSSIANS, generator=g),
        up_axis="+y",
    )
    return Triplet(
        key=f"o{number}",
        splats=splats,
        views=(encode_view(np.zeros((4, 4, 3), np.uint8)),) * 6,
        texts=tuple(Caption(f"thing {number} {n}", "raw") for n in range(3)),
        category="",
        split="train",
        provenance={"source": "benchmark", "licence": ""},
        teacher=TeacherInfo("random", DIM),
        image_embeds=rows[:6],
        text_embeds=rows[6:],
    )


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Best step of one variant: CPU seconds of step and preparation, shares, peak memory."""
    torch.set_num_threads(job["threads"])
    if job.get("keep"):
        keep_freed_memory()
    settings = TrainConfig(
        shards=(job["shards"],),
        out="unused",
        encoder=job["name"],
        batch_size=job["batch"],
        precision=job.get("precision", "fp32"),
        compile=job.get("compile", False),
        steps=job["steps"] + 1,
    )
    objects, place = Objects(settings.shards), Place(0, 1, torch.device("cpu"))
    plan, learner = Plan(objects, settings, place), Learner(make_encoder(settings, objects), settings, place)
    found = []
    for step in range(settings.steps):  # the first one warms up
        start = time.process_time()
        batch = make_batch(objects, plan, step, settings)
        ready = time.process_time()
        told = learner.update(batch)
        found.append((time.process_time() - ready, ready - start, told))
    seconds, prepare, told = min(found[1:], key=lambda entry: entry[0])
    parts = {name[8:]: value for name, value in told.items() if name.startswith("seconds_")}
    return {
        "seconds": seconds,
        "prepare": prepare,
        "shares": {name: value / sum(parts.values()) for name, value in parts.items()},
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parameters": sum(value.numel() for value in learner.encoder.parameters()),
    }


def main() -> None:
    """Run all variants, each in its own process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=["clipgs-mini", "clipgs-tiny", "clipgs-small"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which needs a C++ compiler")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        print(json.dumps(measure(json.loads(given.job))))
        return
    variants = [*VARIANTS, *([{"keep": True, "compile": True}] if given.compile else [])]
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), [encode_triplet(random_object(number)) for number in range(2 * given.batch)], build={})
        print(f"{given.batch} objects of {GAUSSIANS:,} gaussians a step, {given.threads} thread(s)")
        for name in given.names:
            first = None
            for variant in variants:
                job = {"shards": folder, "name": name, "batch": given.batch, "steps": given.steps, **variant}
                words = [sys.executable, __file__, "--job", json.dumps(job | {"threads": given.threads})]
                told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
                first = first or told
                show(name, variant, told, first, given.batch)


def show(name: str, variant: dict[str, Any], told: dict[str, Any], first: dict[str, Any], batch: int) -> None:
    """Print one row."""
    what = variant.get("precision", "fp32") + (" compiled" if variant.get("compile") else "")
    what += ", freed memory kept" if variant["keep"] else ""
    shares = ", ".join(f"{part} {100 * share:.0f} %" for part, share in sorted(told["shares"].items()))
    print(
        f"{name:<13} {told['parameters'] / 1e6:6.1f}M  {what:<26} {told['seconds']:7.2f} CPU s a step  "
        f"x{first['seconds'] / told['seconds']:.2f}  {batch / told['seconds']:6.2f} objects/s  {told['memory']:6.0f} MB"
        f"  prepare {100 * told['prepare'] / told['seconds']:.1f} %  ({shares})",
        flush=True,
    )


if __name__ == "__main__":
    main()
