"""First guesses for a fit: exactly n gaussians from a mesh, from a coloured point cloud, or at random.

From surfaces and points the guess is a clustering: dense samples are thinned to n seeds that lie evenly in position,
normal and colour, every sample joins its nearest seed, and each cluster becomes one flat gaussian with the mean, the
spread and the mean colour of its members. So gaussians keep to one side of a thin wall, to their side of an edge in
the texture, and inside narrow parts.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .. import geometry
from ..formats import PointCloud
from ..meshes import Mesh
from ..splats import Splats

MAX_COUNT = 2**20  # gaussians in one fit
_PER_CLUSTER = 16  # surface samples for each gaussian
_NORMAL_WEIGHT = 0.5  # how far apart opposite normals lie, in sample spacings, when seeds are spread
_COLOR_WEIGHT = 3.0  # how far apart black and white lie, in sample spacings
_GREY = 0.4  # colour of points without one, as in Uni3D
_SPREAD = 1.5  # standard deviation of a gaussian over that of its cluster: gaussians overlap and leave no holes
_OPACITY = 0.9
_FLATNESS = 0.1  # thickness over spread


def check_count(n: int) -> None:
    """Raise ValueError unless ``n`` gaussians can be fitted."""
    if isinstance(n, bool) or not isinstance(n, int) or not 4 <= n <= MAX_COUNT:
        raise ValueError(f"n must be a whole number of gaussians in 4..{MAX_COUNT:,}, got {n!r}")


def init_from_mesh(mesh: Mesh, n: int, *, seed: int = 0, sh_degree: int = 0) -> Splats:
    """Cover a mesh, which must have an area, with ``n`` flat gaussians of opacity 0.9.

    Args:
        n: how many, 4 to 2^20, else ValueError.
        seed: same seed, same gaussians.
        sh_degree: 0 to 3; higher coefficients start at zero.
    """
    check_count(n)
    samples = mesh.sample(_PER_CLUSTER * n, np.random.default_rng(seed))
    splats = _cluster(samples.points, samples.normals, samples.colors, n)
    return replace(splats, up_axis=mesh.up_axis, source=mesh.source).with_sh_degree(sh_degree)


def init_from_points(cloud: PointCloud, n: int, *, seed: int = 0, sh_degree: int = 0) -> Splats:
    """Cover a coloured point cloud with ``n`` flat gaussians of opacity 0.9; up is unknown.

    Normals that the cloud lacks come from the plane through 12 neighbours. A cloud with fewer than ``n`` points is
    filled up with points half way between neighbours.

    Args:
        cloud: at least 4 points, all finite, else ValueError; without colours all are grey (0.4).
        n, seed, sh_degree: as in `init_from_mesh`.
    """
    check_count(n)
    points = cloud.points.detach().cpu().numpy().astype(np.float32)
    if len(points) < 4 or not np.isfinite(points).all() or not np.ptp(points, axis=0).max() > 0:
        raise ValueError(f"a point cloud needs at least 4 finite points that differ, got {len(points)}; clean it first")
    colors = np.full_like(points, _GREY) if cloud.colors is None else cloud.colors.detach().cpu().numpy()
    normals = None if cloud.normals is None else cloud.normals.detach().cpu().numpy()
    rng = np.random.default_rng(seed)
    if len(points) > _PER_CLUSTER * n:
        keep = np.sort(rng.choice(len(points), _PER_CLUSTER * n, replace=False))
        points, colors, normals = points[keep], colors[keep], None if normals is None else normals[keep]
    points, colors, normals = _fill_up(points, colors, normals, n, rng)
    splats = _cluster(points, _plane_normals(points) if normals is None else normals, colors, n)
    return replace(splats, source="point cloud").with_sh_degree(sh_degree)


def init_from_splats(splats: Splats, n: int, *, seed: int = 0, sh_degree: int = 0) -> Splats:
    """Cover what splats cover with ``n`` gaussians, from points drawn out of them by opacity and visible area.

    Args:
        splats: at least one visible gaussian, all finite, else ValueError; may be fewer than ``n``.
        n, seed, sh_degree: as in `init_from_mesh`.
    """
    check_count(n)
    chosen = splats.detach().to("cpu").subsample(_PER_CLUSTER * n, seed=seed, replacement=True)
    points = geometry.points_within(chosen.means, chosen.quats, chosen.scales, seed=seed)  # [P, 3]
    thin = chosen.scales.argmin(dim=1)
    normals = geometry.quat_to_rotmat(chosen.quats).gather(2, thin[:, None, None].expand(-1, 3, 1))[:, :, 0]
    normals = torch.where(normals[:, :1] < 0, -normals, normals)
    init = _cluster(points.numpy(), normals.numpy(), chosen.colors.clamp(0, 1).numpy(), n)
    return replace(init, up_axis=splats.up_axis, source=splats.source).with_sh_degree(sh_degree).to(splats.device)


def init_random(low: np.ndarray | Tensor, high: np.ndarray | Tensor, n: int, *, seed: int = 0) -> Splats:
    """``n`` round grey gaussians of opacity 0.1, evenly at random in a box: the baseline that knows nothing.

    Args:
        low, high: corners of the box ``[3]``, with some size, else ValueError.
        n, seed: as in `init_from_mesh`.
    """
    check_count(n)
    corner, far = (np.asarray(c, np.float64) for c in (low, high))
    size = far - corner if corner.shape == far.shape == (3,) else np.zeros(0)
    if size.shape != (3,) or not np.isfinite(size).all() or not (size >= 0).all() or not size.max() > 0:
        raise ValueError(f"the box must have finite corners [3] with low <= high and some size, got {low} and {high}")
    rng = np.random.default_rng(seed)
    means = corner + rng.random((n, 3)) * size
    gap = float(np.prod(size.clip(0.01 * size.max())) / n) ** (1 / 3)
    return Splats.from_colors(
        torch.from_numpy(means.astype(np.float32)),
        torch.from_numpy((0.5 + 0.1 * rng.standard_normal((n, 3))).astype(np.float32)),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        scales=torch.full((n, 3), 0.5 * gap),
        opacities=torch.full((n,), 0.1),
        source="random",
    )


def _cluster(points: np.ndarray, normals: np.ndarray, colors: np.ndarray, n: int) -> Splats:
    """One gaussian for each of ``n`` clusters of the samples ``[P, 3]``, P >= n."""
    gap = _spacing(points, n)
    features = np.concatenate([points, gap * _NORMAL_WEIGHT * normals, gap * _COLOR_WEIGHT * colors], axis=1)
    features = np.ascontiguousarray(features, np.float32)  # [P, 9]
    seeds = _thin(features, n)
    owner = cKDTree(features[seeds], balanced_tree=False, compact_nodes=False).query(features)[1]
    owner[seeds] = np.arange(n)  # each keeps at least itself, also where points coincide
    counts = np.bincount(owner, minlength=n).astype(np.float64)
    centers = _means_of(owner, features, counts)
    means, axes = centers[:, :3], centers[:, 3:6]
    offsets = points - means[owner]
    outer = (offsets[:, :, None] * offsets[:, None, :]).reshape(-1, 9)
    spreads = _means_of(owner, outer, counts).reshape(-1, 3, 3)
    rotations, scales = _flat_frames(spreads, axes, counts, gap)
    return Splats.from_colors(
        torch.from_numpy(means.astype(np.float32)),
        torch.from_numpy((centers[:, 6:] / (gap * _COLOR_WEIGHT)).astype(np.float32)),
        quats=geometry.rotmat_to_quat(torch.from_numpy(rotations)).float(),
        scales=torch.from_numpy(scales.astype(np.float32)),
        opacities=torch.full((n,), _OPACITY),
    )


def _flat_frames(
    spreads: np.ndarray, axes: np.ndarray, counts: np.ndarray, gap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations ``[n, 3, 3]`` with the normal as third column, and scales ``[n, 3]``, of clusters."""
    # A small even spread in the plane is mixed in, as if of two more members, since few samples measure a spread badly.
    length = np.linalg.norm(axes, axis=1, keepdims=True)
    normal = np.where(length > 1e-12, axes / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    helper = np.eye(3)[np.abs(normal).argmin(axis=1)]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    plane = np.stack([first, np.cross(normal, first)], axis=2)  # [n, 3, 2]
    even = (0.25 * gap) ** 2
    inside = np.einsum("nij,nik,nkl->njl", plane, spreads, plane)  # [n, 2, 2]
    inside = (inside * counts[:, None, None] + 2 * even * np.eye(2)) / (counts[:, None, None] + 2)
    values, vectors = np.linalg.eigh(inside)
    turned = plane @ vectors  # [n, 3, 2]
    third = np.cross(turned[:, :, 0], turned[:, :, 1])
    rotations = np.concatenate([turned, third[:, :, None]], axis=2)
    across = np.einsum("ni,nij,nj->n", normal, spreads, normal)
    in_plane = _SPREAD * np.sqrt(values.clip(1e-4 * even))
    thick = np.sqrt(across.clip(0)) + _FLATNESS * in_plane.min(axis=1)
    scales = np.concatenate([in_plane, np.minimum(thick, in_plane.max(axis=1))[:, None]], axis=1)
    return rotations, scales


def _means_of(owner: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of the rows ``values [P, D]`` of each owner ``[n, D]``, float64."""
    columns = [np.bincount(owner, weights=values[:, d], minlength=len(counts)) for d in range(values.shape[1])]
    return np.stack(columns, axis=1) / counts[:, None]


def _spacing(points: np.ndarray, n: int) -> float:
    """Distance of neighbours if ``n`` of the ``points`` were spread evenly: from a thinning by position alone."""
    few = points[_thin(np.ascontiguousarray(points, np.float32), n)]
    nearest = cKDTree(few).query(few, k=2)[0][:, 1]
    return max(float(np.median(nearest)), 1e-6 * float(np.ptp(points, axis=0).max()))


def _plane_normals(points: np.ndarray, k: int = 12) -> np.ndarray:
    """Unit normals ``[P, 3]`` of the planes through k neighbours; their sign means nothing, so they point up in x."""
    k = min(k, len(points))
    index = cKDTree(points).query(points, k=k)[1]
    offsets = points[index] - points[index].mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("pki,pkj->pij", offsets, offsets))[1][:, :, 0]
    return np.where(normals[:, :1] < 0, -normals, normals).astype(np.float32)


def _fill_up(
    points: np.ndarray, colors: np.ndarray, normals: np.ndarray | None, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Add points between neighbours until there are at least ``n``."""
    while len(points) < n:
        missing = min(n - len(points), len(points))
        chosen = rng.permutation(len(points))[:missing]
        index = cKDTree(points).query(points[chosen], k=min(4, len(points)))[1]
        partner = index[np.arange(missing), rng.integers(1, index.shape[1], missing)]
        points = np.concatenate([points, (points[chosen] + points[partner]) / 2])
        colors = np.concatenate([colors, (colors[chosen] + colors[partner]) / 2])
        if normals is not None:
            normals = np.concatenate([normals, normals[chosen]])
    return points, colors, normals


def _thin(points: np.ndarray, n: int) -> np.ndarray:
    """Indices ``[n]``, all different, of farthest points of ``points [P, D]``; the first is farthest from the mean."""
    return geometry.farthest_points(torch.from_numpy(points)[None], n)[0].numpy()
