"""Layout of the SPZ format, and writing it: versions 2 and 3 (gzip) and 4 (NGSP container of zstd streams).

Header of 16 bytes: ``NGSP``, u32 version, u32 count, u8 SH degree, u8 fractional bits, u8 flags (1 antialiased,
2 extensions), u8 reserved (version 4: number of streams). Version 4 goes on with u32 offset of the table of contents
and 12 reserved bytes. Then, attribute by attribute: positions 3 x i24 fixed point (version 1: 3 x float16), opacities
u8, colours 3 x u8, log-scales 3 x u8, rotations (3 x u8 xyz up to version 2, then 4 bytes smallest three), SH bytes
with the colour channel fastest. Versions 1 to 3 are one gzip stream; version 4 is one zstd stream per attribute that
is not empty, listed as (u64 compressed, u64 plain size). The frame is RUB (right, up, back).
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import zstandard

from ..splats import Splats
from .base import FormatError, RawSplats, atomic_write
from .packing import columns_to_write, drop_largest, sh_flips, warn_clipped

MAGIC = b"NGSP"
HEADER = struct.Struct("<4sIIBBBB")
TABLE = struct.Struct("<I12x")
STREAM = struct.Struct("<QQ")
COLOR_SCALE = 0.15
ANTIALIASED = 1  # Flag
RUB = (1, -1, -1)  # Signs that turn the stored frame into that of the PLY, and back

_LARGEST_FIXED = (1 << 23) - 1


def write(
    splats: Splats,
    path: Path,
    *,
    version: int = 3,
    fractional_bits: int = 12,
    sh1_bits: int = 5,
    sh_rest_bits: int = 4,
) -> None:
    """Write an ``.spz`` file; order is kept, values that the format cannot hold are clipped with a `SplatWarning`.

    Args:
        splats: all finite; centres within +-2^23.
        path: where to; written atomically.
        version: 2, 3 or 4.
        fractional_bits: precision of centres, ``2**-bits`` scene units, 0 to 23; fewer are used when the extent
            would not fit. 12 is what other writers use.
        sh1_bits: bits kept of SH of degree 1, 1 to 8. 8 is most precise, 5 what other writers use.
        sh_rest_bits: bits kept of higher degrees, 1 to 8; others use 4.

    Raises:
        FormatError: when a gaussian is not finite or lies too far out.
        ValueError: when an option is out of range.
    """
    if version not in (2, 3, 4):
        raise ValueError(f"version must be 2, 3 or 4, got {version}")
    if not 0 <= fractional_bits <= 23:
        raise ValueError(f"fractional_bits must lie in 0..23, got {fractional_bits}")
    if not (1 <= sh1_bits <= 8 and 1 <= sh_rest_bits <= 8):
        raise ValueError(f"sh1_bits and sh_rest_bits must lie in 1..8, got {sh1_bits} and {sh_rest_bits}")
    columns = columns_to_write(splats, path)
    bits = _fitting_bits(path, columns.means, fractional_bits)
    sections = _pack(path, columns, version, bits, (sh1_bits, sh_rest_bits))
    payload = _zstd_container if version == 4 else _gzip_stream
    flags = ANTIALIASED if splats.antialiased else 0
    data = payload(sections, version, len(splats), splats.sh_degree, bits, flags)
    with atomic_write(path) as stream:
        stream.write(data)


def _fitting_bits(path: Path, means: np.ndarray, most: int) -> int:
    extent = float(np.abs(means).max(initial=0))
    for bits in range(most, -1, -1):
        if extent * (1 << bits) <= _LARGEST_FIXED:
            return bits
    must = f"centres must lie within +-{_LARGEST_FIXED:,}"
    raise FormatError(path, must, f"{extent:.4g}", "move or scale the splats first")


def _pack(path: Path, columns: RawSplats, version: int, bits: int, sh_bits: tuple[int, int]) -> list[np.ndarray]:
    """The attributes as byte arrays, in the order of the file."""
    fixed = np.rint(columns.means * np.array(RUB) * (1 << bits)).astype("<i4")  # [N, 3]
    positions = fixed.reshape(-1, 1).view("u1")[:, :3]  # [3 N, 3]
    colors = columns.sh0[:, 0] * (COLOR_SCALE * 255) + 127.5  # [N, 3]
    with np.errstate(divide="ignore"):
        scales = (np.log(columns.scales) + 10) * 16  # [N, 3]
    sections = [
        positions,
        np.rint(columns.opacities * 255).astype("u1"),
        _bytes(path, "colour values", colors),
        _bytes(path, "scales", scales),
        _pack_first_three(columns.quats) if version < 3 else _pack_smallest_three(columns.quats),
        _pack_sh(path, columns.shN, sh_bits),
    ]
    return [np.ascontiguousarray(section) for section in sections]


def _bytes(path: Path, what: str, values: np.ndarray) -> np.ndarray:
    """Round to bytes; values beyond them are clipped and counted."""
    warn_clipped(path, what, _outside(values), values.size)
    return np.rint(np.clip(values, 0, 255)).astype("u1")


def _outside(values: np.ndarray) -> int:
    """How many values lie more than a rounding error outside 0..255."""
    return int((np.abs(values - 127.5) > 128.0).sum())


def _in_rub(quats: np.ndarray) -> np.ndarray:
    """Quaternions as xyzw in the frame of the file."""
    x, y, z = RUB
    return quats[:, [1, 2, 3, 0]] * np.array([y * z, x * z, x * y, 1], np.float32)


def _pack_first_three(quats: np.ndarray) -> np.ndarray:
    turned = _in_rub(quats)
    turned = np.where(turned[:, 3:] < 0, -turned, turned)
    return np.clip(np.rint(turned[:, :3] * 127.5 + 127.5), 0, 255).astype("u1")  # [N, 3]


def _pack_smallest_three(quats: np.ndarray) -> np.ndarray:
    """Sign and 9 bits for each of the smallest three, first component highest; the largest one's place on top."""
    smallest, largest = drop_largest(_in_rub(quats))
    magnitude = np.minimum(np.rint(np.abs(smallest) * (511 * 2**0.5)), 511).astype("<u4")  # [N, 3]
    fields = magnitude | (smallest < 0).astype("<u4") << 9
    packed = fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2] | largest.astype("<u4") << 30
    return packed.astype("<u4").view("u1")


