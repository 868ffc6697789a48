"""From a folder of splats and meshes, or a finished set, to a gallery; and from its rows back to splats."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..encoders import Encoder, EncoderError, load_encoder
from ..evaluation import BAG
from ..fitting import init_from_mesh, init_from_splats
from ..formats import FormatError
from ..meshes import Mesh
from ..shards import ShardSet
from ..shards.triplet import encode_view
from ..shards.writer import MANIFEST
from ..splats import Splats
from ..teachers import Teacher, load_teacher
from ..triplets import BuildConfig, Source, folder_sources
from ..triplets.stages import draw_views, load_thing, object_seed
from ..vectors import unit
from ..words import first_of, plural
from .gallery import Gallery
from .storage import GalleryError, GalleryWriter, Rows, Space

_COMMIT = 64  # objects embedded and committed together
_ORDER = {".ply": ("splat", "mesh"), ".glb": ("splat", "mesh"), ".gltf": ("splat", "mesh")}  # what these may hold
_SPLAT = (".splat", ".ksplat", ".spz", ".sog")

Progress = Callable[[int, int, int], None]  # objects done, in all, left out


class Loaded(NamedTuple):
    """An object on its way into a gallery."""

    splats: Splats
    views: Callable[[], np.ndarray]  # -> [V, H, W, 3] uint8
    image_embeds: Callable[[], Tensor] | None  # -> [V, D] by the set's teacher
    meta: dict[str, Any]
    thumbnail: bytes  # WebP


@dataclass(frozen=True)
class EmbedReport:
    """How `embed_gallery` ended."""

    folder: Path
    objects: int  # in the gallery now
    added: int  # by this run
    left_out: Mapping[str, str] = field(default_factory=dict)  # key -> reason
    seconds: float = 0.0  # wall clock of this run

    def __str__(self) -> str:
        speed = f", {self.added / self.seconds:.1f} a second" if self.added and self.seconds else ""
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
        encoder: shipped name or folder, see `load_encoder`; ``"bag"`` for the mean of the teacher's embeddings of the
            views: those in a set, else views drawn by ``config`` and embedded by its teacher, or `mini`.
        labels: table of a folder, see `triplets.folder_sources`.
        device: where to embed.
        config: views and gaussians of the objects of a folder, and the seed.
        progress: called with objects done, objects in all, objects left out.

    Raises:
        GalleryError: for a gallery of another teacher or encoder.
        EncoderError, TeacherError: when these cannot be had.
        ShardError: for a set that is broken, or a folder without meshes and splats.
        OSError: when the gallery cannot be written, or another process writes there.
    """
    began, config = time.monotonic(), config or BuildConfig(iterations=0)
    items = _items(Path(source), labels, config)
    embedder = _Embedder(encoder, device, Path(source), config)
    left_out: dict[str, str] = {}
    with GalleryWriter(out, embedder.space) as writer:
        before = len(writer.keys)
        missing = [key for key in items if key not in writer.keys]
        done = len(items) - len(missing)
        for start in range(0, len(missing), _COMMIT):
            rows: dict[str, tuple[Tensor, Loaded]] = {}
            loaded: dict[str, Loaded] = {}
            for key in missing[start : start + _COMMIT]:
                try:
                    loaded[key] = items[key]()
                except (ValueError, OSError) as error:
                    left_out[key] = str(error)
                if progress:
                    progress(done + len(loaded), len(items), len(left_out))
            for key, embeds in embedder(loaded, left_out):
                rows[key] = embeds, loaded[key]
            if rows:
                made = list(rows.values())
                pictures = [one.thumbnail for _, one in made]
                writer.add(Rows(torch.stack([e for e, _ in made]), list(rows), [one.meta for _, one in made], pictures))
            done += len(missing[start : start + _COMMIT])
            if progress:
                progress(done, len(items), len(left_out))
        count = len(writer.keys)
    return EmbedReport(Path(out), count, count - before, left_out, time.monotonic() - began)


