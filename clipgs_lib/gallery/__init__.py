"""Galleries of embedded objects: made out of folders and sets, kept on disk, searched exactly, by mixed queries.

`gallery.embedding` makes galleries; it is imported by itself, as it needs encoders and readers of all formats.
"""

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
    precision_of_words,
    row_term,
    shape_term,
    text_term,
    zero_shot_labels,
)
from .sheet import hits_sheet, picture_sheet
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
    "hits_sheet",
    "parse_filters",
    "picture_sheet",
    "picture_term",
    "precision_of_words",
    "row_term",
    "shape_term",
    "text_term",
    "zero_shot_labels",
]
