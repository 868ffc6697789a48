"""From a folder of splats and meshes, or a finished set, to a gallery; and from its rows back to splats."""

from __future__ import annotations

import functools
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas
import torch
from torch import Tensor

from ..encoders import Encoder, EncoderError, load_encoder
from ..evaluation import content_of
from ..fitting import init_from_mesh, init_from_splats
from ..formats import FormatError, write_splats
from ..meshes import Mesh
from ..shards import ShardSet, TeacherInfo
from ..shards.triplet import encode_view
from ..shards.writer import MANIFEST
from ..splats import Splats
from ..teachers import load_teacher
from ..triplets import BuildConfig, Source, folder_sources
from ..triplets.stages import draw_views, load_thing, object_seed
from ..words import first_of, plural
from .gallery import Gallery
from .storage import GalleryError, GalleryWriter, Rows, Space

BAGS = ("bag-mean", "bag-max")
EXPORTED = "manifest.parquet"
_COMMIT = 64  # objects embedded and committed together
_SPLATS = (".splat", ".ksplat", ".spz", ".sog")
_EITHER = (".ply", ".glb", ".gltf")  # hold splats or meshes; the content decides

Progress = Callable[[int, int, int], None]  # objects done, in all, left out


class Loaded(NamedTuple):
    """An object on its way into a gallery."""

    content: Callable[[Encoder], Any]  # what an encoder reads of it
    meta: dict[str, Any]
    thumbnail: bytes  # WebP


@dataclass(frozen=True)
class EmbedReport:
    """How `embed_gallery` ended."""

    folder: Path
    objects: int  # in the gallery now
    added: int  # by this run
    left_out: Mapping[str, str]  # key -> reason
    seconds: float  # wall clock of this run

    def __str__(self) -> str:
        speed = f", {self.added / self.seconds:.1f} a second" if self.added else ""
        lines = [f"{self.folder}: {plural(self.objects, 'object')}, {self.added:,} added{speed}"]
        if self.left_out:
            reasons = first_of((f"{key} ({reason[:200]})" for key, reason in self.left_out.items()), 5)
            lines.append(f"  {plural(len(self.left_out), 'object')} left out: {reasons}")
        return "\n".join(lines)


