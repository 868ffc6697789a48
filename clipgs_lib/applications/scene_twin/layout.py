"""What stands on what, and a small solver: contact with what carries, and nothing inside anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from ...splats import Splats
from .scenes import FLOOR, WALL, Pose, Scene, SceneObject

Box = tuple[np.ndarray, np.ndarray]  # low and high corner [3], metres
NEAR = 0.12  # metres: what ends so far above a surface may stand on it
HANGS = 0.35  # metres: what ends lower, on nothing, stands on the floor
ROUNDS = 60  # of pushing apart
TOUCH = 1e-3  # metres that boxes may overlap


def find_supports(scene: Scene) -> dict[int, int]:
    """What each object stands on: what the scene says, else what depth and masks tell.

    An object that ends near the floor stands there. Another one stands on the object with most points right below it.
    Where there is none, it hangs at a wall, unless something hides its lower end, or that is near the floor. Without
    depth, all stand on the floor.
    """
    points = {one.number: scene.points(one.mask) for one in scene.objects}
    supports = {}
    for one in scene.objects:
        mine = points[one.number]
        if one.support is not None or len(mine) < 10:
            supports[one.number] = FLOOR if one.support is None else one.support
            continue
        bottom = float(np.quantile(mine[:, 1], 0.005))  # a sofa's feet are few pixels
        low, high = np.quantile(mine, 0.02, axis=0) - 0.05, np.quantile(mine, 0.98, axis=0) + 0.05
        low[1], high[1] = bottom - NEAR, bottom + 0.06
        below = {
            number: int(((others >= low) & (others <= high)).all(axis=1).sum())
            for number, others in points.items()
            if number != one.number and len(others) and np.quantile(others[:, 1], 0.02) < bottom - 0.05
        }
        best = max(below, key=lambda number: below[number], default=FLOOR)
        if bottom < NEAR:
            supports[one.number] = FLOOR
        elif below.get(best, 0) >= 10:
            supports[one.number] = best
        else:
            supports[one.number] = WALL if bottom > HANGS and not _hidden_below(scene, one) else FLOOR
    return supports


def _hidden_below(scene: Scene, one: SceneObject) -> bool:
    """Whether other objects, or the picture's edge, lie below much of an object's lower outline."""
    columns = np.flatnonzero(one.mask.any(axis=0))
    lowest = one.mask.shape[0] - 1 - one.mask[::-1, columns].argmax(axis=0)
    others = np.any([other.mask for other in scene.objects], axis=0) & ~one.mask
    below = np.minimum(lowest + 1, one.mask.shape[0] - 1)
    return bool((others[below, columns] | (below == lowest)).mean() > 0.3)


def arrange(poses: Mapping[int, Pose], shapes: Mapping[int, Splats], supports: Mapping[int, int]) -> dict[int, Pose]:
    """Set objects onto what carries them and push apart what overlaps, until nothing does or `ROUNDS` are over.

    Two boxes (along the world's axes) part along x or z, where they overlap least, and what stands on them goes along;
    an object that something carries stays above its middle. Only heights and places change, not sizes and yaws.

    Args:
        poses: of each object, by number.
        shapes: in the unit sphere, by number.
        supports: the number of what carries it, `FLOOR` or `WALL`.

    Returns:
        New poses; what still overlaps is for `overlaps` to say.
    """
    out = dict(poses)
    order = sorted(out, key=lambda number: len(carriers(number, supports)))
    together = {number: [n for n in out if n == number or number in carriers(n, supports)] for number in out}
    for rounds in (ROUNDS, ROUNDS, 0):
        for number in order:
            out[number] = _in_contact(number, out, shapes, supports)
        for _ in range(rounds):
            pairs = overlaps(out, shapes, supports)
            for pair in pairs:
                step = _step(*(box_of(shapes[number], out[number]) for number in pair))
                for number, way in zip(pair, (step, -step), strict=True):
                    out |= {n: _moved(out[n], way) for n in together[number]}
            if not pairs:
                break
    return out


def carriers(number: int, supports: Mapping[int, int]) -> tuple[int, ...]:
    """What is below an object, from the nearest on, down to the floor or wall; a circle ends where it closes."""
    chain: list[int] = []
    while (number := supports.get(number, FLOOR)) not in (FLOOR, WALL, *chain):
        chain.append(number)
    return tuple(chain)


def box_of(shape: Splats, pose: Pose) -> Box:
    """The box of a shape's visible gaussians at a pose."""
    points = _points(shape, pose)
    return points.min(axis=0), points.max(axis=0)


def _points(shape: Splats, pose: Pose) -> np.ndarray:
    """Where a shape's visible gaussians are ``[N, 3]``."""
    visible = shape.opacities > 0.1
    centers, matrix = shape.means[visible] if bool(visible.any()) else shape.means, pose.matrix().numpy()
    return np.asarray(centers.double().numpy() @ matrix[:3, :3].T + matrix[:3, 3])


def overlaps(
    poses: Mapping[int, Pose], shapes: Mapping[int, Splats], supports: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Pairs whose boxes overlap on all axes, but for those of which one carries the other."""
    boxes = {number: box_of(shapes[number], pose) for number, pose in poses.items()}
    pairs = []
    for first, second in combinations(sorted(boxes), 2):
        (low, high), (other_low, other_high) = boxes[first], boxes[second]
        related = first in carriers(second, supports) or second in carriers(first, supports)
        if not related and bool((np.minimum(high, other_high) - np.maximum(low, other_low) > TOUCH).all()):
            pairs.append((first, second))
    return pairs


def _step(first: Box, second: Box) -> np.ndarray:
    """How far ``[3]`` the first of two boxes goes, and the second goes back, to part along x or z."""
    (low, high), (other_low, other_high) = first, second
    depth, step = np.minimum(high, other_high) - np.maximum(low, other_low), np.zeros(3)
    axis = 0 if depth[0] < depth[2] else 2
    step[axis] = (depth[axis] + TOUCH) / 2 * (1 if (low + high)[axis] >= (other_low + other_high)[axis] else -1)
    return step


def _in_contact(
    number: int, out: Mapping[int, Pose], shapes: Mapping[int, Splats], supports: Mapping[int, int]
) -> Pose:
    """The pose with the shape's lowest point on what carries it; an object without any stays."""
    pose, support = out[number], supports.get(number, FLOOR)
    if support == WALL:
        return pose
    low, high = box_of(shapes[number], pose)
    if support == FLOOR:
        return _moved(pose, np.array([0, -low[1], 0]))
    table_low, table_high = box_of(shapes[support], out[support])
    middle = (low + high) / 2
    step = np.clip(middle, table_low, table_high) - middle
    return _moved(pose, np.array([step[0], _surface(shapes[support], out[support], low, high) - low[1], step[2]]))


def _surface(shape: Splats, pose: Pose, low: np.ndarray, high: np.ndarray) -> float:
    """Height of the carrying surface for a box: the highest below it that is near its lower end, else the top."""
    points = _points(shape, pose)
    reach = np.maximum((high - low) / 2, 0.08)  # gaussians are far apart beside a cup
    heights = points[(np.abs(points - (low + high) / 2) < reach)[:, (0, 2)].all(axis=1), 1]
    heights = heights if len(heights) else points[:, 1]
    below = heights[heights < low[1] + max(NEAR, (high - low)[1] / 3)]
    return float((below if len(below) else heights).max())


def _moved(pose: Pose, step: np.ndarray) -> Pose:
    x, y, z = (float(value) for value in np.asarray(pose.position) + step)
    return replace(pose, position=(x, y, z))
