"""Reading speed of shards, beside raw tar reading, as one table.

    python tests/benchmarks/bench_shards.py [--objects N] [--repeats N]

Objects are like those of a real set: 1,024 gaussians, 12 views of 224 px, 8 texts, embeddings of 512. Every row reads
the whole set from the page cache; times are medians, all rows in turn. Peers: Python's ``tarfile``, streaming and
extracting each member without looking at it, and a plain ``read`` of the files, which is the floor. Decoding views
costs extra: its own row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from clipgs_lib.captions.caption import Caption
from clipgs_lib.shards import writer
from clipgs_lib.shards.shard_set import TripletStream
from clipgs_lib.shards.triplet import TeacherInfo, Triplet, encode_triplet, encode_view
from clipgs_lib.shards.writer import write_set
from clipgs_lib.splats import Splats

DIM, VIEWS, TEXTS, SIZE, GAUSSIANS = 512, 12, 8, 224, 1_024


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    """Unit rows ``[n, DIM]`` float16."""
    rows = rng.normal(size=(n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def picture(rng: np.random.Generator) -> np.ndarray:
    """A smooth blob on white, which WebP packs about as well as a render ``[SIZE, SIZE, 3]``."""
    coarse = torch.from_numpy(rng.random((1, 3, 12, 12)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1).numpy()
    grid = np.linspace(-1, 1, SIZE)
    inside = grid[:, None] ** 2 + grid[None] ** 2 < 0.6
    return np.where(inside[..., None], fine * 255, 255).astype(np.uint8)


def example(number: int, views: tuple[bytes, ...]) -> Triplet:
    """Object ``number`` of ordinary size."""
    rng, g = np.random.default_rng(number), torch.Generator().manual_seed(number)
    splats = Splats(
        means=0.4 * torch.randn(GAUSSIANS, 3, generator=g),
        quats=torch.nn.functional.normalize(torch.randn(GAUSSIANS, 4, generator=g), dim=-1),
        scales=0.01 + 0.05 * torch.rand(GAUSSIANS, 3, generator=g),
        opacities=torch.rand(GAUSSIANS, generator=g),
        sh0=torch.randn(GAUSSIANS, 1, 3, generator=g),
        shN=torch.zeros(GAUSSIANS, 0, 3),
    )
    texts = tuple(
        Caption(f"object {number}, text {i}, with some words about it", "enriched", 0.25) for i in range(TEXTS)
    )
    columns = {"image_embeds": unit(rng, VIEWS), "text_embeds": unit(rng, TEXTS), "teacher": TeacherInfo("bench", DIM)}
    return Triplet(f"object-{number:06d}", splats, views, texts, "thing", "train", {"source": "benchmark"}, **columns)


def make_set(folder: Path, count: int) -> None:
    """Write the set that is read."""
    rng = np.random.default_rng(0)
    pool = [encode_view(picture(rng)) for _ in range(64)]
    blocks = (encode_triplet(example(n, tuple(pool[(n + i) % 64] for i in range(VIEWS)))) for n in range(count))
    with patch.object(writer, "MAX_OBJECTS", 256):
        write_set(folder, blocks, build={})


def raw_read(paths: list[Path]) -> int:
    """The floor: bytes into memory."""
    return sum(len(path.read_bytes()) for path in paths)


def raw_tarfile(paths: list[Path]) -> int:
    """Each member out of each tar, streaming, as webdataset does, without looking at it."""
    total = 0
    for path in paths:
        with tarfile.open(path, mode="r|") as tar:
            for info in tar:
                stream = tar.extractfile(info)
                total += len(stream.read()) if stream else 0
    return total


def webdataset_of(paths: list[Path]) -> Iterable[object]:
    """The members of each object, as bytes."""
    os.environ["WDS_SECURE"] = "1"
    import webdataset

    return webdataset.WebDataset([str(path) for path in paths], shardshuffle=False)


def drain(stream: object, images: bool = False) -> int:
    """Number of objects; with ``images`` one view of each is decoded, as a training step with augmentation does."""
    count = 0
    for triplet in stream:  # type: ignore[attr-defined]
        if images:
            triplet.images([0])
        count += 1
    return count


def measure(rows: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall clock of each after one warm-up; all in turn, so that a busy moment hits every row."""
    times: dict[str, list[float]] = {label: [] for label in rows}
    for turn in range(repeats + 1):
        for label, read in rows.items():
            began = time.perf_counter()
            read()
            if turn:
                times[label].append(time.perf_counter() - began)
    return {label: statistics.median(taken) for label, taken in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_024)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_set(folder, options.objects)
        paths = sorted(folder.glob("*.tar"))
        size = sum(path.stat().st_size for path in paths)
        rows: dict[str, Callable[[], object]] = {
            "read() of the files (floor)": lambda: raw_read(paths),
            "tarfile, streaming (peer)": lambda: raw_tarfile(paths),
            "TripletStream, shuffled, verified": lambda: drain(TripletStream(folder, "train")),
            "TripletStream and one view decoded": lambda: drain(TripletStream(folder, "train"), images=True),
            "webdataset, nothing decoded": lambda: drain(webdataset_of(paths)),
        }
        each = size / options.objects / 1e3
        print(f"{options.objects} objects, {len(paths)} shards, {size / 1e6:.1f} MB, {each:.1f} kB each")
        print(f"{'':<40} {'objects/s':>10} {'MB/s':>8} {'x tarfile':>10}")
        seconds = measure(rows, options.repeats)
        for label, taken in seconds.items():
            ratio = seconds["tarfile, streaming (peer)"] / taken
            print(f"{label:<40} {options.objects / taken:>10,.0f} {size / taken / 1e6:>8,.0f} {ratio:>10.2f}")


if __name__ == "__main__":
    main()
