"""Making one object: mesh or splats -> views -> splats -> texts -> embeddings -> `Triplet`.

Everything random is seeded by the build's seed and the object's key, every object is embedded in a batch of its own,
and what is embedded are the views as they will be read: so each object comes out the same wherever it is made.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..captions.caption import Caption, score_captions
from ..captions.enrich import caption_object, names_a_set, without_looks
from ..captions.filtering import filter_captions
from ..captions.names import GROUPS, Groups, with_group
from ..catalogue import make
from ..files import file_sha256
from ..fitting import FitConfig, FitJob, FitResult, fit_many, mesh_job, splat_job
from ..formats import read_splats
from ..meshes import Mesh, MeshImport, list_furniture, read_furniture, read_mesh_notes
from ..meshes.sweethome import SUFFIX
from ..rendering import Cameras, render, render_views, sphere_cameras
from ..shards.tar import ShardError
from ..shards.triplet import MAX_SIDE, TeacherInfo, Triplet, decode_view, encode_view
from ..splats import Splats
from ..splits import assign, shape_group
from ..teachers import Teacher, TeacherError, load_teacher
from .copies import copy_captions, paint_copy
from .recipe import BuildConfig, Source, StopBuild

WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Thing:
    """An object before it has views."""

    shape: Mesh | Splats  # centred, in the unit sphere
    category: str
    split: str
    captions: tuple[Caption, ...]
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Begun:
    """An object that lacks but its splats and embeddings."""

    source: Source
    thing: Thing
    cameras: Cameras
    images: np.ndarray  # [V, H, W, 3] uint8
    job: FitJob | None  # what to fit; None for splats that are few enough as they are


def produce(source: Source, config: BuildConfig) -> Triplet:
    """Make one object of a set.

    ValueError for whatever the stages refuse (a mesh without faces, no caption left, ...) and OSError when its file
    cannot be read: the build sets such an object aside.
    """
    return finish(begin(source, config), config)


def begin(source: Source, config: BuildConfig) -> Begun:
    """Load an object and draw it, up to what there is to fit; errors as `produce`."""
    check_texts(source)
    seed = object_seed(source.key, config.seed)
    thing = load_thing(source, config, seed)
    cameras, images = draw_views(thing.shape, config)
    return Begun(source, thing, cameras, images, fit_job(thing.shape, config, seed))


def finish(begun: Begun, config: BuildConfig, result: FitResult | None = None) -> Triplet:
    """Embed an object and put it together; what was not fitted in a batch is fitted now; errors as `produce`."""
    source, thing, splats = begun.source, begun.thing, begun.thing.shape
    facts: dict[str, Any] = {"fit": "as they came"}
    if begun.job is not None:
        result = result or fit_together([begun.job], config)[0]
        splats, fitted = result.splats.to("cpu"), f"{config.gaussians} gaussians"
        measured = {"psnr": round(result.psnr, 4), "ssim": round(result.ssim, 5)}
        facts = measured | {"iterations": result.iterations, "fit": fitted}
    assert isinstance(splats, Splats)  # a mesh always has a job
    views = tuple(encode_view(image, config.quality) for image in begun.images)
    pictures = np.stack([decode_view(view, f"{source.key}.view{i:03d}.webp") for i, view in enumerate(views)])
    captions, columns = thing.captions, dict[str, Any]()
    if config.teacher is not None:
        teacher = _teacher(config.teacher, config.device)
        text_embeds = teacher.encode_text([caption.text for caption in captions])
        captions, columns = teacher_columns(captions, teacher.encode_image(pictures), text_embeds, teacher)
    facts |= {"seed": object_seed(source.key, config.seed), "cameras": _camera_facts(begun.cameras)}
    return Triplet(
        key=source.key,
        splats=splats,
        views=views,
        texts=captions,
        category=thing.category,
        split=thing.split,
        provenance=thing.provenance | facts,
        **columns,
    )


def fit_together(jobs: Sequence[FitJob], config: BuildConfig) -> list[FitResult]:
    """Fit the jobs of several objects in one batch; each comes out as it would alone, but for rounding."""
    return fit_many(jobs, FitConfig(iterations=config.iterations), batch=len(jobs))


def object_seed(key: str, seed: int) -> int:
    """Seed of one object, in ``0 .. 2**32 - 1``."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:4], "big")


