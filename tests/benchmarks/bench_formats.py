"""Reading speed of every splat format, beside a named peer and the floor, as one table.

    python tests/benchmarks/bench_formats.py [--quick]

Ours is `read_splats`: sniffing, decoding, linear contiguous float32 tensors, unit quaternions, validation. A peer does
its reading plus whatever takes it to the same six contiguous tensors. The floor is ``np.memmap`` and one copy of the
file's bytes. Times are medians after warm-up, files lie in the page cache, ours and peer run in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gsply
import numpy as np
import plyfile
import torch

from clipgs_lib.formats import SplatWarning, read_points, read_splats, write_splats
from clipgs_lib.splats import Splats

Tensors = list[torch.Tensor]
REAL = Path(os.environ.get("CLIPGS_REAL_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    label: str
    path: Path
    count: int  # gaussians (or points)
    read: Callable[[Path], Any]
    peer_name: str = ""
    peer: Callable[[Path], Any] | None = None


def cloud(n: int, degree: int) -> Splats:
    """Random gaussians of ordinary sizes, opacities and colours."""
    g = torch.Generator().manual_seed(0)
    return Splats(
        means=torch.randn(n, 3, generator=g),
        quats=torch.randn(n, 4, generator=g),
        scales=0.001 + 0.02 * torch.rand(n, 3, generator=g),
        opacities=0.01 + 0.98 * torch.rand(n, generator=g),
        sh0=(torch.rand(n, 1, 3, generator=g) - 0.5) * 3.4,
        shN=0.2 * torch.randn(n, (degree + 1) ** 2 - 1, 3, generator=g),
    )


# ---- peers -------------------------------------------------------------------------------------------------------


def contiguous(means, quats, log_scales, logits, sh0, shN) -> Tensors:
    """What a peer read, activated and copied to contiguous tensors."""
    with np.errstate(over="ignore"):
        columns = (means, quats, np.exp(log_scales), 1 / (1 + np.exp(-logits)), sh0, shN)
    return [torch.from_numpy(np.ascontiguousarray(column, np.float32)) for column in columns]


def by_plyfile(path: Path) -> Tensors:
    """plyfile, and stacking of the columns."""
    v = plyfile.PlyData.read(str(path))["vertex"]
    rest = sum(p.name.startswith("f_rest_") for p in v.properties)

    def stack(*names: str) -> np.ndarray:
        return np.stack([v[name] for name in names], axis=1)

    shN = stack(*(f"f_rest_{i}" for i in range(rest))).reshape(len(v.data), 3, -1).transpose(0, 2, 1)
    scales, quats = stack("scale_0", "scale_1", "scale_2"), stack("rot_0", "rot_1", "rot_2", "rot_3")
    sh0 = stack("f_dc_0", "f_dc_1", "f_dc_2")
    return contiguous(stack("x", "y", "z"), quats, scales, np.asarray(v["opacity"]), sh0, shN)


def by_gsply(path: Path) -> Tensors:
    """gsply's PLY readers, and a copy of its views."""
    data = gsply.plyread(path)
    return contiguous(data.means, data.quats, data.scales, data.opacities, data.sh0, data.shN)


def by_gsply_spz(path: Path) -> Tensors:
    """gsply's SPZ reader, which leaves the centres in the frame of SPZ, and a copy."""
    data = gsply.read_spz(path)
    return contiguous(data.means, data.quats, data.scales, data.opacities, data.sh0, data.shN)


def by_torch(path: Path) -> Tensors:
    """torch.load, and activation."""
    s = torch.load(path, weights_only=True)["splats"]
    return [s["means"], s["quats"], s["scales"].exp(), s["opacities"].sigmoid(), s["sh0"], s["shN"]]


def points_by_plyfile(path: Path) -> Tensors:
    """plyfile, and stacking of positions and colours."""
    v = plyfile.PlyData.read(str(path))["vertex"]
    xyz = np.stack([v[n] for n in "xyz"], axis=1)
    rgb = np.stack([v[n] for n in ("red", "green", "blue")], axis=1).astype(np.float32) / 255
    return [torch.from_numpy(xyz), torch.from_numpy(rgb)]


def floor(path: Path) -> np.ndarray:
    """The least that reading can mean."""
    return np.array(np.memmap(path, np.uint8, "r"))


# ---- files -------------------------------------------------------------------------------------------------------


