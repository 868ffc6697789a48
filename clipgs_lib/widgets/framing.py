"""Cameras as the page knows them, and how the viewports first frame their splats."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets as t

from ..rendering import Cameras, axis_vector, turntable_cameras, visible_sphere
from ..splats import Splats


def scene_of(
    splats: list[Splats], up: str | None, linked: bool, width: int, height: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the page must know, as plain numbers: of the whole, and of each viewport with the camera that frames it."""
    whole = Splats.cat([one.with_sh_degree(0) for one in splats])
    up = up or whole.up_axis
    up = "+y" if up == "unknown" else up
    low, high = whole.bounds()
    scene = {"low": low.tolist(), "high": high.tolist(), "up": axis_vector(up).tolist()}
    places = []
    for one in [whole] if linked else splats:
        center, radius = visible_sphere(one)
        home = camera_dict(turntable_cameras(one, 1, width=width, height=height, up=up), 0)
        places.append({"center": center.tolist(), "radius": float(radius), "home": home})
    return scene, places * len(splats) if linked else places


def camera_dict(cameras: Cameras, i: int) -> dict[str, Any]:
    """Camera ``i`` in plain numbers, matrices row by row."""
    return {
        "viewmat": cameras.viewmats[i].detach().cpu().flatten().tolist(),
        "K": cameras.Ks[i].detach().cpu().flatten().tolist(),
        "width": int(cameras.width),
        "height": int(cameras.height),
    }


def checked_camera(camera: dict[str, Any]) -> dict[str, Any]:
    """The camera as it came.

    Raises:
        traitlets.TraitError: when a camera from Python or the page cannot be drawn with.
    """
    for name, count in (("viewmat", 16), ("K", 9)):
        numbers = camera.get(name)
        if not isinstance(numbers, list) or len(numbers) != count or not np.isfinite(numbers).all():
            raise t.TraitError(f"a camera's {name} must be {count} finite numbers, row by row, got {numbers!r}")
    matrix = np.reshape(camera["viewmat"], (4, 4))
    turn = matrix[:3, :3]
    rigid = np.abs(turn @ turn.T - np.eye(3)).max() < 1e-3 and np.linalg.det(turn) > 0
    if not rigid or list(matrix[3]) != [0, 0, 0, 1]:
        raise t.TraitError("a camera's viewmat must be a rigid world-to-camera matrix, last row 0 0 0 1")
    if not (camera["K"][0] > 0 and camera["K"][4] > 0 and camera.get("width", 0) > 0 and camera.get("height", 0) > 0):
        raise t.TraitError("a camera needs fx > 0, fy > 0, width > 0 and height > 0")
    return camera
