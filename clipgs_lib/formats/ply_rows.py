"""Rows of a PLY element as a numpy table, whatever the encoding."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from plyfile import PlyData, PlyParseError

from .base import FormatError, check_count
from .ply_header import Element, Header, locate

T = TypeVar("T")
MAX_THREADS = 8
LEAST_ROWS_PER_THREAD = 20_000


def open_rows(header: Header, element: Element) -> np.ndarray:
    """The rows of an element, as a structured array ``[count]`` with one field per property.

    Binary rows are mapped, not read; their fields have the stored types and byte order. ASCII rows are parsed, and
    all their fields are float64, whatever the header declares.

    Args:
        element: one without list properties (see `Header.require`).

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
