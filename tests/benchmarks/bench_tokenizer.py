"""Processor time of farthest points and nearest neighbours beside named peers, and of the parts of the tokenizer.

    python tests/benchmarks/bench_tokenizer.py [--clouds 16] [--points 10000] [--groups 512] [--size 64] [--threads 1]

The peer of farthest points is torch_quickfps where it can be imported (``pip install torch_quickfps``), else a loop of
torch operations over centres; that of neighbours is ``torch.cdist`` of real differences and ``topk``, and scipy's
cKDTree beside it. All find the same indices, which is asserted (cKDTree: the same distances). Clouds are dented
ellipsoids. Times are processor seconds, which other work on the machine does not stretch much, the least of some runs;
kernels are compiled before.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep; has to stand before torch is loaded

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from clipgs_lib.geometry import ORDERS, farthest_points, nearest
from clipgs_lib.splats import Splats
from clipgs_lib.tokenizer import GSTokenizer, Patches, SplatBatch, TokenizerConfig, collate

MINI = TokenizerConfig(groups=128, group_size=32, dim=192, point_widths=(64, 128, 256), attribute_widths=(32, 64, 128))


def clouds(batch: int, n: int, seed: int = 0) -> Tensor:
    """Points near dented ellipsoids ``[B, N, 3]``."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(batch, n, 3, generator=generator), dim=-1)
    points = points * (1 + 0.2 * (5 * points[..., :1]).sin()) * torch.tensor([1.0, 0.5, 0.7])
    return points + 0.01 * torch.randn(batch, n, 3, generator=generator)


def seconds(work: Callable[[], object], runs: int = 3) -> float:
    """Least processor time of some runs, after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def farthest_loop(points: Tensor, starts: Tensor, count: int) -> Tensor:
    """Farthest points as a loop of torch operations over all clouds at once."""
    rows, chosen = torch.arange(len(points)), [starts]
    distances = torch.full(points.shape[:2], torch.inf)
    for _ in range(count - 1):
        distances = torch.minimum(distances, (points - points[rows, chosen[-1]][:, None]).square().sum(dim=2))
        chosen.append(distances.argmax(dim=1))
    return torch.stack(chosen, dim=1)


def peer_of_farthest() -> tuple[str, Callable[[Tensor, Tensor, int], Tensor]]:
    """Name and function of the fastest exact peer there is."""
    if importlib.util.find_spec("torch_quickfps") is None:
        return "torch loop (torch_quickfps is not installed)", farthest_loop
    quick = importlib.import_module("torch_quickfps")

    def sample(points: Tensor, starts: Tensor, count: int) -> Tensor:
        parts = zip(points, starts.tolist(), strict=True)  # one start index a call
        return torch.cat([quick.sample_idx(part[None], count, start_idx=start) for part, start in parts])

    return "torch_quickfps", sample


def all_distances(points: Tensor, centers: Tensor, k: int) -> Tensor:
    """Neighbours from all distances, a cloud at a time."""
    parts = []
    for part, few in zip(points, centers, strict=True):
        distances = torch.cdist(few, part, compute_mode="donot_use_mm_for_euclid_dist")
        parts.append(distances.topk(k, dim=1, largest=False).indices)
    return torch.stack(parts)


def trees(points: Tensor, centers: Tensor, k: int) -> np.ndarray:
    """Distances of neighbours from scipy's trees, built as fast as they can be."""
    found = []
    for part, few in zip(points.numpy(), centers.numpy(), strict=True):
        tree = cKDTree(part, balanced_tree=False, compact_nodes=False)
        found.append(tree.query(few, k, workers=torch.get_num_threads())[0])
    return np.stack(found)


