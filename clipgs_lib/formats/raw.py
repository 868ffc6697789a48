"""What every format module shares: the error, the raw record, bounded reading, atomic writing."""

from __future__ import annotations

import os
import re
import stat
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ExplainedError
from ..files import writing
from ..splats import COLUMNS, Splats
from ..words import first_of

MAX_GAUSSIANS = 200_000_000
_NAMED = 24  # Ignored properties that a note names, at most


class FormatError(ExplainedError):
    """A file that cannot be read or written as asked."""


class SplatWarning(UserWarning):
    """Something in a file was unusual and was handled; the message counts it."""


atomic_write = partial(writing, error=FormatError)


def warn(path: str | os.PathLike[str], what: str) -> None:
    """A `SplatWarning` about a file, on the line that called this package, however deep in it the reader stands."""
    depth = 1
    while sys._getframe(depth).f_globals.get("__package__") == __package__:
        depth += 1
    warnings.warn(f"{path}: {what}", SplatWarning, stacklevel=depth + 1)


@dataclass
class RawSplats:
    """Gaussians as a decoder found them: numpy, float32, contiguous, **linear** scales and opacities.

    Attributes:
        means: ``[N, 3]``.
        quats: ``[N, 4]`` wxyz, as stored (not normalised).
        scales: ``[N, 3]`` linear.
        opacities: ``[N]`` in ``[0, 1]``.
        sh0: ``[N, 1, 3]``.
        shN: ``[N, K-1, 3]``.
        up_axis: what the format's own specification says, else ``"unknown"``.
        notes: remarks for `diagnose`, one sentence each.
        trailing: bytes after the last gaussian, which were ignored.
        clean: the decoder has seen that every value is finite, and has normalised every quaternion; `to_splats` then
            spares its own passes over the data. False promises nothing.
        antialiased: as in `Splats`.
        ignored: names what was stored for each gaussian and not read, in a sentence; `to_splats` warns with it.
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    sh0: np.ndarray
    shN: np.ndarray
    up_axis: str = "unknown"
    notes: list[str] = field(default_factory=list)
    trailing: int = 0
    clean: bool = False
    antialiased: bool = False
    ignored: str = ""

    @classmethod
    def allocate(cls, count: int, higher: int) -> RawSplats:
        """``count`` gaussians with ``higher`` SH coefficients above degree 0, uninitialised."""
        shapes = ((count, 3), (count, 4), (count, 3), (count,), (count, 1, 3), (count, higher, 3))
        columns: list[Any] = [np.empty(shape, np.float32) for shape in shapes]
        return cls(*columns)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The arrays, in the order of `COLUMNS`."""
        return tuple(getattr(self, name) for name in COLUMNS)

    def rows(self, index: np.ndarray) -> RawSplats:
        """The record with some rows only (mask or indices)."""
        return replace(self, **{name: column[index] for name, column in zip(COLUMNS, self.columns, strict=True)})

    def ignore(self, names: Iterable[str]) -> None:
        """Name stored properties that were not read and could matter, series of them once."""
        if names := list(names):
            series = dict.fromkeys(re.sub(r"[0-9]+$", "*", name) for name in names)
            shown = first_of(names if len(names) <= _NAMED else series, _NAMED)
            self.ignored = f"{len(names)} unknown properties were ignored: {shown}"
            self.notes.append(self.ignored)


def to_splats(raw: RawSplats, path: str | os.PathLike[str]) -> Splats:
    """Turn a decoded record into `Splats`, with unit quaternions; its arrays are not copied.

    Gaussians that hold NaN or infinity or a zero quaternion are dropped, with a `SplatWarning` that counts them.
    ``path`` is for messages and ``Splats.source``. FormatError when no gaussian is left.
    """
    columns: dict[str, Any] = {n: torch.from_numpy(np.ascontiguousarray(getattr(raw, n))) for n in COLUMNS}
    quats = columns["quats"]
    lengths = torch.ones(len(quats), 1) if raw.clean else quats.norm(dim=1, keepdim=True)
    unit = quats if raw.clean else quats / lengths.clamp_min(1e-30)
    more = {"up_axis": raw.up_axis, "source": Path(path).name, "antialiased": raw.antialiased}
    splats = Splats(**columns | {"quats": unit} | more)
    if raw.ignored:
        warn(path, raw.ignored)
    if raw.clean or len(splats) == 0:
        return splats
    # One fused reduction first: the sum is finite exactly when every addend is (barring overflow, which the
    # slower per-gaussian mask below then clears), and nearly every file is clean.
    clean = all(bool(torch.isfinite(column.sum())) for column in columns.values())
    if clean and bool((lengths > 1e-12).all()):
        return splats
    finite = splats.finite_mask() & lengths[:, 0].isfinite()
    turned = lengths[:, 0] > 1e-12
    bad = len(splats) - int((finite & turned).sum())
    if bad == 0:
        return splats
    what = f"{int((~finite).sum()):,} non-finite and {int((finite & ~turned).sum()):,} zero-quaternion"
    if bad == len(splats):
        must = "at least one gaussian must be finite with a non-zero quaternion"
        raise FormatError(path, must, f"{what} of {len(splats):,}", "run `clipgs diagnose` on the file")
    warn(path, f"dropped {what} gaussians of {len(splats):,}")
    return splats[finite & turned]


def check_regular_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a readable regular file; FormatError for any other, or a missing one."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise FormatError(path, "the path must name an existing file", str(error), "check the spelling") from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        got = kinds.get(stat.S_IFMT(mode), "a device")
        raise FormatError(path, "the path must name a regular file", got, "pass the file itself")
    if not os.access(path, os.R_OK):
        raise FormatError(path, "the file must be readable", "no read permission", "mend its permissions")
    return path


def check_count(path: str | os.PathLike[str], count: int, available: int, bytes_each: int) -> None:
    """Refuse a count that a header claims, before anything is allocated: negative, absurd, or more than can fit into
    the ``available`` bytes when one gaussian takes ``bytes_each`` at the least.
    """
    if not 0 <= count <= MAX_GAUSSIANS:
        must = f"the gaussian count must lie in 0..{MAX_GAUSSIANS:,}"
        raise FormatError(path, must, f"{count:,}", "the header is broken")
    if count * bytes_each > available:
        must = f"{count:,} gaussians need at least {count * bytes_each:,} bytes"
        raise FormatError(path, must, f"{available:,}", "the file is truncated; fetch it again", "truncated")


def read_up_to(read: Callable[[int], bytes], size: int) -> bytearray:
    """At most ``size`` bytes of what ``read(count)`` gives; memory grows with what really comes."""
    data = bytearray()
    while len(data) < size and (part := read(min(1 << 20, size - len(data)))):
        data += part
    return data
