"""Teachers: frozen pairs of CLIP towers behind one interface and the embedded teacher `mini`."""

from .base import Teacher, TeacherError
from .loading import load_teacher
from .preprocess import Preprocess
from .zero_shot import Ranking, rank_labels

__all__ = [
    "Preprocess",
    "Ranking",
    "Teacher",
    "TeacherError",
    "load_teacher",
    "rank_labels",
]
