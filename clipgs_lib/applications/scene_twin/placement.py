"""Where a shape stands, how it is turned and how large it is, out of one object's mask, depth and colours.

Yaws are tried all around; for each, place and size follow from the mask's box and the depth. The best ones are refined
by gradient descent through the rasteriser. Pixels that something nearer may hide say nothing.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...geometry import quat_multiply
from ...rendering import Gaussians, render
from ...splats import Splats
from .scenes import Pose, Scene, SceneObject

YAWS, STARTS, STEPS = 16, 3, 15  # tried, of these refined, and steps of each; twice as many of the best
SIDE = 96  # pixels of the crop that is compared


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
    middle: Tensor  # [2] of the mask's box, pixels of the crop
    box: Tensor  # [2] sides of the mask's box, pixels of the crop
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
    target = _target(scene, one)
    solid = shape[shape.opacities > 0.1] if bool((shape.opacities > 0.1).any()) else shape
    foot = -float(solid.means[:, 1].min()) if on_floor else None
    starts = [_start(target, solid, 360.0 * k / YAWS) for k in range(YAWS)]
    agreement = functools.partial(_agreement, target, shape)
    starts.sort(key=agreement, reverse=True)
    tried = [_refine(target, shape, start, STEPS, foot) for start in starts[:STARTS]]
    pose = _refine(target, shape, max(tried, key=agreement), 2 * STEPS, foot)
    return max((Fit(starts[0], each, agreement(each)) for each in (pose, starts[0])), key=lambda fit: fit.agreement)


def _target(scene: Scene, one: SceneObject) -> _Target:
    rows, columns = np.nonzero(one.mask)
    low = np.array([columns.min(), rows.min()], float)
    box = np.array([columns.max(), rows.max()]) + 1 - low
    side = 1.5 * float(box.max())
    corner = low + box / 2 - side / 2
    K = scene.K.double().clone()
    K[:2, 2] -= torch.from_numpy(corner)
    K[:2] *= SIDE / side
    places = np.floor(corner[:, None] + (np.arange(SIDE) + 0.5) * side / SIDE).astype(int)  # [2, S]
    height, width = one.mask.shape
    pick = np.ix_(places[1].clip(0, height - 1), places[0].clip(0, width - 1))
    inside = ((places[1] >= 0) & (places[1] < height))[:, None] & ((places[0] >= 0) & (places[0] < width))
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
    seen = [torch.from_numpy((each[pick] & inside).astype(np.float32)) for each in (mask, ~hides | mask)]
    return _Target(
        viewmat=scene.viewmat.double(),
        K=K,
        mask=seen[0],
        care=seen[1],
        depth=torch.from_numpy(depth[pick]),
        color=torch.from_numpy(scene.image[pick].astype(np.float32) / 255),
        middle=torch.from_numpy((low + box / 2 - corner) * SIDE / side),
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
    middle = (target.middle - target.K[:2, 2]) / focal
    ends = torch.stack([target.middle - target.box / 2, target.middle + target.box / 2])  # [2, 2]
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
        center = center + (target.middle - (low + high) / 2) / focal * z
    position = rotation.T @ (eye - target.viewmat[:3, 3])
    x, y, z = position.tolist()
    return Pose((x, y, z), yaw, scale)


def _agreement(target: _Target, shape: Splats, pose: Pose) -> float:
    """See `Fit.agreement`."""
    with torch.no_grad():
        out = render(
            shape.transform(pose.matrix()), target.viewmat.float()[None], target.K.float()[None], SIDE, SIDE, 0
        )
    alpha = out.alphas[0, ..., 0] * target.care
    both = alpha * target.mask
    share = both.sum() / (alpha + target.mask - both).sum().clamp_min(1e-6)
    known = both * (target.depth > 0)
    gap = ((out.depths[0, ..., 0] - target.depth) / pose.scale).abs().clamp_max(1.0)
    color = ((out.colors[0] - alpha[..., None] * target.color).abs().mean(dim=-1) * target.mask).sum()
    return float(share - 0.5 * (gap * known).sum() / known.sum().clamp_min(1) - 0.5 * color / target.mask.sum())


def _refine(target: _Target, shape: Splats, start: Pose, steps: int, foot: float | None) -> Pose:
    """Descend on position, yaw and size together (Adam), silhouette first and depth and colour beside it.

    ``foot`` is the height of the shape's middle above its lowest point, in its units, when it stands on the floor.
    """
    shift = torch.zeros(3, requires_grad=True)  # of the position, in sizes of the start
    angle = torch.zeros((), requires_grad=True)  # radians, of the yaw
    growth = torch.zeros((), requires_grad=True)  # logarithm
    optimizer = torch.optim.Adam([{"params": [shift, growth], "lr": 0.02}, {"params": [angle], "lr": 0.04}])
    position, K = torch.tensor(start.position, dtype=torch.float32), target.K.float()[None]
    most = math.log(max(target.largest / 2 / start.scale, 1.0))
    for _ in range(steps):
        optimizer.zero_grad()
        yaw, scale = math.radians(start.yaw) + angle, start.scale * growth.clamp_max(most).exp()
        zero, half = torch.zeros(()), yaw / 2
        place = position + start.scale * shift
        place = place if foot is None else torch.stack([place[0], foot * scale, place[2]])
        cos, sin = yaw.cos(), yaw.sin()
        turn = torch.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos]).reshape(3, 3)
        moved = Gaussians(
            scale * shape.means @ turn.T + place,
            quat_multiply(torch.stack([half.cos(), zero, half.sin(), zero]), shape.quats),
            scale * shape.scales,
            shape.opacities,
            shape.sh0,
            shape.shN,
        )
        out = render(moved, target.viewmat.float()[None], K, SIDE, SIDE, 0)
        alpha = out.alphas[0, ..., 0]
        outline = ((alpha - target.mask).abs() * target.care).sum() / target.mask.sum()
        known = alpha.detach() * target.mask * (target.depth > 0)
        gap = ((out.depths[0, ..., 0] - target.depth) / start.scale).abs().clamp_max(1.0)
        paint = (out.colors[0] - alpha.detach()[..., None] * target.color).abs().mean(dim=-1) * target.mask
        loss = outline + 0.5 * (gap * known).sum() / known.sum().clamp_min(1) + 0.5 * paint.sum() / target.mask.sum()
        loss.backward()
        optimizer.step()
    x, y, z = place.tolist()
    yaw_degrees = (start.yaw + math.degrees(float(angle.detach())) + 180) % 360 - 180
    return replace(start, position=(x, y, z), yaw=yaw_degrees, scale=float(scale.detach()))
