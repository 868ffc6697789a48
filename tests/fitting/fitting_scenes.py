"""Textured objects and their views for the fitting tests."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from clipgs_lib.meshes import Mesh, Part
from clipgs_lib.rendering import Cameras, MeshViews, RenderOutput, render, render_views, sphere_cameras
from clipgs_lib.splats import Splats

RED, BLUE = (0.75, 0.35, 0.25), (0.3, 0.45, 0.7)


class Views(NamedTuple):
    """The least that `fit` takes."""

    colors: torch.Tensor
    alphas: torch.Tensor


def opaque(splats: Splats, opacity: float) -> Splats:
    """The same gaussians with one opacity."""
    return replace(splats, opacities=torch.full_like(splats.opacities, opacity))


def texture_of(pattern: str) -> np.ndarray:
    """``[64, 128, 3]`` uint8 of two colours: stripes, checks, dots, halves or plain."""
    y, x = np.mgrid[:64, :128]
    masks = {
        "stripes": (x // 16) % 2 == 0,
        "checks": ((x // 16) + (y // 16)) % 2 == 0,
        "dots": ((x % 16) - 8) ** 2 + ((y % 16) - 8) ** 2 < 25,
        "halves": x < 64,
        "plain": x >= 0,
    }
    colors = np.where(masks[pattern][:, :, None], RED, BLUE)
    return (255 * colors).astype(np.uint8)


def ball(pattern: str = "checks", rows: int = 16) -> Mesh:
    """The unit sphere with a texture around it."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, 2 * rows + 1), indexing="ij")
    points = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], axis=-1)
    uvs = np.stack([phi / (2 * np.pi) * 0.998 + 0.001, 0.999 - 0.998 * theta / np.pi], axis=-1)
    part = Part(
        points.reshape(-1, 3).astype(np.float32), _grid_faces(rows, 2 * rows), (1.0, 1.0, 1.0, 1.0),
        uvs.reshape(-1, 2).astype(np.float32), texture_of(pattern), name="ball",
    )  # fmt: skip
    return Mesh((part,), up_axis="+y", source=f"ball with {pattern}")


def box(low: tuple[float, float, float], high: tuple[float, float, float], color: tuple[float, float, float]) -> Part:
    """An axis-aligned box of one colour."""
    corners = np.array(np.meshgrid(*np.stack([low, high], axis=1), indexing="ij")).reshape(3, 8).T
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))]
    return Part(corners.astype(np.float32), np.array(faces, np.int32), (*color, 1.0))


def stool() -> Mesh:
    """A seat on four thin legs: narrow parts and holes between them."""
    legs = [
        box((x - 0.05, -0.8, z - 0.05), (x + 0.05, 0.3, z + 0.05), BLUE)
        for x in (-0.5, 0.5)
        for z in (-0.5, 0.5)
    ]  # fmt: skip
    return Mesh((box((-0.6, 0.3, -0.6), (0.6, 0.4, 0.6), RED), *legs), up_axis="+y", source="stool")


def plate(thickness: float = 0.01) -> Mesh:
    """A thin plate, red above and blue below."""
    top = box((-1, 0, -1), (1, thickness / 2, 1), RED)
    return Mesh((top, box((-1, -thickness / 2, -1), (1, 0, 1), BLUE)), up_axis="+y", source="plate")


def cameras_about(n: int = 14, size: int = 48) -> Cameras:
    """Cameras around the unit sphere."""
    return sphere_cameras(n, width=size, height=size)


def views_of(splats: Splats, cameras: Cameras, background: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Views:
    """Renders, clipped to what a picture can hold."""
    with torch.no_grad():
        drawn: RenderOutput = render(splats, *cameras, background=background)
    return Views(drawn.colors.clamp(0, 1), drawn.alphas)


def ground_truth(mesh: Mesh, cameras: Cameras) -> MeshViews:
    """Unlit views of the mesh itself."""
    return render_views(mesh, cameras, light=0.0)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    y, x = (part.reshape(-1) for part in np.mgrid[:rows, :columns])
    a = y * (columns + 1) + x
    b, c, d = a + 1, a + columns + 1, a + columns + 2
    return np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)]).astype(np.int32)
