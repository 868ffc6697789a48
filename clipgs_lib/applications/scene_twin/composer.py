"""Rooms with complete ground truth: furniture on a floor and at walls, small things on it, one picture of it all.

They are furnished with Sweet Home 3D's furniture where it is installed, else with objects of the catalogue.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ...catalogue import CATEGORIES, make
from ...catalogue.patterns import texture
from ...geometry import rotation_about
from ...meshes import Furniture, Mesh, Part, list_furniture, read_furniture
from ...rendering import Cameras, look_at, pinhole, render_views
from ...rendering.images import to_uint8
from ...shards import ShardSet
from ...triplets import Source, catalogue_sources, folder_sources
from .scenes import FLOOR, WALL, Pose, Scene, SceneObject, Truth

FURNITURE = Path("/usr/share/sweethome3d/furniture")  # where the package sweethome3d-furniture puts it
Role = Literal["table", "floor", "small", "wall"]  # "table": stands on the floor and carries small things

_MOST = 10_000  # of the catalogue, that are looked for in sets
_ROOMS = ("Living room", "Kitchen", "Bedroom", "Office", "Bathroom", "Lights", "Miscellaneous")
_TABLES = re.compile(r"table$|table on|table with|desk|dresser|tv stand|bookcase|shelves|island|chest|lower cabinet")
_SEATS = ("Seat", "Couch")
_FLAT = re.compile(r"bill|card|calendar|plug|socket|keys|ring|fork|knife|spoon|pencil|scissors|ruler|hanger|screw")
_HANGING = re.compile(r"ceiling|hanging|pendant|chandelier|fluorescent|track|elevator|garage|switch|socket|head")
# categories of the catalogue and their longest side in metres
_SIZES: dict[Role, str] = {
    "table": "table 1.3, coffee table 1.0, dresser 1.0, bench 1.3",
    "floor": """chair 0.95, stool 0.6, bed 2.0, sofa 1.8, armchair 0.95, floor lamp 1.6, cradle 0.9, bookshelf 1.8,
        piano 1.5, potted plant 0.8, palm tree 1.5, trash can 0.5, barrel 0.8, treasure chest 0.7, basket 0.5,
        suitcase 0.7, guitar 1.0, surfboard 1.8, cart 1.0""",
    "small": """table lamp 0.45, lantern 0.35, candelabra 0.4, cactus 0.3, flower 0.35, ball 0.22, mug 0.14,
        teapot 0.24, vase 0.32, bowl 0.24, pitcher 0.28, cooking pot 0.3, jar 0.2, cake stand 0.3, laptop 0.36,
        radio 0.3, alarm clock 0.18, camera 0.16, bottle 0.3, teddy bear 0.35, robot 0.3, rubber duck 0.2, trophy 0.32,
        top hat 0.28, layer cake 0.3""",
}
TRIES = 60  # places tried for a thing before another is taken
CLEAR = 0.05  # metres between things on the floor
_SHARE = 0.3  # of an object that must be seen for it to count
_WALLS = ((0.93, 0.91, 0.86), (0.84, 0.88, 0.90), (0.90, 0.86, 0.80), (0.86, 0.90, 0.84), (0.95, 0.95, 0.95))
_WOODS = (((0.72, 0.55, 0.38), (0.55, 0.38, 0.24)), ((0.50, 0.36, 0.25), (0.36, 0.25, 0.17)))


@dataclass(frozen=True)
class Asset:
    """An object that a room may be furnished with. Lengths are metres."""

    source: Source  # its key in sets of triplets, and where it is read
    name: str
    role: Role
    length: float  # of its longest side
    top: float | None = None  # height of the place for things to stand on; None: wherever it ends
    elevation: float = 0.0  # of its lower side above the floor, when it hangs

    def read(self) -> Mesh:
        """Its mesh in metres, +y up, front +z, the middle of its box at the origin."""
        source = self.source
        return _read(source.kind, source.path, source.index, source.seed, self.length)


def furniture_assets(folder: str | os.PathLike[str] = FURNITURE) -> list[Asset]:
    """What of Sweet Home 3D's furniture (``.sh3f`` below a folder) belongs into rooms, with its true sizes.

    Raises:
        ShardError: when there is no such file.
    """
    sources = [source for source in folder_sources(folder) if source.path.endswith(".sh3f") and source.index]
    pieces = {path: {p.number: p for p in list_furniture(path)} for path in {source.path for source in sources}}
    assets = []
    for source in sources:
        piece = pieces[source.path][source.index]
        role = _role(piece)
        if role is not None:
            height = piece.drop_on_top / 100 if role == "table" and piece.drop_on_top is not None else None
            length, elevation = max(piece.size) / 100, piece.elevation / 100
            assets.append(Asset(source, piece.name.lower(), role, length, height, elevation))
    return assets


def catalogue_assets(count: int = 248, seed: int = 0) -> list[Asset]:
    """Those of the first objects of the catalogue that belong into rooms, with plausible sizes; 248: the sample's."""
    entries = [(role, *entry.strip().rpartition(" ")) for role, text in _SIZES.items() for entry in text.split(",")]
    known = {name: (role, float(length)) for role, name, _, length in entries}
    names = list(CATEGORIES)
    named = ((source, names[source.index % len(names)]) for source in catalogue_sources(count, seed))
    return [Asset(source, name, *known[name]) for source, name in named if name in known]


