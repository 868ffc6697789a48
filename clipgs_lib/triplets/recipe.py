"""What a build is told: the recipe of each object, and the objects, of the catalogue or of a folder."""

import csv
import hashlib
import io
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..catalogue import make
from ..files import text_of
from ..meshes.folders import SUFFIXES as MESH_SUFFIXES
from ..meshes.folders import Piece, mesh_pieces
from ..meshes.sweethome import Furniture
from ..shards.shard_set import ShardWarning
from ..shards.tar import ShardError
from ..splats import UP_AXES
from ..splits import SPLITS
from ..words import first_of, plural


@dataclass(frozen=True)
class BuildConfig:
    """What goes into each object. Equal configs, sources and library versions give equal sets."""

    views: int = 12  # pictures per object (36 in the paper)
    size: int = 224  # pixels per side of a picture
    elevations: tuple[float, float] = (-20.0, 70.0)  # belt of the cameras, degrees; (-90, 90) is the whole sphere
    gaussians: int = 1_024  # per object
    iterations: int = 60  # of fitting, more teach no more (data/results/fitting_ablation.json); 0 keeps the start
    teacher: str | None = None  # name for `teachers.load_teacher`; None leaves embeddings out
    device: str = "cpu"  # where to fit and embed; on "cuda" fits repeat within tolerance, not bit for bit
    quality: int = 90  # of the WebPs, 1 to 100
    seed: int = 0
    up_axis: str | None = None  # of meshes and splats: one of `splats.UP_AXES`; None as the file says
    factors: str = "linear"  # base colour factors of glTF, see `importing.read_mesh`

    def __post_init__(self) -> None:
        limits = {
            "views": (2, 1_000),
            "size": (16, 4_096),
            "gaussians": (4, 1 << 20),
            "iterations": (0, 1_000_000),
            "quality": (1, 100),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number in {low}..{high:,}, got {value!r}")
        if not -90 <= self.elevations[0] < self.elevations[1] <= 90:
            raise ValueError(f"elevations must rise within -90..90 degrees, got {self.elevations}")
        words = {"up_axis": (None, *UP_AXES), "factors": ("linear", "srgb", "guess")}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Source:
    """One object to build."""

    key: str  # its name in the set, see `shards.tar.KEY`
    kind: str  # "catalogue", "mesh" or "splat"
    index: int = 0  # of the catalogue; of a piece of furniture in its .sh3f
    seed: int = 0  # of the catalogue
    path: str = ""  # of the file
    name: str = ""  # of the file, below the folder that was given; goes into the set, unlike `path`
    bytes: int = 0  # of the file, to notice another one when a build goes on
    copy: int = 0  # number of a copy of the mesh in other colours, see `copies`; 0 is the mesh itself
    info: Mapping[str, str] = field(default_factory=dict)  # what a table said: name, label, caption, source, licence


class StopBuild(Exception):
    """Raised by a producer when no object could work, such as for want of the teacher; ends the build."""


SPLAT_SUFFIXES = (".ply", ".splat", ".ksplat", ".spz", ".sog")


def catalogue_sources(count: int, seed: int = 0, start: int = 0, split: str | None = None) -> list[Source]:
    """Objects ``start .. start + count - 1`` of the catalogue with ``seed``; with ``split`` only those that lie in it.

    Raises:
        ValueError: when there would be none, and for a split that is none.
    """
    if count < 1 or start < 0 or split not in (None, *SPLITS):
        must = f"count >= 1, start >= 0 and a split of {', '.join(SPLITS)}"
        raise ValueError(f"the catalogue needs {must}, got {count}, {start} and {split!r}")
    numbers = [i for i in range(start, start + count) if split in (None, make(i, seed).split)]
    if not numbers:
        raise ValueError(f"some of the {count} objects must lie in the split {split!r}, got none; take more")
    return [Source(f"catalogue-{i:06d}", "catalogue", index=i, seed=seed) for i in numbers]


def folder_sources(
    folder: str | os.PathLike[str],
    *,
    kind: str = "mesh",
    labels: str | os.PathLike[str] | None = None,
    partial: bool = False,
) -> list[Source]:
    """All meshes (or splat files) below a folder, by path; a ``.sh3f`` of Sweet Home 3D holds many.

    Args:
        kind: ``"mesh"``, ``"splat"``, or ``"any"`` for both, which leaves it to the reader what a file is.
        labels: a table with tabs (.tsv) or commas (.csv) and a header, in UTF-8, UTF-16 or latin-1. ``path`` (matched
            by its end, ``\\`` is ``/``) names the file; ``name``, ``label``, ``caption``, ``synonyms`` (other names of
            the label, with ``;`` between them), ``source`` and ``licence`` are used when they are there. Rows without
            a file and files without a row are a `ShardWarning`. Furniture needs no table: its catalogue says these.
        partial: take a table of which much does not fit the folder.

    Raises:
        ValueError: for another kind, a table without ``path``, or, unless ``partial``, one of which more than a tenth
            of the rows, or of the folder's files, finds no partner (two are forgiven, as in a table of ten).
        ShardError: when there is no such file below the folder.
    """
    kinds = {"mesh": MESH_SUFFIXES, "splat": SPLAT_SUFFIXES, "any": (*MESH_SUFFIXES, *SPLAT_SUFFIXES[1:])}
    if kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(kinds)}, got {kind!r}")
    top, suffixes = Path(folder), kinds[kind]
    pieces = mesh_pieces(top, suffixes)
    if not pieces:
        must = f"the folder must hold files that end in {' '.join(suffixes)}"
        raise ShardError(str(top), must, "none" if top.is_dir() else "no such folder", "check the path")
    table = [] if labels is None else _read_labels(Path(labels))
    shelf: dict[str, list[dict[str, str]]] = {}  # rows by the last part of their path
    for row in table:
        shelf.setdefault(row["path"].rpartition("/")[2], []).append(row)
    rows = [_row_of(piece.name, top, shelf.get(piece.name.rpartition("/")[2], ())) for piece in pieces]
    if labels is not None:
        _check_matches(Path(labels), [piece.name for piece in pieces], table, rows, partial)
    return [_piece_source(piece, top, kind, row or {}) for piece, row in zip(pieces, rows, strict=True)]


