"""A scene: one picture with camera, depth and the masks of its objects, in memory and as a folder; or out of splats.

Lengths are metres, the world has +y up and its floor at y = 0. A folder holds ``image.png``, ``depth.png`` (16 bit,
millimetres, 0 where nothing is known; may be missing) and ``scene.json``, which is COCO's format of instances (Lin et
al. 2014) of one picture, its masks as `masks` reads them, with ``camera`` beside them: ``viewmat [4, 4]`` (world to
camera, OpenCV axes) and ``K [3, 3]`` (pixels). An annotation may have ``support``, and of composed scenes ``truth``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import ExplainedError
from ...files import replacing, write_text
from ...fitting import init_from_splats
from ...formats import read_splats
from ...geometry import rotation_about
from ...rendering import Cameras, render, turntable_cameras
from ...rendering.cameras import FRONT, axis_vector, check_cameras
from ...rendering.images import to_uint8
from ...settings import conform, from_plain, read_file, to_plain
from ...splats import Splats
from ...words import first_of
from .masks import read_mask, run_lengths

FLOOR, WALL = 0, -1  # what an object may stand on or hang at, beside the numbers of others
MAX_SIDE, VIEW = 8192, 256  # pixels of a picture, and of one of an object of splats alone
BORDER = 0.02  # metres by which gaussians may lie outside of a box
FEWEST, MOST = 10, 1_024  # gaussians of an object: that are needed, and of which more are covered anew


class SceneError(ExplainedError):
    """A folder that holds no scene, or a broken one."""


@dataclass(frozen=True)
class Pose:
    """Where a shape of the unit sphere stands: its point x comes to ``position + scale * R(yaw) x``."""

    position: tuple[float, float, float]  # metres; of the middle of the shape's box
    yaw: float  # degrees about +y, counter-clockwise seen from above; at 0 the front looks along +z
    scale: float  # metres per unit of the shape

    def matrix(self) -> Tensor:
        """The similarity ``[4, 4]`` float64, shape to world."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3] = self.scale * rotation_about("y", self.yaw)
        matrix[:3, 3] = torch.tensor(self.position, dtype=torch.float64)
        return matrix


