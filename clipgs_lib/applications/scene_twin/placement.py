"""Where shapes stand, how they are turned and how large they are.

First each alone, out of its object's mask, depth and colours: yaws are tried all around; for each, place and size
follow from the mask's box and the depth. The best ones are refined by gradient descent through the rasteriser. Pixels
that something nearer may hide say nothing. Then all together: a small solver makes contact with what carries, and lets
nothing stand inside anything else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...geometry import quat_multiply, quat_to_rotmat
from ...rendering import Gaussians, render
from ...splats import Splats
from .scenes import FLOOR, WALL, Pose, Scene, SceneObject

YAWS, STARTS, STEPS = 16, 3, 15  # tried, of these refined, and steps of each; twice as many of the best
SIDE = 96  # pixels of the crop that is compared
Box = tuple[np.ndarray, np.ndarray]  # low and high corner [3], metres
NEAR = 0.12  # metres: what ends so far above a surface may stand on it
HANGS = 0.35  # metres: what ends lower, on nothing, stands on the floor
ROUNDS = 60  # of pushing apart
TOUCH = 1e-3  # metres that boxes may overlap


class Fit(NamedTuple):
    """How a shape stands."""

    start: Pose  # the best of the yaws that were tried
    pose: Pose  # refined
    agreement: float  # up to 1: overlap of mask and silhouette, less errors of depth and colour


class _Target(NamedTuple):
    """What a picture of the shape is compared with, ``[S, S]`` each."""

    viewmat: Tensor  # [4, 4]
    K: Tensor  # [3, 3] of the crop
    mask: Tensor  # float
    care: Tensor  # float; 0 where something nearer hides what is there, or the picture ends
    depth: Tensor  # metres, 0 where unknown
    color: Tensor  # [S, S, 3]
    box: Tensor  # [2] sides of the mask's box in the middle of the crop, pixels of the crop
    frame: Tensor  # [2, 2] low and high corner of the picture, pixels of the crop
    reach: float  # median depth of what is seen, metres
    largest: float  # metres that a shape may measure


def fit_pose(scene: Scene, one: SceneObject, shape: Splats, *, on_floor: bool = False) -> Fit:
    """Find the pose at which a shape looks like an object of a picture.

    Args:
        scene: with depth or without; without, the object is taken to stand on the floor.
        one: of the scene.
        shape: in the unit sphere, +y up, front +z.
        on_floor: whether the lowest point of the refined pose must lie on the floor.
    """
    target = _target(*scene.closest(one))
    solid = shape[shape.opacities > 0.1] if bool((shape.opacities > 0.1).any()) else shape
    foot = -float(solid.means[:, 1].min()) if on_floor else None
    starts = [_start(target, solid, 360.0 * k / YAWS) for k in range(YAWS)]
    agreement = functools.partial(_agreement, target, shape)
    starts.sort(key=agreement, reverse=True)
    tried = [_refine(target, shape, start, STEPS, foot) for start in starts[:STARTS]]
    pose = _refine(target, shape, max(tried, key=agreement), 2 * STEPS, foot)
    return max((Fit(starts[0], each, agreement(each)) for each in (pose, starts[0])), key=lambda fit: fit.agreement)


def _target(scene: Scene, one: SceneObject) -> _Target:
    height, width = one.mask.shape
    rows, columns = np.nonzero(one.mask)
    low = np.array([columns.min(), rows.min()], float)
    box = np.array([columns.max(), rows.max()]) + 1 - low
    side = 1.5 * float(box.max())
    corner = low + box / 2 - side / 2
    K = scene.K.double().clone()
    K[:2, 2] -= torch.from_numpy(corner)
    K[:2] *= SIDE / side
    depth, mask = scene.known_depth(), one.mask
    known = depth[mask & (depth > 0)]
    reach = float(np.median(known)) if len(known) else _floor_depth(scene, low, box)
    hides = np.zeros_like(mask)
    for other in scene.objects:
        if other.number != one.number:
            theirs = depth[other.mask & (depth > 0)]
            hides |= other.mask & (np.median(theirs) < reach if len(theirs) else True)
    largest = 2.0 * reach * float(max(height, width) / scene.K[0, 0])
    around = (depth > 0) & ~mask
    if around.mean() > 0.1:
        largest = float(np.ptp(scene.points(around), axis=0).max())

    def cut(picture: np.ndarray) -> Tensor:
        """The nearest pixels ``[S, S, ...]`` float32; 0 outside of the picture."""
        extent = (SIDE, SIDE), Image.Transform.EXTENT, (*corner, *(corner + side))
        return torch.from_numpy(np.array(Image.fromarray(picture).transform(*extent), np.float32))

    return _Target(
        viewmat=scene.viewmat.double(),
        K=K,
        mask=cut(mask),
        care=cut(~hides | mask),
        depth=cut(depth),
        color=cut(scene.image) / 255,
        box=torch.from_numpy(box * SIDE / side),
        frame=torch.from_numpy((np.array([[0, 0], [width, height]]) - corner) * SIDE / side),
        reach=reach,
        largest=largest,
    )


def _floor_depth(scene: Scene, low: np.ndarray, box: np.ndarray) -> float:
    """Depth at which the ray through the lower end of a mask's box meets the floor; 3 m when it never does."""
    pixel = torch.tensor([low[0] + box[0] / 2, low[1] + box[1], 1.0], dtype=torch.float64)
    ray = scene.viewmat[:3, :3].double().T @ torch.linalg.solve(scene.K.double(), pixel)
    height = float(scene.camera.centers[0, 1])
    return -height / float(ray[1]) if height > 0 and float(ray[1]) < -1e-3 else 3.0


