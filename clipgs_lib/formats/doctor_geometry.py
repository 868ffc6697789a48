"""Signs of trouble that only the neighbours of a gaussian show: spacing, floaters, and how it lies on its surface."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..geometry import quat_to_rotmat
from .doctor_report import Finding
from .doctor_values import Extent

MAX_POINTS = 200_000
"""Centres searched; a random choice of more. Keeps the time bounded, and local surfaces are still well sampled."""
MAX_QUERIES = 20_000  # Gaussians asked for their neighbours
FLAT = 0.5  # Smallest over middle scale below which a gaussian has a normal worth the name
PLANAR = 0.1  # Smallest over middle variance of 16 neighbouring centres below which they lie on a surface
LEAST_ALIGNED = 200
"""Flat gaussians on surfaces needed for a verdict; chance moves the mean of fewer by more than a third of `BETTER`."""
BETTER = 0.1
"""Gain in mean |cos| of a wrong-convention reading that betrays it: at most 0.05 in sound real files, 0.3 and more in
the same files with two axes swapped, 0.26 with the quaternion order changed, but only 0.08 to 0.14 with one axis
flipped, so that some flips go unseen. Where the rotations are symmetric (some generators) the order does not show."""
SAME = 0.05  # Readings that agree within this are equally good; the simplest is named
MISFIT = 20.0  # Spacing over scale (or the inverse): real files range from 0.45 (soft) to 8 (dust)
ACTIVATED_MISFIT = 10.0
"""Scale over spacing from which scales that are all above 1 are suspected to be one exponential too large."""
ALIKE_MEDIAN = 0.5
"""Median logarithm of scales below which linear scales may have been stored: sizes of 0 to 0.5, read as 1 to 1.6."""
ALIKE_SPREAD = 0.15  # Spread of the logarithms of scales that trained files exceed (0.4 and more)
SIZES_SPREAD = 0.15  # Spread of logarithms that sizes have, unless all gaussians were made alike
ALIKE_MISFIT = 1.2  # Scale over spacing from which such gaussians are too large for the gaps between them
FLOATER_REACH = 0.1  # Distance from the box of the middle 98 %, in extents, from which lone gaussians count as floaters
FLOATER_GAP = 10.0  # Distance to the 8th neighbour, in medians, that makes a gaussian there a lone one
FAR_REACH = 1.0  # Distance from that box, in extents, that makes a floater in any company
ON_FLOOR = 0.03
"""Distance of one end of an axis from 0, as a share of its length, that counts as standing on the plane 0."""
STRADDLES = 0.25  # Distance of the middle from 0 as a share of the length, below which an axis straddles 0


@dataclass(frozen=True)
class Neighbours:
    """A search tree over (a sample of) the centres."""

    tree: cKDTree
    means: np.ndarray  # ``[M, 3]`` float64, centred; those in the tree
    middle: np.ndarray  # ``[3]`` that was subtracted
    rows: np.ndarray  # ``[M]`` rows of the whole that they are
    spacing: float  # Median distance to the 4th neighbour, scene units
    gap: float  # Median distance to the 8th neighbour

    @classmethod
    def of(cls, means: np.ndarray, seed: int = 0) -> Neighbours | None:
        """Of finite centres ``[N, 3]``; None for fewer than 10."""
        if len(means) < 10:
            return None
        random = np.random.default_rng(seed)
        rows = np.arange(len(means))
        if len(rows) > MAX_POINTS:
            rows = np.sort(random.choice(len(means), MAX_POINTS, replace=False))
        exact = means[rows].astype(np.float64)
        middle = np.median(exact, axis=0)
        tree = cKDTree(exact - middle, balanced_tree=False, compact_nodes=False)
        asked = random.choice(len(rows), min(MAX_QUERIES, len(rows)), replace=False)
        distances, _ = tree.query(exact[asked] - middle, k=9, workers=-1)
        spacing, gap = (float(np.median(distances[:, k])) for k in (4, 8))
        return cls(tree, exact - middle, middle, rows, spacing, gap)


def activated_scales(scales: np.ndarray, near: Neighbours) -> bool:
    """Whether scales ``[N, 3]`` look as if the exponential had been applied twice: stored linear, read as logarithms.

    Then all exceed 1, dwarf the spacing of the centres, and their logarithms fit it better; or, however far apart
    the centres are, all lie just above 1 and wider than the gaps, while what is stored varies as sizes do.
    """
    if near.spacing <= 0 or np.quantile(scales, 0.001) < 0.98:
        return False
    largest = float(np.median(scales.max(axis=1)))
    stored = np.log(np.maximum(scales.astype(np.float64), 1 + 1e-6))
    alike = float(np.median(stored)) < ALIKE_MEDIAN and float(stored.std()) < ALIKE_SPREAD
    if alike and float(np.log(stored).std()) > SIZES_SPREAD and largest > ALIKE_MISFIT * near.spacing:
        return True
    before = max(np.log(largest), 1e-12)
    return largest > ACTIVATED_MISFIT * near.spacing and (
        abs(np.log(before / near.spacing)) < abs(np.log(largest / near.spacing))
    )


def check_sizes(scales: np.ndarray, near: Neighbours) -> list[Finding]:
    """Scales that do not fit the spacing of the centres."""
    largest = float(np.median(scales.max(axis=1)))
    if near.spacing <= 0 or largest <= 0 or 1 / MISFIT < near.spacing / largest < MISFIT:
        return []
    small = near.spacing > largest
    what = f"{near.spacing / largest:.3g} times smaller" if small else f"{largest / near.spacing:.3g} times larger"
    message = (
        f"the gaussians are {what} than the gaps between them (median scale {largest:.3g}, gap {near.spacing:.3g})"
    )
    mend = "if the centres were scaled, scale the gaussians by the same factor: Splats.transform does both"
    return [Finding("scale_mismatch", "warning", message, mend)]


def check_floaters(means: np.ndarray, extent: Extent, near: Neighbours) -> list[Finding]:
    """Lone gaussians far from the rest."""
    size = extent.diagonal
    if size <= 0:
        return []
    beyond = np.maximum(extent.low - means, means - extent.high).max(axis=1)  # [N], infinity norm outside the box
    rows = np.flatnonzero(beyond > FLOATER_REACH * size)[:MAX_QUERIES]
    if len(rows) == 0:
        return []
    k = min(9, len(near.rows))
    distances, _ = near.tree.query(means[rows].astype(np.float64) - near.middle, k=k, workers=-1)
    lone = (distances[:, -1] > FLOATER_GAP * near.gap) | (beyond[rows] > FAR_REACH * size)
    if not lone.any():
        return []
    count, furthest = int(lone.sum()), float(beyond[rows[lone]].max()) / size
    at_least = "at least " if len(rows) == MAX_QUERIES else ""
    noun = "floater: a lone gaussian" if count == 1 else "floaters: lone gaussians up to"
    message = f"{at_least}{count:,} {noun} {furthest:.3g} extents away from the bulk"
    mend = "crop to a box a little larger than splats.bounds(0.01): splats[((means >= low) & (means <= high)).all(1)]"
    return [Finding("floaters", "warning", message, mend)]


def check_alignment(quats: np.ndarray, scales: np.ndarray, near: Neighbours) -> list[Finding]:
    """Quaternions in another convention than the centres: order of components, inverse, axes turned or swapped.

    Flat gaussians lie on surfaces, so the axis of their smallest scale should point along the normal of the
    neighbouring centres. Each wrong reading is tried; one that fits clearly better than what is stored betrays
    itself. A whole object mirrored with its gaussians shows no such sign, and none is claimed.
    """
    normals, rows, axis = _normals(scales, near)
    if len(rows) < LEAST_ALIGNED:
        return []
    stored = quats[rows].astype(np.float64)
    orders = {"wxyz": stored, "xyzw": stored[:, [3, 0, 1, 2]], "inverse": stored * [1, -1, -1, -1]}
    turns = _turns()
    fits = {name: _fit(order, axis, normals, turns) for name, order in orders.items()}
    readings = [(fits["wxyz"][k], "turn", turn) for k, turn in enumerate(turns)]
    readings[1:1] = [(fits["xyzw"][0], "xyzw", turns[0]), (fits["inverse"][0], "inverse", turns[0])]
    best = max(fit for fit, _, _ in readings)
    fit, kind, turn = next(reading for reading in readings if reading[0] > best - SAME)
    if fit < readings[0][0] + BETTER:
        return []
    numbers = f"agreement with the local surface {readings[0][0]:.2f} as stored, {fit:.2f} so; 1 is perfect, 0.5 chance"
    if kind == "xyzw":
        message = f"the quaternions are probably stored as xyzw instead of wxyz ({numbers})"
        mend = "reorder them: dataclasses.replace(splats, quats=splats.quats[:, [3, 0, 1, 2]])"
        return [Finding("quaternion_order", "warning", message, mend)]
    if kind == "inverse":
        message = f"the quaternions are probably inverted ({numbers})"
        mend = "conjugate them: negate x, y and z"
        return [Finding("quaternion_inverse", "warning", message, mend)]
    message = f"the centres were probably turned or swapped to {_name(turn)} without the quaternions ({numbers})"
    mend = (
        "undo it on the means and use Splats.transform, which turns means, quaternions and SH together "
        "(a swap of two axes is a mirror image: rotate by 90 degrees instead)"
    )
    return [Finding("turned_without_quaternions", "warning", message, mend)]


def guess_up(extent: Extent) -> str:
    """Which axis is up, if the object stands on a coordinate plane: one end of one axis at 0, the others about 0.

    On 1,044 furniture, animal, vehicle and plant models this decides for 44 % and is right for 99 % of those. How
    wide the base is, or where the mass lies, was tried and is right for two of three only, so it is not used.
    """
    length = np.maximum(extent.high - extent.low, 1e-12)
    ends = np.stack([np.abs(extent.low), np.abs(extent.high)], axis=1) / length[:, None]  # [3, 2]
    middle = np.abs(extent.low + extent.high) / 2 / length
    standing = np.flatnonzero(ends.min(axis=1) < ON_FLOOR)
    if len(standing) != 1:
        return "unknown"
    axis = int(standing[0])
    if any(middle[other] > STRADDLES for other in range(3) if other != axis):
        return "unknown"
    return ("+" if ends[axis, 0] < ends[axis, 1] else "-") + "xyz"[axis]


def _normals(scales: np.ndarray, near: Neighbours) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surface normals ``[S, 3]``, the rows ``[S]`` of flat gaussians there, and their thinnest axis ``[S]``."""
    ordered = np.sort(scales[near.rows], axis=1)
    flat = np.flatnonzero(ordered[:, 0] < FLAT * ordered[:, 1])
    k = 16
    if len(flat) < LEAST_ALIGNED or len(near.rows) < k:
        return np.empty((0, 3)), np.empty(0, np.int64), np.empty(0, np.int64)
    flat = np.random.default_rng(1).permutation(flat)[: MAX_QUERIES // 2]
    _, neighbours = near.tree.query(near.means[flat], k=k, workers=-1)
    points = near.means[neighbours]  # [S, k, 3]
    points = points - points.mean(axis=1, keepdims=True)
    variances, vectors = np.linalg.eigh(np.einsum("ski,skj->sij", points, points))
    planar = variances[:, 0] < PLANAR * variances[:, 1]
    rows = near.rows[flat[planar]]
    return vectors[planar, :, 0], rows, scales[rows].argmin(axis=1)


def _fit(quats: np.ndarray, axis: np.ndarray, normals: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Mean |cos| between thinnest axes and normals ``[T]``, the axes turned by each of ``turns [T, 3, 3]``."""
    axes = quat_to_rotmat(torch.from_numpy(quats)).numpy()  # [S, 3, 3], in columns
    thin = axes[np.arange(len(axis)), :, axis]  # [S, 3]
    return np.abs(np.einsum("si,tij,sj->ts", normals, turns, thin, optimize=True)).mean(axis=1)


def _turns() -> np.ndarray:
    """``[24, 3, 3]``: all ways to permute and flip axes, up to flipping all three; identity first, simple ones next."""
    signs = ((1.0, 1.0, 1.0), (1.0, 1.0, -1.0), (1.0, -1.0, 1.0), (-1.0, 1.0, 1.0))
    orders = itertools.permutations(range(3))
    matrices = [np.diag(flips) @ np.eye(3)[list(order)] for order in orders for flips in signs]
    matrices.sort(key=lambda m: (-np.count_nonzero(np.diag(m)), np.count_nonzero(m < 0), m[1, 2] == 0))
    return np.stack(matrices)


def _name(turn: np.ndarray) -> str:
    """``"(x, z, y)"`` of a signed permutation: what each new axis was before."""
    letters = (("-" if row.sum() < 0 else "") + "xyz"[np.abs(row).argmax()] for row in turn)
    return f"({', '.join(letters)})"
