"""INRIA PLY: every encoding reads the same, the layout is the INRIA one, broken files say what is wrong."""

from __future__ import annotations

import multiprocessing
import re
import sys

import numpy as np
import plyfile
import pytest
import torch

from clipgs_lib.formats import ply, read_splats, write_splats
from clipgs_lib.formats.ply_table import MAX_HEADER_BYTES
from clipgs_lib.formats.raw import FormatError, SplatWarning
from clipgs_lib.splats import Splats

from .mutations import assert_survives
from .ply_samples import GAUSSIAN, assert_same, ply_bytes, stored_columns


@pytest.fixture
def save(tmp_path):
    def write(data: bytes, name: str = "x.ply"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def by_plyfile(path) -> Splats:
    """An independent reading of an INRIA PLY."""
    v = plyfile.PlyData.read(str(path))["vertex"]
    stack = lambda *names: torch.from_numpy(np.stack([np.asarray(v[n], np.float32) for n in names], axis=1))  # noqa: E731
    count = sum(p.name.startswith("f_rest_") for p in v.properties)
    rest = [f"f_rest_{i}" for i in range(count)]
    n = len(v.data)
    return Splats(
        means=stack("x", "y", "z"),
        quats=stack("rot_0", "rot_1", "rot_2", "rot_3"),
        scales=stack("scale_0", "scale_1", "scale_2").exp(),
        opacities=stack("opacity")[:, 0].sigmoid(),
        sh0=stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None],
        shN=stack(*rest).reshape(n, 3, -1).transpose(1, 2) if rest else torch.empty(n, 0, 3),
    )


# ---- round trip and agreement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip(tmp_path, splats_factory, degree):
    splats = splats_factory(500, degree)
    path = write_splats(splats, tmp_path / "ünï cödé 文件.ply")
    back = read_splats(path)
    assert torch.equal(back.means, splats.means)
    assert torch.equal(back.sh0, splats.sh0) and torch.equal(back.shN, splats.shN)
    assert_same(back, splats, rtol=2e-6, atol=2e-7)
    assert_same(by_plyfile(path), splats, rtol=2e-6, atol=2e-7)
    write_splats(back, tmp_path / "again.ply")
    assert_same(read_splats(tmp_path / "again.ply"), back, rtol=1e-6, atol=1e-7)


def test_written_properties_are_those_of_the_inria_code(tmp_path, splats_factory):
    write_splats(splats_factory(3, 1), tmp_path / "x.ply")
    header = (tmp_path / "x.ply").read_bytes().split(b"end_header")[0].decode()
    names = re.findall(r"property float (\w+)", header)
    want = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 " + " ".join(f"f_rest_{i}" for i in range(9))
    want += " opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert names == want.split()
    assert header.startswith("ply\nformat binary_little_endian 1.0\nelement vertex 3\n")


def test_extreme_opacities_and_scales_stay_finite_in_the_file(tmp_path, splats_factory):
    splats = splats_factory(4)
    splats.opacities[:] = torch.tensor([0.0, 1.0, 1e-30, 1 - 6e-8])
    splats.scales[0] = 0.0
    path = write_splats(splats, tmp_path / "x.ply")
    v = plyfile.PlyData.read(str(path))["vertex"].data
    assert all(np.isfinite(v[name]).all() for name in v.dtype.names)
    back = read_splats(path)
    torch.testing.assert_close(back.opacities, splats.opacities, rtol=0, atol=2**-24)
    assert back.opacities[0] < 3e-9 and back.opacities[1] == 1.0
    assert (back.scales[0] < 2e-38).all()


def test_infinite_logits_are_opacities_of_zero_and_one(save, splats_factory):
    columns = stored_columns(splats_factory(3))
    columns["opacity"] = np.array([-np.inf, np.inf, 0.0])
    columns["scale_0"] = np.array([-np.inf, 0.0, 0.0])
    splats = read_splats(save(ply_bytes(columns)))
    assert splats.opacities.tolist() == [0.0, 1.0, 0.5]
    assert splats.scales[0, 0] == 0.0


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("order", ["<", ">", ""])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(save, splats_factory, degree, order, newline):
    splats = splats_factory(40, degree)
    assert_same(read_splats(save(ply_bytes(stored_columns(splats), order=order, newline=newline))), splats)


