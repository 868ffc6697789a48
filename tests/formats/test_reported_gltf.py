"""Splats of glTF from public bug reports of neighbours, with their right values (cases 5, 14, 15, 16)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import clipgs_lib as cg
from clipgs_lib.geometry import quat_to_rotmat
from clipgs_lib.splats import Splats

from ..conftest import make_splats
from .test_gltf import document, glb


def read(path) -> Splats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cg.read_splats(path)


def covariances(splats: Splats) -> torch.Tensor:
    """``[N, 3, 3]``."""
    M = quat_to_rotmat(splats.quats) * splats.scales[:, None, :]
    return M @ M.transpose(1, 2)


def half_turn(splats: Splats) -> Splats:
    """From the frame of a glTF to that of the PLY, and back."""
    return splats.transform(torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0])))


def assert_alike(a: Splats, b: Splats, tolerance: float) -> None:
    assert len(a) == len(b)
    for name in ("means", "scales", "opacities", "sh0", "shN"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=tolerance, rtol=tolerance, msg=name)
    turn = (a.quats * b.quats).sum(-1).abs()
    torch.testing.assert_close(turn, torch.ones_like(turn), atol=tolerance, rtol=0)


def test_instances_of_splats_in_gltf(cases):
    splats, plain = read(cases / "05_instancing/splats.glb"), half_turn(read(cases / "plain.ply"))
    assert len(splats) == 40
    torch.testing.assert_close(splats.means[20:] - splats.means[:20], torch.tensor([[-10.0, 0, 0]]).expand(20, 3))
    torch.testing.assert_close(splats.means[:20], plain.means, atol=1e-5, rtol=0)


def test_sparse_accessors_of_splats(cases):
    splats, plain = read(cases / "14_sparse/splats.glb"), half_turn(read(cases / "plain.ply"))
    torch.testing.assert_close(splats.means[0], torch.tensor([-9.0, -9.0, 9.0]))
    torch.testing.assert_close(splats.means[1:], plain.means[1:], atol=1e-5, rtol=0)


def test_spz_inside_gltf(cases):
    a, b = read(cases / "15_glb_spz2/spz2.glb"), read(cases / "15_glb_spz2/same.spz")
    assert_alike(a, b, 1e-3)


def test_an_uneven_node_moves_the_covariances(cases):
    splats, plain = read(cases / "16_uneven_node/uneven.glb"), half_turn(read(cases / "plain.ply"))
    A = torch.diag(torch.tensor([1.0, 2.0, 1.0]))
    torch.testing.assert_close(covariances(splats), A @ covariances(plain) @ A.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(splats.means, plain.means @ A.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("degree", [0, 1])
def test_shear_through_a_parent(tmp_path, degree):
    """A turned child under an unevenly scaled parent: covariances follow exactly; SH above degree 0 are warned of."""
    splats = make_splats(20, degree)
    root, binary = document(splats)
    turn = [0.0, 0.0, float(np.sin(0.3)), float(np.cos(0.3))]  # by 0.6 about z
    root["nodes"] = [{"scale": [1, 3, 0.5], "children": [1]}, {"rotation": turn, "mesh": 0}]
    root["scenes"] = [{"nodes": [0]}]
    (tmp_path / "a.glb").write_bytes(glb(root, binary))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        moved = half_turn(cg.read_splats(tmp_path / "a.glb"))
    assert any("SH above degree 0" in str(w.message) for w in caught) is (degree > 0)
    c, s = float(np.cos(0.6)), float(np.sin(0.6))
    A = torch.diag(torch.tensor([1.0, 3.0, 0.5])) @ torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(covariances(moved), A @ covariances(splats) @ A.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved.means, splats.means @ A.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("code", [(5121, np.uint8), (5123, np.uint16), (5125, np.uint32)])
def test_sparse_scales_without_a_buffer_view(tmp_path, code):
    """Zeros everywhere but at the indices, which may be bytes, shorts or ints."""
    splats = make_splats(20, 0)
    root, binary = document(splats)
    binary += b"\0" * (-len(binary) % 4)
    places, values = np.arange(20).astype(code[1]), splats.scales.numpy()
    spots = [len(binary), len(binary) + places.nbytes + (-places.nbytes % 4)]
    binary += places.tobytes() + b"\0" * (-places.nbytes % 4) + values.tobytes()
    root["bufferViews"] += [
        {"buffer": 0, "byteOffset": at, "byteLength": size}
        for at, size in zip(spots, (places.nbytes, values.nbytes), strict=True)
    ]
    last = len(root["bufferViews"])
    root["buffers"][0]["byteLength"] = len(binary)
    index = root["meshes"][0]["primitives"][0]["attributes"]["KHR_gaussian_splatting:SCALE"]
    accessor = root["accessors"][index]
    del accessor["bufferView"]
    accessor["sparse"] = {
        "count": 20,
        "indices": {"bufferView": last - 2, "componentType": code[0]},
        "values": {"bufferView": last - 1},
    }
    (tmp_path / "a.glb").write_bytes(glb(root, binary))
    torch.testing.assert_close(cg.read_splats(tmp_path / "a.glb").scales, splats.scales)
