"""The interface of all encoders: splats in, one embedding in the teacher's space out."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..splats import Splats
from ..tokenizer import Patches, SplatBatch, collate
from ..vectors import unit
from ..weights import state_sha256
from .config import AnyConfig, EncoderError


class TokenOutput(NamedTuple):
    """What enters the transformer for each patch, before its position is added."""

    tokens: Tensor  # [B, G, W] float
    centers: Tensor  # [B, G, 3] of the patches, in the normalised frame
    indices: Tensor  # [B, G, M] int64, gaussians of each patch
    mask: Tensor  # [B, G] bool; False for a repeated patch of an object with too few gaussians


class Encoder(nn.Module, ABC):
    """Splats -> ``[B, D]``, in the space of the teacher that it was trained against."""

    block_parameters: ClassVar[str]  # pattern of the names of a block's parameters, with the block's number
    last_parameters: ClassVar[tuple[str, ...]]  # beginnings of the names of what comes after the blocks
    config: AnyConfig
    info: dict[str, Any]  # what its checkpoint tells: teacher, data, metrics; empty for a new one

    def __init__(self, config: AnyConfig) -> None:
        super().__init__()
        self.config = config
        self.info = {}

    # ---- to be filled in -------------------------------------------------------------------------------------

    @abstractmethod
    def patchify(self, batch: SplatBatch) -> Patches:
        """The patches that `tokenize` would make; a loader may do so ahead, in its own processes."""

    @abstractmethod
    def tokenize(self, batch: SplatBatch, patches: Patches | None = None) -> TokenOutput:
        """Cut objects into patches and turn each into a token.

        Args:
            batch: B objects, from `clipgs_lib.tokenizer.collate`.
            patches: of this batch, when they are known already.
        """

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks, first to last: ``block(x [B, L, W], attn_mask=...) -> [B, L, W]``."""

    @abstractmethod
    def enter(self, tokens: TokenOutput) -> tuple[Tensor, Tensor | None]:
        """What the first block gets ``[B, 1+K, W]``, CLS first and patch dropout done; which keys may be looked at."""

    @abstractmethod
    def leave(self, cls: Tensor) -> Tensor:
        """The CLS token ``[B, W]`` after the last block, in the teacher's space ``[B, D]``."""

    @abstractmethod
    def block_attention(self, block: Any, x: Tensor, attend: Tensor | None) -> Tensor:
        """Softmaxed attention of one block ``[B, H, 1+K, 1+K]`` for what enters it."""

    # ---- for everybody ---------------------------------------------------------------------------------------

    @property
    def embed_dim(self) -> int:
        """D, the teacher's."""
        return self.config.embed_dim

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def identity(self) -> str:
        """``"NAME sha256:DIGEST"`` of settings and weights as they are now; equal ones embed equally."""
        settings = self.config.to_dict()
        name = settings.pop("name")
        return f"{name} sha256:{state_sha256(settings, self.state_dict())}"

    def layer_of(self, parameter: str) -> int:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            parameter: its name, as ``named_parameters()`` says.

        Returns:
            0 for tokenizer, CLS and positions, ``1 .. depth`` for the blocks, ``depth + 1`` for what comes after.
        """
        if block := re.match(self.block_parameters, parameter):
            return int(block[1]) + 1
        return self.config.depth + 1 if parameter.startswith(self.last_parameters) else 0

    def embed(self, tokens: TokenOutput) -> Tensor:
        """Run the transformer.

        Args:
            tokens: from `tokenize`.

        Returns:
            ``[B, D]``, **not** normalised.
        """
        x, attend = self.enter(tokens)
        for block in self.blocks:
            x = block(x, attn_mask=attend)
        return self.leave(x[:, 0])

    def forward(self, batch: SplatBatch, patches: Patches | None = None) -> Tensor:
        """Embed a batch, with gradients.

        Args:
            batch: B objects, on the encoder's device.
            patches: of this batch, when they are known already.

        Returns:
            ``[B, D]``, **not** normalised.
        """
        return self.embed(self.tokenize(batch, patches))

    def encode(self, splats: Splats | Sequence[Splats], batch_size: int | None = None) -> Tensor:
        """Embed objects of any size, without gradients and without dropout of any kind.

        Args:
            splats: one object or many; each is centred and scaled to the unit sphere.
            batch_size: objects in one pass, ``>= 1``; by default 4 on a CPU (as many fit its caches), else 16. On a CPU
                as many passes run at a time as torch has threads.

        Returns:
            ``[B, D]`` float32, unit-norm, on the encoder's device, in the order given.

        Raises:
            ValueError: for an object that cannot be normalised (no extent).
            EncoderError: when an embedding is not finite.
        """
        objects = [splats] if isinstance(splats, Splats) else list(splats)
        if batch_size is None:
            batch_size = 4 if self.device.type == "cpu" else 16
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        embeds = torch.empty(len(objects), self.embed_dim, device=self.device)
        by_size = sorted(range(len(objects)), key=lambda i: len(objects[i]))  # little padding

        def embed(rows: Sequence[int]) -> None:
            embeds[rows] = unit(self(self._batch([objects[i] for i in rows])))

        with self._evaluating():
            parts = [by_size[start : start + batch_size] for start in range(0, len(objects), batch_size)]
            side_by_side(embed, parts, self.device)
        if not bool(embeds.isfinite().all()):
            bad = sorted({int(row) for row in (~embeds.isfinite()).nonzero()[:, 0]})
            raise EncoderError(f"embeddings must be finite, got NaN for objects {bad[:8]}; did this encoder diverge?")
        return embeds

    def tokens(self, splats: Splats | Sequence[Splats]) -> TokenOutput:
        """Tokens of objects, as they enter the transformer, with the patches they stand for.

        Args:
            splats: one object or many, which run as one batch.
        """
        with self._evaluating():
            return self.tokenize(self._batch(splats))

    def attention(self, splats: Splats | Sequence[Splats], layer: int = -1) -> Tensor:
        """Who looks at whom in one block: softmaxed attention; the first row and column are the CLS token's.

        Args:
            splats: one object or many, which run as one batch.
            layer: which block, counted from the last if negative.

        Returns:
            ``[B, H, 1+G, 1+G]``; rows sum to 1, and patches masked for want of gaussians get 0.

        Raises:
            ValueError: when there is no such block.
        """
        depth = self.config.depth
        if not -depth <= layer < depth:
            raise ValueError(f"layer must lie in {-depth} .. {depth - 1}, got {layer}")
        with self._evaluating():
            x, attend = self.enter(self.tokenize(self._batch(splats)))
            for block in self.blocks[: layer % depth]:
                x = block(x, attn_mask=attend)
            return self.block_attention(self.blocks[layer % depth], x, attend)

    def extra_repr(self) -> str:
        """Name and numbers, for ``print``."""
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{self.config.name!r}, D={self.embed_dim}, {count:,} parameters"

    def _batch(self, splats: Splats | Sequence[Splats]) -> SplatBatch:
        objects = [splats] if isinstance(splats, Splats) else splats
        return collate(objects, color_default=self.config.color_default).to(self.device)

    def _with_cls(self, cls: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """CLS ``[B, 1, W]`` before patches ``[B, G, W]``, fewer in training, and which keys may be looked at."""
        if self.training and self.config.patch_dropout > 0:
            x, mask = drop_patches(x, mask, self.config.patch_dropout)
        return torch.cat([cls, x], dim=1), attended(mask)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients; each module's own mode comes back afterwards."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.no_grad():  # not inference_mode: with autocast(bfloat16) on a CPU that is far slower
                yield
        finally:
            for module, training in modes:
                module.training = training


def side_by_side(work: Callable[[Sequence[int]], None], parts: Sequence[Sequence[int]], device: torch.device) -> None:
    """Do all parts without gradients: on a CPU several at a time, among which torch's threads are divided.

    Threads that share each small operation spend much of their time waiting for each other; so this is 1.7 times as
    fast on two quiet cores, and suffers less from other work on the machine. The results are the same.
    """
    kind, threads = device.type, torch.get_num_threads()
    workers = min(threads, len(parts)) if kind == "cpu" else 1
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

    def run(part: Sequence[int]) -> None:  # neither of these two reaches other threads by itself
        with torch.no_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
            work(part)

    if workers < 2:
        for part in parts:
            run(part)
        return
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            for _ in pool.map(run, parts):
                pass
    finally:
        torch.set_num_threads(threads)  # what a thread sets is also what new threads begin with


def attended(mask: Tensor) -> Tensor | None:
    """Which keys attention may look at ``[B, 1, 1, 1+G]``, CLS first; None where all patches ``[B, G]`` are real.

    None lets attention take its fastest kernels, which know no mask.
    """
    if bool(mask.all()):
        return None
    return nn.functional.pad(mask, (1, 0), value=True)[:, None, None, :]


def drop_patches(tokens: Tensor, mask: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Leave out a random share of each object's patches, repeated ones first (FLIP, arXiv 2212.00794).

    Args:
        tokens: ``[B, G, W]``.
        mask: ``[B, G]`` bool.
        share: in ``[0, 1)``; at least one patch stays.

    Returns:
        ``([B, K, W], [B, K])`` with ``K = max(1, int(G * (1 - share)))``.
    """
    kept = max(1, int(tokens.shape[1] * (1 - share)))
    luck = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
    index = luck.topk(kept, dim=1).indices  # [B, K]
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2])), mask.gather(1, index)
