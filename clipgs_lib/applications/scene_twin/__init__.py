"""Digital twin of a scene, as Diorama makes it: every object of a picture is searched, placed and set straight."""

from __future__ import annotations

from .assets import Asset, catalogue_assets, furniture_assets, room_assets
from .composer import compose
from .scenes import FLOOR, WALL, Pose, Scene, SceneError, SceneObject, Truth, read_scene, segmented

__all__ = [
    "FLOOR",
    "WALL",
    "Asset",
    "Pose",
    "Scene",
    "SceneError",
    "SceneObject",
    "Truth",
    "catalogue_assets",
    "compose",
    "furniture_assets",
    "read_scene",
    "room_assets",
    "segmented",
]
