"""A batch of splats of any sizes, padded, with a mask."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..splats import Splats

_TAILS = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "colors": (3,), "mask": ()}


class TokenizerWarning(UserWarning):
    """Something in the input of the tokenizer was left out or replaced; the message counts it."""


@dataclass(frozen=True, eq=False)
class SplatBatch:
    """B objects of up to N gaussians each. Row i of an object is row i of the splats that it was made of.

    Shapes, dtypes and devices must fit together, else ValueError.

    Args:
        means: ``[B, N, 3]`` centres; `collate` puts each object in the unit sphere.
        quats: ``[B, N, 4]`` wxyz, any non-zero length and either sign.
        scales: ``[B, N, 3]`` linear, in the units of the means.
        opacities: ``[B, N]`` linear, in ``[0, 1]``.
        colors: ``[B, N, 3]`` in ``[0, 1]``.
        mask: ``[B, N]`` bool, True for a real gaussian; False for padding and for what must be left out, anywhere.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        shape = self.mask.shape
        for name, tail in _TAILS.items():
            value = getattr(self, name)
            dtype = torch.bool if name == "mask" else torch.float32
            if len(shape) != 2 or value.shape != (*shape, *tail) or value.dtype != dtype:
                want = ", ".join(["B, N", *map(str, tail)])
                raise ValueError(f"{name} must be {dtype} [{want}] like the mask, got {value.dtype} {[*value.shape]}")
            if value.device != self.mask.device:
                raise ValueError(f"{name} must be on the device of the mask, {self.mask.device}, got {value.device}")

    def __len__(self) -> int:
        return int(self.mask.shape[0])

    @property
    def device(self) -> torch.device:
        return self.mask.device

    def to(self, device: str | torch.device) -> SplatBatch:
        """The same batch on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TAILS})


def collate(splats: Sequence[Splats], *, normalize: bool = True, color_default: float = 0.4) -> SplatBatch:
    """Pad splats to one size, the largest number of gaussians; leave out what is not finite.

    Gaussians of which a mean, quaternion, scale or opacity is not finite are masked out and counted in one
    `TokenizerWarning`; rows keep their places. A colour that is not finite becomes ``color_default``; view-dependent
    colour (SH above degree 0) is not used.

    Args:
        splats: one or more, on one device.
        normalize: centre each and scale it into the unit sphere (`Splats.normalize`), over its finite gaussians.
        color_default: in ``[0, 1]``.

    Raises:
        TypeError: when something else than `Splats` comes.
        ValueError: when there are no splats, an object has no finite gaussian, or it has no size to normalise.
    """
    if isinstance(splats, Splats) or not all(isinstance(part, Splats) for part in splats):
        raise TypeError("collate needs a sequence of Splats; for one object write collate([splats])")
    if not splats:
        raise ValueError("collate needs at least one Splats, got an empty sequence")
    rows, dropped, touched = [], 0, 0
    for index, part in enumerate(splats):
        row, lost = _row(part, index, normalize, color_default)
        rows.append(row)
        dropped += lost
        touched += lost > 0
    if dropped:
        warnings.warn(
            f"left out {dropped:,} gaussians that are not finite, of {touched} of {len(splats)} objects; "
            "Splats.prune removes such rows for good",
            TokenizerWarning,
            stacklevel=2,
        )
    return SplatBatch(**{name: pad_sequence([row[name] for row in rows], batch_first=True) for name in _TAILS})


def _row(part: Splats, index: int, normalize: bool, color_default: float) -> tuple[dict[str, Tensor], int]:
    """One object's columns, zero for gaussians that are left out, and how many these are."""
    part = part.detach()
    columns = [part.means, part.quats, part.scales, part.opacities[:, None]]
    finite = torch.cat(columns, dim=1).isfinite().all(dim=1)  # [n]
    lost = len(part) - int(finite.sum())
    name = f"object {index}" + (f" ({part.source})" if part.source else "")
    if lost == len(part):
        raise ValueError(f"every object needs at least one finite gaussian, got none of {len(part)} in {name}")
    good = part[finite] if lost else part
    if normalize:
        try:
            good = good.normalize()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    colors = good.colors.clamp(0, 1)
    values = {
        "means": good.means,
        "quats": good.quats,
        "scales": good.scales,
        "opacities": good.opacities,
        "colors": torch.where(colors.isfinite(), colors, color_default),
        "mask": torch.ones(len(good), dtype=torch.bool, device=part.device),
    }
    out = {}
    for column, value in values.items():
        out[column] = value.new_zeros(len(part), *value.shape[1:])
        out[column][finite] = value
    return out, lost
