"""The bag of views: an object's embedding is the mean, or the maximum, of the teacher's embeddings of its views.

Nothing is trained, so it is the baseline that every table must contain ("Beyond Averages", 2025).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..teachers import Teacher
from ..vectors import unit
from .configs import BagConfig
from .duoduo import check_views, listed_views, teacher_of
from .encoder import Encoder, Inputs


def pool_views(embeds: Tensor, pool: str = "mean") -> Tensor:
    """The embedding ``[D]`` of an object, unit-norm, from those of its views ``[V, D]``, each of which counts alike.

    Args:
        embeds: of V views, ``>= 1``; brought to length 1 first.
        pool: "mean", or "max" for the largest value of each dimension.
    """
    rows = unit(embeds)
    return unit(rows.mean(dim=0) if pool == "mean" else rows.amax(dim=0))


class BagOfViews(Encoder):
    """Views -> ``[B, D]`` by `pool_views`, in the space of the teacher; there are no weights.

    `encode` takes one object or many. An object is its views, as a `MultiViewEncoder` takes them; or the teacher's
    embeddings of them ``[V, D]``, as a set stores them: the teacher is loaded only where there are pictures.
    """

    inputs: Inputs = "views"
    block_parameters = r"(?!)"  # there are none
    config: BagConfig

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.register_buffer("place", torch.empty(0), persistent=False)  # moves to where the encoder moves
        self._teacher: Teacher | None = None

    @property
    def device(self) -> torch.device:
        """Where embeddings come out."""
        return self.get_buffer("place").device

    @property
    def blocks(self) -> nn.ModuleList:
        """None."""
        return nn.ModuleList()

    def listed(self, objects: Any) -> list[Any]:
        """Objects as a list, whether one is given or many; the teacher is there from now on if there are pictures.

        ValueError for an object without views; EncoderError when the teacher is needed and cannot be had, or is
        another.
        """
        listed = listed_views(objects, ndims=(2, 4))
        if self._teacher is None and not all(_embedded(views) for views in listed):
            self._teacher = teacher_of(self.config, "the teacher", self.device)
        return listed

    def collate(self, objects: Sequence[Any], *, normalize: bool = True) -> list[Tensor]:
        """Embeddings ``[V, D]`` of the views of each object, on the encoder's device."""
        return [self._embeds(views).to(self.device) for views in objects]

    def forward(self, batch: Sequence[Tensor]) -> Tensor:
        """``[B, D]`` from embeddings of the views of each object."""
        return torch.stack([pool_views(embeds, self.config.pool) for embeds in batch])

    def _embeds(self, views: Any) -> Tensor:
        if not _embedded(views):
            assert self._teacher is not None  # see `listed`
            views = self._teacher.encode_image(check_views(views))
        embeds = torch.as_tensor(views).float()
        if embeds.shape[1] != self.embed_dim or not bool(embeds.isfinite().all()):
            odd = "some that are not finite" if embeds.shape[1] == self.embed_dim else list(embeds.shape)
            raise ValueError(
                f"embeddings of views must be finite [V, {self.embed_dim}] of {self.config.teacher}, got {odd}"
            )
        return embeds


def _embedded(views: Any) -> bool:
    """Whether an object's views came as embeddings."""
    return getattr(views, "ndim", 0) == 2
