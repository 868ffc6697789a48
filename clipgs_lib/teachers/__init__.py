"""Teachers: frozen pairs of CLIP towers behind one interface and the embedded teacher `mini`."""

from .base import Teacher, TeacherError
from .loading import load_teacher, random_tower
from .preprocess import Preprocess