def _start(target: _Target, solid: Splats, yaw: float) -> Pose:
    """Place and size at which the shape, so turned, fills the mask's box at the depth that is seen.

    What leaves the picture is cut off, and says nothing about the size along that axis.
    """
    turn = Pose((0.0, 0.0, 0.0), yaw, 1.0).matrix()[:3, :3]
    rotation = target.viewmat[:3, :3]
    points = solid.means.double() @ (rotation @ turn).T  # [N, 3] along the camera's axes
    focal = target.K[[0, 1], [0, 1]]
    scale, center, nearest = 0.5, torch.zeros(2, dtype=torch.float64), float(points[:, 2].quantile(0.25))
    middle = (SIDE / 2 - target.K[:2, 2]) / focal
    ends = SIDE / 2 + torch.stack([-target.box, target.box]) / 2  # [2, 2]
    whole = ((ends - target.frame).abs() > 0.02 * SIDE).all(dim=0)
    whole = whole if bool(whole.any()) else ~whole
    for _ in range(8):
        z = target.reach - scale * nearest
        eye = torch.cat([middle * z + center, torch.tensor([z], dtype=torch.float64)])
        local = scale * points + eye
        pixels = local[:, :2] / local[:, 2:].clamp_min(0.05) * focal + target.K[:2, 2]
        low, high = (corner.clamp(*target.frame) for corner in (pixels.amin(dim=0), pixels.amax(dim=0)))
        ratio = float((target.box / (high - low).clamp_min(1e-3))[whole].log().mean().exp())
        scale = min(scale * ratio, target.largest / 2)
        center = center + (SIDE / 2 - (low + high) / 2) / focal * z
    position = rotation.T @ (eye - target.viewmat[:3, 3])
    x, y, z = position.tolist()
    return Pose((x, y, z), yaw, scale)


def _differences(target: _Target, shape: Splats | Gaussians, size: float) -> tuple[Tensor, Tensor]:
    """How much of each pixel a shape covers ``[S, S]``, and by how much depth (in sizes) and colour are off, summed."""
    out = render(shape, target.viewmat.float()[None], target.K.float()[None], SIDE, SIDE, 0)
    alpha = out.alphas[0, ..., 0]
    known = alpha.detach() * target.mask * (target.depth > 0)
    gap = ((out.depths[0, ..., 0] - target.depth) / size).abs().clamp_max(1.0)
    paint = (out.colors[0] - alpha.detach()[..., None] * target.color).abs().mean(dim=-1) * target.mask
    return alpha, (gap * known).sum() / known.sum().clamp_min(1) + paint.sum() / target.mask.sum()


