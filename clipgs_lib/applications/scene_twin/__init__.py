"""Digital twin of a scene, as Diorama makes it: every object of a picture is searched, placed and set straight."""

from .assets import assets_in
from .composer import compose
from .scenes import read_scene
from .scoring import score_rooms
from .search import crop, load_pool, retrieve
from .twin import make_twin
