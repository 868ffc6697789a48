"""The CPU back end: threads over numba kernels that release the GIL, behind one autograd function."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .cameras import Cameras, Gaussians
from .cpu_projection import RECORD, project, project_backward
from .cpu_tiles import MOMENTS, TILE, add_moments, composite, composite_backward, order_by_depth, share_out

ROWS = 2**21  # gradient rows (one gaussian in one tile, 40 bytes) held at a time


class _Camera(NamedTuple):
    """What the projection kernels take of a camera, in their order."""

    numbers: np.ndarray  # [16] float64: rows of the viewmat, fx, fy, cx, cy
    position: np.ndarray  # [3] float64, in the world
    degree: int  # of the spherical harmonics
    width: int
    height: int


@dataclass(frozen=True)
class _View:
    """One projected view: V visible gaussians in depth order, their tiles, and what the backward pass needs of both."""

    camera: _Camera
    order: np.ndarray  # [V] int32, index of the gaussian
    centers: np.ndarray  # [V, 2] float64, pixels
    records: np.ndarray  # [V, RECORD] float32
    rects: np.ndarray  # [V, 4] int32
    tile_starts: np.ndarray  # [T + 1] int64
    items: np.ndarray  # [I] int32, position in depth order
    tiles_x: int
    transmittances: np.ndarray  # [H, W] float32; empty without gradients, as the next two
    lasts: np.ndarray  # [H, W] float32, position in the tile's list
    used: np.ndarray  # [T] int64, how much of each tile's list reached a pixel


def rasterize_cpu(
    gaussians: Gaussians, cameras: Cameras, degree: int, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rasterise with the numba kernels; arguments and results as in `rasterize.rasterize_cuda`.

    Without gradients nothing is kept; with them, per view, the projected gaussians and two numbers a pixel.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*gaussians, background)):
        return _Rasterize.apply(cameras, degree, background, *gaussians)
    return _forward(cameras, degree, background, gaussians, None)


def _forward(
    cameras: Cameras, degree: int, background: Tensor, gaussians: Sequence[Tensor], views: list[_View] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw all views; append them to ``views`` for the backward pass, unless it is None."""
    arrays = [t.detach().contiguous().numpy() for t in gaussians]
    height, width = cameras.height, cameras.width
    pictures = [np.empty((len(cameras.Ks), height, width, channels), np.float32) for channels in (3, 1, 1)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for c, camera in enumerate(_kernel_cameras(cameras, degree)):
            view = _project(pool, arrays, camera, views is not None)
            _share(
                pool, composite, _by_load(view.tile_starts), view.tile_starts, view.items,
                view.centers, view.records, view.rects,
                background[c].detach().contiguous().numpy(), view.tiles_x, width, height,
                *(picture[c] for picture in pictures), view.transmittances, view.lasts, view.used,
            )  # fmt: skip
            if views is not None:
                views.append(view)
    colors, alphas, depths = map(torch.from_numpy, pictures)
    return colors, alphas, depths


class _Rasterize(torch.autograd.Function):
    """Forward and analytic backward over all views."""

    @staticmethod
    def forward(
        ctx: Any, cameras: Cameras, degree: int, background: Tensor, *gaussians: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.views = []
        colors, alphas, depths = _forward(cameras, degree, background, gaussians, ctx.views)
        ctx.save_for_backward(background, alphas, depths, *gaussians)
        return colors, alphas, depths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v_pictures: Tensor | None) -> tuple[Tensor | None, ...]:
        background, alphas, depths, *gaussians = ctx.saved_tensors
        arrays = [t.detach().contiguous().numpy() for t in gaussians]
        gradients = [np.zeros_like(array) for array in arrays]
        v_background = np.empty((len(ctx.views), 3), np.float32)
        pictures = [alphas.numpy(), depths.numpy()]
        for v, channels in zip(v_pictures, (3, 1, 1), strict=True):
            shape = (*alphas.shape[:3], channels)  # zeros from numpy: torch would wake its threads for them
            pictures.append(np.zeros(shape, np.float32) if v is None else v.contiguous().numpy())
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for c, view in enumerate(ctx.views):
                behind = background[c].detach().contiguous().numpy()
                images = [picture[c] for picture in pictures]
                v_background[c] = _backward(pool, view, behind, images, arrays, gradients)
        results = [torch.from_numpy(array) for array in (v_background, *gradients)]
        return (None, None, *(r if need else None for r, need in zip(results, ctx.needs_input_grad[2:], strict=True)))


def _backward(
    pool: ThreadPoolExecutor,
    view: _View,
    background: np.ndarray,
    images: list[np.ndarray],
    arrays: list[np.ndarray],
    gradients: list[np.ndarray],
) -> np.ndarray:
    """Add one view's share to ``gradients``; return the gradient by its background ``[3]``."""
    # Tiles are taken in bands of at most ROWS gradient rows, which bounds the memory; rows are added up in the order of
    # the tiles, so that neither bands nor threads change a bit.
    tiles, visible = len(view.used), len(view.order)
    row_starts = np.concatenate([[0], np.cumsum(view.used)])
    totals = np.zeros((visible, MOMENTS))
    v_backgrounds = np.zeros((tiles, 3), np.float32)
    alphas, depths, *v_images = images
    first = 0
    while first < tiles:
        last = int(np.searchsorted(row_starts, row_starts[first] + ROWS, side="right")) - 1
        last = min(max(last, first + 1), tiles)
        moments = np.empty((int(row_starts[last] - row_starts[first]), MOMENTS), np.float32)
        _share(
            pool, composite_backward, _by_load(row_starts, first, last), view.tile_starts, view.items, row_starts,
            view.centers, view.records, view.rects, background, view.tiles_x, view.camera.width, view.camera.height,
            alphas, depths, view.transmittances, view.lasts, *v_images, first, moments, v_backgrounds,
        )  # fmt: skip
        spans = _even(visible, 1000)
        _share(pool, add_moments, spans, first, last, view.tile_starts, view.items, row_starts, moments, totals)
        first = last
    positions = np.full(len(arrays[0]), -1, np.int32)
    positions[view.order] = np.arange(visible, dtype=np.int32)
    spans = _even(len(positions), 2000)
    _share(pool, project_backward, spans, positions, totals, *arrays, *view.camera, *gradients)
    return v_backgrounds.sum(axis=0, dtype=np.float64)


def _kernel_cameras(cameras: Cameras, degree: int) -> Iterator[_Camera]:
    for viewmat, K in zip(cameras.viewmats.double().numpy(), cameras.Ks.double().numpy(), strict=True):
        numbers = np.concatenate([viewmat[:3].reshape(-1), [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]])
        position = np.ascontiguousarray(np.linalg.inv(viewmat)[:3, 3])
        yield _Camera(numbers, position, degree, cameras.width, cameras.height)


def _share(pool: ThreadPoolExecutor, kernel: Callable[..., None], bounds: list[int], *arguments: object) -> None:
    """Call ``kernel(start, stop, *arguments)`` for each span between ``bounds``, on as many threads as torch has."""
    spans = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    if len(spans) < 2:
        for start, stop in spans:
            kernel(start, stop, *arguments)
        return
    for done in [pool.submit(kernel, start, stop, *arguments) for start, stop in spans]:
        done.result()


def _even(count: int, least: int) -> list[int]:
    """Bounds of about equal spans of ``count`` rows, none shorter than ``least`` unless it is the only one."""
    parts = max(1, min(torch.get_num_threads(), count // least))
    return [count * i // parts for i in range(parts + 1)]


def _project(pool: ThreadPoolExecutor, arrays: list[np.ndarray], camera: _Camera, differentiable: bool) -> _View:
    n = len(arrays[0])
    keys = np.empty(n, np.uint32)
    centers, records = np.empty((n, 2)), np.empty((n, RECORD), np.float32)
    rects = np.empty((n, 4), np.int32)
    _share(pool, project, _even(n, 2000), *arrays, *camera, keys, centers, records, rects)
    order = order_by_depth(keys)
    centers, records, rects = centers.take(order, axis=0), records.take(order, axis=0), rects.take(order, axis=0)
    tiles_x, tiles_y = -(-camera.width // TILE), -(-camera.height // TILE)
    tile_starts, items = share_out(rects, tiles_x, tiles_y)
    size, tiles = ((camera.height, camera.width), len(tile_starts) - 1) if differentiable else ((0, 0), 0)
    room = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(tiles, np.int64)
    return _View(camera, order, centers, records, rects, tile_starts, items, tiles_x, *room)


def _by_load(starts: np.ndarray, first: int = 0, last: int | None = None) -> list[int]:
    """Bounds of spans of tiles ``first..last`` that hold about equal numbers of gaussians: four spans per thread."""
    # ``starts [T + 1]`` is the cumulative number of gaussians in the tiles.
    last = len(starts) - 1 if last is None else last
    threads = torch.get_num_threads()
    if threads == 1:
        return [first, last]
    load = starts[first : last + 1] - starts[first] + 4 * np.arange(last - first + 1)  # an empty tile takes time too
    cuts = first + np.searchsorted(load, load[-1] * np.arange(1, 4 * threads) / (4 * threads))
    return [first, *(min(int(cut), last) for cut in cuts), last]
