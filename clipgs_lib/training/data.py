"""Batches out of shards: every batch follows from the seed and the number of the step alone.

So an exact resume needs no state of a loader, and what is prepared ahead by threads is what would be prepared later.
Splats and embeddings are decoded once and kept in memory when they fit; larger sets are read as `TripletStream` orders
them, each rank its own part. The frozen tower of a multi-view encoder sees each view once: files keep what comes out.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..captions import Caption, draw_caption
from ..encoders import Encoder, MultiViewEncoder, ViewTokens
from ..files import replacing
from ..shards import ShardError, ShardSet, Triplet, TripletStream, open_embedded
from ..splats import Splats
from ..tokenizer import SplatBatch, collate
from ..vectors import unit
from .augment import augment
from .distributed import Place, share, shares
from .run_config import TrainConfig


class FrozenViews:
    """Tokens of the views of an object, float16: out of the file of its set, or made now and put there.

    The files lie in ``folder`` (None for no files) as ``SET-views-HASH.npy``, of teacher, depth and content of the set:
    16 KB a view for `mini` at 160 px. They can be deleted at any time between runs; a run that was stopped goes on with
    what is there.
    """

    def __init__(self, encoder: MultiViewEncoder, folder: Path | None) -> None:
        self.encoder, self.folder = encoder, folder
        self.shape = encoder.freeze([np.zeros((1, 8, 8, 3), np.uint8)]).tokens.shape[1:]  # of one view
        self._files: dict[str, tuple[np.ndarray, dict[str, int]]] = {}  # by content of the set; place of each object

    def size(self, row: Mapping[str, Any]) -> int:
        """Bytes of an object's tokens."""
        return 2 * int(row["n_views"]) * self.shape.numel()

    def __call__(self, shards: ShardSet, triplet: Triplet) -> ViewTokens:
        """The tokens of one object; ShardError when a view is damaged, or the views are of several sizes."""
        if self.folder is None:
            return self._read(triplet)
        content = shards.manifest["content_sha256"]
        if content not in self._files:
            self._files[content] = self._open(shards, content, self.folder)
        tokens, places = self._files[content]
        count, start = len(triplet.views), places[triplet.key]
        rows = tokens[start : start + count]
        if not rows.any(axis=-1).all():  # no token is all zeros once it is written
            rows[:] = self._read(triplet).tokens.numpy()
        return ViewTokens(torch.from_numpy(np.array(rows)), (count,))

    def _read(self, triplet: Triplet) -> ViewTokens:
        pictures = [triplet.images([view])[0] for view in range(len(triplet.views))]
        try:
            views = self.encoder.freeze([pictures])
        except ValueError as error:
            must = "the views must be fit for a multi-view encoder"
            raise ShardError(f"object {triplet.key}", must, str(error), "leave the object out") from None
        return ViewTokens(views.tokens.half().cpu(), views.counts)

    def _open(self, shards: ShardSet, content: str, folder: Path) -> tuple[np.ndarray, dict[str, int]]:
        config = self.encoder.config
        facts = f"{config.teacher} {config.teacher_sha256} {config.depth} {content}"
        digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
        path = folder / f"{shards.folder.resolve().name}-views-{digest}.npy"
        starts = np.cumsum([0, *(row["n_views"] for row in shards.rows)]).tolist()
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                np.lib.format.open_memmap(draft, "w+", np.float16, (starts[-1], *self.shape)).flush()
        tokens = np.lib.format.open_memmap(path, "r+")
        if tokens.shape != (starts[-1], *self.shape) or tokens.dtype != np.float16:
            must = f"{path} must hold float16 {[starts[-1], *self.shape]}"
            raise ValueError(f"{must}, got {tokens.dtype} {list(tokens.shape)}; delete the file")
        return tokens, {row["key"]: start for row, start in zip(shards.rows, starts, strict=False)}


Content: TypeAlias = Splats | ViewTokens
_GAUSSIAN = 56  # bytes of one gaussian of SH degree 0 in float32