@dataclass(frozen=True)
class Truth:
    """What the composer knows of an object."""

    key: str  # of the same object in sets of triplets
    category: str  # as sets of triplets call it
    pose: Pose
    size: tuple[float, float, float]  # width, height, depth along the shape's axes, metres
    support: int  # number of the object below, `FLOOR` or `WALL`


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object of a picture."""

    number: int  # >= 1, its id
    name: str  # what it is called; "" where nobody knows
    mask: np.ndarray  # [H, W] bool, its visible pixels
    support: int | None = None  # what it stands on; None: to be found out
    truth: Truth | None = None
    cut: Splats | None = (
        None  # its gaussians, turned to the front and in the unit sphere, if the scene is one of splats
    )
    view: Scene | None = None  # a picture of it alone, if the scene is one of splats


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is known of it.

    Args:
        image: ``[H, W, 3]`` uint8.
        depth: ``[H, W]`` float32 z depth in metres, 0 or NaN where unknown; None without any.
        viewmat: ``[4, 4]`` world to camera, OpenCV axes; the world's floor is y = 0, +y up.
        K: ``[3, 3]`` intrinsics, pixels.
        objects: at least one, with different numbers.
        name: for people.

    Raises:
        ValueError: when shapes do not fit, a mask is empty, or numbers occur twice or name nothing.
    """

    image: np.ndarray
    depth: np.ndarray | None
    viewmat: Tensor
    K: Tensor
    objects: tuple[SceneObject, ...]
    name: str = "scene"

    def __post_init__(self) -> None:
        got = f"{self.image.dtype} {list(self.image.shape)}"
        if self.image.dtype != np.uint8 or self.image.shape[2:] != (3,) or not 1 <= max(self.image.shape) <= MAX_SIDE:
            raise ValueError(f"image must be uint8 [H, W, 3] with sides of at most {MAX_SIDE} pixels, got {got}")
        check_cameras(self.viewmat[None], self.K[None])
        shape = self.image.shape[:2]
        if self.depth is not None and (self.depth.shape != shape or bool((self.depth < 0).any())):
            got = f"{list(self.depth.shape)} from {np.nanmin(self.depth):.3g}"
            raise ValueError(f"depth must be [H, W] = {list(shape)} as the image, metres >= 0, got {got}")
        numbers = [one.number for one in self.objects]
        if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 1:
            got = first_of(numbers) or "none"
            raise ValueError(f"a scene must have objects with different numbers from 1 on, got {got}; number them anew")
        for one in self.objects:
            if one.mask.shape != shape or one.mask.dtype != bool:
                got = f"{one.mask.dtype} {list(one.mask.shape)}"
                raise ValueError(f"the mask of object {one.number} must be bool {list(shape)} as the image, got {got}")
            if not one.mask.any():
                raise ValueError(f"the mask of object {one.number} must have pixels inside the picture, got none")
            if one.support not in (None, FLOOR, WALL, *numbers) or one.support == one.number:
                raise ValueError(f"object {one.number} must stand on another of the scene, got {one.support}")

    @property
    def camera(self) -> Cameras:
        """The camera, as `rendering.render` takes it."""
        height, width = self.image.shape[:2]
        return Cameras(self.viewmat[None].float(), self.K[None].float(), width, height)

    @property
    def colors(self) -> Tensor:
        """The picture ``[H, W, 3]`` in ``[0, 1]``."""
        return torch.from_numpy(self.image.astype(np.float32) / 255)

    def closest(self, one: SceneObject) -> tuple[Scene, SceneObject]:
        """The picture that shows one of the objects best, and the object in it."""
        return (self, one) if one.view is None else (one.view, one.view.objects[0])

    def known_depth(self) -> np.ndarray:
        """Depth ``[H, W]`` in metres, 0 wherever it is not known."""
        if self.depth is None:
            return np.zeros(self.image.shape[:2], np.float32)
        return np.nan_to_num(self.depth, nan=0.0, posinf=0.0).astype(np.float32)

    def points(self, mask: np.ndarray) -> np.ndarray:
        """Places in the world ``[n, 3]`` of the pixels of a mask ``[H, W]`` whose depth is known."""
        depth = self.known_depth()
        rows, columns = np.nonzero(mask & (depth > 0))
        pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])  # [3, n]
        local = np.linalg.inv(self.K.double().numpy()) @ pixels * depth[rows, columns]
        viewmat = self.viewmat.double().numpy()
        return np.asarray((local.T - viewmat[:3, 3]) @ viewmat[:3, :3])

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write the scene as a folder; files that are there are replaced."""
        top = Path(folder)
        top.mkdir(parents=True, exist_ok=True)
        millimetres = np.rint(self.known_depth() * 1000).clip(0, 65535).astype(np.uint16)
        pictures = {"image.png": self.image} | ({} if self.depth is None else {"depth.png": millimetres})
        for name, picture in pictures.items():
            with replacing(top / name) as draft:
                Image.fromarray(picture).save(draft, format="PNG")
        height, width = self.image.shape[:2]
        names = list(dict.fromkeys(one.name for one in self.objects))
        facts = {
            "images": [{"id": 1, "file_name": "image.png", "width": width, "height": height}],
            "camera": {"viewmat": self.viewmat.tolist(), "K": self.K.tolist()},
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
            "annotations": [_annotation(one, names.index(one.name) + 1) for one in self.objects],
        }
        write_text(top / "scene.json", json.dumps(facts) + "\n")
        return top


def segmented(
    image: np.ndarray,
    names: Sequence[str],
    segmenter: Callable[[np.ndarray, Sequence[str]], Sequence[np.ndarray]],
    viewmat: Tensor,
    K: Tensor,
    depth: np.ndarray | None = None,
) -> Scene:
    """A scene whose masks a function of the picture and the names makes, such as a segmentation model.

    Raises:
        ValueError: unless it gives one mask ``[H, W]`` per name, and as `Scene`.
    """
    masks = [np.asarray(mask, bool) for mask in segmenter(image, names)]
    if len(masks) != len(names):
        raise ValueError(f"the segmenter must give one mask for each of {len(names)} names, got {len(masks)}")
    return Scene(image, depth, viewmat, K, tuple(map(SceneObject, range(1, len(names) + 1), names, masks)))


@dataclass(frozen=True)
class ObjectBox:
    """Where an object of a scene of splats is, in the scene's axes and units."""

    id: int  # >= 1
    center: tuple[float, float, float]
    size: tuple[float, float, float]  # along the scene's axes, before it is turned
    yaw: float = 0.0  # degrees about the axis that is up, counter-clockwise seen from above
    name: str = ""  # what it is called; "" where nobody knows

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.center, *self.size, self.yaw))) or min(self.size) <= 0:
            got = f"{self.center}, {self.size} and {self.yaw}"
            raise ValueError(f"box {self.id} must have a finite center, sizes > 0 and a finite yaw, got {got}")


