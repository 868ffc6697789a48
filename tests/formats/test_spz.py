"""SPZ: bytes by hand for every version, round trips within the quantisation, frames, bombs and broken headers."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
import torch
import zstandard

from clipgs_lib import geometry
from clipgs_lib.formats import FormatError, SplatWarning, read_splats, sniff, spz, write_splats
from clipgs_lib.splats import Splats

HEADER = "<4sIIBBBB"
FRAMES = {"LDB": 1, "RDB": 2, "LUB": 3, "RUB": 4, "LDF": 5, "RDF": 6, "LUF": 7, "RUF": 8}


@pytest.fixture
def save(tmp_path):
    def write(data: bytes, name: str = "x.spz"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def header(version=3, count=1, degree=0, bits=12, flags=0, last=0) -> bytes:
    return struct.pack(HEADER, b"NGSP", version, count, degree, bits, flags, last)


def i24(value: int) -> bytes:
    return struct.pack("<i", value)[:3]


def plain(version=3, count=1, degree=0, bits=12, flags=0) -> bytes:
    """``count`` times the same gaussian, uncompressed: centre (1, -2, 3) in RUB, so (1, 2, -3) in the PLY frame."""
    center = struct.pack("<3e", 1, -2, 3) if version == 1 else b"".join(i24(v << bits) for v in (1, -2, 3))
    rotation = bytes([255, 128, 128]) if version < 3 else struct.pack("<I", 3 << 30 | (512 | 511) << 20)
    sh = bytes(range(100, 100 + 3 * (0, 3, 8, 15, 24)[degree]))
    attributes = (center, b"\xff", bytes([0, 128, 255]), bytes([0, 160, 255]), rotation, sh)
    return header(version, count, degree, bits, flags) + b"".join(part * count for part in attributes)


def container(sections: list[bytes], count=1, degree=0, extensions=b"", flags=0, streams=None) -> bytes:
    """An NGSP container (version 4)."""
    packed = [zstandard.ZstdCompressor().compress(part) for part in sections]
    head = header(4, count, degree, 12, flags, len(sections) if streams is None else streams)
    head += struct.pack("<I12x", 32 + len(extensions)) + extensions
    head += b"".join(struct.pack("<QQ", len(p), len(s)) for p, s in zip(packed, sections, strict=True))
    return head + b"".join(packed)


def sections_of(data: bytes, count=1) -> list[bytes]:
    sizes, at, out = (9, 1, 3, 3, 4), 16, []
    for size in sizes:
        out.append(data[at : at + size * count])
        at += size * count
    return out + ([data[at:]] if data[at:] else [])


# ---- meaning of the bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_one_gaussian_by_hand(save, version, zipped):
    data = plain(min(version, 3))
    if version == 4:
        data = container(sections_of(data))
    elif zipped:
        data = gzip.compress(data)
    splats = read_splats(save(data))
    assert splats.means.tolist() == [[1, 2, -3]]
    assert splats.opacities.tolist() == [1.0]
    torch.testing.assert_close(splats.scales.log(), torch.tensor([[-10.0, 0.0, 255 / 16 - 10]]))
    torch.testing.assert_close(splats.sh0[0, 0], (torch.tensor([0, 128, 255]) / 255 - 0.5) / 0.15)
    x = (1.0 if version < 3 else -(0.5**0.5)) * 1.0
    expected = torch.tensor([0.0, x, 0, 0] if version < 3 else [0.5**0.5, x, 0, 0])
    torch.testing.assert_close(splats.quats[0], expected, rtol=0, atol=0.006)
    assert splats.up_axis == "-y"


def test_opacity_bytes_0_and_255_are_exactly_0_and_1(save, splats_factory, tmp_path):
    splats = splats_factory(2)
    splats.opacities[:] = torch.tensor([0.0, 1.0])
    assert read_splats(write_splats(splats, tmp_path / "x.spz")).opacities.tolist() == [0.0, 1.0]


def test_notes_name_version_and_training(save):
    notes = spz.read(save(gzip.compress(plain(flags=1)))).notes
    assert notes == ["SPZ version 3, 12 fractional bits", "trained with antialiasing (Mip-Splatting)"]
    ignored = spz.read(save(gzip.compress(plain(flags=2) + struct.pack("<IIB", 0x12340001, 1, 9)))).notes
    assert ignored[-1] == "extensions that are ignored: 0x12340001"


def test_sh_bytes_and_their_signs_in_the_ply_frame(save):
    splats = read_splats(save(gzip.compress(plain(degree=3))))
    stored = (torch.arange(100, 145).float().reshape(15, 3) - 128) / 128  # in RUB
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    torch.testing.assert_close(splats.shN[0], geometry.rotate_sh(stored[None], turn)[0])


def test_sh_of_degree_4_is_dropped_with_a_warning(save):
    path = save(gzip.compress(plain(degree=4)))
    with pytest.warns(SplatWarning, match="degree 4 was dropped"):
        splats = read_splats(path)
    assert splats.sh_degree == 3
    assert torch.equal(splats.shN, read_splats(save(gzip.compress(plain(degree=3)), "y.spz")).shN)


@pytest.mark.parametrize("frame", FRAMES)
def test_frame_extension(save, frame):
    record = struct.pack("<III", 0xADBE0003, 4, FRAMES[frame])
    data = container(sections_of(plain()), extensions=struct.pack("<IIB", 0x12340001, 1, 9) + record, flags=2)
    signs = [1 if frame[0] == "R" else -1, 1 if frame[1] == "D" else -1, 1 if frame[2] == "F" else -1]
    expected = torch.tensor([1.0, -2.0, 3.0]) * torch.tensor(signs)
    path = save(data)
    assert torch.equal(read_splats(path).means[0], expected)
    trailing = gzip.compress(plain(flags=2) + record)
    assert torch.equal(read_splats(save(trailing)).means[0], expected)


def test_unknown_frame_is_refused(save):
    data = container(sections_of(plain()), extensions=struct.pack("<III", 0xADBE0003, 4, 9), flags=2)
    with pytest.raises(FormatError, match=r"coordinate system must be one of LDB, .* got code 9"):
        read_splats(save(data))


@pytest.mark.parametrize("name", ["minimal-v3", "minimal-v4"])
def test_tiny_files(real_data, name):
    splats = read_splats(real_data / f"splats/tiny/{name}.spz")
    assert splats.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(splats.colors[1], torch.tensor([170.0, 85.0, 128.0]) / 255, rtol=0, atol=0.004)
    torch.testing.assert_close(splats.scales, torch.full((4, 3), 0.1), rtol=0.032, atol=0)
    torch.testing.assert_close(splats.opacities, torch.full((4,), 230 / 255))


@pytest.mark.parametrize("name", ["minimal-v2", "minimal-raw"])
def test_tiny_files_of_a_writer_that_did_not_convert(real_data, name):
    """These two hold the coordinates and the colour bytes of the ``.splat`` as they were, not turned into RUB."""
    splats = read_splats(real_data / f"splats/tiny/{name}.spz")
    assert (splats.means * torch.tensor([1, -1, -1])).tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(splats.sh0[1, 0] * 0.15 + 0.5, torch.tensor([170.0, 85.0, 128.0]) / 255)
    assert splats.quats[:, 0].min() > 0.9999


# ---- writing -----------------------------------------------------------------------------------------------------


def angles(a: Splats, b: Splats) -> torch.Tensor:
    dot = (a.quats.double() * b.quats.double()).sum(dim=1).abs().clamp(max=1)
    return 2 * torch.rad2deg(torch.acos(dot))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("version", [2, 3, 4])
def test_round_trip_within_the_quantisation(tmp_path, splats_factory, version, degree):
    original = splats_factory(3000, degree)
    original.shN.clamp_(-0.95, 0.95)
    path = write_splats(original, tmp_path / "ünï cödé.spz", version=version)
    back = read_splats(path)
    assert (back.means - original.means).abs().max() <= 0.5 / 4096 + 1e-6
    assert (back.scales.log() - original.scales.log()).abs().max() <= 1 / 32 + 1e-5
    assert (back.opacities - original.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.sh0 - original.sh0).abs().max() <= 0.5 / 255 / 0.15 + 1e-5
    assert angles(back, original).max() < (11 if version == 2 else 0.25)
    assert angles(back, original).median() < (0.7 if version == 2 else 0.12)
    if degree:
        assert (back.shN[:, :3] - original.shN[:, :3]).abs().max() <= 4 / 128 + 1e-6
        assert (back.shN - original.shN).abs().max() <= 8 / 128 + 1e-6
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("version", [3, 4])
def test_writing_what_was_read_is_exact(real_data, tmp_path, version):
    first = read_splats(real_data / "splats/spz/playbot_sh2_v4.spz")
    again = read_splats(write_splats(first, tmp_path / "x.spz", version=version))
    for name in ("means", "scales", "opacities", "sh0", "shN"):
        assert torch.equal(getattr(again, name), getattr(first, name)), name
    assert angles(again, first).max() < 0.15


def test_far_centres_cost_bits(tmp_path, splats_factory):
    splats = splats_factory(10)
    splats.means[0] = torch.tensor([100_000.0, -100_000.0, 5.0])
    back = read_splats(write_splats(splats, tmp_path / "x.spz"))
    assert (back.means - splats.means).abs().max() <= 0.5 / 2**6
    splats.means[0, 0] = 1e7
    with pytest.raises(FormatError, match=r"within \+-8,388,607, got 1e\+07"):
        write_splats(splats, tmp_path / "y.spz")


def test_clipping_is_counted(tmp_path, splats_factory):
    splats = splats_factory(10, 1)
    splats.shN[0, 0, 0], splats.scales[1, 1], splats.sh0[2, 0, 2] = 3.0, 0.0, 7.0
    with (
        pytest.warns(SplatWarning, match=r": 1 of 90 SH coefficients were clipped"),
        pytest.warns(SplatWarning, match=r": 1 of 30 scales were clipped"),
        pytest.warns(SplatWarning, match=r": 1 of 30 colour values were clipped"),
    ):
        write_splats(splats, tmp_path / "x.spz")
    assert read_splats(tmp_path / "x.spz").shN[0, 0, 0].abs() > 0.9


def test_another_version_is_refused(tmp_path, splats_factory):
    with pytest.raises(ValueError, match="version must be 2, 3 or 4, got 1"):
        write_splats(splats_factory(3), tmp_path / "x.spz", version=1)
    assert list(tmp_path.iterdir()) == []


def test_non_finite_is_not_written(tmp_path, splats_factory):
    splats = splats_factory(3)
    splats.quats[1] = 0
    with pytest.raises(FormatError, match="non-zero quaternion, got 1 of 3"):
        write_splats(splats, tmp_path / "x.spz")


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one(tmp_path, splats_factory, version, count):
    path = write_splats(splats_factory(1)[:count], tmp_path / "x.spz", version=version)
    assert sniff(path) == "spz" and len(read_splats(path)) == count


def test_same_splats_same_bytes(tmp_path, splats_factory):
    a, b = (write_splats(splats_factory(100, 1), tmp_path / name).read_bytes() for name in ("a.spz", "b.spz"))
    assert a == b


# ---- broken files ------------------------------------------------------------------------------------------------

GOOD4 = container(sections_of(plain(count=5), 5), count=5)
BROKEN = {
    "future version": (gzip.compress(plain()[:4] + b"\x05" + plain()[5:]), "version must be 1, 2, 3 or 4, got 5"),
    "future version, plain": (header(99) + bytes(50), "version must be 1, 2, 3 or 4, got 99"),
    "version 4 inside gzip": (gzip.compress(GOOD4), "must not lie in a gzip stream"),
    "another magic": (gzip.compress(b"ABCD" + plain()[4:]), "must start with b'NGSP', got b'ABCD'"),
    "header cut": (gzip.compress(plain()[:10]), "header takes 16 bytes, got 10"),
    "SH degree": (gzip.compress(plain()[:12] + b"\x05" + plain()[13:]), r"SH degree must lie in 0\.\.4, got 5"),
    "fractional bits": (gzip.compress(plain()[:13] + b"\xc8" + plain()[14:]), "fractional bits .* got 200"),
    "4e9 gaussians": (gzip.compress(header(count=4_000_000_000) + plain()[16:]), "count must lie in 0"),
    "too few": (gzip.compress(header(count=90) + plain(count=80)[16:]), "90 gaussians need 1,800 bytes"),
    "too few, plain": (header(count=9) + plain(count=8)[16:], "9 gaussians need at least 180 bytes, got 160"),
    "trailing inside": (gzip.compress(plain() + b"\0"), "0 bytes may follow the 1 gaussians .* got at least 1"),
    "trailing behind": (gzip.compress(plain()) + b"junk", "0 bytes may follow .* got at least 4 trailing"),
    "the stream twice": (2 * gzip.compress(plain(count=50)), "0 bytes may follow .* got at least"),
    "trailing, plain": (plain() + b"\0\0", "got at least 2 trailing"),
    "gzip cut": (gzip.compress(plain(count=50))[:-5], "complete gzip stream"),
    "gzip checksum": (gzip.compress(plain())[:-8] + bytes(8), "gzip stream must be intact"),
    "gzip noise": (gzip.compress(plain(count=50))[:30] + b"\xff" * 30, "gzip stream"),
    "stream count": (GOOD4[:15] + b"\x06" + GOOD4[16:], "needs 5 streams.* got 6 listed"),
    "table offset": (GOOD4[:16] + b"\xff\xff\xff\xff" + GOOD4[20:], "needs 5 streams, listed"),
    "table offset early": (GOOD4[:16] + b"\x10" + GOOD4[17:], "needs 5 streams, listed"),
    "stream size": (GOOD4[:40] + b"\x2e" + GOOD4[41:], "must hold 45 bytes .* got 46"),
    "stream leaves file": (GOOD4[:32] + b"\xff" * 8 + GOOD4[40:], "lie inside the file"),
    "zstd noise": (GOOD4[:112] + b"\0" * 40 + GOOD4[152:], "zstd stream must be intact"),
    "trailing v4": (GOOD4 + b"\0", "nothing may follow the last stream, got 1 trailing"),
    "v4 cut in the header": (GOOD4[:20], "needs 5 streams"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken(save, case):
    data, message = BROKEN[case]
    path = save(data)
    with pytest.raises(FormatError, match=message) as caught:
        read_splats(path, format="spz")
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("data", [gzip.compress(plain(count=20)), plain(count=20), GOOD4], ids=["gzip", "plain", "v4"])
def test_truncated_at_every_byte(save, data):
    for cut in range(4, len(data)):
        with pytest.raises(FormatError):
            read_splats(save(data[:cut]), format="spz")


def peak_of_refusing(path, message) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message):
            read_splats(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_gzip_bomb_is_not_inflated(save):
    bomb = gzip.compress(plain() + bytes(64 << 20), compresslevel=1)
    assert peak_of_refusing(save(bomb), "decompression bomb") < len(bomb) + (4 << 20)
    flagged = gzip.compress(plain(flags=2) + bytes(64 << 20), compresslevel=1)
    assert peak_of_refusing(save(flagged), "1,048,576 bytes may follow") < len(bomb) + (8 << 20)


def test_zstd_bomb_is_not_inflated(save):
    parts = sections_of(plain())
    honest = container(parts)
    bomb = zstandard.ZstdCompressor().compress(bytes(100 << 20))
    table = struct.pack("<QQ", len(bomb), 9)
    data = honest[:32] + table + honest[48:112] + bomb
    data += b"".join(zstandard.ZstdCompressor().compress(part) for part in parts[1:])
    assert peak_of_refusing(save(data), "a zstd stream must hold 9 bytes, got more") < len(data) + (4 << 20)


def test_sizes_of_a_huge_claim_are_not_allocated(save):
    count = 150_000_000
    sizes = [count * each for each in (9, 1, 3, 3, 4)]
    packed = zstandard.ZstdCompressor().compress(b"tiny")
    data = header(4, count, 0, 12, 0, 5) + struct.pack("<I12x", 32)
    data += b"".join(struct.pack("<QQ", len(packed), size) for size in sizes) + packed * 5
    assert peak_of_refusing(save(data), "gaussians need at least|stream must hold") < 16 << 20


def test_a_valid_reading_equals_the_plain_one(save, real_data, monkeypatch):
    data = (real_data / "splats/spz/hamburger_v3.spz").read_bytes()
    zipped = spz.decode("x.spz", data)
    monkeypatch.setattr(spz.deflate, "gzip_decompress", lambda *_: pytest.fail("a plain file was inflated"))
    unzipped = spz.decode("x.spz", gzip.decompress(data))
    monkeypatch.setattr(spz, "_USUAL_RATIO", 0)
    by_pieces = spz.decode("x.spz", data)
    for other in (unzipped, by_pieces):
        assert all(np.array_equal(a, b) for a, b in zip(zipped.columns, other.columns, strict=True))


def test_what_inflates_beyond_all_proportion_is_read_piece_by_piece(save, monkeypatch):
    """A trailer may lie too: so nothing is made room for at once that is many times the file."""
    count = 20_000
    data = gzip.compress(header(count=count) + bytes(20 * count))
    monkeypatch.setattr(spz.deflate, "gzip_decompress", lambda *_: pytest.fail("inflated at once"))
    assert len(read_splats(save(data))) == count
