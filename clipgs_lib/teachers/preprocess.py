"""Pictures into what an image tower wants: open_clip's resize, crop and normalisation, batched on tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

RESIZE_MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Preprocess:
    """What open_clip's ``PreprocessCfg`` says, as a function of a batch."""

    height: int  # of the tower's input, pixels
    width: int  # of the tower's input, pixels
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]  # per channel
    interpolation: str  # one of INTERPOLATIONS, antialiased
    resize_mode: str  # "shortest": fill and crop the centre; "longest": fit and pad; "squash": ignore proportions
    fill: float  # value in [0, 1] of padding

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocess:
        """From open_clip's dictionary.

        Raises:
            ValueError: for an interpolation or resize mode that we do not know.
        """
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size
        mode, how = config["resize_mode"], config["interpolation"]
        how = "bicubic" if how == "random" else how  # open_clip: the draw is for training only
        if mode not in RESIZE_MODES or how not in INTERPOLATIONS:
            raise ValueError(
                f"resize_mode must be one of {', '.join(RESIZE_MODES)} and interpolation one of "
                f"{', '.join(INTERPOLATIONS)}, got {mode!r} and {how!r}; this teacher is not supported"
            )
        mean, std = tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
        return cls(height, width, mean, std, how, mode, float(config["fill_color"]) / 255)

    def __call__(self, images: torch.Tensor | np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
        """Prepare a batch.

        Args:
            images: ``[B, H, W, 3]`` float in ``[0, 1]`` or uint8, RGB.
            device: where to work.

        Returns:
            ``[B, 3, height, width]`` float32, normalised.

        Raises:
            ValueError: for another shape or type, or values outside ``[0, 1]``.
        """
        batch = check_images(images).to(device)
        batch = batch.permute(0, 3, 1, 2)  # [B, 3, H, W]
        batch = batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()
        batch = self._fit(batch)
        mean, std = (torch.tensor(v, device=batch.device)[:, None, None] for v in (self.mean, self.std))
        return (batch - mean) / std

    def _fit(self, batch: torch.Tensor) -> torch.Tensor:
        height, width = batch.shape[-2:]
        if self.resize_mode == "squash":
            return self._resize(batch, self.height, self.width)
        ratios = (self.height / height, self.width / width)
        if self.resize_mode == "shortest":
            ratio = max(ratios)
            size = max(self.height, int(height * ratio + 1e-6)), max(self.width, int(width * ratio + 1e-6))
            batch = self._resize(batch, *size)
            top, left = round((size[0] - self.height) / 2), round((size[1] - self.width) / 2)
            return batch[..., top : top + self.height, left : left + self.width]
        ratio = min(ratios)
        size = min(self.height, round(height * ratio)), min(self.width, round(width * ratio))
        batch = self._resize(batch, max(1, size[0]), max(1, size[1]))
        down, right = self.height - batch.shape[-2], self.width - batch.shape[-1]
        pad = (right // 2, right - right // 2, down // 2, down - down // 2)
        return F.pad(batch, pad, value=self.fill)

    def _resize(self, batch: torch.Tensor, height: int, width: int) -> torch.Tensor:
        if batch.shape[-2:] == (height, width):
            return batch
        resized = F.interpolate(batch, (height, width), mode=self.interpolation, antialias=True, align_corners=False)
        return resized.clamp(0, 1)  # bicubic overshoots; 8-bit pictures clip there too


def check_images(images: torch.Tensor | np.ndarray) -> torch.Tensor:
    """A batch of pictures as a tensor, or a sentence about what is wrong with it."""
    if isinstance(images, np.ndarray) and not images.flags.writeable:
        images = images.copy()  # as PIL gives them; torch shares memory only with what it may write to
    batch = torch.as_tensor(images)
    if batch.ndim != 4 or batch.shape[-1] != 3 or 0 in batch.shape[1:]:
        hint = "; add a batch axis" if batch.ndim == 3 else "; move channels last and drop alpha over a background"
        raise ValueError(f"images must have shape [B, H, W, 3] (RGB), got {list(batch.shape)}{hint}")
    if batch.dtype == torch.uint8:
        return batch
    if not batch.is_floating_point():
        raise ValueError(f"images must be uint8 or float in [0, 1], got {batch.dtype}; convert them")
    if batch.numel() and not (float(batch.min()) >= -1e-4 and float(batch.max()) <= 1 + 1e-4):
        raise ValueError(
            f"float images must lie in [0, 1], got {float(batch.min()):.3g} to {float(batch.max()):.3g}; "
            "divide by 255, or pass uint8"
        )
    return batch
