"""The ``.ksplat`` format of mkkellogg/GaussianSplats3D, version 0.1, compression levels 0, 1 and 2.

Layout, little-endian: a header of 4096 bytes (u8 major, minor; u32 at 4: section slots, sections, splat slots,
splats; u16 at 20: compression level; f32 at 24: scene centre, at 36: least and greatest SH value), one section header
of 1024 bytes per slot (see `_SECTION`), then the sections. A section is the sizes of its partially filled buckets
(u32), the bucket centres (3 x f32) and the records. A record is centre, linear scale, quaternion (wxyz), RGBA bytes
and SH: float32 at level 0; float16 at level 1, with u16 centres relative to their bucket; level 2 stores SH as bytes
over the header's range. SH goes to degree 2, band by band, channel by channel within a band. The frame is that of
the PLY.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..geometry import SH_C0
from .base import FormatError, RawSplats, check_count, check_regular_file
from .packing import SH_COEFFICIENTS, concatenate, positive_scales

NAME = "ksplat"
SUFFIXES = (".ksplat",)

HEADER_BYTES, SECTION_BYTES = 4096, 1024
_HEADER = struct.Struct("<BBxxIIIIHxx3fff")
_SECTION = struct.Struct("<IIIIfHxxIIIIH")
_SCALE_RANGE = (1, 32767, 32767)
_DEFAULT_SH_RANGE = (-1.5, 1.5)


@dataclass(frozen=True)
class _Header:
    major: int
    minor: int
    section_slots: int
    sections: int
    splat_slots: int
    count: int
    level: int
    center: tuple[float, float, float]
    sh_range: tuple[float, float]


@dataclass(frozen=True)
class _Section:
    count: int
    slots: int
    bucket_size: int
    buckets: int
    block_size: float
    bucket_bytes: int
    scale_range: int
    declared_bytes: int
    full_buckets: int
    partial_buckets: int
    degree: int


def sniff(path: Path, head: bytes) -> bool:
    """Whether the first bytes are a plausible ksplat header of any version."""
    if len(head) < HEADER_BYTES:
        return False
    header = _unpack_header(head)
    fits = header.major <= 9 and header.minor <= 99 and head[2:4] == b"\0\0" and header.level <= 99
    counts = header.sections <= header.section_slots and 1 <= header.section_slots <= 1 << 20
    return fits and counts and not any(head[64:HEADER_BYTES])


def read(path: Path) -> RawSplats:
    """Read a ``.ksplat`` file, version 0.1, of any compression level.

    Raises:
        FormatError: for an unknown version or level, sections or buckets that contradict each other, and bytes
            missing at the end.
    """
    path = check_regular_file(path)
    data = np.fromfile(path, np.uint8)
    header = _checked_header(path, data)
    offset = HEADER_BYTES + header.section_slots * SECTION_BYTES
    parts = []
    for index in range(header.section_slots):
        start = HEADER_BYTES + index * SECTION_BYTES
        section = _Section(*_SECTION.unpack_from(data[start : start + _SECTION.size].tobytes()))
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


def _unpack_header(data: bytes) -> _Header:
    values = _HEADER.unpack_from(data)
    return _Header(*(*values[:7], values[7:10], values[10:12]))


def _checked_header(path: Path, data: np.ndarray) -> _Header:
    if len(data) < HEADER_BYTES:
        must = f"a ksplat header takes {HEADER_BYTES} bytes"
        raise FormatError(path, must, f"{len(data):,} in all", "the file is truncated", "truncated")
    header = _unpack_header(data[:HEADER_BYTES].tobytes())
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
    low, high = header.sh_range
    low, high = low or _DEFAULT_SH_RANGE[0], high or _DEFAULT_SH_RANGE[1]
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise FormatError(path, "the SH range of the header must be finite and increasing", f"{low:g} to {high:g}")
    return replace(header, sh_range=(low, high))


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
    rgba = records["rgba"].astype(np.float32) / 255  # [N, 4]
    return RawSplats(
        means=means,
        quats=records["quats"].astype(np.float32),
        scales=records["scales"].astype(np.float32),
        opacities=np.ascontiguousarray(rgba[:, 3]),
        sh0=((rgba[:, None, :3] - 0.5) / SH_C0).astype(np.float32),  # [N, 1, 3]
        shN=_read_sh(records, section, header),
    )


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
        return np.zeros((len(records), 0, 3), np.float32)
    stored = records["sh"].astype(np.float32)  # [N, 3 (K-1)]
    if header.level == 2:
        low, high = header.sh_range
        stored = np.float32(low) + stored * np.float32((high - low) / 255)
    bands, start = [], 0
    for degree in range(1, section.degree + 1):
        width = 2 * degree + 1
        band = stored[:, 3 * start : 3 * (start + width)].reshape(-1, 3, width)  # [N, 3, 2l+1]
        bands.append(band.transpose(0, 2, 1))
        start += width
    return np.ascontiguousarray(np.concatenate(bands, axis=1))
