"""Mesh views: cameras to the pixel, colours to the byte, masks and depths; silent and without a display."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from clipgs_lib.meshes import Mesh, Part
from clipgs_lib.rendering import (
    Cameras,
    look_at,
    mesh_views,
    orbit_cameras,
    pinhole,
    render,
    render_views,
    sphere_cameras,
)
from clipgs_lib.splats import Splats

QUAD = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
QUAD_FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
QUAD_UVS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


def quad(**options) -> Mesh:
    return Mesh((Part(QUAD, QUAD_FACES, **options),), up_axis="+y")


def sphere(color=(0.5, 0.5, 0.5, 1.0), radius=1.0, center=(0.0, 0.0, 0.0)) -> Mesh:
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 65)[:-1], np.linspace(0, np.pi, 33), indexing="ij")
    points = np.stack([np.cos(u) * np.sin(v), np.cos(v), np.sin(u) * np.sin(v)], axis=-1).reshape(-1, 3)
    a = (np.arange(64)[:, None] * 33 + np.arange(32)).ravel()
    b = ((np.arange(64)[:, None] + 1) % 64 * 33 + np.arange(32)).ravel()
    faces = np.concatenate([np.stack([a, b, b + 1], axis=1), np.stack([a, b + 1, a + 1], axis=1)])
    vertices = (points * radius + np.asarray(center)).astype(np.float32)
    return Mesh((Part(vertices, faces.astype(np.int32), color),), up_axis="+y")


def straight(width=64, height=48, distance=3.0) -> Cameras:
    return Cameras(look_at((0, 0, distance), (0, 0, 0))[None], pinhole(width, height, 40)[None], width, height)


def odd_cameras() -> Cameras:
    """Principal point off the middle, unequal focal lengths, skew, rolled."""
    viewmats = look_at(torch.tensor([[1.0, 2.0, 3.0], [-2.0, 0.5, 2.5]]), (0.1, 0.2, 0), torch.tensor([0.3, 1.0, 0.2]))
    K = torch.tensor([[130.0, 4.0, 70.5], [0.0, 110.0, 41.0], [0, 0, 1]])
    return Cameras(viewmats, K.repeat(2, 1, 1), 160, 96)


@pytest.mark.parametrize("point", [(0.0, 0.0, 0.0), (0.5, -0.3, 0.2), (-0.4, 0.4, -0.3)])
def test_a_point_lands_on_its_pixel(point):
    cameras = odd_cameras()
    views = render_views(sphere(radius=0.05, center=point), cameras, samples=4)
    for viewmat, K, alpha, depth in zip(cameras.viewmats, cameras.Ks, views.alphas, views.depths, strict=True):
        local = viewmat[:3, :3] @ torch.tensor(point) + viewmat[:3, 3]
        expected = (K @ local / local[2])[:2]
        rows, columns = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(160) + 0.5, indexing="ij")
        seen = torch.stack([(columns * alpha).sum(), (rows * alpha).sum()]) / alpha.sum()
        assert (seen - expected).abs().max() < 0.15
        assert depth[depth > 0].min() == pytest.approx(float(local[2]) - 0.05, abs=5e-3)


def test_views_coincide_with_the_splat_renderer():
    """The same small ball, as a mesh and as a gaussian, from the same cameras."""
    cameras = odd_cameras()
    point = torch.tensor([[0.3, 0.2, -0.1]])
    ball = Splats(
        point, torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.02), torch.ones(1), torch.zeros(1, 1, 3),
        torch.zeros(1, 0, 3),
    )  # fmt: skip
    splat_alpha = render(ball, *cameras._replace(Ks=no_skew(cameras.Ks))).alphas[..., 0]
    mesh_alpha = render_views(
        sphere(radius=0.04, center=tuple(point[0])), cameras._replace(Ks=no_skew(cameras.Ks)), samples=4
    ).alphas
    grid = torch.stack(torch.meshgrid(torch.arange(96.0), torch.arange(160.0), indexing="ij"))
    for first, second in zip(splat_alpha, mesh_alpha, strict=True):
        middles = [(grid * a).sum(dim=(1, 2)) / a.sum() for a in (first, second)]
        assert (middles[0] - middles[1]).abs().max() < 0.2


def no_skew(Ks: torch.Tensor) -> torch.Tensor:
    out = Ks.clone()
    out[:, 0, 1] = 0
    return out


@pytest.mark.parametrize("color", [(1.0, 0.0, 0.0), (0.2, 0.5, 0.7), (0.9, 0.85, 0.1), (0.02, 0.02, 0.03)])
def test_unlit_colours_are_exact(color):
    views = render_views(quad(base_color=(*color, 1.0)), straight(), light=0)
    inside = views.colors[0, 12:36, 24:40].reshape(-1, 3)
    assert (inside - torch.tensor(color)).abs().max() <= 1 / 255


def test_a_face_towards_the_camera_keeps_its_colour_when_lit():
    views = render_views(quad(base_color=(0.2, 0.5, 0.7, 1.0)), straight())
    assert (views.colors[0, 24, 32] - torch.tensor([0.2, 0.5, 0.7])).abs().max() <= 2 / 255


@pytest.mark.parametrize("color", [(0.5, 0.5, 0.5), (0.8, 0.4, 0.2)])
def test_light_dims_but_keeps_the_hue(color):
    views = render_views(sphere((*color, 1.0)), straight(96, 96, 4.0), light=0.5)
    inside = views.colors[0][views.alphas[0] == 1]
    ratio = inside / torch.tensor(color)
    assert (ratio.amax(dim=1) - ratio.amin(dim=1)).max() < 0.03
    assert ratio.amin() < 0.72  # towards the rim
    assert ratio.amax() == pytest.approx(1, abs=0.01)


def test_textures_stand_upright_and_match_lookup():
    rng = np.random.default_rng(0)
    texture = np.repeat(np.repeat(rng.integers(0, 256, (5, 7, 3), np.uint8), 8, axis=0), 8, axis=1)
    mesh = quad(base_color=(0.9, 1.0, 0.8, 1.0), uvs=QUAD_UVS, texture=texture)
    cameras = straight(128, 128, 4.0)
    views = render_views(mesh, cameras, light=0)
    rows, columns = torch.nonzero(views.alphas[0] == 1, as_tuple=True)
    x = (columns + 0.5 - 64) / cameras.Ks[0, 0, 0] * 4
    y = -(rows + 0.5 - 64) / cameras.Ks[0, 1, 1] * 4
    uv = torch.stack([(x + 1) / 2, (y + 1) / 2], dim=1).numpy()
    # a fine fan of barycentrics: the quad is one affine map of its uvs
    face = (uv[:, 1] > uv[:, 0]).astype(np.int64)
    u, v = uv.T
    weights = np.where(
        face[:, None] == 0, np.stack([1 - u, u - v, v], axis=1), np.stack([1 - v, u, v - u], axis=1)
    ).clip(0, 1)
    want = torch.from_numpy(mesh.parts[0].lookup(face, weights))
    error = (views.colors[0][rows, columns] - want).abs().amax(dim=1)
    assert error.median() < 2 / 255
    assert (error > 0.1).float().mean() < 0.05  # a seam between two texels may fall within a pixel


def test_textures_repeat():
    texture = np.zeros((4, 4, 3), np.uint8)
    texture[:, :2] = 255
    views = render_views(quad(uvs=QUAD_UVS * 2 + 7, texture=texture, base_color=(1, 1, 1, 1)), straight(64, 64, 4.0))
    row = views.colors[0, 32, :, 0]
    assert [bool(row[x] > 0.5) for x in (16, 27, 36, 47)] == [True, False, True, False]


def test_large_tiles_are_not_filtered_anisotropically():
    """Mesa's software driver hung for minutes on some views of real sofas with tiled fabric."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    for most, side, filtering in ((1.0, 256, 8), (9.9, 256, 1), (9.9, 128, 8)):
        uvs = np.array([[0, 0], [most, 0], [0, 1]], np.float32)
        texture = np.zeros((side, side, 3), np.uint8)
        part = Part(corners, np.array([[0, 1, 2]], np.int32), uvs=uvs, texture=texture)
        actor = mesh_views._actor([part], np.zeros(3), 0.5)
        assert actor.GetTexture().GetMaximumAnisotropicFiltering() == filtering


