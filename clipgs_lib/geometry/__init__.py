"""Quaternions, spherical harmonics and similarity transforms; sampling and neighbours of points; orders of points.

`rotations` holds the conventions of quaternions and SH, `sampling` farthest points and nearest neighbours, `orders`
space-filling curves. All are functions of tensors and know nothing of splats.
"""

from .orders import ORDERS
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
from .sampling import farthest_points, nearest, points_within
