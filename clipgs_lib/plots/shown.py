"""Which gaussians of a splat a figure or a viewer draws."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..splats import Splats
from ..words import plural

FINEST = 64  # cells along the longest side when the shape is to survive; fewer rather than more cells than gaussians


class Shown(NamedTuple):
    """What of a splat is shown."""

    splats: Splats  # those drawn, on the CPU, without gradients
    rows: Tensor  # [M] int64, their rows in the splats as passed, ascending
    total: int  # how many gaussians were passed
    broken: int  # how many of them were left out because they are not finite or have no orientation
    rule: str  # which are kept when there are too many

    @property
    def kept(self) -> Tensor | None:
        """`rows`, or None when all are shown."""
        return self.rows if len(self.rows) < self.total else None

    @property
    def note(self) -> str:
        """One line for people: what of all gaussians is shown, and what was left out."""
        text = plural(self.total, "gaussian")
        if len(self.rows) < self.total - self.broken:
            text = f"{len(self.rows):,} of {text} shown, {self.rule}"
        return text + (f", {self.broken:,} not finite left out" if self.broken else "")


def choose(splats: Splats, limit: int, *, spread: bool = False) -> Shown:
    """Leave out what cannot be drawn, then keep at most ``limit`` gaussians, in the order in which they came.

    Args:
        splats: N gaussians on any device.
        limit: the most to show, ``>= 1``.
        spread: keep some of every part, so that the shape survives; else those with the largest opacity × area.
    """
    total, splats = len(splats), splats.detach().to("cpu")
    keep = splats.finite_mask() & (splats.quats.norm(dim=1) > 1e-12)
    rows = keep.nonzero()[:, 0]
    broken = total - len(rows)
    if len(rows) > limit:
        weight = (splats.opacities * splats.area())[rows]
        if spread:
            weight = -torch.from_numpy(_turn(splats.means[rows].double().numpy(), weight.numpy(), limit))
        rows = rows[weight.topk(limit, sorted=False).indices].sort().values
    shown = splats if len(rows) == total else splats[rows]
    return Shown(shown, rows, total, broken, "some of every part" if spread else "the largest by opacity × area")


def _turn(points: np.ndarray, weight: np.ndarray, limit: int) -> np.ndarray:
    """``[M]`` when each point is chosen if the cells of a grid choose in turn, each its heaviest point that is left."""
    low, size = points.min(axis=0), np.ptp(points, axis=0).max() or 1.0
    for cells in (FINEST >> halved for halved in range(FINEST.bit_length())):
        places = np.minimum((points - low) / size * cells, cells - 1).astype(np.int64)
        _, inverse = np.unique(places @ (1, cells, cells**2), return_inverse=True)
        if inverse.max() < limit:  # every cell gets one
            break
    order = np.lexsort((-weight, inverse))
    starts = np.r_[True, np.diff(inverse[order]) > 0]
    within = np.arange(len(order)) - np.flatnonzero(starts)[starts.cumsum() - 1]
    turn = np.empty(len(order))
    turn[order[np.lexsort((-weight[order], within))]] = np.arange(len(order))
    return turn
