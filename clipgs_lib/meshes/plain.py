"""Meshes of PLY, STL and OFF, through trimesh's parsers, and what the reader of OBJ shares with them.

trimesh parses numbers only: textures are found and decoded here, within bounds. Colours of these formats are taken as
displayed (sRGB), as their writers mean them.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..files import text_of
from .checks import MAX_FACES_READ, WHITE, Lost, MeshError, Textures, sound_part
from .mesh import Part, welded

_UVS = (("texture_u", "texture_v"), ("texture_s", "texture_t"), ("u", "v"), ("s", "t"))


def read_ply(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """Parts with vertex or face colours, or the textures that comments name (``TextureFile``), by ``texnumber``.

    UVs stand at vertices or, as ``texcoord``, at the corners of faces; colours of faces may stand in materials.
    """
    from trimesh.exchange.ply import load_ply

    head, mark, body = path.read_bytes().partition(b"end_header")
    names = re.findall(r"^comment\s+TextureFile\s+(.+?)\s*$", text_of(head), re.MULTILINE | re.IGNORECASE)
    bare = re.sub(rb"^(comment|obj_info)\b[^\n]*\n", b"", head, flags=re.MULTILINE)  # in whatever encoding
    with parsing(path):
        loaded = load_ply(io.BytesIO(bare + mark + body), skip_materials=True, fix_texture=False)
        raw = loaded["metadata"]["_ply_raw"]
        vertex, face, material = (_columns(raw.get(name, {})) for name in ("vertex", "face", "material"))
        polygons = face.get("vertex_indices", face.get("vertex_index", np.zeros((0, 3), np.int64)))
        promised = raw.get("face", {}).get("length", 0)
        if len(polygons) < promised:
            must = f"the PLY must hold the {promised:,} faces of its header"
            raise MeshError(path, must, f"{len(polygons):,}", "it is truncated; fetch it again")
        corners, owner = fans(polygons)
        faces, vertices = _flat(polygons)[corners], np.column_stack([vertex[axis] for axis in "xyz"])
        uvs = next((np.column_stack([vertex[u], vertex[v]]) for u, v in _UVS if u in vertex and v in vertex), None)
        colors, face_colors = _rgb(vertex), _rgb(face)
        table = _rgb(material)
        if face_colors is None and table is not None and "material_index" in face:
            face_colors = table[face["material_index"]]
        wedges = _flat(face.get("texcoord", np.zeros(0)))
        seams = len(wedges) == 2 * len(_flat(polygons)) > 0
        if seams:
            vertices, uvs = vertices[faces.ravel()], wedges.reshape(-1, 2)[corners.ravel()]
            colors = None if colors is None else colors[faces.ravel()]
            faces = np.arange(faces.size).reshape(-1, 3)
    textures = Textures(path, notes, root)
    parts: list[Part] = []
    for name, chosen in _by_texture(names, face.get("texnumber"), owner, notes):
        look = textures.look(name, uvs) if name else {}
        of_faces = None if face_colors is None else face_colors[owner[chosen]]
        part = part_of(path, vertices, faces[chosen], notes, look, colors=colors, face_colors=of_faces)
        parts += [] if part is None else [welded(part) if seams else part]
    return parts


def _columns(element: dict[str, Any]) -> dict[str, np.ndarray]:
    """Properties of an element as trimesh parsed it: ``[n]``; lists ``[n, k]`` or, of several lengths, ``[n]``."""
    data: Any = element.get("data")
    out: dict[str, np.ndarray] = {}
    for name in (data.dtype.names or ()) if isinstance(data, np.ndarray) else (data or ()):
        column = data[name]["f1"] if data[name].dtype.names else data[name]
        if "," not in element["properties"][name]:
            column = column.reshape(-1)
        elif column.ndim == 1 and column.dtype != object:  # trimesh drops the first dimension of a single list
            column = column[None]
        out[name] = column
    return out


def _flat(lists: np.ndarray) -> np.ndarray:
    """All numbers of lists, end to end."""
    return np.concatenate(lists) if lists.dtype == object else lists.reshape(-1)


def _rgb(columns: dict[str, np.ndarray]) -> np.ndarray | None:
    """``[n, 3]`` colours as stored, if there are any."""
    for prefix in ("", "diffuse_"):
        names = [prefix + name for name in ("red", "green", "blue")]
        if set(names) <= set(columns):
            return np.column_stack([columns[name] for name in names])
    return None


def _by_texture(
    names: list[str], numbers: np.ndarray | None, owner: np.ndarray, notes: list[str]
) -> list[tuple[str, np.ndarray]]:
    """Name of each texture, "" for none, and which triangles ``[F]`` have it; ``owner [F]`` are their faces."""
    everywhere = np.ones(len(owner), bool)
    if not names or numbers is None:
        notes += [Lost.of("texture", name, "the faces do not say which texture is theirs") for name in names[1:]]
        return [(names[0] if names else "", everywhere)]
    numbers = numbers[owner]
    if (numbers >= len(names)).any():
        notes.append(Lost.of("texture", f"number {int(numbers.max())}", f"comments name {len(names)}"))
    some = [(name, numbers == number) for number, name in enumerate(names)]
    return [*some, ("", ~np.isin(numbers, range(len(names))))]


def read_stl(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """One grey part; colours, which some writers hide in attribute bytes, are not read."""
    from trimesh.exchange.stl import load_stl

    with parsing(path):
        loaded = load_stl(io.BytesIO(path.read_bytes()))
        geometries = [loaded] if "vertices" in loaded else list(loaded.get("geometry", {}).values())
        if any(np.any(geometry.get("face_attributes", {}).get("stl", 0)) for geometry in geometries):
            notes.append("the attribute bytes of its triangles, which may be colours, were not read")
    parts = [part_of(path, geometry["vertices"], geometry["faces"], notes, {}) for geometry in geometries]
    return [part for part in parts if part is not None]


def read_off(path: Path, notes: list[str], root: Path | None = None) -> list[Part]:
    """One grey part; colours of OFF are not read. The counts may stand on the first line, as in ModelNet40."""
    from trimesh.exchange.off import load_off

    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    with parsing(path):
        loaded = load_off(io.BytesIO(data))
    head = re.search(rb"(C?)OFF\s*(?:#[^\n]*\s*)*\d+\s+(\d+)", data)
    promised, count = int(head[2]) if head else 0, len(loaded["faces"])
    if count < promised:
        must = f"the OFF must hold the {promised:,} faces of its header"
        raise MeshError(path, must, f"{count:,}", "it is truncated; fetch it again")
    if head and head[1]:
        notes.append("the colours of the corners (COFF) were not read; it is grey")
    part = part_of(path, loaded["vertices"], loaded["faces"], notes, {})
    return [] if part is None else [part]


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Whatever trimesh stumbles over becomes one kind of error."""
    try:
        yield
    except MeshError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        must = "the file must be an intact mesh"
        raise MeshError(path, must, got, "it is truncated or broken; export it again") from error


