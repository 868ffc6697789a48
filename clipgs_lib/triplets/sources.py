"""What to build from: objects of the catalogue, or the files of a folder."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ..meshes.importing import SUFFIXES as MESH_SUFFIXES
from ..meshes.importing import mesh_files
from ..shards.tar import ShardError
from .recipe import Source

SPLAT_SUFFIXES = (".ply", ".splat", ".ksplat", ".spz", ".sog")


def catalogue_sources(count: int, seed: int = 0, start: int = 0) -> list[Source]:
    """Objects ``start .. start + count - 1`` of the catalogue with ``seed``.

    Raises:
        ValueError: when there would be none.
    """
    if count < 1 or start < 0:
        raise ValueError(f"the catalogue needs count >= 1 and start >= 0, got {count} and {start}")
    return [Source(f"catalogue-{i:06d}", "catalogue", index=i, seed=seed) for i in range(start, start + count)]


def folder_sources(
    folder: str | os.PathLike[str], *, kind: str = "mesh", labels: str | os.PathLike[str] | None = None
) -> list[Source]:
    """All meshes (or splat files) below a folder, by path.

    Args:
        kind: ``"mesh"`` or ``"splat"``.
        labels: a table with tabs (.tsv) or commas (.csv) and a header. ``path`` (matched by its end) names the file;
            ``name``, ``label``, ``caption``, ``synonyms`` (other names of the label, with ``;`` between them),
            ``source`` and ``licence`` are used when they are there.

    Raises:
        ValueError: for another kind, or a table without ``path``.
        ShardError: when there is no such file below the folder.
    """
    if kind not in ("mesh", "splat"):
        raise ValueError(f"kind must be 'mesh' or 'splat', got {kind!r}")
    top, suffixes = Path(folder), MESH_SUFFIXES if kind == "mesh" else SPLAT_SUFFIXES
    paths = mesh_files(top, suffixes)
    if not paths:
        must = f"the folder must hold files that end in {' '.join(suffixes)}"
        raise ShardError(str(top), must, "none" if top.is_dir() else "no such folder", "check the path")
    table = _read_labels(Path(labels)) if labels is not None else {}
    return [_file_source(path, top, kind, table) for path in paths]


def _file_source(path: Path, top: Path, kind: str, table: Mapping[str, Mapping[str, str]]) -> Source:
    name = path.relative_to(top).as_posix()
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:48] or "object"
    info = dict(table.get(path.name, {}))
    if info and not (f"/{info['path']}".endswith(f"/{name}") or f"/{path.as_posix()}".endswith(f"/{info['path']}")):
        info = {}  # a file of the same name elsewhere
    if "label" not in info and path.parent != top:
        info["label"] = path.parent.name.replace("_", " ")
    info.pop("path", None)
    shown = name.encode("utf-8", "backslashreplace").decode()
    return Source(f"{slug}-{digest}", kind, path=str(path.resolve()), name=shown, bytes=path.stat().st_size, info=info)


def _read_labels(path: Path) -> dict[str, dict[str, str]]:
    """File name -> columns that matter."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="," if path.suffix.lower() == ".csv" else "\t")
        if "path" not in (rows.fieldnames or []):
            raise ValueError(f"{path}: a table of labels must have a column 'path', got {rows.fieldnames}")
        wanted = ("path", "name", "label", "caption", "synonyms", "source", "licence")
        kept = [{key: row[key] for key in wanted if row.get(key)} for row in rows]
    return {Path(row["path"]).name: row for row in kept if "path" in row}