@pytest.mark.parametrize("order", ["<", ">", ""])
def test_any_property_order_type_and_extras(save, splats_factory, order):
    splats = splats_factory(50, 2)
    columns = stored_columns(splats)
    columns |= {"nx": np.zeros(50), "segment": np.arange(50), "confidence": np.full(50, 0.5)}
    shuffled = {name: columns[name] for name in np.random.default_rng(1).permutation(list(columns))}
    types = {"x": "double", "scale_1": "double", "f_rest_7": "double", "segment": "int", "confidence": "uchar"}
    path = save(ply_bytes(shuffled, types=types, order=order))
    with pytest.warns(SplatWarning, match="2 unknown properties were ignored: segment, confidence"):
        assert_same(read_splats(path), splats)
    assert "2 unknown properties were ignored" in ply.read(path).notes[0]


def test_doubles_throughout(save, splats_factory):
    splats = splats_factory(20, 1)
    columns = stored_columns(splats)
    path = save(ply_bytes(columns, types=dict.fromkeys(columns, "double")))
    assert_same(read_splats(path), splats, rtol=1e-6, atol=1e-7)


def test_doubles_beyond_float32_are_infinite_and_dropped(save, splats_factory):
    columns = stored_columns(splats_factory(3))
    columns["x"] = np.array([1e300, 0, 0])
    with pytest.warns(SplatWarning, match="dropped 1 non-finite"):
        assert len(read_splats(save(ply_bytes(columns, types={"x": "double"})))) == 2


def test_shuffled_float32_columns_of_many_rows_match(save, splats_factory):
    """Enough rows for several threads and pieces, in the direct and in the gathering path."""
    splats = splats_factory(50_001, 1)
    columns = stored_columns(splats)
    direct = read_splats(save(ply_bytes(columns), "a.ply"))
    gathered = read_splats(save(ply_bytes(dict(reversed(columns.items()))), "b.ply"))
    assert_same(direct, splats)
    for name in ("means", "quats", "scales", "opacities", "sh0", "shN"):
        assert torch.equal(getattr(direct, name), getattr(gathered, name))


def test_comments_hold_any_bytes(save, splats_factory):
    splats = splats_factory(5)
    comments = ("grüße 文件 \u2028 end_header".encode(), b"\xff\xfe\x00 not utf-8", b"")
    assert_same(read_splats(save(ply_bytes(stored_columns(splats), comments=comments))), splats)


def test_elements_around_the_vertices(save, splats_factory):
    splats = splats_factory(7)
    plain = (b"element camera 2\nproperty double t\n", bytes(16))
    faces = (b"element face 2\nproperty list uchar int vertex_indices\nproperty uchar flag\n",
             b"\x03" + bytes(12) + b"\x01" + b"\x01" + bytes(4) + b"\x00")  # fmt: skip
    columns = stored_columns(splats)
    for before, after in ((plain, faces), (faces, plain), (faces, (b"", b""))):
        assert_same(read_splats(save(ply_bytes(columns, before=before, after=after))), splats)
    ascii_faces = (faces[0], b"3 0 1 2 7\n1 0 7\n")
    assert_same(read_splats(save(ply_bytes(columns, order="", before=ascii_faces))), splats)
    assert_same(read_splats(save(ply_bytes(columns, order="", after=ascii_faces))), splats)


def test_trailing_bytes_are_noted(save, splats_factory):
    path = save(ply_bytes(stored_columns(splats_factory(5))) + b"tail")
    assert len(read_splats(path)) == 5
    assert ply.read(path).notes == ["4 bytes after the last row were ignored"]


@pytest.mark.parametrize("count", [0, 1])
def test_zero_and_one_gaussian(tmp_path, splats_factory, count):
    path = write_splats(splats_factory(count, 3), tmp_path / "x.ply")
    assert len(read_splats(path)) == count and read_splats(path).sh_degree == 3


def test_invalid_gaussians_are_dropped_and_counted(save, splats_factory):
    columns = stored_columns(splats_factory(6, 1))
    columns["x"][0], columns["f_rest_3"][1], columns["scale_2"][2] = np.nan, np.inf, 200.0
    for i in range(4):
        columns[f"rot_{i}"][5] = 0
    path = save(ply_bytes(columns))
    with pytest.warns(SplatWarning, match="dropped 3 non-finite and 1 zero-quaternion gaussians of 6"):
        assert len(read_splats(path)) == 2


def test_quaternions_of_any_length_are_normalised(save, splats_factory):
    splats = splats_factory(3)
    columns = stored_columns(splats)
    for i in range(4):
        columns[f"rot_{i}"] *= np.array([1e-10, 1e30, 7.0])
    assert_same(read_splats(save(ply_bytes(columns))), splats)


