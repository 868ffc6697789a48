"""PLY files: a tolerant, bounded parser of headers, and the rows of an element as a numpy table.

Layout: Greg Turk, "The PLY Polygon File Format" (1994). Comments may hold any bytes; lines may end in LF, CRLF or CR.
"""

import io
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from plyfile import PlyData, PlyParseError

from .raw import FormatError, check_count

T = TypeVar("T")
MAX_HEADER_BYTES = 1 << 18
MAX_LIST_ROWS = 1_000_000
MAX_THREADS = 8
LEAST_ROWS_PER_THREAD = 20_000

_SCALARS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_END = re.compile(rb"(?:^|[\r\n])end_header[ \t]*(\r\n|\n|\r)")


@dataclass(frozen=True)
class Property:
    """One column of an element."""

    name: str
    code: str  # numpy scalar code without byte order, as "f4"
    length_code: str = ""  # of a list property: the code of its length; empty for a scalar


@dataclass(frozen=True)
class Element:
    """One table of a PLY file."""

    name: str
    count: int
    properties: list[Property] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [p.name for p in self.properties]

    @property
    def has_lists(self) -> bool:
        return any(p.length_code for p in self.properties)

    @property
    def least_row_bytes(self) -> int:
        """Bytes of one binary row; with list properties, the fewest there can be."""
        return sum(np.dtype(p.length_code or p.code).itemsize for p in self.properties)


@dataclass(frozen=True)
class Header:
    """A parsed header."""

    path: Path
    byte_order: str  # "<", ">" or "" for ASCII
    elements: list[Element]
    size: int  # bytes up to and including the line end after end_header

    def element(self, name: str) -> Element | None:
        """The element of that name, or None."""
        return next((e for e in self.elements if e.name == name), None)

    def require(self, name: str) -> Element:
        """The element of that name, with a sane count; FormatError when it is absent, or holds a list."""
        element = self.element(name)
        if element is None:
            names = ", ".join(e.name for e in self.elements) or "none"
            must = f"the PLY must have an element {name!r}"
            raise FormatError(self.path, must, f"elements {names}", "export it again")
        lists = [p.name for p in element.properties if p.length_code]
        if lists:
            must = f"every property of element {name!r} must be a scalar"
            raise FormatError(self.path, must, f"list property {lists[0]!r}", "export it without lists")
        check_count(self.path, element.count, 1, 0)
        return element


def read_header(path: Path) -> Header:
    """The header of a PLY file; FormatError when it is none, exceeds `MAX_HEADER_BYTES` or contradicts itself."""
    with path.open("rb") as stream:
        head = stream.read(MAX_HEADER_BYTES)
    if re.match(rb"ply[ \t]*[\r\n]", head) is None:
        must = "a PLY file must start with a line `ply`"
        raise FormatError(path, must, repr(head[:16]), "check that it is a PLY file at all")
    end = _END.search(head)
    if end is None:
        must = f"a line `end_header` must come within {MAX_HEADER_BYTES:,} bytes"
        if len(head) == MAX_HEADER_BYTES:
            raise FormatError(path, must, "none up to there", "shorten or remove the comments")
        raise FormatError(path, must, "a file without it", "the file is truncated; fetch it again", "truncated")
    lines = re.split(r"\r\n|\n|\r", head[: end.start()].decode("utf-8", errors="replace"))
    # in a CR-only file a data byte may happen to be LF: it is not part of the line end
    cr_only = re.match(rb"ply[ \t]*\r(?!\n)", head) is not None
    return _parse_lines(path, lines[1:], end.start(1) + 1 if cr_only else end.end())


def classify(path: Path, head: bytes) -> str:
    """Tell the three kinds of PLY apart by their properties; a ``head`` that does not start ``ply`` costs no more.

    Returns:
        ``"compressed_ply"``, ``"ply"`` (gaussians, or a header so broken that reading it will say why), ``"points"``,
        or ``""`` when it is no PLY.
    """
    if re.match(rb"ply[ \t]*[\r\n]", head) is None:
        return ""
    try:
        vertex = read_header(path).element("vertex")
    except FormatError:
        return "ply"
    names = set(vertex.names) if vertex else set()
    if "packed_position" in names:
        return "compressed_ply"
    is_cloud = {"x", "y", "z"} <= names and not names & {"scale_0", "rot_0", "f_dc_0"}
    return "points" if is_cloud else "ply"


