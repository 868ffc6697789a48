"""The triplet factory: mesh import, procedural catalogue, splat fitting, captions and shards."""

from __future__ import annotations

from .importing import ImportReport, ImportRow, MeshImport, import_folder, mesh_files, read_mesh, read_mesh_notes
from .importing_base import MeshError, MeshWarning

__all__ = [
    "ImportReport",
    "ImportRow",
    "MeshError",
    "MeshImport",
    "MeshWarning",
    "import_folder",
    "mesh_files",
    "read_mesh",
    "read_mesh_notes",
]
