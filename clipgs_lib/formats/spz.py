"""Reading Niantic's SPZ, versions 1 to 4; the layout is described in `spz_write`.

SPZ stores the frame RUB (right, up, back); it is turned into that of the PLY by flipping y and z, as the reference
converter does, unless the coordinate-system extension (0xADBE0003) names another frame.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import zstandard

from .base import FormatError, RawSplats, check_count, check_regular_file, read_up_to
from .packing import SH_COEFFICIENTS, flip_axes, sh_flips, warn_dropped_sh
from .spz_write import ANTIALIASED, COLOR_SCALE, HEADER, MAGIC, RUB, STREAM, TABLE, write

__all__ = ["NAME", "SUFFIXES", "read", "sniff", "write"]

NAME = "spz"
SUFFIXES = (".spz",)

_GZIP = b"\x1f\x8b"
_COEFFICIENTS = (*SH_COEFFICIENTS, 24)
_EXTENSIONS = 2
_LARGEST_EXTENSION = 1 << 20
_FRAME_EXTENSION = 0xADBE0003
_FRAMES = ("RUB", "LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF")
"""Frames by their code in the extension; 0, unspecified, means RUB."""
_DEFLATE_RATIO = 1032
_ZSTD_RATIO = 1 << 15  # a run of 128 KiB takes 4 bytes
_ROWS = 1 << 13  # whose SH are unpacked at a time; they stay in the cache
_PIECE = 1 << 18  # packed bytes inflated at a time


@dataclass(frozen=True)
class _Header:
    version: int
    count: int
    degree: int
    fractional_bits: int
    flags: int
    streams: int

    def sizes(self) -> list[int]:
        """Plain bytes of positions, opacities, colours, scales, rotations, SH."""
        position = 6 if self.version == 1 else 9
        rotation = 3 if self.version < 3 else 4
        return [self.count * each for each in (position, 1, 3, 3, rotation, 3 * _COEFFICIENTS[self.degree])]

    def bytes_each(self) -> int:
        return sum(self.sizes()) // max(self.count, 1)


def sniff(path: Path, head: bytes) -> bool:
    """Whether the bytes start with the SPZ magic number, plain or behind gzip."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, len(MAGIC))
        except zlib.error:
            return False
    return head.startswith(MAGIC)


def read(path: Path) -> RawSplats:
    """Read an ``.spz`` file of version 1 to 4, compressed or plain.

    SH of degree 4, which nothing else here holds, is dropped with a `SplatWarning`.

    Raises:
        FormatError: for an unknown version, bytes missing or left over, and streams that would grow beyond what
            the header justifies.
    """
    path = check_regular_file(path)
    return decode(path, path.read_bytes())


def decode(path: Path, data: bytes) -> RawSplats:
    """The gaussians of the bytes of an ``.spz``, in the frame of the PLY; ``path`` is for messages. See `read`."""
    zipped = data.startswith(_GZIP)
    try:
        source = _Gunzip(data) if zipped else io.BytesIO(data)
        header = _parse_header(path, read_up_to(source.read, HEADER.size))
        if header.version < 4:
            room = len(data) * _DEFLATE_RATIO if zipped else len(data) - HEADER.size
            check_count(path, header.count, room, header.bytes_each())
            must = f"{header.count:,} gaussians need {sum(header.sizes()):,} bytes in a complete gzip stream"
            raw = _decode(path, header, [_Section(path, source.read, must)] * 6)
            extensions: bytes | bytearray = _read_tail(path, header, source)
        elif zipped:
            raise FormatError(path, "SPZ version 4 must not lie in a gzip stream", "one that does")
        else:
            sections, extensions = _open_streams(path, data, header)
            raw = _decode(path, header, sections)
            for section in sections:
                section.check_end()
    except (zlib.error, zstandard.ZstdError) as error:
        which = "the gzip stream" if zipped else "every zstd stream"
        raise FormatError(path, f"{which} must be intact", str(error), "fetch the file again") from None
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
        warn_dropped_sh(path, header.degree, 2)
    return raw


def _parse_header(path: Path, data: bytearray) -> _Header:
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


