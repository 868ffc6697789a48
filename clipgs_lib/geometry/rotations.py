"""Quaternions, spherical harmonics and similarity transforms, as pure tensor functions.

Conventions, used everywhere in the library:

* quaternions are ``wxyz`` and active: ``x_world = R(q) @ x_local``;
* spherical harmonics are real, in the order and with the signs of 3D Gaussian splatting
  (Kerbl et al. 2023; the same as ``gsplat`` and the INRIA PLY files), evaluated at the unit
  direction *from the camera to the gaussian*;
* a colour is ``max(0, 0.5 + sum_k sh[k] * Y_k(direction))``.
"""

import torch
from torch import Tensor

SH_C0 = 0.28209479177387814
SH_C1 = 0.4886025119029199
SH_C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
SH_C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)
MAX_SH_DEGREE = 3


def quat_to_rotmat(quats: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of ``quats [..., 4]`` wxyz of any non-zero length; ``q`` and ``-q`` agree."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def rotmat_to_quat(rotmats: Tensor) -> Tensor:
    """Unit quaternions ``[..., 4]`` wxyz with ``w >= 0`` of rotation matrices ``[..., 3, 3]`` with determinant +1.

    Picks, per matrix, the largest of the four quaternion components to divide by, so it is
    accurate for every rotation, half turns included.
    """
    m = rotmats
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    candidates = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, a, b, c], dim=-1),
            torch.stack([a, 1 + m00 - m11 - m22, d, e], dim=-1),
            torch.stack([b, d, 1 - m00 + m11 - m22, f], dim=-1),
            torch.stack([c, e, f, 1 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )  # [..., 4, 4]
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(dim=-1)
    index = best[..., None, None].expand(*best.shape, 1, 4)
    quats = torch.nn.functional.normalize(candidates.gather(-2, index).squeeze(-2), dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product ``a * b`` of ``[..., 4]`` wxyz, which broadcast: rotate by ``b`` first, then by ``a``."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def rotation_about(axis: str, degrees: float) -> Tensor:
    """Rotation matrix ``[3, 3]`` (float64) about ``"x"``, ``"y"`` or ``"z"``, right-handed; ValueError for others."""
    if axis not in ("x", "y", "z"):
        raise ValueError(f'axis must be "x", "y" or "z", got {axis!r}')
    angle = torch.deg2rad(torch.tensor(float(degrees), dtype=torch.float64))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out = torch.eye(3, dtype=torch.float64)
    out[i, i] = out[j, j] = torch.cos(angle)
    out[i, j], out[j, i] = -torch.sin(angle), torch.sin(angle)
    return out


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Values ``[..., (degree + 1) ** 2]`` of the real spherical harmonics of ``degree`` 0 to 3, else ValueError.

    ``directions`` are unit vectors ``[..., 3]`` from the camera to the gaussian.
    """
    if not 0 <= degree <= MAX_SH_DEGREE:
        raise ValueError(f"degree must be 0, 1, 2 or 3, got {degree}")
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, SH_C0)]
    if degree > 0:
        values += [-SH_C1 * y, SH_C1 * z, -SH_C1 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            SH_C2[0] * x * y, SH_C2[1] * y * z, SH_C2[2] * (2 * zz - xx - yy),
            SH_C2[3] * x * z, SH_C2[4] * (xx - yy),
        ]  # fmt: skip
    if degree > 2:
        values += [
            SH_C3[0] * y * (3 * xx - yy), SH_C3[1] * x * y * z, SH_C3[2] * y * (4 * zz - xx - yy),
            SH_C3[3] * z * (2 * zz - 3 * xx - 3 * yy), SH_C3[4] * x * (4 * zz - xx - yy),
            SH_C3[5] * z * (xx - yy), SH_C3[6] * x * (xx - 3 * yy),
        ]  # fmt: skip
    return torch.stack(values, dim=-1)


def sh_rotation(rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices float64 ``[3, 3]``, ``[5, 5]``, ``[7, 7]`` that rotate SH coefficients of degree 1, 2, 3: ``D_l @ old``.

    A rotated object looks, from direction ``d``, as the original did from ``R^T d``; each band
    maps to itself. The band matrix is the exact solution of
    ``Y_l(d) @ D_l = Y_l(R^T d)`` over 64 directions, so it cannot disagree with ``sh_basis``.
    The ``rotation [3, 3]`` is orthogonal; reflections are valid input too.
    """
    i = torch.arange(64, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / 64
    angle = i * torch.pi * (3 - 5**0.5)
    r = (1 - z * z).sqrt()
    directions = torch.stack([r * angle.cos(), r * angle.sin(), z], dim=-1)  # a Fibonacci sphere
    original = sh_basis(directions, MAX_SH_DEGREE)  # [64, 16]
    turned = sh_basis(directions @ rotation.detach().double().cpu(), MAX_SH_DEGREE)  # row-wise R^T d
    bands = [slice(1, 4), slice(4, 9), slice(9, 16)]
    solved = [torch.linalg.lstsq(original[:, b], turned[:, b]).solution for b in bands]
    return solved[0], solved[1], solved[2]


def rotate_sh(shN: Tensor, rotation: Tensor) -> Tensor:
    """The view-dependent colours ``[N, K-1, 3]``, K-1 in 0, 3, 8, 15, turned by an orthogonal ``rotation [3, 3]``."""
    turn = torch.block_diag(*sh_rotation(rotation)).to(shN)[: shN.shape[1], : shN.shape[1]]
    return torch.einsum("ij,njc->nic", turn, shN)


def split_similarity(matrix: Tensor) -> tuple[float, Tensor, Tensor]:
    """Split an affine ``[4, 4]`` into scale ``> 0``, orthogonal part ``[3, 3]`` and translation ``[3]``, float64.

    The orthogonal part has determinant -1 for a reflection. Singular, sheared or uneven ones are a ValueError.
    """
    if tuple(matrix.shape) != (4, 4):
        raise ValueError(f"matrix must have shape [4, 4], got {list(matrix.shape)}")
    matrix = matrix.detach().double().cpu()
    linear = matrix[:3, :3]
    scale = float(torch.linalg.det(linear).abs() ** (1 / 3))
    if not scale > 1e-12 or not torch.isfinite(matrix).all():
        raise ValueError("matrix must be finite and invertible, got a singular or non-finite 3x3 part")
    orthogonal = linear / scale
    error = float((orthogonal @ orthogonal.T - torch.eye(3, dtype=torch.float64)).abs().max())
    if error > 1e-4:
        raise ValueError(
            f"matrix must be a similarity (rotation, uniform scale, translation), got one that departs by {error:.2g}; "
            "spherical harmonics have no exact image under shear or uneven scaling"
        )
    return scale, orthogonal, matrix[:3, 3]
