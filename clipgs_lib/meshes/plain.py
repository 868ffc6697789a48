"""Meshes of Wavefront OBJ + MTL, PLY, STL and OFF, through trimesh's parsers.

trimesh parses numbers only: material files and textures are found and decoded here, within bounds. Colours of these
formats are taken as displayed (sRGB), as their writers mean them. A texture replaces the diffuse colour of its MTL.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..files import text_of
from .checks import MAX_FACES_READ, Lost, MeshError, Textures, neighbour, sound_part
from .mesh import Part

_GREY = (0.8, 0.8, 0.8, 1.0)
_MAP_OPTION = re.compile(r"^-\w+\s+((on|off)\b|[-+.\deE]+(\s+[-+.\deE]+){0,2}|[rgbml]\b)\s+")


def read_obj(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """One part per material.

    Raises:
        MeshError: when trimesh cannot parse it, or there are no triangles.
    """
    from trimesh.exchange.obj import load_obj

    shelf = _Materials(path, notes, root)
    data = shelf.renamed(path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\t", b" "))
    if re.search(rb"^f[^\n]*[ /]-\d", data, re.MULTILINE):
        data = _counted_from_the_start(data)
    loaded = _parsed(path, lambda: load_obj(io.BytesIO(data), resolver=cast(Any, shelf)))
    parts = []
    for geometry in loaded.get("geometry", {}).values():
        visual = geometry.get("visual")
        uvs = None if visual is None else visual.uv
        parts.append(_part(path, geometry, notes, uvs, shelf.look(getattr(visual, "material", None), uvs)))
    return [part for part in parts if part is not None]


def read_ply(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """Parts with vertex or face colours, or the textures that comments name (``TextureFile``), by ``texnumber``.

    Raises:
        MeshError: when trimesh cannot parse it.
    """
    from trimesh.exchange.ply import load_ply

    loaded = _parsed(path, lambda: load_ply(io.BytesIO(path.read_bytes()), skip_materials=True))
    visual = loaded.get("visual")
    uvs = None if visual is None else visual.uv
    with path.open("rb") as stream:
        head = text_of(stream.read(1 << 16).split(b"end_header")[0])
    faces = np.asarray(loaded.get("faces", ()))
    promised = re.search(r"^element\s+face\s+(\d+)", head, re.MULTILINE)
    if promised and len(faces) < int(promised[1]):
        must = f"the PLY must hold the {int(promised[1]):,} faces of its header"
        raise MeshError(path, must, f"{len(faces):,}", "it is truncated; fetch it again")
    names = re.findall(r"^comment\s+TextureFile\s+(.+?)\s*$", head, re.MULTILINE | re.IGNORECASE)
    textures, numbers = Textures(path, notes, root), _texture_numbers(loaded, len(faces))
    if len(names) > 1 and numbers is None:
        for name in names[1:]:
            notes.append(Lost.of("texture", name, "the faces do not say which texture is theirs"))
        names = names[:1]
    parts = []
    for number, name in enumerate(names or [None]):
        mine = loaded if numbers is None or not names else loaded | _faces_of(loaded, numbers == number)
        if not len(np.asarray(mine.get("faces", ()))):
            continue
        look = {} if name is None else _textured(textures, name, uvs, notes)
        parts.append(_part(path, mine, notes, uvs, look))
    if numbers is not None and names and not np.isin(numbers, range(len(names))).all():
        parts.append(_part(path, loaded | _faces_of(loaded, ~np.isin(numbers, range(len(names)))), notes, uvs, {}))
    return [part for part in parts if part is not None]


def _texture_numbers(loaded: dict[str, Any], count: int) -> np.ndarray | None:
    """``[F]`` which of the textures each face has, None when the PLY does not say."""
    rows = loaded.get("metadata", {}).get("_ply_raw", {}).get("face", {}).get("data")
    try:
        numbers = np.asarray(rows["texnumber"]).reshape(-1)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and numbers.dtype.kind in "iuf" else None


def _faces_of(loaded: dict[str, Any], chosen: np.ndarray) -> dict[str, Any]:
    """Faces ``[F]`` that are chosen, with their colours."""
    colors = loaded.get("face_colors")
    kept = colors[chosen] if colors is not None and len(colors) == len(chosen) else None
    return {"faces": np.asarray(loaded["faces"])[chosen], "face_colors": kept}


def read_stl(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """One grey part; STL has no colours.

    Raises:
        MeshError: when trimesh cannot parse it.
    """
    from trimesh.exchange.stl import load_stl

    loaded = _parsed(path, lambda: load_stl(io.BytesIO(path.read_bytes())))
    geometries = [loaded] if "vertices" in loaded else list(loaded.get("geometry", {}).values())
    parts = [_part(path, geometry, notes, None, {}) for geometry in geometries]
    return [part for part in parts if part is not None]


def read_off(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """One grey part; colours of OFF are not read. The counts may stand on the first line, as in ModelNet40.

    Raises:
        MeshError: when trimesh cannot parse it, or faces are missing.
    """
    from trimesh.exchange.off import load_off

    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    loaded = _parsed(path, lambda: load_off(io.BytesIO(data)))
    head = re.search(rb"(C?)OFF\s*(?:#[^\n]*\s*)*\d+\s+(\d+)", data)
    promised, count = int(head[2]) if head else 0, len(loaded["faces"])
    if count < promised:
        must = f"the OFF must hold the {promised:,} faces of its header"
        raise MeshError(path, must, f"{count:,}", "it is truncated; fetch it again")
    if head and head[1]:
        notes.append("the colours of the corners (COFF) were not read; it is grey")
    part = _part(path, loaded, notes, None, {})
    return [] if part is None else [part]


class _Materials:
    """Material files of an OBJ. trimesh sees them as bare names of ours; colours and textures are looked up here.

    trimesh takes any object with ``get`` and ``[]`` as a resolver.
    """

    def __init__(self, path: Path, notes: list[str], root: Path | None) -> None:
        self.textures, self.notes = Textures(path, notes, root), notes
        self.colors: dict[str, tuple[float, float, float, float]] = {}
        self.maps: dict[str, str] = {}
        self.decoded: dict[str, np.ndarray | None] = {}
        self.used: list[str] = []  # names that the OBJ uses, in order; trimesh knows them by their place here

    def renamed(self, data: bytes) -> bytes:
        """The OBJ with its materials read and called by numbers, which no encoding or blank can break."""

        def line(match: re.Match[bytes]) -> bytes:
            name = " ".join(text_of(match[2]).split())
            if match[1].lower() == b"mtllib":
                self.open(name)
                return b""
            if name not in self.used:
                self.used.append(name)
            return b"usemtl %d" % self.used.index(name)

        data = re.sub(rb"^ *(mtllib|usemtl) +([^\r\n]*)", line, data, flags=re.MULTILINE | re.IGNORECASE)
        missing = [name for name in self.used if name not in self.colors]
        if self.used:
            for name in missing:
                self.notes.append(Lost.of("material", name, "no material file has it"))
        elif len(self.colors) == 1:
            self.used = list(self.colors)
            return b"mtllib m\nusemtl 0\n" + data
        else:
            for name in self.colors:
                self.notes.append(Lost.of("material", name, "no face names it"))
        return b"mtllib m\n" + data

    def open(self, name: str) -> None:
        """Read a material file; a line may name several, but a name with blanks comes first."""
        several = name.split()
        if len(several) > 1:
            try:
                neighbour(self.textures.path, name, self.textures.root)
            except (OSError, ValueError):
                for one in several:
                    self.open(one)
                return
        data = self.textures.beside(name, "material file")
        current = ""
        for line in text_of(data or b"").splitlines():
            key, _, rest = " ".join(line.split()).partition(" ")
            key = key.lower()
            if key == "newmtl" and rest:
                current = rest
                self.colors[current] = _GREY
            elif key == "kd" and current:
                self.colors[current] = _kd(rest)
            elif key == "map_kd" and current and rest:
                while match := _MAP_OPTION.match(rest):
                    rest = rest[match.end() :]
                self.maps[current] = rest

    def __getitem__(self, name: str) -> bytes:
        return "".join(f"newmtl {number}\nkd 0.8 0.8 0.8\n" for number in range(len(self.used))).encode()

    get = __getitem__

    def look(self, material: Any, uvs: np.ndarray | None) -> dict[str, Any]:
        """Fields of `Part` for the material of that name."""
        number = str(getattr(material, "name", "") or "")
        name = self.used[int(number)] if number.isdecimal() and int(number) < len(self.used) else ""
        look: dict[str, Any] = {"name": name[:120], "base_color": self.colors.get(name, _GREY)}
        if name in self.maps:
            file = self.maps[name]
            if uvs is None or file not in self.decoded:
                texture = _textured(self.textures, file, uvs, self.notes).get("texture")
                if uvs is not None:
                    self.decoded[file] = texture
            if uvs is not None and self.decoded[file] is not None:
                look |= {"texture": self.decoded[file], "base_color": (1.0, 1.0, 1.0, 1.0)}
        return look


def _counted_from_the_start(data: bytes) -> bytes:
    """An OBJ whose negative indices, which count back from the line they stand on, are made positive."""
    counts = {b"v": 0, b"vt": 0, b"vn": 0}
    order = (b"v", b"vt", b"vn")
    lines = data.splitlines()
    for i, line in enumerate(lines):
        words = line.split()
        if not words:
            continue
        if words[0] in counts:
            counts[words[0]] += 1
        elif words[0] == b"f" and b"-" in line:
            corners = [
                b"/".join(
                    b"%d" % (counts[kind] + 1 + int(index)) if index[:1] == b"-" and index[1:].isdigit() else index
                    for kind, index in zip(order, corner.split(b"/"), strict=False)
                )
                for corner in words[1:]
            ]
            lines[i] = b" ".join([b"f", *corners])
    return b"\n".join(lines)


def _kd(text: str) -> tuple[float, float, float, float]:
    """Diffuse colour; one number is grey. What is no colour is grey."""
    try:
        values = [min(max(float(v), 0.0), 1.0) for v in text.split()[:3]]
    except ValueError:
        return _GREY
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not np.isfinite(values).all():
        return _GREY
    return values[0], values[1], values[2], 1.0


def _textured(textures: Textures, name: str, uvs: np.ndarray | None, notes: list[str]) -> dict[str, Any]:
    """Texture and white base colour, or nothing with a note."""
    if uvs is None:
        notes.append(Lost.of("texture", name, "there are no UVs"))
        return {}
    data = textures.beside(name)
    pixels = None if data is None else textures.decode(data, name)
    return {} if pixels is None else {"texture": pixels, "base_color": (1.0, 1.0, 1.0, 1.0)}


def _parsed(path: Path, load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What trimesh reads; whatever it stumbles over becomes one kind of error."""
    try:
        return load()
    except Exception as error:
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        must = "the file must be an intact mesh"
        raise MeshError(path, must, got, "it is truncated or broken; export it again") from error


