"""Teachers: frozen pairs of CLIP towers behind one interface and the embedded teacher `mini`."""

from .loading import load_teacher, random_tower
from .preprocess import Preprocess
from .teacher import Teacher, TeacherError