def fans(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons ``[P, k]``, or ``[P]`` lists, cut into triangles: corners ``[F, 3]``, as places in all polygons end to
    end, and the polygon that each comes from ``[F]``.
    """
    ragged = polygons.dtype == object
    sizes = np.array([len(p) for p in polygons], int) if ragged else np.full(len(polygons), polygons.shape[1])
    count = np.maximum(sizes - 2, 0)
    owner = np.repeat(np.arange(len(sizes)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + 1
    order = np.argsort(step, kind="stable")  # first triangles first
    owner, step = owner[order], step[order]
    first = (np.cumsum(sizes) - sizes)[owner]
    return np.stack([first, first + step, first + step + 1], axis=1), owner


def part_of(
    path: Path,
    vertices: Any,
    faces: Any,
    notes: list[str],
    look: dict[str, Any],
    *,
    colors: Any = None,
    face_colors: Any = None,
) -> Part | None:
    """A `Part` of what trimesh parsed; None without faces.

    ``vertices [V, 3]``, ``faces [F, k]`` of three corners or more, fields of `Part` as ``look``, and as bytes or floats
    ``colors [V, 3 or 4]`` or, without these, ``face_colors [F, 3 or 4]``.
    """
    try:
        vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces).astype(np.int64)
    except (TypeError, ValueError) as error:
        raise MeshError(path, "corners and faces must be numbers", str(error)[:160], "the file is broken") from None
    if not len(faces):
        return None
    if faces.ndim != 2 or faces.shape[1] < 3 or vertices.ndim != 2 or vertices.shape[1] != 3:
        raise MeshError(path, "faces must have three corners or more", f"{list(faces.shape)}", "triangulate it first")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        got = f"{faces.min()}..{faces.max()}"
        raise MeshError(path, f"faces must index the {len(vertices):,} vertices", got, "the file is broken")
    colors, face_colors = _colors(colors, len(vertices), notes), _colors(face_colors, len(faces), notes)
    corners, owner = fans(faces)
    faces = faces.reshape(-1)[corners]
    if len(faces) > MAX_FACES_READ:
        raise MeshError(path, f"a mesh must have at most {MAX_FACES_READ:,} triangles", f"{len(faces):,}", "split it")
    if look.get("uvs") is not None and np.shape(look["uvs"]) != (len(vertices), 2):
        notes.append(Lost.of("texture", look.get("name", ""), "its UVs do not fit the corners"))
        look = {name: value for name, value in look.items() if name not in ("uvs", "texture")}
    if colors is None and face_colors is not None:
        every = faces.ravel()
        vertices, colors, faces = vertices[every], np.repeat(face_colors[owner], 3, axis=0), np.arange(len(every))
        faces = faces.reshape(-1, 3)
        look = look | ({"uvs": look["uvs"][every]} if "uvs" in look else {})
    if colors is not None:
        look = {"base_color": WHITE} | look | {"colors": colors}
    return sound_part(vertices, faces, notes, **look)


def _colors(values: Any, count: int, notes: list[str]) -> np.ndarray | None:
    """``[count, 3]`` float32 in ``[0, 1]`` of bytes or floats; None, with a note, when they are something else."""
    if values is None:
        return None
    values = np.asarray(values)
    if values.ndim != 2 or len(values) != count or values.shape[1] not in (3, 4):
        notes.append(Lost.of("material", "colours", "they do not fit the corners or faces"))
        return None
    scale = 1.0
    if values.dtype.kind in "ui":
        scale = 65535.0 if values.dtype.itemsize == 2 else 255.0
    elif np.nanmax(values, initial=0.0) > 1.0001:
        scale = 255.0  # writers of OBJ differ
    return np.clip(np.nan_to_num(values[:, :3] / scale, nan=1.0), 0, 1).astype(np.float32)