class _Gunzip:
    """A gzip stream, inflated piece by piece."""

    def __init__(self, data: bytes) -> None:
        self.engine, self.data, self.at = zlib.decompressobj(31), data, 0

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, none at the end of the stream or of the file."""
        plain = b""
        while not plain and not self.engine.eof:
            packed = self.engine.unconsumed_tail
            if not packed:
                packed = self.data[self.at : self.at + _PIECE]
                self.at += len(packed)
            plain = self.engine.decompress(packed, size)
            if not packed:
                break
        return plain

    @property
    def behind(self) -> int:
        """Bytes of the file that follow the stream."""
        return len(self.engine.unused_data) + len(self.data) - self.at


@dataclass
class _Section:
    """Where the bytes of an attribute come from, and the sentence for when they do not."""

    path: Path
    read: Callable[[int], bytes]
    must: str
    came: int = 0

    def take(self, size: int) -> np.ndarray:
        """The next ``size`` bytes."""
        plain = read_up_to(self.read, size)
        self.came += len(plain)
        if len(plain) < size:
            got = f"{self.came:,}, or a stream that ends early"
            raise FormatError(self.path, self.must, got, "the file is truncated; fetch it again", "truncated")
        return np.frombuffer(plain, np.uint8)

    def check_end(self) -> None:
        """Refuse more bytes."""
        if self.read(1):
            raise FormatError(self.path, self.must, "more", "fetch the file again")


def _read_tail(path: Path, header: _Header, source: _Gunzip | io.BytesIO) -> bytes | bytearray:
    """What follows the attributes of versions 1 to 3: nothing, or the extension records that the header announces."""
    tail = read_up_to(source.read, _LARGEST_EXTENSION + 1)
    length = len(tail)
    if isinstance(source, _Gunzip) and len(tail) <= _LARGEST_EXTENSION:
        if not source.engine.eof:
            must = f"{header.count:,} gaussians need {sum(header.sizes()):,} bytes in a complete gzip stream"
            raise FormatError(
                path, must, "a stream that ends early", "the file is truncated; fetch it again", "truncated"
            )
        length += source.behind
    limit = _LARGEST_EXTENSION if header.flags & _EXTENSIONS else 0
    if length > limit:
        must = f"at most {limit:,} bytes may follow the {header.count:,} gaussians of the header"
        got = f"at least {length:,} trailing bytes"
        raise FormatError(path, must, got, "the header is broken, or the file is a decompression bomb")
    return tail


def _open_streams(path: Path, data: bytes, header: _Header) -> tuple[list[_Section], bytes]:
    """The attributes of version 4, one zstd stream each, empty ones without; and its extension records."""
    sizes = header.sizes()
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
    check_count(path, header.count, len(data) * _ZSTD_RATIO, header.bytes_each())
    listed = STREAM.iter_unpack(data[table : table + STREAM.size * needed])
    offset = table + STREAM.size * needed
    sections = []
    for size in sizes:
        packed, plain = next(listed) if size else (0, 0)
        if plain != size or packed > len(data) - offset:
            must = f"a stream must hold {size:,} bytes when unpacked and lie inside the file"
            got = f"{plain:,}, packed into {packed:,} of {len(data) - offset:,} bytes left"
            raise FormatError(path, must, got, "the file is truncated or its table of contents broken", "truncated")
        engine = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        read = engine.stream_reader(data[offset : offset + packed]).read
        sections.append(_Section(path, read, f"a zstd stream must hold {size:,} bytes"))
        offset += packed
    if offset != len(data):
        raise FormatError(path, "nothing may follow the last stream", f"{len(data) - offset:,} trailing bytes")
    return sections, data[start:table] if header.flags & _EXTENSIONS else b""


def _read_extensions(path: Path, data: bytes | bytearray) -> tuple[tuple[int, int, int], list[str]]:
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


def _decode(path: Path, header: _Header, sections: list[_Section]) -> RawSplats:
    """Attributes to numbers, from RUB to the frame of the PLY; what has come is decoded beside the unpacking."""
    count, sizes = header.count, header.sizes()
    stored = [section.take(size) for section, size in zip(sections[:-1], sizes[:-1], strict=True)]
    coefficients = _COEFFICIENTS[header.degree]
    raw = RawSplats.allocate(count, min(coefficients, SH_COEFFICIENTS[-1]))
    raw.clean = True
    if header.version == 1:
        with np.errstate(invalid="ignore"):
            raw.means[:] = stored[0].view("<f2").reshape(-1, 3) * np.asarray(RUB, np.float32)
        raw.clean = bool(np.isfinite(raw.means).all())
    flips = sh_flips(RUB, raw.shN.shape[1]) / 128
    with ThreadPoolExecutor(1) as pool:
        jobs = [pool.submit(_unpack, stored, 0.5**header.fractional_bits, raw)]
        for start in range(0, count if coefficients else 0, _ROWS):
            part = raw.shN[start : start + _ROWS]
            jobs.append(pool.submit(_unpack_sh, sections[-1].take(3 * coefficients * len(part)), flips, part))
        for job in jobs:
            job.result()
    return raw


def _unpack(stored: list[np.ndarray], step: float, raw: RawSplats) -> None:
    """All attributes but SH."""
    positions, alphas, colors, sizes, rotations = stored
    levels = np.arange(256, dtype=np.float32)
    np.take(levels / 255, alphas, out=raw.opacities, mode="clip")
    np.take((levels / 255 - 0.5) / np.float32(COLOR_SCALE), colors, out=raw.sh0.reshape(-1), mode="clip")
    np.take(np.exp(levels / 16 - 10), sizes, out=raw.scales.reshape(-1), mode="clip")
    if len(positions) == 9 * len(raw.means):
        _unpack_means(positions, np.float32(step) * np.asarray(RUB, np.float32), raw.means)
    if len(rotations):
        _unpack_quats(rotations.reshape(len(raw.means), -1), raw.quats)


@numba.njit(nogil=True, cache=True)
def _unpack_means(stored, steps, means):
    """Signed whole numbers of 24 bits."""
    for i in range(means.shape[0]):
        for c in range(3):
            at = 9 * i + 3 * c
            fixed = np.int32(np.int8(stored[at + 2])) * 65536 + np.int32(stored[at + 1]) * 256 + np.int32(stored[at])
            means[i, c] = np.float32(fixed) * steps[c]


@numba.njit(nogil=True, cache=True)
def _unpack_sh(stored, flips, shN):
    """Bytes ``[n * K' * 3]``, K' >= K-1, to ``shN [n, K-1, 3]``."""
    width = len(stored) // max(shN.shape[0], 1)
    for i in range(shN.shape[0]):
        for k in range(shN.shape[1]):
            for c in range(3):
                shN[i, k, c] = (np.float32(stored[width * i + 3 * k + c]) - np.float32(128)) * flips[k]


@numba.njit(nogil=True, cache=True)
def _unpack_quats(stored, quats):
    """Up to version 2 xyz as bytes, from version 3 on sign and 9 bits of each but the largest of xyzw; to wxyz.

    The component left out is positive and makes the length 1. Turned from RUB: y and z change their sign.
    """
    for i in range(stored.shape[0]):
        left_out: Any = 3
        squares: Any = 0.0
        if stored.shape[1] == 3:
            for c in range(3):
                quats[i, 1 + c] = np.float32(stored[i, c]) / np.float32(127.5) - np.float32(1)
                squares += quats[i, 1 + c] ** 2
        else:
            word = np.uint32(0)
            for c in range(4):
                word |= np.uint32(stored[i, c]) << np.uint32(8 * c)
            left_out, shift = np.int64(word >> np.uint32(30)), 20
            for c in range(4):
                if c != left_out:
                    field = np.int64(word) >> shift
                    value = np.float32(field & 511) * np.float32(0.5**0.5 / 511)
                    quats[i, (c + 1) & 3] = -value if field & 512 else value
                    squares += value * value
                    shift -= 10
        quats[i, (left_out + 1) & 3] = math.sqrt(max(0.0, 1.0 - squares))
        quats[i, 2], quats[i, 3] = -quats[i, 2], -quats[i, 3]
        if squares > 1.0:  # no writer makes these; keep the promise of unit length
            for c in range(4):
                quats[i, c] /= math.sqrt(squares)