def _part(
    path: Path, geometry: dict[str, Any], notes: list[str], uvs: np.ndarray | None, look: dict[str, Any]
) -> Part | None:
    """A `Part` of what trimesh parsed."""
    vertices, faces = geometry.get("vertices"), geometry.get("faces")
    if vertices is None or faces is None or not len(faces):
        return None
    try:
        vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces).astype(np.int64)
    except (TypeError, ValueError) as error:
        raise MeshError(path, "corners and faces must be numbers", str(error)[:160], "the file is broken") from None
    if faces.ndim != 2 or faces.shape[1] < 3 or vertices.ndim != 2 or vertices.shape[1] != 3:
        raise MeshError(path, "faces must have three corners or more", f"{list(faces.shape)}", "triangulate it first")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        got = f"{faces.min()}..{faces.max()}"
        raise MeshError(path, f"faces must index the {len(vertices):,} vertices", got, "the file is broken")
    face_colors = _colors(geometry.get("face_colors"), len(faces))
    colors = _colors(geometry.get("vertex_colors"), len(vertices))
    fans = [faces[:, [0, i, i + 1]] for i in range(1, faces.shape[1] - 1)]  # of faces that all have as many corners
    faces = np.concatenate(fans)
    face_colors = None if face_colors is None else np.concatenate([face_colors] * len(fans))
    if len(faces) > MAX_FACES_READ:
        raise MeshError(path, f"a mesh must have at most {MAX_FACES_READ:,} triangles", f"{len(faces):,}", "split it")
    if uvs is not None and np.shape(uvs) != (len(vertices), 2):
        uvs = None
    if colors is None and face_colors is not None:
        corners = faces.ravel()
        vertices, colors = vertices[corners], np.repeat(face_colors, 3, axis=0)
        uvs = None if uvs is None else uvs[corners]
        faces = np.arange(len(corners)).reshape(-1, 3)
    if colors is not None:
        look = look | {"colors": colors, "base_color": (1.0, 1.0, 1.0, 1.0)}
    if uvs is None and look.pop("texture", None) is not None:
        notes.append(Lost.of("texture", str(look.get("name", "")), "its UVs do not fit the corners"))
    if uvs is not None and "texture" in look:
        look = look | {"uvs": np.ascontiguousarray(uvs, np.float32)}
    return sound_part(vertices, faces, notes, **look)


def _colors(values: Any, count: int) -> np.ndarray | None:
    """``[count, 3]`` float32 in ``[0, 1]`` of bytes or floats, None when they are something else."""
    if values is None:
        return None
    values = np.asarray(values)
    if values.ndim != 2 or len(values) != count or values.shape[1] not in (3, 4):
        return None
    scale = 1.0
    if values.dtype.kind in "ui":
        scale = 65535.0 if values.dtype.itemsize == 2 else 255.0
    elif np.nanmax(values, initial=0.0) > 1.0001:
        scale = 255.0  # writers of OBJ differ
    return np.clip(np.nan_to_num(values[:, :3] / scale, nan=1.0), 0, 1).astype(np.float32)
