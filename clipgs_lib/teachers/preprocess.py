"""Pictures into what an image tower wants: open_clip's resize, crop and normalisation, batched on tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor"
Pictures: TypeAlias = "torch.Tensor | np.ndarray | Sequence[Picture]"
MAX_PIXELS = 1 << 26  # of a picture of a list, looked up before it is decoded
_KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "GIF", "TIFF", "PPM")  # decoders that run no other program

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

    def __call__(self, images: Pictures, device: torch.device | str = "cpu") -> torch.Tensor:
        """Prepare a batch: ``[B, 3, height, width]`` float32, normalised, on ``device``.

        ``images`` are ``[B, H, W, 3]`` float in ``[0, 1]`` or uint8, RGB; or a list of what `read_picture` reads, each
        of any size. ValueError for another shape or type, values outside ``[0, 1]``, or a picture that cannot be read.
        """
        if isinstance(images, list | tuple):
            made = [self(read_picture(picture, f" at {i}")[None], device) for i, picture in enumerate(images)]
            return torch.cat(made) if made else torch.empty(0, 3, self.height, self.width, device=device)
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


def check_images(images: Any) -> torch.Tensor:
    """A batch of pictures as a tensor, or a sentence about what is wrong with it."""
    if not isinstance(images, np.ndarray | torch.Tensor):
        must = "images must be an array [B, H, W, 3] or a list of pictures and paths"
        raise ValueError(f"{must}, got one {type(images).__name__}; put it into a list")
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


def read_picture(picture: Picture, place: str = "") -> torch.Tensor:
    """One picture as RGB: turned as its EXIF says, over white where it is transparent, of an animation the first frame.

    Args:
        picture: a path; a PIL image of any mode (palette, grey, CMYK, 16 bits, ...); or an array or tensor ``[H, W]``,
            ``[H, W, 1]``, ``[H, W, 3]`` or ``[H, W, 4]`` of uint8, uint16 or float in ``[0, 1]``.
        place: of the picture in a list, for messages.

    Returns:
        ``[H, W, 3]`` uint8, or float32 in ``[0, 1]`` for arrays that are not uint8.

    Raises:
        ValueError: when it is something else, cannot be read, or has more than `MAX_PIXELS`.
    """
    if isinstance(picture, Image.Image):
        return _from_pil(picture, f"picture{place}")
    if isinstance(picture, str | os.PathLike):
        name = f"picture {os.fspath(picture)!r}{place}"
        if not Path(picture).is_file():
            raise ValueError(f"{name} must be a file, got none there; check the path")
        try:
            with warnings.catch_warnings(), Image.open(picture, formats=_KINDS) as image:
                warnings.simplefilter("ignore")  # our bound is tighter than Pillow's
                return _from_pil(image, name)
        except (Image.UnidentifiedImageError, Image.DecompressionBombError) as error:
            kinds = f"a picture ({', '.join(_KINDS)}) of at most {MAX_PIXELS:,} pixels"
            raise ValueError(f"{name} must be {kinds}, got {error}; save it as PNG") from None
    if isinstance(picture, np.ndarray | torch.Tensor):
        return _from_array(np.asarray(picture), f"picture{place}")
    raise ValueError(f"picture{place} must be a path, a PIL image or an array [H, W, 3], got {type(picture).__name__}")


def _from_pil(image: Image.Image, name: str) -> torch.Tensor:
    if not 0 < image.width * image.height <= MAX_PIXELS:
        got = f"{image.width} x {image.height}"
        raise ValueError(f"{name} must have 1 to {MAX_PIXELS:,} pixels, got {got}; shrink it")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{name} must be whole, got {error}; fetch it again") from None
    if image.mode.startswith("I"):  # 16 bits, whatever Pillow calls them
        return _from_array(np.asarray(image).clip(0, 65535).astype(np.uint16), name)
    if image.mode == "F":
        values = np.asarray(image)
        return _from_array(values / 255 if values.max(initial=0) > 1 else values, name)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return torch.from_numpy(np.array(image.convert("RGB")))


def _from_array(values: np.ndarray, name: str) -> torch.Tensor:
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in (1, 3, 4) or 0 in values.shape:
        raise ValueError(f"{name} must be [H, W], [H, W, 3] or [H, W, 4], got {list(values.shape)}; move channels last")
    if values.dtype == np.uint16:
        values = values / np.float32(65535)
    color = values[..., :3].repeat(3 // min(values.shape[-1], 3), axis=-1)
    pixels = check_images(color[None])[0]
    if values.shape[-1] == 4:
        alpha = torch.from_numpy(np.array(values[..., 3:]))
        scale = 255 if alpha.dtype == torch.uint8 else 1
        mixed = pixels.float() * (alpha.float() / scale) + scale - alpha.float()
        pixels = mixed.round().to(torch.uint8) if scale == 255 else mixed
    return pixels if pixels.dtype == torch.uint8 else pixels.float()