def test_vertex_colours_are_interpolated():
    colors = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    views = render_views(quad(colors=colors, base_color=(1, 1, 1, 1)), straight(64, 64, 4.0), light=0)
    middle = views.colors[0, 32, 32]
    assert (middle - torch.tensor([0.5, 0.5, 0])).abs().max() < 0.03
    assert views.colors[0, 32, 15, 0] == pytest.approx(0.875, abs=0.01)  # 16.5 of 22 pixels from the middle


def test_parts_with_and_without_textures_share_a_picture():
    texture = np.full((2, 2, 3), (0, 0, 255), np.uint8)
    parts = (
        Part(QUAD, QUAD_FACES, (1, 1, 1, 1), uvs=QUAD_UVS, texture=texture),
        Part(QUAD * np.float32(0.3) + np.float32([0, 0, 0.5]), QUAD_FACES, (1, 0, 0, 1)),
        Part(QUAD * np.float32(0.1) + np.float32([0, 0, 0.8]), QUAD_FACES, (0, 1, 0, 1)),
    )
    colors = render_views(Mesh(parts), straight(64, 64), light=0).colors[0]
    assert colors[32, 32].tolist() == [0, 1, 0]
    assert colors[32, 26].tolist() == [1, 0, 0]
    assert colors[32, 12].tolist() == [0, 0, 1]


