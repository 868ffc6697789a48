"""The mesh container: what must hold, sampling, texture lookup, normalising."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipgs_lib.meshes import Mesh, Part

QUAD = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
UVS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


def quad(**changes) -> Part:
    return Part(**{"vertices": QUAD, "faces": FACES, "uvs": UVS, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vertices": QUAD.astype(np.float64)}, "vertices must be a float32 array"),
        ({"faces": FACES + 1}, "faces must index the 4 vertices, got 1..4"),
        ({"uvs": UVS[:3]}, r"uvs must be a float32 array of shape \[4, 2\]"),
        ({"uvs": None, "texture": np.zeros((2, 2, 3), np.uint8)}, "a texture needs uvs"),
        ({"texture": np.zeros((2, 2, 4), np.uint8)}, "texture must be a uint8 array"),
        ({"colors": [1, 2, 3]}, "colors must be a float32 array.*got list"),
    ],
)
def test_what_must_hold_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        quad(**changes)


def test_meshes_need_triangles_finite_vertices_and_a_known_up_axis():
    with pytest.raises(ValueError, match="at least one triangle"):
        Mesh((quad(faces=FACES[:0]),))
    with pytest.raises(ValueError, match="got 1 with NaN"):
        Mesh((quad(vertices=np.where(QUAD == 2, np.nan, QUAD).astype(np.float32)[[0, 1, 0, 3]]),))
    with pytest.raises(ValueError, match="up_axis must be one of"):
        Mesh((quad(),), up_axis="up")


def test_samples_are_spread_by_area_over_parts():
    far = quad(vertices=QUAD * np.float32(3) + np.float32(10), base_color=(1, 0, 0, 1))
    samples = Mesh((quad(), far)).sample(20_000, np.random.default_rng(0))
    assert samples.area == pytest.approx(2 + 18, rel=1e-6)
    assert float((samples.part == 1).mean()) == pytest.approx(0.9, abs=0.01)
    near = samples.points[samples.part == 0]
    assert (near.min(axis=0) >= 0).all() and (near.max(axis=0) <= [2, 1, 0]).all()
    assert np.allclose(near.mean(axis=0), [1, 0.5, 0], atol=0.05)
    assert np.allclose(samples.normals, [0, 0, 1])
    assert np.allclose(samples.colors[samples.part == 1], [1, 0, 0])


def test_textures_have_their_first_row_on_top_and_repeat():
    texture = np.zeros((4, 4, 3), np.uint8)
    texture[:2] = [255, 0, 0]  # the upper half is red
    texture[2:] = [0, 0, 255]
    part = quad(texture=texture, base_color=(1, 1, 1, 1))
    samples = Mesh((part,)).sample(4000, np.random.default_rng(1))
    height = samples.points[:, 1]  # away from the seams, where neighbouring rows blend
    assert np.allclose(samples.colors[(height > 0.65) & (height < 0.85)], [1, 0, 0], atol=1e-6)
    assert np.allclose(samples.colors[(height > 0.15) & (height < 0.35)], [0, 0, 1], atol=1e-6)
    shifted = replace(part, uvs=UVS + np.float32(7))
    assert np.allclose(Mesh((shifted,)).sample(4000, np.random.default_rng(1)).colors, samples.colors, atol=1e-4)


def test_colours_multiply():
    part = quad(colors=np.full((4, 3), 0.5, np.float32), base_color=(0.5, 1, 1, 1))
    assert np.allclose(Mesh((part,)).sample(10, np.random.default_rng(0)).colors, [0.25, 0.5, 0.5])


def test_sampling_repeats_with_its_seed_and_checks_its_input():
    mesh = Mesh((quad(),))
    a, b = (mesh.sample(50, np.random.default_rng(3)).points for _ in range(2))
    assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="n >= 1"):
        mesh.sample(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="surface with area"):
        Mesh((quad(vertices=np.zeros_like(QUAD)),)).sample(5, np.random.default_rng(0))


def test_normalize_fits_the_unit_sphere_and_ignores_unused_vertices():
    stray = np.concatenate([QUAD + np.float32(5), [[1000, 0, 0]]]).astype(np.float32)
    mesh = Mesh((Part(stray, FACES),), up_axis="+y", source="q").normalize()
    used = mesh.parts[0].vertices[:4]
    assert float(np.linalg.norm(used, axis=1).max()) == pytest.approx(1, abs=1e-6)
    assert np.allclose(used.min(axis=0), -used.max(axis=0), atol=1e-6)
    assert (mesh.up_axis, mesh.source) == ("+y", "q")
    assert "2 triangles in 1 parts" in repr(mesh)
    assert mesh.facts()["triangles"] == "2" and ">+y</td>" in mesh._repr_html_() and "Mesh(" not in mesh._repr_html_()
    with pytest.raises(ValueError, match="some extent"):
        Mesh((quad(vertices=np.zeros_like(QUAD)),)).normalize()
