"""PlayCanvas compressed PLY: real files against their originals, quantisation bounds, broken headers."""

from __future__ import annotations

import numpy as np
import plyfile
import pytest
import torch
from scipy.spatial import cKDTree

from clipgs_lib.formats import compressed_ply, read_splats, sniff, write_splats
from clipgs_lib.formats.packing import z_order
from clipgs_lib.formats.raw import FormatError, SplatWarning
from clipgs_lib.splats import COLUMNS, Splats

from .mutations import assert_survives
from .ply_samples import in_z_order

LOG_STEP = 1 / 1023  # of the chunk's range, for the coarsest axis


def matched(a: Splats, b: Splats) -> Splats:
    """The gaussians of ``a`` in the order of ``b``, by nearest centre; each must be used once."""
    index = cKDTree(a.means.numpy()).query(b.means.numpy())[1]
    assert len(set(index.tolist())) == len(a) == len(b)
    return a[torch.from_numpy(index)]


def assert_quantised(original: Splats, back: Splats) -> None:
    """Within half a step of every quantiser, the ranges bounded by those of the whole set."""
    extent = original.means.amax(dim=0) - original.means.amin(dim=0)
    assert ((back.means - original.means).abs() <= 0.51 * extent * LOG_STEP + 1e-6).all()
    logs = original.scales.log()
    spread = logs.amax(dim=0) - logs.amin(dim=0)
    assert ((back.scales.log() - logs).abs() <= 0.51 * spread * LOG_STEP + 1e-5).all()
    assert ((back.opacities - original.opacities).abs() <= 0.51 / 255).all()
    range_ = original.colors.amax(dim=0) - original.colors.amin(dim=0)
    assert ((back.colors - original.colors).abs() <= 0.51 * range_ / 255 + 1e-6).all()
    assert ((back.shN - original.shN.clamp(-4, 4)).abs() <= 1 / 32).all()
    dots = (back.quats * torch.nn.functional.normalize(original.quats, dim=1)).sum(dim=1).abs().double().clamp(max=1)
    assert torch.rad2deg(2 * dots.acos()).max() < 0.25


@pytest.fixture
def written(tmp_path, splats_factory):
    """Bytes of a small file with SH."""
    return write_splats(splats_factory(300, 1), tmp_path / "w.compressed.ply").read_bytes()


# ---- real files ----------------------------------------------------------------------------------------------------


def test_real_playbot_agrees_with_the_ply_it_was_made_from(real_data):
    original = read_splats(real_data / "splats" / "ply" / "playbot_sh2.ply")
    packed = read_splats(real_data / "splats" / "compressed_ply" / "playbot_sh2.compressed.ply")
    original = matched(original, packed)
    assert packed.sh_degree == 2
    assert_quantised(original, packed)
    assert (packed.means - original.means).abs().max() < 1e-3
    torch.testing.assert_close(packed.opacities, original.opacities, rtol=0, atol=1e-6)
    assert (packed.shN - original.shN).abs().max() < 1 / 63


def test_real_guitar_agrees_with_the_splat_file(real_data):
    packed = read_splats(real_data / "splats" / "compressed_ply" / "guitar.compressed.ply")
    records = read_splats(real_data / "splats" / "splat" / "guitar.splat")
    assert len(packed) == len(records) == 90854
    distance, index = cKDTree(records.means.numpy()).query(packed.means.numpy())
    assert np.quantile(distance, 0.999) < 2e-3
    records = records[torch.from_numpy(index)]
    assert (packed.opacities - records.opacities).abs().median() < 0.01
    assert (packed.colors.clamp(0, 1) - records.colors).abs().median() < 0.01
    assert ((packed.scales / records.scales).log().abs()).median() < 0.05
    assert (packed.quats * records.quats).sum(dim=1).abs().median() > 0.999


def test_real_files_have_the_extreme_opacity_bytes_and_no_infinity(real_data):
    path = real_data / "splats" / "compressed_ply" / "guitar.compressed.ply"
    color = plyfile.PlyData.read(str(path))["vertex"]["packed_color"]
    splats = read_splats(path)
    assert bool(splats.finite_mask().all())
    assert torch.equal(splats.opacities == 1, torch.from_numpy(color & 255 == 255))
    assert torch.equal(splats.opacities == 0, torch.from_numpy(color & 255 == 0))
    assert int((splats.opacities == 1).sum() + (splats.opacities == 0).sum()) > 0


