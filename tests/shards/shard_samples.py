"""Small triplets and hand-made tars for the shard tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from clipgs_lib.captions.caption import Caption
from clipgs_lib.shards import writer
from clipgs_lib.shards.triplet import TeacherInfo, Triplet, encode_triplet, encode_view
from clipgs_lib.shards.writer import write_set

from ..conftest import make_splats

TEACHER = TeacherInfo("stand-in/1", 16)


def unit_rows(n: int, dim: int, seed: int) -> np.ndarray:
    """Random unit rows ``[n, dim]`` float16."""
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def make_triplet(
    number: int, *, split: str = "train", teacher: TeacherInfo | None = TEACHER, **changes: Any
) -> Triplet:
    """Object ``number``: 20 gaussians, 2 views of 24 x 20 pixels, 3 texts."""
    rng = np.random.default_rng(number)
    views = tuple(encode_view(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(2))
    columns: dict[str, Any] = {
        "key": f"object-{number:04d}",
        "splats": make_splats(20, degree=number % 2, seed=number),
        "views": views,
        "texts": (
            Caption(f"object {number}", "raw"),
            Caption("ein Becher 🍵", "filtered"),
            Caption("a cup", "enriched", 0.3),
        ),
        "category": f"kind{number % 3}",
        "split": split,
        "provenance": {"source": f"test {number}", "licence": "CC0-1.0", "psnr": 20.0 + number},
        "teacher": teacher,
    }
    if teacher is not None:
        columns["image_embeds"] = unit_rows(2, teacher.dim, number)
        columns["text_embeds"] = unit_rows(3, teacher.dim, number + 1000)
    return Triplet(**(columns | changes))


def make_set(
    folder: Path,
    counts: Sequence[tuple[str, int]] = (("train", 17), ("val", 4)),
    per_shard: int = 5,
    compress: bool = False,
) -> Path:
    """A set with so many objects per split, ``per_shard`` in each tar."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = [split for split, count in counts for _ in range(count)]
    blocks = [encode_triplet(make_triplet(number, split=split)) for number, split in enumerate(splits)]
    with small_shards(per_shard):
        write_set(folder, blocks, build={"what": "test"}, compress=compress)
    return folder


def small_shards(most: int) -> AbstractContextManager[Any]:
    """Within it, shards hold no more objects than that."""
    return patch.object(writer, "MAX_OBJECTS", most)


def tar_of(members: Sequence[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar as Python's own tarfile writes it, with any names and types."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
