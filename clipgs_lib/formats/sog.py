"""Reading SOG (PlayCanvas, Spatially Ordered Gaussians), versions 1 and 2, as a zip or an unpacked folder.

A SOG is ``meta.json`` and lossless WebP images with one pixel per gaussian, row by row:

* ``means_l``, ``means_u``: low and high byte of 16-bit centres, linear over ``mins..maxs`` of ``sign(x) ln(|x| + 1)``;
* ``quats``: smallest three of wxyz as bytes over +-1/sqrt 2, alpha 252 to 255 names the largest;
* ``scales``, ``sh0``: bytes that index a codebook of log-scales, of SH coefficients; alpha of ``sh0`` is the opacity;
* ``shN_labels`` (16 bits in R, G) index ``shN_centroids``, 64 palette entries a row, a pixel per coefficient.

Version 1 has no version field; its scales, ``sh0`` and SH are linear over ``mins..maxs``, and its opacities are
logits. The specification says y up; the real files hold the frame of the PLY, so nothing is turned.

The files may lie in a folder of the zip. Levels of detail (streamed SOG,
https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/sog/) are a ``lod-meta.json`` beside one folder
per level and chunk, of which the finest is read: ``filenames`` lists the ``meta.json`` of each chunk; the leaves of
``tree`` (``children``) say under ``lods``, by level with 0 the finest, which rows of which file fill their box:
``{"file": index, "offset": first row, "count": rows}``.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import ZIP_ERRORS
from . import sog_images
from .packing import SH_COEFFICIENTS, concatenate, json_object, no_sh, restore_largest
from .raw import MAX_GAUSSIANS, FormatError, RawSplats, check_count, read_up_to, warn
from .sog_write import write as write

NAME = "sog"
SUFFIXES = (".sog",)

_META, LOD_META = "meta.json", "lod-meta.json"
_ROOTS = (_META, LOD_META)
_ZIP_ERRORS = (*ZIP_ERRORS, ValueError, OverflowError)
_META_LIMIT = 4 << 20
_MEMBER_LIMIT = 1000
_PER_BYTE = 64
_SLACK = 1 << 16
_FIRST_TAG = 252
_PALETTE_ROW = 64


def sniff(path: Path, head: bytes) -> bool:
    """Whether this is a folder with ``meta.json`` or ``lod-meta.json``, that file itself, or a zip that holds one."""
    if not head:
        return path.is_dir() and any((path / name).is_file() for name in _ROOTS)
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                return bool(_roots(archive.namelist()))
        except _ZIP_ERRORS:
            return b"means_l" in head or path.suffix.lower() in SUFFIXES
    if not head.lstrip().startswith(b"{"):
        return False
    return (b'"means"' in head and b'"files"' in head) or path.name == LOD_META or b'"lodLevels"' in head


def read(path: Path) -> RawSplats:
    """Read a SOG: a zip, a folder, or the ``meta.json`` or ``lod-meta.json`` of a folder.

    Names that leave the folder or zip, images that do not fit the count, and anything larger than it justifies, are
    refused.
    """
    if path.is_dir():
        return _read_from(_Source(path, path, _META if (path / _META).is_file() else LOD_META))
    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    if not zipped:
        return _read_from(_Source(path, path.parent, path.name))
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_from(_Source(path, zipfile.Path(archive), "").chunk(_checked_root(path, archive)))
    except FormatError:
        raise
    except _ZIP_ERRORS as error:
        raise FormatError(path, "the zip must be intact", str(error) or repr(error), "fetch the file again") from None


class _Source(NamedTuple):
    """The files of a SOG in one folder, on the disk or in a zip."""

    path: Path  # What was given, for messages
    folder: Path | zipfile.Path
    meta: str  # Name of its ``meta.json``

    def chunk(self, name: str) -> _Source:
        """The folder of a ``meta.json`` further down, by its path."""
        folder, _, meta = name.rpartition("/")
        return self._replace(folder=self.folder / folder if folder else self.folder, meta=meta)

    def size(self) -> int:
        """Bytes of the zip, or of all files in the folder."""
        files = [self.path] if isinstance(self.folder, zipfile.Path) else self.folder.iterdir()
        try:
            return sum(file.stat().st_size for file in files if file.is_file())
        except OSError as error:
            todo = "mend its permissions, or fetch the folder again"
            raise FormatError(self.path, "the folder must be readable", str(error), todo) from None

    def read(self, name: str, limit: int) -> bytes:
        """Bytes of a plain file in the folder; no more than ``limit``, whatever a zip claims."""
        if name in ("", ".", "..") or any(mark in name for mark in "/\\\0:"):
            must = "meta.json must name plain files beside it"
            raise FormatError(self.path, must, repr(name[:80]), "do not trust this file")
        file = self.folder / name
        if not file.is_file():
            where = "zip" if isinstance(self.folder, zipfile.Path) else "folder"
            raise FormatError(
                self.path, f"the {where} must hold the file {name!r}", f"none in {self.folder}", "fetch it again"
            )
        try:
            with file.open("rb") as stream:
                data = bytes(read_up_to(stream.read, limit + 1))
        except OSError as error:
            must = f"the file {name!r} must be readable"
            raise FormatError(self.path, must, str(error), "mend its permissions") from None
        if len(data) > limit:
            raise FormatError(self.path, f"{name} must not exceed {limit:,} bytes", "more", "refused as a bomb")
        return data


def _checked_root(path: Path, archive: zipfile.ZipFile) -> str:
    """The ``meta.json`` of a zip with sound members."""
    members = archive.infolist()
    if len(members) > _MEMBER_LIMIT:
        raise FormatError(path, f"a SOG zip must hold at most {_MEMBER_LIMIT} members", f"{len(members):,}")
    names: set[str] = set()
    for member in members:
        name = member.filename
        if name in names:
            raise FormatError(path, "zip members must have different names", f"{name!r} twice")
        if name.startswith("/") or "\\" in name or ".." in name.split("/") or name[1:2] == ":":
            raise FormatError(path, "zip members must stay inside the zip", repr(name), "do not trust this file")
        if (member.external_attr >> 16) & 0o170000 == 0o120000:
            raise FormatError(path, "zip members must be plain files", f"a symbolic link {name!r}")
        if member.flag_bits & 1:
            raise FormatError(path, "zip members must not be encrypted", repr(name), "unpack it first")
        names.add(name)
    roots = _roots(list(names)) or [_META]
    if len(roots) > 1:
        must, todo = f"the zip must hold one SOG, or a {LOD_META}", "unpack it, and read one folder"
        raise FormatError(path, must, ", ".join(roots)[:200], todo)
    return roots[0]


def _roots(names: list[str]) -> list[str]:
    """The ``meta.json`` or ``lod-meta.json`` of a zip in the folder nearest to its root; in a subfolder, only
    beside images or other folders' ones. Several when it holds several SOGs."""
    images = any(name.lower().endswith((".webp", ".sog")) for name in names)
    roots = [name for name in sorted(names) if name.rpartition("/")[2] in _ROOTS and not name.startswith("__MACOSX/")]
    roots = [name for name in roots if "/" not in name or images]
    nearest = min((name.count("/") for name in roots), default=0)
    return list({name.rpartition("/")[0]: name for name in roots if name.count("/") == nearest}.values())


