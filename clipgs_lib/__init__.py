"""CLIP-GS workbench: 3D Gaussian splats aligned with CLIP's image-text space.

``import clipgs_lib as cg`` gives the public names below; each is imported on first use, so that
``clipgs --help`` and light scripts start fast. Import it before torch: idle threads of torch (OpenMP) spin for
milliseconds after each operation, which makes a busy machine many times slower, unless told to sleep before it loads.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .libraries import give_numba_a_cache

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PUBLIC = {
    "Splats": "splats",
    "FormatError": "formats",
    "SplatWarning": "formats",
    "read_splats": "formats",
    "write_splats": "formats",
    "read_points": "formats",
    "diagnose": "formats",
    "render": "rendering",
    "RenderOutput": "rendering",
    "orbit_cameras": "rendering",
    "turntable_cameras": "rendering",
    "SplatView": "widgets",
    "RetrievalExplorer": "widgets",
    "Gallery": "gallery",
    "load_teacher": "teachers",
    "build_encoder": "encoders",
    "load_encoder": "encoders",
}
__all__ = [
    "FormatError",
    "Gallery",
    "RenderOutput",
    "RetrievalExplorer",
    "SplatView",
    "SplatWarning",
    "Splats",
    "__version__",
    "build_encoder",
    "diagnose",
    "load_encoder",
    "load_teacher",
    "orbit_cameras",
    "read_points",
    "read_splats",
    "render",
    "turntable_cameras",
    "write_splats",
]

if TYPE_CHECKING:
    from .encoders import build_encoder, load_encoder
    from .formats import FormatError, SplatWarning, read_points, read_splats, write_splats
    from .formats.diagnose import diagnose
    from .gallery import Gallery
    from .rendering import RenderOutput, orbit_cameras, render, turntable_cameras
    from .splats import Splats
    from .teachers import load_teacher
    from .widgets import RetrievalExplorer, SplatView

give_numba_a_cache()  # before any room imports numba


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'clipgs_lib' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
