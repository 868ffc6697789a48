"""INRIA PLY: the format of the original 3D Gaussian Splatting code, and of most splats in the wild.

Page: https://github.com/graphdeco-inria/gaussian-splatting (``GaussianModel.save_ply``). One element ``vertex`` with
float properties ``x y z``, optional ``nx ny nz``, ``f_dc_0..2``, ``f_rest_*`` (0, 9, 24 or 45; all red coefficients,
then green, then blue), ``opacity`` (logit), ``scale_0..2`` (log), ``rot_0..3`` (wxyz, any length).

Kin that are read as well: colours as ``red green blue`` in place of ``f_dc`` (nerfstudio, SH 0), SH above degree 3 (cut
to it), two scales (2DGS, surfels: a thin third one is made up), and ``filter_3D`` (Mip-Splatting's smoothing filter
of eq. 9, https://arxiv.org/abs/2311.16493: fused into scales and opacities).

Frame: whatever the training had, usually COLMAP's; the file does not say, so ``up_axis`` stays "unknown".

Round trip: means, quaternion directions and SH come back exactly, scales and opacities to float32 precision of
exp/log and of the sigmoid. An opacity of 1 comes back as 1, one of 0 as 2e-9 (logits are kept within +-20, so that
every value in the file is finite); a scale of 0 comes back as 1.2e-38.
"""

import itertools
import math
import re
import sys
from pathlib import Path

import numba
import numpy as np
from scipy.special import logit

from ..geometry import MAX_SH_DEGREE, SH_C0
from ..splats import Splats
from .packing import SH_COEFFICIENTS, sh_degree_of, warn_dropped_sh
from .ply_table import Element, Header, classify, columns, in_threads, locate, open_rows, read_header, trailing_bytes
from .points import color_names, read_colors
from .raw import FormatError, RawSplats, atomic_write, warn

NAME = "ply"
SUFFIXES = (".ply",)

_CHUNK_BYTES = 1 << 20  # stays in the second-level cache
_MAX_LOGIT = 20.0
_MEANS = ["x", "y", "z"]
_SH0 = ["f_dc_0", "f_dc_1", "f_dc_2"]
_SCALES = ["scale_0", "scale_1", "scale_2"]
_QUATS = ["rot_0", "rot_1", "rot_2", "rot_3"]
_FILTER = "filter_3D"
_THIN_AXIS = 0.005


def sniff(path: Path, head: bytes) -> bool:
    """Whether this is a PLY of gaussians that is not PlayCanvas-compressed."""
    return classify(path, head) == NAME


def read(path: Path) -> RawSplats:
    """Decode an INRIA PLY: any property order and scalar type, extra properties and elements, ASCII or binary.

    The third scale of a 2DGS file is 0.005 of the smaller of its two, with a `SplatWarning`. A broken file, or one
    that holds something else, is a FormatError.
    """
    return decode(read_header(path))


