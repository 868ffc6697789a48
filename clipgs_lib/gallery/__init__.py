"""Galleries of embedded objects: made out of folders and sets, kept on disk, searched exactly, by mixed queries.

`gallery.embedding` makes galleries; it is imported by itself, as it needs encoders and readers of all formats.
"""

from .filters import Condition, parse_filters
from .gallery import Gallery, Hits
from .query import (
    Answer,
    Hit,
    Query,
    Term,
    ask,
    picture_term,
    precision_of_queries,
    row_term,
    sense_rows,
    shape_term,
    text_term,
    zero_shot_labels,
)
from .session import Part, Session, State
from .sheet import hits_sheet, picture_sheet, picture_strip
from .storage import INDEX, GalleryError, GalleryWriter, Rows, Space
