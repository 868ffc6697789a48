"""Meshes of Wavefront OBJ with their MTL.

trimesh parses the numbers; material files and textures are found and decoded here, within bounds. A texture replaces
the diffuse colour of its material, vertex colours multiply it. Of a texture's options ``-s``, ``-o`` and ``-clamp``
are applied. The format: P. Bourke, "Object files (.obj)" and "MTL material format".
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import text_of
from .checks import Lost, Textures, neighbour
from .mesh import Part
from .plain import parsing, part_of

_OPTION = re.compile(r"-(\w+)\s+((?:on|off)\b|[-+.\deE]+(?:\s+[-+.\deE]+){0,2}|[rgbmlz]\b)\s+", re.IGNORECASE)
_HARMLESS = {"blendu", "blendv", "boost", "bm", "cc", "texres", "s", "o", "clamp"}  # or applied
_COLORED = re.compile(rb"^v(?: +\S+){6}", re.MULTILINE)


def read_obj(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """One part per material."""
    from trimesh.exchange.obj import load_obj

    materials = _Materials(Textures(path, notes, root), notes)
    data = materials.numbered(_tidied(path.read_bytes(), notes))
    if re.search(rb"^f[^\n]*[ /]-\d", data, re.MULTILINE):
        data = _counted_from_the_start(data)
    if b"//" in data and re.search(rb"^f[^\n]* \d+/\d", data, re.MULTILINE):
        data = re.sub(rb"//\d+", b"", data)  # trimesh would take normals for UVs where corners are written both ways
    with parsing(path):
        loaded = load_obj(io.BytesIO(data), skip_materials=True, split_objects=True)
    parts = []
    for number, geometry in loaded.get("geometry", {}).items():
        look = materials.look(number, None if geometry["visual"] is None else geometry["visual"].uv)
        colors = geometry.get("vertex_colors")
        parts.append(part_of(path, geometry["vertices"], geometry["faces"], notes, look, colors=colors))
    return [part for part in parts if part is not None]


def _tidied(data: bytes, notes: list[str]) -> bytes:
    """An OBJ with one kind of blanks and line ends, without comments and groups, and with colours at all vertices."""
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\t", b" ").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n#MRGB" in data:
        notes.append("the colours that ZBrush hides in comments (#MRGB) were not read")
    data = re.sub(rb"^ +(?:[#gos][^\n]*)?|^[#gos][^\n]*", b"", data.replace(b"\\\n", b" "), flags=re.MULTILINE)
    if _COLORED.search(data):
        data = re.sub(rb"^(v(?: +\S+){3}) *$", rb"\1 nan nan nan", data, flags=re.MULTILINE)  # white
    return data


def _counted_from_the_start(data: bytes) -> bytes:
    """An OBJ whose negative indices, which count back from the line they stand on, are made positive."""
    order = (b"v", b"vt", b"vn")
    counts = dict.fromkeys(order, 0)
    lines = data.splitlines()
    for i, line in enumerate(lines):
        key, *corners = line.split() or [b""]
        if key in counts:
            counts[key] += 1
        elif key == b"f" and b"-" in line:
            for j, corner in enumerate(corners):
                corners[j] = b"/".join(
                    b"%d" % (counts[kind] + 1 + int(index)) if index[:1] == b"-" and index[1:].isdigit() else index
                    for kind, index in zip(order, corner.split(b"/"), strict=False)
                )
            lines[i] = b" ".join([b"f", *corners])
    return b"\n".join(lines)


@dataclass
class _Material:
    color: tuple[float, float, float, float] | None = None  # Kd
    map: str = ""  # map_Kd as it stands in the file, with its options


class _Materials:
    """The material files of an OBJ, and which of their materials it uses."""

    def __init__(self, textures: Textures, notes: list[str]) -> None:
        self.textures, self.notes = textures, notes
        self.known: dict[str, _Material] = {}
        self.used: list[str] = []  # names in the order of the OBJ

    def numbered(self, data: bytes) -> bytes:
        """The OBJ with its material files read, and an object, called by a number, for each material that it uses."""

        def line(match: re.Match[bytes]) -> bytes:
            name = text_of(match[2]).strip()
            if match[1].lower() == b"mtllib":
                self.open(name)
                return b""
            name = " ".join(name.split())
            if name not in self.used:
                self.used.append(name)
            return b"o %d" % self.used.index(name)

        data = re.sub(rb"^(mtllib|usemtl)\b([^\n]*)", line, data, flags=re.MULTILINE | re.IGNORECASE)
        if not self.used and len(self.known) == 1:
            self.used = list(self.known)
            return b"o 0\n" + data
        for name in self.used or self.known:
            if not self.used:
                self.notes.append(Lost.of("material", name, "no face names it"))
            elif name not in self.known:
                self.notes.append(Lost.of("material", name, "no material file has it"))
        return data

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
        current = _Material()
        ambient: dict[str, str] = {}
        for line in text_of(data or b"").replace("\r", "\n").split("\n"):
            key, _, rest = line.replace("\t", " ").strip().partition(" ")
            key, rest = key.lower(), rest.strip()
            if key == "newmtl" and rest:
                name = " ".join(rest.split())
                current = self.known[name] = _Material()
            elif key == "kd":
                current.color = self.color(name, rest)
            elif key == "map_kd":
                current.map = rest
            elif key == "map_ka":
                ambient[name] = rest
        for name, file in ambient.items():
            if name in self.known and not self.known[name].map:
                self.notes.append(Lost.of("texture", file, "it is named as ambient (map_Ka) only"))

    def color(self, name: str, text: str) -> tuple[float, float, float, float] | None:
        """Diffuse colour; one number is grey. None, with a note, for spectra and what else is no RGB."""
        try:
            r, g, b = map(float, np.broadcast_to(np.array(text.split()[:3], float).clip(0, 1), 3))
        except ValueError:
            r = g = b = np.nan
        if np.isfinite([r, g, b]).all():
            return r, g, b, 1.0
        self.notes.append(Lost.of("material", name, f"its Kd must be RGB, got {text[:40]!r}"))
        return None

    def look(self, number: str, uvs: np.ndarray | None) -> dict[str, Any]:
        """Fields of `Part` for the material of that number."""
        if not number.isdecimal():
            if self.used:
                self.notes.append(Lost.of("material", "", "faces before the first usemtl name none"))
            return {}
        name = self.used[int(number)]
        material = self.known.get(name, _Material())
        look: dict[str, Any] = {"name": name[:120]} | ({"base_color": material.color} if material.color else {})
        if not material.map:
            return look
        file = material.map
        options: dict[str, list[str]] = {}
        while match := _OPTION.match(file):
            options[match[1].lower()], file = match[2].split(), file[match.end() :]
        if ignored := sorted(set(options) - _HARMLESS):
            self.notes.append(f"options of the texture {file[:80]!r} were not applied: {', '.join(ignored)}")
        look |= self.textures.look(file, uvs)
        if "texture" in look:
            uvs = look["uvs"] * _pair(options.get("s", []), 1) + _pair(options.get("o", []), 0)
            if options.get("clamp") == ["on"] and np.any((uvs < 0) | (uvs > 1)):
                uvs[:, 0], look["texture"] = self.textures.clamped(uvs[:, 0], look["texture"], 1)
                down, look["texture"] = self.textures.clamped(1 - uvs[:, 1], look["texture"], 0)
                uvs[:, 1] = 1 - down
            look["uvs"] = np.ascontiguousarray(uvs, np.float32)
        return look


def _pair(numbers: list[str], rest: float) -> np.ndarray:
    """``[2]`` of up to three numbers of an option; what is left out, or no number, is ``rest``."""
    try:
        return np.array([*map(float, numbers), rest, rest][:2])
    except ValueError:
        return np.array([rest, rest])
