"""The ``.ksplat`` format of mkkellogg/GaussianSplats3D, version 0.1, compression levels 0, 1 and 2.

Layout, little-endian: a header of 4096 bytes (u8 major, minor; u32 at 4: section slots, sections, splat slots,
splats; u16 at 20: compression level; f32 at 24: scene centre, at 36: least and greatest SH value), one section header
of 1024 bytes per slot (see `_SECTION`), then the sections. A section is the sizes of its partially filled buckets
(u32), the bucket centres (3 x f32) and the records. A record is centre, linear scale, quaternion (wxyz), RGBA bytes
and SH: float32 at level 0; float16 at level 1, with u16 centres relative to their bucket; level 2 stores SH as bytes
over the header's range. SH goes to degree 2, band by band, channel by channel within a band. The frame is that of
the PLY.
"""

import struct
from collections import namedtuple
from itertools import pairwise
from pathlib import Path

import numpy as np

from .packing import SH_COEFFICIENTS, concatenate, from_rgba, no_sh, positive_scales
from .raw import FormatError, RawSplats, check_count

NAME = "ksplat"
SUFFIXES = (".ksplat",)

HEADER_BYTES, SECTION_BYTES = 4096, 1024
_HEADER = struct.Struct("<BBxxIIIIHxx12xff")
_Header = namedtuple("_Header", "major minor section_slots sections splat_slots count level low high")
_SECTION = struct.Struct("<IIIIfHxxIIIIH")
_Section = namedtuple(
    "_Section",
    "count slots bucket_size buckets block_size bucket_bytes scale_range declared_bytes full_buckets partial_buckets"
    " degree",
)
_SCALE_RANGE = (1, 32767, 32767)
_DEFAULT_SH_RANGE = (-1.5, 1.5)


def sniff(path: Path, head: bytes) -> bool:
    """Whether the first bytes are a plausible ksplat header of any version."""
    if len(head) < HEADER_BYTES:
        return False
    header = _Header(*_HEADER.unpack_from(head))
    fits = header.major <= 9 and header.minor <= 99 and head[2:4] == b"\0\0" and header.level <= 99
    counts = header.sections <= header.section_slots and 1 <= header.section_slots <= 1 << 20
    return fits and counts and not any(head[64:HEADER_BYTES])


def read(path: Path) -> RawSplats:
    """Read a ``.ksplat`` file, version 0.1, of any compression level; what contradicts itself is refused."""
    data = np.fromfile(path, np.uint8)
    header = _checked_header(path, data)
    offset = HEADER_BYTES + header.section_slots * SECTION_BYTES
    parts = []
    for index in range(header.section_slots):
        section = _Section(*_SECTION.unpack_from(data.data, HEADER_BYTES + index * SECTION_BYTES))
        size = _check_section(path, index, section, header.level, len(data) - offset)
        if section.count:
            with np.errstate(over="ignore", invalid="ignore"):
                parts.append(_read_section(path, data[offset : offset + size], section, header))
        offset += size
    if offset != len(data):
        got = f"{len(data) - offset:,} trailing bytes"
        raise FormatError(path, "nothing may follow the last section", got, "the header is broken; fetch it again")
    total = sum(len(part.means) for part in parts)
    if total != header.count:
        must = f"the sections must hold the {header.count:,} gaussians of the header"
        todo = "the header is broken, or the file was only partly downloaded; fetch it again"
        raise FormatError(path, must, f"{total:,}", todo, "truncated")
    raw = concatenate(parts)
    raw.scales = positive_scales(path, raw.scales)
    raw.notes.append(f"ksplat {header.major}.{header.minor}, compression level {header.level}")
    return raw


def _checked_header(path: Path, data: np.ndarray) -> _Header:
    if len(data) < HEADER_BYTES:
        must = f"a ksplat header takes {HEADER_BYTES} bytes"
        raise FormatError(path, must, f"{len(data):,} in all", "the file is truncated", "truncated")
    header = _Header(*_HEADER.unpack_from(data.data))
    if (header.major, header.minor) != (0, 1):
        must = "the ksplat version must be 0.1"
        got = f"{header.major}.{header.minor}"
        raise FormatError(path, must, got, "convert it with a newer tool", "unknown_version")
    if header.level > 2:
        raise FormatError(path, "the compression level must be 0, 1 or 2", str(header.level))
    room = (len(data) - HEADER_BYTES) // SECTION_BYTES
    if not header.sections <= header.section_slots <= room:
        must = f"the section headers must fit into the file, which has room for {room:,}"
        got = f"{header.sections:,} sections in {header.section_slots:,} slots"
        raise FormatError(path, must, got, "the file is truncated or its header broken", "truncated")
    check_count(path, header.count, len(data), _record_type(header.level, 0).itemsize)
    low, high = header.low or _DEFAULT_SH_RANGE[0], header.high or _DEFAULT_SH_RANGE[1]
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise FormatError(path, "the SH range of the header must be finite and increasing", f"{low:g} to {high:g}")
    return header._replace(low=low, high=high)