def _finest(path: Path, meta: dict[str, Any]) -> dict[str, list[tuple[int, int]]]:
    """First row and number of rows of the finest level of every leaf, by file name; files elsewhere are refused."""
    names = meta.get("filenames")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise FormatError(path, f"{LOD_META} must list file names in filenames", repr(names)[:80])
    for name in names:
        parts = name.split("/")
        if any(mark in name for mark in "\\\0:") or any(part in ("", ".", "..") for part in parts):
            must = f"{LOD_META} must name files below its folder"
            raise FormatError(path, must, repr(name[:80]), "do not trust this file")
    chosen: dict[str, list[tuple[int, int]]] = {}
    nodes = [meta.get("tree")]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, dict):
            raise FormatError(path, f"{LOD_META} must hold a tree of JSON objects", repr(node)[:80])
        children, lods = node.get("children") or [], node.get("lods") or {}
        if not isinstance(children, list) or not isinstance(lods, dict):
            raise FormatError(path, f"a node of {LOD_META} must hold children or lods", repr(node)[:80])
        nodes += reversed(children)
        levels = [level for level in lods if level.isdecimal()]
        if levels:
            lod = lods[min(levels, key=int)]
            values: list[Any] = (
                [lod.get(key) for key in ("file", "offset", "count")] if isinstance(lod, dict) else [None]
            )
            if any(type(value) is not int or value < 0 for value in values):
                raise FormatError(path, "a level must have a file, an offset and a count >= 0", repr(lod)[:80])
            index, first, count = values
            if index >= len(names):
                raise FormatError(path, f"a level must point to one of {len(names):,} files", f"file {index}")
            chosen.setdefault(names[index], []).append((first, count))
    if not chosen:
        must = f"the tree of {LOD_META} must say which rows the levels hold"
        raise FormatError(path, must, "none", f"read one level by itself: {names[0].rpartition('/')[0] or names[0]}")
    return chosen