def _read_in_child(path, queue):
    queue.put(float(ply.read(path).means.sum()))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_reading_survives_a_fork(tmp_path, splats_factory):
    """Data loaders fork: what reading started in the parent must not stop the child."""
    path = write_splats(splats_factory(50_000), tmp_path / "x.ply")
    want = float(ply.read(path).means.sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(path, queue))
    child.start()
    assert queue.get(timeout=60) == want
    child.join(10)
    assert child.exitcode == 0


# ---- real files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "degree"),
    [("hamburger", 52709, 0), ("monkey", 36295, 0), ("playbot_sh1", 31000, 1), ("playbot_sh2", 31000, 2)],
)
def test_real_files_agree_with_plyfile(real_data, tmp_path, name, count, degree):
    path = real_data / "splats" / "ply" / f"{name}.ply"
    splats = read_splats(path)
    assert (len(splats), splats.sh_degree) == (count, degree)
    assert_same(splats, by_plyfile(path))
    assert_same(read_splats(write_splats(splats, tmp_path / "x.ply")), splats)


def test_real_sh_bands_are_the_same_in_both_degrees(real_data):
    """The same object stored with SH 1 and SH 2: a wrong coefficient layout could not agree."""
    one, two = (read_splats(real_data / "splats" / "ply" / f"playbot_sh{degree}.ply") for degree in (1, 2))
    assert_same(two.with_sh_degree(1), one)
    assert one.shN.abs().amax() > 0.1


# ---- what is not this format -------------------------------------------------------------------------------------


def test_2dgs_is_thickened_with_a_warning(save, splats_factory):
    splats = splats_factory(5)
    columns = stored_columns(splats)
    del columns["scale_2"]
    path = save(ply_bytes(columns))
    with pytest.warns(SplatWarning, match=r"two scales \(2DGS"):
        thin = read_splats(path)
    torch.testing.assert_close(thin.scales[:, 2], 0.005 * splats.scales[:, :2].amin(dim=1))
    with pytest.warns(SplatWarning, match="the third was made up"):
        assert "2DGS" in ply.read(path).notes[0]


def test_point_cloud_names_read_points(save):
    path = save(ply_bytes({n: np.zeros(3) for n in ("x", "y", "z", "red")}, types={"red": "uchar"}))
    with pytest.raises(FormatError, match="got a point cloud of 3 points; read it with read_points"):
        read_splats(path)
    with pytest.raises(FormatError, match="a point cloud or mesh; read it with read_points"):
        read_splats(path, format="ply")


# ---- broken headers and data -------------------------------------------------------------------------------------

