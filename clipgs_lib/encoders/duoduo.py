"""DuoduoCLIP: any number of views of an object through a CLIP's image tower, one embedding out.

The blocks up to the last few see each view by itself; those last ones see the tokens of all views at once. Nothing says
which view a token is of, so views may come in any number and order. Han-Hung Lee et al., "Duoduo CLIP" (ICLR 2025).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..libraries import import_open_clip
from ..teachers import Preprocess, Teacher, TeacherError, load_teacher, random_tower
from ..teachers.preprocess import Picture, check_images, read_picture
from .configs import BagConfig, EncoderError, MultiViewConfig
from .encoder import Encoder, Inputs

Views: TypeAlias = "Tensor | np.ndarray | Sequence[Picture]"
HEAD_DIM = 64  # channels of a head of the new blocks


@dataclass(frozen=True, eq=False)
class ViewTokens:
    """Views as the frozen part of a tower leaves them: what the trained part needs, so that it need not run again."""

    tokens: Tensor  # [V, L, C] L tokens of each view
    counts: tuple[int, ...]  # [B] views of each object, V in all

    def __len__(self) -> int:
        return len(self.counts)

    def to(self, device: torch.device | str) -> ViewTokens:
        """The same on a device."""
        return replace(self, tokens=self.tokens.to(device))

    @classmethod
    def join(cls, parts: Sequence[ViewTokens]) -> ViewTokens:
        """The objects of several as one."""
        with torch.autocast(parts[0].tokens.device.type, enabled=False):  # which cannot concatenate float16 as bfloat16
            tokens = torch.cat([part.tokens for part in parts])
        return cls(tokens, sum((part.counts for part in parts), ()))


class MultiViewEncoder(Encoder):
    """Views -> ``[B, D]``, in the space of the teacher whose image tower it is.

    `encode` takes one object or many. An object is its views ``[m, H, W, 3]`` RGB, uint8 or float in ``[0, 1]``; or a
    list of m pictures (paths, PIL images, arrays), all of one size; or its `ViewTokens`, from `freeze`. ``m >= 1``.

    Args:
        config: sizes.
        tower: the image tower; frozen, but for what `cross` takes from it.
        preprocess: what the tower wants.
        held: whether the tower's weights belong to the encoder's own, and so into its checkpoint.
    """

    inputs: Inputs = "views"
    block_parameters = r"cross\.(\d+)\."
    config: MultiViewConfig
    cross: nn.ModuleList  # what is trained: one entry for each block that looks at all views

    def __init__(self, config: MultiViewConfig, tower: nn.Module, preprocess: Preprocess, *, held: bool) -> None:
        super().__init__(config)
        self.preprocess = preprocess
        self._towers = (tower.requires_grad_(False).eval(),)  # in a tuple torch does not see it
        if held:
            self.tower_weights = tower

    # ---- to be filled in -------------------------------------------------------------------------------------

    @abstractmethod
    def view_tokens(self, pixels: Tensor) -> Tensor:
        """Tokens ``[V, L, C]`` of preprocessed views ``[V, 3, h, w]``, each by itself."""

    @abstractmethod
    def merge(self, tokens: Tensor) -> Tensor:
        """Embeddings ``[B, D]`` of objects with m views each ``[B, m, L, C]``."""

    # ---- for both --------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> nn.ModuleList:
        """What looks at all views."""
        return self.cross

    @property
    def tower(self) -> Any:
        """The frozen image tower."""
        return self._towers[0]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the trained part; the tower stays in evaluation mode."""
        super().train(mode)
        self.tower.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.tower._apply(fn, recurse)  # moves to where the encoder moves
        return super()._apply(fn, recurse)

    def listed(self, objects: Any) -> list[Any]:
        """Objects as a list, whether one is given or many; ValueError for one without views, by its number."""
        return listed_views(objects)

    @torch.no_grad()
    def collate(self, objects: Sequence[Any], *, normalize: bool = True) -> ViewTokens:
        """Objects, as `listed` gives them, as one batch on the encoder's device, the frozen part of the tower done."""
        if isinstance(objects[0], ViewTokens):
            return ViewTokens.join(objects).to(self.device)
        pixels = [self.preprocess(check_views(views), self.device) for views in objects]
        return ViewTokens(self.view_tokens(torch.cat(pixels)), tuple(map(len, pixels)))

    def freeze(self, objects: Any) -> ViewTokens:
        """Run the frozen part of the tower over the views of one object or many; ValueError as `encode`."""
        return self.collate(self.listed(objects))

    def forward(self, batch: ViewTokens) -> Tensor:
        """Embed a batch, with gradients: ``[B, D]``, **not** normalised.

        Objects with equally many views run together, so that nothing is padded or masked.
        """
        parts = batch.tokens.float().split(batch.counts)  # B x [m, L, C]
        order, embeds = list[int](), list[Tensor]()
        for count in sorted(set(batch.counts)):
            rows = [row for row, other in enumerate(batch.counts) if other == count]
            order += rows
            embeds.append(self.merge(torch.stack([parts[row] for row in rows])))
        return torch.cat(embeds)[torch.tensor(order).argsort()]


