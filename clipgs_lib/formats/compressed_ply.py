"""PlayCanvas compressed PLY: 16 bytes a gaussian, in chunks of 256 with bounds of their own.

Page: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/ply/ . Element ``chunk`` holds float
bounds of position, log-scale and (in newer files) base colour; element ``vertex`` four uint32: position 11-10-11 bits,
rotation 2-10-10-10 (the largest of wxyz left out), log-scale 11-10-11, and colour with linear opacity 8-8-8-8;
optional element ``sh`` one byte per ``f_rest``, spanning [-4, 4].

Opacity is stored linear, so bytes 0 and 255 mean exactly 0 and 1 and no logit is ever taken. Frame: as in the PLY it
was made from. What writing loses, at most: position and log-scale 1/2046 (y) or 1/4094 (x, z) of the chunk's extent,
rotation about 0.2 degrees, opacity 1/510, colour 1/510 of the chunk's range, SH 1/64 (1/32 beside the ends of [-4, 4],
to which it is clamped); log-scales are clamped to [-20, 20].
"""

import math
import re
from pathlib import Path

import numba
import numpy as np

from .. import geometry
from ..splats import Splats
from .packing import columns_to_write, drop_largest, z_order
from .ply import header_bytes, sh_columns, to_logs
from .ply_table import Header, classify, columns, in_threads, open_rows, read_header, trailing_bytes
from .raw import FormatError, RawSplats, atomic_write

NAME = "compressed_ply"
SUFFIXES = (".compressed.ply",)

