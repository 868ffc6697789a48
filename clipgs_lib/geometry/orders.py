"""Orders of points along a line: by x, y, z; along the Hilbert curve; along the Z-order (Morton) curve.

CLIP-GS sorts the gaussians of a patch in these three ways, so that a convolution along the sequence sees neighbours
in space (paper, GS Tokenizer). Points are first put on a grid of ``2 ** bits`` cells a side that fits their box.
The cells are cubes: one scale for all three axes, so that the curve's notion of near is that of space.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

BITS = 10  # of each axis in a key: 1,024 cells a side
MAX_BITS = 20  # three of them fit an int64
CURVE_BITS = 20  # of each axis in the keys that decide ties among equally far points


def xyz_keys(cells: Tensor, bits: int = BITS) -> Tensor:
    """Rank ``[...]`` in ``[0, 8 ** bits)`` of cells ``[..., 3]`` int64 in ``[0, 2 ** bits)`` by x, then y, then z."""
    x, y, z = cells.unbind(-1)
    return (x << (2 * bits)) | (y << bits) | z


def z_keys(cells: Tensor, bits: int = BITS) -> Tensor:
    """Rank along the Z-order curve, shapes as in `xyz_keys`: the bits interleaved, x the most significant of three."""
    x, y, z = (_spread(axis) for axis in cells.unbind(-1))
    return (x << 2) | (y << 1) | z


def hilbert_keys(cells: Tensor, bits: int = BITS) -> Tensor:
    """Rank along the Hilbert curve, shapes as in `xyz_keys`: consecutive ranks are cells that share a face.

    Follows Hamilton (2006), "Compact Hilbert indices": one octant a level, from the coarsest, with a table of the
    curve's 24 orientations.
    """
    ranks, following = (table.to(cells.device) for table in _hilbert_tables())
    octants = z_keys(cells, bits)
    state = torch.zeros_like(octants)
    keys = torch.zeros_like(octants)
    for level in range(bits - 1, -1, -1):
        at = state * 8 + ((octants >> (3 * level)) & 7)
        keys = (keys << 3) | ranks[at]
        state = following[at]
    return keys


def curve_order(points: Tensor, keys: Callable[[Tensor, int], Tensor], bits: int = BITS) -> Tensor:
    """Sort each set of points by a key of its grid cell; points of one cell keep their order.

    Args:
        points: ``[..., M, 3]`` finite, else ValueError; the grid fits the box of the M points.
        keys: one of `xyz_keys`, `z_keys`, `hilbert_keys`.
        bits: 1 to 20; the grid has ``2 ** bits`` cells a side.

    Returns:
        ``[..., M]`` int64: the i-th of the sorted points is ``points[..., order[..., i], :]``.
    """
    return keys(grid_cells(points, bits), bits).argsort(dim=-1, stable=True)


ORDERS = {  # from points ``[..., M, 3]`` to their order ``[..., M]``
    "xyz": partial(curve_order, keys=xyz_keys),
    "hilbert": partial(curve_order, keys=hilbert_keys),
    "z": partial(curve_order, keys=z_keys),
}


def grid_cells(points: Tensor, bits: int = BITS) -> Tensor:
    """Cells ``[..., M, 3]`` int64 in ``[0, 2 ** bits)`` of points on the cubic grid that fits the box of each set.

    Raises:
        ValueError: when ``points`` is not ``[..., M, 3]`` or ``bits`` is out of range.
    """
    if points.ndim < 2 or points.shape[-1] != 3:
        raise ValueError(f"points must have shape [..., M, 3], got {list(points.shape)}")
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must lie in 1..{MAX_BITS}, got {bits}")
    if points.shape[-2] == 0:
        return torch.zeros(points.shape, dtype=torch.int64, device=points.device)
    low = points.amin(dim=-2, keepdim=True)
    size = (points.amax(dim=-2, keepdim=True) - low).amax(dim=-1, keepdim=True)
    fractions = (points - low) / size.clamp_min(torch.finfo(points.dtype).tiny)
    return (fractions * 2**bits).long().clamp(0, 2**bits - 1)


def _spread(values: Tensor) -> Tensor:
    """Move bit i to bit 3 i, for the lowest 21 bits."""
    values = (values | (values << 32)) & 0x1F00000000FFFF
    values = (values | (values << 16)) & 0x1F0000FF0000FF
    values = (values | (values << 8)) & 0x100F00F00F00F00F
    values = (values | (values << 4)) & 0x10C30C30C30C30C3
    return (values | (values << 2)) & 0x1249249249249249


@lru_cache(maxsize=1)
def _hilbert_tables() -> tuple[Tensor, Tensor]:
    """For orientation s and octant o, at ``8 s + o``: the octant's rank, and the orientation inside (``[192]`` each).

    An orientation is the corner where the curve enters (3 bits) and the axis along which it leaves.
    """

    def turn(value: int, by: int) -> int:  # 3 bits, to the left
        by %= 3
        return ((value << by) | (value >> (3 - by))) & 7

    ranks, following = [], []
    for orientation in range(24):
        entry, axis = divmod(orientation, 3)
        for octant in range(8):
            gray = turn(octant ^ entry, -(axis + 1))
            rank = gray ^ (gray >> 1) ^ (gray >> 2)
            even = max(0, (rank - 1) // 2 * 2)
            inner_entry = even ^ (even >> 1) if rank else 0
            odd = rank if rank % 2 else rank - 1
            inner_axis = (~odd & (odd + 1)).bit_length() - 1 if rank else 0  # number of trailing ones
            ranks.append(rank)
            following.append((entry ^ turn(inner_entry, axis + 1)) * 3 + (axis + inner_axis + 1) % 3)
    return torch.tensor(ranks), torch.tensor(following)
