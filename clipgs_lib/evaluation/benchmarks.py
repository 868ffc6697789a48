"""Benchmarks by name: lists of classes, and folders of meshes in the layout of ModelNet40."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..files import text_of
from ..runtime import real_data_dir
from ..shards.writer import MANIFEST
from ..triplets import BuildConfig, build_triplets, folder_sources
from ..words import first_of

MODELNET40 = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain"),
    *("desk", "door", "dresser", "flower pot", "glass box", "guitar", "keyboard", "lamp", "laptop", "mantel"),
    *("monitor", "night stand", "person", "piano", "plant", "radio", "range hood", "sink", "sofa", "stairs", "stool"),
    *("table", "tent", "toilet", "tv stand", "vase", "wardrobe", "xbox"),
)
SCANOBJECTNN = (
    *("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink"),
    *("sofa", "toilet"),
)
LISTS = {"modelnet40": MODELNET40, "scanobjectnn": SCANOBJECTNN}
LVIS = "objaverse-lvis"  # 1,156 names, of a file beside the project
LVIS_FILE = "text/uni3d/labels.json"  # below `real_data_dir`


class EvaluationWarning(UserWarning):
    """Something that is measured says less than it seems to."""


def class_list(name: str, labels: Sequence[str]) -> list[str]:
    """Classes to choose from.

    Args:
        name: "labels" for those that the objects have; modelnet40, scanobjectnn, objaverse-lvis (its names are read
            from the real data beside the project); or a file: a name on each line, or a JSON list of names.
        labels: of the objects.

    Returns:
        Different names, with blanks for underscores; for "labels" sorted.

    Raises:
        ValueError: for an unknown name, a file without names, or a list with a name twice.
    """
    if name == "labels":
        return sorted(set(labels) - {""})
    if name.lower() in LISTS:
        names = list(LISTS[name.lower()])
    else:
        names = _lvis() if name.lower() == LVIS else _read(Path(name))
    names = [" ".join(str(one).replace("_", " ").split()) for one in names]
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
