"""Digital twin of a scene, as Diorama makes it: every object of a picture is searched, placed and set straight."""

from .composer import assets_in, compose
from .scenes import read_scene
from .scoring import score_rooms
from .twin import crop, load_pool, make_twin, retrieve
