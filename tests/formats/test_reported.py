"""Splat files from public bug reports of neighbours, with their right values (``shared/cases`` beside the project).

Each case is followed by a second input of the same kind, made here.
"""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import clipgs_lib as cg
from clipgs_lib.formats import FormatError, ply
from clipgs_lib.splats import COLUMNS, Splats

from ..conftest import clipgs
from .ply_samples import in_z_order, ply_bytes, stored_columns
from .test_gltf import document, glb


def read(path) -> Splats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cg.SplatWarning)
        return cg.read_splats(path)


def assert_alike(a: Splats, b: Splats, tolerance: float) -> None:
    assert len(a) == len(b)
    for name in ("means", "scales", "opacities", "sh0", "shN"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=tolerance, rtol=tolerance, msg=name)
    turn = (a.quats * b.quats).sum(-1).abs()
    torch.testing.assert_close(turn, torch.ones_like(turn), atol=tolerance, rtol=0)


def save(path, columns, **options):
    path.write_bytes(ply_bytes(columns, **options))
    return path


# ---- Mip-Splatting -----------------------------------------------------------------------------------------------


def test_mip_splattings_filter_is_fused_once(cases, tmp_path):
    fused, filtered = read(cases / "03_mip_filter/fused.ply"), read(cases / "03_mip_filter/filter.ply")
    assert_alike(filtered, fused, 1e-4)
    cg.write_splats(filtered, tmp_path / "again.ply")
    assert_alike(read(tmp_path / "again.ply"), fused, 1e-4)


@pytest.mark.parametrize("order", ["<", ">", ""])
@pytest.mark.parametrize("flat", [False, True])
def test_filters_that_differ_between_gaussians(tmp_path, splats_factory, order, flat):
    splats = splats_factory(33, 2, seed=4)
    f = torch.linspace(0, 0.3, 33)
    columns = {"filter_3D": f.double().numpy()} | stored_columns(splats)
    axes = 2 if flat else 3
    if flat:
        del columns["scale_2"]
    path = save(tmp_path / "a.ply", columns, order=order)
    fused, scales = read(path), splats.scales[:, :axes]
    wide = (scales**2 + f[:, None] ** 2).sqrt()
    torch.testing.assert_close(fused.scales[:, :axes], wide)
    ratio = ((scales**2).prod(1) / (wide**2).prod(1)).sqrt()
    torch.testing.assert_close(fused.opacities, splats.opacities * ratio)
    torch.testing.assert_close(fused.shN, splats.shN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cg.SplatWarning)
        assert "filter_3D" in " ".join(ply.read(path).notes)


def test_a_filter_that_is_not_finite_drops_its_gaussian(tmp_path, splats_factory):
    f = np.array([0.1, np.nan, np.inf, 0.0])
    path = save(tmp_path / "a.ply", stored_columns(splats_factory(4)) | {"filter_3D": f})
    with pytest.warns(cg.SplatWarning, match="dropped 2 non-finite"):
        assert len(cg.read_splats(path)) == 2


# ---- colours and SH ----------------------------------------------------------------------------------------------


def test_colors_as_bytes(cases):
    path = cases / "17_rgb_bytes/rgb.ply"
    rows = np.frombuffer(path.read_bytes().split(b"end_header\n")[1], np.uint8).reshape(20, -1)
    expected = torch.from_numpy(rows[:, -3:] / 255.0).float()
    torch.testing.assert_close(0.5 + 0.28209479 * read(path).sh0[:, 0], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("names", "kind", "full"),
    [("red green blue", "uchar", 255), ("r g b", "float", 1.0), ("diffuse_red diffuse_green diffuse_blue", "int", 255)],
)
@pytest.mark.parametrize("order", ["<", ""])
def test_colors_of_other_names_and_types(tmp_path, splats_factory, names, kind, full, order):
    columns = stored_columns(splats_factory(17, seed=2))
    rgb = np.random.default_rng(0).integers(0, 256, (17, 3)) * (full / 255)
    colors = dict(zip(names.split(), rgb.T, strict=True))
    with_bytes = colors | {k: v for k, v in columns.items() if not k.startswith("f_dc")}
    path = save(tmp_path / "a.ply", with_bytes, types=dict.fromkeys(colors, kind), order=order)
    torch.testing.assert_close(read(path).colors, torch.from_numpy(rgb / full).float(), atol=1e-5, rtol=0)
    both = save(tmp_path / "both.ply", colors | columns, types=dict.fromkeys(colors, kind), order=order)
    assert_alike(read(both), splats_factory(17, seed=2), 1e-5)  # f_dc is what a trainer means
    assert names.split()[0] in " ".join(ply.read(both).notes)


