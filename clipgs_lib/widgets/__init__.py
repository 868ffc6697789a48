"""Notebook widgets: the live splat viewer, the patch picker and the retrieval explorer."""

from __future__ import annotations

from .patch_picker import PatchPicker
from .retrieval import RetrievalExplorer
from .splat_view import SplatView

__all__ = ["PatchPicker", "RetrievalExplorer", "SplatView"]
