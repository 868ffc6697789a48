"""Read textured meshes of other people: GLB, glTF, OBJ + MTL, PLY, STL and OFF, told apart by content.

Nothing is fetched from a network, nothing outside the mesh's own folder is opened, nothing is run.
"""

import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from ..formats import FormatError, sniff
from ..formats.diagnose import looks_like
from ..formats.raw import check_regular_file
from ..splats import UP_AXES
from .checks import MAX_FILE_BYTES, Lost, MeshError, MeshWarning
from .gltf_meshes import read_gltf
from .mesh import Mesh, decimate
from .plain import read_off, read_ply, read_stl
from .wavefront import read_obj

MAX_FACES = 1_000_000
SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
FACTORS = ("linear", "srgb", "guess")
_READERS = {"obj": read_obj, "ply": read_ply, "stl": read_stl, "off": read_off}


class MeshImport(NamedTuple):
    """A mesh that was read, and what was left out or changed on the way."""

    mesh: Mesh
    notes: tuple[str, ...]  # one sentence each

    @property
    def lost(self) -> tuple[str, ...]:
        """Names of textures and materials that are missing."""
        return tuple(note.name for note in self.notes if isinstance(note, Lost))


def read_mesh(
    path: str | os.PathLike[str], *, up_axis: str | None = None, max_faces: int = MAX_FACES, factors: str = "linear"
) -> Mesh:
    """Read a mesh; each thing left out or changed is a `MeshWarning`.

    Args:
        path: ``.glb``, ``.gltf``, ``.obj`` (with its MTL), ``.ply``, ``.stl`` or ``.off``; told by content.
        up_axis: one of ``splats.UP_AXES``. None is ``"+y"`` for glTF, as its specification says, and ``"unknown"``
            for the others, which say nothing. The vertices stay as they are.
        max_faces: a mesh with more triangles is decimated to about as many.
        factors: what the base colour factors of a glTF are: ``"linear"`` light, as its specification says;
            ``"srgb"``, as some exporters wrongly store them, which looks pale everywhere else; ``"guess"`` takes
            those materials as sRGB whose factors are bytes over 255.

    Returns:
        The scene flattened into parts, in its own units; `Mesh.normalize` brings it into the unit sphere.

    Raises:
        MeshError: when it cannot be read; the message says why and what to do.
        ValueError: when ``up_axis``, ``max_faces`` or ``factors`` is out of range.
    """
    mesh, notes = read_mesh_notes(path, up_axis=up_axis, max_faces=max_faces, factors=factors)
    for note in notes:
        warnings.warn(f"{path}: {note}", MeshWarning, stacklevel=2)
    return mesh


def read_mesh_notes(
    path: str | os.PathLike[str],
    *,
    up_axis: str | None = None,
    max_faces: int = MAX_FACES,
    factors: str = "linear",
    root: str | os.PathLike[str] | None = None,
) -> MeshImport:
    """Read a mesh as `read_mesh` does, with remarks instead of warnings.

    ``root`` is the folder that material files and pictures may lie in, such as the one whose meshes are imported;
    ``..`` is followed inside it. None is the mesh's own folder.
    """
    if up_axis is not None and up_axis not in UP_AXES:
        raise ValueError(f"up_axis must be one of {', '.join(UP_AXES)} or None, got {up_axis!r}")
    if max_faces < 4:
        raise ValueError(f"max_faces must be at least 4 triangles, got {max_faces}")
    if factors not in FACTORS:
        raise ValueError(f"factors must be one of {', '.join(FACTORS)}, got {factors!r}")
    try:
        path = check_regular_file(path)
    except FormatError as error:
        raise MeshError(error.path, error.must, error.got, error.todo) from None
    size = path.stat().st_size
    if not 0 < size <= MAX_FILE_BYTES:
        raise MeshError(path, f"the file must hold 1 to {MAX_FILE_BYTES:,} bytes", f"{size:,}", "fetch it again")
    kind = _kind(path)
    notes: list[str] = []
    top = None if root is None else Path(root)
    parts = read_gltf(path, notes, top, factors) if kind == "gltf" else _READERS[kind](path, notes, top)
    if not parts:
        got = "points only" if kind == "ply" else "none"
        raise MeshError(path, "a mesh needs at least one triangle", got, "read_points reads point clouds")
    count = sum(len(part.faces) for part in parts)
    if count > max_faces:
        parts = decimate(parts, max_faces)
        left = sum(len(part.faces) for part in parts)
        notes.append(f"{count:,} triangles were decimated to {left:,} (max_faces={max_faces:,})")
    if up_axis is None:
        up_axis = "+y" if kind == "gltf" else "unknown"
    try:
        return MeshImport(Mesh(tuple(parts), up_axis, path.name), tuple(dict.fromkeys(notes)))
    except ValueError as error:
        raise MeshError(path, "the triangles must form a mesh", str(error), "the file is broken") from error


def _kind(path: Path) -> str:
    """ "gltf" or a key of `_READERS`; MeshError for what is no mesh, with a hint what it is."""
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"glTF") or (text.startswith(b"{") and (b'"asset"' in head or path.suffix.lower() == ".gltf")):
        return "gltf"
    if head.startswith(b"ply") and re.search(rb"^element\s+face\s+0*[1-9]", head, re.MULTILINE):
        return "ply"
    size = path.stat().st_size
    if len(head) >= 84 and size == 84 + 50 * int.from_bytes(head[80:84], "little"):
        return "stl"
    if text[:5].lower() == b"solid" and b"facet" in head:
        return "stl"
    if re.match(rb"(#[^\n]*\n\s*)*C?OFF\s*(#|\d|\n)", text):
        return "off"
    if re.search(rb"^(v|f|mtllib|vt|usemtl)\s+\S", head, re.MULTILINE) and b"\0" not in head:
        return "obj"
    raise _no_mesh(path, head)


def _no_mesh(path: Path, head: bytes) -> MeshError:
    """The error that says what the file is instead."""
    must = "the file must be a GLB, glTF, OBJ, PLY, STL or OFF mesh"
    try:
        splat = sniff(path)
    except FormatError:
        splat = ""
    if splat == "points":
        return MeshError(path, must, "a point cloud without faces", "read_points reads it")
    if splat:
        return MeshError(path, must, f"gaussian splats ({splat})", "read_splats reads them")
    if path.suffix.lower() == ".stl":
        return MeshError(path, must, f"{path.stat().st_size:,} bytes that no STL header explains", "it is truncated")
    if path.suffix.lower() == ".sh3f":
        return MeshError(path, must, "a catalogue of Sweet Home 3D", "read_furniture reads its pieces")
    return MeshError(path, must, looks_like(head) or "something else", "export it as GLB")