def compare(batch: int, n: int, groups: int, size: int) -> None:
    """Farthest points and neighbours beside their peers, the same indices asserted."""
    points = clouds(batch, n)
    chosen = farthest_points(points, groups)
    centers = points.gather(1, chosen[..., None].expand(-1, -1, 3))
    near = nearest(points, centers, size)
    name, peer = peer_of_farthest()
    assert torch.equal(peer(points, chosen[:, 0], groups), chosen), "farthest points differ from the peer's"
    distances = (points[:, None].take_along_dim(near[..., None], dim=2) - centers[:, :, None]).norm(dim=3)
    others = all_distances(points, centers, size)
    theirs = (points[:, None].take_along_dim(others[..., None], dim=2) - centers[:, :, None]).norm(dim=3)
    differ = near != others  # cdist takes a root, after which close squares can be one number
    assert torch.allclose(distances[differ], theirs[differ], rtol=3e-7, atol=0), "neighbours differ from cdist's"
    assert np.allclose(trees(points, centers, size), distances, rtol=1e-5), "neighbours differ from cKDTree's"
    ours = [seconds(lambda: farthest_points(points, groups)), seconds(lambda: nearest(points, centers, size))]
    peers = [
        seconds(lambda: peer(points, chosen[:, 0], groups)),
        seconds(lambda: all_distances(points, centers, size)),
    ]
    tree = seconds(lambda: trees(points, centers, size))
    print(f"\n{batch} clouds of {n:,} -> {groups} x {size}; ms of processor time a cloud")
    print(f"  indices: farthest points identical, neighbours {1 - float(differ.double().mean()):.4%} (rest: ties)")
    for label, mine, other, whose in (
        ("farthest points", ours[0], peers[0], name),
        ("neighbours", ours[1], peers[1], "cdist + topk"),
        ("neighbours", ours[1], tree, "cKDTree"),
        ("together", sum(ours), sum(peers), f"{name} + cdist + topk"),
    ):
        print(f"  {label:16} {1e3 * mine / batch:8.2f}   {whose:>32} {1e3 * other / batch:8.2f}   x{other / mine:.1f}")


def some_splats(batch: int, n: int) -> list[Splats]:
    """Random attributes on the clouds above."""
    generator = torch.Generator().manual_seed(1)
    return [
        Splats.from_colors(
            means,
            torch.rand(n, 3, generator=generator),
            quats=torch.randn(n, 4, generator=generator),
            scales=0.05 * torch.rand(n, 3, generator=generator),
            opacities=torch.rand(n, generator=generator),
        )
        for means in clouds(batch, n)
    ]


def shares(batch: int, n: int) -> None:
    """Where the time of the mini tokenizer goes, forward and backward, for each way to combine the orders."""
    splats = some_splats(batch, n)
    data = collate(splats)
    print(f"\nmini: {batch} objects of {n:,} -> {MINI.groups} x {MINI.group_size}, width {MINI.dim}; ms an object")
    print(f"  {'collate':28} {1e3 * seconds(lambda: collate(splats)) / batch:8.2f}")
    chosen = farthest_points(data.means, MINI.groups)
    centers = data.means.gather(1, chosen[..., None].expand(-1, -1, 3))
    for label, work in (
        ("farthest points", lambda: farthest_points(data.means, MINI.groups)),
        ("neighbours", lambda: nearest(data.means, centers, MINI.group_size)),
    ):
        print(f"  {label:28} {1e3 * seconds(work) / batch:8.2f}")
    patches = GSTokenizer(MINI).patchify(data)
    local = patches.gather(data.means)
    for name, order in ORDERS.items():
        print(f"  {'order ' + name:28} {1e3 * seconds(lambda order=order: order(local)) / batch:8.2f}")
    for label, config in (
        ("points only", replace(MINI, attributes="points")),
        ("all, one order", replace(MINI, orders=("hilbert",))),
        ("all, cycle", replace(MINI, combine="cycle")),
        ("all, average of three", MINI),
    ):
        print(f"  {'branches: ' + label:28} {step(config, data, patches):8.2f}")


def step(config: TokenizerConfig, data: SplatBatch, patches: Patches) -> float:
    """ms an object of forward and backward of the branches."""
    torch.manual_seed(0)
    tokenizer = GSTokenizer(config)
    return 1e3 * seconds(lambda: tokenizer(data, patches).tokens.square().sum().backward()) / len(data)


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clouds", type=int, default=16)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=512)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compare(options.clouds, options.points, options.groups, options.size)
    compare(options.clouds, 1024, 128, 32)
    shares(options.clouds, 1024)


if __name__ == "__main__":
    main()
