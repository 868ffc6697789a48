"""A finished set embedded anew by another teacher: fit once, choose the teacher later, or change it.

Splats and views go over byte for byte and texts as they are; embeddings, scores of texts and the teacher's name are
new. It goes on after a kill as a build does: finished objects lie under ``OUT/.building`` until all are there.

The embedded sample, two objects of each category of the catalogue, is made so: fits first, embeddings then.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..shards.shard_set import ShardSet
from ..shards.tar import ShardError, unpack_members
from ..shards.triplet import TeacherInfo, Triplet, encode_triplet
from ..shards.writer import MANIFEST
from ..teachers import Teacher, TeacherError, load_teacher
from .build import build_triplets
from .recipe import BuildConfig, catalogue_sources
from .stages import teacher_columns
from .staging import QUARANTINE, BuildReport, Progress, Staging, complete


def embed_triplets(
    folder: str | os.PathLike[str] | ShardSet,
    out: str | os.PathLike[str],
    teacher: str | Teacher,
    *,
    device: str = "cpu",
    batch: int = 256,
    compress: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> BuildReport:
    """Embed a set by a teacher into another folder, or go on with that; a finished one is left as it is.

    Args:
        folder: a finished set, with or without embeddings.
        out: another folder, made when missing.
        teacher: name for `teachers.load_teacher`, or a teacher.
        device: of a teacher given by name.
        batch: pictures gathered for one call of the teacher, ``>= 1``; whole objects.
        compress: the shards, see `shards.writer.write_set`.
        command: what makes this set anew, for its manifest.
        progress: called with objects done, objects in all, objects set aside.

    Returns:
        A report, whose ``quarantined`` counts what ``folder`` had set aside as well.

    Raises:
        ShardError: when ``out`` is ``folder`` or holds something else, no object could be read, or the disk is full
            (what is finished is kept, and the same call goes on).
        ValueError: when there is no such teacher, or ``batch`` is out of range.
    """
    shards, target = folder if isinstance(folder, ShardSet) else ShardSet(folder), Path(out)
    if target.resolve() == shards.folder.resolve():
        must = "the new set must have a folder of its own"
        raise ShardError(str(target), must, "that of the old one", "name another")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    eye = _load(teacher, device, batch) if isinstance(teacher, str) else teacher
    recipe = _recipe(shards, teacher if isinstance(teacher, str) else teacher.name, eye, batch)
    recipe |= {"command": command} if command else {}
    keys = [row["key"] for row in shards.rows]

    def work(stage: Staging) -> Generator[int]:
        for chunk in _chunks(shards, batch):
            if not all(stage.has(keys[number]) for number in chunk):  # whole chunks: equal batches embed equally
                _embed_chunk(shards, chunk, stage, eye)
            yield chunk[-1] + 1

    old = shards.folder / QUARANTINE
    before = old.read_bytes().splitlines() if old.exists() else []
    return complete(target, recipe, keys, work, compress=compress, before=before, progress=progress)


def _load(name: str, device: str, batch: int) -> Teacher:
    try:
        return load_teacher(name, device=device, batch_size=batch)
    except TeacherError as error:
        raise ValueError(f"no teacher {name!r}: {error}") from error


def _recipe(shards: ShardSet, name: str, teacher: Teacher, batch: int) -> dict[str, Any]:
    """What the old set was built by, and by whom it is embedded now."""
    build = shards.manifest["build"]
    info = asdict(TeacherInfo(teacher.identity, teacher.embed_dim))
    embedded = {"from_sha256": shards.manifest["content_sha256"], "teacher": info, "batch": batch}
    return build | {"config": build.get("config", {}) | {"teacher": name}, "embedded": embedded}


def _chunks(shards: ShardSet, batch: int) -> Iterator[list[int]]:
    """Numbers of successive objects with at least ``batch`` views between them; fewer in the last one."""
    chunk: list[int] = []
    views = 0
    for number, row in enumerate(shards.rows):
        chunk.append(number)
        views += row["n_views"]
        if views >= batch:
            yield chunk
            chunk, views = [], 0
    if chunk:
        yield chunk


def _embed_chunk(shards: ShardSet, chunk: Sequence[int], stage: Staging, teacher: Teacher) -> None:
    """Embed some objects together, and keep each of them; those that cannot be read are set aside."""
    opened = []
    for number in chunk:
        try:
            opened.append(_open(shards, number))
        except ShardError as error:
            row = shards.rows[number]
            stage.set_aside(row["key"], row["source"], f"ShardError: {error}"[:2_000])
    if not opened:
        return
    images = _encode_images([pictures for _, _, pictures in opened], teacher)
    texts = list(dict.fromkeys(caption.text for triplet, _, _ in opened for caption in triplet.texts))
    text_embeds = dict(zip(texts, teacher.encode_text(texts).float().cpu(), strict=True))
    for (triplet, splat, _), image_embeds in zip(opened, images, strict=True):
        rows = torch.stack([text_embeds[caption.text] for caption in triplet.texts])  # [T, D]
        captions, columns = teacher_columns(triplet.texts, image_embeds, rows, teacher)
        block = encode_triplet(replace(triplet, texts=captions, **columns), splat)
        lost = triplet.provenance.get("lost")
        names = [str(name) for name in lost] if isinstance(lost, list) else []
        stage.keep(triplet.key, str(triplet.provenance.get("file", triplet.key)), block, names)


def _open(shards: ShardSet, number: int) -> tuple[Triplet, bytes, np.ndarray]:
    """An object, the member of its splats as it is, and its views ``[V, H, W, 3]`` uint8."""
    row, triplet = shards.rows[number], shards.read(number)
    members = unpack_members(shards.block(number), row["shard"])
    splat = next(bytes(data) for _, part, data in members if part == "splat.safetensors")
    for caption in triplet.texts:
        if any("\ud800" <= char <= "\udfff" for char in caption.text):
            where = f"{row['shard']}, member {row['key']}.texts.json"
            raise ShardError(where, "texts must be Unicode", "half of a surrogate pair", "leave the text out")
    return triplet, splat, triplet.images()


def _encode_images(pictures: Sequence[np.ndarray], teacher: Teacher) -> list[torch.Tensor]:
    """Embed the pictures of several objects, ``[V, H, W, 3]`` each, into ``[V, D]`` each; one call per size."""
    out: list[torch.Tensor] = [torch.empty(0)] * len(pictures)
    for size in dict.fromkeys(array.shape[1:] for array in pictures):
        which = [place for place, array in enumerate(pictures) if array.shape[1:] == size]
        embeds = teacher.encode_image(np.concatenate([pictures[place] for place in which])).float().cpu()
        for place, rows in zip(which, embeds.split([len(pictures[place]) for place in which]), strict=True):
            out[place] = rows
    return out


FOLDER = Path(__file__).resolve().parents[2] / "data" / "triplets" / "sample"
OBJECTS = 248  # the first two of each of the 124 categories
RECIPE = BuildConfig(views=4, size=96, gaussians=1_024, iterations=300, quality=85)
COMMAND = "clipgs triplets sample --out data/triplets/sample --raw build/sample"


def sample_set() -> ShardSet:
    """The embedded sample: 248 objects of the catalogue with 1,024 gaussians, 4 views, texts, embeddings by mini."""
    if not (FOLDER / MANIFEST).is_file():
        todo = f"build it in the folder of the checkout: {COMMAND}"
        raise ShardError(str(FOLDER), "the embedded sample must be there", "no such set", todo)
    return ShardSet(FOLDER)


def open_set(folder: str | Path = "") -> ShardSet:
    """The finished set in a folder, or the embedded sample when none is named; ShardError when it is not there."""
    return ShardSet(folder) if folder else sample_set()


def build_sample_set(
    out: str | Path,
    raw: str | Path,
    *,
    teacher: str = "mini",
    objects: int = OBJECTS,
    workers: int = 1,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the sample: fit so many ``objects`` of the catalogue into ``raw``, then embed into ``out``, compressed.

    ``progress`` is called through both steps. ShardError as `build_triplets` and `embed_triplets`; also when an object
    was set aside.
    """
    first = build_triplets(catalogue_sources(objects), raw, RECIPE, workers=workers, progress=progress)
    if first.quarantined:
        raise ShardError(str(raw), "every object of the sample must work", str(first), "see its quarantine.jsonl")
    return embed_triplets(raw, out, teacher, compress=True, command=COMMAND, progress=progress)
