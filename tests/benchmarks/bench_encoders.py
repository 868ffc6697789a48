"""Encoding throughput of clipgs-mini: where the time goes, and how it grows with gaussians and tokens.

    python tests/benchmarks/bench_encoders.py [--objects N] [--repeats N] [--threads N]

Weights are random: speed does not depend on them. Times are CPU seconds of the process, which other programs on the
machine disturb least, medians over the repeats, all rows in turn. The peers, in the same run: `point-mini`, which has
no attribute branch; and the way to the teacher's space without any 3D encoder, which is the mini teacher's image tower
on 12 views of each object (rendered already).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from clipgs_lib.encoders import TokenEncoder, build_encoder
from clipgs_lib.splats import Splats
from clipgs_lib.teachers import load_teacher
from clipgs_lib.tokenizer import collate

VIEWS = 12


def surface(gaussians: int, seed: int) -> Splats:
    """Gaussians on a bumpy sphere: like an object, empty inside."""
    g = torch.Generator().manual_seed(seed)
    ways = torch.nn.functional.normalize(torch.randn(gaussians, 3, generator=g), dim=-1)
    radii = 1 + 0.2 * torch.sin(6 * ways[:, :1] + seed) * torch.cos(5 * ways[:, 1:2])
    return Splats.from_colors(
        ways * radii,
        torch.rand(gaussians, 3, generator=g),
        quats=torch.nn.functional.normalize(torch.randn(gaussians, 4, generator=g), dim=-1),
        scales=0.005 + 0.02 * torch.rand(gaussians, 3, generator=g),
        opacities=torch.rand(gaussians, generator=g),
    )


def medians(rows: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each row, after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(repeats + 1):
        for name, work in rows.items():
            began = time.process_time()
            work()
            if turn:
                times[name].append(time.process_time() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


@contextmanager
def low_precision() -> Iterator[None]:
    """bf16 by autocast; `Encoder.encode` itself switches gradients off by no_grad."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def in_bf16(work: Callable[[], object]) -> Callable[[], object]:
    """The same under `low_precision`."""

    def run() -> object:
        with low_precision():
            return work()

    return run


def show(title: str, times: dict[str, float], objects: int) -> None:
    """Print milliseconds per object, objects per second, and the ratio to the first row."""
    base = next(iter(times.values()))
    print(f"\n{title}")
    for name, seconds in times.items():
        each = seconds / objects
        print(f"  {name:<34} {1e3 * each:8.2f} ms/object {1 / each:8.1f} objects/s {seconds / base:7.2f} x")


def shares(encoder: TokenEncoder, objects: list[Splats], repeats: int) -> dict[str, float]:
    """CPU seconds of the parts of one pass of four objects."""
    objects = objects[:4]
    batch = collate(objects)
    patches = encoder.patchify(batch)
    tokens = encoder.tokenize(batch, patches)
    return medians(
        {
            "all": lambda: encoder.encode(objects),
            "collate (normalise, pad)": lambda: collate(objects),
            "patches (FPS, nearest)": lambda: encoder.patchify(batch),
            "tokens (both branches)": lambda: encoder.tokenize(batch, patches),
            "transformer": lambda: encoder.embed(tokens),
        },
        repeats,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    count, repeats = options.objects, options.repeats
    clipgs, point = build_encoder("clipgs-mini").eval(), build_encoder("point-mini").eval()
    objects = [surface(4096, seed) for seed in range(count)]
    tower = load_teacher("mini", device="cpu")
    views = torch.rand(VIEWS * count, 96, 96, 3)

    rows: dict[str, Callable[[], object]] = {
        "clipgs-mini, fp32": lambda: clipgs.encode(objects),
        "clipgs-mini, bf16": in_bf16(lambda: clipgs.encode(objects)),
        "clipgs-mini, fp32, one by one": lambda: clipgs.encode(objects, 1),
        f"clipgs-mini, fp32, batch of {count}": lambda: clipgs.encode(objects, count),
        "point-mini, fp32 (peer)": lambda: point.encode(objects),
        f"mini teacher, {VIEWS} views (peer)": lambda: tower.encode_image(views),
    }
    with torch.no_grad():
        show(f"encoding {count} splats of 4,096 gaussians, {options.threads} thread", medians(rows, repeats), count)
        show("shares of clipgs-mini, fp32", shares(clipgs, objects, repeats), 4)
        grown = {n: [surface(n, seed) for seed in range(count)] for n in (1_000, 4_000, 16_000, 64_000)}
        by_size = {f"{n:,} gaussians": lambda part=part: clipgs.encode(part) for n, part in grown.items()}
        show("clipgs-mini by gaussians", medians(by_size, repeats), count)
        wide = {g: build_encoder("clipgs-mini", groups=g).eval() for g in (32, 64, 128, 256, 512)}
        by_tokens = {f"{g} tokens": lambda one=one: one.encode(objects) for g, one in wide.items()}
        show("clipgs-mini by tokens, 4,096 gaussians", medians(by_tokens, repeats), count)


if __name__ == "__main__":
    main()
