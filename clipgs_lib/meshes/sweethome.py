"""Furniture of Sweet Home 3D (``.sh3f``): a zip with ``PluginFurnitureCatalog.properties`` and OBJ models.

The catalogue is a file of Java properties (``java.util.Properties``): ``name#7``, ``model#7``, ``width#7``, ... say
what piece 7 is. Files for other languages lie beside it. Sizes are centimetres. Debian and Ubuntu ship 820 pieces in
five catalogues: ``apt-get install sweethome3d-furniture``.
"""

import functools
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..files import ZIP_ERRORS
from .checks import MeshError, MeshWarning
from .importing import MeshImport, read_mesh_notes
from .mesh import Mesh

SUFFIX = ".sh3f"
CATALOGUE = "PluginFurnitureCatalog"
MAX_CATALOGUE_BYTES = 32 << 20
MAX_PIECE_BYTES = 512 << 20  # of a model with its textures, unpacked
MAX_CENTIMETRES = 1e5
_BESIDE = (".mtl", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tga", ".tif", ".tiff", ".webp", ".bin")


@dataclass(frozen=True)
class Furniture:
    """One piece of a catalogue, as its maker describes it. Lengths are centimetres; 0 where they make no sense."""

    number: int  # in the catalogue
    name: str
    model: str  # file in the zip
    category: str  # "Bedroom", "Lights", ...
    tags: tuple[str, ...]  # further words that people search by
    size: tuple[float, float, float]  # width (x), height (y), depth (z)
    rotation: tuple[float, ...]  # 9 numbers, row by row; turns the model so that it stands, facing +z
    elevation: float  # of its lower side above the floor: lamps and cupboards hang
    drop_on_top: float | None  # height, from its lower side, of the place for things to stand on; None: nothing can
    door_or_window: bool
    creator: str
    licence: str
    catalogue: str  # name of the catalogue


def list_furniture(path: str | os.PathLike[str]) -> list[Furniture]:
    """The pieces of a catalogue (``.sh3f``), in its order and first language; MeshError when it is none or empty."""
    with _opened(path) as archive:
        values = _properties(archive, f"{CATALOGUE}.properties")
    numbers = sorted({int(match[1]) for key in values if (match := re.fullmatch(r"model#(\d{1,7})", key))})
    if not numbers:
        raise MeshError(path, "the catalogue must name models (model#1=...)", "none", "fetch the file again")
    return [_piece(values, number) for number in numbers]


def read_furniture(path: str | os.PathLike[str], number: int) -> tuple[Furniture, MeshImport]:
    """Read a piece: what the catalogue says of it, and its mesh in centimetres, y up, with notes on what was left out.

    It is turned as its catalogue says and scaled to its true size.

    Raises:
        MeshError: when the zip or the piece cannot be read, or must not be: names that leave the zip or occur twice,
            links, encrypted files, more than `MAX_PIECE_BYTES`.
    """
    path = Path(path)
    version = (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else ()
    piece = next((p for p in _listed(path, version) if p.number == number), None)
    if piece is None:
        raise MeshError(path, f"the catalogue must have a piece {number}", "none", "list_furniture lists them")
    place = f"{path}/{piece.model}"
    if not all(0 < length < MAX_CENTIMETRES for length in piece.size) or not _turns(piece.rotation):
        got = f"{piece.size} and {piece.rotation}"
        raise MeshError(place, "width, height and depth must be positive, modelRotation a rotation", got)
    with _opened(path) as archive, TemporaryDirectory(prefix="clipgs-") as folder:
        try:
            file = _unpacked(archive, piece.model, Path(folder))
            mesh, notes = read_mesh_notes(file, up_axis="+y", root=folder)
        except MeshError as error:
            raise MeshError(place, error.must, error.got, error.todo) from None
    return piece, MeshImport(replace(_sized(mesh, piece), source=f"{path.name}/{piece.model}"), notes)


@functools.lru_cache(maxsize=16)
def _listed(path: Path, _version: tuple[int, ...]) -> tuple[Furniture, ...]:
    return tuple(list_furniture(path))


def _piece(values: dict[str, str], number: int) -> Furniture:
    """Piece ``number`` of a catalogue's properties; numbers that are none become NaN, which reading refuses."""

    def text(key: str) -> str:
        return " ".join(values.get(f"{key}#{number}", "").split())

    def length(key: str, default: float = math.nan) -> float:
        try:
            return float(text(key) or default)
        except ValueError:
            return math.nan

    model = text("model").lstrip("/")
    size = length("width"), length("height"), length("depth")
    drop = length("dropOnTopElevation", size[1])
    try:
        rotation = tuple(float(value) for value in (text("modelRotation") or "1 0 0 0 1 0 0 0 1").split())
    except ValueError:
        rotation = ()
    return Furniture(
        number=number,
        name=text("name") or Path(model).stem,
        model=model,
        category=text("category"),
        tags=tuple(tag.strip() for tag in text("tags").split(",") if tag.strip()),
        size=size,
        rotation=rotation,
        elevation=elevation if math.isfinite(elevation := length("elevation", 0.0)) else 0.0,
        drop_on_top=drop if drop >= 0 else None,
        door_or_window=text("doorOrWindow").lower() == "true",
        creator=text("creator"),
        licence=text("license") or " ".join(values.get("license", "").split()),
        catalogue=values.get("name", ""),
    )


def _turns(rotation: tuple[float, ...]) -> bool:
    """Whether nine numbers are a rotation, to the digits that people write."""
    if len(rotation) != 9 or not np.isfinite(rotation).all():
        return False
    matrix = np.reshape(rotation, (3, 3))
    return bool(np.abs(matrix @ matrix.T - np.eye(3)).max() < 0.02 and np.linalg.det(matrix) > 0)


def _sized(mesh: Mesh, piece: Furniture) -> Mesh:
    """The mesh turned, and each axis scaled to its centimetres; an axis without extent stays flat."""
    matrix = np.reshape(piece.rotation, (3, 3)).astype(np.float32)
    turned = replace(mesh, parts=tuple(replace(p, vertices=p.vertices @ matrix.T) for p in mesh.parts))
    low, high = turned.bounds()
    extent = (high - low).astype(np.float64)
    scale = np.where(extent > 1e-6 * extent.max(), np.asarray(piece.size) / np.maximum(extent, 1e-30), 1.0)
    scale = scale.astype(np.float32)
    return replace(turned, parts=tuple(replace(p, vertices=p.vertices * scale) for p in turned.parts))


# ---- the zip -----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The zip; whatever it stumbles over is a `MeshError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of zipfile; names that occur twice are looked for here
            warnings.simplefilter("always", MeshWarning)
            with zipfile.ZipFile(path) as archive:
                yield archive
    except FileNotFoundError:
        raise MeshError(path, "the path must name an existing file", "nothing there", "check the path") from None
    except ZIP_ERRORS as error:
        got = f"{type(error).__name__}: {str(error)[:160]}"
        raise MeshError(path, "the .sh3f must be an intact zip", got, "fetch the file again") from None


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Bytes of a plain file in the zip that occurs once; no more than ``limit``, whatever the zip claims."""
    alike = [info for info in archive.infolist() if info.filename == name]
    must = f"the zip must hold {name[:120]!r}, once, as a plain file of at most {limit:,} bytes"
    faults = {
        "no such file": not alike,
        f"{len(alike)} of that name": len(alike) > 1,
        "a path that leaves the zip": ".." in name.split("/") or name.startswith("/") or "\\" in name or ":" in name,
        "a link": any((info.external_attr >> 16) & 0o170000 == 0o120000 for info in alike),
        "an encrypted file": any(info.flag_bits & 1 for info in alike),
        "more bytes": any(info.file_size > limit for info in alike),
    }
    for fault in (fault for fault, there in faults.items() if there):
        raise MeshError(str(archive.filename), must, fault, "do not trust this file" if alike else "fetch it again")
    with archive.open(alike[0]) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise MeshError(str(archive.filename), must, "more bytes than it claims", "do not trust this file")
    return data


def _unpacked(archive: zipfile.ZipFile, model: str, folder: Path) -> Path:
    """Write a model and what lies in its folder of the zip below ``folder``, and return the model's path."""
    top = model.rpartition("/")[0]
    names = [model]
    for name in dict.fromkeys(info.filename for info in archive.infolist()):
        inside = name.startswith(f"{top}/") if top else "/" not in name
        if inside and name != model and name.lower().endswith(_BESIDE):
            names.append(name)
    left = MAX_PIECE_BYTES
    for name in names:
        data = _member(archive, name, left)
        left -= len(data)
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder / model


def _properties(archive: zipfile.ZipFile, name: str) -> dict[str, str]:
    """Java properties: ISO-8859-1 with ``\\uXXXX``; of a key given twice the last counts."""
    text = _member(archive, name, MAX_CATALOGUE_BYTES).decode("latin-1")
    text = re.sub(r"^[ \t\f]*[#!].*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\(?:\r\n|\r|\n)[ \t\f]*", r"\1", text)  # a backslash joins lines
    pairs = {}
    for line in text.splitlines():
        if match := re.match(r"\s*((?:\\.|[^\\\s:=])+)[ \t\f]*[:=]?[ \t\f]*(.*)", line):
            pairs[_unescaped(match[1])] = _unescaped(match[2])
    return pairs


def _unescaped(text: str) -> str:
    letters = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
    halves = re.sub(
        r"\\(?:u([0-9a-fA-F]{4})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else letters.get(m[2], m[2]), text
    )
    return halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