class _Embedder:
    """An encoder, or the teacher for bags of views."""

    def __init__(self, name: str | os.PathLike[str], device: str | torch.device, source: Path, config: BuildConfig):
        self.encoder: Encoder | None = None
        self.teacher: Teacher | None = None
        if str(name) != "bag":
            self.encoder = load_encoder(name, device)
            teacher = self.encoder.info.get("teacher", {}).get("identity", "")
            if not teacher:
                must = "an encoder must say whose space it embeds into"
                raise GalleryError(name, must, "no teacher in its checkpoint", "train it with clipgs train")
            self.space = Space(teacher, self.encoder.identity, self.encoder.embed_dim)
        elif (source / MANIFEST).is_file() and (info := ShardSet(source).teacher):
            self.space = Space(info.identity, BAG, info.dim)
        else:
            self.teacher = load_teacher(config.teacher or "mini", device=device)
            self.space = Space(self.teacher.identity, BAG, self.teacher.embed_dim)

    def __call__(self, loaded: Mapping[str, Loaded], left_out: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
        """Keys and embeddings ``[D]``; what cannot be embedded goes to ``left_out``."""
        try:
            yield from zip(loaded, self._embed(list(loaded.values())), strict=True)
        except (ValueError, EncoderError) as error:
            if len(loaded) == 1:
                left_out[next(iter(loaded))] = str(error)
                return
            for key, one in loaded.items():
                yield from self({key: one}, left_out)

    def _embed(self, objects: Sequence[Loaded]) -> Tensor:
        if not objects:
            return torch.empty(0, self.space.dim)
        if self.encoder is not None:
            contents = [one.views() if self.encoder.inputs == "views" else one.splats for one in objects]
            return self.encoder.encode(contents).float().cpu()
        rows = [
            one.image_embeds() if self.teacher is None and one.image_embeds else self._bag(one.views())
            for one in objects
        ]
        return unit(torch.stack([row.float().cpu().mean(dim=0) for row in rows]))

    def _bag(self, views: np.ndarray) -> Tensor:
        assert self.teacher is not None  # without stored embeddings there is one
        return self.teacher.encode_image(views)


# ---- objects -------------------------------------------------------------------------------------------------------


def _items(source: Path, labels: str | os.PathLike[str] | None, config: BuildConfig) -> dict[str, Callable[[], Loaded]]:
    """What can be loaded, by key."""
    if (source / MANIFEST).is_file():
        shards = ShardSet(source)
        return {row["key"]: functools.partial(_from_set, shards, row["key"]) for row in shards.rows}
    found = folder_sources(source, kind="any", labels=labels, partial=True)
    return {one.key: functools.partial(_from_file, one, config) for one in found}


def _from_set(shards: ShardSet, key: str) -> Loaded:
    triplet = shards.read(key)
    facts = {"source": str(triplet.provenance.get("source", "")), "licence": str(triplet.provenance.get("licence", ""))}
    meta = {"caption": triplet.caption, "category": triplet.category, "split": triplet.split, **facts}
    meta |= {"kind": "set", "origin": str(shards.folder.resolve())}
    stored = triplet.image_embeds
    embeds = None if stored is None else lambda: unit(torch.from_numpy(stored))
    return Loaded(triplet.splats, triplet.images, embeds, meta, triplet.views[0])


def _from_file(source: Source, config: BuildConfig) -> Loaded:
    source, shape, caption = _read(source, config)
    splats = _gaussians(shape, config, source.key)
    meta = {"caption": caption, "category": source.info.get("label", ""), "file": source.name}
    meta |= {name: source.info[name] for name in ("source", "licence") if source.info.get(name)}
    meta |= {"kind": source.kind, "origin": source.path, "piece": source.index}
    picture = draw_views(splats, replace(config, views=2))[1][0]
    return Loaded(splats, lambda: draw_views(shape, config)[1], None, meta, encode_view(picture, quality=80))


def _read(source: Source, config: BuildConfig) -> tuple[Source, Mesh | Splats, str]:
    """The source with its kind, its shape in the unit sphere, and what it is called."""
    suffix = Path(source.path).suffix.lower()
    kinds = (source.kind,) if source.kind != "any" else _ORDER.get(suffix, ("splat" if suffix in _SPLAT else "mesh",))
    for kind in kinds:
        try:
            info = {"name": Path(source.name).stem} | dict(source.info)  # the label may be only a folder's name
            chosen = replace(source, kind=kind, info=info)
            thing = load_thing(chosen, config, object_seed(source.key, config.seed))
            names = [text.text for text in thing.captions if text.source == "enriched"]
            caption = source.info.get("caption") or (names[0] if names else info["name"])
            return chosen, thing.shape, caption
        except FormatError:
            if kind == kinds[-1]:
                raise
    raise AssertionError("kinds are never empty")


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


@functools.lru_cache(maxsize=4)
def _set(folder: str) -> ShardSet:
    return ShardSet(folder)