def _parse_lines(path: Path, lines: list[str], size: int) -> Header:
    byte_order: str | None = None
    elements: list[Element] = []
    for line in lines:
        words = line.split()
        keyword = words[0] if words else ""
        if keyword in ("", "comment", "obj_info"):
            continue
        if keyword == "format" and byte_order is None and len(words) == 3 and words[1] in _BYTE_ORDERS:
            if words[2] != "1.0":
                must = "the PLY version must be 1.0"
                raise FormatError(path, must, words[2][:40], "convert it to version 1.0", "unknown_version")
            byte_order = _BYTE_ORDERS[words[1]]
        elif keyword == "element" and len(words) == 3 and re.fullmatch(r"-?[0-9]{1,20}", words[2]):
            elements.append(Element(words[1], int(words[2])))
        elif keyword == "property" and elements:
            elements[-1].properties.append(_parse_property(path, words))
        else:
            must = "a header line must be a format, element, property or comment in its proper form and place"
            raise FormatError(path, must, repr(line[:80]), "the header is broken; export the file again")
    if byte_order is None:
        raise FormatError(path, "the header must have a `format` line", "none", "export the file again")
    _refuse_duplicates(path, "elements", [e.name for e in elements])
    for element in elements:
        _refuse_duplicates(path, f"properties of element {element.name!r}", element.names)
        if element.count < 0:
            must = f"the count of element {element.name!r} must be >= 0"
            raise FormatError(path, must, str(element.count), "the header is broken; export the file again")
    return Header(path, byte_order, elements, size)


def _parse_property(path: Path, words: list[str]) -> Property:
    if len(words) == 3 and words[1] in _SCALARS:
        return Property(words[2], _SCALARS[words[1]])
    if len(words) == 5 and words[1] == "list" and words[3] in _SCALARS:
        length = _SCALARS.get(words[2], "")
        if length[:1] in ("i", "u"):
            return Property(words[4], _SCALARS[words[3]], length)
    must = "a property must be `property TYPE NAME` or `property list INTEGER_TYPE TYPE NAME`"
    raise FormatError(path, must, repr(" ".join(words)[:80]), f"known types: {', '.join(_SCALARS)}")


