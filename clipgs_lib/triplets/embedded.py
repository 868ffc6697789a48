"""The embedded sample: two objects of each category of the catalogue, small enough to lie beside the code.

It is built in two steps, both of which go on after a stop: fit without a teacher, then embed. The fits are kept, so
that another teacher needs the second step only. `COMMAND` does it.
"""

from __future__ import annotations

from pathlib import Path

from ..shards.shard_set import ShardSet
from ..shards.tar import ShardError
from ..shards.writer import MANIFEST, ShardLimits
from .build import build_triplets
from .embed import embed_triplets
from .recipe import BuildConfig
from .sources import catalogue_sources
from .staging import BuildReport, Progress

FOLDER = Path(__file__).resolve().parents[2] / "data" / "triplets" / "sample"
OBJECTS = 248  # the first two of each of the 124 categories
RECIPE = BuildConfig(views=4, size=96, gaussians=1_024, iterations=300, quality=85)
COMMAND = "clipgs triplets sample --out data/triplets/sample --raw build/sample"


def sample_set() -> ShardSet:
    """The embedded sample: 248 objects of the catalogue with 1,024 gaussians, 4 views, texts, and embeddings by mini.

    Raises:
        ShardError: when it is not there or damaged.
    """
    if not (FOLDER / MANIFEST).is_file():
        todo = f"build it in the folder of the checkout: {COMMAND}"
        raise ShardError(str(FOLDER), "the embedded sample must be there", "no such set", todo)
    return ShardSet(FOLDER)


def open_set(folder: str | Path = "") -> ShardSet:
    """The finished set in a folder, or the embedded sample when none is named.

    Raises:
        ShardError: when it is not there or damaged.
    """
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
    """Build the sample: fit into ``raw``, then embed into ``out``, with compressed shards.

    Args:
        out: folder of the sample.
        raw: folder of the fits, a set without embeddings.
        teacher: see `teachers.load_teacher`.
        objects: the first so many of the catalogue.
        workers: processes that fit.
        progress: see `build_triplets`; called through both steps.

    Raises:
        ShardError: as `build_triplets` and `embed_triplets`; also when an object was set aside.
    """
    first = build_triplets(catalogue_sources(objects), raw, RECIPE, workers=workers, progress=progress)
    if first.quarantined:
        raise ShardError(str(raw), "every object of the sample must work", str(first), "see its quarantine.jsonl")
    limits = ShardLimits(compress=True)
    return embed_triplets(raw, out, teacher, limits=limits, command=COMMAND, progress=progress)
