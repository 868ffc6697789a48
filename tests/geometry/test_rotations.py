"""Quaternions, SH rotation and similarity splitting, against independent formulas."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from clipgs_lib import geometry


def random_quats(n: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, 4, generator=g, dtype=torch.float64), dim=-1)


def test_rotation_matrices_equal_scipys():
    quats = random_quats(200)
    ours = geometry.quat_to_rotmat(quats)
    theirs = torch.from_numpy(Rotation.from_quat(quats.numpy(), scalar_first=True).as_matrix())
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.equal(ours, geometry.quat_to_rotmat(-quats))
    assert torch.allclose(ours, geometry.quat_to_rotmat(7 * quats), atol=1e-12)


@pytest.mark.parametrize("quat", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1e-9, 0.6, 0.0, 0.8]])
def test_half_turns_survive_the_round_trip(quat):
    matrix = geometry.quat_to_rotmat(torch.tensor(quat, dtype=torch.float64))
    again = geometry.quat_to_rotmat(geometry.rotmat_to_quat(matrix))
    assert torch.allclose(matrix, again, atol=1e-12)


def test_rotmat_round_trip_and_sign():
    quats = random_quats(500, 1)
    back = geometry.rotmat_to_quat(geometry.quat_to_rotmat(quats))
    assert (back[:, 0] >= 0).all()
    assert torch.allclose((back * quats).sum(1).abs(), torch.ones(500, dtype=torch.float64), atol=1e-12)


def test_multiply_composes_rotations():
    a, b = random_quats(50, 2), random_quats(50, 3)
    product = geometry.quat_to_rotmat(geometry.quat_multiply(a, b))
    assert torch.allclose(product, geometry.quat_to_rotmat(a) @ geometry.quat_to_rotmat(b), atol=1e-12)


def test_rotation_about_is_right_handed():
    for axis, start, end in (("x", 1, 2), ("y", 2, 0), ("z", 0, 1)):
        turned = geometry.rotation_about(axis, 90) @ torch.eye(3, dtype=torch.float64)[start]
        assert torch.allclose(turned, torch.eye(3, dtype=torch.float64)[end], atol=1e-12)
    with pytest.raises(ValueError, match='axis must be "x", "y" or "z"'):
        geometry.rotation_about("w", 90)


def test_sh_basis_is_orthonormal():
    """Monte-Carlo over a dense Fibonacci sphere: the Gram matrix is the identity."""
    n = 20000
    i = torch.arange(n, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / n
    angle = i * math.pi * (3 - 5**0.5)
    r = (1 - z * z).sqrt()
    basis = geometry.sh_basis(torch.stack([r * angle.cos(), r * angle.sin(), z], -1), 3)
    gram = 4 * math.pi * basis.T @ basis / n
    assert torch.allclose(gram, torch.eye(16, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rotated_sh_look_as_the_original_did_from_the_turned_direction(degree):
    rotation = geometry.quat_to_rotmat(random_quats(1, 4)[0])
    g = torch.Generator().manual_seed(5)
    coefficients = torch.randn(20, (degree + 1) ** 2 - 1, 3, generator=g, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(20, 3, generator=g, dtype=torch.float64), dim=-1)
    turned = geometry.rotate_sh(coefficients, rotation)
    now = torch.einsum("nk,nkc->nc", geometry.sh_basis(directions, degree)[:, 1:], turned)
    before = torch.einsum("nk,nkc->nc", geometry.sh_basis(directions @ rotation, degree)[:, 1:], coefficients)
    assert torch.allclose(now, before, atol=1e-10)


def test_sh_rotations_compose():
    a, b = (geometry.quat_to_rotmat(q) for q in random_quats(2, 6))
    for left, right, both in zip(
        geometry.sh_rotation(a), geometry.sh_rotation(b), geometry.sh_rotation(a @ b), strict=True
    ):
        assert torch.allclose(left @ right, both, atol=1e-9)


def test_degree_zero_has_nothing_to_rotate():
    empty = torch.zeros(7, 0, 3)
    assert geometry.rotate_sh(empty, torch.eye(3)).shape == (7, 0, 3)


def test_sh_degree_is_checked():
    with pytest.raises(ValueError, match="degree must be 0, 1, 2 or 3, got 4"):
        geometry.sh_basis(torch.zeros(1, 3), 4)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.eye(3), r"shape \[4, 4\]"),
        (torch.zeros(4, 4), "singular"),
        (torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])), "uneven"),
        (torch.full((4, 4), math.nan), "finite"),
    ],
)
def test_only_similarities_pass(matrix, message):
    with pytest.raises(ValueError, match=message):
        geometry.split_similarity(matrix)
