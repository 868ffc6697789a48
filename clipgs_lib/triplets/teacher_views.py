"""Views to train a teacher on: a folder of RGBA pictures with ``views.jsonl``, as `training.mini_views` reads it."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..meshes import Mesh
from ..rendering import render_views, sphere_cameras
from ..shards.writer import replacing
from ..words import with_article
from .recipe import BuildConfig, Source
from .stages import Thing, load_thing, object_seed

INDEX, LEFT_OUT = "views.jsonl", "left_out.jsonl"


@dataclass(frozen=True)
class ViewsReport:
    """What came of `write_teacher_views`."""

    folder: Path
    objects: int  # in views.jsonl
    left_out: tuple[tuple[str, str], ...]  # key and reason, also in left_out.jsonl


def write_teacher_views(
    sources: Sequence[Source],
    out: str | Path,
    *,
    views: int = 16,
    size: int = 128,
    seed: int = 0,
    factors: str = "guess",
    progress: Callable[[int, int, int], None] | None = None,
) -> ViewsReport:
    """Draw every object over nothing, seen from a belt around it, and list it with its label, texts and split.

    Pictures that are there already are kept, so that a stopped run goes on; the index is written last. Splits are
    those that `build_triplets` gives, see `splits`. Meshes need a label, from their table. Of each object there are
    ``views``, ``size`` pixels a side; ``seed`` is of the texts. ``factors`` as in `importing.read_mesh`; ``"guess"`` is
    what most free packs need. ``progress`` is called with objects done, objects in all, objects left out.

    Raises:
        ValueError: when no object is left, or a number is out of range.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    config = BuildConfig(views=views, size=size, seed=seed, factors=factors)
    rows: list[dict[str, Any]] = []
    left_out: list[tuple[str, str]] = []
    for done, source in enumerate(sources, start=1):
        try:
            rows.append(_one(source, folder, config))
        except (ValueError, OSError) as error:
            left_out.append((source.key, f"{type(error).__name__}: {error}"))
        if progress:
            progress(done, len(sources), len(left_out))
    if not rows:
        raise ValueError(f"at least one object must have views, got none of {len(sources)}; first: {left_out[:1]}")
    _write_lines(folder / LEFT_OUT, ({"object": key, "reason": reason} for key, reason in left_out))
    _write_lines(folder / INDEX, rows)
    return ViewsReport(folder, len(rows), tuple(left_out))


def _one(source: Source, folder: Path, config: BuildConfig) -> dict[str, Any]:
    thing = load_thing(source, config, object_seed(source.key, config.seed))
    label = thing.category.strip().lower()
    if not label or not isinstance(thing.shape, Mesh):
        raise ValueError("an object for a teacher must be a mesh with a label, got one without; add it to the table")
    files = [f"{source.key}/{i:03d}.webp" for i in range(config.views)]
    if not all((folder / file).is_file() for file in files):
        (folder / source.key).mkdir(exist_ok=True)
        for file, picture in zip(files, _cut_out(thing.shape, config), strict=True):
            with replacing(folder / file) as stream:
                stream.write(picture)
    return {
        "object": source.key,
        "label": label,
        "texts": _texts(label, thing),
        "files": files,
        "split": thing.split,
        "group": thing.provenance.get("group", source.key),
    }


def _cut_out(mesh: Mesh, config: BuildConfig) -> Iterable[bytes]:
    """Lossless RGBA WebPs with straight alpha."""
    up = "+y" if mesh.up_axis == "unknown" else mesh.up_axis
    cameras = sphere_cameras(config.views, up=up, width=config.size, height=config.size, elevations=config.elevations)
    drawn = render_views(mesh, cameras, background=(0.0, 0.0, 0.0))
    alphas = drawn.alphas[..., None].numpy()  # [V, H, W, 1]
    colors = drawn.colors.numpy() / np.maximum(alphas, 1e-6)
    for picture in (np.concatenate([colors.clip(0, 1), alphas], axis=-1) * 255).round().astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(picture, "RGBA").save(buffer, "WEBP", lossless=True, quality=50)
        yield buffer.getvalue()


def _texts(label: str, thing: Thing) -> list[str]:
    """What is said of this object and not of every one with its label; only the label when there is nothing."""
    plain = {label, with_article(label)}
    distinct = [caption.text for caption in thing.captions if caption.text.lower() not in plain]
    return list(dict.fromkeys(distinct)) or [label]


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with replacing(path) as stream:
        for row in rows:
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