class VitViews(MultiViewEncoder):
    """The tower is an open_clip ViT; of its last blocks the attention is trained, and nothing else, as in the paper.

    The embedding is the mean of the views' CLS tokens after the last norm, then projected. At the start that of a
    single view is the tower's to the last bit. EncoderError for a tower of another kind, or with fewer blocks.
    """

    def __init__(self, config: MultiViewConfig, tower: nn.Module, preprocess: Preprocess, *, held: bool) -> None:
        parts = import_open_clip().transformer
        blocks = list(tower.transformer.resblocks) if isinstance(tower, parts.VisionTransformer) else []
        if not blocks or not all(type(block) is parts.ResidualAttentionBlock for block in blocks):
            raise EncoderError(
                f"teacher must have the plain image ViT of open_clip, or be mini, got {config.teacher!r} with "
                f"{type(tower).__name__}; choose ViT-B-32, ViT-B-16, ViT-L-14, ..."
            )
        if config.depth > len(blocks):
            raise EncoderError(f"depth must be at most the {len(blocks)} blocks of the tower, got {config.depth}")
        tower = copy.deepcopy(tower)  # it loses its last attentions, and they will change
        super().__init__(config, tower, preprocess, held=held)
        self.cross = nn.ModuleList(block.attn for block in self._last).requires_grad_(True)
        for block in self._last:
            del block.attn

    @property
    def _last(self) -> Sequence[Any]:
        """Blocks that see all views, without their attention, which lies in `cross`."""
        return self.tower.transformer.resblocks[-self.config.depth :]

    def view_tokens(self, pixels: Tensor) -> Tensor:
        """CLS and patches ``[V, 1+P, W]`` before the first block that sees all views."""
        x = self.tower._embeds(pixels)
        for block in self.tower.transformer.resblocks[: -self.config.depth]:
            x = block(x)
        return x

    def merge(self, tokens: Tensor) -> Tensor:
        """``[B, m, 1+P, W]`` -> ``[B, D]``."""
        x = tokens.flatten(1, 2)  # [B, m (1+P), W]
        for block, attention in zip(self._last, self.cross, strict=True):
            y = block.ln_1(x)
            x = x + block.ls_1(attention(y, y, y, need_weights=False)[0])
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        pooled, _ = self.tower._pool(x.reshape(-1, *tokens.shape[2:]))  # [B m, W]
        return pooled.unflatten(0, tokens.shape[:2]).mean(dim=1) @ self.tower.proj