def _pack_sh(path: Path, shN: np.ndarray, bits: tuple[int, int]) -> np.ndarray:
    """Bytes around 128, rounded to multiples of ``2**(8 - bits)`` so that they compress better."""
    if shN.shape[1] == 0:
        return np.zeros(0, "u1")
    values = shN * sh_flips(RUB, shN.shape[1])[:, None] * 128 + 128  # [N, K-1, 3]
    warn_clipped(path, "SH coefficients", _outside(values), values.size)
    steps = np.full((shN.shape[1], 1), 1 << (8 - bits[1]), np.float32)
    steps[:3] = 1 << (8 - bits[0])
    return np.clip(np.rint(values / steps) * steps, 0, 255).astype("u1")


def _gzip_stream(sections: list[np.ndarray], version: int, count: int, degree: int, bits: int, flags: int) -> bytes:
    header = HEADER.pack(MAGIC, version, count, degree, bits, flags, 0)
    return gzip.compress(header + b"".join(section.tobytes() for section in sections), compresslevel=6, mtime=0)


def _zstd_container(sections: list[np.ndarray], version: int, count: int, degree: int, bits: int, flags: int) -> bytes:
    plain = [section.tobytes() for section in sections if section.size]
    packed = [zstandard.ZstdCompressor(level=12).compress(part) for part in plain]
    header = HEADER.pack(MAGIC, version, count, degree, bits, flags, len(plain))
    header += TABLE.pack(HEADER.size + TABLE.size)
    table = b"".join(STREAM.pack(len(a), len(b)) for a, b in zip(packed, plain, strict=True))
    return header + table + b"".join(packed)