def assets_in(sets: Mapping[str, ShardSet]) -> list[Asset]:
    """Furniture where it is installed, and objects of the catalogue, that sets hold (key -> its set), to fill rooms.

    Raises:
        ValueError: when they hold none.
    """
    assets = furniture_assets() if any(FURNITURE.glob("*.sh3f")) else []
    for shards in set(sets.values()):
        made = shards.read(0).provenance.get("catalogue")
        assets += catalogue_assets(_MOST, made["seed"]) if isinstance(made, dict) else []
    assets = [asset for asset in assets if asset.source.key in sets]
    if not assets:
        raise ValueError(
            "the pool must hold furniture of Sweet Home 3D or objects of the catalogue, got neither; "
            "build it: clipgs triplets build --meshes /usr/share/sweethome3d/furniture --out SET"
        )
    return assets


def _role(piece: Furniture) -> Role | None:
    """Where a piece of furniture stands; None for what is no part of rooms, too small to see, or too large."""
    width, height, depth = piece.size
    name = piece.name.lower()
    hangs = piece.elevation >= 60 and piece.category in _ROOMS
    if piece.door_or_window or hangs:
        fits = 25 <= max(piece.size) <= 220 and width <= 180 and depth <= 60 and piece.elevation + height <= 240
        return "wall" if fits and not _HANGING.search(name) else None
    if piece.category not in _ROOMS or piece.elevation > 0:
        return None
    if max(piece.size) <= 60 and not set(piece.tags) & set(_SEATS):
        return "small" if max(width, depth) <= 45 and sorted(piece.size)[1] >= 10 and not _FLAT.search(name) else None
    if max(width, depth) > 240 or height > 220 or height < 25 or min(width, depth) < 15:
        return None
    carries = piece.drop_on_top is not None and 30 <= piece.drop_on_top <= 125 and max(width, depth) >= 50
    return "table" if carries and _TABLES.search(name) and "changing" not in name else "floor"


@functools.lru_cache(maxsize=128)
def _read(kind: str, path: str, index: int, seed: int, length: float) -> Mesh:
    mesh = make(index, seed).mesh if kind == "catalogue" else read_furniture(path, index)[1].mesh
    unit = mesh.normalize()
    low, high = unit.bounds()
    return scaled(unit, length / float(np.max(high - low)))


def scaled(mesh: Mesh, scale: float, yaw: float = 0.0, shift: Sequence[float] = (0.0, 0.0, 0.0)) -> Mesh:
    """A mesh made larger, turned about +y by ``yaw`` degrees and moved."""
    turn = scale * rotation_about("y", yaw).numpy()
    moved = [(part.vertices @ turn.T + np.asarray(shift)).astype(np.float32) for part in mesh.parts]
    return replace(mesh, parts=tuple(replace(part, vertices=at) for part, at in zip(mesh.parts, moved, strict=True)))


@dataclass(frozen=True, eq=False)
class _Placed:
    asset: Asset
    mesh: Mesh  # in the room
    truth: Truth  # its support: place in the list of things, +1; or FLOOR, WALL
    low: np.ndarray  # [3]
    high: np.ndarray  # [3]

    @functools.cached_property
    def points(self) -> np.ndarray:
        """Places ``[30_000, 3]`` on its surface."""
        return self.mesh.sample(30_000, np.random.default_rng(0)).points