@dataclass(frozen=True)
class SceneBoxes:
    """A file of boxes. At yaw 0 objects face +z where +y is up, -y where +z is (`rendering.cameras.FRONT`)."""

    boxes: tuple[ObjectBox, ...]
    up_axis: str = "+y"  # of the scene; whatever its file says
    metres: float = 1.0  # that one unit of the scene measures
    floor: float | None = None  # its height in units of the scene; None: the lowest box stands on it


def read_scene(path: str | os.PathLike[str], boxes: str | os.PathLike[str] | None = None) -> Scene:
    """Read a scene that `Scene.write` wrote or a person in the same format, or cut one out of splats with boxes.

    A gaussian belongs to the smallest box that holds its centre, else to the nearest one within 2 cm. Objects of splats
    have a ``cut`` and a ``view``, and their mask is their whole outline, whatever hides it in the picture of them all.

    Args:
        path: folder of the scene; or a splat file of any format.
        boxes: JSON of `SceneBoxes`, such as ``{"boxes": [{"id": 1, "center": [0, 1, 2], "size": [1, 2, 1]}]}``.

    Raises:
        SceneError: when files are missing or broken, hold no scene, or do not fit each other; with what is wrong.
    """
    try:
        scene = _from_folder(Path(path)) if boxes is None else _from_splats(read_splats(path), read_file(boxes))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError) as error:
        must = "this must hold a scene: image.png, scene.json and perhaps depth.png; or splats with boxes"
        got = f"nothing called {error}" if isinstance(error, KeyError) else str(error)[:300]
        raise SceneError(path, must, got, "see the docstring of scene_twin.scenes") from None
    return replace(scene, name=Path(path).resolve().name)


def _from_folder(top: Path) -> Scene:
    facts = read_file(top / "scene.json")
    entry, names, rows = _only_image(facts), _names(facts["categories"]), facts["annotations"]
    image, depth = np.asarray(Image.open(top / str(entry["file_name"])).convert("RGB")), None
    size = list(image.shape[1::-1])
    if (stated := [entry.get("width", size[0]), entry.get("height", size[1])]) != size:
        raise ValueError(f"the image must have the width and height that scene.json states, {stated}, got {size}")
    if (top / "depth.png").exists():
        depth = _depth(Image.open(top / "depth.png"))
    camera = facts["camera"]
    viewmat, K = torch.tensor(camera["viewmat"]).float(), torch.tensor(camera["K"]).float()
    return Scene(image, depth, viewmat, K, tuple(_object(row, names, image.shape[:2]) for row in rows))


