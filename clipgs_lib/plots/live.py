"""A figure that is redrawn in place while something runs."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from IPython.display import display


class LiveFigure:
    """One output of a notebook cell, which each `show` replaces.

    Plotly's own display adds an output every time; what is replaced here is its MIME bundle, so exported pages and
    papermill's notebooks hold the last figure alone.

    Args:
        text: shown until the first figure comes.
    """

    def __init__(self, text: str = "the figure appears here") -> None:
        self.last: go.Figure | None = None
        self._handle: Any = display({"text/plain": text}, raw=True, display_id=True)  # None outside IPython

    def show(self, figure: go.Figure) -> None:
        """Draw ``figure`` in the place of the one before."""
        self.last = figure
        if self._handle is not None:
            self._handle.update(figure._repr_mimebundle_(), raw=True)
