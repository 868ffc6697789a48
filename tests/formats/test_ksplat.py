"""`.ksplat`: all compression levels against an encoder written here from the layout; headers that lie are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from clipgs_lib.formats import FormatError, read_splats, sniff
from clipgs_lib.formats.raw import SplatWarning

RANGE = (-2.0, 2.5)
BLOCK = 5.0
COEFFICIENTS = (0, 3, 8)


def encode(splats, level: int, *, bucket: int = 256, sections: int = 1, sh_range=RANGE) -> bytes:
    """A ksplat file; buckets are runs of the given order, the last one of a section partly filled."""
    degree = splats.sh_degree
    runs = np.array_split(np.arange(len(splats)), sections)
    headers, bodies = b"", b""
    for run in runs:
        header, body = encode_section(splats[torch.from_numpy(run)], level, degree, bucket, sh_range)
        headers, bodies = headers + header, bodies + body
    head = struct.pack(
        "<BBxxIIIIHxx3f2f", 0, 1, sections, sections, len(splats), len(splats), level, 0, 0, 0, *sh_range
    )
    return head.ljust(4096, b"\0") + headers + bodies


def encode_section(part, level: int, degree: int, bucket: int, sh_range) -> tuple[bytes, bytes]:
    n = len(part)
    full, rest = divmod(n, bucket)
    places = [range(i, min(i + bucket, n)) for i in range(0, n, bucket)]
    centers = [part.means[list(place)].mean(dim=0).tolist() for place in places]
    body = struct.pack("<I", rest) if rest else b""
    body += b"".join(struct.pack("<3f", *center) for center in centers)
    for index in range(n):
        body += encode_record(part, index, centers[index // bucket], level, degree, sh_range)
    partial = 1 if rest else 0
    header = struct.pack(
        "<IIIIfHxxIIIIH",
        n,
        n,
        bucket,
        full + partial,
        BLOCK,
        12,
        32767 if level else 1,
        len(body),
        full,
        partial,
        degree,
    )
    return header.ljust(1024, b"\0"), body


def encode_record(part, i: int, center, level: int, degree: int, sh_range) -> bytes:
    mean, scale, quat = part.means[i].tolist(), part.scales[i].tolist(), part.quats[i].tolist()
    colors = [round(min(max(c, 0), 1) * 255) for c in part.colors[i].tolist()]
    rgba = bytes([*colors, round(float(part.opacities[i]) * 255)])
    sh = []
    for low, high in ((0, 3), (3, 8))[:degree]:
        for channel in range(3):
            sh += part.shN[i, low:high, channel].tolist()
    if level == 0:
        return struct.pack("<10f", *mean, *scale, *quat) + rgba + struct.pack(f"<{len(sh)}f", *sh)
    step = BLOCK / 2 / 32767
    fixed = [round((m - c) / step) + 32767 for m, c in zip(mean, center, strict=True)]
    out = struct.pack("<3H", *fixed) + struct.pack("<7e", *scale, *quat) + rgba
    if level == 1:
        return out + struct.pack(f"<{len(sh)}e", *sh)
    low, high = sh_range
    return out + bytes(int(np.clip(np.floor((v - low) / (high - low) * 255), 0, 255)) for v in sh)


@pytest.fixture
def save(tmp_path):
    def write(data: bytes, name: str = "x.ksplat"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels_and_degrees(save, splats_factory, level, degree):
    original = splats_factory(300, degree)
    back = read_splats(save(encode(original, level, bucket=64, sections=3)))
    assert len(back) == 300 and back.sh_degree == degree
    half = 0 if level == 0 else 2.0**-11  # relative error of float16
    step = BLOCK / 2 / 32767 if level else 0
    assert (back.means - original.means).abs().max() <= step / 2 + 1e-6
    torch.testing.assert_close(back.scales, original.scales, rtol=half, atol=0)
    torch.testing.assert_close(back.quats, original.quats, rtol=0, atol=2 * half + 1e-6)
    assert (back.opacities - original.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.colors - original.colors.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    sh_step = (0, half * float(original.shN.abs().max()) if degree else 0, (RANGE[1] - RANGE[0]) / 255)[level]
    if degree:
        assert (back.shN - original.shN).abs().max() <= sh_step + 1e-6


def test_opacity_bytes_0_and_255_are_exactly_0_and_1(save, splats_factory):
    splats = splats_factory(2)
    splats.opacities[:] = torch.tensor([0.0, 1.0])
    assert read_splats(save(encode(splats, 1))).opacities.tolist() == [0.0, 1.0]


def test_sh_range_defaults_when_the_header_leaves_it_zero(save, splats_factory):
    data = bytearray(encode(splats_factory(40, 1), 2, sh_range=(-1.5, 1.5)))
    expected = read_splats(save(bytes(data))).shN
    data[36:44] = bytes(8)
    assert torch.equal(read_splats(save(bytes(data))).shN, expected)


def test_sections_of_different_degree_are_padded(save, splats_factory):
    plain, rich = splats_factory(10, 0), splats_factory(10, 2, seed=1)
    parts = [encode_section(part, 1, part.sh_degree, 256, RANGE) for part in (plain, rich)]
    head = struct.pack("<BBxxIIIIHxx3f2f", 0, 1, 2, 2, 20, 20, 1, 0, 0, 0, *RANGE).ljust(4096, b"\0")
    back = read_splats(save(head + parts[0][0] + parts[1][0] + parts[0][1] + parts[1][1]))
    assert back.shN.shape == (20, 8, 3)
    assert back.shN[:10].abs().max() == 0 and back.shN[10:].abs().max() > 0


def test_no_gaussians(save, splats_factory):
    assert len(read_splats(save(encode(splats_factory(1)[:0], 1, bucket=8)))) == 0


def test_tiny_file(real_data):
    splats = read_splats(real_data / "splats/tiny/minimal.ksplat")
    assert splats.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(splats.scales, torch.full((4, 3), 0.1))
    torch.testing.assert_close(splats.colors[1], torch.tensor([170.0, 85.0, 128.0]) / 255)


def test_sniffed_by_content(save, splats_factory):
    assert sniff(save(encode(splats_factory(4), 1), "renamed.bin")) == "ksplat"


def put(offset: int, layout: str, *values) -> tuple[int, bytes]:
    return offset, struct.pack(layout, *values)


SECTION = 4096
BROKEN = {
    "major version": (put(0, "<B", 1), r"version must be 0\.1, got 1\.1"),
    "future minor version": (put(1, "<B", 7), r"version must be 0\.1, got 0\.7"),
    "compression level": (put(20, "<H", 3), "compression level must be 0, 1 or 2, got 3"),
    "section slots": (put(4, "<I", 2**32 - 1), "section headers must fit"),
    "more sections than slots": (put(8, "<I", 2), "section headers must fit"),
    "count too large": (put(16, "<I", 4_000_000_000), "count must lie in 0"),
    "count of another file": (put(16, "<I", 99), r"hold the 99 gaussians of the header, got 100"),
    "SH range": (put(36, "<ff", 1, -1), "SH range .* increasing"),
    "SH range not finite": (put(36, "<f", float("nan")), "SH range"),
    "section count": (put(SECTION, "<I", 101), "more gaussians than slots, got 101 in 100"),
    "section slots of a section": (put(SECTION + 4, "<I", 2**31), "gaussian count must lie|need at least"),
    "bucket count": (put(SECTION + 12, "<I", 2**32 - 1), "section 0 must fit into the file"),
    "bucket size": (put(SECTION + 8, "<I", 2**31), "buckets of a section must cover"),
    "bucket size too small": (put(SECTION + 8, "<I", 1), "buckets of a section must cover"),
    "bucket bytes": (put(SECTION + 20, "<H", 13), "bucket of section 0 must take 12 bytes, got 13"),
    "declared size": (put(SECTION + 28, "<I", 77), "as large as its counts say, .* got 77 declared"),
    "full buckets": (put(SECTION + 32, "<I", 2), "buckets of a section must cover"),
    "partial buckets": (put(SECTION + 36, "<I", 2**32 - 1), "section 0 must fit into the file"),
    "partial bucket length": (put(SECTION + 1024, "<I", 2**31), "buckets of a section must cover"),
    "SH degree": (put(SECTION + 40, "<H", 3), "SH degree of section 0 must be 0, 1 or 2, got 3"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_headers_that_lie(save, splats_factory, case):
    (offset, patch), message = BROKEN[case]
    data = bytearray(encode(splats_factory(100, 1), 1, bucket=64))
    data[offset : offset + len(patch)] = patch
    with pytest.raises(FormatError, match=message):
        read_splats(save(bytes(data)), format="ksplat")


@pytest.mark.parametrize("cut", [0, 10, 4095, 4100, 5119, 5121, 5300, -1])
def test_truncated_anywhere(save, splats_factory, cut):
    path = save(encode(splats_factory(100, 1), 1, bucket=64)[:cut])
    with pytest.raises(FormatError) as caught:
        read_splats(path, format="ksplat")
    assert str(caught.value).startswith(str(path))


def test_trailing_bytes(save, splats_factory):
    with pytest.raises(FormatError, match="nothing may follow the last section, got 3 trailing bytes"):
        read_splats(save(encode(splats_factory(100, 1), 1) + b"abc"))


def test_negative_half_float_scale_is_mended(save, splats_factory):
    data = bytearray(encode(splats_factory(3), 1))
    data[4096 + 1024 + 4 + 12 + 6 + 1] |= 0x80  # sign bit of the first scale
    with pytest.warns(SplatWarning, match="1 scales are negative"):
        assert (read_splats(save(bytes(data))).scales > 0).all()
