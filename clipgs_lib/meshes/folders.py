"""Folders of meshes: which files are read, and which objects they hold."""

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