@dataclass(frozen=True, eq=False)
class Sample:
    """What training needs of one object."""

    key: str  # of its set
    content: Content  # splats of SH degree 0, normalised into the unit sphere; or views, see `FrozenViews`
    category: str  # empty when unknown
    captions: tuple[Caption, ...]  # T
    image_embeds: Tensor  # [V, D] float16
    text_embeds: Tensor  # [T, D] float16
    text_ids: tuple[int, ...]  # T; equal texts have equal ones in any set


class Objects:
    """The objects of one or more sets, numbered through, with their common teacher.

    Args:
        folders: finished sets.
        memory_gb: keep decoded objects when all of them need no more than this.

    Raises:
        ShardError: for a set that is broken, was built without a teacher, or has another teacher than the first, and
            for an object that lies in different splits of two sets.
    """

    def __init__(self, folders: Sequence[str], memory_gb: float = 8.0) -> None:
        self.sets, self.teacher = open_embedded(folders)
        self.rows = [(shards, row) for shards in self.sets for row in shards.rows]
        self.starts = np.cumsum([0] + [len(shards) for shards in self.sets]).tolist()
        _check_splits(self.rows)
        self._memory_gb = memory_gb
        self._kept: dict[int, Sample] = {}
        self._reading = Lock()
        self._views: FrozenViews | None = None
        self.collate: Callable[[Sequence[Any]], Any] = partial(collate, normalize=False)  # batches of changed samples
        self._measure()

    def read_for(self, encoder: Encoder, folder: Path | None = None) -> None:
        """Have samples hold what an encoder, on its device, reads; without a call that is splats.

        What the frozen part of a multi-view encoder makes of views is kept in ``folder``, see `FrozenViews`; for None
        in memory alone.
        """
        self._views = FrozenViews(encoder, folder) if isinstance(encoder, MultiViewEncoder) else None
        self.collate = partial(encoder.collate, normalize=False)
        self._kept.clear()
        self._measure()

    def _measure(self) -> None:
        """Find out whether all samples fit into memory."""
        need = sum((row["n_views"] + row["n_texts"]) * 2 * self.teacher.dim for _, row in self.rows)
        for _, row in self.rows:
            need += row["n_gaussians"] * _GAUSSIAN if self._views is None else self._views.size(row)
        self.in_memory = need <= self._memory_gb * 1e9

    def __len__(self) -> int:
        return len(self.rows)

    def numbers(self, split: str) -> list[int]:
        """Objects of a split in all sets that have it; of every split for "all"."""
        return [number for number, (_, row) in enumerate(self.rows) if split in ("all", row["split"])]

    def categories(self) -> list[str]:
        """Every known category, sorted."""
        return sorted({row["category"] for _, row in self.rows} - {""})

    def facts(self) -> list[dict[str, Any]]:
        """Name, counts, hashes and licences of each set, without folders of this machine."""
        return [
            {
                "name": shards.folder.resolve().name,
                "objects": len(shards),
                "splits": {name: entry["objects"] for name, entry in shards.manifest["splits"].items()},
                "split_sha256": {name: entry["sha256"] for name, entry in shards.manifest["splits"].items()},  # of keys
                "content_sha256": shards.manifest["content_sha256"],
                "licences": dict(Counter(row["licence"] or "not stated" for row in shards.rows)),
            }
            for shards in self.sets
        ]

    def sample(self, number: int) -> Sample:
        """One object; ShardError when it is damaged, or cannot be normalised."""
        sample = self._kept.get(number)
        if sample is None:
            shards, row = self.rows[number]
            with self._reading:  # a set closes the files that it used longest ago, under the hands of other threads
                triplet = shards.read(row["key"])
                content = _splats(triplet) if self._views is None else self._views(shards, triplet)
            assert triplet.image_embeds is not None and triplet.text_embeds is not None  # the set has a teacher
            sample = Sample(
                key=triplet.key,
                content=content,
                category=triplet.category,
                captions=triplet.texts,
                image_embeds=torch.from_numpy(triplet.image_embeds),
                text_embeds=torch.from_numpy(triplet.text_embeds),
                text_ids=tuple(text_id(caption.text) for caption in triplet.texts),
            )
            if self.in_memory:
                self._kept[number] = sample
        return sample


