"""Streams of triplets: shuffled, shared between ranks and workers, and resumable.

The order of an epoch follows from the index, the seed and the epoch's number alone. So every consumer knows its part
without talking to the others, a stopped epoch goes on where it stood, and no buffer holds objects in memory: what a
shuffle buffer would have yielded is computed on row numbers, and each object is read when its turn comes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .shard_set import ShardSet
from .tar import ShardError
from .triplet import Triplet


class ShardWarning(UserWarning):
    """An object of a shard was left out, or a rank has none; the message says which and why."""


class TripletStream(IterableDataset[Triplet]):
    """The objects of a split, once per epoch over all ranks and workers, for a loop or a torch ``DataLoader``.

    Rank r of w gets a contiguous part of the epoch's (shuffled) sequence; parts differ by at most one object. Within
    a rank, workers of a DataLoader take turns by ``batch_size`` objects, so that the loader yields the very same
    sequence whatever ``num_workers`` is. With workers, call `set_epoch` before each epoch, as for torch's
    ``DistributedSampler``, and count objects in the training loop: ``state_dict(position=...)``.

    Args:
        shards: a set, or its folder.
        split: one of its splits; None for all.
        shuffle: False yields the order of the shards.
        seed: of all orders.
        buffer: how far an object may move from its place in the shuffled sequence of shards.
        rank, world: from torch.distributed or ``RANK`` and ``WORLD_SIZE`` when left out.
        batch_size: the DataLoader's.
        even: give each rank the same number, leaving out the last few objects of the epoch's order.
        on_bad: ``"raise"``, or ``"quarantine"``: leave the object out with a `ShardWarning`, listed in
            ``quarantined``.
        verify: compare objects with their hashes.

    Raises:
        ValueError: for a rank outside the world, or a buffer or batch size below 1.
        ShardError: as `ShardSet`.
    """

    def __init__(
        self,
        shards: ShardSet | str | os.PathLike[str],
        split: str | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = 1_024,
        rank: int | None = None,
        world: int | None = None,
        batch_size: int = 1,
        even: bool = False,
        on_bad: Literal["raise", "quarantine"] = "raise",
        verify: bool = True,
    ) -> None:
        super().__init__()
        self.shards = shards if isinstance(shards, ShardSet) else ShardSet(shards)
        self.split, self.shuffle, self.seed, self.buffer = split, shuffle, seed, buffer
        self.rank, self.world = _place(rank, world)
        self.batch_size, self.even, self.on_bad, self.verify = batch_size, even, on_bad, verify
        if min(buffer, batch_size) < 1 or on_bad not in ("raise", "quarantine"):
            must = "buffer and batch_size must be at least 1 and on_bad 'raise' or 'quarantine'"
            raise ValueError(f"{must}, got {buffer}, {batch_size}, {on_bad!r}")
        self.epoch, self.position = 0, 0
        self.quarantined: list[str] = []  # sentences, of this process
        numbers = np.asarray(self.shards.numbers(split), dtype=np.int64)
        names = np.asarray([self.shards.rows[number]["shard"] for number in numbers])
        self._by_shard = [numbers[names == name] for name in sorted(set(names.tolist()))]
        total = len(numbers) // self.world * self.world if even else len(numbers)
        self._span = slice(total * self.rank // self.world, total * (self.rank + 1) // self.world)  # of this rank

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
        """Go to an epoch, ``position`` objects of this rank into it."""
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
            if (position - begin) // self.batch_size % turns != turn:
                continue
            triplet = self._read(int(order[position]))
            self.position = position + 1
            if triplet is not None:
                yield triplet
        self.set_epoch(epoch + 1)

    def _read(self, number: int) -> Triplet | None:
        try:
            return self.shards.read(number, verify=self.verify)
        except ShardError as error:
            if self.on_bad == "raise":
                raise
            self.quarantined.append(str(error))
            warnings.warn(f"left out, {len(self.quarantined)} so far: {error}", ShardWarning, stacklevel=3)
            return None

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """Where the stream stands, as plain JSON; `load_state_dict` goes on exactly there.

        Args:
            position: objects of this rank's epoch that have been consumed; needed when a DataLoader with workers
                reads ahead, since the stream itself cannot know what was used. A multiple of ``batch_size``.
        """
        position = self.position if position is None else position
        return {"epoch": self.epoch, "position": position} | self._identity()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ShardError: when the set, split, seed, buffer or world differ, since the order would be another.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                where = f"state of {self.shards.folder}"
                todo = "make the stream with the same arguments, or start the epoch anew"
                raise ShardError(where, f"{name} must be {value!r}", repr(state.get(name)), todo)
        self.set_epoch(int(state["epoch"]), int(state["position"]))

    def _identity(self) -> dict[str, Any]:
        names = ("split", "shuffle", "seed", "buffer", "world", "even")
        content = {"content_sha256": self.shards.manifest["content_sha256"]}
        return content | {name: getattr(self, name) for name in names}


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


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    """This process among all that train: as given, else as torch.distributed or torchrun says, else alone."""
    if (rank is None) != (world is None):
        raise ValueError(f"rank and world must be given together, got rank={rank}, world={world}")
    if rank is None or world is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie in 0..world-1, got rank {rank} of {world}")
    return rank, world
