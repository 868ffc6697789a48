"""Benchmarks: lists of classes by name, folders of meshes in the layout of ModelNet40, and minimal pairs.

Those are two objects that differ in texture, colour, shape or count alone, each with the text that says so. The
catalogue makes them and the triplet factory builds them, so they are a set like any other.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..catalogue import KINDS, pairs
from ..files import text_of
from ..runtime import real_data_dir
from ..shards import ShardError, ShardSet, Triplet
from ..shards.writer import MANIFEST
from ..triplets import BuildConfig, Source, build_triplets, folder_sources
from ..triplets.stages import Begun, Thing, draw_views, finish, fit_job
from ..words import first_of
from .scores import hit_rates

LISTS: dict[str, list[str]] = json.loads(Path(__file__).with_name("classes.json").read_text(encoding="utf-8"))
LVIS = "objaverse-lvis"  # 1,156 names, of a file beside the project
LVIS_FILE = "text/uni3d/labels.json"  # below `real_data_dir`


class EvaluationWarning(UserWarning):
    """Something that is measured says less than it seems to."""


def class_list(name: str, labels: Sequence[str]) -> list[str]:
    """Classes to choose from: different names, with blanks for underscores; those of "labels" sorted.

    ``name`` is "labels" for those that the objects have; modelnet40, scanobjectnn, objaverse-lvis (its names are read
    from the real data beside the project); or a file: a name on each line, or a JSON list of names. ValueError for an
    unknown name, a file without names, or a list with a name twice.
    """
    if name == "labels":
        return sorted(set(labels) - {""})
    listed = LISTS.get(name.lower()) or (_lvis() if name.lower() == LVIS else _read(Path(name)))
    names = [" ".join(str(one).replace("_", " ").split()) for one in listed]
    twice = [one for one, times in Counter(class_id(one) for one in names).items() if times > 1]
    if twice or not any(names):
        got = f"{first_of(twice)} more than once; leave the others out" if twice else "none"
        raise ValueError(f"a class list must hold different names, got {got} in {name}")
    ids = {class_id(one) for one in names}
    if not any(class_id(label) in ids for label in labels):
        shown = f"{first_of(sorted(set(labels) - {''}), 4)} beside {first_of(names, 4)}"
        text = f"none of the objects' labels is in the class list {name}: {shown}; is it of another language?"
        warnings.warn(text, EvaluationWarning, stacklevel=2)
    return names


def class_id(name: str) -> str:
    """What makes two class names equal: neither case nor underscores count."""
    return " ".join(name.replace("_", " ").split()).casefold()


def _lvis() -> list[str]:
    folder = real_data_dir()
    if folder is None or not (folder / LVIS_FILE).is_file():
        raise ValueError(
            f"the {LVIS} names must lie in {LVIS_FILE} of the folder that CLIPGS_REAL_DATA names, got none there; "
            "pass a file with a name on each line instead"
        )
    return list(json.loads((folder / LVIS_FILE).read_text(encoding="utf-8"))["objaverse_lvis_openshape"])


def _read(path: Path) -> list[str]:
    if not path.is_file():
        known = ", ".join(["labels", *LISTS, LVIS])
        raise ValueError(f"classes must be {known}, or a file with a name on each line, got {str(path)!r}")
    text = text_of(path.read_bytes())
    if path.suffix.lower() != ".json":
        return [line for line in text.splitlines() if line.strip()]
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise ValueError(f"{path} must be a JSON list of names, got {type(names).__name__}")
    return names


def open_folder(
    folder: str | os.PathLike[str],
    teacher: str,
    work: str | os.PathLike[str],
    progress: Callable[[int, int, int], None] | None = None,
) -> Path:
    """A set as it is; of a folder of meshes ``class/test/*`` (and ``class/train/*``) the set of its test objects.

    That is built once, below ``work``: 8 views, 1,024 gaussians as a fit starts, not fitted; up is +z, as there. Errors
    are those of `build_triplets`.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file() or not any(folder.glob("*/test/*")):
        return folder
    sources = [source for source in folder_sources(folder) if source.name.split("/")[1:2] == ["test"]]
    labelled = [replace(s, info={**s.info, "label": s.name.split("/")[0].replace("_", " ")}) for s in sources]
    size = 160 if teacher == "mini" else 224
    config = BuildConfig(views=8, size=size, iterations=0, teacher=teacher, up_axis="+z")
    out = Path(work) / f"{folder.resolve().name}-test-{teacher.replace('/', '-')}"
    report = build_triplets(labelled, out, config, workers=max(1, (os.cpu_count() or 2) // 2), progress=progress)
    if report.quarantined:
        text = f"{report.quarantined} of {len(labelled)} meshes of {folder} could not be read, see {out}"
        warnings.warn(f"{text}/quarantine.jsonl", EvaluationWarning, stacklevel=2)
    return out


def build_pairs(out: str | os.PathLike[str], count: int, teacher: str, *, workers: int = 1) -> ShardSet:
    """Build a set of ``count`` minimal pairs of each kind, or go on with one that was stopped; a finished one is left.

    Shapes are of the catalogue's test split. The splats are the start of a fit, unfitted: 1,024 gaussians. ``teacher``
    is a name for `load_teacher`. ShardError when the folder holds another set, the teacher cannot be had, or an object
    could not be made.
    """
    sides = [(f"{kind}-{number:04d}-{side}", number) for kind in KINDS for number in range(count) for side in (0, 1)]
    sources = [Source(key, "pair", index=number) for key, number in sides]
    config = BuildConfig(views=4, size=160, iterations=0, teacher=teacher)
    report = build_triplets(sources, out, config, workers=workers, produce=_side)
    if report.quarantined:
        raise ShardError(str(out), "both sides of every pair must work", str(report), "see its quarantine.jsonl")
    return ShardSet(Path(out))


def _side(source: Source, config: BuildConfig) -> Triplet:
    """One object of a pair; every pair is the first of its own seed, so that none before it has to be made."""
    kind = next(kind for kind in KINDS if source.key.startswith(f"{kind}-"))
    pair, side = next(pairs(kind, 1, seed=source.index, split="test")), int(source.key[-1])
    made = pair.objects[side]
    facts = {"source": f"catalogue {made.id}", "licence": "MIT", "pair": [pair.attribute, *pair.values]}
    thing = Thing(made.mesh.normalize(), made.category, made.split, (pair.captions[side],), facts)
    cameras, images = draw_views(thing.shape, config)
    return finish(Begun(source, thing, cameras, images, fit_job(thing.shape, config, source.index)), config)


def pair_hits(keys: Sequence[str], shapes: Tensor, texts: Tensor) -> dict[str, np.ndarray]:
    """Kind -> ``[P]`` float64 in ``{0, 0.5, 1}``: the share of a pair's two texts that find their side; ties are half.

    Args:
        keys: N, of the objects of a set that `build_pairs` made, in its order.
        shapes: ``[N, D]`` unit-norm, of the objects.
        texts: ``[N, D]`` unit-norm, of their texts.
    """
    out = {}
    for kind in KINDS:
        rows = [row for row, key in enumerate(keys) if key.startswith(f"{kind}-")]
        if rows:
            sides, words = (x[rows].float().reshape(-1, 2, x.shape[1]) for x in (shapes, texts))  # [P, 2, D]
            scores = words @ sides.mT  # [P, 2 texts, 2 sides]
            right = torch.eye(2, dtype=torch.bool).repeat(len(scores), 1)
            out[str(kind)] = hit_rates(scores.flatten(0, 1), right, (1,)).reshape(-1, 2).mean(axis=1)
    return out