def _only_image(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    entries = facts["images"]
    if len(entries) != 1:
        got = f"{len(entries)}: {first_of(entry.get('file_name') for entry in entries)}" if entries else "none"
        raise ValueError(f"scene.json must list one image, got {got}; keep one of them, and its annotations")
    number = entries[0].get("id")
    if others := {row["image_id"] for row in facts["annotations"] if row.get("image_id", number) != number}:
        must = f"annotations must be of image {number}, the one that scene.json lists"
        raise ValueError(f"{must}, got some of image {first_of(sorted(others, key=str))}; leave these out")
    return dict(entries[0])


def _names(categories: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    names = {kind["id"]: conform(kind.get("name"), str, f"name of category {kind['id']}") for kind in categories}
    if len(names) < len(categories):
        raise ValueError(f"categories must have different ids, got {first_of(kind['id'] for kind in categories)}")
    return names


def _depth(picture: Image.Image) -> np.ndarray:
    if not picture.mode.startswith("I"):  # as Pillow calls one channel of 16 bits or more
        must = "depth.png must have one channel of 16 bits, millimetres from the camera's plane and 0 where unknown"
        raise ValueError(f"{must}, got Pillow's mode {picture.mode}; write it as such, or leave it out")
    return np.asarray(picture, np.float32) / 1000


def _annotation(one: SceneObject, category: int) -> dict[str, Any]:
    rows, columns = np.nonzero(one.mask)
    left, top = int(columns.min()), int(rows.min())
    facts = {
        "id": one.number,
        "image_id": 1,
        "category_id": category,
        "iscrowd": 0,
        "area": int(one.mask.sum()),
        "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
        "segmentation": {"size": list(one.mask.shape), "counts": run_lengths(one.mask)},
    }
    facts |= {} if one.support is None else {"support": one.support}
    return facts | ({} if one.truth is None else {"truth": to_plain(one.truth)})


def _object(annotation: Mapping[str, Any], names: Mapping[int, str], shape: tuple[int, ...]) -> SceneObject:
    number = int(conform(annotation["id"], int, "id of an annotation"))
    category: Any = annotation.get("category_id")
    if category not in names:
        raise ValueError(f"object {number} must name one of the categories {first_of(names)}, got {category!r}")
    truth = from_plain(Truth, annotation["truth"]) if "truth" in annotation else None
    support = conform(annotation.get("support"), int | None, f"support of object {number}")
    mask = read_mask(annotation.get("segmentation"), shape, number)
    return SceneObject(number, names[category], mask, support, truth)


def _from_splats(splats: Splats, facts: Mapping[str, Any]) -> Scene:
    rows = [conform(row, ObjectBox, f"entry {number} of boxes") for number, row in enumerate(facts["boxes"], 1)]
    given = from_plain(SceneBoxes, {**facts, "boxes": rows})
    if not given.boxes or not given.metres > 0:
        raise ValueError(f"there must be a box and metres > 0, got {len(given.boxes)} and {given.metres}")
    up, front = axis_vector(given.up_axis), axis_vector(FRONT[given.up_axis])
    turn = given.metres * torch.stack([torch.linalg.cross(up, front), up, front])  # rows: what becomes x, y and z
    centers = np.array([box.center for box in given.boxes]) @ turn.T.numpy()
    sizes = np.array([box.size for box in given.boxes]) @ turn.T.abs().numpy()
    lowest = (centers - sizes / 2)[:, 1].min()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[1, 3] = turn, -lowest if given.floor is None else -given.metres * given.floor
    world = replace(splats.prune()[0].transform(matrix), up_axis="+y")
    cuts = _cut(world, given.boxes, centers + matrix[:3, 3].numpy(), sizes)
    low, high = Splats.cat(cuts).bounds()
    shown = world[((world.means >= low - BORDER) & (world.means <= high + BORDER)).all(dim=1)]
    camera = turntable_cameras(shown, 1, elevation=30, width=640, height=480)
    objects = tuple(_boxed(box, cut, camera) for box, cut in zip(given.boxes, cuts, strict=True))
    return Scene(*_draw(shown, camera), camera.viewmats[0], camera.Ks[0], objects)


def _cut(world: Splats, boxes: Sequence[ObjectBox], centers: np.ndarray, sizes: np.ndarray) -> list[Splats]:
    """The gaussians of each box."""
    means, order = world.means.double().numpy(), sizes.prod(axis=1).argsort()
    turns = [rotation_about("y", box.yaw).numpy() for box in boxes]
    outside = [(np.abs((means - centers[i]) @ turns[i]) - sizes[i] / 2).max(axis=1).clip(0) for i in order]
    owners = np.where(np.min(outside, axis=0) <= BORDER, order[np.argmin(outside, axis=0)], -1)
    cuts = [world[torch.from_numpy(owners == i)] for i in range(len(boxes))]
    extent = np.ptp(means, axis=0)
    for box, cut, size in zip(boxes, cuts, sizes, strict=True):
        if len(cut) < FEWEST or size.max() > 2 * extent.max():
            must = f"box {box.id} {box.name!r} must lie in the scene and hold at least {FEWEST} gaussians of its own"
            got = f"{len(cut)} in {size.round(2).tolist()} m of a scene of {extent.round(2).tolist()} m"
            raise ValueError(f"{must}, got {got}; are up_axis and metres right?")
    return cuts


def _boxed(box: ObjectBox, cut: Splats, camera: Cameras) -> SceneObject:
    ring = turntable_cameras(cut, 12, elevation=25, width=VIEW, height=VIEW)
    place = round(box.yaw / 30 + 1) % 12  # from where the front and one side are seen
    closer = ring._replace(viewmats=ring.viewmats[place : place + 1], Ks=ring.Ks[place : place + 1])
    image, depth = _draw(cut, closer)
    view = Scene(image, depth, closer.viewmats[0], closer.Ks[0], (SceneObject(box.id, box.name, depth > 0),))
    shape = cut.rotate("y", -box.yaw).normalize()
    shape = shape if len(shape) <= MOST else init_from_splats(shape, MOST)
    return SceneObject(box.id, box.name, _draw(cut, camera)[1] > 0, cut=shape, view=view)


def _draw(splats: Splats, camera: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Picture ``[H, W, 3]`` uint8 over white, and depth ``[H, W]``, 0 where more than half of the white is seen."""
    with torch.no_grad():
        out = render(splats, *camera, background=(1.0, 1.0, 1.0))
    return to_uint8(out.colors[0]), (out.depths * (out.alphas > 0.5))[0, ..., 0].numpy()