def compose(
    seed: int,
    assets: Sequence[Asset],
    *,
    width: int = 640,
    height: int = 480,
    furniture: int = 5,
    small: int = 4,
) -> Scene:
    """Furnish a room at random, and take its picture; equal arguments give equal scenes.

    Things on the floor, at least one of them a table, do not touch each other; half of them stand with their back to a
    wall, the others are turned at random. Small things stand where the surface below carries them whole. What the
    picture hardly shows (less than 30 % of it, or its middle outside) is left out of the scene.

    Args:
        seed: another seed, another room.
        assets: to choose from, see `assets.assets_in`.
        width, height: of the picture, pixels.
        furniture, small: things that are tried on the floor, and on these.

    Raises:
        ValueError: when nothing fits the room, or no picture shows anything.
    """
    rng = np.random.default_rng([seed, 2026])
    for _ in range(5):
        room = _Room(rng, rng.uniform((3.6, 2.5, 3.6), (5.0, 2.7, 4.6)))
        room.furnish(assets, furniture, small)
        scene = room.picture(width, height, f"scene-{seed:04d}")
        if scene is not None:
            return scene
    sizes = ", ".join(f"{asset.name} {asset.length:.2f} m" for asset in assets[:5])
    raise ValueError(f"some asset must fit a room of 5 m and be seen, got none of {len(assets)} that does: {sizes}")


