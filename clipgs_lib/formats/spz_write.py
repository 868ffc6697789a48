"""Layout of the SPZ format, and writing it: versions 2 and 3 (gzip) and 4 (NGSP container of zstd streams).

Header of 16 bytes: ``NGSP``, u32 version, u32 count, u8 SH degree, u8 fractional bits, u8 flags (1 antialiased,
2 extensions), u8 reserved (version 4: number of streams). Version 4 goes on with u32 offset of the table of contents
and 12 reserved bytes. Then, attribute by attribute: positions 3 x i24 fixed point (version 1: 3 x float16), opacities
u8, colours 3 x u8, log-scales 3 x u8, rotations (3 x u8 xyz up to version 2, then 4 bytes smallest three), SH bytes
with the colour channel fastest. Versions 1 to 3 are one gzip stream; version 4 is one zstd stream per attribute that
is not empty, listed as (u64 compressed, u64 plain size). The frame is RUB (right, up, back).
"""

import gzip
import struct
from pathlib import Path

import numpy as np
import zstandard

from ..splats import Splats
from .packing import columns_to_write, drop_largest, sh_flips, warn_clipped
from .raw import FormatError, RawSplats, atomic_write

MAGIC = b"NGSP"
HEADER = struct.Struct("<4sIIBBBB")
TABLE = struct.Struct("<I12x")
STREAM = struct.Struct("<QQ")
COLOR_SCALE = 0.15
ANTIALIASED = 1  # Flag
RUB = (1, -1, -1)  # Signs that turn the stored frame into that of the PLY, and back

_LARGEST_FIXED = (1 << 23) - 1
_FRACTIONAL_BITS = 12
_SH_STEPS = (8, 16)  # of 256, for degree 1 and higher ones


def write(splats: Splats, path: Path, *, version: int = 3) -> None:
    """Write an ``.spz`` file; order is kept, values that the format cannot hold are clipped with a `SplatWarning`.

    Centres keep 12 fractional bits (fewer when the extent would not fit), SH of degree 1 keep 5 bits and higher ones
    4, as of other writers.

    Args:
        splats: all finite; centres within +-2^23.
        path: where to; written atomically.
        version: 2, 3 or 4.

    Raises:
        FormatError: when a gaussian is not finite or lies too far out.
        ValueError: when the version is another.
    """
    if version not in (2, 3, 4):
        raise ValueError(f"version must be 2, 3 or 4, got {version}")
    columns = columns_to_write(splats, path)
    bits = _fitting_bits(path, columns.means)
    sections = _pack(path, columns, version, bits)
    flags = ANTIALIASED if splats.antialiased else 0
    streams = sum(section.size > 0 for section in sections) if version == 4 else 0
    header = HEADER.pack(MAGIC, version, len(splats), splats.sh_degree, bits, flags, streams)
    plain = [section.tobytes() for section in sections if section.size]
    if version == 4:
        packed = [zstandard.ZstdCompressor(level=12).compress(part) for part in plain]
        table = b"".join(STREAM.pack(len(a), len(b)) for a, b in zip(packed, plain, strict=True))
        data = header + TABLE.pack(HEADER.size + TABLE.size) + table + b"".join(packed)
    else:
        data = gzip.compress(header + b"".join(plain), compresslevel=6, mtime=0)
    with atomic_write(path) as stream:
        stream.write(data)


def _fitting_bits(path: Path, means: np.ndarray) -> int:
    extent = float(np.abs(means).max(initial=0))
    for bits in range(_FRACTIONAL_BITS, -1, -1):
        if extent * (1 << bits) <= _LARGEST_FIXED:
            return bits
    must = f"centres must lie within +-{_LARGEST_FIXED:,}"
    raise FormatError(path, must, f"{extent:.4g}", "move or scale the splats first")


def _pack(path: Path, columns: RawSplats, version: int, bits: int) -> list[np.ndarray]:
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
        _pack_sh(path, columns.shN),
    ]
    return [np.ascontiguousarray(section) for section in sections]


def _bytes(path: Path, what: str, values: np.ndarray, steps: np.ndarray | int = 1) -> np.ndarray:
    """Round to bytes, multiples of ``steps``; values more than a rounding error beyond them are clipped and counted."""
    warn_clipped(path, what, int((np.abs(values - 127.5) > 128.0).sum()), values.size)
    return np.clip(np.rint(values / steps) * steps, 0, 255).astype("u1")


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


def _pack_sh(path: Path, shN: np.ndarray) -> np.ndarray:
    """Bytes around 128, rounded to multiples of `_SH_STEPS` so that they compress better."""
    if shN.shape[1] == 0:
        return np.zeros(0, "u1")
    values = shN * sh_flips(RUB, shN.shape[1])[:, None] * 128 + 128  # [N, K-1, 3]
    steps = np.repeat(np.array(_SH_STEPS, np.float32), (3, shN.shape[1] - 3))[:, None]  # [K-1, 1]
    return _bytes(path, "SH coefficients", values, steps)
