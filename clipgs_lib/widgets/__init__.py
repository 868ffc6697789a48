"""Notebook widgets: the live splat viewer, the patch picker, the retrieval explorer and the labelling grid."""

from __future__ import annotations

from .label_grid import LabelGrid
from .patch_picker import PatchPicker
from .retrieval import RetrievalExplorer
from .splat_view import SplatView

__all__ = ["LabelGrid", "PatchPicker", "RetrievalExplorer", "SplatView"]
