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
    row_term,
    text_term,
    zero_shot_labels,
)
from .questions import Question, lines_of, precision_of_queries, read_questions, right_rows, sense_rows
from .session import Part, Session, State, query_parts
from .sheet import answers_sheet, hits_sheet, picture_sheet, picture_strip
from .storage import INDEX, GalleryError, GalleryWriter, Rows, Space