def _splats(triplet: Triplet) -> Splats:
    try:
        return triplet.splats.with_sh_degree(0).normalize()
    except ValueError as error:
        raise ShardError(f"object {triplet.key}", "the splat must have a size", str(error), "leave it out") from None


def text_id(text: str) -> int:
    """A number in ``[0, 2**62)`` for a text; case and outer space do not count."""
    return int.from_bytes(hashlib.sha256(text.strip().casefold().encode()).digest()[:8], "big") >> 2


def _check_splits(rows: Sequence[tuple[ShardSet, Mapping[str, Any]]]) -> None:
    seen: dict[tuple[str, str], tuple[ShardSet, str]] = {}
    for shards, row in rows:
        where, split = seen.setdefault((row["key"], row["source"]), (shards, row["split"]))
        if split != row["split"]:
            got = f"{split!r} in {where.folder.name}, {row['split']!r} in {shards.folder.name}"
            must = "an object must lie in one split, so that nothing trained on is tested on"
            raise ShardError(f"object {row['key']}", must, got, "build the sets with the same seed, or use one of them")


# ---- which objects make up a step --------------------------------------------------------------------------------


class Plan:
    """Which objects a rank has in each step, from the seed and the step alone.

    In memory, an epoch is one permutation of all objects, cut into batches whose sizes differ by at most one, and each
    rank takes a contiguous part of each batch: the batches are the same for any number of ranks. Streamed, each rank
    goes through its own part of the shards in the order of `TripletStream`. ValueError when a rank or a micro-batch
    would have no object in some batch, or a batch fewer than 2.
    """

    def __init__(self, objects: Objects, config: TrainConfig, place: Place) -> None:
        self.numbers, self.config, self.place = objects.numbers(config.train_split), config, place
        if config.max_objects and not objects.in_memory:
            raise ValueError(
                f"max_objects must be 0 for sets that are streamed, got {config.max_objects}; raise memory_gb"
            )
        if config.max_objects:
            names = {n: f"{row['key']} {row['source']}" for n, (_, row) in enumerate(objects.rows)}
            by_hash = sorted(self.numbers, key=lambda n: hashlib.sha256(names[n].encode()).digest())
            self.numbers = sorted(by_hash[: config.max_objects])
        split, part = config.train_split, {"rank": place.rank, "world": place.world}
        sets = [] if objects.in_memory else [one for one in objects.sets if split in one.manifest["splits"]]
        self.streams = [TripletStream(one, split, seed=config.seed, even=True, **part) for one in sets]
        self.starts = objects.starts
        total = sum(len(stream) for stream in self.streams) if self.streams else len(self.numbers)
        size = max(1, config.batch_size // place.world) if self.streams else config.batch_size
        self.total, self.batches = total, max(1, -(-total // size))  # of this rank when streamed; per epoch
        least, ranks = (total // self.batches, 1) if self.streams else (total // self.batches, place.world)
        need = max(1 if self.streams and place.world > 1 else 2, ranks * config.accumulate)
        if least < need:
            raise ValueError(
                f"batches must hold at least {need} objects, got {least}: rank {place.rank} of {place.world} has "
                f"{total} objects of split {config.train_split!r} in {self.batches} batches; use fewer processes or "
                "micro-batches, another batch_size, or more data"
            )
        self._order = lru_cache(maxsize=2)(self._order_of)  # threads may stand in two epochs

    def epoch(self, step: int) -> float:
        """How often the data have been seen before a step."""
        return step / self.batches

    def batch(self, step: int) -> tuple[list[int], int, tuple[int, ...]]:
        """This rank's objects, the place of the first of them in the batch, and how many every rank has."""
        epoch, place = divmod(step, self.batches)
        order = self._order(epoch)
        low, high = self.total * place // self.batches, self.total * (place + 1) // self.batches
        world = self.place.world
        if self.streams:
            count = high - low
            return order[low:high].tolist(), count * self.place.rank, (count,) * world
        mine = share(high - low, self.place)
        return order[low:high][mine].tolist(), mine.start, shares(high - low, world)

    def _order_of(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.config.seed, 1, epoch])
        if not self.streams:
            return rng.permutation(np.asarray(self.numbers, dtype=np.int64))
        orders = [self.starts[at] + stream.order(epoch) for at, stream in enumerate(self.streams)]
        mixed = rng.permutation(np.repeat(np.arange(len(orders)), [len(order) for order in orders]))
        out = np.empty(len(mixed), np.int64)
        for at, order in enumerate(orders):
            out[mixed == at] = order
        return out


# ---- batches -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's part of a step. b: its objects, K: views."""

    step: int
    keys: tuple[str, ...]  # b
    parts: tuple[SplatBatch | ViewTokens | Tensor, ...]  # micro-batches as the encoder takes them, b objects in all
    sizes: tuple[int, ...]  # objects of every rank
    images: Tensor  # [b, K, D] float32 unit rows; zeros where there is no view
    views_valid: Tensor  # [b, K] bool
    texts: Tensor  # [b, D] float32 unit rows
    text_ids: Tensor  # [b] int64
    ids: Tensor  # [b] int64, numbers of the objects


def make_batch(objects: Objects, plan: Plan, step: int, config: TrainConfig) -> Batch:
    """Draw views and texts, change the splats, and put a rank's part of a step together."""
    numbers, first, sizes = plan.batch(step)
    count, dim = config.views_drawn, objects.teacher.dim
    samples = [objects.sample(number) for number in numbers]
    images, texts = torch.zeros(len(samples), count, dim), torch.zeros(len(samples), dim)
    views_valid, text_ids = torch.zeros(len(samples), count, dtype=torch.bool), torch.zeros(len(samples)).long()
    changed: list[Any] = []  # splats, or tokens of the drawn views
    for row, sample in enumerate(samples):
        rng = np.random.default_rng([config.seed, 2, step, first + row])
        looks = isinstance(sample.content, ViewTokens)
        most = int(rng.integers(1, config.views, endpoint=True)) if looks else count
        drawn = rng.permutation(len(sample.image_embeds))[:most]
        targets = unit(sample.image_embeds[drawn])
        if looks and config.loss == "contrastive_3d":  # DuoduoCLIP: the mean of what the encoder sees
            targets = unit(targets.mean(dim=0, keepdim=True))
        targets = targets[:count]
        images[row, : len(targets)] = targets
        views_valid[row, : len(targets)] = True
        text = sample.captions.index(draw_caption(sample.captions, rng))
        texts[row], text_ids[row] = unit(sample.text_embeds[text]), sample.text_ids[text]
        if isinstance(sample.content, ViewTokens):
            changed.append(ViewTokens(sample.content.tokens[drawn], (len(drawn),)))
        else:
            changed.append(augment(sample.content, rng, config.augment))
    cuts = [len(changed) * part // config.accumulate for part in range(config.accumulate + 1)]
    pieces = [changed[low:high] for low, high in itertools.pairwise(cuts)]
    return Batch(
        step=step,
        keys=tuple(sample.key for sample in samples),
        parts=tuple(objects.collate(piece) for piece in pieces),
        sizes=sizes,
        images=images,
        views_valid=views_valid,
        texts=texts,
        text_ids=text_ids,
        ids=torch.tensor(numbers),
    )


def batches(objects: Objects, plan: Plan, config: TrainConfig, first: int) -> Generator[Batch, None, None]:
    """Batches of the steps from ``first`` on, prepared ahead by threads, whose first error comes out here."""
    steps = range(first, config.steps)
    make = partial(make_batch, objects, plan, config=config)
    if not config.workers:
        yield from map(make, steps)
        return
    pool, ahead = ThreadPoolExecutor(config.workers, "batches"), iter(steps)
    waiting = deque(pool.submit(make, step) for step in itertools.islice(ahead, config.workers))
    try:
        for _ in steps:
            waiting.extend(pool.submit(make, step) for step in itertools.islice(ahead, 1))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
