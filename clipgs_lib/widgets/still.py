"""The picture that stays when the live view cannot: in a saved, exported or not yet connected notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import geometry
from ..rendering import Cameras, render
from ..splats import Splats
from .colormap import FADE_LOW, LUMA, NOT_A_NUMBER, fade_matrix

MAX_BYTES = 100_000
MAX_WIDTH = 640  # pixels of the whole sheet
_GAP = 8
_PAPER = {"auto": (1.0, 1.0, 1.0), "light": (1.0, 1.0, 1.0), "dark": (17 / 255, 19 / 255, 24 / 255)}

VANISHING = (0.45, 0.45, 0.45)  # lies below what could not be told from the page


def shades(splats: Splats) -> dict[str, bool]:
    """Whether a good part of what is seen is nearly black, or nearly white: it would vanish in such a page."""
    weight = splats.opacities * splats.area()
    luma = splats.colors.clamp(0, 1) @ torch.tensor(LUMA)
    dark, light = (float(weight[part].sum()) > 0.3 * float(weight.sum()) for part in (luma < 0.15, luma > 0.97))
    return {"dark": dark, "light": light}


def paper(theme: str, splats: Splats) -> tuple[float, float, float]:
    """The background that the page of a theme would give to a splat."""
    vanishes = shades(splats)["dark" if theme == "dark" else "light"]
    return VANISHING if vanishes else _PAPER[theme]


def still_picture(
    splats: Sequence[Splats],
    cameras: Cameras,
    *,
    columns: int,
    size: tuple[int, int],
    sh_degree: int,
    backgrounds: Sequence[Sequence[float]],
) -> bytes:
    """PNG of at most ``MAX_BYTES``: viewports side by side, drawn by `render`.

    Args:
        splats: of each viewport, as they are seen.
        cameras: one for each viewport, ``viewmats [V, 4, 4]``.
        columns: viewports side by side.
        size: width and height of a viewport, pixels; less when the sheet would be wider than ``MAX_WIDTH``.
        sh_degree: the highest SH degree in use.
        backgrounds: RGB in ``[0, 1]`` of each viewport; the first is that of the sheet.
    """
    columns = min(columns, len(splats))
    width = min(size[0], (MAX_WIDTH - _GAP * (columns - 1)) // columns)
    height = max(1, round(width * size[1] / size[0]))
    sheet = columns * (width + _GAP) - _GAP, -(-len(splats) // columns) * (height + _GAP) - _GAP
    page = Image.new("RGB", sheet, tuple(round(255 * c) for c in backgrounds[0]))
    for i, one in enumerate(splats):
        background = torch.tensor(backgrounds[i])
        picture = render(one, *_fit(cameras, i, width, height), sh_degree=sh_degree, background=background)
        pixels = np.round(255 * picture.colors[0].clamp(0, 1).numpy()).astype(np.uint8)
        page.paste(Image.fromarray(pixels), (i % columns * (width + _GAP), i // columns * (height + _GAP)))
    return encode_png(page)


def recolored(splats: Splats, rows: np.ndarray, colormap: list[int]) -> Splats:
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


def encode_png(page: Image.Image) -> bytes:
    """A 256-colour PNG of at most ``MAX_BYTES``; made smaller until it fits."""
    while True:
        stream = io.BytesIO()
        palette = page.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
        palette.save(stream, format="PNG", optimize=True)
        if stream.tell() <= MAX_BYTES:
            return stream.getvalue()
        page = page.resize((max(1, int(0.8 * page.width)), max(1, int(0.8 * page.height))), Image.Resampling.LANCZOS)


def page_script(*names: str) -> str:
    """The text of our JavaScript files one after the other, since a front end loads one that can import nothing."""
    folder = Path(__file__).parent
    return "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in ("page", *names))


def with_picture(
    bundle: Any, shown: object, png: bytes, live: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A widget's MIME bundle with its text and a picture beside the live view."""
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    picture = base64.b64encode(png).decode("ascii")
    return {**(data or {}), "text/plain": repr(shown), "image/png": picture, **(live or {})}, metadata
