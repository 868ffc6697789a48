"""Reading Niantic's SPZ, versions 1 to 4; the layout is described in `spz_write`.

SPZ stores the frame RUB (right, up, back); it is turned into that of the PLY by flipping y and z, as the reference
converter does, unless the coordinate-system extension (0xADBE0003) names another frame.
"""

import math
import struct
import zlib
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import deflate
import numba
import numpy as np
import zstandard

from .packing import SH_COEFFICIENTS, flip_axes, sh_flips, warn_dropped_sh
from .raw import FormatError, RawSplats, check_count, read_up_to
from .spz_write import ANTIALIASED, COLOR_SCALE, HEADER, MAGIC, RUB, STREAM, TABLE
from .spz_write import write as write

NAME = "spz"
SUFFIXES = (".spz",)

_GZIP = b"\x1f\x8b"
_COEFFICIENTS = (*SH_COEFFICIENTS, 24)
_EXTENSIONS = 2
_LARGEST_EXTENSION = 1 << 20
_FRAME_EXTENSION = 0xADBE0003
_FRAMES = ("RUB", "LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF")
"""Frames by their code in the extension; 0, unspecified, means RUB."""
_LARGEST_GZIP_HEADER = 1 << 18
_DEFLATE_RATIO = 1032
_USUAL_RATIO = 64  # up to which a gzip stream is inflated at once; those of real splats have 2 to 10
_ZSTD_RATIO = 1 << 15  # a run of 128 KiB takes 4 bytes
_MAGNITUDES = np.arange(512, dtype=np.float32) * np.float32(0.5**0.5 / 511)
_FIELDS = np.concatenate([_MAGNITUDES, -_MAGNITUDES])  # what sign and 9 bits of a component mean


class _Header(namedtuple("_Header", "version count degree fractional_bits flags streams")):
    @property
    def widths(self) -> tuple[int, ...]:
        """Plain bytes of a gaussian: position, opacity, colour, scales, rotation, SH."""
        return (6 if self.version == 1 else 9, 1, 3, 3, 3 if self.version < 3 else 4, 3 * _COEFFICIENTS[self.degree])