def check_texts(source: Source) -> None:
    """ValueError for a file that would end up without a text, before it is even read.

    That is when its names say that it holds a whole set of objects; the message says what was removed and why.
    """
    if source.kind == "catalogue":
        return
    report = filter_captions(_texts_of(source))
    if names_a_set(report):
        gone = ", ".join(dict.fromkeys(f"{text!r} ({reason})" for text, reason in report.facts()["texts"]))
        raise ValueError(f"an object must have a text, got none after filtering {gone}; name it in the table of labels")


def _texts_of(source: Source) -> list[str]:
    """What a table says about a file, or else its name."""
    texts = [text for name in ("name", "label", "caption") if (text := source.info.get(name, ""))]
    return texts or [Path(source.name).stem]


def _synonyms_of(source: Source) -> Groups:
    """Other names of the label that the table gives, beside our own."""
    others = [name for word in source.info.get("synonyms", "").split(";") if (name := word.strip())]
    label = source.info.get("label", "")
    return with_group(dict.fromkeys([label, *others])) if label and others else GROUPS


# ---- loading -----------------------------------------------------------------------------------------------------


def load_thing(source: Source, config: BuildConfig, seed: int) -> Thing:
    """The object that a source names, centred and in the unit sphere, with its texts, category and split."""
    if source.kind == "catalogue":
        return _from_catalogue(source)
    facts: dict[str, Any] = {
        "source": source.info.get("source") or source.name,
        "licence": source.info.get("licence", ""),
        "file": source.name,
        "file_sha256": _sha256(source.path, Path(source.path).stat().st_mtime_ns),
    }
    shape: Mesh | Splats
    if source.kind == "mesh":
        read, furniture = _read_mesh(source, config)
        shape = read.mesh.normalize()
        facts |= {"notes": list(read.notes)} if read.notes else {}
        facts |= {"lost": list(read.lost)} if read.lost else {}
        if furniture:
            unit = np.ptp(read.mesh.bounds(), axis=0).max() / np.ptp(shape.bounds(), axis=0).max()
            facts["furniture"] = furniture | {"unit_cm": round(float(unit), 3)}  # of one unit of the shape
    else:
        visible, _ = read_splats(source.path).prune()
        shape = (replace(visible, up_axis=config.up_axis) if config.up_axis else visible).normalize()
    texts, synonyms = _texts_of(source), _synonyms_of(source)
    label, group = source.info.get("label", ""), group_of(shape)
    painted = paint_copy(shape, seed) if source.copy and isinstance(shape, Mesh) else None
    if painted is not None:
        shape, texts = painted.mesh, [without_looks(caption.text) for caption in filter_captions(texts).kept]
        synonyms = [[without_looks(name) for name in names] for names in synonyms]
        facts["copy"] = {"of": source.key.rpartition("-c")[0], "changes": painted.changes}
    described = caption_object(texts, shape, synonyms=synonyms, seed=seed)
    captions = copy_captions(painted, described) if painted else described.captions
    facts |= {"filter": described.report.facts(), "group": group}
    return Thing(shape, label, assign(group, label), captions, facts)


def _read_mesh(source: Source, config: BuildConfig) -> tuple[MeshImport, dict[str, Any]]:
    """The mesh of a source, and of furniture what its catalogue says, lengths in centimetres."""
    path = Path(source.path)
    if path.suffix.lower() != SUFFIX:
        top = path.parents[source.name.count("/")]  # the folder that was given, below which the name stands
        return read_mesh_notes(path, up_axis=config.up_axis, factors=config.factors, root=top), {}
    if not source.index:
        list_furniture(path)  # raises: a .sh3f without a number is one that could not be read
    piece, read = read_furniture(path, source.index)
    facts = {name: getattr(piece, name) for name in ("name", "category", "tags", "door_or_window", "creator")}
    lengths = {"size_cm": piece.size, "elevation_cm": piece.elevation, "drop_on_top_cm": piece.drop_on_top}
    return read, facts | lengths | {"catalogue": piece.catalogue}


@functools.lru_cache(maxsize=16)
def _sha256(path: str, _changed: int) -> str:
    """Of a file that holds many objects, counted once per process."""
    return file_sha256(path)


def _from_catalogue(source: Source) -> Thing:
    made = make(source.index, seed=source.seed)
    facts = {
        "source": f"catalogue {made.id}",
        "licence": "MIT",
        "catalogue": {"index": source.index, "seed": source.seed, "id": made.id, "params": made.params},
        "holdout": made.holdout,
    }
    split = assign(made.id, made.category, dealt=made.split)
    return Thing(made.mesh.normalize(), made.category, split, tuple(made.captions), facts)


