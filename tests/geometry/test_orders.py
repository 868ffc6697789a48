"""Orders of points: the Z-order curve against interleaved bits, the Hilbert curve against its defining properties."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch

from clipgs_lib.geometry import ORDERS
from clipgs_lib.geometry.orders import curve_order, grid_cells, hilbert_keys, xyz_keys, z_keys

xyz_order, z_order, hilbert_order = ORDERS["xyz"], ORDERS["z"], ORDERS["hilbert"]


def full_grid(bits: int) -> torch.Tensor:
    axis = torch.arange(2**bits)
    return torch.cartesian_prod(axis, axis, axis)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("keys", [hilbert_keys, z_keys, xyz_keys])
def test_a_curve_visits_each_cell_once(bits, keys):
    ranks = keys(full_grid(bits), bits)
    assert torch.equal(ranks.sort().values, torch.arange(8**bits))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_steps_of_the_hilbert_curve_cross_one_face(bits):
    cells = full_grid(bits)
    path = cells[hilbert_keys(cells, bits).argsort()]
    assert ((path[1:] - path[:-1]).abs().sum(dim=1) == 1).all()


@pytest.mark.parametrize("keys", [hilbert_keys, z_keys])
def test_a_coarser_curve_is_the_finer_one_seen_from_afar(keys):
    """The cells of one coarse cell follow each other: what makes the curves local."""
    fine = full_grid(4)
    blocks = (keys(fine, 4) >> 3).view(2**4, 2**4, 2**4)
    inner = blocks.unfold(0, 2, 2).unfold(1, 2, 2).unfold(2, 2, 2).reshape(8, 8, 8, 8)
    assert (inner == inner[..., :1]).all()


def copies(path: torch.Tensor, side: int) -> list[list[list[int]]]:
    """A path through a cube of cells in all 48 positions of the cube."""
    found = []
    for axes in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            turned = path[:, list(axes)]
            found.append(torch.where(torch.tensor(flips), side - 1 - turned, turned).tolist())
    return found


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_hilbert_curve_consists_of_eight_smaller_ones(bits):
    """Its recursive definition: in each octant a turned copy of itself, one level less; `copies` of one octant."""
    cells, half = full_grid(bits), 2 ** (bits - 1)
    path = cells[hilbert_keys(cells, bits).argsort()].view(8, -1, 3)
    smaller = full_grid(bits - 1)
    wanted = copies(smaller[hilbert_keys(smaller, bits - 1).argsort()], half)
    for part in path:
        corner = part.amin(dim=0)
        assert (corner % half == 0).all()
        assert (part - corner).tolist() in wanted


def test_z_order_interleaves_bits():
    generator = torch.Generator().manual_seed(0)
    for bits in (1, 5, 10, 20):
        cells = torch.randint(0, 2**bits, (50, 3), generator=generator)
        wanted = []
        for x, y, z in cells.tolist():
            digits = zip(*(f"{value:0{bits}b}" for value in (x, y, z)), strict=True)
            wanted.append(int("".join("".join(digit) for digit in digits), 2))
        assert z_keys(cells, bits).tolist() == wanted


def test_xyz_order_is_lexicographic():
    points = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 1]]).float()
    assert xyz_order(points).tolist() == sorted(range(6), key=lambda i: points[i].tolist())


@pytest.mark.parametrize("name", ORDERS)
def test_orders_are_of_coordinates_and_not_of_places(name):
    points = torch.randn(4, 5, 40, 3, generator=torch.Generator().manual_seed(1))
    order = ORDERS[name](points)
    assert order.shape == (4, 5, 40)
    assert torch.equal(order.sort(dim=-1).values, torch.arange(40).expand(4, 5, 40))
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    again = ORDERS[name](points[:, :, shuffle])
    first = points.take_along_dim(order[..., None], dim=-2)
    second = points[:, :, shuffle].take_along_dim(again[..., None], dim=-2)
    assert torch.equal(first, second)
    moved = ORDERS[name](points * 4 + 8)  # powers of two, so that cells stay the same
    assert (moved == order).double().mean() > 0.99


@pytest.mark.parametrize("order", [hilbert_order, z_order])
def test_curves_keep_neighbours_together(order):
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(3))
    steps = points[order(points)].diff(dim=0).norm(dim=1).mean()
    along_x = points[xyz_order(points)].diff(dim=0).norm(dim=1).mean()
    assert steps < 0.3 * along_x


def test_points_of_one_cell_keep_their_order():
    points = torch.zeros(3, 7, 3)
    points[1, :, 0] = torch.tensor([0, 1, 0, 1, 0, 1, 0.0])
    assert hilbert_order(points)[0].tolist() == list(range(7))
    assert xyz_order(points)[1].tolist() == [0, 2, 4, 6, 1, 3, 5]
    assert z_order(torch.zeros(2, 0, 3)).shape == (2, 0)


def test_cells_are_cubes_in_the_points_own_box():
    points = torch.tensor([[0.0, 0, 0], [8, 4, 0], [4, 1, 0]])
    assert grid_cells(points, 3).tolist() == [[0, 0, 0], [7, 4, 0], [4, 1, 0]]


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(ValueError, match=r"points must have shape \[\.\.\., M, 3\], got \[5, 2\]"):
        z_order(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"bits must lie in 1\.\.20, got 21"):
        curve_order(torch.zeros(5, 3), z_keys, 21)
