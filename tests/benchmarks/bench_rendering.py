"""Time and memory of the CPU rasteriser beside a torch tile version and a dense torch reference, in one run.

    python tests/benchmarks/bench_rendering.py [--quick]

Every figure comes from a process of its own: median and best over the repeats after a warm-up (compilation is not
counted; on a busy machine the best is the better figure, and ratios are taken from it), and the growth of the peak
resident memory over what was there when the inputs stood and everything was compiled. 99.9 % of the colours differ
from ours by less than "gap": the peers draw the same picture (the rest are thresholds and near-equal depths that
float32 decides the other way). Torch's idle threads sleep instead of spinning (OMP_WAIT_POLICY), for all alike.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from clipgs_lib import geometry
from clipgs_lib.rendering import Cameras, Gaussians, render, turntable_cameras
from clipgs_lib.splats import COLUMNS, Splats

CASES = {"10k at 128": (10_000, 128), "10k at 224": (10_000, 224), "100k at 512": (100_000, 512)}
DENSE_PAIRS = 2e8  # gaussian-pixel pairs above which the dense reference is left out
CHUNK = 2**22  # pairs the dense reference holds at a time


def object_like(n: int, seed: int = 0) -> Splats:
    """``n`` gaussians of SH degree 3 on a bumpy sphere: flattened, mostly opaque, sized to overlap about threefold."""
    g = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    radius = 1 + 0.15 * torch.sin(5 * direction[:, :1]) * torch.cos(4 * direction[:, 1:2])
    spread = torch.exp(0.5 * torch.randn(n, 3, generator=g)) * torch.tensor([1.0, 1.0, 0.3])
    return Splats(
        means=direction * radius,
        quats=torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=1),
        scales=1.5 / math.sqrt(n) * spread,
        opacities=torch.sigmoid(1 + 1.5 * torch.randn(n, generator=g)),
        sh0=torch.randn(n, 1, 3, generator=g),
        shN=0.1 * torch.randn(n, 15, 3, generator=g),
    )


def project(columns: dict[str, Tensor], camera: Cameras) -> tuple[Tensor, ...]:
    """Centres, conics, colours, opacities of the visible gaussians, near to far, and their reach in pixels."""
    viewmat, K = camera.viewmats[0], camera.Ks[0]
    rotation = viewmat[:3, :3]
    local = columns["means"] @ rotation.T + viewmat[:3, 3]
    x, y, z = local.unbind(1)
    axes = geometry.quat_to_rotmat(columns["quats"]) * columns["scales"][:, None, :]
    zero = torch.zeros_like(z)
    jacobian = torch.stack([K[0, 0] / z, zero, -K[0, 0] * x / z**2, zero, K[1, 1] / z, -K[1, 1] * y / z**2], dim=1)
    half = jacobian.view(-1, 2, 3) @ rotation @ axes  # [N, 2, 3]
    covars = half @ half.transpose(1, 2) + 0.3 * torch.eye(2)
    centers = torch.stack([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]], dim=1)
    direction = torch.nn.functional.normalize(columns["means"] - camera.centers[0], dim=1)
    sh = torch.cat([columns["sh0"], columns["shN"]], dim=1)
    colors = (torch.einsum("nk,nkc->nc", geometry.sh_basis(direction, 3), sh) + 0.5).clamp_min(0)
    reach = (2 * (255 * columns["opacities"]).clamp_min(1).log()).sqrt()[:, None]
    reach = (reach * covars.diagonal(dim1=1, dim2=2).sqrt()).detach()
    order = ((z > 0.01) & (columns["opacities"] >= 1 / 255)).nonzero()[:, 0]
    order = order[z.detach()[order].argsort(stable=True)]
    conics = torch.linalg.inv(covars)
    return tuple(t[order] for t in (centers, conics, colors, columns["opacities"], reach))


def compose(pixels: Tensor, centers: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor) -> Tensor:
    """Colours ``[P, 3]`` at pixel centres ``[P, 2]`` of gaussians that are sorted near to far."""
    d = pixels[None] - centers[:, None]  # [G, P, 2]
    dx, dy = d[..., 0], d[..., 1]
    a, b, c = conics[:, 0, 0, None], conics[:, 0, 1, None], conics[:, 1, 1, None]
    alphas = (opacities[:, None] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp_max(0.999)
    alphas = torch.where(alphas >= 1 / 255, alphas, 0)
    left = (1 - alphas).cumprod(dim=0)
    before = torch.cat([torch.ones_like(left[:1]), left[:-1]])
    return torch.where(left > 1e-4, alphas * before, 0).T @ colors


def peer(columns: dict[str, Tensor], camera: Cameras, weights: Tensor | None, tiled: bool) -> Tensor:
    """Draw by tiles of 16x16, or by stretches of pixels against every gaussian; backward part by part if weighted."""
    width, height = camera.width, camera.height
    *projected, reach = project(columns, camera)
    parts = [t.detach().requires_grad_(weights is not None) for t in projected]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], dim=-1)
    index = torch.arange(height * width).view(height, width)
    if tiled:
        groups = [g.reshape(-1) for rows in index.split(16) for g in rows.split(16, dim=1)]
    else:
        groups = list(index.view(-1).split(max(1, CHUNK // max(1, len(reach)))))
    picture = torch.empty(height * width, 3)
    for group in groups:
        where = pixels.view(-1, 2)[group]
        chosen = parts
        if tiled:
            low, high = where.amin(dim=0), where.amax(dim=0)
            meets = ((parts[0].detach() + reach >= low) & (parts[0].detach() - reach <= high)).all(dim=1)
            near = meets.nonzero()[:, 0]
            chosen = [t[near] for t in parts]
        colors = compose(where, *chosen)
        picture[group] = colors.detach()
        if weights is not None and colors.requires_grad:
            (colors * weights.view(-1, 3)[group]).sum().backward()
    if weights is not None:
        torch.autograd.backward(projected, [t.grad if t.grad is not None else torch.zeros_like(t) for t in parts])
    return picture.view(height, width, 3)


def ours(columns: dict[str, Tensor], camera: Cameras, weights: Tensor | None) -> Tensor:
    colors = render(Gaussians(*(columns[name] for name in COLUMNS)), *camera).colors[0]
    if weights is not None:
        (colors * weights).sum().backward()
    return colors.detach()


def child(n: int, size: int, method: str, backward: bool, repeats: int, picture: str) -> dict[str, float]:
    """Measure one figure in this process; write the picture to a file for comparison."""

    def once(splats: Splats, camera: Cameras) -> tuple[float, Tensor]:
        columns = {name: getattr(splats, name).clone().requires_grad_(backward) for name in COLUMNS}
        weights = torch.ones(camera.height, camera.width, 3) if backward else None
        start = time.perf_counter()
        with torch.set_grad_enabled(backward):
            if method == "ours":
                out = ours(columns, camera, weights)
            else:
                out = peer(columns, camera, weights, tiled=method == "tiles")
        return time.perf_counter() - start, out

    small = object_like(200)
    once(small, turntable_cameras(small, 1, width=40, height=40))  # compiles
    splats = object_like(n)
    camera = turntable_cameras(splats, 1, width=size, height=size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, out = once(splats, camera)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    times = [once(splats, camera)[0] for _ in range(repeats)]
    torch.save(out, picture)
    return {"ms": 1e3 * statistics.median(times), "best": 1e3 * min(times), "mb": peak}


def measure(n: int, size: int, method: str, backward: bool, repeats: int, folder: str) -> tuple[dict, Tensor]:
    """Run `child` in a fresh process."""
    picture = str(Path(folder) / f"{method}.pt")
    arguments = [str(n), str(size), method, str(int(backward)), str(repeats), picture]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout), torch.load(picture, weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no 100k case")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        n, size, method, backward, repeats, picture = options.child
        print(json.dumps(child(int(n), int(size), method, backward == "1", int(repeats), picture)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; load {os.getloadavg()[0]:.1f} at the start")
    print(
        f"{'case':<12} {'what':<17} {'renderer':<12} {'median':>10} {'best ms':>9} {'x ours':>7} {'MB':>6} {'gap':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for case, (n, size) in list(CASES.items())[: 2 if options.quick else 3]:
            for backward in (False, True):
                row = f"{case:<12} {'forward+backward' if backward else 'forward':<17}"
                base, expected = measure(n, size, "ours", backward, 5 if options.quick else 15, folder)
                print(f"{row} {'numba tiles':<12} {base['ms']:10.1f} {base['best']:9.1f} {1:7.1f} {base['mb']:6.0f}")
                for method in ("tiles", "dense"):
                    label = f"torch {method:<6}"
                    if method == "dense" and n * size * size > DENSE_PAIRS:
                        print(f"{row} {label} left out: {n * size * size:.1e} gaussian-pixel pairs")
                        continue
                    found, picture = measure(n, size, method, backward, 3 if method == "tiles" else 1, folder)
                    gap, ratio = (
                        float((picture - expected).abs().flatten().quantile(0.999)),
                        found["best"] / base["best"],
                    )
                    figures = f"{found['ms']:10.1f} {found['best']:9.1f} {ratio:7.1f} {found['mb']:6.0f} {gap:8.1e}"
                    print(f"{row} {label} {figures}", flush=True)


if __name__ == "__main__":
    main()
