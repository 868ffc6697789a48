"""Training in several processes under ``torchrun``: who this process is, and gathering with gradient.

Every rank computes the loss of the whole batch from gathered embeddings. `gather_with_grad` sums, in backward, the
gradients that all ranks have for a rank's rows; DistributedDataParallel then averages over ranks, and the two factors
cancel: parameters get the gradient of the one loss, as in a single process (tested with two gloo processes).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """This process among all that train together."""

    rank: int  # 0 .. world - 1
    world: int  # number of processes
    device: torch.device  # where its tensors go

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0


@contextmanager
def join(device: torch.device) -> Iterator[Place]:
    """Take this process's place: alone, or as ``torchrun`` says; leaves the group that it has made.

    A CUDA device without index becomes that of ``LOCAL_RANK``. ValueError when ``RANK`` and ``WORLD_SIZE`` do not fit.
    """
    made = False
    if not dist.is_initialized() and "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if not 0 <= rank < world:
            raise ValueError(f"RANK must lie in 0..WORLD_SIZE-1, got {rank} of {world}; start with torchrun")
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        made = True
    if dist.is_initialized():
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        place = Place(dist.get_rank(), dist.get_world_size(), device)
    else:
        place = Place(0, 1, device)
    try:
        yield place
    finally:
        if made:
            dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        return gather(tensor, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        return grad.split(ctx.sizes)[dist.get_rank()], None


def gather(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows ``[sum(sizes), ...]`` of all ranks, in their order, without gradient; each has ``[sizes[rank], ...]``."""
    if len(sizes) == 1:
        return tensor
    kind = tensor.dtype
    wire = tensor.detach().to(torch.uint8) if kind == torch.bool else tensor.detach()
    padded = wire.new_zeros(max(sizes), *wire.shape[1:])
    padded[: len(wire)] = wire
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(kind)


def gather_with_grad(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """As `gather`, of floats; in backward each rank gets the sum of all ranks' gradients for its own rows.

    With a single process it is the identity.
    """
    return tensor if len(sizes) == 1 else _Gather.apply(tensor, tuple(sizes))


def share(count: int, place: Place) -> slice:
    """Rows of a batch of ``count`` that are this rank's: contiguous, sizes differ by at most one."""
    return slice(count * place.rank // place.world, count * (place.rank + 1) // place.world)


def shares(count: int, world: int) -> tuple[int, ...]:
    """How many rows of a batch of ``count`` each rank has."""
    return tuple(count * (rank + 1) // world - count * rank // world for rank in range(world))


def agree(text: str, place: Place) -> None:
    """ValueError on every rank unless all have the same ``text``, e.g. what identifies a run."""
    if place.world == 1:
        return
    texts = [""] * place.world
    dist.all_gather_object(texts, text)
    if odd := [rank for rank, other in enumerate(texts) if other != texts[0]]:
        raise ValueError(
            f"all ranks must have the same settings and data, got others on rank {', '.join(map(str, odd))}; "
            "start every node with the same command and the same shards"
        )


def wait(place: Place) -> None:
    """Wait until every rank is here."""
    if place.world > 1:
        dist.barrier()
