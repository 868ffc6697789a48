"""The picture that stays when the live view cannot: in a saved, exported or not yet connected notebook."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from .. import geometry
from ..rendering import Cameras, render
from ..splats import Splats
from .colormap import FADE_LOW, NOT_A_NUMBER, fade_matrix

if TYPE_CHECKING:
    from .splat_view import SplatView

MAX_BYTES = 100_000
MAX_WIDTH = 640  # pixels of the whole sheet
_GAP = 8
_THEMES = {"auto": (1.0, 1.0, 1.0), "light": (1.0, 1.0, 1.0), "dark": (17 / 255, 19 / 255, 24 / 255)}


def still_picture(view: SplatView) -> bytes:
    """PNG of at most ``MAX_BYTES``: all viewports side by side as the view's traits say, drawn by `render`."""
    info = view._info
    columns = min(info["columns"], len(view._shown))
    width = min(info["width"], (MAX_WIDTH - _GAP * (columns - 1)) // columns)
    height = max(1, round(width * info["height"] / info["width"]))
    background = info["background"] or _THEMES[view.theme]
    sheet = _sheet_size(len(view._shown), columns, width, height)
    page = Image.new("RGB", sheet, tuple(round(255 * c) for c in background))
    cameras = view.camera
    for i in range(len(view._shown)):
        splats = _as_seen(view, i)
        picture = render(splats, *_fit(cameras, i, width, height), sh_degree=view.sh_degree, background=background)
        pixels = np.round(255 * picture.colors[0].clamp(0, 1).numpy()).astype(np.uint8)
        x, y = (i % columns) * (width + _GAP), (i // columns) * (height + _GAP)
        page.paste(Image.fromarray(pixels), (x, y))
    return _encode(page)


def _sheet_size(count: int, columns: int, width: int, height: int) -> tuple[int, int]:
    rows = -(-count // columns)
    return columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP


def _as_seen(view: SplatView, i: int) -> Splats:
    """The shown gaussians of one viewport with crop, size and value colours applied."""
    splats = view._shown[i].splats
    splats = replace(splats, scales=splats.scales * view.splat_scale)
    if view.color_mode == "value" and view._indices is not None:
        splats = _by_value(splats, view._indices[i], view._legend["colormap"])
    kept = view._shown[i].kept
    mask = view.crop_mask(i).cpu()
    return splats[mask if kept is None else mask[kept]]


def _by_value(splats: Splats, rows: np.ndarray, colormap: list[int]) -> Splats:
    """The splats in the colours of their rows ``[N]`` of a colormap; their own, faded, where there is no value."""
    table = torch.tensor(colormap, dtype=torch.float32).reshape(-1, 4)[:, :3] / 255
    none = torch.from_numpy(rows == NOT_A_NUMBER)[:, None]  # [N, 1]
    fade = torch.from_numpy(fade_matrix()).to(torch.float32)
    colors = torch.where(none, FADE_LOW + splats.colors @ fade.T, table[rows.astype(np.int64)])
    shN = torch.where(none[..., None], splats.shN @ fade.T, 0.0)
    return replace(splats, sh0=((colors - 0.5) / geometry.SH_C0)[:, None], shN=shN)


def _fit(cameras: Cameras, i: int, width: int, height: int) -> Cameras:
    """Camera ``i`` for a picture of another size: scaled to fit, centred (as the page does)."""
    scale = min(width / cameras.width, height / cameras.height)
    K = cameras.Ks[i].clone()
    K[0, 0], K[1, 1] = K[0, 0] * scale, K[1, 1] * scale
    K[0, 2] = width / 2 + (K[0, 2] - cameras.width / 2) * scale
    K[1, 2] = height / 2 + (K[1, 2] - cameras.height / 2) * scale
    return Cameras(cameras.viewmats[i : i + 1], K[None], width, height)


def _encode(page: Image.Image) -> bytes:
    """A 256-colour PNG; made smaller until it fits."""
    while True:
        stream = io.BytesIO()
        palette = page.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
        palette.save(stream, format="PNG", optimize=True)
        if stream.tell() <= MAX_BYTES:
            return stream.getvalue()
        page = page.resize((max(1, int(0.8 * page.width)), max(1, int(0.8 * page.height))), Image.Resampling.LANCZOS)