def _read_levels(source: _Source, meta: dict[str, Any]) -> RawSplats:
    """The finest level of detail, chunk by chunk."""
    parts = []
    for name, ranges in _finest(source.path, meta).items():
        part = _read_from(source.chunk(name), whole=False)
        count, kept = len(part.means), np.zeros(len(part.means), bool)
        for first, rows in ranges:
            if first + rows > count:
                must = f"rows of {name} must lie in 0..{count:,}"
                raise FormatError(source.path, must, f"{first:,} to {first + rows:,}")
            kept[first : first + rows] = True
        parts.append(part.rows(kept))
    raw = concatenate(parts)
    raw.notes = list(dict.fromkeys(raw.notes))
    raw.notes.append(f"the finest level of detail, from {len(parts):,} file(s); coarser ones were left out")
    if meta.get("environment"):
        raw.notes.append(f"the environment was left out: {meta['environment']!r}"[:200])
    return raw


def _read_from(source: _Source, whole: bool = True) -> RawSplats:
    path = source.path
    meta = json_object(path, source.read(source.meta, _META_LIMIT), source.meta)
    if whole and "filenames" in meta and "means" not in meta:
        return _read_levels(source, meta)
    version = meta.get("version", 1)
    if version not in (1, 2):
        must = "the SOG version must be 1 or 2"
        raise FormatError(path, must, repr(version)[:80], "convert it with a newer tool", "unknown_version")
    count = _count(path, meta, version)
    check_count(path, count, source.size() * _PER_BYTE + _SLACK, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        raw = _decode(source, meta, version, count)
    raw.notes.append(f"SOG version {version}")
    raw.antialiased = meta.get("antialias") is True
    if raw.antialiased:
        raw.notes.append("trained with antialiasing (Mip-Splatting)")
    return raw


def _count(path: Path, meta: dict[str, Any], version: int) -> int:
    if version == 2:
        count = meta.get("count")
    else:
        shape = _entry(path, meta, "means").get("shape")
        count = shape[0] if isinstance(shape, list) and shape else None
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_GAUSSIANS:
        where = "count" if version == 2 else "means.shape[0]"
        raise FormatError(path, f"meta.json must hold a whole number >= 0 in {where}", repr(count)[:80])
    return count


def _entry(path: Path, meta: dict[str, Any], name: str) -> dict[str, Any]:
    entry = meta.get(name)
    if not isinstance(entry, dict):
        raise FormatError(path, f"meta.json must hold an object {name!r}", repr(entry)[:80], "is this another JSON?")
    return entry


def _files(path: Path, entry: dict[str, Any], name: str, number: int) -> list[str]:
    files = entry.get("files")
    if not isinstance(files, list) or len(files) != number or not all(isinstance(file, str) for file in files):
        raise FormatError(path, f"meta.json must name {number} file(s) in {name}.files", repr(files)[:80])
    return files


def _numbers(path: Path, entry: dict[str, Any], where: str, key: str, number: int) -> np.ndarray:
    """``[number]`` float64: a list of finite numbers; for ``number`` 1 a bare number will do."""
    values = entry.get(key)
    values = [values] if number == 1 and not isinstance(values, list) else values
    if not isinstance(values, list) or len(values) != number or not all(_is_finite(value) for value in values):
        raise FormatError(path, f"meta.json must hold {number} finite number(s) in {where}.{key}", repr(values)[:80])
    return np.array(values, np.float64)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e30 < value < 1e30


def _codebook(path: Path, entry: dict[str, Any], where: str) -> np.ndarray:
    """``[256]`` float64; an early writer left the first value null, which continues the spacing of the others."""
    values = entry.get("codebook")
    if isinstance(values, list) and len(values) == 256 and values[0] is None and all(map(_is_finite, values[1:])):
        warn(path, f"the first value of the codebook {where} is null; guessed")
        entry = {"codebook": [values[1] + (values[1] - values[255]) / 255, *values[1:]]}
    return _numbers(path, entry, where, "codebook", 256)


def _decode(source: _Source, meta: dict[str, Any], version: int, count: int) -> RawSplats:
    path = source.path
    entries = {name: _entry(path, meta, name) for name in ("means", "quats", "scales", "sh0")}

    def pixels(name: str, number: int = 1) -> list[np.ndarray]:
        files = _files(path, entries[name], name, number)
        return [sog_images.pixels(path, file, source.read, count) for file in files]

    low, high = pixels("means", 2)
    ranges = [_numbers(path, entries["means"], "means", key, 3) for key in ("mins", "maxs")]
    scales, sh0 = pixels("scales")[0], pixels("sh0")[0]
    raw = RawSplats(
        means=_means(low, high, ranges[0], ranges[1]),
        quats=_quats(pixels("quats")[0]),
        scales=np.exp(_levels(path, entries["scales"], "scales", version, scales, 3)),
        opacities=np.zeros(count, np.float32),
        sh0=np.zeros((count, 1, 3), np.float32),
        shN=no_sh(count),
    )
    colors = _levels(path, entries["sh0"], "sh0", version, sh0, 3 if version == 2 else 4)
    raw.sh0[:, 0] = colors[:, :3]
    raw.opacities = sh0[:, 3].astype(np.float32) / 255 if version == 2 else 1 / (1 + np.exp(-colors[:, 3]))
    if meta.get("shN") is not None:
        raw.shN = _higher_sh(source, _entry(path, meta, "shN"), version, count)
    return raw


def _means(low: np.ndarray, high: np.ndarray, mins: np.ndarray, maxs: np.ndarray) -> np.ndarray:
    span = np.where(maxs == mins, 1.0, maxs - mins)
    fixed = low[:, :3].astype(np.float32) + high[:, :3].astype(np.float32) * 256  # [N, 3]
    logs = fixed * (span / 65535).astype(np.float32) + mins.astype(np.float32)
    return np.copysign(np.expm1(np.abs(logs)), logs)


def _quats(stored: np.ndarray) -> np.ndarray:
    """``[N, 4]`` wxyz; zero where the tag is broken, so that `to_splats` drops it."""
    smallest = (stored[:, :3].astype(np.float32) * (2 / 255) - 1) * np.float32(0.5**0.5)
    largest = stored[:, 3].astype(np.intp) - _FIRST_TAG
    quats = restore_largest(smallest, np.maximum(largest, 0))
    quats[largest < 0] = 0
    return quats


def _levels(
    path: Path, entry: dict[str, Any], where: str, version: int, stored: np.ndarray, channels: int
) -> np.ndarray:
    """``[N, channels]`` float32: through a codebook (version 2), or linear over a range per channel."""
    if version == 2:
        return np.take(_codebook(path, entry, where).astype(np.float32), stored[:, :channels])
    mins, maxs = (_numbers(path, entry, where, key, channels) for key in ("mins", "maxs"))
    step = ((maxs - mins) / 255).astype(np.float32)
    return stored[:, :channels].astype(np.float32) * step + mins.astype(np.float32)


def _higher_sh(source: _Source, entry: dict[str, Any], version: int, count: int) -> np.ndarray:
    """``[N, K-1, 3]``: one palette entry per gaussian."""
    path = source.path
    centroids_file, labels_file = _files(path, entry, "shN", 2)
    image = sog_images.palette(path, centroids_file, source.read)
    coefficients, size = _palette_layout(path, entry, version, image)
    if version == 2:
        table = _codebook(path, entry, "shN").astype(np.float32)
    else:
        low, high = (float(_numbers(path, entry, "shN", key, 1)[0]) for key in ("mins", "maxs"))
        table = np.linspace(low, high, 256).astype(np.float32)
    entries = image[..., :3].reshape(-1, coefficients, 3)[:size]  # [P, K-1, 3]
    palette = np.take(table, entries)
    stored = sog_images.pixels(path, labels_file, source.read, count)
    labels = stored[:, 0].astype(np.intp) | stored[:, 1].astype(np.intp) << 8  # [N]
    if count and int(labels.max()) >= size:
        must = f"SH labels must point into the palette of {size:,}"
        raise FormatError(path, must, f"label {int(labels.max()):,}", "it is broken")
    return palette[labels]


def _palette_layout(path: Path, entry: dict[str, Any], version: int, image: np.ndarray) -> tuple[int, int]:
    """Coefficients per entry and number of entries, checked against the palette image ``[h, w, 4]``."""
    height, width = image.shape[:2]
    if version == 2:
        degree, size = entry.get("bands"), entry.get("count")
        if degree not in (1, 2, 3) or not isinstance(size, int) or not 1 <= size <= 1 << 16:
            got = f"{degree!r} and {size!r}"[:80]
            raise FormatError(path, "shN.bands must be 1, 2 or 3 and shN.count lie in 1..65536", got)
        coefficients = SH_COEFFICIENTS[degree]
    else:
        coefficients = width // _PALETTE_ROW
        size = min(_PALETTE_ROW * height, 1 << 16)
    if coefficients not in SH_COEFFICIENTS[1:] or width != _PALETTE_ROW * coefficients:
        expected = f"{_PALETTE_ROW * coefficients}" if version == 2 else "192, 512 or 960"
        raise FormatError(path, f"the SH palette image must be {expected} pixels wide", f"{width}")
    if math.ceil(size / _PALETTE_ROW) > height:
        must = f"the SH palette image must hold {size:,} entries, 64 a row"
        raise FormatError(path, must, f"{height} rows", "it is truncated", "truncated")
    return coefficients, size
