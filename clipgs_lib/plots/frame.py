"""The box that a scene shows, and the camera that it opens with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..rendering.cameras import FRONT, axis_vector
from ..splats import UP_AXES

EYE = (0.56, 0.40, 1.56)  # opening camera in scene cubes: to the right, above, in front
VISIBLE_CUBES = 1.39  # height of the view at the scene's centre, in cubes: plotly's 45 degree camera, as far as EYE
REACH = 0.3  # the tails of real objects end within this; lone floaters do not


@dataclass(frozen=True)
class Frame:
    """An axis-aligned box in scene units, drawn with equal units on all axes."""

    low: np.ndarray  # [3]
    high: np.ndarray  # [3], larger than low on every axis

    @classmethod
    def around(cls, clouds: Sequence[np.ndarray]) -> Frame:
        """The box of all centres ``[M, 3]``, without lone points far from the rest.

        An axis reaches beyond its middle 99 % by at most `REACH` of the widest such middle.
        """
        points = np.concatenate(clouds).astype(np.float64)
        if len(points) == 0:
            return cls(-np.ones(3), np.ones(3))
        inner_low, inner_high = np.quantile(points, [0.005, 0.995], axis=0)
        reach = REACH * (inner_high - inner_low).max()
        low, high = np.maximum(points.min(0), inner_low - reach), np.minimum(points.max(0), inner_high + reach)
        size = (high - low).max()
        size = size if size > 0 else max(1e-3 * np.abs(points).max(), 1.0)
        thickness = np.maximum(high - low, 0.1 * size)
        middle = (low + high) / 2
        return cls(middle - 0.52 * thickness, middle + 0.52 * thickness)

    @property
    def size(self) -> float:
        """The longest side."""
        return float((self.high - self.low).max())

    def contains(self, points: np.ndarray) -> np.ndarray:
        """``[M]`` bool of points ``[M, 3]``."""
        return np.all((points >= self.low) & (points <= self.high), axis=1)

    def pixels_per_unit(self, height: float) -> float:
        """Screen pixels of one scene unit at the centre, in a scene ``height`` pixels tall."""
        return height / VISIBLE_CUBES / self.size

    def layout(self) -> dict[str, Any]:
        """Axis ranges and the aspect ratio that makes a unit equally long on each axis."""
        ratio = (self.high - self.low) / self.size
        axes = {
            f"{name}axis": {"range": [float(self.low[k]), float(self.high[k])], "title": {"text": name}}
            for k, name in enumerate("xyz")
        }
        aspect = dict(zip("xyz", map(float, ratio), strict=True))
        return {**axes, "aspectmode": "manual", "aspectratio": aspect}


def opening_camera(up_axis: str) -> dict[str, dict[str, float]]:
    """A plotly camera in front, a little above and to the right, upright for ``up_axis``.

    In front means: from -z when -y is up (COLMAP), from +z when +y is up (glTF), from -y when z is up (Blender).
    Unknown is taken as +y, as in `rendering.turntable_cameras`.

    Raises:
        ValueError: when ``up_axis`` is none of `clipgs_lib.splats.UP_AXES`.
    """
    if up_axis not in UP_AXES:
        raise ValueError(f"up_axis must be one of {', '.join(UP_AXES)}, got {up_axis!r}")
    axis = "+y" if up_axis == "unknown" else up_axis
    up, ahead = (axis_vector(one).numpy() for one in (axis, FRONT[axis]))
    eye = EYE[0] * np.cross(up, ahead) + EYE[1] * up + EYE[2] * ahead
    vectors = {"eye": eye, "up": up, "center": np.zeros(3)}
    return {name: dict(zip("xyz", vector.tolist(), strict=True)) for name, vector in vectors.items()}