def decode(header: Header) -> RawSplats:
    """The gaussians of an INRIA PLY with that header, see `read`."""
    vertex = header.require("vertex")
    groups = _column_groups(header, vertex)
    rows = open_rows(header, vertex)
    raw = RawSplats.allocate(len(rows), len(groups[2]) // 3)
    raw.clean = _decode_rows(header, vertex, rows, groups, raw)
    raw.trailing = trailing_bytes(header)
    known = {"nx", "ny", "nz", _FILTER, *itertools.chain(*groups)}
    raw.ignore(n for n in vertex.names if n not in known and not n.startswith("f_rest_"))
    raw.notes += _notes(header, vertex, groups, raw.trailing)
    colors = read_colors(header, vertex, rows) if groups[1] != _SH0 else None
    if colors is not None:
        raw.sh0[:, 0] = (colors - np.float32(0.5)) / np.float32(SH_C0)
    surfels = groups[4][2] != _SCALES[2]
    if _FILTER in vertex.names:
        _fuse_filter(raw, 2 if surfels else 3, columns(rows, [_FILTER]))
    if surfels:
        warn(header.path, f"two scales (2DGS surfels); the third was made up, {_THIN_AXIS:g} of the smaller one")
        raw.scales[:, 2] = np.float32(_THIN_AXIS) * raw.scales[:, :2].min(axis=1)
    return raw


def write(splats: Splats, path: Path) -> None:
    """Encode as little-endian float32 PLY with the properties, and their order, of the INRIA code; normals are zero."""
    higher = splats.shN.shape[1]
    rest = [f"f_rest_{i}" for i in range(3 * higher)]
    names = [*_MEANS, "nx", "ny", "nz", *_SH0, *rest, "opacity", *_SCALES, *_QUATS]
    header = header_bytes({"vertex": (len(splats), "float", names)})
    step = max(1, _CHUNK_BYTES // (4 * len(names)))
    with atomic_write(path) as stream:
        stream.write(header)
        for start in range(0, len(splats), step):
            stream.write(_encode(splats[start : start + step]).tobytes())


def header_bytes(elements: dict[str, tuple[int, str, list[str]]]) -> bytes:
    """The header of a little-endian PLY: by name of each element its count, the type of its properties, their names."""
    lines = ["ply", "format binary_little_endian 1.0"]
    for name, (count, kind, properties) in elements.items():
        lines += [f"element {name} {count}", *(f"property {kind} {one}" for one in properties)]
    return "\n".join([*lines, "end_header", ""]).encode()


def to_logits(opacities: np.ndarray) -> np.ndarray:
    """Logits of opacities in [0, 1], float32, kept within +-20 so that they are finite."""
    return logit(opacities.astype(np.float64)).clip(-_MAX_LOGIT, _MAX_LOGIT).astype(np.float32)


def to_logs(scales: np.ndarray) -> np.ndarray:
    """Logarithms of linear scales, float32, finite where the scale is 0."""
    return np.log(np.maximum(scales, np.finfo(np.float32).tiny))


def _encode(part: Splats) -> np.ndarray:
    """Rows ``[n, C]`` in the order of the INRIA code."""
    n = len(part)
    columns = [
        part.means.numpy(),
        np.zeros((n, 3), np.float32),
        part.sh0.reshape(n, 3).numpy(),
        part.shN.transpose(1, 2).flatten(1).numpy(),  # [n, 3 * (K-1)] channel-major
        to_logits(part.opacities.numpy())[:, None],
        to_logs(part.scales.numpy()),
        part.quats.numpy(),
    ]
    return np.concatenate(columns, axis=1, dtype="<f4")


# ---- which columns ---------------------------------------------------------------------------------------------


def _column_groups(header: Header, vertex: Element) -> list[list[str]]:
    """Names of the properties to read: means, sh0, shN, opacity, scales, quats."""
    # Of a 2DGS file the second scale stands in for the third. Without ``f_dc``, sh0 are the colours, still as stored.
    names = set(vertex.names)
    flat = {"scale_0", "scale_1"} <= names and "scale_2" not in names
    scales = ["scale_0", "scale_1", "scale_1"] if flat else _SCALES
    sh0 = _SH0 if names & set(_SH0) else color_names(vertex) or _SH0
    missing = [n for n in (*_MEANS, *sh0, "opacity", *scales, *_QUATS) if n not in names]
    if missing:
        raise _missing(header, names, missing)
    return [_MEANS, sh0, sh_columns(header, names), ["opacity"], scales, _QUATS]


def sh_columns(header: Header, names: set[str]) -> list[str]:
    """Names of the higher SH coefficients up to degree 3, channel by channel; what lies above is warned about, and
    names that are not those of a whole degree, numbered from 0, are a FormatError.
    """
    count = sum(re.fullmatch(r"f_rest_[0-9]+", n) is not None for n in names)
    rest = [f"f_rest_{i}" for i in range(count)]
    each = count // 3  # coefficients per channel
    degree = sh_degree_of(each + 1) if count == 3 * each else None
    if degree is None or not names.issuperset(rest):
        must = "f_rest must have 0, 9, 24 or 45 properties (SH degree 0 to 3) or 72 and on, numbered from 0"
        got = f"{count}" if names.issuperset(rest) else f"{count} with {sorted(set(rest) - names)[0]} missing"
        raise FormatError(header.path, must, got, "export it again with an SH degree of 0 to 3", "sh_columns")
    if degree <= MAX_SH_DEGREE:
        return rest
    warn_dropped_sh(header.path, degree)
    return [rest[each * channel + k] for channel in range(3) for k in range(SH_COEFFICIENTS[-1])]


def _missing(header: Header, names: set[str], missing: list[str]) -> FormatError:
    path = header.path
    if "packed_position" in names:
        return FormatError(path, "an INRIA PLY must be uncompressed", "a PlayCanvas compressed PLY", "drop format=")
    if not names & {"scale_0", "rot_0", "f_dc_0"}:
        got = "a PLY without scales, rotations and SH: a point cloud or mesh"
        return FormatError(path, "the file must hold gaussians", got, "read it with read_points")
    must = "element 'vertex' must have the properties of a gaussian"
    todo = "export it again from the tool that made it"
    return FormatError(path, must, f"none called {', '.join(missing)}", todo, "missing_columns")


def _notes(header: Header, vertex: Element, groups: list[list[str]], trailing: int) -> list[str]:
    notes = []
    others = [e.name for e in header.elements if e is not vertex and e.count > 0]
    if others:
        notes.append(f"other elements were ignored: {', '.join(others)[:500]}")
    if _FILTER in vertex.names:
        notes.append(f"{_FILTER} (Mip-Splatting's filter) was fused into scales and opacities")
    if groups[1] != _SH0:
        notes.append(f"colours were taken from {', '.join(groups[1])}, as there are no f_dc")
    if trailing:
        notes.append(f"{trailing:,} bytes after the last row were ignored")
    if groups[4][2] != _SCALES[2]:
        notes.append("a 2DGS file; the third axis was made up")
    return notes


def _starts(header: Header, vertex: Element, groups: list[list[str]]) -> tuple[int, ...] | None:
    """Index of the first column of each group; None unless each is a run in order of this machine's float32."""
    native = "<" if sys.byteorder == "little" else ">"
    names = vertex.names
    starts = [names.index(group[0]) if group else 0 for group in groups]
    runs = all(names[s : s + len(g)] == g for s, g in zip(starts, groups, strict=True))
    plain = header.byte_order == native and all(p.code == "f4" for p in vertex.properties)
    return tuple(starts) if runs and plain else None


def _fuse_filter(raw: RawSplats, axes: int, filters: np.ndarray) -> None:
    """Widen the scales by the standard deviations ``[N, 1]`` of a filter, and thin the opacities as volumes grow."""
    scales = raw.scales[:, :axes].astype(np.float64)
    wide = np.sqrt(scales**2 + filters.astype(np.float64) ** 2)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        raw.opacities *= np.where(wide > 0, scales / wide, 1.0).prod(axis=1).astype(np.float32)
        raw.scales[:, :axes] = wide
    raw.clean = raw.clean and bool(np.isfinite(raw.scales).all() and np.isfinite(filters).all())


# ---- decoding --------------------------------------------------------------------------------------------------


def _decode_rows(header: Header, vertex: Element, rows: np.ndarray, groups: list[list[str]], raw: RawSplats) -> bool:
    """Decode in pieces that stay in the cache, as they lie in the file or converted; whether all is clean."""
    names, starts = list(itertools.chain(*groups)), _starts(header, vertex, groups)
    width = len(names) if starts is None else len(vertex.properties)
    places = starts or tuple(itertools.accumulate((len(group) for group in groups[:-1]), initial=0))
    step = max(1, _CHUNK_BYTES // (4 * width))
    offset = 0 if starts is None else locate(header, vertex)

    def job(start: int, stop: int) -> bool:
        clean, buffer = True, np.empty((step, width), np.float32)
        with header.path.open("rb") as stream:
            for at in range(start, stop, step):
                piece = buffer[: stop - at]
                if starts is None:
                    piece = columns(rows[at : at + len(piece)], names)
                else:
                    stream.seek(offset + 4 * width * at)
                    if stream.readinto(piece.data) < piece.nbytes:
                        must, todo = "the file must keep its size", "another program changed it; retry"
                        raise FormatError(header.path, must, "an early end", todo)
                clean &= bool(_decode(piece, at, places, *raw.columns))
        return clean

    return all(in_threads(len(rows), job))


@numba.njit(nogil=True, cache=True)
def _decode(rows, first, starts, means, quats, scales, opacities, sh0, shN):
    """Spread rows ``[n, C]`` over the columns from row ``first`` on; activate scales and opacities, normalise quats."""
    # Returns whether all is finite and no quaternion is zero. A quaternion too short to normalise is left as it is.
    at_means, at_sh0, at_shN, at_opacity, at_scales, at_quats = starts
    bits = rows.view(np.int32).reshape(-1)
    largest = np.int32(0)
    for i in range(bits.size):  # exponent all ones: infinite or NaN
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    clean = largest < 0x7F800000
    for i in range(rows.shape[0]):
        for c in range(3):
            means[first + i, c] = rows[i, at_means + c]
            sh0[first + i, 0, c] = rows[i, at_sh0 + c]
        for k in range(shN.shape[1]):
            for c in range(3):
                shN[first + i, k, c] = rows[i, at_shN + c * shN.shape[1] + k]
    for i in range(rows.shape[0]):
        for c in range(3):
            scale = math.exp(rows[i, at_scales + c])
            scales[first + i, c] = scale
            clean &= scale < np.float32(np.inf)
        opacities[first + i] = np.float32(1) / (np.float32(1) + math.exp(-rows[i, at_opacity]))
        length = 0.0
        for c in range(4):
            length += np.float64(rows[i, at_quats + c]) ** 2
        length = math.sqrt(length)
        clean &= length > 1e-12
        scaling = 1.0 / length if length > 1e-12 else 1.0
        for c in range(4):
            quats[first + i, c] = rows[i, at_quats + c] * scaling
    return clean
