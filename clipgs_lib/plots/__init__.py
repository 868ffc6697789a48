"""Plotly figures of splats: what is in a file, where it lies, and how two of them differ.

Every function returns a `plotly.graph_objects.Figure` (never a FigureWidget, which adds megabytes to a
saved notebook), carries its own template, and sends numbers as typed arrays.
"""

from __future__ import annotations

from .histograms import attribute_histograms, value_histograms
from .images import difference_figure, error_image, image_row
from .scene import MAX_POINTS, compare_figure, splat_figure
from .style import TEMPLATE

__all__ = [
    "MAX_POINTS",
    "TEMPLATE",
    "attribute_histograms",
    "compare_figure",
    "difference_figure",
    "error_image",
    "image_row",
    "splat_figure",
    "value_histograms",
]
