"""Plotly figures: of splats, of their tokens, and of what training made of them.

Every figure is a `plotly.graph_objects.Figure` (never a FigureWidget, which adds megabytes to a
saved notebook), carries its own template, and sends numbers as typed arrays.
"""

from __future__ import annotations

from .comparison import comparison_figure, cost_figure
from .histograms import attribute_histograms, channels_figure, value_histograms
from .labels import labels_figure
from .learning import LiveFigure, ablation_figure, curves_figure, fitting_tradeoff, intervals_figure, similarity_figure
from .neighbours import Neighbour, neighbours_figure
from .pictures import difference_figure, error_image, image_row
from .robustness import robustness_figure
from .scatter import splat_figure
from .style import MAX_POINTS, TEMPLATE
from .token_figures import (
    PatchRows,
    coverage_figure,
    order_figure,
    patch_figure,
    patch_rows,
    token_coverage_figure,
)