def test_real_files_agree_with_gsply(real_data):
    gsply = pytest.importorskip("gsply")
    path = real_data / "splats" / "compressed_ply" / "playbot_sh2.compressed.ply"
    ours, theirs = read_splats(path), gsply.plyread(path)
    np.testing.assert_allclose(ours.means.numpy(), theirs.means, atol=1e-6)
    np.testing.assert_allclose(ours.scales.numpy(), np.exp(theirs.scales), rtol=1e-5)
    np.testing.assert_allclose(ours.sh0[:, 0].numpy(), theirs.sh0, atol=1e-5)


def test_real_round_trip(real_data, tmp_path):
    original = read_splats(real_data / "splats" / "ply" / "playbot_sh2.ply")
    path = write_splats(original, tmp_path / "x.compressed.ply")
    back = read_splats(path)
    assert_quantised(matched(original, back), back)
    assert path.stat().st_size < 0.3 * (real_data / "splats" / "ply" / "playbot_sh2.ply").stat().st_size


def test_sorting_makes_positions_finer(real_data, tmp_path, monkeypatch):
    """hamburger.ply is not in spatial order: chunks along a Z-curve are smaller."""
    original = read_splats(real_data / "splats" / "ply" / "hamburger.ply")
    shuffled = original[torch.randperm(len(original), generator=torch.Generator().manual_seed(0))]
    errors = []
    for order in (z_order, lambda means: np.arange(len(means))):
        monkeypatch.setattr(compressed_ply, "z_order", order)
        back = read_splats(write_splats(shuffled, tmp_path / "x.compressed.ply"))
        errors.append(float(np.median(cKDTree(original.means.numpy()).query(back.means.numpy())[0])))
    assert errors[0] < 0.2 * errors[1]


# ---- layout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257])
def test_round_trip(tmp_path, splats_factory, degree, count):
    splats = in_z_order(splats_factory(count, degree))
    path = write_splats(splats, tmp_path / "x.compressed.ply")
    back = read_splats(path)
    assert sniff(path) == "compressed_ply" and back.sh_degree == degree and len(back) == count
    if count:
        assert_quantised(splats, back)


def test_extreme_opacities_are_exact(tmp_path, splats_factory):
    splats = in_z_order(splats_factory(3))
    splats.opacities[:] = torch.tensor([0.0, 1.0, 0.5])
    back = read_splats(write_splats(splats, tmp_path / "x.compressed.ply"))
    assert back.opacities[:2].tolist() == [0.0, 1.0]


def test_extreme_values_stay_finite(tmp_path, splats_factory):
    splats = splats_factory(4, 1)
    splats.scales[0] = 0.0
    splats.shN[0] = 100.0
    splats.means[1] = 1e6
    splats.quats[2] *= 1e-8
    splats = in_z_order(splats)
    back = read_splats(write_splats(splats, tmp_path / "x.compressed.ply"))
    assert back.shN[0].max() == 4.0
    assert (back.scales[splats.scales[:, 0] == 0] < 1e-8).all()


def test_decoding_needs_no_colour_bounds(tmp_path, splats_factory):
    """Older files have 12 properties a chunk; colours then span [0, 1]."""
    splats = in_z_order(splats_factory(300))
    splats.sh0[:] = (torch.rand(300, 1, 3) - 0.5) / 0.28209479177387814
    data = plyfile.PlyData.read(str(write_splats(splats, tmp_path / "x.compressed.ply")))
    chunk = data["chunk"].data
    low = np.repeat(np.stack([chunk[f"min_{c}"] for c in "rgb"], 1), 256, 0)[:300]
    high = np.repeat(np.stack([chunk[f"max_{c}"] for c in "rgb"], 1), 256, 0)[:300]
    bytes_ = np.rint(splats.colors.numpy() * 255).astype(np.uint32)
    assert (low >= 0).all() and (high <= 1).all()
    vertex = data["vertex"].data.copy()
    vertex["packed_color"] = bytes_[:, 0] << 24 | bytes_[:, 1] << 16 | bytes_[:, 2] << 8 | 128
    names = [n for n in chunk.dtype.names if n[-2:] not in ("_r", "_g", "_b")]
    assert len(names) == 12
    old = np.empty(len(chunk), [(n, "f4") for n in names])
    for name in names:
        old[name] = chunk[name]
    elements = [plyfile.PlyElement.describe(old, "chunk"), plyfile.PlyElement.describe(vertex, "vertex")]
    plyfile.PlyData(elements, byte_order="<").write(str(tmp_path / "old.ply"))
    back = read_splats(tmp_path / "old.ply")
    assert ((back.colors - splats.colors).abs() <= 0.51 / 255).all()
    assert (back.means - splats.means).abs().max() < 0.01