def _record_type(level: int, degree: int) -> np.dtype:
    """One gaussian of a section."""
    center, number, sh = (("<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2"), ("<u2", "<f2", "u1"))[level]
    fields: list[tuple] = [("means", center, 3), ("scales", number, 3), ("quats", number, 4), ("rgba", "u1", 4)]
    if degree:
        fields.append(("sh", sh, 3 * SH_COEFFICIENTS[degree]))
    return np.dtype(fields)


def _check_section(path: Path, index: int, section: _Section, level: int, available: int) -> int:
    """The size of a section in bytes, after every count in its header is known to fit."""
    name = f"section {index}"
    if section.degree > 2:
        raise FormatError(path, f"the SH degree of {name} must be 0, 1 or 2", str(section.degree))
    if section.count > section.slots:
        must = f"{name} must not hold more gaussians than slots"
        raise FormatError(path, must, f"{section.count:,} in {section.slots:,}")
    if section.buckets and section.bucket_bytes != 12:
        raise FormatError(path, f"a bucket of {name} must take 12 bytes", str(section.bucket_bytes))
    record = _record_type(level, section.degree).itemsize
    check_count(path, section.slots, available, record)
    size = 4 * section.partial_buckets + 12 * section.buckets + section.slots * record
    if size > available:
        must = f"{name} must fit into the file"
        got = f"{size:,} bytes of which {max(available, 0):,} are there"
        raise FormatError(path, must, got, "the file is truncated or its header broken; fetch it again", "truncated")
    if section.declared_bytes not in (0, size):
        must = f"{name} must be as large as its counts say, {size:,} bytes"
        raise FormatError(path, must, f"{section.declared_bytes:,} declared")
    return size


def _read_section(path: Path, data: np.ndarray, section: _Section, header: _Header) -> RawSplats:
    start = 4 * section.partial_buckets + 12 * section.buckets
    record = _record_type(header.level, section.degree)
    records = data[start : start + section.count * record.itemsize].view(record)  # [N]
    means = records["means"].astype(np.float32)
    if header.level:
        half = section.scale_range or _SCALE_RANGE[header.level]
        means = (means - np.float32(half)) * np.float32(section.block_size / 2 / half)
        means += _bucket_centers(path, data, section)
    quats, scales = (records[name].astype(np.float32) for name in ("quats", "scales"))
    return RawSplats(means, quats, scales, *from_rgba(records["rgba"]), _read_sh(records, section, header))


def _bucket_centers(path: Path, data: np.ndarray, section: _Section) -> np.ndarray:
    """The bucket centre of each gaussian of a section, ``[N, 3]``."""
    partial = data[: 4 * section.partial_buckets].view("<u4").astype(np.int64)
    full = section.full_buckets * section.bucket_size
    covered = full + int(partial.sum())
    if section.full_buckets + section.partial_buckets != section.buckets or not (
        section.count <= covered <= section.slots
    ):
        must = f"the buckets of a section must cover its {section.count:,} gaussians"
        got = (
            f"{section.full_buckets:,} full ones of {section.bucket_size:,} and {section.partial_buckets:,} partly "
            f"filled, {covered:,} places in {section.buckets:,} buckets"
        )
        raise FormatError(path, must, got, "the section header is broken; fetch the file again")
    sizes = np.concatenate([np.full(section.full_buckets, section.bucket_size, np.int64), partial])
    start = 4 * section.partial_buckets
    centers = data[start : start + 12 * section.buckets].view("<f4").reshape(-1, 3)  # [buckets, 3]
    return np.repeat(centers, sizes, axis=0)[: section.count]


def _read_sh(records: np.ndarray, section: _Section, header: _Header) -> np.ndarray:
    """Higher SH ``[N, K-1, 3]``: stored band by band, within a band channel by channel."""
    if section.degree == 0:
        return no_sh(len(records))
    stored = records["sh"].astype(np.float32)  # [N, 3 (K-1)]
    if header.level == 2:
        stored = np.float32(header.low) + stored * np.float32((header.high - header.low) / 255)
    edges = pairwise(SH_COEFFICIENTS[: section.degree + 1])
    bands = [stored[:, 3 * a : 3 * b].reshape(-1, 3, b - a).transpose(0, 2, 1) for a, b in edges]  # [N, 2l+1, 3] each
    return np.concatenate(bands, axis=1)
