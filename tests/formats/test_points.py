"""Point-cloud PLY files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipgs_lib.formats import read_points, sniff
from clipgs_lib.formats.raw import FormatError, SplatWarning

from .ply_samples import ply_bytes, stored_columns

XYZ = {"x": np.array([0.0, 1.0, 2.0]), "y": np.array([3.0, 4.0, 5.0]), "z": np.array([6.0, 7.0, 8.0])}
POINTS = torch.tensor([[0.0, 3, 6], [1, 4, 7], [2, 5, 8]])
RGB = {"red": np.array([0, 128, 255]), "green": np.array([255, 0, 1]), "blue": np.array([9, 8, 7])}


def same(values: torch.Tensor | None, want: torch.Tensor) -> bool:
    return values is not None and torch.equal(values, want)


@pytest.fixture
def save(tmp_path):
    def write(*arguments, **options):
        path = tmp_path / "x.ply"
        path.write_bytes(ply_bytes(*arguments, **options))
        return path

    return write


def test_real_owl(real_data):
    path = real_data / "pointclouds" / "openshape_owl.ply"
    assert sniff(path) == "points"
    cloud = read_points(path)
    rows = np.loadtxt(path.read_text().split("end_header\n")[1].splitlines())
    np.testing.assert_allclose(cloud.points.numpy(), rows[:, :3], rtol=1e-6)
    assert cloud.colors is not None and cloud.normals is None
    np.testing.assert_allclose(cloud.colors.numpy(), rows[:, 3:] / 255, rtol=1e-6)
    assert cloud.points.dtype == cloud.colors.dtype == torch.float32


@pytest.mark.parametrize("order", ["<", ">", ""])
def test_byte_colours_normals_and_faces(save, order):
    normals = {"nx": np.zeros(3), "ny": np.ones(3), "nz": np.zeros(3)}
    face = b"1 0\n" if order == "" else b"\x01" + bytes(4)
    after = (b"element face 1\nproperty list uchar int vertex_indices\n", face)
    path = save(XYZ | normals | RGB, types=dict.fromkeys(RGB, "uchar") | {"x": "double"}, order=order, after=after)
    cloud = read_points(path)
    assert torch.equal(cloud.points, POINTS)
    assert cloud.colors is not None
    torch.testing.assert_close(cloud.colors[:, 0], torch.tensor([0, 128 / 255, 1]))
    assert same(cloud.normals, torch.tensor([[0.0, 1, 0]] * 3))


def test_without_colours(save):
    cloud = read_points(save(XYZ))
    assert torch.equal(cloud.points, POINTS) and cloud.colors is None and cloud.normals is None


@pytest.mark.parametrize("names", [("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")])
def test_float_colours_of_either_range(save, names):
    colors = np.array([[0.0, 0.5, 1.0]] * 3)
    unit = read_points(save(XYZ | dict(zip(names, colors.T, strict=True))))
    assert same(unit.colors, torch.tensor([[0.0, 0.5, 1.0]] * 3))
    wide = read_points(save(XYZ | dict(zip(names, 255 * colors.T, strict=True))))
    assert same(wide.colors, torch.tensor([[0.0, 0.5, 1.0]] * 3))


def test_sixteen_bit_colours(save):
    path = save(XYZ | dict.fromkeys(RGB, np.full(3, 32767)), types=dict.fromkeys(RGB, "short"))
    assert same(read_points(path).colors, torch.ones(3, 3))


def test_points_that_are_not_finite_are_dropped_and_counted(save):
    with pytest.warns(SplatWarning, match="dropped 1 points of 3 that are not finite"):
        cloud = read_points(save(XYZ | {"x": np.array([0, np.nan, 2])} | RGB, types=dict.fromkeys(RGB, "uchar")))
    assert torch.equal(cloud.points, POINTS[[0, 2]]) and cloud.colors is not None and len(cloud.colors) == 2


def test_an_empty_cloud(save):
    assert read_points(save({name: np.empty(0) for name in [*XYZ, *RGB]})).points.shape == (0, 3)


@pytest.mark.parametrize(
    ("columns", "types", "message"),
    [
        ({"x": XYZ["x"], "y": XYZ["y"]}, {}, "must have properties x, y, z, got x, y"),
        (
            XYZ | {n: np.full(3, v) for n, v in zip(RGB, (0, 0, -1), strict=True)},
            {},
            r"must lie in 0\.\.1, got -1\.\.0",
        ),
        (XYZ | dict.fromkeys(RGB, np.full(3, 300.0)), {}, r"must lie in 0\.\.255, got 300\.\.300"),
        (XYZ | dict.fromkeys(RGB, np.full(3, np.nan)), {}, "colours must lie in"),
        (XYZ | RGB, {"red": "uchar"}, "must have one type, got u1, f4, f4"),
    ],
)
def test_clouds_that_make_no_sense(save, columns, types, message):
    with pytest.raises(FormatError, match=message) as caught:
        read_points(save(columns, types=types))
    assert caught.value.todo


def test_gaussians_are_pointed_to_read_splats(save, splats_factory):
    with pytest.raises(FormatError, match="must hold a point cloud, got gaussians; read it with read_splats"):
        read_points(save(stored_columns(splats_factory(3))))


def test_what_is_no_ply(tmp_path):
    (tmp_path / "x.ply").write_bytes(b"solid stl")
    with pytest.raises(FormatError, match="must start with a line `ply`, got b'solid stl'"):
        read_points(tmp_path / "x.ply")
