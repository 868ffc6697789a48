"""The interface of all encoders: objects in, one embedding each in the teacher's space out.

And of those that cut a splat into patches, turn each into a token and run a transformer over the tokens.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..geometry import ORDERS, points_within
from ..splats import Splats
from ..tokenizer import Patches, SplatBatch, Tokens, collate
from ..vectors import unit
from ..weights import state_sha256
from .configs import AnyConfig, EncoderConfig, EncoderError, PointBertConfig

_OCCLUDED = 64  # objects with a patch left out that run as one batch
Inputs = Literal["splats", "points", "views", "voxels"]


class Encoder(nn.Module, ABC):
    """Objects -> ``[B, D]``, in the space of the teacher that it was trained against."""

    inputs: Inputs  # what it reads of an object; "points", "voxels": made of splats, which `encode` takes
    block_parameters: ClassVar[str]  # pattern of the names of a block's parameters, with the block's number
    last_parameters: ClassVar[tuple[str, ...]] = ()  # beginnings of the names of what comes after the blocks
    config: AnyConfig
    info: dict[str, Any]  # what its checkpoint tells: teacher, data, metrics; empty for a new one

    def __init__(self, config: AnyConfig) -> None:
        super().__init__()
        self.config = config
        self.info = {}

    # ---- to be filled in -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The blocks that follow one another, first to last."""

    def listed(self, objects: Any) -> list[Any]:
        """Objects as a list, whether one is given or many; ``len`` of each is its size. Here they are splats."""
        return [objects] if isinstance(objects, Splats) else list(objects)

    @abstractmethod
    def collate(self, objects: Sequence[Any], *, normalize: bool = True) -> Any:
        """One batch of objects for `forward`, on the encoder's device.

        Args:
            objects: as `listed` gives them.
            normalize: centre splats and scale them to the unit sphere; False where they have been, and were then moved.
        """

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Embed a batch, with gradients: ``[B, D]``, **not** normalised."""

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
        """Depth of a parameter by its name: 0 before the blocks, ``1 .. depth`` in them, ``depth + 1`` after them."""
        if block := re.match(self.block_parameters, parameter):
            return int(block[1]) + 1
        return len(self.blocks) + 1 if parameter.startswith(self.last_parameters) else 0

    def encode(self, objects: Any, batch_size: int | None = None) -> Tensor:
        """Embed objects of any size, without gradients and without dropout of any kind.

        Args:
            objects: one or many, of what the encoder reads (`inputs`): `Splats`, each of which is centred and scaled to
                the unit sphere, or views of one object as a `MultiViewEncoder` takes them.
            batch_size: objects in one pass, ``>= 1``; by default 4 on a CPU (as many fit its caches), else 16. On a CPU
                as many passes run at a time as torch has threads.

        Returns:
            ``[B, D]`` float32, unit-norm, on the encoder's device, in the order given.

        Raises:
            ValueError: for an object that cannot be read: a splat without extent, views that are none or of several
                sizes.
            EncoderError: when an embedding is not finite.
        """
        listed = self.listed(objects)
        if batch_size is None:
            batch_size = 4 if self.device.type == "cpu" else 16
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        embeds = torch.empty(len(listed), self.embed_dim, device=self.device)
        by_size = sorted(range(len(listed)), key=lambda i: len(listed[i]))  # little padding

        def embed(rows: Sequence[int]) -> None:
            embeds[rows] = unit(self(self.collate([listed[i] for i in rows])))

        with self._evaluating():
            parts = [by_size[start : start + batch_size] for start in range(0, len(listed), batch_size)]
            side_by_side(embed, parts, self.device)
        if not bool(embeds.isfinite().all()):
            bad = sorted({int(row) for row in (~embeds.isfinite()).nonzero()[:, 0]})
            raise EncoderError(f"embeddings must be finite, got NaN for objects {bad[:8]}; did this encoder diverge?")
        return embeds

    def extra_repr(self) -> str:
        """Name and size, for ``print``."""
        return f"{self.config.name!r}, D={self.embed_dim}, {sum(p.numel() for p in self.parameters()):,} parameters"

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


class TokenEncoder(Encoder):
    """Splats -> ``[B, D]``: patches, tokens, and blocks ``block(x [B, L, W], attn_mask=...)`` over CLS and tokens."""

    config: EncoderConfig | PointBertConfig

    # ---- to be filled in -------------------------------------------------------------------------------------

    @abstractmethod
    def patchify(self, batch: SplatBatch) -> Patches:
        """Cut objects into patches."""

    @abstractmethod
    def tokenize(self, batch: SplatBatch, patches: Patches | None = None) -> Tokens:
        """Turn the patches of B objects into a token each, of the transformer's width; None cuts them first."""

    @abstractmethod
    def enter(self, tokens: Tokens) -> Tensor:
        """What the first block gets ``[B, 1+K, W]``, CLS first."""

    @abstractmethod
    def leave(self, cls: Tensor) -> Tensor:
        """The CLS token ``[B, W]`` after the last block, in the teacher's space ``[B, D]``."""

    # ---- for everybody ---------------------------------------------------------------------------------------

    def collate(self, objects: Sequence[Splats], *, normalize: bool = True) -> SplatBatch:
        """Splats, each centred and scaled to the unit sphere, as one batch on the encoder's device."""
        reads = self.config.tokenizer if isinstance(self.config, EncoderConfig) else self.config
        batch = collate(objects, normalize=normalize, color_default=reads.color_default)
        return (on_surface(batch) if reads.attributes == "surface" else batch).to(self.device)

    def embed(self, tokens: Tokens) -> Tensor:
        """Run the transformer over what `tokenize` made: ``[B, D]``, **not** normalised."""
        x, attend = self.enter(tokens), attended(tokens.mask)
        for block in self.blocks:
            x = block(x, attn_mask=attend)
        return self.leave(x[:, 0])

    def forward(self, batch: SplatBatch) -> Tensor:
        """Embed B objects on the encoder's device, with gradients: ``[B, D]``, **not** normalised."""
        patches = self.patchify(batch)
        if self.training and self.config.patch_dropout > 0:  # before the tokens are made, which takes most of the time
            patches = drop_patches(patches, self.config.patch_dropout)
        return self.embed(self.tokenize(batch, patches))

    def tokens(self, splats: Splats | Sequence[Splats]) -> Tokens:
        """Tokens of one object or many, as they enter the transformer, with the patches they stand for."""
        with self._evaluating():
            return self.tokenize(self.collate(self.listed(splats)))

    def relevance(self, splats: Splats, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How much each patch speaks for a direction, by occlusion: what the cosine loses when it is left out.

        Args:
            splats: one object.
            direction: ``[D]`` unit-norm, such as the embedding of a text.

        Returns:
            ``[G]`` differences of cosines, 0 where masked; and ``indices [G, M]`` and ``mask [G]`` of the patches.
        """
        with self._evaluating():
            tokens = self.tokenize(self.collate([splats]))
            whole = unit(self.embed(tokens))[0]
            keep = tokens.mask & ~torch.eye(tokens.mask.shape[1], dtype=torch.bool, device=self.device)  # [G, G]
            left = []
            for mask in keep.split(_OCCLUDED):
                rows = Tokens(*(part.expand(len(mask), *part.shape[1:]) for part in tokens))
                left.append(unit(self.embed(rows._replace(mask=mask))))
            change = (whole - torch.cat(left)) @ direction.to(self.device)  # [G]
        return change.cpu(), tokens.indices[0].cpu(), tokens.mask[0].cpu()


def on_surface(batch: SplatBatch) -> SplatBatch:
    """Move each gaussian of a batch to a point on what its object's gaussians cover, and give it the colour there.

    A set of splats keeps no mesh, so these points stand for points sampled on one: as many as there were centres, in
    their frame, drawn by opacity and visible area as `fitting.init_from_splats` draws them, and the same whatever the
    order of the gaussians. The other attributes are as before, and belong to other points.
    """
    means, colors = batch.means.clone(), batch.colors.clone()
    for row, mask in enumerate(batch.mask):
        columns = {name: getattr(batch, name)[row, mask] for name in ("quats", "scales", "opacities")}
        part = Splats.from_colors(means[row, mask], colors[row, mask], **columns)
        part = part[ORDERS["xyz"](part.means, bits=20)].subsample(len(part), replacement=True)
        means[row, mask], colors[row, mask] = points_within(part.means, part.quats, part.scales), part.colors
    return replace(batch, means=means, colors=colors)


def attended(mask: Tensor) -> Tensor | None:
    """Which keys attention may look at ``[B, 1, 1, 1+G]``, CLS first; None where all patches ``[B, G]`` are real.

    None lets attention take its fastest kernels, which know no mask.
    """
    if bool(mask.all()):
        return None
    return nn.functional.pad(mask, (1, 0), value=True)[:, None, None, :]


def drop_patches(patches: Patches, share: float) -> Patches:
    """Leave out a random ``share`` of each object's G patches, repeated ones first (FLIP, arXiv 2212.00794).

    ``max(1, int(G * (1 - share)))`` of each object stay, in their order.
    """
    kept = max(1, int(patches.mask.shape[1] * (1 - share)))
    luck = torch.rand(patches.mask.shape, device=patches.mask.device).masked_fill(~patches.mask, -1.0)
    index = luck.topk(kept, dim=1).indices.sort(dim=1).values  # [B, K]
    rows = torch.arange(len(index), device=index.device)[:, None]
    return Patches(*(column[rows, index] for column in patches))
