"""What a triplet without fitting costs, stage by stage, beside the teacher's towers alone: CPU time of one thread.

    python tests/benchmarks/bench_triplets.py [--quick] [--meshes DIR]

Objects of the catalogue, or meshes of a folder; 8 views of 160 px, 1,024 gaussians, 0 steps, embedded by `mini`. CPU
time is less troubled by other work than wall clock; OpenGL's software threads are in it. The floor is the work that no
factory could leave out: both towers on pictures and texts that lie ready.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import torch

from clipgs_lib.shards.triplet import encode_triplet
from clipgs_lib.triplets import catalogue_sources, folder_sources, stages
from clipgs_lib.triplets.recipe import BuildConfig

STAGES = ("load_thing", "draw_views", "fit_job", "fit_together", "encode_view", "decode_view", "teacher_columns")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--meshes", help="a folder instead of the catalogue")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count = 10 if options.quick else 60
    config = BuildConfig(views=8, size=160, iterations=0, teacher="mini")
    sources = folder_sources(options.meshes, "mesh") if options.meshes else catalogue_sources(40 * count, seed=9)
    sources = sources[:: max(1, len(sources) // (count + 1))][: count + 1]
    spent: Counter[str] = Counter()
    teacher = stages._teacher("mini", "cpu")
    for owner, name in [(stages, name) for name in STAGES] + [(teacher, "encode_image"), (teacher, "encode_text")]:
        measure(owner, name, spent)
    encode_triplet(stages.produce(sources[0], config))  # compiles kernels, opens a window
    spent.clear()
    start = time.process_time()
    for source in sources[1:]:
        encode_triplet(stages.produce(source, config))
    whole, floor = time.process_time() - start, spent["encode_image"] + spent["encode_text"]
    done = len(sources) - 1
    for name, seconds in spent.most_common():
        print(f"  {name:<16} {1e3 * seconds / done:7.1f} ms")
    print(
        f"one object {1e3 * whole / done:.0f} ms of one core, {done / whole:.2f}/s; {whole / floor:.2f} x both towers"
    )


def measure(owner: object, name: str, spent: Counter[str]) -> None:
    """Have ``owner.name`` add its CPU time to ``spent``."""
    work = getattr(owner, name)

    def timed(*args, **options):
        start = time.process_time()
        try:
            return work(*args, **options)
        finally:
            spent[name] += time.process_time() - start

    setattr(owner, name, timed)


if __name__ == "__main__":
    main()
