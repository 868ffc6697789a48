"""Reading Niantic's SPZ, versions 1 to 4; the layout is described in `spz_write`.

SPZ stores the frame RUB (right, up, back); it is turned into that of the PLY by flipping y and z, as the reference
converter does, unless the coordinate-system extension (0xADBE0003) names another frame.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from .base import FormatError, RawSplats, check_count, check_regular_file
from .packing import SH_COEFFICIENTS, flip_axes, restore_largest, warn_dropped_sh
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
_CHUNK = 1 << 22


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
    if data.startswith(_GZIP):
        header, sections, extensions = _read_gzip(path, data)
    else:
        header = _parse_header(path, data[: HEADER.size])
        split = _split_streams if header.version >= 4 else _split_plain
        sections, extensions = split(path, data, header)
    frame, unknown = _read_extensions(path, extensions)
    raw = _decode(header, sections)
    flip_axes(raw, frame)
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


def _read_gzip(path: Path, data: bytes) -> tuple[_Header, list[np.ndarray], bytes]:
    """Inflate the header first, then exactly what it justifies."""
    engine = zlib.decompressobj(31)
    try:
        header = _parse_header(path, engine.decompress(data, HEADER.size))
        if header.version >= 4:
            raise FormatError(path, "SPZ version 4 must not lie in a gzip stream", "one that does")
        expected = sum(header.sizes())
        check_count(path, header.count, len(data) * _DEFLATE_RATIO, header.bytes_each())
        plain = engine.decompress(engine.unconsumed_tail, expected) if expected else b""
        tail = b"" if engine.eof else engine.decompress(engine.unconsumed_tail, _LARGEST_EXTENSION + 1)
    except zlib.error as error:
        raise FormatError(path, "the gzip stream must be intact", str(error), "fetch the file again") from None
    if len(plain) < expected or not (engine.eof or tail):
        must = f"{header.count:,} gaussians need {expected:,} bytes in a complete gzip stream"
        got = f"{len(plain):,}, or a stream that ends early"
        raise FormatError(path, must, got, "the file is truncated; fetch it again", "truncated")
    _check_tail(path, header, tail, len(engine.unused_data) + len(tail))
    return header, _slice_sections(header, plain), tail


def _check_tail(path: Path, header: _Header, tail: bytes, length: int) -> None:
    """Nothing may follow the attributes but extension records that the header announces."""
    limit = _LARGEST_EXTENSION if header.flags & _EXTENSIONS else 0
    if length > limit:
        must = f"at most {limit:,} bytes may follow the {header.count:,} gaussians of the header"
        got = f"at least {length:,} trailing bytes"
        raise FormatError(path, must, got, "the header is broken, or the file is a decompression bomb")


def _slice_sections(header: _Header, plain: bytes) -> list[np.ndarray]:
    return np.split(np.frombuffer(plain, np.uint8), np.cumsum(header.sizes())[:-1])


def _split_plain(path: Path, data: bytes, header: _Header) -> tuple[list[np.ndarray], bytes]:
    """The attributes of versions 1 to 3 that were stored without gzip."""
    expected = sum(header.sizes())
    check_count(path, header.count, len(data) - HEADER.size, header.bytes_each())
    tail = data[HEADER.size + expected :]
    _check_tail(path, header, tail, len(tail))
    return _slice_sections(header, data[HEADER.size : HEADER.size + expected]), tail


def _split_streams(path: Path, data: bytes, header: _Header) -> tuple[list[np.ndarray], bytes]:
    """The attributes of version 4, one zstd stream each; empty ones have none."""
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
    offset = table + STREAM.size * header.streams
    streams = iter(range(header.streams))
    sections = []
    for size in sizes:
        if not size:
            sections.append(np.zeros(0, np.uint8))
            continue
        packed, plain = STREAM.unpack_from(data, table + STREAM.size * next(streams))
        if plain != size or packed > len(data) - offset:
            must = f"a stream must hold {size:,} bytes when unpacked and lie inside the file"
            got = f"{plain:,}, packed into {packed:,} of {len(data) - offset:,} bytes left"
            raise FormatError(path, must, got, "the file is truncated or its table of contents broken", "truncated")
        sections.append(_unpack_stream(path, data[offset : offset + packed], size))
        offset += packed
    if offset != len(data):
        raise FormatError(path, "nothing may follow the last stream", f"{len(data) - offset:,} trailing bytes")
    return sections, data[start:table] if header.flags & _EXTENSIONS else b""


def _unpack_stream(path: Path, packed: bytes, size: int) -> np.ndarray:
    """One zstd frame of exactly ``size`` bytes; the output grows with what really comes, never beyond ``size``."""
    plain = bytearray()
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed) as reader:
            while len(plain) <= size:
                part = reader.read(min(_CHUNK, size + 1 - len(plain)))
                if not part:
                    break
                plain += part
    except zstandard.ZstdError as error:
        raise FormatError(path, "every zstd stream must be intact", str(error), "fetch the file again") from None
    if len(plain) != size:
        got = f"{len(plain):,}" if len(plain) < size else "more"
        raise FormatError(path, f"a zstd stream must hold {size:,} bytes", got, "fetch the file again")
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


def _decode(header: _Header, sections: list[np.ndarray]) -> RawSplats:
    """Attributes to numbers, still in the stored frame."""
    positions, opacities, colors, scales, rotations, sh = sections
    coefficients = _COEFFICIENTS[header.degree]
    kept = min(coefficients, SH_COEFFICIENTS[-1])
    higher = sh.reshape(header.count, coefficients, 3)[:, :kept].astype(np.float32)
    higher -= 128
    higher *= 1 / 128
    return RawSplats(
        means=_positions(header, positions),
        quats=_first_three(rotations) if header.version < 3 else _smallest_three(rotations),
        scales=np.exp(scales.astype(np.float32) / 16 - 10).reshape(-1, 3),
        opacities=opacities.astype(np.float32) / 255,
        sh0=((colors.astype(np.float32) / 255 - 0.5) / COLOR_SCALE).reshape(-1, 1, 3),
        shN=higher,
    )


def _positions(header: _Header, stored: np.ndarray) -> np.ndarray:
    if header.version == 1:
        with np.errstate(invalid="ignore"):
            return stored.view("<f2").astype(np.float32).reshape(-1, 3)  # [N, 3]
    wide = np.zeros((len(stored) // 3, 4), np.uint8)
    wide[:, 1:] = stored.reshape(-1, 3)  # the sign lands in the top bit
    fixed = wide.view("<i4")[:, 0] >> 8
    return fixed.astype(np.float32).reshape(-1, 3) * np.float32(0.5**header.fractional_bits)


def _first_three(stored: np.ndarray) -> np.ndarray:
    """Versions 1 and 2: xyz as bytes, w >= 0 from them. ``[N, 4]`` wxyz."""
    xyz = stored.reshape(-1, 3).astype(np.float32) / 127.5 - 1
    w = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", xyz, xyz), 0))
    return np.concatenate([w[:, None], xyz], axis=1)


def _smallest_three(stored: np.ndarray) -> np.ndarray:
    """From version 3 on: sign and 9 bits for each of three components of xyzw. ``[N, 4]`` wxyz."""
    packed = stored.view("<u4")
    smallest = np.empty((len(packed), 3), np.float32)
    for column, shift in enumerate((20, 10, 0)):
        field = packed >> shift
        magnitude = (field & 511).astype(np.float32) * np.float32(0.5**0.5 / 511)
        smallest[:, column] = np.where(field & 512, -magnitude, magnitude)
    xyzw = restore_largest(smallest, packed >> 30)
    wxyz = np.empty_like(xyzw)
    wxyz[:, 0], wxyz[:, 1:] = xyzw[:, 3], xyzw[:, :3]
    return wxyz
