"""Streams of triplets: shuffled, shared between ranks and workers, and taken up where they stood.

The order of an epoch follows from the index, the seed and the epoch's number alone. So every consumer knows its part
without talking to the others, a stopped epoch goes on where it stood, and no buffer holds objects in memory: what a
shuffle buffer would have yielded is computed on row numbers, and each object is read when its turn comes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from .shard_set import ShardSet
from .triplet import Triplet


class ShardWarning(UserWarning):
    """A rank has no objects, or a table of labels does not fit its folder; the message says which and why."""


class TripletStream(IterableDataset[Triplet]):
    """The objects of a split, once per epoch over all ranks and workers, for a loop or a torch ``DataLoader``.

    Rank r of w gets a contiguous part of the epoch's (shuffled) sequence; parts differ by at most one object. Within
    a rank, workers of a DataLoader take turns by ``batch_size`` objects, so that the loader yields the very same
    sequence whatever ``num_workers`` is. A loop counts ``epoch`` and ``position`` by itself; with workers, which read
    ahead, count objects in the training loop, and call `set_epoch` before each epoch, as for torch's
    ``DistributedSampler``.

    Args:
        shards: a set, or its folder.
        split: one of its splits; None for all.
        shuffle: False yields the order of the shards.
        seed: of all orders.
        buffer: how far an object may move from its place in the shuffled sequence of shards.
        rank, world: of this process among those that share the objects.
        batch_size: the DataLoader's.
        even: give each rank the same number, leaving out the last few objects of the epoch's order.

    Raises:
        ValueError: for a rank outside the world, or a buffer or batch size below 1.
        ShardError: as `ShardSet`; while streaming, for an object that is damaged.
    """

    def __init__(
        self,
        shards: ShardSet | str | os.PathLike[str],
        split: str | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = 1_024,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 1,
        even: bool = False,
    ) -> None:
        super().__init__()
        self.shards = shards if isinstance(shards, ShardSet) else ShardSet(shards)
        self.shuffle, self.seed, self.buffer, self.batch_size = shuffle, seed, buffer, batch_size
        self.rank, self.world = rank, world
        if not 0 <= rank < world:
            raise ValueError(f"rank must lie in 0..world-1, got rank {rank} of {world}")
        if min(buffer, batch_size) < 1:
            raise ValueError(f"buffer and batch_size must be at least 1, got {buffer}, {batch_size}")
        self.epoch, self.position = 0, 0
        numbers = np.asarray(self.shards.numbers(split), dtype=np.int64)
        names = np.asarray([self.shards.rows[number]["shard"] for number in numbers])
        self._by_shard = [numbers[names == name] for name in sorted(set(names.tolist()))]
        total = len(numbers) // world * world if even else len(numbers)
        self._span = slice(total * rank // world, total * (rank + 1) // world)  # of this rank

    def __len__(self) -> int:
        return int(self._span.stop - self._span.start)

    def order(self, epoch: int) -> np.ndarray:
        """Numbers ``[len(self)]`` of this rank's objects in an epoch, in the order in which they come."""
        places = np.arange(len(self._by_shard))
        shards = np.random.default_rng([self.seed, epoch]).permutation(places) if self.shuffle else places
        sequence = np.concatenate([*(self._by_shard[shard] for shard in shards), np.empty(0, np.int64)])[self._span]
        if not self.shuffle:
            return sequence
        return _through_buffer(sequence, self.buffer, np.random.default_rng([self.seed, epoch, self.rank]))

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Go to an epoch, ``position`` objects of this rank into it (with workers, a multiple of ``batch_size``)."""
        self.epoch, self.position = epoch, position

    def __iter__(self) -> Iterator[Triplet]:
        epoch, begin = self.epoch, self.position
        order = self.order(epoch)
        if not len(order):
            sentence = f"rank {self.rank} of {self.world} has no objects of {self.shards}"
            warnings.warn(sentence, ShardWarning, stacklevel=2)
        worker = get_worker_info()
        turn, turns = (worker.id, worker.num_workers) if worker else (0, 1)
        for position in range(begin, len(order)):
            if (position - begin) // self.batch_size % turns == turn:
                triplet = self.shards.read(int(order[position]))
                self.position = position + 1
                yield triplet
        self.set_epoch(epoch + 1)


def _through_buffer(sequence: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """What a shuffle buffer of ``size`` yields for ``sequence [n]``."""
    out, held = np.empty_like(sequence), list(sequence[:size])
    for place, pick in enumerate(rng.random(len(sequence))):
        index, coming = int(pick * len(held)), place + size
        out[place] = held[index]
        held[index] = sequence[coming] if coming < len(sequence) else held[-1]
        if coming >= len(sequence):
            held.pop()
    return out
