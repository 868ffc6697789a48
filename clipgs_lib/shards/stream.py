"""Streams of triplets: shuffled, and shared between ranks.

The order of an epoch follows from the index, the seed and the epoch's number alone. So every rank knows its part
without talking to the others, a stopped epoch goes on where it stood, and no buffer holds objects in memory: what a
shuffle buffer would have yielded is computed on row numbers, and each object is read when its turn comes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import numpy as np

from .shard_set import ShardSet
from .triplet import Triplet

BUFFER = 1_024  # how far an object may move from its place in the shuffled sequence of shards


class ShardWarning(UserWarning):
    """A rank has no objects, or a table of labels does not fit its folder; the message says which and why."""


class TripletStream:
    """The objects of a split, once per epoch over all ranks; each loop over it is the next epoch.

    Rank r of w gets a contiguous part of the epoch's shuffled sequence; parts differ by at most one object.

    Args:
        shards: a set, or its folder.
        split: one of its splits; None for all.
        seed: of all orders.
        rank, world: of this process among those that share the objects.
        even: give each rank the same number, leaving out the last few objects of the epoch's order.

    Raises:
        ValueError: for a rank outside the world.
        ShardError: as `ShardSet`; while streaming, for an object that is damaged.
    """

    def __init__(
        self,
        shards: ShardSet | str | os.PathLike[str],
        split: str | None = None,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        even: bool = False,
    ) -> None:
        self.shards = shards if isinstance(shards, ShardSet) else ShardSet(shards)
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        if not 0 <= rank < world:
            raise ValueError(f"rank must lie in 0..world-1, got rank {rank} of {world}")
        numbers = np.asarray(self.shards.numbers(split), dtype=np.int64)
        names = np.asarray([self.shards.rows[number]["shard"] for number in numbers])
        self._by_shard = [numbers[names == name] for name in sorted(set(names.tolist()))]
        total = len(numbers) // world * world if even else len(numbers)
        self._span = slice(total * rank // world, total * (rank + 1) // world)  # of this rank

    def __len__(self) -> int:
        return int(self._span.stop - self._span.start)

    def order(self, epoch: int) -> np.ndarray:
        """Numbers ``[len(self)]`` of this rank's objects in an epoch, in the order in which they come."""
        shards = np.random.default_rng([self.seed, epoch]).permutation(np.arange(len(self._by_shard)))
        sequence = np.concatenate([*(self._by_shard[shard] for shard in shards), np.empty(0, np.int64)])[self._span]
        return _through_buffer(sequence, BUFFER, np.random.default_rng([self.seed, epoch, self.rank]))

    def __iter__(self) -> Iterator[Triplet]:
        order = self.order(self.epoch)
        if not len(order):
            sentence = f"rank {self.rank} of {self.world} has no objects of {self.shards}"
            warnings.warn(sentence, ShardWarning, stacklevel=2)
        for number in order.tolist():
            yield self.shards.read(number)
        self.epoch += 1


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
