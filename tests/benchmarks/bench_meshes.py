"""Mesh import and mesh views, beside named peers, on the real meshes when they are there.

    python tests/benchmarks/bench_meshes.py [--quick]

Import: `read_mesh_notes` over every mesh, and trimesh's own loader over the same files, in turn; both end with decoded
textures in memory. Views: 12 and 36 views of 224 x 224 pixels, with alpha and depth, 4 samples a pixel. The naive peer
builds a pyvista plotter for every view, as examples do (timed on 4 of them), and takes a screenshot without depth; the
reusing peer keeps one plotter per mesh, and takes the depth. Both smooth edges as pyvista does by itself. Nothing here
is asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyvista as pv
import trimesh

from clipgs_lib.meshes import Mesh, MeshError, mesh_files, read_mesh_notes
from clipgs_lib.rendering import Cameras, render_views, sphere_cameras

REAL = Path(os.environ.get("CLIPGS_REAL_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
SIZE = 224


def folder_of_meshes(spare: Path) -> Path:
    """The real meshes, or a few of our own."""
    real = REAL / "objects" / "train_cc0"
    if real.is_dir():
        return real
    print(f"real meshes not found at {real}; a few spheres stand in")
    for level in range(2, 7):
        ball = trimesh.creation.icosphere(subdivisions=level)
        (spare / f"ball_{level}.glb").write_bytes(ball.export(file_type="glb"))
    return spare


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# ---- import --------------------------------------------------------------------------------------------------------
def load_with_trimesh(files: list[Path]) -> int:
    """How many trimesh loads into one flat mesh or more, textures decoded."""
    good = 0
    for file in files:
        try:
            scene = trimesh.load_scene(file)
            for geometry in scene.dump():
                material = getattr(geometry.visual, "material", None)
                image = getattr(material, "baseColorTexture", None)
                if image is not None:
                    np.asarray(image.convert("RGB"))
            good += len(scene.geometry) > 0
        except (ValueError, OSError, KeyError, IndexError, TypeError) as error:
            print(f"  trimesh, {file.name}: {type(error).__name__}: {str(error)[:80]}")
    return good


def load_with_ours(files: list[Path], talk: bool = False) -> list[Mesh]:
    """Meshes that were read; `talk` says what was left out of them, and what was not read."""
    meshes = []
    for file in files:
        try:
            mesh, notes = read_mesh_notes(file)
            meshes.append(mesh)
        except MeshError as error:
            notes = (str(error),)
        if talk and notes:
            print(f"  {file.name}: {'; '.join(notes)}")
    return meshes


def bench_import(folder: Path) -> None:
    files = mesh_files(folder)
    meshes = load_with_ours(files, talk=True)
    print(f"{len(meshes):,} of {len(files):,} meshes passed ({sum(mesh.n_faces for mesh in meshes):,} triangles)")
    loaded = load_with_trimesh(files)
    ours = [timed(lambda: load_with_ours(files)) for _ in range(3)]
    peer = [timed(lambda: load_with_trimesh(files)) for _ in range(2)]
    a, b = statistics.median(ours), statistics.median(peer)
    print(f"| import | ours {a:.2f} s | trimesh {b:.2f} s ({loaded:,} loaded) | {b / a:.1f} x |")


# ---- views ---------------------------------------------------------------------------------------------------------
def add_parts(plotter: pv.Plotter, mesh: Mesh) -> None:
    for part in mesh.parts:
        surface = pv.PolyData.from_regular_faces(part.vertices, part.faces)
        if part.texture is not None and part.uvs is not None:
            surface.active_texture_coordinates = part.uvs
            plotter.add_mesh(surface, texture=pv.Texture(part.texture))
        else:
            plotter.add_mesh(surface, color=part.base_color[:3])


def place(plotter: pv.Plotter, viewmat: np.ndarray) -> None:
    rotation = viewmat[:3, :3]
    eye = -rotation.T @ viewmat[:3, 3]
    plotter.camera_position = [tuple(eye), (0, 0, 0), tuple(-rotation[1])]
    plotter.camera.view_angle = 40


def naive_views(mesh: Mesh, cameras: Cameras) -> None:
    """A plotter per view."""
    for viewmat in cameras.viewmats.numpy():
        plotter = pv.Plotter(off_screen=True, window_size=[SIZE, SIZE])
        add_parts(plotter, mesh)
        place(plotter, viewmat)
        plotter.screenshot(return_img=True)
        plotter.close()


def reused_views(mesh: Mesh, cameras: Cameras) -> None:
    """One plotter per mesh."""
    plotter = pv.Plotter(off_screen=True, window_size=[SIZE, SIZE])
    add_parts(plotter, mesh)
    for viewmat in cameras.viewmats.numpy():
        place(plotter, viewmat)
        plotter.render()
        plotter.screenshot(return_img=True)
        plotter.get_image_depth()
    plotter.close()


def bench_views(folder: Path, quick: bool) -> None:
    files = mesh_files(folder)
    chosen = files[:: max(len(files) // (6 if quick else 24), 1)]
    meshes = [read_mesh_notes(file).mesh.normalize() for file in chosen]
    render_views(meshes[0], sphere_cameras(1, width=SIZE, height=SIZE))  # starts OpenGL
    runs: dict[str, Callable[[Mesh, Cameras], object]] = {
        "naive pyvista": naive_views,
        "reused pyvista": reused_views,
        "ours": render_views,
    }
    for count in (12, 36):
        cameras = sphere_cameras(count, width=SIZE, height=SIZE)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for mesh in meshes:
            for name, run in runs.items():
                few = cameras if name != "naive pyvista" else Cameras(cameras.viewmats[:4], cameras.Ks[:4], SIZE, SIZE)
                seconds[name].append(timed(lambda run=run, mesh=mesh, few=few: run(mesh, few)) / len(few.viewmats))
        rates = {name: 1 / statistics.mean(values) for name, values in seconds.items()}
        slowest = 1 / max(seconds["ours"])
        row = " | ".join(f"{name} {rate:.1f} views/s" for name, rate in rates.items())
        ratios = " | ".join(f"{rates['ours'] / rate:.1f} x {name}" for name, rate in rates.items() if name != "ours")
        print(f"| {count} views, {len(meshes)} meshes | {row} (slowest mesh {slowest:.1f}) | {ratios} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer meshes for the views")
    quick = parser.parse_args().quick
    print(f"{os.cpu_count()} cores, pyvista {pv.__version__}, VTK {pv.vtk_version_info}, trimesh {trimesh.__version__}")
    with tempfile.TemporaryDirectory() as spare, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = folder_of_meshes(Path(spare))
        bench_import(folder)
        bench_views(folder, quick)


if __name__ == "__main__":
    main()
