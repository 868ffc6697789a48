"""What rooms are furnished with: Sweet Home 3D's furniture where it is installed, else objects of the catalogue."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ...catalogue import CATEGORIES, make
from ...meshes import Furniture, Mesh, list_furniture, read_furniture
from ...shards import ShardSet
from ...triplets import Source, catalogue_sources, folder_sources

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
    turn = np.deg2rad(yaw)
    matrix = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]) * scale
    moved = (
        replace(part, vertices=(part.vertices @ matrix.T + np.asarray(shift)).astype(np.float32)) for part in mesh.parts
    )
    return replace(mesh, parts=tuple(moved))
