"""Digital twin of a scene, as Diorama makes it: every object of a picture is searched, placed and set straight."""

from __future__ import annotations

from .assets import Asset, catalogue_assets, furniture_assets, room_assets
from .composer import compose
from .layout import arrange, find_supports, overlaps
from .placement import Fit, fit_pose
from .scenes import FLOOR, WALL, Pose, Scene, SceneError, SceneObject, Truth, read_scene, segmented
from .search import MODES, Match, Pool, crop, load_pool, retrieve
from .twin import Twin, make_twin

__all__ = [
    "FLOOR",
    "MODES",
    "WALL",
    "Asset",
    "Fit",
    "Match",
    "Pool",
    "Pose",
    "Scene",
    "SceneError",
    "SceneObject",
    "Truth",
    "Twin",
    "arrange",
    "catalogue_assets",
    "compose",
    "crop",
    "find_supports",
    "fit_pose",
    "furniture_assets",
    "load_pool",
    "make_twin",
    "overlaps",
    "read_scene",
    "retrieve",
    "room_assets",
    "segmented",
]
