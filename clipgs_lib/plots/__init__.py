"""Plotly figures: of splats, of their tokens, and of what training made of them.

Every figure is a `plotly.graph_objects.Figure` (never a FigureWidget, which adds megabytes to a
saved notebook), carries its own template, and sends numbers as typed arrays.
"""

from .comparison import comparison_figure, cost_figure, labels_figure, robustness_figure
from .histograms import attribute_histograms, channels_figure, value_histograms
from .learning import LiveFigure, ablation_figure, curves_figure, fitting_tradeoff, similarity_figure, trend_figure
from .pictures import difference_figure, error_image, image_row
from .scatter import splat_figure
from .style import MAX_POINTS, TEMPLATE
from .token_figures import PatchRows, coverage_figure, order_figure, patch_figure, patch_rows, token_coverage_figure
