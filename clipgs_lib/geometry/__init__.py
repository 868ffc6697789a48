"""Quaternions, spherical harmonics and similarity transforms; sampling and neighbours of points; orders of points.

`rotations` holds the conventions of quaternions and SH, `sampling` farthest points and nearest neighbours, `orders`
space-filling curves. All are functions of tensors and know nothing of splats.
"""

from __future__ import annotations

from .orders import ORDERS, curve_order, hilbert_keys, hilbert_order, xyz_keys, xyz_order, z_keys, z_order
from .rotations import (
    MAX_SH_DEGREE,
    SH_C0,
    SH_C1,
    SH_C2,
    SH_C3,
    quat_multiply,
    quat_to_rotmat,
    rotate_sh,
    rotation_about,
    rotmat_to_quat,
    sh_basis,
    sh_rotation,
    split_similarity,
)
from .sampling import farthest_points, nearest

__all__ = [
    "MAX_SH_DEGREE",
    "ORDERS",
    "SH_C0",
    "SH_C1",
    "SH_C2",
    "SH_C3",
    "curve_order",
    "farthest_points",
    "hilbert_keys",
    "hilbert_order",
    "nearest",
    "quat_multiply",
    "quat_to_rotmat",
    "rotate_sh",
    "rotation_about",
    "rotmat_to_quat",
    "sh_basis",
    "sh_rotation",
    "split_similarity",
    "xyz_keys",
    "xyz_order",
    "z_keys",
    "z_order",
]
