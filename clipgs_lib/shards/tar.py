"""The tar layer of the shards: a strict subset of POSIX ustar, written byte for byte alike and read without trust.

A shard is a WebDataset tar (https://github.com/webdataset/webdataset, "The WebDataset Format"): members that share
the name up to the first dot belong to one object and stand side by side. Ours hold regular files only, with plain
ustar headers whose owner, mode and time are fixed, so that equal objects give equal bytes. Links, devices, folders,
paths, sparse files and extended headers are refused when reading: the shards need none, and attacks do.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator

from ..errors import ExplainedError

BLOCK = 512
MAX_MEMBER = 256 * 1024 * 1024  # bytes; a splat of a million gaussians with SH 3 takes 118 MB
END = bytes(2 * BLOCK)  # two empty blocks end an archive
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of an object
_OCTAL = re.compile(rb"[\0 ]*([0-7]+)[\0 ]*")
_MEMBER = re.compile(rf"({KEY.pattern})\.([a-z0-9.]{{1,30}})".encode())  # its name in a shard


class ShardError(ExplainedError):
    """A shard, index or manifest that cannot be read or written as asked; names the member where there is one."""


def pack_members(key: str, members: Iterable[tuple[str, bytes]]) -> bytes:
    """The bytes of one object in a shard: a header and padded data per ``(part, data)``, in the order given.

    ShardError for a key (see `KEY`), a part (``"view000.webp"``) or a size that the reader would refuse.
    """
    if not KEY.fullmatch(key):
        raise ShardError(repr(key), "a key must be 1 to 64 of A-Z a-z 0-9 _ -", repr(key), "rename the object")
    out = bytearray()
    for part, data in members:
        name = f"{key}.{part}"
        if not _MEMBER.fullmatch(name.encode()) or len(data) > MAX_MEMBER:
            must = f"a member must be a plain name of at most {MAX_MEMBER:,} bytes"
            raise ShardError(repr(name), must, f"{len(data):,} bytes", "make the object smaller")
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o644, 0
        out += info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)
    return bytes(out)


def unpack_members(block: bytes, where: str) -> Iterator[tuple[str, str, memoryview]]:
    """Yield ``(key, part, data)`` for each member in the bytes of one or more objects; stop at an empty block.

    ``where`` is the shard's name: ShardError names it and the member, for anything but intact plain files with plain
    names.
    """
    view, position, end = memoryview(block), 0, len(block)
    while position < end:
        header = block[position : position + BLOCK]
        if not any(header):
            return
        key, part, size = _parse_header(header, position, where)
        start = position + BLOCK
        after = start + size + (-size % BLOCK)
        if after > end:
            got = f"{max(0, end - start):,} of {size:,} bytes"
            raise ShardError(f"{where}, member {key}.{part}", "the member must be complete", got, "fetch it again")
        yield key, part, view[start : start + size]
        position = after


def _parse_header(header: bytes, position: int, where: str) -> tuple[str, str, int]:
    """Key, part and size out of a ustar header at ``position`` of a shard."""
    if len(header) < BLOCK:
        place, todo = f"{where} at byte {position:,}", "the shard is truncated"
        raise ShardError(place, "a tar header must have 512 bytes", str(len(header)), todo)
    # Its own field counts as blanks in the sum of its bytes; the low half of an Adler-32 is that sum, and 1.
    check, total = header[148:156], _octal(header[148:156])
    if total is None or zlib.adler32(header) & 0xFFFF != (1 + total + sum(check) - 8 * 32) % 65_521:
        place, todo = f"{where} at byte {position:,}", "the shard is damaged"
        raise ShardError(place, "a tar header must carry its checksum", "another", todo)
    raw = header[345:500].partition(b"\0")[0] + header[:100].partition(b"\0")[0]
    match, size = _MEMBER.fullmatch(raw), _octal(header[124:136])
    if match and size is not None and size <= MAX_MEMBER and header[156] in b"0\0":
        return match[1].decode(), match[2].decode(), size
    name = raw.decode("utf-8", "backslashreplace")[:120]
    member = f"{where}, member {name!r}"
    if header[156] not in b"0\0":
        kind = f"type {header[156:157]!r}"
        raise ShardError(member, "members must be regular files", kind, "links and folders are refused")
    if not match:
        raise ShardError(member, "members must be called KEY.PART, without paths", repr(name), "refused")
    got = "no octal number" if size is None else f"{size:,}"
    raise ShardError(member, f"the size must be at most {MAX_MEMBER:,} bytes", got, "refused")


def _octal(field: bytes) -> int | None:
    """A number field of a tar header, or None when it is none (binary sizes of GNU tar count as none)."""
    match = _OCTAL.fullmatch(field)
    return int(match[1], 8) if match else None
