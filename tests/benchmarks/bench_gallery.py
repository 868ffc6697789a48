"""Search in galleries beside plain numpy and faiss, recall against exact float32, and opening one from disk.

    python tests/benchmarks/bench_gallery.py [--rows 1000 100000 1000000] [--dim 512] [--queries 20] [--folder DIR]

Rows are random unit vectors with a common direction and clusters, as embeddings have them. A numpy search is the
product and ``argpartition``; faiss is ``IndexFlatIP`` where it can be imported. All search in turn, query by query, so
that other work on the machine hits them alike. Recall is the share of the k rows that a float64 sort of the best 4 k of
numpy gives. With --folder the largest gallery is saved there, and opened in a fresh process.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from clipgs_lib.gallery import Gallery

OPEN = """
import resource, sys, time
import torch
from clipgs_lib.gallery import Gallery
def memory():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024
before, start = memory(), time.perf_counter()
gallery = Gallery.open(sys.argv[1])
opened = time.perf_counter() - start
print(f"open {len(gallery):,} x {gallery.dim}: {1e3 * opened:.1f} ms, {memory() - before:.1f} MB of memory")
start = time.perf_counter()
keys = gallery.search(torch.ones(gallery.dim), 10).keys
print(f"first search, keys read, pages mapped: {1e3 * (time.perf_counter() - start):.0f} ms")
"""


def rows_of(count: int, dim: int, seed: int) -> torch.Tensor:
    """Unit rows ``[count, dim]``."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(256, dim, generator=torch.Generator().manual_seed(99)) + 1.0
    rows = torch.empty(count, dim)
    for start in range(0, count, 1 << 14):
        part = rows[start : start + (1 << 14)]
        part.normal_(generator=generator).add_(centers[torch.randint(256, (len(part),), generator=generator)])
        part.div_(part.norm(dim=1, keepdim=True))
    return rows


def searchers(gallery: Gallery, k: int) -> dict[str, Callable[[np.ndarray], object]]:
    """Name -> search for one query."""
    rows = gallery.embeds.numpy()

    def plain(query: np.ndarray) -> np.ndarray:
        scores = rows @ query
        best = np.argpartition(scores, len(scores) - k)[-k:]
        return best[np.argsort(-scores[best])]

    ways: dict[str, Callable[[np.ndarray], object]] = {"numpy": plain}
    if importlib.util.find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        ways["faiss IndexFlatIP"] = lambda query: index.search(query[None], k)[1][0]
    ways["gallery"] = lambda query: gallery.search(torch.from_numpy(query), k).indices.numpy()
    return ways


def measure(count: int, dim: int, queries: int, k: int) -> Gallery:
    """Print a row for each way; returns the gallery."""
    gallery = Gallery(rows_of(count, dim, 0), range(count), teacher="bench")
    asked = rows_of(queries, dim, 1).numpy()
    ways = searchers(gallery, k)
    start = time.perf_counter()
    ways["gallery"](asked[0])  # makes codes, and compiles
    first = time.perf_counter() - start
    times: dict[str, list[float]] = {name: [] for name in ways}
    right = dict.fromkeys(ways, 0)
    for query in asked:
        scores = gallery.embeds.numpy() @ query
        near = np.argpartition(scores, count - 4 * k)[-4 * k :]
        exact = gallery.embeds[near].double().numpy() @ query.astype(np.float64)
        expected = set(near[np.argsort(-exact)[:k]].tolist())
        for name, search in ways.items():
            start = time.perf_counter()
            found = search(query)
            times[name].append(time.perf_counter() - start)
            right[name] += len(expected & set(np.asarray(found).tolist()))
    base = statistics.median(times["numpy"])
    for name, taken in times.items():
        p50, p95 = statistics.median(taken), float(np.quantile(taken, 0.95))
        share, recall = p50 / base, right[name] / k / len(asked)
        print(f"{count:>9,} x {dim}  {name:18} p50 {1e3 * p50:8.2f} ms  p95 {1e3 * p95:8.2f} ms  "
              f"{share:5.2f} of numpy  recall@{k} {recall:.4f}")  # fmt: skip
    print(f"{count:>9,} x {dim}  the gallery's first search, codes made: {first:.2f} s")
    return gallery


def main() -> None:
    """Measure all sizes, and opening when a folder is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    gallery = None
    for count in chosen.rows:
        gallery = measure(count, chosen.dim, chosen.queries, chosen.k)
    if chosen.folder and gallery is not None:
        start = time.perf_counter()
        gallery.save(chosen.folder)
        print(f"save: {time.perf_counter() - start:.1f} s")
        subprocess.run([sys.executable, "-c", OPEN, str(chosen.folder)], check=True)


if __name__ == "__main__":
    main()