def _agreement(target: _Target, shape: Splats, pose: Pose) -> float:
    """See `Fit.agreement`."""
    with torch.no_grad():
        alpha, differences = _differences(target, shape.transform(pose.matrix()), pose.scale)
    alpha = alpha * target.care
    both = alpha * target.mask
    return float(both.sum() / (alpha + target.mask - both).sum().clamp_min(1e-6) - 0.5 * differences)


def _refine(target: _Target, shape: Splats, start: Pose, steps: int, foot: float | None) -> Pose:
    """Descend on position, yaw and size together (Adam), silhouette first and depth and colour beside it.

    ``foot`` is the height of the shape's middle above its lowest point, in its units, when it stands on the floor.
    """
    shift = torch.zeros(3, requires_grad=True)  # of the position, in sizes of the start
    angle = torch.zeros((), requires_grad=True)  # radians, of the yaw
    growth = torch.zeros((), requires_grad=True)  # logarithm
    optimizer = torch.optim.Adam([{"params": [shift, growth], "lr": 0.02}, {"params": [angle], "lr": 0.04}])
    position, zero = torch.tensor(start.position, dtype=torch.float32), torch.zeros(())
    most = math.log(max(target.largest / 2 / start.scale, 1.0))
    for _ in range(steps):
        optimizer.zero_grad()
        half, scale = (math.radians(start.yaw) + angle) / 2, start.scale * growth.clamp_max(most).exp()
        place = position + start.scale * shift
        place = place if foot is None else torch.stack([place[0], foot * scale, place[2]])
        turn = torch.stack([half.cos(), zero, half.sin(), zero])
        means, quats = shape.means @ quat_to_rotmat(turn).T, quat_multiply(turn, shape.quats)
        colors = (shape.opacities, shape.sh0, shape.shN)
        moved = Gaussians(scale * means + place, quats, scale * shape.scales, *colors)
        alpha, differences = _differences(target, moved, start.scale)
        outline = ((alpha - target.mask).abs() * target.care).sum() / target.mask.sum()
        (outline + 0.5 * differences).backward()
        optimizer.step()
    x, y, z = place.tolist()
    yaw = (start.yaw + math.degrees(float(angle.detach())) + 180) % 360 - 180
    return Pose((x, y, z), yaw, float(scale.detach()))


def find_supports(scene: Scene) -> dict[int, int]:
    """What each object stands on: what the scene says, else what depth and masks tell.

    An object that ends near the floor stands there. Another one stands on the object with most points right below it.
    Where there is none, it hangs at a wall, unless something hides its lower end, or that is near the floor. Without
    depth, all stand on the floor.
    """
    views = {one.number: scene.closest(one) for one in scene.objects}
    points = {number: view.points(seen.mask) for number, (view, seen) in views.items()}
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
            supports[one.number] = WALL if bottom > HANGS and not _hidden_below(*views[one.number]) else FLOOR
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
        related = first in carriers(second, supports) or second in carriers(first, supports)
        if not related and bool((_depth(boxes[first], boxes[second]) > TOUCH).all()):
            pairs.append((first, second))
    return pairs


def _depth(first: Box, second: Box) -> np.ndarray:
    """How far ``[3]`` two boxes reach into each other."""
    return np.asarray(np.minimum(first[1], second[1]) - np.maximum(first[0], second[0]))


def _step(first: Box, second: Box) -> np.ndarray:
    """How far ``[3]`` the first of two boxes goes, and the second goes back, to part along x or z."""
    depth, step = _depth(first, second), np.zeros(3)
    axis = 0 if depth[0] < depth[2] else 2
    step[axis] = (depth[axis] + TOUCH) / 2 * (1 if np.add(*first)[axis] >= np.add(*second)[axis] else -1)
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
