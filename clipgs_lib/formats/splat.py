"""The ``.splat`` format: raw records of 32 bytes, no header, no SH.

Layout (antimatter15/splat): position 3 x float32, linear scale 3 x float32, colour and opacity 4 x uint8 (RGBA),
quaternion 4 x uint8 (wxyz, ``(byte - 128) / 128``). The frame is that of the PLY.
"""

from pathlib import Path

import numpy as np

from ..geometry import SH_C0
from ..splats import Splats
from .packing import columns_to_write, from_rgba, no_sh, positive_scales, warn_clipped
from .raw import FormatError, RawSplats, atomic_write, check_count, warn

NAME = "splat"
SUFFIXES = (".splat",)

RECORD = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])
_OTHER_MAGIC = (b"ply", b"NGSP", b"glTF", b"PK\x03\x04", b"\x1f\x8b", b"{", b"\x89PNG", b"RIFF")
_LARGE = 1e7
_HALF_STEP = 0.5 / 255


def sniff(path: Path, head: bytes) -> bool:
    """Whether the bytes look like ``.splat`` records.

    There is no magic number: the size must be a multiple of 32 (or the name end in ``.splat``, so that `read` can
    say what is wrong with it) and the first records must hold plausible numbers.
    """
    if len(head) < RECORD.itemsize or head.startswith(_OTHER_MAGIC):
        return False
    whole = path.stat().st_size % RECORD.itemsize == 0
    if not whole and path.suffix.lower() not in SUFFIXES:
        return False
    records = np.frombuffer(head, RECORD, len(head) // RECORD.itemsize)
    means, scales = records["means"], records["scales"]
    with np.errstate(invalid="ignore"):
        fits = (np.abs(means) < _LARGE).all(axis=1) & ((scales >= 0) & (scales < _LARGE)).all(axis=1)
    return bool(fits.mean() > 0.9 and (scales > 0).any())


def read(path: Path) -> RawSplats:
    """Read a ``.splat`` file; FormatError when its size is zero or no multiple of 32 bytes."""
    size = path.stat().st_size
    count, rest = divmod(size, RECORD.itemsize)
    if size == 0 or rest:
        must = "a .splat file must hold whole records of 32 bytes, at least one"
        got = f"{size:,} bytes, that is {count:,} records and {rest} bytes more"
        todo = "the file is truncated, has trailing bytes, or is another format; fetch it again"
        raise FormatError(path, must, got, todo, "truncated")
    check_count(path, count, size, RECORD.itemsize)
    return decode(path, count)


def decode(path: Path, count: int) -> RawSplats:
    """The first ``count`` gaussians of a ``.splat`` file that holds them."""
    records = np.fromfile(path, RECORD, count)
    means, scales = (np.ascontiguousarray(records[name], np.float32) for name in ("means", "scales"))
    quats = (records["quats"].astype(np.float32) - 128) / 128  # [N, 4]
    rgba = from_rgba(records["rgba"])
    return RawSplats(means, quats, positive_scales(path, scales), *rgba, no_sh(len(records)))


def write(splats: Splats, path: Path) -> None:
    """Write a ``.splat`` file; order is kept, SH above degree 0 is dropped with a `SplatWarning`.

    Colours are clipped to ``[0, 1]`` with a `SplatWarning`. There must be a gaussian, and all must be finite.
    """
    if len(splats) == 0:
        must = "a .splat file must hold at least one gaussian"
        raise FormatError(path, must, "none", "write another format, it has no header")
    columns = columns_to_write(splats, path)
    if splats.sh_degree:
        warn(path, f".splat holds no view-dependent colour; SH degree {splats.sh_degree} was dropped")
    colors = 0.5 + SH_C0 * columns.sh0[:, 0]  # [N, 3]
    warn_clipped(path, "colour values", int((np.abs(colors - 0.5) > 0.5 + _HALF_STEP).sum()), colors.size)
    records = np.empty(len(splats), RECORD)
    records["means"], records["scales"] = columns.means, columns.scales
    records["rgba"][:, :3] = np.rint(np.clip(colors, 0, 1) * 255)
    records["rgba"][:, 3] = np.rint(columns.opacities * 255)
    # byte 256 does not exist: the sign that keeps the largest component off +1 loses nothing
    largest = np.take_along_axis(columns.quats, np.abs(columns.quats).argmax(axis=1)[:, None], axis=1)
    records["quats"] = np.clip(np.rint(columns.quats * -np.sign(largest) * 128 + 128), 0, 255)
    with atomic_write(path) as stream:
        stream.write(records.tobytes())