def test_colored_points_stay_points(tmp_path):
    names = ("x", "y", "z", "red", "green", "blue", "opacity")
    path = save(tmp_path / "a.ply", {n: np.zeros(3) for n in names})
    with pytest.raises(FormatError, match="point cloud"):
        cg.read_splats(path)


@pytest.mark.parametrize("name", ["sh4.ply", "sh4.pt"])
def test_sh_degree_4_loses_its_last_band_with_a_warning(cases, name):
    with pytest.warns(cg.SplatWarning, match="4") as caught:
        splats = cg.read_splats(cases / "18_sh4" / name)
    assert len(caught) == 1
    whole = torch.load(cases / "18_sh4/sh4.pt", weights_only=True)["splats"]["shN"]
    assert splats.sh_degree == 3
    torch.testing.assert_close(splats.shN, whole[:, :15], atol=1e-6, rtol=0)


@pytest.mark.parametrize("degree", [4, 5])
@pytest.mark.parametrize("suffix", [".ply", ".pt", ".compressed.ply"])
def test_higher_sh_degrees_are_cut(tmp_path, splats_factory, degree, suffix):
    splats, path = in_z_order(splats_factory(12)), tmp_path / f"a{suffix}"
    each = (degree + 1) ** 2 - 1
    bytes_ = np.random.default_rng(1).integers(0, 256, (12, each, 3))
    shN = torch.from_numpy((bytes_ + 0.5) / 32 - 4).float()
    rest = {f"f_rest_{each * c + k}": (c, k) for c in range(3) for k in range(each)}
    if suffix == ".pt":
        content = {name: getattr(splats, name) for name in COLUMNS}
        content |= {"scales": splats.scales.log(), "opacities": splats.opacities.logit(), "shN": shN}
        torch.save({"splats": content}, path)
    elif suffix == ".ply":
        save(path, stored_columns(splats) | {name: shN[:, k, c].numpy() for name, (c, k) in rest.items()})
    else:
        cg.write_splats(splats, path)
        head, body = path.read_bytes().split(b"end_header\n", 1)
        lines = [b"element sh 12", *(b"property uchar " + name.encode() for name in rest), b"end_header\n"]
        table = np.stack([bytes_[:, k, c] for c, k in rest.values()], 1).astype(np.uint8)
        path.write_bytes(head + b"\n".join(lines) + body + table.tobytes())
    with pytest.warns(cg.SplatWarning, match=f"degree {degree} was dropped") as caught:
        got = cg.read_splats(path)
    assert len(caught) == 1
    torch.testing.assert_close(got.shN, shN[:, :15], atol=0.02 if suffix == ".compressed.ply" else 1e-6, rtol=0)


# ---- 2DGS --------------------------------------------------------------------------------------------------------


def test_2dgs_on_the_command_line(cases, tmp_path):
    source = cases / "19_2dgs/2dgs.ply"
    done = clipgs("convert", source, tmp_path / "out.ply")
    assert done.returncode == 0, done.stderr
    flat, plain = read(tmp_path / "out.ply"), read(cases / "plain.ply")
    torch.testing.assert_close(flat.scales[:, :2], plain.scales[:, :2], atol=1e-5, rtol=1e-5)
    assert (flat.scales[:, 2] <= 0.01 * flat.scales[:, :2].amin(1)).all()
    done = clipgs("diagnose", source)
    assert done.returncode in (0, 1) and "2D" in done.stdout
    done = clipgs("render", source, tmp_path / "a.png")
    assert done.returncode == 0, done.stderr