def _piece_source(piece: Piece, top: Path, kind: str, row: Mapping[str, str]) -> Source:
    digest = hashlib.sha256(piece.name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(piece.name).stem).strip("-")[:48] or "object"
    info, number = {key: value for key, value in row.items() if key != "path"}, 0
    if piece.furniture is not None:
        info, number = _catalogued(piece.furniture) | info, piece.furniture.number
    elif "label" not in info and piece.file.parent != top:
        info["label"] = piece.file.parent.name.replace("_", " ")
    shown = piece.name.encode("utf-8", "backslashreplace").decode()
    size = piece.file.stat().st_size
    path = str(piece.file.resolve())
    return Source(f"{slug}-{digest}", kind, index=number, path=path, name=shown, bytes=size, info=info)


def _catalogued(furniture: Furniture) -> dict[str, str]:
    """What a table would say about a piece of furniture; its tags make a caption, but that of its maker."""
    label = furniture.name.lower()
    maker = {furniture.creator.lower(), furniture.catalogue.lower().replace(" cc-0", "").replace(" cc-by", "")}
    tags = [tag.lower() for tag in furniture.tags if tag.lower() not in {label, *maker}]
    info = {
        "name": furniture.name,
        "label": label,
        "caption": ", ".join([label, *tags]) if tags else "",
        "source": f"{furniture.catalogue}, by {furniture.creator or 'an unnamed creator'}",
        "licence": furniture.licence,
    }
    return {key: value for key, value in info.items() if value}


def _read_labels(path: Path) -> list[dict[str, str]]:
    """The columns that matter, of rows that name a file."""
    rows = csv.DictReader(
        io.StringIO(text_of(path.read_bytes())), delimiter="," if path.suffix.lower() == ".csv" else "\t"
    )
    if "path" not in (rows.fieldnames or []):
        raise ValueError(f"{path}: a table of labels must have a column 'path', got {rows.fieldnames}")
    columns = ("path", "name", "label", "caption", "synonyms", "source", "licence")
    kept = [{key: row[key] for key in columns if row.get(key)} for row in rows]
    return [row | {"path": row["path"].strip().replace("\\", "/").removeprefix("./")} for row in kept if "path" in row]


def _row_of(name: str, top: Path, alike: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """The row of a file: the one whose path agrees with most of the file's, from the end; None without any."""
    whole = f"/{(top / name).as_posix()}"
    fits = [row for row in alike if f"/{row['path']}".endswith(f"/{name}") or whole.endswith(f"/{row['path']}")]
    return max(fits, key=lambda row: row["path"].count("/"), default=None)


def _check_matches(
    labels: Path,
    names: Sequence[str],
    table: Sequence[dict[str, str]],
    rows: Sequence[dict[str, str] | None],
    partial: bool,
) -> None:
    """Warn of what found no partner, and refuse a table that does not fit."""
    used = {id(row) for row in rows}
    sides = [
        ("row", "without a file", [row["path"] for row in table if id(row) not in used], len(table)),
        ("file", "without a row", [name for name, row in zip(names, rows, strict=True) if row is None], len(names)),
    ]
    sentences = [f"{plural(len(lone), what)} {how} ({first_of(lone, 5)})" for what, how, lone, _ in sides if lone]
    if not sentences:
        return
    sentence = f"{labels}: a table of labels must fit the folder, got {' and '.join(sentences)}"
    if not partial and any(len(lone) > max(2, size / 10) for _, _, lone, size in sides):
        raise ValueError(f"{sentence}; correct the paths, or pass partial=True (--partial-labels) if that is meant")
    warnings.warn(f"{sentence}; files without a row are named after their folder", ShardWarning, stacklevel=3)
