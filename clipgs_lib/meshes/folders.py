"""Folders of meshes: which files are read, which objects they hold, and what comes of reading them all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .checks import MeshError
from .importing import SUFFIXES as FILE_SUFFIXES
from .importing import MeshImport, read_mesh_notes
from .sweethome import SUFFIX, Furniture, list_furniture, read_furniture

SUFFIXES = (*FILE_SUFFIXES, SUFFIX)


class Piece(NamedTuple):
    """One object of a folder: a file, or a piece of furniture in a ``.sh3f``."""

    file: Path
    name: str  # path below the folder; of furniture with that of the model in the zip
    furniture: Furniture | None = None  # what its catalogue says; None for files, and for a .sh3f that is broken

    def read(self, root: str | os.PathLike[str], *, factors: str = "linear") -> MeshImport:
        """Read it; arguments and errors are those of `read_mesh_notes`."""
        if self.furniture is None:
            if self.file.suffix.lower() == SUFFIX:
                list_furniture(self.file)
            return read_mesh_notes(self.file, factors=factors, root=root)
        return read_furniture(self.file, self.furniture.number)[1]


class ImportRow(NamedTuple):
    """What became of one object of a folder."""

    path: str  # below the folder
    ok: bool  # whether it was read
    faces: int = 0  # triangles
    textures: int = 0  # different ones
    lost: tuple[str, ...] = ()  # textures and materials that are missing
    reason: str = ""  # why it was not read, or notes on what was left out


class ImportReport(NamedTuple):
    """One row per object, by path."""

    rows: tuple[ImportRow, ...]

    def __str__(self) -> str:
        passed, lost = sum(row.ok for row in self.rows), sum(bool(row.lost) for row in self.rows)
        failed = "".join(f"\n  {row.path}: {row.reason}" for row in self.rows if not row.ok)
        return f"{passed} of {len(self.rows)} meshes were read, {lost} of them without a texture or material{failed}"


def import_folder(folder: str | os.PathLike[str], *, factors: str = "linear") -> ImportReport:
    """Read every mesh below a folder, and tell what passed, what did not and why; no error stops it."""
    rows = []
    for piece in mesh_pieces(folder):
        try:
            read = piece.read(folder, factors=factors)
        except MeshError as error:
            rows.append(ImportRow(piece.name, False, reason=str(error)))
            continue
        textures = {id(part.texture) for part in read.mesh.parts if part.texture is not None}
        rows.append(ImportRow(piece.name, True, read.mesh.n_faces, len(textures), read.lost, "; ".join(read.notes)))
    return ImportReport(tuple(rows))


def mesh_files(folder: str | os.PathLike[str], suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Files below a folder whose names end like a mesh's, sorted; hidden ones and links to folders are left out."""
    files: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(root, n) for n in names if n.lower().endswith(tuple(suffixes)) and not n.startswith(".")]
    return sorted(files)


def mesh_pieces(folder: str | os.PathLike[str], suffixes: Sequence[str] = SUFFIXES) -> list[Piece]:
    """The objects of `mesh_files`: each file is one, but a ``.sh3f`` holds many. A broken one counts as one."""
    pieces = []
    for file in mesh_files(folder, suffixes):
        name = file.relative_to(folder).as_posix()
        try:
            furniture = list_furniture(file) if file.suffix.lower() == SUFFIX else []
        except MeshError:
            furniture = []
        names = [f"{name}/{piece.model}" for piece in furniture]
        count = Counter(names)
        for piece, one in zip(furniture, names, strict=True):
            pieces.append(Piece(file, one if count[one] == 1 else f"{one}#{piece.number}", piece))
        pieces += [] if furniture else [Piece(file, name)]
    return pieces