def group_of(shape: Mesh | Splats) -> str:
    """The group of a shape that is centred and fits the unit sphere, for `splits.assign`."""
    low, high = (np.asarray(corner, np.float64) for corner in shape.bounds())
    return shape_group(shape.n_faces if isinstance(shape, Mesh) else len(shape), high - low)


# ---- pictures and splats -----------------------------------------------------------------------------------------


def draw_views(shape: Mesh | Splats, config: BuildConfig) -> tuple[Cameras, np.ndarray]:
    """Cameras about the unit sphere, and their pictures ``[V, H, W, 3]`` uint8 over white."""
    up = "+y" if shape.up_axis == "unknown" else shape.up_axis
    cameras = sphere_cameras(config.views, up=up, width=config.size, height=config.size, elevations=config.elevations)
    if isinstance(shape, Mesh):
        colors = render_views(shape, cameras, background=WHITE).colors
    else:
        with torch.no_grad():
            colors = render(shape, cameras.viewmats, cameras.Ks, cameras.width, cameras.height, background=WHITE).colors
    return cameras, (colors.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def fit_job(shape: Mesh | Splats, config: BuildConfig, seed: int) -> FitJob | None:
    """What fitting starts from and aims at; None for splats that are few enough as they are."""
    settings = FitConfig(iterations=config.iterations, seed=seed)
    if isinstance(shape, Mesh):
        return mesh_job(shape, config.gaussians, settings, device=config.device)
    if len(shape) <= config.gaussians:
        return None
    return splat_job(shape.to(config.device), config.gaussians, settings)


def cameras_of(triplet: Triplet) -> Cameras:
    """The cameras of an object's views, out of its provenance.

    Raises:
        ShardError: when they are not there or cannot be cameras.
    """
    facts: Any = triplet.provenance.get("cameras")
    try:
        rows = torch.tensor(facts["viewmats"], dtype=torch.float32).reshape(len(triplet.views), 3, 4)
        fx, fy, cx, cy = (float(value) for value in facts["fx_fy_cx_cy"])
        width, height = int(facts["width"]), int(facts["height"])
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and bool(rows.isfinite().all()) and min(fx, fy) > 0):
            raise ValueError("numbers out of range")
    except (TypeError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise ShardError(f"object {triplet.key}", "provenance must hold a camera per view", got, "rebuild") from None
    last = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rows), 1, 4)
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return Cameras(torch.cat([rows, last], dim=1), K.repeat(len(rows), 1, 1), width, height)


def _camera_facts(cameras: Cameras) -> dict[str, Any]:
    """Cameras as JSON; world to camera, OpenCV axes."""
    viewmats = [[round(float(v), 6) for v in matrix.flatten()[:12]] for matrix in cameras.viewmats]
    focal, center = float(cameras.Ks[0, 0, 0]), float(cameras.Ks[0, 0, 2])
    return {
        "width": cameras.width,
        "height": cameras.height,
        "fx_fy_cx_cy": [round(value, 6) for value in (focal, focal, center, center)],  # the same for all
        "viewmats": viewmats,  # first three rows each, row by row
    }


# ---- texts and embeddings ----------------------------------------------------------------------------------------


def teacher_columns(
    captions: tuple[Caption, ...], image_embeds: torch.Tensor, text_embeds: torch.Tensor, teacher: Teacher
) -> tuple[tuple[Caption, ...], dict[str, Any]]:
    """What a teacher adds to an object whose views ``[V, D]`` and texts ``[T, D]`` it has embedded.

    The texts with their scores, and the columns ``teacher``, ``image_embeds`` and ``text_embeds`` of `Triplet`.
    """
    image_embeds, text_embeds = image_embeds.float().cpu(), text_embeds.float().cpu()
    scored = score_captions(captions, image_embeds, lambda _: text_embeds)
    columns = {
        "teacher": TeacherInfo(teacher.identity, teacher.embed_dim),
        "image_embeds": image_embeds.half().numpy(),
        "text_embeds": text_embeds.half().numpy(),
    }
    return tuple(Caption(c.text, c.source, round(c.score or 0.0, 5)) for c in scored), columns


@functools.cache
def _teacher(name: str, device: str) -> Teacher:
    """One teacher per worker process; without it no object can be made."""
    try:
        return load_teacher(name, device=device)
    except (TeacherError, ValueError) as error:
        raise StopBuild(f"no teacher {name!r}: {error}") from error