def _refuse_duplicates(path: Path, what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise FormatError(path, f"the {what} must have different names", f"{name!r} twice", "remove one of them")
        seen.add(name)


def locate(header: Header, element: Element) -> int:
    """Byte offset of the first row of an element of a **binary** file, elements with lists skipped row by row.

    FormatError when what comes before does not fit in the file, or cannot be skipped in bounded time.
    """
    offset, total = header.size, header.path.stat().st_size
    for before in header.elements:
        if before is element:
            break
        if not before.has_lists:
            offset += before.count * before.least_row_bytes
            continue
        if before.count > MAX_LIST_ROWS:
            must = f"an element with lists before {element.name!r} must have at most {MAX_LIST_ROWS:,} rows"
            raise FormatError(header.path, must, f"{before.count:,}", f"write {element.name!r} first")
        check_count(header.path, before.count, total - offset, before.least_row_bytes)
        with header.path.open("rb") as stream:
            offset = _skip_lists(header, before, stream, offset)
    if offset > total:
        must = f"the elements before {element.name!r} need {offset - header.size:,} bytes"
        got = f"{total - header.size:,}"
        raise FormatError(header.path, must, got, "the file is truncated; fetch it again", "truncated")
    return offset


def _skip_lists(header: Header, element: Element, stream: BinaryIO, offset: int) -> int:
    stream.seek(offset)
    for _ in range(element.count):
        for p in element.properties:
            size = np.dtype(p.code).itemsize
            if p.length_code:
                length_type = np.dtype(header.byte_order + p.length_code)
                raw = stream.read(length_type.itemsize)
                length = int(np.frombuffer(raw, length_type)[0]) if len(raw) == length_type.itemsize else -1
                if length < 0:
                    must = f"lists of element {element.name!r} must have a length >= 0 inside the file"
                    raise FormatError(header.path, must, "an end or a negative number", "fetch the file again")
                size *= length
            stream.seek(size, 1)
    return stream.tell()


def open_rows(header: Header, element: Element) -> np.ndarray:
    """The rows of an element without lists, as a structured array ``[count]`` with one field per property.

    Binary rows are mapped, not read; their fields have the stored types and byte order. ASCII rows are parsed, and
    all their fields are float64, whatever the header declares.

    Raises:
        FormatError: when the rows do not fit in the file, or ASCII rows are no numbers.
    """
    if not element.properties:
        raise FormatError(header.path, f"element {element.name!r} must have properties", "none", "export it again")
    if header.byte_order == "":
        return _parse_ascii(header, element)
    dtype = np.dtype([(p.name, header.byte_order + p.code) for p in element.properties])
    offset = locate(header, element)
    check_count(header.path, element.count, header.path.stat().st_size - offset, dtype.itemsize)
    if element.count == 0:
        return np.empty(0, dtype)
    return np.memmap(header.path, dtype, "r", offset, (element.count,))


def columns(rows: np.ndarray, names: list[str], dtype: type[np.generic] = np.float32) -> np.ndarray:
    """Named columns as one contiguous ``[N, len(names)]`` array; what does not fit float32 becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        run = _as_run(rows, names)
        if run is not None:
            return run.astype(dtype, order="C")
        out = np.empty((len(rows), len(names)), dtype)
        for i, name in enumerate(names):
            out[:, i] = rows[name]
    return out


def _as_run(rows: np.ndarray, names: list[str]) -> np.ndarray | None:
    """The columns as a view ``[N, len(names)]`` when they lie side by side with one type; copied at once then."""
    fields = [(rows.dtype[name], rows.dtype.fields[name][1]) for name in names] if rows.dtype.fields else []
    if not fields or not rows.flags.c_contiguous:
        return None
    kind, start = fields[0]
    if any(field != (kind, start + i * kind.itemsize) for i, field in enumerate(fields)):
        return None
    table = rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
    return table[:, start : start + len(names) * kind.itemsize].view(kind)


def in_threads(count: int, job: Callable[[int, int], T]) -> list[T]:
    """Call ``job(start, stop)`` on ranges that cover ``count`` rows, each in a thread of its own.

    For kernels that release the interpreter lock. Plain threads rather than numba's own: those make a process abort
    that forks later (as data loaders do), or that calls from two threads at once.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = max(1, min(cores, MAX_THREADS, count // LEAST_ROWS_PER_THREAD))
    edges = [count * i // parts for i in range(parts + 1)]
    if parts == 1:
        return [job(0, count)]
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(job, edges[:-1], edges[1:]))


def trailing_bytes(header: Header) -> int:
    """How many bytes follow the last row of a binary file; 0 where list properties or ASCII make it unknowable."""
    if header.byte_order == "" or any(e.has_lists for e in header.elements):
        return 0
    used = header.size + sum(e.count * e.least_row_bytes for e in header.elements)
    return max(0, header.path.stat().st_size - used)


def _parse_ascii(header: Header, element: Element) -> np.ndarray:
    """Let plyfile parse the text, under a header of our own words: no comments, every scalar a double."""
    columns = len(element.properties)
    available = header.path.stat().st_size - header.size
    check_count(header.path, element.count, available + 1, 2 * columns)  # a digit and a separator; the last may lack
    before = header.elements[: header.elements.index(element)]
    check_count(header.path, sum(e.count for e in before), available, 1)
    lines = ["ply", "format ascii 1.0"]
    for e in (*before, element):
        lines.append(f"element {e.name} {e.count}")
        lines += [f"property {'list uint8 double' if p.length_code else 'double'} {p.name}" for p in e.properties]
    with header.path.open("rb") as stream:
        stream.seek(header.size)
        body = b"\n".join(line for line in stream.read().splitlines() if line.strip())
    text = "\n".join([*lines, "end_header", ""]).encode() + body + b"\n"
    try:
        return np.asarray(PlyData.read(io.BytesIO(text))[element.name].data)
    except (PlyParseError, ValueError) as error:
        must = f"ASCII rows of element {element.name!r} must be {element.count:,} of {columns} numbers each"
        raise FormatError(header.path, must, str(error), "export the file again, or fetch it again") from None
