"""Teachers: frozen pairs of CLIP towers behind one interface, their cache on disk, and the embedded teacher `mini`."""

from .base import Teacher, TeacherError, TeacherWarning
from .cache import CachedTeacher
from .loading import load_teacher
from .preprocess import Preprocess
from .zero_shot import Ranking, rank_labels

__all__ = [
    "CachedTeacher",
    "Preprocess",
    "Ranking",
    "Teacher",
    "TeacherError",
    "TeacherWarning",
    "load_teacher",
    "rank_labels",
]