VALID = ply_bytes({name: np.full(2, 0.5) for name in GAUSSIAN})
COUNT, X = b"element vertex 2\n", b"property float x\n"
BROKEN = {
    "count of 4e9": ((COUNT, b"element vertex 4000000000\n"), r"must lie in 0\.\.200,000,000, got 4,000,000,000"),
    "count that does not fit": ((COUNT, b"element vertex 3\n"), "3 gaussians need at least 168 bytes, got 112"),
    "negative count": ((COUNT, b"element vertex -1\n"), "count of element 'vertex' must be >= 0, got -1"),
    "count of many digits": ((COUNT, b"element vertex " + b"9" * 5000 + b"\n"), "header line must be"),
    "count that is no number": ((COUNT, b"element vertex two\n"), "header line must be .* got 'element vertex two'"),
    "no end_header": ((b"end_header\n", b""), "a line `end_header` must come within .* got a file without it"),
    "list in vertex": ((X, b"property list uchar float x\n"), "must be a scalar, got list property 'x'"),
    "list length of float": ((X, X + b"property list float float a\n"), "property must be .*list INTEGER_TYPE"),
    "duplicate property": ((X, X + X), "properties of element 'vertex' must have different names, got 'x' twice"),
    "duplicate element": ((COUNT, b"element vertex 0\n" + COUNT), "elements must have different names, got 'vertex'"),
    "missing property": ((b"property float rot_2\n", b"property float rut_2\n"), "none called rot_2"),
    "several missing": ((b"property float rot_", b"property float rat_"), "none called rot_0, rot_1, rot_2, rot_3"),
    "unknown type": ((X, b"property half x\n"), "property must be .* got 'property half x'"),
    "property before element": ((COUNT + X, X + COUNT), "header line must be .* got 'property float x'"),
    "unknown format": ((b"binary_little", b"binary_middle"), "header line must be .*'format binary_middle_endian 1.0'"),
    "unknown version": ((b"endian 1.0", b"endian 2.0"), r"PLY version must be 1\.0, got 2\.0"),
    "no format line": ((b"format binary_little_endian 1.0\n", b""), "must have a `format` line"),
    "two format lines": ((COUNT, b"format ascii 1.0\n" + COUNT), "header line must be .*'format ascii 1.0'"),
    "no vertex element": ((COUNT, b"element vortex 2\n"), "must have an element 'vertex', got elements vortex"),
    "f_rest of odd number": ((X, X + b"property float f_rest_0\n"), "f_rest must have 0, 9, 24 or 45 .* got 1;"),
    "f_rest with a gap": (
        (X, X + b"".join(b"property float f_rest_%d\n" % i for i in (0, 1, 2, 3, 4, 5, 6, 7, 9))),
        "got 9 with f_rest_8 missing",
    ),
    "huge element before": (
        (COUNT, b"element pad 99999999999999999999\nproperty double a\n" + COUNT),
        "elements before 'vertex' need .* truncated",
    ),
    "huge list element before": (
        (COUNT, b"element pad 5000000\nproperty list uchar int a\n" + COUNT),
        "must have at most 1,000,000 rows, got 5,000,000",
    ),
    "list element past the end": (
        (COUNT, b"element pad 100\nproperty list uint double a\n" + COUNT),
        "must have a length >= 0 inside the file|need at least|elements before",
    ),
    "no number in ASCII": ((b"binary_little_endian", b"ascii"), "ASCII rows of element 'vertex'|need at least"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_say_what_is_wrong(save, case):
    (old, new), message = BROKEN[case]
    assert old in VALID
    path = save(VALID.replace(old, new))
    with pytest.raises(FormatError, match=message) as caught:
        read_splats(path, format="ply")
    assert str(caught.value).startswith(str(path)) and caught.value.todo
    assert_survives(read_splats, path, max_extra_bytes=4 << 20)


def test_long_comments_are_bounded(save):
    line = b"comment " + b"a" * (5 << 20) + b"\n"
    path = save(VALID.replace(COUNT, line + COUNT))
    with pytest.raises(FormatError, match=f"must come within {MAX_HEADER_BYTES:,} bytes, got none up to there"):
        read_splats(path)
    assert_survives(read_splats, path, max_extra_bytes=4 << 20)
    assert len(read_splats(save(VALID.replace(COUNT, b"comment " + b"a" * 200_000 + b"\n" + COUNT)))) == 2


@pytest.mark.parametrize("order", ["<", ">", ""])
def test_truncation_at_any_byte(save, splats_factory, order):
    data = ply_bytes(stored_columns(splats_factory(3)), order=order)
    last = len(data) if order else data.rstrip().rindex(b" ") + 1  # cutting digits off the last number is no damage
    for end in range(last):
        path = save(data[:end])
        with pytest.raises(FormatError):
            read_splats(path)


@pytest.mark.parametrize("row", ["1 2 3", "1 " * 14 + "1", "a " * 14, ""])
def test_ascii_rows_of_wrong_length_or_kind(save, row):
    data = ply_bytes({name: np.full(2, 0.5) for name in GAUSSIAN}, order="")
    lines = data.split(b"\n")
    lines[-2] = row.encode()
    with pytest.raises(FormatError, match="rows"):
        read_splats(save(b"\n".join(lines) + b" " * 100))


def test_a_file_that_shrinks_while_it_is_read(save, splats_factory, monkeypatch):
    path = save(ply_bytes(stored_columns(splats_factory(100))))
    starts = ply._starts

    def shrink(*arguments):
        with path.open("r+b") as stream:
            stream.truncate(1000)
        return starts(*arguments)

    monkeypatch.setattr(ply, "_starts", shrink)
    with pytest.raises(FormatError, match="the file must keep its size"):
        read_splats(path)


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path, splats_factory, monkeypatch):
    path = tmp_path / "x.ply"
    path.write_bytes(b"old")
    encode, calls = ply._encode, []

    def failing(part):
        calls.append(part)
        if len(calls) == 3:
            raise MemoryError("boom")
        return encode(part)

    monkeypatch.setattr(ply, "_encode", failing)
    with pytest.raises(MemoryError):
        write_splats(splats_factory(50_000), path)
    assert len(calls) == 3
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
