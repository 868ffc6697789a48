"""Picture files and how much two pictures differ."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..files import replacing

_GAP = 2  # pixels between the pictures of a contact sheet


def to_uint8(image: Tensor | np.ndarray) -> np.ndarray:
    """8-bit picture of floats in ``[0, 1]``, ``[H, W, 3 or 4]``, else ValueError; clipped, NaN is black."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise ValueError(f"image must have shape [H, W, 3] or [H, W, 4] with H, W >= 1, got {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"image must hold floats in [0, 1], got {array.dtype}; divide 8-bit values by 255")
    return (np.clip(np.nan_to_num(array, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def save_png(path: str | os.PathLike[str], image: Tensor | np.ndarray) -> Path:
    """Write ``image [H, W, 3 or 4]``, floats in ``[0, 1]``, as PNG; atomically.

    Raises:
        ValueError: when the image has another shape.
        OSError: when the folder does not exist or is not writable.
    """
    picture = Image.fromarray(to_uint8(image))
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return Path(path)


def save_gif(path: str | os.PathLike[str], images: Sequence[Tensor | np.ndarray] | Tensor, fps: float = 12.0) -> Path:
    """Write pictures ``[H, W, 3]``, floats in ``[0, 1]``, as an endless GIF; atomically; errors as of `save_png`.

    All frames share one palette of 256 colours, so that still parts stay still.

    Args:
        images: at least one, all of one size.
        fps: frames per second in (0, 50]; GIF counts in hundredths of a second.
    """
    if not 0 < fps <= 50:
        raise ValueError(f"fps must lie in (0, 50], got {fps}")
    frames = [Image.fromarray(to_uint8(image)[:, :, :3]) for image in images]
    if not frames or len({frame.size for frame in frames}) != 1:
        raise ValueError(f"images must be at least one, all of one size, got sizes {[f.size for f in frames]}")
    few = frames[:: math.ceil(len(frames) / 8)]
    strip = Image.new("RGB", (few[0].width, few[0].height * len(few)))
    for i, frame in enumerate(few):
        strip.paste(frame, (0, i * frame.height))
    palette = strip.quantize(256)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0
        )
    return Path(path)


def contact_sheet(
    images: Sequence[Tensor] | Tensor, columns: int | None = None, captions: Sequence[str] = ()
) -> Tensor:
    """Lay pictures of one size out on a grid, row by row, with 2 pixels of white between and in empty places.

    Args:
        images: at least one of ``[H, W, C]``.
        columns: pictures in a row; None makes the sheet about square.
        captions: what stands below each picture, in up to three lines; one each or none, else ValueError.

    Returns:
        ``[H', W', C]`` on the device of the first.
    """
    images = list(images)
    if not images or len({image.shape for image in images}) != 1 or images[0].ndim != 3:
        raise ValueError(
            f"images must be at least one [H, W, C], all of one size, got {[list(i.shape) for i in images]}"
        )
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    if columns < 1:
        raise ValueError(f"columns must be >= 1, got {columns}")
    if captions and len(captions) != len(images):
        raise ValueError(f"captions must be one per picture ({len(images)}), got {len(captions)}")
    height, width, channels = images[0].shape
    letters = max(4, width // 6)  # that fit a line
    font, texts = ImageFont.load_default(11), [fill(c, letters, max_lines=3, placeholder="…") for c in captions]
    below = 13 * max((text.count("\n") + 1 for text in texts), default=0) + (4 if texts else 0)
    tall, wide = height + below + _GAP, width + _GAP
    ink = Image.new("L", (columns * wide - _GAP, math.ceil(len(images) / columns) * tall - _GAP), 255)
    pen = ImageDraw.Draw(ink)
    for i, text in enumerate(texts):
        corner = (i % columns * wide + width // 2, i // columns * tall + height + 2)
        pen.multiline_text(corner, text, fill=70, font=font, anchor="ma", align="center", spacing=2)
    sheet = torch.from_numpy(np.asarray(ink, np.float32) / 255).to(images[0])[..., None].repeat(1, 1, channels)
    for i, image in enumerate(images):
        top, left = i // columns * tall, i % columns * wide
        sheet[top : top + height, left : left + width] = image
    return sheet


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures with values in ``[0, 1]``; infinite when equal.

    ``a`` and ``b`` are ``[H, W, C]``, which gives ``[]``, or ``[B, H, W, C]``, which gives ``[B]``; else ValueError.
    """
    _check_pair(a, b)
    return -10 * ((a - b) ** 2).mean(dim=(-3, -2, -1)).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): 11x11 gaussian window, sigma 1.5, values in ``[0, 1]``; differentiable.

    Pixels beyond the border count as zero, as in 3D Gaussian splatting's training loss. 1 for equal pictures; arguments
    and shapes are those of `psnr`.
    """
    _check_pair(a, b)
    offsets = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = window / window.sum()
    x, y = (t.reshape(-1, *t.shape[-3:]).permute(0, 3, 1, 2) for t in (a, b))  # [B, C, H, W]
    batch, channels = x.shape[:2]
    stacked = torch.cat([x, y, x * x, y * y, x * y]).reshape(-1, 1, *x.shape[2:])  # [5BC, 1, H, W]
    blurred = torch.nn.functional.conv2d(stacked, window.view(1, 1, 1, 11), padding=(0, 5))
    blurred = torch.nn.functional.conv2d(blurred, window.view(1, 1, 11, 1), padding=(5, 0))
    mean_x, mean_y, xx, yy, xy = blurred.reshape(5, batch, channels, *x.shape[2:])
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * (xy - mean_x * mean_y) + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (xx - mean_x**2 + yy - mean_y**2 + c2)
    values = (numerator / denominator).mean(dim=(1, 2, 3))  # [B]
    return values if a.ndim == 4 else values[0]


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim not in (3, 4):
        raise ValueError(
            f"pictures must share one shape [H, W, C] or [B, H, W, C], got {list(a.shape)} and {list(b.shape)}"
        )