def sniff(path: Path, head: bytes) -> bool:
    """Whether the bytes start with the SPZ magic number, plain or behind gzip."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, len(MAGIC))
        except zlib.error:
            return False
    return head.startswith(MAGIC)


def read(path: Path) -> RawSplats:
    """Read an ``.spz`` file of version 1 to 4, compressed or plain; SH of degree 4 is dropped with a `SplatWarning`.

    Bytes missing or left over, and streams that would grow beyond what the header justifies, are refused.
    """
    return decode(path, path.read_bytes())


def decode(path: Path, data: bytes) -> RawSplats:
    """The gaussians of the bytes of an ``.spz``, in the frame of the PLY; ``path`` is for messages. See `read`."""
    zipped, head = data.startswith(_GZIP), data[: HEADER.size]
    try:
        if zipped:
            head = zlib.decompressobj(31).decompress(data[:_LARGEST_GZIP_HEADER], HEADER.size)
        header = _parse_header(path, head)
        if header.version < 4:
            stored, extensions = _read_stream(path, data, header, zipped)
        elif zipped:
            raise FormatError(path, "SPZ version 4 must not lie in a gzip stream", "one that does")
        else:
            stored, extensions = _read_streams(path, data, header)
    except (zlib.error, zstandard.ZstdError) as error:
        which = "the gzip stream" if zipped else "every zstd stream"
        raise FormatError(path, f"{which} must be intact", str(error), "fetch the file again") from None
    raw = _decode(header, stored)
    frame, unknown = _read_extensions(path, extensions)
    if frame != RUB:
        flip_axes(raw, (frame[0] * RUB[0], frame[1] * RUB[1], frame[2] * RUB[2]))
    raw.up_axis = "-y"
    raw.notes.append(f"SPZ version {header.version}, {header.fractional_bits} fractional bits")
    raw.antialiased = bool(header.flags & ANTIALIASED)
    if raw.antialiased:
        raw.notes.append("trained with antialiasing (Mip-Splatting)")
    if unknown:
        raw.notes.append(f"extensions that are ignored: {', '.join(unknown)}")
    if header.degree == 4:
        warn_dropped_sh(path, header.degree)
    return raw


def _parse_header(path: Path, data: bytes) -> _Header:
    if len(data) < HEADER.size:
        must = f"an SPZ header takes {HEADER.size} bytes"
        raise FormatError(path, must, f"{len(data)}", "the file is truncated", "truncated")
    magic, *values = HEADER.unpack(data)
    header = _Header(*values)
    if magic != MAGIC:
        raise FormatError(path, f"an SPZ file must start with {MAGIC!r}", repr(magic), "it is another format")
    if not 1 <= header.version <= 4:
        must = "the SPZ version must be 1, 2, 3 or 4"
        raise FormatError(path, must, str(header.version), "convert it to version 4 or older", "unknown_version")
    if header.degree > 4:
        raise FormatError(path, "the SH degree must lie in 0..4", str(header.degree), "the header is broken")
    if header.fractional_bits > 24:
        raise FormatError(path, "the fractional bits must lie in 0..24", str(header.fractional_bits))
    return header


def _inflate(data: bytes, size: int) -> bytearray | None:
    """A file that is one gzip stream of ``size`` plain bytes; None for one that has to be read with more care."""
    # That is one whose trailer names another size or whose size is unusual, one that is damaged, and one that comes
    # twice in the file, since whatever follows a stream would go unseen here.
    if (
        size > _USUAL_RATIO * len(data)
        or data[-4:] != struct.pack("<I", size % (1 << 32))
        or data.find(data[:10], 1) > 0
    ):
        return None
    try:
        plain = deflate.gzip_decompress(data, size)
    except deflate.DeflateError:
        return None
    return plain if len(plain) == size else None


def _read_stream(path: Path, data: bytes, header: _Header, zipped: bool) -> tuple[list[np.ndarray], bytes]:
    """The attributes of versions 1 to 3, and what follows: nothing, or the records that the header announces."""
    size, end = header.count * sum(header.widths), HEADER.size + header.count * sum(header.widths)
    room = len(data) * _DEFLATE_RATIO if zipped else len(data) - HEADER.size
    check_count(path, header.count, room, sum(header.widths))
    whole: bytes | bytearray | None = _inflate(data, end) if zipped else data[:end]
    tail, behind, complete = b"" if zipped else data[end:], 0, True
    if whole is None:  # memory grows with what really comes
        engine = zlib.decompressobj(31)
        whole = engine.decompress(data, end)
        tail = b"" if engine.eof else engine.decompress(engine.unconsumed_tail, _LARGEST_EXTENSION + 1)
        behind, complete = len(engine.unused_data), engine.eof or len(tail) > _LARGEST_EXTENSION
    if len(whole) < end or not complete:
        must = f"{header.count:,} gaussians need {size:,} bytes in a complete gzip stream"
        got = f"{len(whole) - HEADER.size:,} in one that ends early"
        raise FormatError(path, must, got, "the file is truncated; fetch it again", "truncated")
    limit = _LARGEST_EXTENSION if header.flags & _EXTENSIONS else 0
    if (length := len(tail) + behind) > limit:
        must = f"at most {limit:,} bytes may follow the {header.count:,} gaussians of the header"
        got = f"at least {length:,} trailing bytes"
        raise FormatError(path, must, got, "the header is broken, or the file is a decompression bomb")
    ends = header.count * np.cumsum(header.widths)[:-1]
    return np.split(np.frombuffer(whole, np.uint8)[HEADER.size :], ends), tail


def _read_streams(path: Path, data: bytes, header: _Header) -> tuple[list[np.ndarray], bytes]:
    """The attributes of version 4, one zstd stream each, empty ones without; and its extension records."""
    sizes = [header.count * width for width in header.widths]
    needed = sum(size > 0 for size in sizes)
    start = HEADER.size + TABLE.size
    table = TABLE.unpack_from(data, HEADER.size)[0] if len(data) >= start else 0
    if header.streams != needed or not start <= table <= len(data) - STREAM.size * header.streams:
        must = (
            f"SPZ 4 with {header.count:,} gaussians of SH degree {header.degree} needs {needed} streams, listed "
            f"between byte {start} and the end of the file"
        )
        got = f"{header.streams} listed at byte {table:,} of {len(data):,}"
        raise FormatError(path, must, got, "the file is truncated or its header broken", "truncated")
    check_count(path, header.count, len(data) * _ZSTD_RATIO, sum(header.widths))
    listed = STREAM.iter_unpack(data[table : table + STREAM.size * needed])
    offset = table + STREAM.size * needed
    parts = []
    for size in sizes:
        packed, plain = next(listed) if size else (0, 0)
        if plain != size or packed > len(data) - offset:
            must = f"a stream must hold {size:,} bytes when unpacked and lie inside the file"
            got = f"{plain:,}, packed into {packed:,} of {len(data) - offset:,} bytes left"
            raise FormatError(path, must, got, "the file is truncated or its table of contents broken", "truncated")
        parts.append(data[offset : offset + packed])
        offset += packed
    if offset != len(data):
        raise FormatError(path, "nothing may follow the last stream", f"{len(data) - offset:,} trailing bytes")
    stored = [_read_zstd(path, part, size) for part, size in zip(parts, sizes, strict=True)]
    return stored, data[start:table] if header.flags & _EXTENSIONS else b""


def _read_zstd(path: Path, packed: bytes, size: int) -> np.ndarray:
    """The ``size`` bytes of a stream, which neither ends before nor goes on."""
    read = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed).read
    plain, must = read_up_to(read, size), f"a zstd stream must hold {size:,} bytes"
    if len(plain) < size:
        got = f"{len(plain):,}, or a stream that ends early"
        raise FormatError(path, must, got, "the file is truncated; fetch it again", "truncated")
    if read(1):
        raise FormatError(path, must, "more", "fetch the file again")
    return np.frombuffer(plain, np.uint8)


def _read_extensions(path: Path, data: bytes) -> tuple[tuple[int, int, int], list[str]]:
    """The axis flips that lead from the stored frame to that of the PLY, and the types of other extensions."""
    frame, unknown, offset = RUB, [], 0
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        payload = data[offset + 8 : offset + 8 + length]
        offset += 8 + length
        if kind != _FRAME_EXTENSION or len(payload) != 4:
            unknown.append(f"0x{kind:08X}")
            continue
        code = int.from_bytes(payload, "little")
        if code >= len(_FRAMES):
            must = f"the coordinate system must be one of {', '.join(_FRAMES[1:])}"
            raise FormatError(path, must, f"code {code}", "convert it")
        name = _FRAMES[code]
        frame = (1 if name[0] == "R" else -1, 1 if name[1] == "D" else -1, 1 if name[2] == "F" else -1)
    return frame, unknown


def _decode(header: _Header, stored: list[np.ndarray]) -> RawSplats:
    """Attributes to numbers, from RUB to the frame of the PLY."""
    count = header.count
    raw = RawSplats.allocate(count, min(_COEFFICIENTS[header.degree], SH_COEFFICIENTS[-1]))
    raw.clean = True
    columns = [column.reshape(count, width) for column, width in zip(stored, header.widths, strict=True)]
    if header.version == 1:
        with np.errstate(invalid="ignore"):
            raw.means[:] = columns[0].view("<f2") * np.asarray(RUB, np.float32)
        raw.clean = bool(np.isfinite(raw.means).all())
    with ThreadPoolExecutor(2) as pool:
        halves = (slice(0, count // 2), slice(count // 2, count))
        list(pool.map(lambda rows: _unpack(columns, rows, 0.5**header.fractional_bits, raw), halves))
    return raw


def _unpack(columns: list[np.ndarray], rows: slice, step: float, raw: RawSplats) -> None:
    """Some rows of all attributes, but for the centres of version 1."""
    positions, alphas, colors, sizes, rotations, sh = (column[rows] for column in columns)
    levels = np.arange(256, dtype=np.float32)
    np.take(levels / 255, alphas[:, 0], out=raw.opacities[rows], mode="clip")
    np.take((levels / 255 - 0.5) / np.float32(COLOR_SCALE), colors, out=raw.sh0[rows, 0], mode="clip")
    np.take(np.exp(levels / 16 - 10), sizes, out=raw.scales[rows], mode="clip")
    if positions.shape[1] == 9:
        _unpack_means(positions, np.float32(step) * np.asarray(RUB, np.float32), raw.means[rows])
    _unpack_quats(rotations, _FIELDS, raw.quats[rows])
    shN = raw.shN[rows]
    steps = np.repeat(sh_flips(RUB, shN.shape[1]) / 128, 3)  # what one of each SH byte is worth
    _unpack_sh(sh, steps, shN.reshape(len(shN), 3 * shN.shape[1]))


@numba.njit(nogil=True, cache=True)
def _unpack_means(stored, steps, means):
    """Signed whole numbers of 24 bits, ``[n, 9]`` bytes, to ``means [n, 3]``."""
    for i in range(means.shape[0]):
        for c in range(3):
            low, middle, high = stored[i, 3 * c], stored[i, 3 * c + 1], stored[i, 3 * c + 2]
            fixed = np.int32(np.int8(high)) * 65536 + np.int32(middle) * 256 + np.int32(low)
            means[i, c] = np.float32(fixed) * steps[c]


@numba.njit(nogil=True, cache=True)
def _unpack_sh(stored, steps, shN):
    """Bytes ``[n, 3 K']``, K' >= K-1, to ``shN [n, 3 (K-1)]``."""
    for i in range(shN.shape[0]):
        for j in range(shN.shape[1]):
            shN[i, j] = np.float32(np.int32(stored[i, j]) - 128) * steps[j]


@numba.njit(nogil=True, cache=True)
def _unpack_quats(stored, fields, quats):
    """Up to version 2 xyz as bytes, from version 3 on sign and 9 bits of each but the largest of xyzw; to wxyz."""
    # The component left out is positive and makes the length 1. Turned from RUB: y and z change their sign.
    for i in range(stored.shape[0]):
        left_out: Any = 3
        squares: Any = 0.0
        word = np.uint32(0)
        if stored.shape[1] == 4:
            for c in range(4):
                word |= np.uint32(stored[i, c]) << np.uint32(8 * c)
            left_out = np.int64(word >> np.uint32(30))
        for k in range(3):
            if stored.shape[1] == 3:
                value = np.float32(stored[i, k]) / np.float32(127.5) - np.float32(1)
            else:
                value = fields[(word >> np.uint32(20 - 10 * k)) & np.uint32(1023)]
            quats[i, (k + 1 + (k >= left_out)) & 3] = value
            squares += value * value
        quats[i, (left_out + 1) & 3] = math.sqrt(max(0.0, 1.0 - squares))
        quats[i, 2], quats[i, 3] = -quats[i, 2], -quats[i, 3]
        if squares > 1.0:  # no writer makes these; keep the promise of unit length
            for c in range(4):
                quats[i, c] /= math.sqrt(squares)