def generated(folder: Path, large: int, small: int) -> list[Case]:
    """Files of random gaussians in every format that can be written."""
    big = write_splats(cloud(large, 3), folder / "a.ply")
    splats = cloud(small, 3)
    small_ply = write_splats(splats, folder / "b.ply")
    odd = plyfile.PlyData.read(str(small_ply))
    plyfile.PlyData(odd.elements, byte_order=">").write(str(folder / "c.ply"))
    few = write_splats(splats[: small // 10], folder / "d.ply")
    plyfile.PlyData(plyfile.PlyData.read(str(few)).elements, text=True).write(str(folder / "e.ply"))
    packed = write_splats(splats, folder / "f.compressed.ply")
    plain = splats.with_sh_degree(0)
    records = write_splats(plain, folder / "g.splat")
    spz = write_splats(splats, folder / "h.spz")
    sog = write_splats(plain, folder / "i.sog")
    state = {"means": splats.means, "quats": splats.quats, "scales": splats.scales.log(), "sh0": splats.sh0}
    state |= {"shN": splats.shN, "opacities": splats.opacities.logit()}
    torch.save({"step": 1, "splats": state}, folder / "j.pt")
    return [
        Case("ply SH3", big, large, read_splats, "plyfile + stack", by_plyfile),
        Case("ply SH3", big, large, read_splats, "gsply + copy", by_gsply),
        Case("ply SH3 big-endian", folder / "c.ply", small, read_splats, "plyfile + stack", by_plyfile),
        Case("ply SH3 ASCII", folder / "e.ply", small // 10, read_splats, "plyfile + stack", by_plyfile),
        Case("compressed_ply SH3", packed, small, read_splats, "gsply + copy", by_gsply),
        Case("splat", records, small, read_splats),
        Case("spz SH3", spz, small, read_splats, "gsply + copy", by_gsply_spz),
        Case("sog SH0", sog, small, read_splats),
        Case("checkpoint SH3", folder / "j.pt", small, read_splats, "torch.load", by_torch),
        Case("points", _points(folder, large), large, read_points, "plyfile + stack", points_by_plyfile),
    ]


def _points(folder: Path, n: int) -> Path:
    rows = np.zeros(n, [(c, "f4") for c in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    rows["x"] = np.random.default_rng(0).random(n)
    plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")], byte_order="<").write(str(folder / "k.ply"))
    return folder / "k.ply"


def real_samples() -> list[Case]:
    """Real files of the formats that are only read."""
    files = {"ksplat level 0": "ksplat/hamburger_c0.ksplat", "ksplat level 1": "ksplat/hamburger_c1.ksplat"}
    files |= {"gltf": "glb/hamburger.khr_gaussian.glb", "sog folder SH2": "sog/playbot_3_0"}
    paths = {label: REAL / "splats" / file for label, file in files.items()}
    return [Case(label, path, len(read_splats(path)), read_splats) for label, path in paths.items() if path.exists()]


# ---- measuring ---------------------------------------------------------------------------------------------------


def medians(functions: list[Callable[[Path], Any]], path: Path, runs: int) -> list[float]:
    """Median seconds of each function, called in turn, after two rounds of warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for round_ in range(runs + 2):
        for function, taken in zip(functions, times, strict=True):
            began = time.perf_counter()
            result = function(path)
            if round_ >= 2:
                taken.append(time.perf_counter() - began)
            del result
    return [statistics.median(taken) for taken in times]


def agree(case: Case) -> None:
    """Stop when ours and the peer read different things; a ratio would mean nothing."""
    if case.peer is None or case.read is not read_splats:
        return
    ours, theirs = case.read(case.path), case.peer(case.path)
    columns = (ours.means, ours.scales, ours.opacities, ours.sh0[:, 0])
    tolerance = 1e-4 if case.label.startswith("ply") else 2e-2
    if case.label.startswith("spz"):
        columns, theirs[0] = (ours.means.abs(), *columns[1:]), theirs[0].abs()
    for a, b in zip(columns, (theirs[0], theirs[2], theirs[3], theirs[4].reshape(-1, 3)), strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=tolerance, atol=tolerance)


def row(case: Case, runs: int) -> str:
    agree(case)
    functions: list[Callable[[Path], Any]] = [case.read]
    functions += [case.peer] if case.peer else []
    functions += [floor] if case.path.is_file() else []
    ours, *others = medians(functions, case.path, runs)
    peer = others[0] if case.peer else None
    bottom = others[-1] if case.path.is_file() else None
    size = sum(f.stat().st_size for f in case.path.glob("*")) if case.path.is_dir() else case.path.stat().st_size
    cells = [f"{case.label:20}", f"{case.count:>9,}", f"{size / 1e6:>7.1f}", f"{1e3 * ours:>8.1f}"]
    cells += [f"{case.count / ours / 1e6:>8.2f}", f"{case.peer_name:16}"]
    cells += [f"{1e3 * peer:>8.1f} {peer / ours:>6.1f}x" if peer else " " * 16]
    cells += [f"{ours / bottom:>7.1f}x" if bottom else ""]
    return "  ".join(cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Reading speed of every splat format")
    parser.add_argument("--quick", action="store_true", help="a tenth of the gaussians, three runs")
    quick = parser.parse_args().quick
    large, small, runs = (100_000, 20_000, 3) if quick else (1_000_000, 200_000, 7)
    print(
        f"{'format':20}  {'gaussians':>9}  {'MB':>7}  {'ms':>8}  {'M/s':>8}  {'peer':16}  {'ms':>8} {'faster':>7}",
        end="",
    )
    print("  x floor")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", SplatWarning)
        for case in [*generated(Path(folder), large, small), *real_samples()]:
            print(row(case, runs), flush=True)


if __name__ == "__main__":
    main()
