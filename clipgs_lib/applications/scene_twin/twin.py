"""The twin: retrieved shapes at their places, as one splat scene, a graph and a picture beside the original."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, distance_transform_edt
from torch import Tensor

from ...files import write_text
from ...formats import write_splats
from ...rendering import contact_sheet, render, save_png
from ...splats import Splats
from ...words import first_of
from .layout import arrange, carriers, find_supports, overlaps
from .placement import Fit, fit_pose
from .scenes import FLOOR, WALL, Pose, Scene
from .search import Match, Mode, Pool, retrieve


@dataclass(frozen=True, eq=False)
class Twin:
    """What stands where, by the numbers of the scene's objects."""

    scene: Scene
    matches: Mapping[int, tuple[Match, ...]]  # what was retrieved, best first
    chosen: Mapping[int, str]  # key of the shape that stands there
    shapes: Mapping[int, Splats]  # in the unit sphere
    supports: Mapping[int, int]  # what it stands on: a number, `FLOOR` or `WALL`
    fits: Mapping[int, Fit]  # by the picture alone
    poses: Mapping[int, Pose]  # set upon each other and pushed apart

    def changed(
        self, pool: Pool, choice: Mapping[int, str] | None = None, moved: Mapping[int, Pose] | None = None
    ) -> Twin:
        """Take other shapes for some objects, stand some elsewhere, and set all straight again; others keep their fit.

        Args:
            pool: which holds the shapes.
            choice: number -> key of a shape, which is fitted to the picture.
            moved: number -> where an object is to stand, whatever the picture shows.

        Raises:
            ValueError: for a number that no object has, or a key that the pool does not hold.
        """
        objects, choice, moved = {one.number: one for one in self.scene.objects}, choice or {}, moved or {}
        if unknown := [number for number in (*choice, *moved) if number not in objects]:
            raise ValueError(f"objects to change must be among {first_of(objects)}, got {first_of(unknown)}")
        new = {number: key for number, key in choice.items() if self.chosen.get(number) != key}
        shapes = {**self.shapes} | {number: pool.splats(key) for number, key in new.items()}
        floor = {number: self.supports[number] == FLOOR for number in new}
        fits = {**self.fits} | {n: fit_pose(self.scene, objects[n], shapes[n], on_floor=floor[n]) for n in new}
        fits |= {number: fits[number]._replace(pose=pose) for number, pose in moved.items()}
        poses = arrange({number: fit.pose for number, fit in fits.items()}, shapes, self.supports)
        return replace(self, chosen={**self.chosen} | new, shapes=shapes, fits=fits, poses=poses)

    def splats(self, poses: Mapping[int, Pose] | None = None) -> Splats:
        """All shapes as one scene in metres, +y up; at other poses when given."""
        placed = self.poses if poses is None else poses
        parts = [replace(self.shapes[n].transform(pose.matrix()), up_axis="+y") for n, pose in placed.items()]
        return replace(Splats.cat(parts), source=f"twin of {self.scene.name}")

    def draw(self, poses: Mapping[int, Pose] | None = None) -> Tensor:
        """The twin ``[H, W, 3]`` in ``[0, 1]`` through the scene's camera, before the picture without its objects."""
        objects = np.any([one.mask for one in self.scene.objects], axis=0)
        objects = binary_dilation(objects, iterations=2)  # their soft edges too
        _, (rows, columns) = distance_transform_edt(objects, return_indices=True)
        behind = torch.from_numpy(self.scene.image[rows, columns].astype(np.float32) / 255)
        with torch.no_grad():
            out = render(self.splats(poses), *self.scene.camera)
        return (out.colors[0] + (1 - out.alphas[0]) * behind).clamp(0, 1)

    def picture(self) -> Tensor:
        """The scene, the shapes at their first places and the twin side by side, with a line below each."""
        image = torch.from_numpy(self.scene.image.astype(np.float32) / 255)
        starts = {number: fit.start for number, fit in self.fits.items()}
        texts = ("picture", "shapes at the best of the yaws tried", "refined, set upon each other and pushed apart")
        return contact_sheet([image, self.draw(starts), self.draw()], 3, captions=texts)

    def graph(self) -> dict[str, Any]:
        """What stands where and on what, as JSON; ``overlaps`` are pairs that could not be pushed apart."""
        words = {FLOOR: "floor", WALL: "wall"}
        rows = [
            {
                "number": one.number,
                "name": one.name,
                "key": self.chosen[one.number],
                "support": words.get(self.supports[one.number], self.supports[one.number]),
                "pose": asdict(self.poses[one.number]),
                "agreement": round(self.fits[one.number].agreement, 4),
                "candidates": [match._asdict() for match in self.matches.get(one.number, ())],
            }
            for one in self.scene.objects
        ]
        return {"scene": self.scene.name, "objects": rows, "overlaps": overlaps(self.poses, self.shapes, self.supports)}

    def save(self, folder: str | os.PathLike[str], *, name: str = "twin.ply") -> Path:
        """Write the merged splats (``name`` chooses the format), ``graph.json`` and ``before_after.png``."""
        top = Path(folder)
        top.mkdir(parents=True, exist_ok=True)
        write_splats(self.splats(), top / name)
        write_text(top / "graph.json", json.dumps(self.graph(), indent=1) + "\n")
        save_png(top / "before_after.png", self.picture())
        return top


def make_twin(scene: Scene, pool: Pool, mode: Mode = "fused") -> Twin:
    """Search, place and set straight: all steps of a twin; objects that carry others search the clean pool only."""
    supports = find_supports(scene)
    carrying = {below for number in supports for below in carriers(number, supports)}
    matches = retrieve(scene, pool, mode, carriers=carrying)
    best = {number: candidates[0].key for number, candidates in matches.items()}
    return Twin(scene, matches, {}, {}, supports, {}, {}).changed(pool, best)