def embed_gallery(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    encoder: str | os.PathLike[str] = "clipgs-mini",
    labels: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    config: BuildConfig | None = None,
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed objects into a gallery; what is in it already stays, so a run that was stopped goes on.

    A mesh becomes the gaussians that a fit starts from (0 iterations), and splats of more gaussians are covered anew,
    as in sets that encoders are trained on. Thumbnails are the first view of a set, else a picture of these gaussians.

    Args:
        source: a finished set, or a folder of meshes and splats in any mix of formats, told by content.
        out: folder of the gallery, made when missing.
        encoder: see `load_encoder`. A bag of views takes what a set has stored; for a folder it is that of the teacher
            in ``config``, or of `mini`.
        labels: table of a folder, see `triplets.folder_sources`.
        device: where to embed.
        config: views and gaussians of the objects of a folder, and the seed.
        progress: called with objects done, objects in all, objects left out.

    Raises:
        GalleryError: for a gallery of another teacher or encoder, and an encoder that does not say its teacher.
        EncoderError, TeacherError: when these cannot be had.
        ShardError: for a set that is broken, or a folder without meshes and splats.
        OSError: when the gallery cannot be written, or another process writes there.
    """
    began, config = time.monotonic(), config or BuildConfig(iterations=0)
    shards = ShardSet(source) if (Path(source) / MANIFEST).is_file() else None
    items: dict[str, Callable[[], Loaded]]
    if shards is not None:
        items = {row["key"]: functools.partial(_from_set, shards, row["key"]) for row in shards.rows}
    else:
        files = folder_sources(source, kind="any", labels=labels, partial=True)
        items = {file.key: functools.partial(_from_file, file, config) for file in files}
    loaded_encoder = _load(encoder, device, shards.teacher if shards else None, config)
    left_out: dict[str, str] = {}
    with GalleryWriter(out, _space(loaded_encoder, encoder)) as writer:
        before = len(writer.keys)
        missing = [key for key in items if key not in writer.keys]
        for start in range(0, len(missing), _COMMIT):
            loaded: dict[str, Loaded] = {}
            for number, key in enumerate(missing[start : start + _COMMIT], start=start + 1):
                try:
                    loaded[key] = items[key]()
                except (ValueError, OSError) as error:
                    left_out[key] = str(error)
                if progress:
                    progress(len(items) - len(missing) + number, len(items), len(left_out))
            if embeds := _embed(loaded_encoder, loaded, left_out):
                kept = [loaded[key] for key in embeds]
                pictures = [one.thumbnail for one in kept]
                writer.add(Rows(torch.stack(list(embeds.values())), list(embeds), [one.meta for one in kept], pictures))
        count = len(writer.keys)
    return EmbedReport(Path(out), count, count - before, left_out, time.monotonic() - began)


def _load(
    name: str | os.PathLike[str], device: str | torch.device, info: TeacherInfo | None, config: BuildConfig
) -> Encoder:
    if str(name) not in BAGS:
        return load_encoder(name, device)
    if info is None:
        teacher = load_teacher(config.teacher or "mini")
        info = TeacherInfo(teacher.identity, teacher.embed_dim)
    return load_encoder(name, device, teacher=info.identity, embed_dim=info.dim)


def _space(encoder: Encoder, name: str | os.PathLike[str]) -> Space:
    teacher = encoder.info.get("teacher", {}).get("identity")
    if not teacher:
        must, todo = "an encoder must say whose space it embeds into", "train it with clipgs train"
        raise GalleryError(name, must, "no teacher in its checkpoint", todo)
    return Space(teacher, encoder.identity, encoder.embed_dim)


def _embed(encoder: Encoder, loaded: Mapping[str, Loaded], left_out: dict[str, str]) -> dict[str, Tensor]:
    """Embeddings ``[D]`` by key; an object that cannot be embedded goes to ``left_out``."""
    try:
        contents = [one.content(encoder) for one in loaded.values()]
        return dict(zip(loaded, encoder.encode(contents).float().cpu(), strict=True)) if contents else {}
    except (ValueError, EncoderError) as error:
        if len(loaded) == 1:
            left_out[next(iter(loaded))] = str(error)
            return {}
    return {name: row for key, one in loaded.items() for name, row in _embed(encoder, {key: one}, left_out).items()}


# ---- objects -------------------------------------------------------------------------------------------------------


def _from_set(shards: ShardSet, key: str) -> Loaded:
    triplet = shards.read(key)
    meta = {"caption": triplet.caption, "category": triplet.category, "split": triplet.split}
    meta |= {name: str(triplet.provenance.get(name, "")) for name in ("source", "licence")}
    meta |= {"kind": "set", "origin": str(shards.folder.resolve())}
    return Loaded(functools.partial(content_of, triplet), meta, triplet.views[0])


def _from_file(source: Source, config: BuildConfig) -> Loaded:
    source, shape, caption = _read(source, config)
    splats = _gaussians(shape, config, source.key)
    meta: dict[str, Any] = {"caption": caption, "category": source.info.get("label", ""), "file": source.name}
    meta |= {name: source.info[name] for name in ("source", "licence") if source.info.get(name)}
    meta |= {"kind": source.kind, "origin": source.path, "piece": source.index}
    picture = draw_views(splats, replace(config, views=2))[1][0]

    def content(encoder: Encoder) -> Any:
        return draw_views(shape, config)[1] if encoder.inputs == "views" else splats

    return Loaded(content, meta, encode_view(picture, quality=80))


def _read(source: Source, config: BuildConfig) -> tuple[Source, Mesh | Splats, str]:
    """The source with its kind, its shape in the unit sphere, and what it is called."""
    suffix = Path(source.path).suffix.lower()
    kind = "splat" if suffix in (*_SPLATS, *_EITHER) else "mesh"
    info = {"name": Path(source.name).stem} | dict(source.info)  # the label may be only a folder's name
    chosen = replace(source, kind=kind if source.kind == "any" else source.kind, info=info)
    seed = object_seed(source.key, config.seed)
    try:
        thing = load_thing(chosen, config, seed)
    except FormatError:
        if source.kind != "any" or suffix not in _EITHER:
            raise
        chosen = replace(chosen, kind="mesh")
        thing = load_thing(chosen, config, seed)
    names = [text.text for text in thing.captions if text.source == "enriched"]
    return chosen, thing.shape, source.info.get("caption") or (names[0] if names else info["name"])


def _gaussians(shape: Mesh | Splats, config: BuildConfig, key: str) -> Splats:
    seed = object_seed(key, config.seed)
    if isinstance(shape, Mesh):
        return init_from_mesh(shape, config.gaussians, seed=seed)
    return shape if len(shape) <= config.gaussians else init_from_splats(shape, config.gaussians, seed=seed)


def open_splats(gallery: Gallery, key: str, gaussians: int = 1_024) -> Splats:
    """Splats of an object of a gallery, out of the set or file that it was embedded from.

    Args:
        gallery: that `embed_gallery` made.
        key: of the object.
        gaussians: of an object that was a mesh; splats come as they are.

    Raises:
        KeyError: when the gallery has no such key.
        GalleryError: when the set or file is not there any more, or cannot be read.
    """
    meta = gallery.describe([gallery.row(key)])[0]
    origin, kind = str(meta.get("origin", "")), str(meta.get("kind", ""))
    try:
        if kind == "set":
            return _set(origin).read(key).splats
        if kind not in ("mesh", "splat"):
            raise ValueError(f"kind {kind!r} and origin {origin!r} in its description")
        config = BuildConfig(iterations=0, gaussians=gaussians)
        source = Source(key, kind, int(meta.get("piece", 0)), path=origin, name=str(meta.get("file", "")))
        shape = _read(source, config)[1]
        return shape if isinstance(shape, Splats) else _gaussians(shape, config, key)
    except (OSError, ValueError, KeyError) as error:
        must = f"the splats of {key!r} must lie where they were when they were embedded"
        raise GalleryError(origin or "gallery", must, str(error)[:300], "put them back, or embed them again") from None


def export_splats(
    gallery: Gallery,
    keys: Sequence[str],
    folder: str | os.PathLike[str],
    read: Callable[[str], Splats] | None = None,
) -> Path:
    """Take objects out of a gallery: their splats as PLY, and ``manifest.parquet``, which says what they are.

    Args:
        gallery: that has them.
        keys: of the objects, in the order of the manifest.
        folder: comes to be as a whole or not at all; must not be there, or be empty.
        read: key -> splats; `open_splats` by default.

    Returns:
        The manifest: ``key``, ``file`` within the folder, what the gallery says of the object (``caption``,
        ``category``, ``split``, ``origin`` and whatever else, as text), ``teacher`` and ``encoder``.

    Raises:
        KeyError: when the gallery has no such key.
        GalleryError: without keys, when ``folder`` holds something, or splats are not where they were.
    """
    folder = Path(folder)
    if not keys or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        got = f"{plural(len(keys), 'object')} and {'something' if folder.exists() else 'nothing'} at that place"
        raise GalleryError(folder, "an export takes objects to a new or empty folder", got, "name another, or search")
    read, rows = read or functools.partial(open_splats, gallery), [gallery.row(key) for key in keys]
    table: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True) as top:
        draft = Path(top, "export")
        draft.mkdir()
        for row, meta in zip(rows, gallery.describe(rows), strict=True):
            about = {name: str(value) for name, value in meta.items()} | gallery.card(row)
            slug = re.sub(r"[^A-Za-z0-9]+", "-", about["key"])[:48]
            about["file"] = f"{len(table) + 1:04d}-{slug}.ply"
            write_splats(read(about["key"]), draft / about["file"])
            table.append(about | {"teacher": gallery.teacher, "encoder": gallery.encoder})
        pandas.DataFrame(table).to_parquet(draft / EXPORTED, index=False)
        draft.rename(folder)
    return folder / EXPORTED


@functools.lru_cache(maxsize=4)
def _set(folder: str) -> ShardSet:
    return ShardSet(folder)
