"""Meshes: the container, and import of common files."""

from .checks import MeshError, MeshWarning
from .folders import mesh_files, mesh_pieces
from .importing import MeshImport, read_mesh, read_mesh_notes
from .mesh import Mesh, Part, SurfaceSamples
from .sweethome import Furniture, list_furniture, read_furniture
