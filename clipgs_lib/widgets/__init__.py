"""Widgets: the splat viewer, the patch picker, the retrieval explorer, the labelling grid, the twin's editor."""

from .label_grid import LabelGrid
from .patch_picker import PatchPicker
from .retrieval import RetrievalExplorer
from .splat_view import SplatView
from .twin_editor import TwinEditor