class _Room:
    """A room while it is furnished."""

    def __init__(self, rng: np.random.Generator, size: np.ndarray) -> None:
        self.rng, self.size = rng, size  # metres [3]
        self.things: list[_Placed] = []

    def furnish(self, assets: Sequence[Asset], furniture: int, small: int) -> None:
        turns: list[Role] = ["floor", "floor", "table"]
        plan: list[Role] = ["table", *(turns * furniture)[: furniture - 1], "wall"]
        for role in plan + ["small"] * small:
            choices = [asset for asset in assets if asset.role == role]
            for _ in range(3 if choices else 0):
                if self.place(choices[self.rng.integers(len(choices))]):
                    break

    def place(self, asset: Asset) -> bool:
        """Stand a thing where it touches nothing but what carries it; whether there was a place."""
        mesh, rng = asset.read(), self.rng
        size = np.subtract(*mesh.bounds()[::-1])
        tables = [number for number, thing in enumerate(self.things, 1) if thing.asset.role == "table"]
        if (size > self.size - 0.1).any() or (asset.role == "small" and not tables):
            return False
        for _ in range(TRIES):
            yaw, side = float(rng.uniform(-180, 180)), int(rng.integers(6))  # at the back, left or right wall, or none
            side = 0 if asset.role == "wall" else side if asset.role != "small" else 5
            yaw = (0.0, 90.0, -90.0)[side] if side < 3 else yaw
            low, high = scaled(mesh, 1.0, yaw).bounds()
            support, middle = self.spot(asset, (high - low) / 2, side, tables)
            if middle is None:
                continue
            shift = middle - (low + high) / 2
            low, high = low + shift, high + shift
            clear = CLEAR if support == FLOOR else 0.01
            others = [thing for number, thing in enumerate(self.things, 1) if number != support]
            apart = all(((low > o.high + clear) | (high < o.low - clear)).any() for o in others)
            inside = bool((low > -1e-3).all() and (high < self.size + 1e-3).all())
            if apart and inside and (support != FLOOR or high[2] < self.size[2] - 1.3):  # not before the camera's face
                x, y, z, wide, tall, deep = (float(value) for value in (*shift, *size))
                pose = Pose((x, y, z), yaw, float(mesh.sphere()[1]))
                truth = Truth(asset.source.key, asset.name, pose, (wide, tall, deep), support)
                self.things.append(_Placed(asset, scaled(mesh, 1.0, yaw, shift), truth, low, high))
                return True
        return False

    def spot(self, asset: Asset, half: np.ndarray, side: int, tables: Sequence[int]) -> tuple[int, np.ndarray | None]:
        """Support and middle ``[3]`` of a random place for a thing of such half sides; None on too small a table."""
        if asset.role == "small":
            support = tables[int(self.rng.integers(len(tables)))]
            foot = self.on_top(self.things[support - 1], half)
            return support, None if foot is None else foot + half * (0, 1, 0)
        hangs = asset.role == "wall"
        middle = self.rng.uniform(half, np.maximum(self.size - half, half))
        middle[1] = half[1] + (asset.elevation if hangs else 0.0)
        if side < 3:
            gap = 0.0 if hangs else 0.02
            axis, value = ((2, half[2] + gap), (0, half[0] + gap), (0, self.size[0] - half[0] - gap))[side]
            middle[axis] = value
        return WALL if hangs else FLOOR, middle

    def on_top(self, table: _Placed, half: np.ndarray) -> np.ndarray | None:
        """A place ``[3]`` on a table whose surface carries a footprint whole and leaves room above; None without."""
        low, high = table.low + half * (1, 0, 1), table.high - half * (1, 0, 1)
        if (low > high)[[0, 2]].any():
            return None
        spot = self.rng.uniform(np.minimum(low, high), high)
        offsets = (table.points - spot) / np.maximum(half, 1e-3)
        points, offsets = (each[(np.abs(offsets[:, (0, 2)]) < 1).all(axis=1)] for each in (table.points, offsets))
        ceiling = table.low[1] + (table.asset.top + 0.03 if table.asset.top is not None else 99)
        below = points[:, 1] <= ceiling
        if not below.any():
            return None
        height = float(points[below, 1].max())
        carries = np.abs(points[:, 1] - height) < 0.012
        cells = np.unique(np.floor(offsets[carries][:, (0, 2)] * 2), axis=0)  # of 4 x 4
        blocked = (points[:, 1] > height + 0.012) & (points[:, 1] < height + 2 * half[1])
        return None if len(cells) < 15 or blocked.any() else np.array([spot[0], height, spot[2]])

    def shell(self) -> Mesh:
        """A wooden floor, a wall at the back, and one or two at the sides."""
        x, y, z = (float(length) for length in self.size)
        corners = {
            "floor": ((0, 0, 0), (0, 0, z), (x, 0, z), (x, 0, 0)),
            "back": ((0, 0, 0), (x, 0, 0), (x, y, 0), (0, y, 0)),
            "left": ((0, 0, z), (0, 0, 0), (0, y, 0), (0, y, z)),
            "right": ((x, 0, 0), (x, 0, z), (x, y, z), (x, y, 0)),
        }
        if self.rng.random() < 0.4:
            del corners["left" if self.rng.random() < 0.5 else "right"]
        wood, paint = (colors[self.rng.integers(len(colors))] for colors in (_WOODS, _WALLS))
        faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
        floor, *walls = (
            Part(np.array(square, np.float32), faces, (*paint, 1.0), name=name) for name, square in corners.items()
        )
        uvs = np.ascontiguousarray(floor.vertices[:, (0, 2)] * np.float32(1.5))
        boards = texture("wood", *np.array(wood))
        parts = (replace(floor, base_color=(1.0, 1.0, 1.0, 1.0), uvs=uvs, texture=boards), *walls)
        return Mesh(parts, up_axis="+y", source="room")

    def picture(self, width: int, height: int, name: str) -> Scene | None:
        """Draw things one by one, tell from their depths who is seen where, and draw together those that are seen."""
        rng, things = self.rng, self.things
        eye = self.size * (rng.uniform(0.3, 0.7), 0, 1) + (0, rng.uniform(1.4, 1.9), -0.1)
        target = self.size * (0.5, 0, 0.3) + (0, 0.55, 0)
        viewmat = look_at(torch.from_numpy(eye), torch.from_numpy(target), "+y")
        K = pinhole(width, height, float(rng.uniform(50, 60)))
        camera = Cameras(viewmat[None], K[None], width, height)
        shell, light = self.shell(), float(rng.uniform(0.2, 0.5))
        meshes = [shell, *(thing.mesh for thing in things)]
        depths = [render_views(mesh, camera, samples=1).depths[0].numpy() for mesh in meshes]
        reach = np.stack([np.where(depth > 0, depth, np.inf) for depth in depths])  # [1 + N, H, W]
        kept: list[int] = []
        shown = list(range(1, len(reach)))
        while shown != kept:
            kept = shown
            seen = np.array([0, *kept])[reach[[0, *kept]].argmin(axis=0)]
            shown = [n for n in kept if _shown(seen == n, depths[n] > 0, things[n - 1], camera)]
            shown = [n for n in shown if things[n - 1].truth.support in (FLOOR, WALL, *shown)]
        if not kept:
            return None
        parts = [part for n in (0, *kept) for part in meshes[n].parts]
        color = render_views(Mesh(tuple(parts), up_axis="+y"), camera, light=light).colors[0]
        depth = reach[[0, *kept]].min(axis=0)
        numbers = {FLOOR: FLOOR, WALL: WALL} | {n: number for number, n in enumerate(kept, 1)}
        truths = {n: replace(things[n - 1].truth, support=numbers[things[n - 1].truth.support]) for n in kept}
        objects = (SceneObject(numbers[n], truth.category, seen == n, truth=truth) for n, truth in truths.items())
        depth = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
        return Scene(to_uint8(color), depth, viewmat, K, tuple(objects), name=name)


def _shown(mask: np.ndarray, whole: np.ndarray, thing: _Placed, camera: Cameras) -> bool:
    """Whether a picture shows enough of a thing: 0.05 % of itself, 30 % of what nothing else hides, and its middle."""
    middle = (
        camera.viewmats[0, :3, :3].numpy() @ np.array(thing.truth.pose.position) + camera.viewmats[0, :3, 3].numpy()
    )
    x, y, z = camera.Ks[0].numpy() @ middle
    inside = z > 0 and 0 <= x / z <= camera.width and 0 <= y / z <= camera.height
    return bool(inside and mask.sum() >= max(5e-4 * mask.size, _SHARE * whole.sum()))
