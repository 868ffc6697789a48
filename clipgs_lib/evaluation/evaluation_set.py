"""What is measured: the objects of a split, what their teacher made of them, and what an encoder makes of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..encoders import BagOfViews, Encoder, pool_views
from ..files import replacing
from ..runtime import mixed_precision, resolve_precision
from ..shards import ShardError, ShardSet, TeacherInfo, Triplet, open_embedded
from ..splats import Splats
from ..teachers import Teacher, TeacherError, load_teacher
from ..vectors import unit
from ..words import first_of

BAG = "bag of views"  # the mean of the teacher's embeddings of an object's views: the baseline of every table
CHUNK = 64  # objects decoded at a time
ALL = slice(None)  # views of an object
_ROOMS = ("encoders", "tokenizer", "geometry")  # code that decides embeddings, beside settings and weights

Progress = Callable[[int, int], None]  # done, of


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """N objects of one split of one or more sets; see `load_set`."""

    shards: tuple[ShardSet, ...]
    keys: tuple[tuple[str, ...], ...]  # of the objects of each set, in their order; N in all
    labels: tuple[str, ...]  # N, empty where unknown
    trained: frozenset[str]  # labels in the train splits of these sets
    images: tuple[Tensor, ...]  # N x [V, D] unit rows
    captions: tuple[str, ...]  # T different texts, in lower case
    texts: Tensor  # [T, D] unit rows of them
    owners: Tensor  # [T, N] bool: whose texts they are
    teacher: TeacherInfo

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """N keys."""
        return tuple(key for keys in self.keys for key in keys)

    def splats(self, numbers: Iterable[int]) -> list[Splats]:
        """Splats of objects by their numbers."""
        places = [(shards, key) for shards, keys in zip(self.shards, self.keys, strict=True) for key in keys]
        return [shards.read(key).splats for shards, key in (places[number] for number in numbers)]

    def bag(self, views: slice = ALL) -> Tensor:
        """Means ``[N, D]`` of the teacher's embeddings of these views, renormalised."""
        return torch.stack([pool_views(rows[views]) for rows in self.images])


def load_set(
    folders: Sequence[str | os.PathLike[str]], split: str = "all", progress: Progress | None = None
) -> EvaluationSet:
    """Read labels, and the teacher's embeddings of views and texts, of the objects of a split.

    Args:
        folders: finished sets of one teacher.
        split: of the sets; "all" for the objects of every split.
        progress: called with objects read, and objects in all.

    Raises:
        ShardError: for a set that is broken, has no embeddings or those of another teacher than the first, and when two
            objects have one key.
        ValueError: when there are fewer than 2 objects.
    """
    sets, teacher = open_embedded(folders)
    keys = tuple(tuple(row["key"] for row in one.rows if split in ("all", row["split"])) for one in sets)
    count = Counter(key for part in keys for key in part)
    if double := [key for key, times in count.items() if times > 1]:
        must = "an object must lie in one of the sets, else it counts twice"
        raise ShardError(" and ".join(map(str, folders)), must, first_of(double), "leave one of the sets out")
    if len(count) < 2:
        raise ValueError(f"split {split!r} must hold at least 2 objects, got {len(count)}; --split all takes every one")
    labels, images = list[str](), list[Tensor]()
    texts, owned = dict[str, Tensor](), list[tuple[str, int]]()
    for shards, part in zip(sets, keys, strict=True):
        for key in part:
            triplet = shards.read(key)
            assert triplet.image_embeds is not None and triplet.text_embeds is not None  # the set has a teacher
            images.append(unit(torch.from_numpy(triplet.image_embeds)))
            for caption, row in zip(triplet.texts, torch.from_numpy(triplet.text_embeds), strict=True):
                text = caption.text.strip().casefold()
                texts[text] = row
                owned.append((text, len(labels)))
            labels.append(triplet.category)
            if progress:
                progress(len(labels), len(count))
    owners = torch.zeros(len(texts), len(labels), dtype=torch.bool)
    places = {text: place for place, text in enumerate(texts)}
    owners[[places[text] for text, _ in owned], [number for _, number in owned]] = True
    trained = {row["category"] for one in sets for row in one.rows if row["split"] == "train"}
    return EvaluationSet(
        shards=tuple(sets),
        keys=keys,
        labels=tuple(labels),
        trained=frozenset(trained - {""}),
        images=tuple(images),
        captions=tuple(texts),
        texts=unit(torch.stack(list(texts.values()))),
        owners=owners,
        teacher=teacher,
    )