# ---- nerfstudio --------------------------------------------------------------------------------------------------


def test_nerfstudio_checkpoints(cases):
    splats = read(cases / "20_nerfstudio/step-000029999.ckpt")
    state = torch.load(cases / "20_nerfstudio/step-000029999.ckpt", weights_only=True)["pipeline"]
    stem = "_model.gauss_params."
    assert len(splats) == 20 and splats.sh_degree == 3
    torch.testing.assert_close(splats.scales, state[stem + "scales"].exp(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(splats.opacities, state[stem + "opacities"].sigmoid()[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(splats.shN, state[stem + "features_rest"])
    with pytest.raises(FormatError, match=r"nerfstudio.*proposal_networks"):
        cg.read_splats(cases / "20_nerfstudio/other_method.ckpt")


@pytest.mark.parametrize("stem", ["_model.", "_model.module.gauss_params."])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_nerfstudio_checkpoints_of_other_versions(tmp_path, splats_factory, stem, degree):
    splats = splats_factory(9, degree)
    dc = splats.sh0[:, 0] if degree else splats.colors.clamp(0.01, 0.99).logit()
    parts = {"means": splats.means, "quats": splats.quats, "scales": splats.scales.log(), "features_dc": dc}
    parts |= {"opacities": splats.opacities.logit()[:, None], "features_rest": splats.shN}
    state = {stem + name: value for name, value in parts.items()}
    state["_model.camera_optimizer.pose_adjustment"] = torch.zeros(3, 6)
    torch.save({"step": 7, "pipeline": state, "optimizers": {}}, tmp_path / "step-7.ckpt")
    got = cg.read_splats(tmp_path / "step-7.ckpt")
    torch.testing.assert_close(got.colors, splats.colors if degree else splats.colors.clamp(0.01, 0.99))
    torch.testing.assert_close(got.opacities, splats.opacities)
    torch.testing.assert_close(got.scales, splats.scales)
    assert torch.equal(got.shN, splats.shN)


# ---- the antialiased flag ----------------------------------------------------------------------------------------


def spz_flags(path) -> int:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = zlib.decompress(data, 31)
    return struct.unpack_from("<B", data, 14)[0]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_antialiased_flag_survives(cases, tmp_path, version):
    splats = read(cases / "21_spz_antialiased/aa.spz")
    cg.write_splats(splats, tmp_path / "aa.spz", version=version)
    assert spz_flags(tmp_path / "aa.spz") & 1 == 1
    assert read(tmp_path / "aa.spz").antialiased
    cg.write_splats(read(cases / "15_glb_spz2/same.spz"), tmp_path / "no.spz", version=version)
    assert spz_flags(tmp_path / "no.spz") & 1 == 0


def test_the_antialiased_flag_through_changes_and_other_formats(cases, tmp_path):
    splats = read(cases / "21_spz_antialiased/aa.spz")
    changed = splats.normalize().rotate("x", 90).with_sh_degree(2)[:7]
    cg.write_splats(changed, tmp_path / "a.sog")
    again = cg.read_splats(tmp_path / "a.sog")
    assert again.antialiased and Splats.cat([again, splats]).antialiased
    with pytest.warns(cg.SplatWarning, match="no place .* antialiasing"):
        cg.write_splats(again, tmp_path / "a.ply")
    plain = cg.read_splats(tmp_path / "a.ply")
    assert not plain.antialiased and not Splats.cat([again, plain]).antialiased
    assert clipgs("convert", cases / "21_spz_antialiased/aa.spz", tmp_path / "out.spz").returncode == 0
    assert spz_flags(tmp_path / "out.spz") & 1 == 1


# ---- what is ignored ---------------------------------------------------------------------------------------------


def test_every_ignored_property_is_named(tmp_path, splats_factory):
    columns = stored_columns(splats_factory(3))
    extra = {f"semantic_{i}": np.zeros(3) for i in range(40)} | {"gamma": np.ones(3)}
    notes = " ".join(ply.read(save(tmp_path / "a.ply", columns | extra)).notes)
    assert "41 unknown properties were ignored: semantic_*, gamma" in notes
    after = (b"element camera 1\nproperty float fov\n", b"\0\0\0\0")
    assert "other elements were ignored: camera" in ply.read(save(tmp_path / "b.ply", columns, after=after)).notes


def test_what_is_ignored_is_named_in_a_warning(tmp_path, splats_factory):
    splats = splats_factory(3)
    columns = stored_columns(splats)
    ply_file = save(tmp_path / "a.ply", columns | {"roughness": np.zeros(3)})
    state = {name: getattr(splats, name) for name in COLUMNS} | {"features": torch.zeros(3, 32), "step": torch.ones(7)}
    state |= {"scales": splats.scales.log(), "opacities": splats.opacities.logit()}
    torch.save({"splats": state}, tmp_path / "a.pt")
    names = {"sh0": "features_dc", "shN": "features_rest", "features": "semantics"}
    model = {f"_model.gauss_params.{names.get(name, name)}": value for name, value in state.items()}
    torch.save({"pipeline": model | {"camera.pose": torch.zeros(9, 6)}}, tmp_path / "b.ckpt")
    root, binary = document(splats)
    attributes = root["meshes"][0]["primitives"][0]["attributes"]
    attributes |= {"_METALNESS": attributes["KHR_gaussian_splatting:OPACITY"], "COLOR_0": 0}
    (tmp_path / "a.glb").write_bytes(glb(root, binary))
    expected = {"a.pt": "features", "b.ckpt": "semantics", "a.glb": "_METALNESS", ply_file.name: "roughness"}
    for name, ignored in expected.items():
        with pytest.warns(cg.SplatWarning, match=rf"{name}: 1 unknown properties were ignored: {ignored}$"):
            cg.read_splats(tmp_path / name)
        assert any(ignored in note for note in cg.diagnose(tmp_path / name).notes), name
    save(tmp_path / "b.ply", columns | {"nx": np.zeros(3)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cg.read_splats(tmp_path / "b.ply")


# ---- SOG in folders ----------------------------------------------------------------------------------------------


def test_sog_in_a_folder_of_its_zip(cases):
    a, b = read(cases / "22_sog_folders/folder.sog"), read(cases / "22_sog_folders/plain.sog")
    for name in COLUMNS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("name", ["lod", "lod/lod-meta.json"])
def test_sog_with_levels_of_detail(cases, name):
    assert_alike(read(cases / "22_sog_folders" / name), read(cases / "22_sog_folders/plain.sog"), 1e-6)


def unpacked(splats: Splats, folder: Path) -> Path:
    cg.write_splats(splats, folder.with_suffix(".sog"))
    with zipfile.ZipFile(folder.with_suffix(".sog")) as archive:
        archive.extractall(folder)
    return folder


def zipped(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return target


def test_sog_deep_in_a_zip_with_junk_beside(tmp_path, splats_factory):
    folder = unpacked(splats_factory(30, 1), tmp_path / "a")
    path = zipped(folder, tmp_path / "b.zip", "some/where/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/meta.json", "junk")
    assert_alike(read(path), read(tmp_path / "a.sog"), 1e-6)
    both = tmp_path / "both"
    both.mkdir()
    shutil.copytree(folder, both / "one")
    shutil.copytree(folder, both / "two")
    with pytest.raises(FormatError, match=r"one SOG.*one/meta\.json, two/meta\.json|one SOG.*two/meta\.json, one/meta"):
        cg.read_splats(zipped(both, tmp_path / "both.sog"))


def levels(folder: Path, splats: Splats) -> dict:
    """Three chunks: two of level 0 (the second with a leaf of another branch in its tail), one coarse."""
    folder.mkdir()
    for name, rows in (("0_0", slice(0, 20)), ("0_1", slice(20, 50)), ("1_0", slice(0, 10))):
        unpacked(splats[rows], folder / name)
    leaves = [
        {"lods": {"0": {"file": 1, "offset": 0, "count": 20}, "1": {"file": 0, "offset": 0, "count": 10}}},
        {"children": [{"lods": {"0": {"file": 2, "offset": 0, "count": 12}}}]},
        {"lods": {"0": {"file": 2, "offset": 12, "count": 18}}},
    ]
    names = ["1_0/meta.json", "0_0/meta.json", "0_1/meta.json"]
    return {"lodLevels": 2, "environment": None, "filenames": names, "tree": {"children": leaves}}


def test_several_chunks_of_the_finest_level(tmp_path, splats_factory):
    meta = levels(tmp_path / "lod", splats_factory(50, 1))
    (tmp_path / "lod/lod-meta.json").write_text(json.dumps(meta))
    expected = Splats.cat([read(tmp_path / "lod/0_0"), read(tmp_path / "lod/0_1")])
    assert_alike(read(tmp_path / "lod"), expected, 1e-6)
    assert_alike(read(zipped(tmp_path / "lod", tmp_path / "lod.zip", "scene/")), expected, 1e-6)


def test_levels_of_detail_that_lie(tmp_path, splats_factory):
    meta, path = levels(tmp_path / "lod", splats_factory(50)), tmp_path / "lod/lod-meta.json"
    lies = (
        ({"filenames": ["../0_0/meta.json"] * 3}, "below its folder"),
        ({"filenames": ["0_0/meta.json"]}, "one of 1 files"),
        ({"filenames": ["lod-meta.json"] * 3}, "must hold"),
        ({"filenames": ["gone/meta.json"] * 3}, "gone"),
        ({"tree": {}}, "1_0"),
        ({"tree": [1]}, "tree of JSON objects"),
        ({"tree": {"lods": {"0": {"file": 0, "offset": 5, "count": 10**12}}}}, "must lie in 0..10"),
        ({"tree": {"lods": {"0": {"file": 0, "offset": -5, "count": 1}}}}, ">= 0"),
    )
    for change, message in lies:
        path.write_text(json.dumps(meta | change))
        with pytest.raises(FormatError, match=message):
            cg.read_splats(path)


# ---- the doctor --------------------------------------------------------------------------------------------------


def test_the_doctor_mends_linear_scales(cases, tmp_path):
    report = cg.diagnose(cases / "29_linear_scales/linear.ply", fix=tmp_path / "out.ply")
    assert "activated_scales" in report.codes and "scales" in str(report)
    mended, plain = read(tmp_path / "out.ply"), read(cases / "plain.ply")
    torch.testing.assert_close(mended.scales, plain.scales, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mended.opacities, plain.opacities, atol=1e-6, rtol=0)
    assert "activated_scales" not in cg.diagnose(cases / "plain.ply").codes


@pytest.mark.parametrize("count", [15, 80, 2000])
@pytest.mark.parametrize("what", ["scales", "colors", "both"])
def test_the_doctor_mends_linear_scales_and_rgb_colors_of_other_sizes(tmp_path, splats_factory, count, what):
    splats = splats_factory(count, 1, seed=3)
    columns = stored_columns(splats)
    expected = set()
    if what != "colors":
        columns |= {f"scale_{i}": splats.scales[:, i].numpy() for i in range(3)}
        expected |= {"activated_scales"}
    if what != "scales":
        splats.sh0[:] = (torch.rand(count, 1, 3, generator=torch.Generator().manual_seed(5)) - 0.5) / 0.28209479
        columns |= {f"f_dc_{i}": splats.colors[:, i].numpy() for i in range(3)}
        expected |= {"rgb_as_sh"}
    report = cg.diagnose(save(tmp_path / "a.ply", columns), fix=tmp_path / "out.ply")
    assert {"activated_scales", "rgb_as_sh", "activated_opacities"} & set(report.codes) == expected
    assert len(report.fixed) == len(expected)
    assert_alike(read(tmp_path / "out.ply"), splats, 1e-3)