CHUNK = 256
_AXES = ("x", "y", "z")
_BOUNDS = [f"{end}_{what}{axis}" for what in ("", "scale_") for end in ("min", "max") for axis in _AXES]
_COLOR_BOUNDS = [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"]
_PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
_LOG_BOUNDS = slice(6, 12)
_STEP = 8192  # gaussians decoded at a time, so that what they take stays in the cache
_SH_BYTES = np.arange(256)
_SH_VALUES = np.where(_SH_BYTES == 0, -4.0, np.where(_SH_BYTES == 255, 4.0, (_SH_BYTES + 0.5) / 32 - 4)).astype("f4")
_SCALE_LOG_LIMIT = 20.0  # readers expect log-scale bounds in [-20, 20]


def sniff(path: Path, head: bytes) -> bool:
    """Whether this is a PLY with packed gaussians."""
    return classify(path, head) == NAME


def read(path: Path) -> RawSplats:
    """Decode a PlayCanvas compressed PLY, with or without colour bounds and SH."""
    header = read_header(path)
    vertex = header.require("vertex")
    types = {p.name: p.code for p in vertex.properties}
    if wrong := [name for name in _PACKED if types.get(name) != "u4"]:
        must = f"element 'vertex' must have uint properties {', '.join(_PACKED)}"
        raise FormatError(path, must, f"no such {wrong[0]}", "export the file again")
    packed = open_rows(header, vertex)
    n = len(packed)
    bounds = _chunk_bounds(header, n)
    sh, rest = _sh_rows(header, n)
    higher = len(rest) // 3
    raw = RawSplats.allocate(n, higher)

    def job(start: int, stop: int) -> None:
        for at in range(start, stop, _STEP):
            piece = slice(at, min(at + _STEP, stop))
            words = columns(packed[piece], _PACKED, np.uint32)
            _decode(words, bounds, columns(sh[piece], rest, np.uint8), _SH_VALUES, at, *raw.columns)

    in_threads(n, job)
    raw.trailing = trailing_bytes(header)
    raw.notes = [f"{raw.trailing:,} bytes after the last row were ignored"] if raw.trailing else []
    raw.clean = bool((np.abs(bounds) < 1e30).all() and (bounds[:, _LOG_BOUNDS] < 80).all())
    return raw


def write(splats: Splats, path: Path) -> None:
    """Encode as PlayCanvas compressed PLY with colour bounds, and with SH when there is any.

    Gaussians, which must be finite with non-zero quaternions, else FormatError, are put into the order of a Z-curve,
    so that chunks are small and little is lost.
    """
    raw = columns_to_write(splats, path)
    raw = raw.rows(z_order(raw.means))
    colors = np.float32(0.5) + np.float32(geometry.SH_C0) * raw.sh0[:, 0]
    logs = to_logs(raw.scales).clip(-_SCALE_LOG_LIMIT, _SCALE_LOG_LIMIT)
    parts = [_quantise(values) for values in (raw.means, logs, colors)]
    (unit_means, *mean_bounds), (unit_logs, *log_bounds), (unit_colors, *color_bounds) = parts
    chunks = np.concatenate([*mean_bounds, *log_bounds, *color_bounds], axis=1, dtype="<f4")
    rgba = np.concatenate([unit_colors, raw.opacities[:, None]], axis=1)
    others, largest = drop_largest(raw.quats.astype(np.float64))  # see `_unpack_quat`
    turns = largest.astype(np.uint32) << np.uint32(30) | _pack(others / math.sqrt(2.0) + 0.5, (10, 10, 10))
    words = [_pack(unit_means, (11, 10, 11)), turns, _pack(unit_logs, (11, 10, 11)), _pack(rgba, (8, 8, 8, 8))]
    elements = {"chunk": (len(chunks), "float", _BOUNDS + _COLOR_BOUNDS), "vertex": (len(splats), "uint", _PACKED)}
    if higher := raw.shN.shape[1]:
        elements["sh"] = (len(splats), "uchar", [f"f_rest_{i}" for i in range(3 * higher)])
    with atomic_write(path) as stream:
        stream.write(header_bytes(elements))
        stream.write(chunks.tobytes())
        stream.write(np.stack(words, axis=1).astype("<u4").tobytes())
        if raw.shN.size:
            rest = raw.shN.transpose(0, 2, 1).reshape(len(splats), -1)  # [N, 3 * (K-1)] channel-major
            stream.write(((rest / 8 + 0.5) * 256).clip(0, 255).astype(np.uint8).tobytes())


# ---- reading ---------------------------------------------------------------------------------------------------


def _chunk_bounds(header: Header, count: int) -> np.ndarray:
    """Low and high of position, log-scale and colour of each chunk ``[M, 18]`` float32; colours [0, 1] if not given."""
    chunk = header.require("chunk")
    names = set(chunk.names)
    missing = [name for name in _BOUNDS if name not in names]
    colored = names.issuperset(_COLOR_BOUNDS)
    if missing or (not colored and names.intersection(_COLOR_BOUNDS)):
        must = "element 'chunk' must have low and high of position and scale, and of all three colours or none"
        raise FormatError(header.path, must, f"properties {', '.join(chunk.names)[:200]}", "export the file again")
    if chunk.count * CHUNK < count:
        must = f"{count:,} gaussians must have {-(-count // CHUNK):,} chunks of {CHUNK}"
        raise FormatError(header.path, must, f"{chunk.count:,}", "the header is broken; export the file again")
    rows = open_rows(header, chunk)
    bounds = np.zeros((len(rows), len(_BOUNDS) + len(_COLOR_BOUNDS)), np.float32)
    bounds[:, -3:] = 1
    given = _BOUNDS + (_COLOR_BOUNDS if colored else [])
    bounds[:, : len(given)] = columns(rows, given)
    return bounds


def _sh_rows(header: Header, count: int) -> tuple[np.ndarray, list[str]]:
    """Rows of the element ``sh`` and the names of its coefficients, as in an INRIA PLY; none without the element."""
    sh = header.element("sh")
    if sh is None:
        return np.empty(count, np.dtype([])), []
    rest = [p for p in sh.properties if re.fullmatch(r"f_rest_[0-9]+", p.name)]
    numbered = {p.name for p in rest} == {f"f_rest_{i}" for i in range(len(rest))}
    if not rest or not numbered or any(p.code != "u1" for p in rest):
        must = "element 'sh' must have 9, 24 or 45 uchar properties f_rest_0 and on"
        got = f"{len(rest)}: {', '.join(sh.names)[:100]}"
        raise FormatError(header.path, must, got, "export the file again", "sh_columns")
    if sh.count != count:
        must = f"element 'sh' must have as many rows as 'vertex' ({count:,})"
        raise FormatError(header.path, must, f"{sh.count:,}", "the header is broken; export the file again")
    return open_rows(header, header.require("sh")), sh_columns(header, {p.name for p in rest})


@numba.njit(nogil=True, cache=True)
def _between(low, high, word, shift, bits):
    """The number in ``bits`` bits of ``word``, scaled to low..high."""
    most = (1 << bits) - 1
    return low + (high - low) * np.float32(((word >> shift) & most) / most)


@numba.njit(nogil=True, cache=True)
def _decode(words, bounds, rest, sh_values, first, means, quats, scales, opacities, sh0, shN):
    """Unpack words ``[n, 4]`` and SH bytes ``[n, 3 * (K-1)]`` into the columns from row ``first`` on."""
    for i in range(words.shape[0]):
        o = first + i
        b = bounds[o // 256]
        position, rotation, log_scale, color = words[i]
        for axis, shift, bits in ((0, 21, 11), (1, 11, 10), (2, 0, 11)):
            means[o, axis] = _between(b[axis], b[3 + axis], position, shift, bits)
            scales[o, axis] = math.exp(_between(b[6 + axis], b[9 + axis], log_scale, shift, bits))
            c = _between(b[12 + axis], b[15 + axis], color, 24 - 8 * axis, 8)
            sh0[o, 0, axis] = (c - np.float32(0.5)) / np.float32(geometry.SH_C0)
        opacities[o] = (color & 255) / np.float32(255)
        _unpack_quat(rotation, quats[o])
        for k in range(shN.shape[1]):
            for c in range(3):
                shN[o, k, c] = sh_values[rest[i, c * shN.shape[1] + k]]


@numba.njit(nogil=True, cache=True)
def _unpack_quat(word, quat):
    """Three components in +-1/sqrt(2), in the order wxyz without the one that the top two bits name; that one is
    positive and makes the length 1."""
    largest, shift, squares = word >> 30, 20, 0.0
    for i in range(4):
        if i != largest:
            quat[i] = (((word >> shift) & 1023) / 1023 - 0.5) * math.sqrt(2.0)
            squares += np.float64(quat[i]) ** 2
            shift -= 10
    quat[largest] = math.sqrt(max(0.0, 1.0 - squares))
    if squares > 1.0:  # no writer makes these; keep the promise of unit length
        for i in range(4):
            quat[i] /= math.sqrt(squares)


# ---- writing ---------------------------------------------------------------------------------------------------


def _quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position inside the chunk's bounds ``[N, 3]`` in [0, 1], and the low and high of each chunk ``[M, 3]``."""
    edges = np.arange(0, len(values), CHUNK)
    if len(edges) == 0:
        return values, values, values
    low, high = np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges)
    span = np.where(high > low, high - low, np.float32(1))
    wide_low, wide_span = (np.repeat(bound, CHUNK, axis=0)[: len(values)] for bound in (low, span))
    return (values - wide_low) / wide_span, low, high


def _pack(units: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    """Columns in [0, 1] as the bit fields of one word each ``[N]``, the first topmost."""
    word = np.zeros(len(units), np.uint32)
    for column, bits in zip(units.T, widths, strict=True):
        most = (1 << bits) - 1
        word = word << np.uint32(bits) | np.rint(column.astype(np.float64) * most).clip(0, most).astype(np.uint32)
    return word
