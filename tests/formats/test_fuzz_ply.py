"""Damaged files of the PLY family and checkpoints: an orderly answer within bounds; and round trips of any values."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipgs_lib.formats import FORMATS, PointCloud, read_points, read_splats, sniff, write_splats
from clipgs_lib.formats.raw import FormatError, RawSplats
from clipgs_lib.splats import Splats
from tests.conftest import make_splats

from .mutations import assert_survives, fuzz_settings, mutations
from .ply_samples import assert_same, in_z_order, ply_bytes, stored_columns

BOUND = 8 << 20  # bytes that reading a file of a few kilobytes may take


def _checkpoint() -> bytes:
    s = make_splats(4, 1)
    content = {"means": s.means, "quats": s.quats, "scales": s.scales.log(), "opacities": s.opacities.logit()}
    stream = io.BytesIO()
    torch.save({"step": 7, "splats": content | {"sh0": s.sh0, "shN": s.shN}}, stream)
    return stream.getvalue()


def _compressed(folder: Path) -> bytes:
    return write_splats(make_splats(300, 1), folder / "valid.compressed.ply").read_bytes()


def _cloud(order: str) -> bytes:
    columns = {name: np.linspace(0, 1, 5) for name in ("x", "y", "z", "red", "green", "blue")}
    face = (b"element face 1\nproperty list uchar int vertex_indices\n", b"\x01" + bytes(4) if order else b"1 0\n")
    return ply_bytes(columns, types=dict.fromkeys(("red", "green", "blue"), "uchar"), order=order, before=face)


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> dict[str, tuple[str, bytes]]:
    """Format name and valid bytes of each kind of file."""
    columns = stored_columns(make_splats(4, 1))
    return {
        "little": ("ply", ply_bytes(columns)),
        "big": ("ply", ply_bytes(columns, order=">", types={"x": "double"})),
        "ascii": ("ply", ply_bytes(columns, order="", newline="\r\n")),
        "compressed": ("compressed_ply", _compressed(tmp_path_factory.mktemp("fuzz"))),
        "cloud": ("points", _cloud("<")),
        "ascii cloud": ("points", _cloud("")),
        "checkpoint": ("checkpoint", _checkpoint()),
    }


KINDS = ("little", "big", "ascii", "compressed", "cloud", "ascii cloud", "checkpoint")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_get_an_orderly_answer(valid, tmp_path, kind):
    """Through content sniffing, and when the format is forced: each works or raises FormatError, within bounds."""
    name, good = valid[kind]
    path = tmp_path / "damaged"
    path.write_bytes(good)
    assert sniff(path) == name
    read = read_points if name == "points" else FORMATS[name].read
    assert read(path) is not None

    @fuzz_settings
    @given(data=mutations(good))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        outcome = assert_survives(read, path, BOUND)
        if isinstance(outcome, RawSplats):
            assert_well_formed(outcome, len(data))
        elif isinstance(outcome, PointCloud):
            assert outcome.points.isfinite().all() and len(outcome.points) <= len(data)
        assert_survives(read_splats, path, BOUND)

    check()


def assert_well_formed(raw: RawSplats, size: int) -> None:
    """Shapes agree and values keep their promises, whatever the bytes said."""
    n = len(raw.means)
    assert n <= size
    shapes = [a.shape for a in (raw.means, raw.quats, raw.scales, raw.opacities, raw.sh0)]
    assert shapes == [(n, 3), (n, 4), (n, 3), (n,), (n, 1, 3)] and raw.shN.shape[1] in (0, 3, 8, 15)
    columns = [raw.means, raw.quats, raw.scales, raw.opacities, raw.sh0, raw.shN]
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in columns)
    opacities = raw.opacities[~np.isnan(raw.opacities)]
    assert ((opacities >= 0) & (opacities <= 1)).all() and not (raw.scales < 0).any()
    if raw.clean:
        assert all(np.isfinite(a).all() for a in columns)
        np.testing.assert_allclose(np.linalg.norm(raw.quats, axis=1), 1, atol=1e-5)


@fuzz_settings
@given(data=st.binary(max_size=600))
@pytest.mark.parametrize("prefix", [b"", b"ply\n", b"ply\nformat ascii 1.0\nelement vertex 1\n", b"PK\x03\x04"])
def test_noise_gets_an_orderly_answer(tmp_path, prefix, data):
    path = tmp_path / "noise.bin"
    path.write_bytes(prefix + data)
    assert_survives(read_splats, path, BOUND)
    assert_survives(read_points, path, BOUND)


def _values(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32)


@st.composite
def splats_of_any_value(draw: st.DrawFn) -> Splats:
    """1 to 6 finite gaussians with extreme but representable values."""
    n, higher = draw(st.integers(1, 6)), draw(st.sampled_from([0, 3, 8, 15]))
    array = lambda shape, low, high: torch.from_numpy(  # noqa: E731
        draw(hnp.arrays(np.float32, shape, elements=_values(low, high))).copy()
    )
    quats = array((n, 4), -1, 1)
    quats[:, 0] += 1.5  # never zero
    return Splats(
        means=array((n, 3), -(2.0**20), 2.0**20),
        quats=quats,
        scales=array((n, 3), 2.0**-20, 2.0**20),
        opacities=array((n,), 0, 1),
        sh0=array((n, 1, 3), -8, 8),
        shN=array((n, higher, 3), -4, 4),
    )


@fuzz_settings
@given(splats=splats_of_any_value())
def test_ply_round_trip_of_any_values(tmp_path, splats):
    back = read_splats(write_splats(splats, tmp_path / "x.ply"))
    assert torch.equal(back.means, splats.means) and torch.equal(back.shN, splats.shN)
    assert_same(back, splats, rtol=3e-6, atol=1e-6)


@fuzz_settings
@given(splats=splats_of_any_value())
def test_compressed_round_trip_of_any_values(tmp_path, splats):
    splats = in_z_order(splats)
    back = read_splats(write_splats(splats, tmp_path / "x.compressed.ply"))
    extent = splats.means.amax(dim=0) - splats.means.amin(dim=0)
    assert ((back.means - splats.means).abs() <= 0.51 / 1023 * extent + 1e-6 * splats.means.abs().amax() + 1e-30).all()
    assert ((back.opacities - splats.opacities).abs() <= 0.51 / 255).all()
    assert ((back.shN - splats.shN).abs() <= 1 / 31.9).all()
    spread = (splats.scales.log().amax(dim=0) - splats.scales.log().amin(dim=0)).clamp(min=1e-4)
    assert ((back.scales.log() - splats.scales.log()).abs() <= 0.51 / 1023 * spread + 1e-4).all()
    unit = torch.nn.functional.normalize(splats.quats, dim=1)
    assert ((back.quats * unit).sum(dim=1).abs() > 0.99999).all()
    back = in_z_order(back)
    again = read_splats(write_splats(back, tmp_path / "y.compressed.ply"))
    torch.testing.assert_close(again.opacities, back.opacities)  # quantising twice changes nothing more
    torch.testing.assert_close(again.shN, back.shN)


@pytest.mark.parametrize("kind", KINDS)
def test_every_prefix_of_a_file_is_refused_or_read(valid, tmp_path, kind):
    """Truncation at every 7th byte and at the last."""
    name, good = valid[kind]
    path = tmp_path / "cut"
    for end in [*range(0, len(good), 7), len(good) - 1]:
        path.write_bytes(good[:end])
        try:
            outcome = read_points(path) if name == "points" else read_splats(path)
        except FormatError as error:
            assert str(error).startswith(str(path))
        else:
            assert end > len(good) - 20 and kind.startswith("ascii"), f"{end} of {len(good)} bytes gave {outcome}"
