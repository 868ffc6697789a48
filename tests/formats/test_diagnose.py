"""The splat doctor: one broken file per finding, nothing said about sound ones, repairs that hold."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given

from clipgs_lib.formats import FormatError, read_splats, write_splats
from clipgs_lib.formats import doctor_checks as checks
from clipgs_lib.formats.diagnose import Diagnosis, Finding, diagnose
from clipgs_lib.splats import Splats
from tests.made_samples import make_sample

from .mutations import fuzz_settings, mutations
from .ply_samples import ply_bytes, stored_columns

BENIGN = {"up_unknown", "up_axis", "no_view_dependence"}
Columns = dict[str, np.ndarray]
REAL_SPLATS = [
    "ply/hamburger.ply", "ply/monkey.ply", "ply/playbot_sh1.ply", "ply/playbot_sh2.ply", "sog/hamburger.sog",
    "compressed_ply/guitar.compressed.ply", "compressed_ply/playbot_sh2.compressed.ply", "splat/guitar.splat",
    "ksplat/hamburger_c0.ksplat", "ksplat/hamburger_c1.ksplat", "spz/hamburger_v3.spz", "spz/playbot_sh2_v4.spz",
    "sog/monkey_0001.sog", "sog/playbot_3_0", "glb/hamburger.khr_gaussian.glb", "tiny/minimal.splat",
    "tiny/minimal.ksplat", "tiny/minimal-raw.spz", "tiny/minimal-v2.spz", "tiny/minimal-v3.spz",
    "tiny/minimal-v4.spz",
]  # fmt: skip


@cache
def sample(name: str) -> Splats:
    """A sample with 2,000 gaussians of all opacities."""
    splats = make_sample(name, 2000)
    opacities = torch.rand(2000, generator=torch.Generator().manual_seed(0)).sqrt()
    return replace(splats, opacities=opacities.clamp(0.02, 0.995))


@pytest.fixture(scope="module")
def mug() -> Splats:
    return sample("mug")


def serious(diagnosis: Diagnosis) -> set[str]:
    return set(diagnosis.codes) - BENIGN


def finding(diagnosis: Diagnosis, code: str) -> Finding:
    return next(f for f in diagnosis.findings if f.code == code)


def activate(columns: Columns, *groups: str) -> Columns:
    """What a tool writes that forgets to go back to logits and logarithms."""
    columns = dict(columns)
    if "opacity" in groups:
        columns["opacity"] = 1 / (1 + np.exp(-columns["opacity"]))
    if "scales" in groups:
        columns |= {f"scale_{i}": np.exp(columns[f"scale_{i}"]) for i in range(3)}
    return columns


def rows(columns: Columns, edit: dict[str, float], where: slice) -> Columns:
    columns = {name: values.copy() for name, values in columns.items()}
    for name, value in edit.items():
        columns[name][where] = value
    return columns


def means(columns: Columns, change: Callable[[np.ndarray], np.ndarray]) -> Columns:
    changed = change(np.stack([columns[axis] for axis in "xyz"], axis=1))
    return columns | {axis: changed[:, i] for i, axis in enumerate("xyz")}


def turned(columns: Columns, order: list[int], signs: tuple[int, int, int] = (1, 1, 1)) -> Columns:
    return means(columns, lambda points: points[:, order] * np.array(signs))


def quats(columns: Columns, names: list[str], signs: tuple[int, int, int, int] = (1, 1, 1, 1)) -> Columns:
    return columns | {f"rot_{i}": signs[i] * columns[name] for i, name in enumerate(names)}


def needles(columns: Columns) -> Columns:
    return rows(columns, {"scale_0": np.log(0.3), "scale_1": np.log(0.005), "scale_2": np.log(0.005)}, slice(0, 20))


def surfels(columns: Columns) -> Columns:
    smallest = np.stack([columns[f"scale_{i}"] for i in range(3)]).argmin(axis=0)
    return columns | {f"scale_{i}": np.where(smallest == i, np.log(1e-6), columns[f"scale_{i}"]) for i in range(3)}


XYZW = ["rot_1", "rot_2", "rot_3", "rot_0"]
WXYZ = ["rot_0", "rot_1", "rot_2", "rot_3"]
VALUES: dict[str, tuple[set[str], Callable[[Columns], Columns]]] = {
    "NaN in a centre": ({"non_finite"}, lambda c: rows(c, {"x": np.nan}, slice(3, 8))),
    "infinite colour": ({"non_finite"}, lambda c: rows(c, {"f_dc_1": np.inf}, slice(3, 8))),
    "infinite scale": ({"non_finite"}, lambda c: rows(c, {"scale_1": 200.0}, slice(3, 8))),
    "no rotation": ({"zero_quaternions"}, lambda c: rows(c, dict.fromkeys(WXYZ, 0.0), slice(0, 9))),
    "opacities twice": ({"activated_opacities"}, lambda c: activate(c, "opacity")),
    "scales twice": ({"activated_scales"}, lambda c: activate(c, "scales")),
    "both twice": ({"activated_opacities", "activated_scales"}, lambda c: activate(c, "opacity", "scales")),
    "see-through": ({"transparent"}, lambda c: rows(c, {"opacity": -8.0}, slice(0, 1500))),
    "bytes as SH": ({"colors_out_of_range"}, lambda c: c | {f"f_dc_{i}": 255 * c[f"f_dc_{i}"] for i in range(3)}),
    "needles": ({"needles"}, needles),
    "a giant": ({"giants"}, lambda c: rows(c, {"scale_0": np.log(3.0)}, slice(0, 1))),
    "surfels": ({"surfels"}, surfels),
    "far away": ({"huge_offset"}, lambda c: means(c, lambda p: p + [300, 0, 0])),
    "coarse": ({"huge_offset", "precision"}, lambda c: means(c, lambda p: p + [1e6, 0, 0])),
    "joined twice": ({"duplicates"}, lambda c: {name: np.tile(column, 2) for name, column in c.items()}),
    "only centres scaled": ({"scale_mismatch"}, lambda c: means(c, lambda p: 100 * p)),
    "lone gaussians": ({"floaters"}, lambda c: rows(rows(c, {"x": 4.0}, slice(0, 1)), {"z": -9.0}, slice(1, 2))),
    "xyzw": ({"quaternion_order"}, lambda c: quats(c, XYZW)),
    "inverse": ({"quaternion_inverse"}, lambda c: quats(c, WXYZ, (1, -1, -1, -1))),
    "y and z swapped": ({"turned_without_quaternions"}, lambda c: turned(c, [0, 2, 1])),
    "turned about x": ({"turned_without_quaternions"}, lambda c: turned(c, [0, 2, 1], (1, -1, 1))),
    "mirrored in z": ({"turned_without_quaternions"}, lambda c: turned(c, [0, 1, 2], (1, 1, -1))),
}


@pytest.mark.parametrize("case", VALUES)
def test_each_trouble_is_named_and_no_other(tmp_path, mug, case):
    want, damage = VALUES[case]
    path = tmp_path / "a.ply"
    path.write_bytes(ply_bytes(damage(stored_columns(mug))))
    diagnosis = diagnose(path)
    assert serious(diagnosis) == want
    assert diagnosis.format == "ply" and diagnosis.count == (4000 if case == "joined twice" else 2000)


@pytest.mark.parametrize("name", ["mug", "ball", "knot"])
@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply", ".splat", ".spz"])
@pytest.mark.filterwarnings("ignore::clipgs_lib.formats.SplatWarning")
def test_sound_files_are_left_alone(tmp_path, name, suffix):
    path = write_splats(sample(name), tmp_path / f"a{suffix}")
    diagnosis = diagnose(path)
    assert serious(diagnosis) == set() and diagnosis.ok
    assert diagnosis.count == 2000 and diagnosis.bytes == path.stat().st_size


def test_the_axes_that_were_swapped_are_named(tmp_path, mug):
    path = tmp_path / "a.ply"
    path.write_bytes(ply_bytes(turned(stored_columns(mug), [0, 2, 1])))
    assert "(x, z, y)" in finding(diagnose(path), "turned_without_quaternions").message
    path.write_bytes(ply_bytes(turned(stored_columns(mug), [0, 2, 1], (1, -1, 1))))
    assert "(x, -z, y)" in finding(diagnose(path), "turned_without_quaternions").message


# ---- what must not fire ----------------------------------------------------------------------------------------


def test_large_units_are_no_activated_scales(tmp_path, mug):
    big = replace(mug, means=1000 * mug.means, scales=1000 * mug.scales)
    assert float(big.scales.min()) > 1
    assert serious(diagnose(write_splats(big, tmp_path / "a.ply"))) == set()


@pytest.mark.parametrize("opacity", [0.5, 0.6, 0.99])
def test_equal_opacities_are_no_activated_ones(tmp_path, mug, opacity):
    same = replace(mug, opacities=torch.full((len(mug),), opacity))
    assert serious(diagnose(write_splats(same, tmp_path / "a.ply"))) == set()


def test_turning_everything_together_is_sound(tmp_path, mug):
    for axis, degrees in (("x", 90), ("z", 180), ("y", 37)):
        assert serious(diagnose(write_splats(mug.rotate(axis, degrees), tmp_path / "a.ply"))) == set()
    mirror = torch.diag(torch.tensor([1.0, 1, -1, 1]))
    mirrored = mug.transform(mirror, allow_reflection=True)
    assert serious(diagnose(write_splats(mirrored, tmp_path / "a.ply"))) == set()


def test_random_rotations_give_no_verdict_on_order(tmp_path, splats_factory):
    codes = diagnose(write_splats(splats_factory(3000), tmp_path / "a.ply")).codes
    assert not {"quaternion_order", "quaternion_inverse", "turned_without_quaternions"} & set(codes)


@pytest.mark.parametrize("count", [1, 2, 9, 10])
def test_few_gaussians_are_no_trouble(tmp_path, mug, count):
    diagnosis = diagnose(write_splats(mug[:count], tmp_path / "a.ply"))
    assert diagnosis.ok and diagnosis.count == count


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL_SPLATS)
def test_real_files_are_sound(real_data, name):
    diagnosis = diagnose(real_data / "splats" / name)
    assert serious(diagnosis) == set()
    assert diagnosis.count is not None and diagnosis.format in name.replace("glb/", "gltf/").replace(
        "tiny/minimal-", ""
    )
    if "guitar" in name or "playbot" in name:
        assert diagnosis.up_guess == "-y"
        assert "upside down" in finding(diagnosis, "up_axis").message


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["hamburger", "monkey", "playbot_sh1"])
@pytest.mark.parametrize("case", ["both twice", "y and z swapped", "turned about x"])
def test_real_files_betray_the_same_damage(real_data, tmp_path, name, case):
    splats = read_splats(real_data / "splats" / "ply" / f"{name}.ply")
    want, damage = VALUES[case]
    (tmp_path / "a.ply").write_bytes(ply_bytes(damage(stored_columns(splats))))
    assert serious(diagnose(tmp_path / "a.ply")) == want


@pytest.mark.real_data
def test_a_real_surface_betrays_subtle_damage(real_data, tmp_path):
    columns = stored_columns(read_splats(real_data / "splats" / "ply" / "playbot_sh1.ply"))
    (tmp_path / "a.ply").write_bytes(ply_bytes(quats(columns, XYZW)))
    assert serious(diagnose(tmp_path / "a.ply")) == {"quaternion_order"}
    (tmp_path / "a.ply").write_bytes(ply_bytes(turned(columns, [0, 1, 2], (1, -1, 1))))
    assert serious(diagnose(tmp_path / "a.ply")) == {"turned_without_quaternions"}


# ---- files that are something else -------------------------------------------------------------------------------


def glb(extensions: list[str]) -> bytes:
    text = json.dumps({"asset": {"version": "2.0"}, "extensionsUsed": extensions, "meshes": []}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text


def sample_ply(n: int = 200) -> bytes:
    return ply_bytes(stored_columns(sample("mug")[:n]))


def zipped(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "inner.zip", "w") as archive:
        archive.writestr("a.ply", sample_ply())
    return (folder / "inner.zip").read_bytes()


def point_cloud(faces: bytes = b"") -> bytes:
    cloud = {axis: np.arange(4.0) for axis in "xyz"} | {c: np.zeros(4) for c in ("red", "green", "blue")}
    types = dict.fromkeys(("red", "green", "blue"), "uchar")
    after = (b"element face 1\nproperty list uchar int vertex_indices\n", faces) if faces else (b"", b"")
    return ply_bytes(cloud, types=types, after=after)


def without(*names: str) -> bytes:
    columns = stored_columns(sample("mug")[:200])
    return ply_bytes({name: column for name, column in columns.items() if name not in names})


def spz_version(version: int, folder: Path) -> bytes:
    path = write_splats(sample("mug")[:200], folder / "v.spz", version=3)
    plain = bytearray(gzip.decompress(path.read_bytes()))
    plain[4:8] = struct.pack("<I", version)
    return gzip.compress(bytes(plain))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
STRANGERS: dict[str, tuple[str, str, Callable[[Path], bytes]]] = {
    "git lfs": ("lfs_pointer", "a.ply", lambda _: LFS),
    "web page": ("html_page", "a.ply", lambda _: b"\n<!DOCTYPE html><html><body>Sign in</body></html>"),
    "empty": ("empty_file", "a.splat", lambda _: b""),
    "gzip": ("gzip_wrapped", "a.ply.gz", lambda _: gzip.compress(sample_ply())),
    "zip": ("archive", "a.zip", zipped),
    "picture": ("unknown_format", "a.ply", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(200)),
    "noise": ("unknown_format", "a.bin", lambda _: np.random.default_rng(0).bytes(1001)),
    "points": ("point_cloud", "a.ply", lambda _: point_cloud()),
    "mesh ply": ("mesh", "a.ply", lambda _: point_cloud(struct.pack("<B3i", 3, 0, 1, 2))),
    "mesh glb": ("mesh", "a.glb", lambda _: glb(["KHR_materials_unlit"])),
    "no opacity": ("missing_columns", "a.ply", lambda _: without("opacity")),
    "odd SH": ("sh_columns", "a.ply", lambda _: ply_bytes(stored_columns(sample("mug")[:100]) | {
        f"f_rest_{i}": np.zeros(100) for i in range(7)
    })),
    "future SPZ": ("unknown_version", "a.spz", lambda folder: spz_version(9, folder)),
    "future PLY": ("unknown_version", "a.ply", lambda _: sample_ply().replace(b"endian 1.0", b"endian 2.0")),
    "no gaussian": ("no_gaussians", "a.ply", lambda _: ply_bytes({n: c[:0] for n, c in stored_columns(
        sample("mug")[:100]).items()})),
    "absurd count": ("unreadable", "a.ply", lambda _: sample_ply().replace(b"vertex 200", b"vertex 4000000000")),
    "cut header": ("truncated", "a.ply", lambda _: sample_ply()[:90]),
    "cut SPZ": ("truncated", "a.spz", lambda folder: write_splats(
        sample("mug")[:200], folder / "w.spz").read_bytes()[:-400]),
}  # fmt: skip


@pytest.mark.parametrize("case", STRANGERS)
def test_strangers_are_named(tmp_path, case):
    code, name, build = STRANGERS[case]
    path = tmp_path / name
    path.write_bytes(build(tmp_path))
    diagnosis = diagnose(path, fix=tmp_path / "out.ply")
    assert serious(diagnosis) == {code}
    assert not diagnosis.ok and diagnosis.fixed_path is None and not (tmp_path / "out.ply").exists()
    assert diagnosis.findings[0].message and diagnosis.findings[0].mend


@pytest.mark.real_data
def test_a_real_point_cloud_and_a_real_mesh(real_data):
    cloud = diagnose(real_data / "pointclouds" / "openshape_owl.ply")
    assert cloud.codes == ("point_cloud",) and "10,000" in cloud.findings[0].message and cloud.format is None
    meshes = sorted((real_data / "objects" / "train_cc0").glob("*.glb"))[:5]
    assert [diagnose(mesh).codes for mesh in meshes] == [("mesh",)] * 5


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.ply")
    (tmp_path / "gone.ply").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    assert diagnose(tmp_path / "pipe.ply").codes == ("unreadable",)
    assert diagnose(tmp_path / "gone.ply").codes == ("unreadable",)
    assert not diagnose(tmp_path / "folder").ok
    with pytest.raises(FormatError, match="must name an existing file"):
        diagnose(tmp_path / "missing.ply")


def test_negative_scales_are_a_reader_warning(tmp_path, mug):
    path = write_splats(mug, tmp_path / "a.splat")
    data = bytearray(path.read_bytes())
    data[12:16] = struct.pack("<f", -0.01)
    path.write_bytes(data)
    diagnosis = diagnose(path)
    assert serious(diagnosis) == {"reader_warning"}
    assert "1 scales are negative" in finding(diagnosis, "reader_warning").message


# ---- up ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("turn", "want"), [(None, "+y"), (("z", 180), "-y"), (("x", 90), "+z"), (("x", -90), "-z"),
                                            (("z", -90), "+x"), (("z", 90), "-x")])  # fmt: skip
def test_an_object_on_a_plane_shows_which_way_is_up(tmp_path, mug, turn, want):
    low, high = mug.bounds(0.01)
    standing = replace(mug, means=mug.means - torch.stack([(low + high)[0] / 2, low[1], (low + high)[2] / 2]))
    if turn:
        standing = standing.rotate(*turn)
    diagnosis = diagnose(write_splats(standing, tmp_path / "a.ply"))
    assert diagnosis.up_guess == want
    assert serious(diagnosis) == set()
    mend = finding(diagnosis, "up_axis").mend
    if turn:  # the advice must really turn it upright
        angle, axis = float(mend.split()[3]), mend.split()[6].rstrip(":")
        assert standing.rotate(axis, angle).means[:, 1].min() > -0.1


def test_a_frame_that_contradicts_the_object_is_remarked(tmp_path, mug):
    low, high = mug.bounds(0.01)
    standing = replace(mug, means=mug.means - torch.stack([(low + high)[0] / 2, low[1], (low + high)[2] / 2]))
    diagnosis = diagnose(write_splats(standing, tmp_path / "a.spz"))
    assert serious(diagnosis) == {"up_contradiction"} and diagnosis.ok


# ---- repairs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case, (codes, _) in VALUES.items() if codes & {
    "non_finite", "zero_quaternions", "activated_opacities", "activated_scales"}])  # fmt: skip
def test_repairs_hold(tmp_path, mug, case):
    codes, damage = VALUES[case]
    path, out = tmp_path / "a.ply", tmp_path / "out.ply"
    path.write_bytes(ply_bytes(damage(stored_columns(mug))))
    before = path.read_bytes()
    diagnosis = diagnose(path, fix=out)
    assert diagnosis.fixed and diagnosis.fixed_path == str(out) and path.read_bytes() == before
    assert all(finding(diagnosis, code).fixable for code in codes)
    again = diagnose(out)
    assert again.ok and serious(again) == set()
    fixed = read_splats(out)
    kept = mug[len(mug) - len(fixed) :] if case == "no rotation" else mug
    kept = mug[[0, 1, 2, *range(8, len(mug))]] if "non_finite" in codes else kept
    for name in ("means", "scales", "opacities", "sh0"):
        torch.testing.assert_close(getattr(fixed, name), getattr(kept, name), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(("name", "row"), [("a.ply", 56), ("a.splat", 32)])
def test_the_whole_gaussians_of_a_truncated_file_are_kept(tmp_path, mug, name, row):
    path = tmp_path / name
    whole = ply_bytes(stored_columns(mug)) if name == "a.ply" else write_splats(mug, path).read_bytes()
    path.write_bytes(whole[: len(whole) - 500 * row - 7])
    diagnosis = diagnose(path, fix=tmp_path / "out.ply")
    assert serious(diagnosis) == {"truncated"} and diagnosis.count == 1499
    assert "1,499 whole gaussians" in finding(diagnosis, "truncated").message
    fixed = read_splats(tmp_path / "out.ply")
    torch.testing.assert_close(fixed.means, mug.means[:1499])
    assert serious(diagnose(tmp_path / "out.ply")) == set()


def test_a_truncated_file_with_more_elements_is_kept_too(tmp_path, mug):
    data = ply_bytes(stored_columns(mug), after=(b"element camera 3\nproperty float fx\n", bytes(12)))
    (tmp_path / "a.ply").write_bytes(data[: -12 - 56 * 10])
    assert diagnose(tmp_path / "a.ply").count == 1990


@pytest.mark.parametrize("left", [0, 55])
def test_a_file_cut_before_its_first_gaussian_is_not_fixable(tmp_path, mug, left):
    data = ply_bytes(stored_columns(mug))
    (tmp_path / "a.ply").write_bytes(data[: data.index(b"end_header\n") + 11 + left])
    diagnosis = diagnose(tmp_path / "a.ply", fix=tmp_path / "out.ply")
    assert diagnosis.codes == ("truncated",) and not diagnosis.findings[0].fixable
    assert not (tmp_path / "out.ply").exists()


def test_trailing_bytes_are_left_out(tmp_path, mug):
    (tmp_path / "a.ply").write_bytes(ply_bytes(stored_columns(mug)) + b"junk!")
    diagnosis = diagnose(tmp_path / "a.ply", fix=tmp_path / "out.ply")
    assert serious(diagnosis) == {"trailing_bytes"} and diagnosis.ok
    assert diagnosis.fixed == ("left out 5 bytes after the last gaussian",)
    assert serious(diagnose(tmp_path / "out.ply")) == set()


def test_long_quaternions_are_normalised_with_the_other_repairs(tmp_path, mug):
    columns = rows(stored_columns(mug), {"x": np.nan}, slice(0, 1))
    columns |= {name: 3 * columns[name] for name in WXYZ}
    (tmp_path / "a.ply").write_bytes(ply_bytes(columns))
    diagnose(tmp_path / "a.ply", fix=tmp_path / "out.ply")
    torch.testing.assert_close(read_splats(tmp_path / "out.ply").quats.norm(dim=1), torch.ones(1999))


def test_repair_can_change_the_format(tmp_path, mug):
    (tmp_path / "a.ply").write_bytes(ply_bytes(activate(stored_columns(mug), "scales")))
    diagnosis = diagnose(tmp_path / "a.ply", fix=tmp_path / "out.splat")
    assert diagnosis.fixed and diagnose(tmp_path / "out.splat").format == "splat"


def test_nothing_is_written_when_there_is_nothing_to_repair(tmp_path, mug):
    path = write_splats(mug, tmp_path / "a.ply")
    diagnosis = diagnose(path, fix=tmp_path / "out.ply")
    assert diagnosis.fixed == () and diagnosis.fixed_path is None and not (tmp_path / "out.ply").exists()


def test_the_input_is_never_overwritten(tmp_path, mug):
    path = tmp_path / "a.ply"
    path.write_bytes(ply_bytes(rows(stored_columns(mug), {"x": np.nan}, slice(0, 1))))
    (tmp_path / "link.ply").symlink_to(path)
    before = path.read_bytes()
    for same in (path, tmp_path / "link.ply", tmp_path / "." / "a.ply"):
        with pytest.raises(ValueError, match="fix must be another path"):
            diagnose(path, fix=same)
    with pytest.raises(FormatError):
        diagnose(path, fix=tmp_path / "nowhere" / "out.ply")
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["a.ply", "link.ply"]


def test_all_broken_is_an_error_without_repair(tmp_path, mug):
    path = tmp_path / "a.ply"
    path.write_bytes(ply_bytes(rows(stored_columns(mug), {"x": np.nan}, slice(None))))
    diagnosis = diagnose(path, fix=tmp_path / "out.ply")
    assert serious(diagnosis) == {"non_finite"} and not diagnosis.ok and diagnosis.fixed_path is None


# ---- the sheet ---------------------------------------------------------------------------------------------------


def test_the_sheet_reads_well(tmp_path, mug):
    path = tmp_path / "<b>bold.ply"
    path.write_bytes(ply_bytes(rows(stored_columns(mug), {"x": np.nan}, slice(0, 5))))
    diagnosis = diagnose(path)
    text = str(diagnosis)
    assert text.startswith("<b>bold.ply\n  ply, 2,000 gaussians, SH degree 0, 112 kB, extent")
    assert "! warning: 5 of 2,000 gaussians hold NaN or infinity" in text and "[fixable]" in text
    assert max(map(len, text.splitlines())) <= 110
    html = diagnosis._repr_html_()
    assert "<b>bold" not in html and "&lt;b&gt;bold" in html
    back = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert back["ok"] is True and back["findings"][0]["code"] == "non_finite"


def test_html_escapes_what_a_file_says():
    evil = Finding("x", "error", "<script>alert(1)</script>", "<img src=x>")
    sheet = Diagnosis("a", None, None, None, 0, None, "unknown", ("<i>note</i>",), (evil,), ("<u>",), "<s>")
    html = sheet._repr_html_()
    assert not any(tag in html for tag in ("<script", "<img", "<i>", "<u>", "<s>"))


def test_errors_come_first(tmp_path, mug):
    columns = activate(rows(stored_columns(mug), {"x": np.nan}, slice(0, 5)), "opacity")
    (tmp_path / "a.ply").write_bytes(ply_bytes(columns))
    severities = [f.severity for f in diagnose(tmp_path / "a.ply").findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index) and severities[0] == "error"


# ---- bounds ------------------------------------------------------------------------------------------------------


def test_large_clouds_are_sampled(monkeypatch, mug):
    monkeypatch.setattr(checks, "MAX_POINTS", 900)
    near = checks.Neighbours.of(mug.means.numpy())
    assert near is not None and len(near.rows) == 900 and (np.diff(near.rows) > 0).all()
    assert checks.check_alignment(mug.quats.numpy(), mug.scales.numpy(), near) == []
    swapped = checks.Neighbours.of(mug.means.numpy()[:, [0, 2, 1]])
    assert swapped is not None
    assert checks.check_alignment(mug.quats.numpy(), mug.scales.numpy(), swapped)


def test_undoing_inverts_the_activations():
    opacities = np.linspace(0, 1, 50, dtype=np.float32)
    np.testing.assert_allclose(checks.before_sigmoid(1 / (1 + np.exp(-opacities))), opacities, atol=1e-6)
    scales = np.geomspace(1e-4, 3, 50, dtype=np.float32)[:, None]
    close = SimpleNamespace(spacing=0.01)
    np.testing.assert_allclose(checks.before_exponential(np.exp(scales), close), scales, atol=2e-7)


def test_all_turns_are_different():
    turns = checks._turns()
    assert turns.shape == (24, 3, 3) and np.array_equal(turns[0], np.eye(3))
    flat = {tuple(turn.ravel() * np.sign(turn.ravel()[turn.ravel() != 0][0])) for turn in turns}
    assert len(flat) == 24


VALID = {
    "ply": ply_bytes(stored_columns(sample("knot")[:100])),
    "splat": (np.arange(32 * 40, dtype=np.uint8) % 60).tobytes(),
}


@pytest.mark.parametrize("name", VALID)
def test_damaged_bytes_never_raise(tmp_path, name):
    @fuzz_settings
    @given(mutations(VALID[name]))
    def run(data: bytes) -> None:
        path = tmp_path / f"a.{name}"
        path.write_bytes(data)
        diagnosis = diagnose(path)
        json.dumps(diagnosis.to_dict(), allow_nan=False)
        assert str(diagnosis) and diagnosis._repr_html_()

    run()