def embed_set(
    encoder: Encoder,
    shards: ShardSet,
    keys: Sequence[str] | None = None,
    *,
    views: slice = ALL,
    precision: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Embed the objects of a set by an encoder, each by what the encoder reads of it.

    Args:
        encoder: in any mode, on its device.
        shards: a finished set; of its own embeddings those of views are used, by the bag of views of its teacher.
        keys: N of its objects; None for all, in the order of the set.
        views: which of an object's views an encoder of views reads.
        precision: auto, fp32 or bf16.
        cache: folder in which embeddings are kept for the next call, by the content of the set, the encoder's settings
            and weights, and the code of encoders; it can be deleted at any time. None keeps nothing.
        progress: called with objects embedded, and objects in all.

    Returns:
        ``[N, D]`` float32, unit rows, on the CPU.

    Raises:
        ShardError: for an object that is damaged, or not fit for the encoder.
        EncoderError: when an embedding is not finite.
    """
    chosen = [row["key"] for row in shards.rows] if keys is None else list(keys)
    kind = resolve_precision(precision, encoder.device)
    file = None
    if cache is not None:
        seen = list(range(max(row["n_views"] for row in shards.rows))[views])  # all, however the slice says it
        parts = [shards.manifest["content_sha256"], encoder.identity, kind, str(seen), _code(), *chosen]
        file = Path(cache) / f"embeds-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}.safetensors"
        if file.is_file():
            return load_file(file)["embeds"]
    parts_done = [torch.empty(0, encoder.embed_dim)]
    for start in range(0, len(chosen), CHUNK):
        contents = [content_of(shards.read(key), encoder, views) for key in chosen[start : start + CHUNK]]
        try:
            with mixed_precision(kind, encoder.device):
                parts_done.append(encoder.encode(contents).float().cpu())
        except ValueError as error:
            where = f"objects {chosen[start]} to {chosen[min(start + CHUNK, len(chosen)) - 1]}"
            raise ShardError(where, f"they must be fit for {encoder.config.name}", str(error), "leave it out") from None
        if progress:
            progress(min(start + CHUNK, len(chosen)), len(chosen))
    embeds = torch.cat(parts_done)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            save_file({"embeds": embeds}, draft)
    return embeds


def content_of(triplet: Triplet, encoder: Encoder, views: slice = ALL) -> Any:
    """What an encoder reads of an object: those of its views, or its splats.

    A bag of views gets the embeddings that its teacher has made of the views already, where the object holds them.

    Raises:
        ShardError: when no view is left, or one is damaged.
    """
    if encoder.inputs != "views":
        return triplet.splats
    chosen = range(len(triplet.views))[views]
    if not chosen:
        got = f"none of {len(triplet.views)} that may be seen"
        raise ShardError(f"object {triplet.key}", f"{encoder.config.name} must have views to read", got, "leave it out")
    if isinstance(encoder, BagOfViews) and triplet.image_embeds is not None and triplet.teacher is not None:
        digest = triplet.teacher.identity.rpartition(" sha256:")[2]
        if encoder.config.teacher_sha256 in ("unknown", digest):  # as the bag itself checks a teacher
            return torch.from_numpy(triplet.image_embeds[views])
    return triplet.images(chosen)


def _code() -> str:
    """Hash of the library's code that decides embeddings."""
    top = Path(__file__).resolve().parents[1]
    files = sorted(file for room in _ROOMS for file in (top / room).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def load_teacher_of(teacher: TeacherInfo, name: str = "teacher", device: str | torch.device = "cpu") -> Teacher:
    """Load the teacher of a set, for the words of classes or for pictures.

    Args:
        teacher: of the set; the part of its identity before the hash is what `load_teacher` takes.
        name: "teacher", or the name that it has here.
        device: where it runs.

    Raises:
        ValueError: when the teacher cannot be had here, or is another than the set's.
    """
    title, _, digest = teacher.identity.rpartition(" sha256:")
    name = title if name == "teacher" else name
    way = "name it as load_teacher takes it here with zero_shot=NAME, or measure without words: zero_shot=none"
    try:
        loaded = load_teacher(name, device=device)
    except (TeacherError, ValueError) as error:
        raise ValueError(f"zero-shot needs the shards' teacher {name!r}, got: {error}; {way}") from error
    if loaded.digest != digest:
        raise ValueError(
            f"the teacher must be the shards' {teacher.identity}, got {loaded.identity}; embed them anew "
            f"(clipgs triplets embed SET --teacher {name} --out NEW), or {way}"
        )
    return loaded


def class_weights(
    teacher: TeacherInfo, classes: Sequence[str], prompts: Sequence[str], name: str = "teacher", device: str = "cpu"
) -> Tensor:
    """Embeddings ``[C, D]`` of the names of classes by the teacher of a set: float32 unit rows, on the CPU.

    Errors, ``name`` and ``device`` are those of `load_teacher_of`.
    """
    return load_teacher_of(teacher, name, device).zero_shot_weights(list(classes), list(prompts)).float().cpu()
