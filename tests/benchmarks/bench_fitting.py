"""Seconds and held-out PSNR of fitting gaussians to real meshes, and what steps, count and start cost.

    python tests/benchmarks/bench_fitting.py [--meshes 24] [--counts 1024 4096] [--table 4] [--lights 0] \\
        [--batches cuda] [--pictures FOLDER] [--json data/results/fitting_tradeoff.json]

Reads meshes from ``CLIPGS_REAL_DATA`` (default ``../shared/data``), drawn evenly from the sorted list. Every object
is drawn from 36 cameras at 128 px on white, 6 of them held out; PSNR and SSIM are of those. "s/object" is the wall
time of everything after reading the file (views, start, fit, final measurement) on one thread; "CPU" the processor
time of the same, which other work on the machine does not stretch. Kernels are compiled before. The table leaves
views and start out of its seconds: "mesh" clusters the surface, "points" 10,000 coloured points without normals,
"random" fills the bounding box. The comparison of lights asks how true fits to unlit, half lit and lit views stay to
the unlit and the lit ones, and how near the embedded teacher finds them to the lit ones.

With ``--json`` every part that was measured replaces its namesake in the file and leaves the others, so that parts can
be run one after the other; `clipgs_lib.plots.fitting_tradeoff` draws it.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep; has to stand before torch is loaded

import json
import platform
import shlex
import statistics
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from clipgs_lib.fitting import (
    FitConfig,
    FitResult,
    fit,
    fit_many,
    init_from_mesh,
    init_from_points,
    init_random,
    mesh_job,
)
from clipgs_lib.formats import PointCloud
from clipgs_lib.meshes import Mesh
from clipgs_lib.meshes.importing import MeshError, read_mesh
from clipgs_lib.rendering import Cameras, MeshViews, contact_sheet, psnr, render, render_views, save_png, sphere_cameras
from clipgs_lib.splats import Splats

ROOT = Path(__file__).resolve().parents[2]
STEPS = (0, 60, 120, 250, 600)
LIGHTS = (0.0, 0.15, 0.3)
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


def summary(rows: list[Row]) -> dict[str, Any]:
    """Means over the objects."""
    ratios = [row.result.psnr for row in rows]
    worst = min(rows, key=lambda row: row.result.psnr)
    return {
        "objects": len(rows),
        "psnr": statistics.mean(ratios),
        "psnr_median": statistics.median(ratios),
        "psnr_worst": min(ratios),
        "objects_from_26_db": sum(ratio >= 26 for ratio in ratios),
        "ssim": statistics.mean(row.result.ssim for row in rows),
        "seconds": statistics.mean(row.wall for row in rows),
        "seconds_worst": max(row.wall for row in rows),
        "cpu_seconds": statistics.mean(row.cpu for row in rows),
        "cpu_seconds_worst": max(row.cpu for row in rows),
        "drawing_seconds": statistics.mean(row.drawing for row in rows),
        "worst_object": worst.name,
    }


def report(label: str, facts: dict[str, Any]) -> None:
    """The same as one line."""
    print(
        f"{label:32} {facts['psnr']:6.2f} {facts['psnr_median']:6.2f} {facts['psnr_worst']:6.2f} "
        f"{facts['objects_from_26_db']:4d}/{facts['objects']} {facts['ssim']:6.3f} "
        f"{facts['seconds']:7.2f} {facts['seconds_worst']:7.2f} "
        f"{facts['cpu_seconds']:6.2f} {facts['drawing_seconds']:6.2f}  {facts['worst_object']}",
        flush=True,
    )


def trade_off(meshes: list[Mesh], counts: list[int], path: Path | None) -> None:
    """PSNR and seconds against steps, count and start; kept after every line."""
    drawn = [(mesh, render_views(mesh, CAMERAS)) for mesh in meshes]
    print(f"\nHeld-out PSNR (dB) / seconds of CPU per object over {len(meshes)} objects, by steps")
    print(f"{'n':>6} {'start':8}" + "".join(f"{steps:>15}" for steps in STEPS))
    rows: list[dict[str, Any]] = []
    for n in counts:
        for kind in ("mesh", "points", "random"):
            cells = [average(drawn, kind, n, steps) for steps in STEPS]
            text = "".join(f"{cell['psnr']:8.2f} /{cell['cpu_seconds']:5.1f}" for cell in cells)
            print(f"{n:6} {kind:8}" + text, flush=True)
            rows += cells
            note(path, "trade-off", rows)


def average(drawn: list[tuple[Mesh, MeshViews]], kind: str, n: int, steps: int) -> dict[str, Any]:
    """Means over the objects of the fits alone."""
    results, seconds = [], []
    for mesh, views in drawn:
        init = start_of(mesh, kind, n)
        before = time.process_time()
        results.append(fit(views, CAMERAS, init, FitConfig(iterations=steps, check_every=10**6)))
        seconds.append(time.process_time() - before)
    return {
        "start": kind,
        "n": n,
        "iterations": steps,
        "objects": len(drawn),
        "psnr": statistics.mean(result.psnr for result in results),
        "psnr_worst": min(result.psnr for result in results),
        "ssim": statistics.mean(result.ssim for result in results),
        "cpu_seconds": statistics.mean(seconds),
        "cpu_seconds_worst": max(seconds),
    }


def compare_lights(meshes: list[Mesh], n: int) -> list[dict[str, Any]]:
    """How true fits to views of each light stay to the object's own colours and to what a teacher sees."""
    from clipgs_lib.teachers import load_teacher

    teacher, config = load_teacher("mini", device="cpu"), FitConfig()
    held = list(range(config.holdout // 2, len(CAMERAS.viewmats), config.holdout))
    view = Cameras(CAMERAS.viewmats[held], CAMERAS.Ks[held], 128, 128)
    scores: dict[float, list[tuple[float, ...]]] = {light: [] for light in LIGHTS}
    for mesh in meshes:
        drawn = {light: render_views(mesh, CAMERAS, light=light) for light in LIGHTS}
        unlit, lit = drawn[0.0].colors[held], drawn[0.3].colors[held]
        inside = drawn[0.0].alphas[held] > 0.99
        goal = torch.as_tensor(teacher.encode_image(pictures_of(lit)))
        for light in LIGHTS:
            result = fit(drawn[light], CAMERAS, init_from_mesh(mesh, n), config)
            colors = render(result.splats, *view, background=(1.0, 1.0, 1.0)).colors.clamp(0, 1)
            bright = float(colors[inside].mean() / unlit[inside].mean().clamp_min(1e-3))
            near = float((torch.as_tensor(teacher.encode_image(pictures_of(colors))) * goal).sum(dim=1).mean())
            both = (float(psnr(colors, other).clamp_max(100).mean()) for other in (unlit, lit))
            scores[light].append((result.psnr, *both, bright, near))
    print(f"\nLights at n={n} over {len(meshes)} objects: PSNR against its own, unlit and lit views; brightness beside "
          "unlit; cosine of mini's embeddings to those of lit views")  # fmt: skip
    names = ("psnr", "psnr_unlit", "psnr_lit", "brightness", "teacher_cosine")
    rows = []
    for light in LIGHTS:
        means = [statistics.mean(column) for column in zip(*scores[light], strict=True)]
        print(f"light {light:4}: " + "  ".join(f"{value:7.3f}" for value in means), flush=True)
        rows.append({"light": light, "n": n, "objects": len(meshes), **dict(zip(names, means, strict=True))})
    return rows


def pictures_of(colors: torch.Tensor) -> np.ndarray:
    """8-bit pictures of ``[C, H, W, 3]``."""
    return (colors * 255).round().to(torch.uint8).numpy()


def compare_batches(meshes: list[Mesh], n: int, config: FitConfig, device: str, usual: int) -> list[dict[str, Any]]:
    """Objects per second of `fit_many` by size of batch, beside the usual recipe: from points, ``usual`` steps, single.

    Views and starts are made before, on the CPU.
    """
    from_mesh = [mesh_job(mesh, n, config, device=device) for mesh in meshes]
    from_points = [
        job._replace(init=start_of(mesh, "points", n).to(device)) for job, mesh in zip(from_mesh, meshes, strict=True)
    ]
    recipes = [(f"mesh, batch {batch}", from_mesh, config, batch) for batch in (1, 4, 16, 64) if batch <= len(meshes)]
    recipes.append((f"points, {usual} steps, batch 1", from_points, replace(config, iterations=usual), 1))
    fit_many(from_mesh[:2], replace(config, iterations=100), batch=2)  # compiles
    print(f"\n{len(meshes)} objects of {n} gaussians on {device}: objects/s, mean held-out PSNR")
    rows = []
    for label, jobs, settings, batch in recipes:
        begin = time.perf_counter()
        results = fit_many(jobs, settings, batch=batch)  # ends by reading numbers, so the device has finished
        seconds = time.perf_counter() - begin
        ratio = statistics.mean(result.psnr for result in results)
        print(f"{label:32} {len(jobs) / seconds:8.2f} {ratio:8.2f}", flush=True)
        facts = {"n": n, "device": device, "batch": batch, "iterations": settings.iterations, "objects": len(jobs)}
        rows.append({"recipe": label, **facts, "objects_per_second": len(jobs) / seconds, "psnr": ratio})
    return rows


def note(path: Path | None, part: str, rows: list[dict[str, Any]]) -> None:
    """Write one part of the result into the file, beside the others."""
    if path is None:
        return
    found = json.loads(path.read_text()) if path.exists() else {}
    rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    words = f"{os.cpu_count()} cores ({platform.machine()}), one thread used, torch {torch.__version__}, {gpu}"
    found[part] = {
        "command": shlex.join(["python", "tests/benchmarks/bench_fitting.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{words}; load average at the end {os.getloadavg()[0]:.1f}",
        "rows": rounded,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


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
    parser.add_argument("--counts", type=int, nargs="*", default=[1024, 4096], help="gaussians")
    parser.add_argument("--iterations", type=int, default=FitConfig().iterations)
    parser.add_argument("--sh-degree", type=int, default=0, choices=(0, 1, 2, 3), help="of the headline fits")
    parser.add_argument("--light", type=float, default=0.3, help="share of the headlight in the headline views")
    parser.add_argument("--table", type=int, default=4, help="objects in the trade-off table; 0 leaves it out")
    parser.add_argument("--lights", type=int, default=0, help="objects in the comparison of lights; 0 leaves it out")
    parser.add_argument("--batches", metavar="DEVICE", help="compare sizes of batches of all the meshes on this device")
    parser.add_argument("--usual", type=int, default=5000, help="steps of the usual recipe beside the batches")
    parser.add_argument("--json", type=Path, help="file to keep the results in")
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
        settings = {"n": n, "iterations": config.iterations, "light": options.light, "sh_degree": config.sh_degree}
        fitted: list[Row] = []
        for mesh in meshes:
            fitted.append(measure(mesh, n, config, options.light))
            note(options.json, label, [settings | summary(fitted)])
        report(label, summary(fitted))
    if options.table:
        few = meshes[:: max(1, len(meshes) // options.table)][: options.table]
        trade_off(few, [256, 1024, 4096], options.json)
    if options.lights:
        few = meshes[:: max(1, len(meshes) // options.lights)][: options.lights]
        note(options.json, "lights", compare_lights(few, 1024))
    if options.batches:
        rows = compare_batches(meshes, 1024, config, options.batches, options.usual)
        note(options.json, f"batches on {torch.device(options.batches).type}", rows)
    if options.pictures:
        draw_pictures(options.pictures, meshes[::3][:8], [256, 1024, 4096])


if __name__ == "__main__":
    main()