def test_both_sides_are_drawn_alike():
    front, back = render_views(quad(), orbit_cameras(2, elevation=0)).colors
    assert torch.allclose(front, back, atol=2 / 255)


def test_depth_is_along_the_axis_and_background_is_kept():
    views = render_views(quad(), straight(), background=(0.25, 0.5, 0.75))
    covered = views.alphas[0] == 1
    assert torch.allclose(views.depths[0][covered], torch.tensor(3.0), atol=1e-3)
    assert (views.depths[0][views.alphas[0] == 0] == 0).all()
    assert (views.colors[0][views.alphas[0] == 0] == torch.tensor([0.25, 0.5, 0.75])).all()


def test_edges_are_smooth():
    alphas = render_views(sphere(), straight(), samples=3).alphas
    assert torch.unique((alphas * 9).round()).numel() >= 7  # of 10 shares
    area = alphas.sum()
    assert area == pytest.approx(
        float(render_views(sphere(), straight(256, 192), samples=1).alphas.sum()) / 16, rel=0.01
    )


def test_tiny_and_far_off_meshes():
    """No near plane, and no loss of digits far from the origin."""
    for scale, shift in ((1e-4, 0.0), (1.0, 5e4)):
        moved = Mesh((Part((QUAD * scale + shift).astype(np.float32), QUAD_FACES),))
        target = (shift, shift, shift)
        eye = (shift, shift, shift + 3 * scale)
        cameras = Cameras(look_at(eye, target)[None], pinhole(64, 48, 40)[None], 64, 48)
        same = render_views(quad(), straight())
        views = render_views(moved, cameras)
        assert (views.alphas - same.alphas).abs().mean() < 0.02


def test_a_mesh_behind_the_camera_is_not_seen():
    cameras = Cameras(look_at((0, 0, 3), (0, 0, 6))[None], pinhole(32, 32, 40)[None], 32, 32)
    views = render_views(quad(), cameras)
    assert (views.alphas == 0).all()
    assert (views.colors == 1).all()


