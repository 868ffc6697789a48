"""Galleries of embedded objects: made out of folders and sets, kept on disk, searched exactly, by mixed queries."""

from __future__ import annotations

from .filters import Condition, parse_filters
from .gallery import Gallery, Hits
from .query import (
    Answer,
    Hit,
    Query,
    Term,
    ask,
    combine,
    picture_term,
    row_term,
    shape_term,
    text_term,
    zero_shot_labels,
)
from .storage import INDEX, GalleryError, GalleryWriter, Rows, Space

__all__ = [
    "INDEX",
    "Answer",
    "Condition",
    "Gallery",
    "GalleryError",
    "GalleryWriter",
    "Hit",
    "Hits",
    "Query",
    "Rows",
    "Space",
    "Term",
    "ask",
    "combine",
    "parse_filters",
    "picture_term",
    "row_term",
    "shape_term",
    "text_term",
    "zero_shot_labels",
]
