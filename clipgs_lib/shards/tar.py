"""The tar layer of the shards: a strict subset of POSIX ustar, written byte for byte alike and read without trust.

A shard is a WebDataset tar (https://github.com/webdataset/webdataset, "The WebDataset Format"): members that share
the name up to the first dot belong to one object and stand side by side. Ours hold regular files only, with plain
ustar headers whose owner, mode and time are fixed, so that equal objects give equal bytes. Links, devices, folders,
paths, sparse files and extended headers are refused when reading: the shards need none, and attacks do.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator

from ..errors import ExplainedError

BLOCK = 512
MAX_MEMBER = 256 * 1024 * 1024  # bytes; a splat of a million gaussians with SH 3 takes 118 MB
END = bytes(2 * BLOCK)  # two empty blocks end an archive
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of an object
_OCTAL = re.compile(rb"[0-7]+")
_MEMBER = re.compile(rf"({KEY.pattern})\.([a-z0-9.]{{1,30}})")


class ShardError(ExplainedError):
    """A shard, index or manifest that cannot be read or written as asked; names the member where there is one."""


def pack_members(key: str, members: Iterable[tuple[str, bytes]]) -> bytes:
    """The bytes of one object in a shard: a header and padded data per member, in the order given.

    Args:
        key: see `KEY`.
        members: ``(part, data)``, e.g. ``("view000.webp", b"...")``.

    Raises:
        ShardError: for a key, a part or a size that the reader would refuse.
    """
    if not KEY.fullmatch(key):
        raise ShardError(repr(key), "a key must be 1 to 64 of A-Z a-z 0-9 _ -", repr(key), "rename the object")
    out = bytearray()
    for part, data in members:
        name = f"{key}.{part}"
        if not _MEMBER.fullmatch(name) or len(data) > MAX_MEMBER:
            must = f"a member must be a plain name of at most {MAX_MEMBER:,} bytes"
            raise ShardError(repr(name), must, f"{len(data):,} bytes", "make the object smaller")
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o644, 0
        out += info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)
    return bytes(out)


def unpack_members(block: bytes, where: str) -> Iterator[tuple[str, str, memoryview]]:
    """Yield ``(key, part, data)`` for each member in the bytes of one or more objects; stop at an empty block.

    Args:
        block: tar bytes, beginning at a header.
        where: the shard's name, for messages.

    Raises:
        ShardError: naming shard and member, for anything but intact plain files with plain names.
    """
    view, position = memoryview(block), 0
    while position < len(view):
        header = bytes(view[position : position + BLOCK])
        if not any(header):
            return
        key, part, size = _parse_header(header, f"{where} at byte {position:,}", where)
        start = position + BLOCK
        after = start + size + (-size % BLOCK)
        if after > len(view):
            got = f"{max(0, len(view) - start):,} of {size:,} bytes"
            raise ShardError(f"{where}, member {key}.{part}", "the member must be complete", got, "fetch it again")
        yield key, part, view[start : start + size]
        position = after


def _parse_header(header: bytes, place: str, where: str) -> tuple[str, str, int]:
    """Key, part and size out of a ustar header; ``place`` is said of headers whose name is not to be trusted."""
    if len(header) < BLOCK:
        raise ShardError(place, "a tar header must have 512 bytes", str(len(header)), "the shard is truncated")
    if _octal(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 32:
        raise ShardError(place, "a tar header must carry its checksum", "another", "the shard is damaged")
    raw = header[345:500].split(b"\0", 1)[0] + header[:100].split(b"\0", 1)[0]
    name = raw.decode("utf-8", "backslashreplace")
    member = f"{where}, member {name[:120]!r}"
    if header[156:157] not in (b"0", b"\0"):
        kind = f"type {header[156:157]!r}"
        raise ShardError(member, "members must be regular files", kind, "links and folders are refused")
    match = _MEMBER.fullmatch(name)
    if not match:
        raise ShardError(member, "members must be called KEY.PART, without paths", repr(name[:120]), "refused")
    size = _octal(header[124:136])
    if size is None or size > MAX_MEMBER:
        got = "no octal number" if size is None else f"{size:,}"
        raise ShardError(member, f"the size must be at most {MAX_MEMBER:,} bytes", got, "refused")
    return match[1], match[2], size


def _octal(field: bytes) -> int | None:
    """A number field of a tar header, or None when it is none (binary sizes of GNU tar count as none)."""
    text = field.strip(b"\0 ")
    return int(text, 8) if _OCTAL.fullmatch(text) else None