def test_pictures_do_not_depend_on_what_was_drawn_before():
    first = render_views(sphere(), straight())
    render_views(quad(base_color=(1, 0, 0, 1)), straight(200, 100))
    again = render_views(sphere(), straight())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_sphere_cameras_are_spread_and_frame_the_unit_sphere():
    cameras = sphere_cameras(36)
    centers = cameras.centers
    assert torch.allclose(centers.norm(dim=1), torch.tensor(3.2), atol=1e-4)
    assert centers.mean(dim=0).norm() < 0.1
    gaps = (torch.cdist(centers, centers) + 10 * torch.eye(36)).amin(dim=1)
    assert gaps.min() > 0.6 * gaps.max()
    alphas = render_views(sphere(), cameras).alphas
    border = torch.cat([alphas[:, 0], alphas[:, -1], alphas[:, :, 0], alphas[:, :, -1]], dim=1)
    assert (border == 0).all()
    assert alphas.mean() > 0.5


def test_a_belt_of_cameras_keeps_to_its_elevations():
    heights = torch.rad2deg(torch.asin(sphere_cameras(100, elevations=(-20, 70)).centers[:, 1] / 3.2))
    assert -20 < float(heights.min()) < -18 and 65 < float(heights.max()) < 70


@pytest.mark.parametrize("up", ["+y", "-z", "+x"])
def test_sphere_cameras_keep_the_up_axis_up(up):
    vector = torch.zeros(3)
    vector["xyz".index(up[1])] = 1.0 if up[0] == "+" else -1.0
    downs = sphere_cameras(12, up=up).viewmats[:, 1, :3] @ vector
    assert (downs < 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "width and height"),
        ({"height": 100_000}, "width and height"),
        ({"viewmats": torch.eye(4)}, r"viewmats must have shape \[C, 4, 4\]"),
        ({"viewmats": torch.empty(0, 4, 4), "Ks": torch.empty(0, 3, 3)}, "at least one camera, got none"),
        ({"viewmats": 2 * torch.eye(4)[None]}, "scaled"),
        ({"viewmats": torch.diag(torch.tensor([1.0, -1, 1, 1]))[None]}, "mirrored"),
        ({"viewmats": torch.full((1, 4, 4), torch.nan)}, "non-finite"),
        ({"Ks": torch.zeros(1, 3, 3)}, "focal"),
        ({"Ks": torch.eye(3).repeat(2, 1, 1)}, r"Ks must have shape \[C, 3, 3\] with C = 1"),
    ],
)
def test_bad_cameras_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        render_views(quad(), straight()._replace(**change))


@pytest.mark.parametrize("options", [{"light": 2}, {"background": (1, 1)}, {"background": (0, 0, 9)}, {"samples": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        render_views(quad(), straight(), **options)


def test_bad_sphere_cameras_are_refused():
    for options in ({"n": 0}, {"distance": 0.0}, {"up": "unknown"}, {"fov": 180}, {"elevations": (40, 10)}):
        with pytest.raises(ValueError, match=next(iter(options))):
            sphere_cameras(**options)


SILENT = """
import os, threading, numpy as np
from clipgs_lib.meshes import Mesh, Part
from clipgs_lib.rendering import render_views, sphere_cameras
mesh = Mesh((Part(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32)),))
def draw():
    assert float(render_views(mesh, sphere_cameras(2, width=32, height=32)).alphas.sum()) > 0
draw()
thread = threading.Thread(target=draw); thread.start(); thread.join()
if os.fork() == 0:
    try:
        draw()
    except RuntimeError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
"""


def test_drawing_is_silent_without_a_display_works_in_threads_and_refuses_forks():
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    done = subprocess.run([sys.executable, "-c", SILENT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_without_opengl_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(mesh_views.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)

    monkeypatch.setattr(mesh_views.ctypes, "CDLL", missing_library)
    with pytest.raises(RuntimeError, match="apt-get install libegl1"):
        mesh_views._require_opengl()


def test_an_egl_without_devices_does_not_count(monkeypatch):
    monkeypatch.setattr(mesh_views.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(mesh_views, "_egl_devices", lambda egl: 0)
    monkeypatch.setattr(mesh_views.ctypes, "CDLL", lambda name: object() if "EGL" in name else missing_library(name))
    with pytest.raises(RuntimeError, match="libEGL with a driver"):
        mesh_views._require_opengl()


def missing_library(name):
    raise OSError(name)
