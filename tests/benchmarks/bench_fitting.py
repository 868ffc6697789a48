"""Seconds and held-out PSNR of fitting gaussians to real meshes, and what steps, count and start cost.

    python tests/benchmarks/bench_fitting.py [--meshes 24] [--counts 1024 4096] [--table 4] [--pictures FOLDER]

Reads meshes from ``CLIPGS_REAL_DATA`` (default ``../shared/data``), drawn evenly from the sorted list. Every object
is drawn from 36 cameras at 128 px on white, 6 of them held out; PSNR and SSIM are of those. "s/object" is the wall
time of everything after reading the file (views, start, fit, final measurement) on one thread; "CPU" the processor
time of the same, which other work on the machine does not stretch. Kernels are compiled before. The table leaves
views and start out of its seconds: "mesh" clusters the surface, "points" 10,000 coloured points without normals,
"random" fills the bounding box.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep; has to stand before torch is loaded

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from clipgs_lib.formats import PointCloud
from clipgs_lib.meshes import Mesh
from clipgs_lib.rendering import Cameras, MeshViews, contact_sheet, render, render_views, save_png, sphere_cameras
from clipgs_lib.splats import Splats
from clipgs_lib.triplets.fitting import FitConfig, FitResult, fit, init_from_mesh, init_from_points, init_random
from clipgs_lib.triplets.importing import MeshError, read_mesh

ROOT = Path(__file__).resolve().parents[2]
STEPS = (0, 100, 300, 600)
CAMERAS = sphere_cameras(36, width=128, height=128)


class Row(NamedTuple):
    """One fitted object."""

    name: str
    result: FitResult
    wall: float  # s, views, start, fit and measurement
    cpu: float  # s
    drawing: float  # s of `wall` for the views


def read_some(count: int) -> list[Mesh]:
    """``count`` meshes, evenly out of the sorted folder, normalised; unreadable ones are named and left out."""
    folder = Path(os.environ.get("CLIPGS_REAL_DATA", ROOT.parent / "shared" / "data")) / "objects" / "train_cc0"
    paths = sorted(folder.glob("*.glb"))
    if not paths:
        raise SystemExit(f"no meshes in {folder}; set CLIPGS_REAL_DATA")
    meshes = []
    for index in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int):
        try:
            meshes.append(read_mesh(paths[index]).normalize())
        except (MeshError, ValueError) as error:
            print(f"left out: {error}")
    return meshes


def start_of(mesh: Mesh, kind: str, n: int) -> Splats:
    """The initial gaussians of one line of the table."""
    if kind == "mesh":
        return init_from_mesh(mesh, n)
    if kind == "random":
        return init_random(*mesh.bounds(), n)
    samples = mesh.sample(10_000, np.random.default_rng(1))
    return init_from_points(PointCloud(torch.from_numpy(samples.points), torch.from_numpy(samples.colors), None), n)


def measure(mesh: Mesh, n: int, config: FitConfig, light: float) -> Row:
    """Fit one mesh, the clock running."""
    wall, cpu = time.perf_counter(), time.process_time()
    views = render_views(mesh, CAMERAS, light=light)
    drawing = time.perf_counter() - wall
    result = fit(views, CAMERAS, init_from_mesh(mesh, n, sh_degree=config.sh_degree), config)
    return Row(mesh.source, result, time.perf_counter() - wall, time.process_time() - cpu, drawing)


def report(label: str, rows: list[Row]) -> None:
    """One line of means over the objects."""
    ratios = [row.result.psnr for row in rows]
    worst = min(rows, key=lambda row: row.result.psnr)
    print(
        f"{label:32} {statistics.mean(ratios):6.2f} {statistics.median(ratios):6.2f} {min(ratios):6.2f} "
        f"{sum(r >= 26 for r in ratios):4d}/{len(ratios)} {statistics.mean(r.result.ssim for r in rows):6.3f} "
        f"{statistics.mean(r.wall for r in rows):7.2f} {max(r.wall for r in rows):7.2f} "
        f"{statistics.mean(r.cpu for r in rows):6.2f} {statistics.mean(r.drawing for r in rows):6.2f}  {worst.name}",
        flush=True,
    )


def trade_off(meshes: list[Mesh], counts: list[int]) -> None:
    """PSNR and seconds against steps, count and start."""
    drawn = [(mesh, render_views(mesh, CAMERAS)) for mesh in meshes]
    print(f"\nHeld-out PSNR (dB) / seconds of CPU per object over {len(meshes)} objects, by steps")
    print(f"{'n':>6} {'start':8}" + "".join(f"{steps:>15}" for steps in STEPS))
    for n in counts:
        for kind in ("mesh", "points", "random"):
            cells = [average(drawn, kind, n, FitConfig(iterations=steps, check_every=10**6)) for steps in STEPS]
            print(f"{n:6} {kind:8}" + "".join(f"{ratio:8.2f} /{seconds:5.1f}" for ratio, seconds in cells), flush=True)


def average(drawn: list[tuple[Mesh, MeshViews]], kind: str, n: int, config: FitConfig) -> tuple[float, float]:
    """Mean PSNR and mean CPU seconds of the fits alone."""
    ratios, seconds = [], []
    for mesh, views in drawn:
        init = start_of(mesh, kind, n)
        before = time.process_time()
        ratios.append(fit(views, CAMERAS, init, config).psnr)
        seconds.append(time.process_time() - before)
    return statistics.mean(ratios), statistics.mean(seconds)


def draw_pictures(folder: Path, meshes: list[Mesh], counts: list[int]) -> None:
    """Targets beside fits, a row an object: held-out view 9, then the fits of each count."""
    view = Cameras(CAMERAS.viewmats[9:10], CAMERAS.Ks[9:10], 128, 128)
    pictures = []
    for mesh in meshes:
        views = render_views(mesh, CAMERAS)
        pictures.append(views.colors[9])
        for n in counts:
            splats = fit(views, CAMERAS, init_from_mesh(mesh, n), FitConfig()).splats
            pictures.append(render(splats, *view, background=(1.0, 1.0, 1.0)).colors[0].clamp(0, 1))
    folder.mkdir(parents=True, exist_ok=True)
    path = save_png(folder / "fits.png", contact_sheet(pictures, 1 + len(counts)))
    print(f"\n{path}: target, then {', '.join(map(str, counts))} gaussians")


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", type=int, default=24, help="objects in the headline figures")
    parser.add_argument("--counts", type=int, nargs="+", default=[1024, 4096], help="gaussians")
    parser.add_argument("--iterations", type=int, default=FitConfig().iterations)
    parser.add_argument("--sh-degree", type=int, default=0, choices=(0, 1, 2, 3), help="of the headline fits")
    parser.add_argument("--light", type=float, default=0.3, help="share of the headlight in the headline views")
    parser.add_argument("--table", type=int, default=4, help="objects in the trade-off table; 0 leaves it out")
    parser.add_argument("--pictures", type=Path, help="folder for targets beside fits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = FitConfig(iterations=options.iterations, sh_degree=options.sh_degree)
    meshes = read_some(options.meshes)
    measure(meshes[0], 64, replace(config, iterations=100), 0.3)  # compiles
    print(f"{len(meshes)} real meshes, {config.iterations} steps, 30 training and 6 held-out views of 128 px, 1 thread")
    print(f"{'':32} {'mean':>6} {'median':>6} {'worst':>6} {'>=26':>7} {'SSIM':>6} {'s/obj':>7} {'max':>7} "
          f"{'CPU':>6} {'views':>6}  worst object")  # fmt: skip
    for n in options.counts:
        label = f"n={n}, headlight {options.light}, SH {config.sh_degree}"
        report(label, [measure(mesh, n, config, options.light) for mesh in meshes])
    if options.table:
        trade_off(meshes[:: max(1, len(meshes) // options.table)][: options.table], [256, *options.counts])
    if options.pictures:
        draw_pictures(options.pictures, meshes[::3][:8], [256, 1024, 4096])


if __name__ == "__main__":
    main()