class MiniViews(MultiViewEncoder):
    """The tower is that of `mini`; new blocks see the cells of the last feature map of all views.

    They stand before the tower's last convolution (320 channels) and begin as the identity. What follows is the
    tower's: each view is pooled and embedded. The embedding of an object is the mean of its views' embeddings, each
    brought to the mean of their lengths: at the start that of a single view is mini's to the last bit, and that of
    several has the direction of the mean of mini's unit embeddings, which is the bag of views.
    """

    def __init__(self, config: MultiViewConfig, tower: nn.Module, preprocess: Preprocess, *, held: bool) -> None:
        super().__init__(config, tower, preprocess, held=held)
        self.cross = nn.ModuleList(_identity(self.tower.head.in_channels) for _ in range(config.depth))
        self.grid = -(-preprocess.height // 32), -(-preprocess.width // 32)  # cells of the last feature map

    def view_tokens(self, pixels: Tensor) -> Tensor:
        """Cells of the last feature map ``[V, h w, 320]``."""
        return self.tower.maps(pixels).permute(0, 2, 3, 1).flatten(1, 2)

    def merge(self, tokens: Tensor) -> Tensor:
        """``[B, m, h w, 320]`` -> ``[B, D]``."""
        x = tokens.flatten(1, 2)  # [B, m h w, 320]
        for block in self.cross:
            x = block(x)
        maps = x.reshape(-1, *self.grid, x.shape[-1]).permute(0, 3, 1, 2)  # [B m, 320, h, w]
        embeds = self.tower.embed(self.tower.pool(maps)).unflatten(0, tokens.shape[:2])  # [B, m, D]
        lengths = embeds.norm(dim=-1, keepdim=True)
        return (embeds * (lengths.mean(dim=1, keepdim=True) / lengths)).mean(dim=1)


def _identity(width: int) -> nn.TransformerEncoderLayer:
    """Attention and MLP after a LayerNorm each, which add exactly zero until they are trained."""
    block = nn.TransformerEncoderLayer(
        width, width // HEAD_DIM, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    for last in (block.self_attn.out_proj, block.linear2):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return block


def build_multi_view(config: MultiViewConfig) -> MultiViewEncoder:
    """A multi-view encoder over the tower of the teacher that ``config`` names; EncoderError when it cannot be had."""
    models = import_open_clip().list_models()
    if config.teacher in models:  # its weights come from elsewhere
        tower = random_tower(config.teacher)
        preprocess = Preprocess.from_config(cast(Any, tower).preprocess_cfg)
    else:
        teacher = teacher_of(config, "the image tower of", "cpu")
        model = config.teacher.partition("@")[0].replace("/", "-")
        config = replace(config, teacher_sha256=teacher.digest, teacher=model if model in models else config.teacher)
        tower, preprocess = teacher.tower, teacher.preprocess
    kind = MiniViews if config.teacher == "mini" else VitViews
    encoder = kind(config, tower, preprocess, held=config.teacher in models)
    with torch.no_grad():
        dim = encoder(encoder.freeze([np.zeros((1, 8, 8, 3), np.uint8)])).shape[1]
    if dim != config.embed_dim:
        raise EncoderError(f"embed_dim must be that of the teacher {config.teacher}, {dim}, got {config.embed_dim}")
    return encoder


def teacher_of(config: MultiViewConfig | BagConfig, what: str, device: str | torch.device) -> Teacher:
    """The teacher that settings name, ``what`` of it is needed; EncoderError when it cannot be had, or is another."""
    try:
        teacher = load_teacher(config.teacher, device=device)
    except (TeacherError, ValueError) as error:
        raise EncoderError(f"{config.name} needs {what} {config.teacher!r}, got: {error}") from error
    if config.teacher_sha256 not in ("unknown", teacher.digest):
        raise EncoderError(
            f"{config.name} needs the teacher {config.teacher!r} with sha256 {config.teacher_sha256[:12]}..., got "
            f"{teacher}; restore that teacher, or embed and train anew with this one"
        )
    return teacher


def listed_views(objects: Any, ndims: tuple[int, ...] = (4,)) -> list[Any]:
    """Views of objects as a list, whether those of one object are given or of many, or a sentence.

    An array with one of ``ndims`` axes holds all views of one object; a list of such arrays is many objects.
    """
    if isinstance(objects, list | tuple):
        first: Any = objects[0] if objects else []
        many = isinstance(first, list | tuple | ViewTokens) or getattr(first, "ndim", 0) in ndims
    else:
        many = getattr(objects, "ndim", 0) == 5
    listed = list(objects) if many else [objects]
    for number, views in enumerate(listed):
        if not hasattr(views, "__len__"):
            raise ValueError(f"an object must be its views, got one {type(views).__name__}; put it into a list")
        if len(views) == 0:
            raise ValueError(f"an object must have at least one view, got none for object {number}; leave it out")
    return listed


def check_views(views: Views) -> Tensor:
    """Views of one object as ``[m, H, W, 3]``, or a sentence about what is wrong with them."""
    if isinstance(views, list | tuple):
        pictures = [read_picture(view, f" at {place}") for place, view in enumerate(views)]
        if len(sizes := {f"{picture.shape[1]} x {picture.shape[0]}" for picture in pictures}) > 1:
            raise ValueError(
                f"views of an object must be of one size, got {', '.join(sorted(sizes))} pixels; render them alike, or "
                "resize them"
            )
        views = torch.stack([picture / 255 if picture.dtype == torch.uint8 else picture for picture in pictures])
    return check_images(views)