@pytest.mark.parametrize("order", [">", "="])
@pytest.mark.parametrize("text", [True, False])
def test_other_encodings(tmp_path, splats_factory, order, text):
    path = write_splats(splats_factory(300, 2), tmp_path / "x.compressed.ply")
    data = plyfile.PlyData.read(str(path))
    plyfile.PlyData(data.elements, text=text, byte_order=order).write(str(tmp_path / "odd.ply"))
    a, b = read_splats(path), read_splats(tmp_path / "odd.ply")
    for name in COLUMNS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-5)


def test_many_rows_in_threads_equal_one_thread(tmp_path, splats_factory, monkeypatch):
    path = write_splats(splats_factory(50_001, 1), tmp_path / "x.compressed.ply")
    threaded = compressed_ply.read(path)
    monkeypatch.setattr(compressed_ply, "in_threads", lambda count, job: [job(0, count)])
    alone = compressed_ply.read(path)
    for name in COLUMNS:
        assert np.array_equal(getattr(threaded, name), getattr(alone, name))
    assert threaded.clean
    np.testing.assert_allclose(np.linalg.norm(threaded.quats, axis=1), 1, atol=1e-6)


# ---- broken --------------------------------------------------------------------------------------------------------

BROKEN = {
    "a chunk bound missing": (b"float min_scale_y", b"float min_scale_q", "low and high of position and scale"),
    "half the colours": (b"float max_g", b"float max_q", "of all three colours or none"),
    "no chunk": (b"element chunk 2", b"element chnuk 2", "an element 'chunk', got elements chnuk, vertex, sh"),
    "too few chunks": (b"element chunk 2", b"element chunk 1", "300 gaussians must have 2 chunks of 256, got 1"),
    "float words": (b"uint packed_scale", b"float packed_scale", "uint properties .* got no such packed_scale"),
    "no rotation": (b"uint packed_rotation", b"uint packed_rotatiom", "got no such packed_rotation"),
    "sh count": (b"element sh 300", b"element sh 299", r"must have as many rows as 'vertex' \(300\), got 299"),
    "sh type": (b"uchar f_rest_4", b"char f_rest_4", "must have 9, 24 or 45 uchar properties"),
    "sh gap": (b"uchar f_rest_8", b"uchar f_rest_9", "must have 9, 24 or 45 uchar properties"),
    "4e9": (b"element vertex 300", b"element vertex 4000000000", "must lie in 0..200,000,000, got 4,000,000,000"),
    "-1": (b"element vertex 300", b"element vertex -1", "must be >= 0, got -1"),
    "does not fit": (b"element vertex 300", b"element vertex 500", "500 gaussians need|as many rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_say_what_is_wrong(tmp_path, written, case):
    old, new, message = BROKEN[case]
    assert written.count(old) == 1
    path = tmp_path / "x.ply"
    path.write_bytes(written.replace(old, new))
    with pytest.raises(FormatError, match=message) as caught:
        read_splats(path)
    assert str(caught.value).startswith(str(path)) and caught.value.todo
    assert_survives(read_splats, path, max_extra_bytes=8 << 20)


def test_truncation(tmp_path, written):
    path = tmp_path / "x.ply"
    for end in [*range(0, len(written), 97), len(written) - 1]:
        path.write_bytes(written[:end])
        with pytest.raises(FormatError):
            read_splats(path)


def test_bounds_that_are_not_finite_lose_their_chunk_only(tmp_path, written):
    start = written.index(b"end_header\n") + 11
    path = tmp_path / "x.ply"
    path.write_bytes(written[:start] + np.float32(np.nan).tobytes() + written[start + 4 :])
    with pytest.warns(SplatWarning, match="dropped 256 non-finite"):
        assert len(read_splats(path)) == 44


def test_rotation_words_that_no_writer_makes_still_give_unit_quaternions(tmp_path, written):
    data = plyfile.PlyData.read(str(write_bytes(tmp_path / "a.ply", written)))
    data["vertex"].data["packed_rotation"][:4] = [0x3FFFFFFF, 0x7FFFFFFF, 0xBFFFFFFF, 0xFFFFFFFF]
    data.write(str(tmp_path / "b.ply"))
    raw = compressed_ply.read(tmp_path / "b.ply")
    np.testing.assert_allclose(np.linalg.norm(raw.quats, axis=1), 1, atol=1e-6)


def write_bytes(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("column", ["means", "quats"])
def test_what_cannot_be_quantised_is_refused_and_nothing_written(tmp_path, splats_factory, column):
    splats = splats_factory(3)
    getattr(splats, column)[1] = float("nan") if column == "means" else 0.0
    with pytest.raises(FormatError, match=r"finite with a non-zero quaternion.*prune\(\)"):
        write_splats(splats, tmp_path / "x.compressed.ply")
    assert list(tmp_path.iterdir()) == []
