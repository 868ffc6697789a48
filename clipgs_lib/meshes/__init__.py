"""Meshes: the container, and import of common files."""

from __future__ import annotations

from .checks import MeshError, MeshWarning
from .importing import ImportReport, ImportRow, MeshImport, import_folder, mesh_files, read_mesh, read_mesh_notes
from .mesh import Mesh, Part, SurfaceSamples

__all__ = [
    "ImportReport",
    "ImportRow",
    "Mesh",
    "MeshError",
    "MeshImport",
    "MeshWarning",
    "Part",
    "SurfaceSamples",
    "import_folder",
    "mesh_files",
    "read_mesh",
    "read_mesh_notes",
]
