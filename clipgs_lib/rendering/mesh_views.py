"""Pictures of textured meshes through pyvista: offscreen, without a display, from cameras with OpenCV axes.

One window is kept and reused; threads take turns. Worker processes must be started by "spawn" (or before the first
picture): a context of OpenGL does not survive a fork.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from .cameras import Cameras, check_cameras

if TYPE_CHECKING:
    from ..meshes import Mesh, Part  # at run time it would load the readers of all formats

MAX_SIDE = 8192  # pixels of the window; OpenGL promises no more
_TURN = threading.Lock()
_SMALL_TILE = 128  # pixels; the catalogue tiles textures of this size
_OWNERS: set[int] = set()  # the process that draws, and in a fork of it that one as well


class MeshViews(NamedTuple):
    """V pictures of a mesh.

    Args:
        colors: ``[V, H, W, 3]`` float32 in ``[0, 1]`` as displayed (sRGB), over the background.
        alphas: ``[V, H, W]`` float32 share of each pixel that the mesh covers.
        depths: ``[V, H, W]`` float32 z depth in scene units, mean over what is covered; 0 where alpha is 0.
    """

    colors: Tensor
    alphas: Tensor
    depths: Tensor


def render_views(
    mesh: Mesh,
    cameras: Cameras,
    *,
    background: Sequence[float] = (1.0, 1.0, 1.0),
    light: float = 0.3,
    samples: int = 2,
) -> MeshViews:
    """Draw a mesh from every camera.

    The colour of a pixel is ``c * (1 - light + light * |cos|)``: c the colour of the surface, cos between the
    triangle's normal and the line of sight of the picture's middle. All channels are dimmed alike, so hues stay
    true; ``light=0`` shows the exact colours, unlit. Both sides of triangles are drawn, transparency is not.

    Args:
        mesh: in the frame of the cameras.
        cameras: of any intrinsics; the principal point may lie off the middle. Nothing is cut by a near plane unless
            the camera stands inside the mesh.
        background: RGB in ``[0, 1]``.
        light: share of the headlight in ``[0, 1]``.
        samples: per pixel and side; 2 averages 4 of them.

    Raises:
        ValueError: when a number is out of range or ``viewmats`` or ``Ks`` have another shape.
        RuntimeError: when OpenGL cannot start.
    """
    _OWNERS.add(os.getpid())
    if len(_OWNERS) > 1:
        raise RuntimeError(
            "render_views must run in processes that did not fork after its first picture, got such a fork; "
            'start workers by "spawn"'
        )
    viewmats, intrinsics = (each.numpy() for each in check_cameras(cameras.viewmats, cameras.Ks))
    _check_options(cameras, background, light, samples)
    width, height = cameras.width, cameras.height
    colors = np.full((len(viewmats), height, width, 3), np.asarray(background, np.float32), np.float32)
    alphas, depths = (np.zeros((len(viewmats), height, width), np.float32) for _ in range(2))
    low, high = (corner.astype(np.float64) for corner in mesh.bounds())
    center = (low + high) / 2
    corners = np.array(np.meshgrid(*np.stack([low, high], axis=1))).reshape(3, 8).T  # [8, 3]
    with _TURN, _quiet():
        stage = _stage()
        try:
            stage.open(width * samples, height * samples)
            stage.put(mesh, center, light)
            for i, (viewmat, K) in enumerate(zip(viewmats, intrinsics, strict=True)):
                z = corners @ viewmat[2, :3] + viewmat[2, 3]
                if z.max() > 0:
                    far = 1.001 * float(z.max())
                    near = max(0.999 * float(z.min()), 1e-4 * far)
                    stage.aim(viewmat, _projection(K, width, height, near, far), center)
                    rgb, alphas[i], depths[i] = _average(*stage.shoot(near, far), samples)
                    colors[i] = np.minimum(rgb + (1 - alphas[i])[..., None] * colors[i], 1)
        finally:
            stage.clear()
    return MeshViews(torch.from_numpy(colors), torch.from_numpy(alphas), torch.from_numpy(depths))


def _check_options(cameras: Cameras, background: Sequence[float], light: float, samples: int) -> None:
    if not len(cameras.viewmats):
        raise ValueError("there must be at least one camera, got none; viewmats must be [C, 4, 4] with C >= 1")
    if not 1 <= samples <= 8:
        raise ValueError(f"samples must lie between 1 and 8, got {samples}")
    most = MAX_SIDE // samples
    if not (1 <= cameras.width <= most and 1 <= cameras.height <= most):
        got = f"{cameras.width} x {cameras.height}"
        raise ValueError(f"width and height must lie between 1 and {most} pixels at samples={samples}, got {got}")
    if len(tuple(background)) != 3 or not all(0 <= v <= 1 for v in background):
        raise ValueError(f"background must be three numbers in [0, 1], got {background!r}")
    if not 0 <= light <= 1:
        raise ValueError(f"light must lie in [0, 1], got {light}")


def _projection(K: np.ndarray, width: int, height: int, near: float, far: float) -> np.ndarray:
    """OpenGL's projection matrix ``[4, 4]`` of an OpenCV camera; OpenGL's y points up and z backwards."""
    (fx, skew, cx), (_, fy, cy) = K[0], K[1]
    return np.array([
        [2 * fx / width, -2 * skew / width, 1 - 2 * cx / width, 0],
        [0, 2 * fy / height, 2 * cy / height - 1, 0],
        [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
        [0, 0, -1, 0],
    ])  # fmt: skip


def _average(rgb: np.ndarray, depth: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours over black ``[H, W, 3]``, alpha and depth ``[H, W]`` of ``rgb [sH, sW, 3]`` and ``depth [sH, sW]``."""
    height, width = (side // samples for side in depth.shape)
    total = np.zeros((height, width, 3), np.uint16)
    hits, reach = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for row, column in np.ndindex(samples, samples):
        total += rgb[row::samples, column::samples]
        reach += depth[row::samples, column::samples]
        hits += depth[row::samples, column::samples] > 0
    share = np.float32(1 / samples**2)
    return total * (share / np.float32(255)), hits * share, reach / np.maximum(hits, 1)


class _Stage:
    """A window of OpenGL with one headlight."""

    def __init__(self) -> None:
        _require_opengl()
        import pyvista as pv

        self.plotter = cast(Any, pv.Plotter(off_screen=True, window_size=[64, 64], lighting="none"))
        self.window, self.renderer = self.plotter.ren_win, self.plotter.renderer
        self.window.SetMultiSamples(0)
        self.renderer.SetBackground(0, 0, 0)
        self.renderer.add_light(pv.Light(light_type="headlight"))
        self.camera = self.renderer.camera
        self.actors: list[Any] = []
        self.window.Render()
        if self.window.GetNeverRendered() or not self.window.SupportsOpenGL():
            name = self.window.GetClassName()
            raise RuntimeError(f"mesh views need OpenGL, and {name} could not start it; install libegl1 or libosmesa6")

    def open(self, width: int, height: int) -> None:
        """Take the context to this thread and make the window ``width`` by ``height`` pixels."""
        self.window.MakeCurrent()
        if tuple(self.window.GetSize()) != (width, height):
            self.window.SetSize(width, height)

    def put(self, mesh: Mesh, center: np.ndarray, light: float) -> None:
        """Stand the mesh on the stage, ``center`` at the origin."""
        groups: dict[int, list[Part]] = {}
        for part in mesh.parts:
            if len(part.faces):
                groups.setdefault(0 if part.texture is None else id(part.texture), []).append(part)
        for parts in groups.values():
            actor = _actor(parts, center, light)
            self.renderer.AddActor(actor)
            self.actors.append(actor)

    def aim(self, viewmat: np.ndarray, projection: np.ndarray, center: np.ndarray) -> None:
        """Set the camera."""
        from vtkmodules.vtkCommonMath import vtkMatrix4x4

        rotation = viewmat[:3, :3]
        eye = -rotation.T @ viewmat[:3, 3] - center
        self.camera.SetPosition(*eye)
        self.camera.SetFocalPoint(*(eye + rotation[2]))
        self.camera.SetViewUp(*-rotation[1])
        matrix = vtkMatrix4x4()
        matrix.DeepCopy(projection.ravel().tolist())
        self.camera.SetExplicitProjectionTransformMatrix(matrix)
        self.camera.SetUseExplicitProjectionTransformMatrix(True)

    def shoot(self, near: float, far: float) -> tuple[np.ndarray, np.ndarray]:
        """``[H, W, 3]`` uint8 over black and ``[H, W]`` float32 z depth, 0 where nothing is; first row on top."""
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkFloatArray, vtkUnsignedCharArray

        self.camera.SetClippingRange(near, far)
        self.window.Render()
        width, height = self.window.GetSize()
        pixels, buffer = vtkUnsignedCharArray(), vtkFloatArray()
        self.window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        self.window.GetZbufferData(0, 0, width - 1, height - 1, buffer)
        rgb = vtk_to_numpy(pixels).reshape(height, width, 3)[::-1]
        stored = vtk_to_numpy(buffer).reshape(height, width)[::-1]
        depth = np.float32(far * near) / (np.float32(far) - stored * np.float32(far - near))
        return rgb, np.where(stored < 1, depth, np.float32(0))

    def clear(self) -> None:
        """Remove the mesh, free its memory on the device and let other threads have the context."""
        for actor in self.actors:
            self.renderer.RemoveActor(actor)
            actor.ReleaseGraphicsResources(self.window)
        self.actors.clear()
        self.window.ReleaseCurrent()


@cache
def _stage() -> _Stage:
    """The only stage."""
    return _Stage()


def _actor(parts: list[Part], center: np.ndarray, light: float) -> Any:
    """A VTK actor of parts that share one texture, or have none."""
    import pyvista as pv
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    points = np.concatenate([part.vertices - center for part in parts]).astype(np.float32)
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])
    surface = pv.PolyData.from_regular_faces(cast(Any, points), faces)
    surface.point_data["rgb"] = np.concatenate([_vertex_colors(part) for part in parts])
    surface.point_data.active_scalars_name = "rgb"
    mapper = vtkPolyDataMapper()
    mapper.SetInputData(surface)
    mapper.SetColorModeToDirectScalars()
    actor = vtkActor()
    actor.SetMapper(mapper)
    texture = parts[0].texture
    if texture is not None:
        uvs = np.concatenate([part.uvs for part in parts if part.uvs is not None])
        surface.active_texture_coordinates = uvs
        actor.SetTexture(_texture(texture, tiled=bool(uvs.min(initial=0) < 0 or uvs.max(initial=1) > 1)))
    look = actor.GetProperty()
    look.SetInterpolationToFlat()
    look.SetLighting(light > 0)
    look.SetAmbient(1 - light)
    look.SetDiffuse(light)
    look.SetSpecular(0)
    return actor


def _texture(pixels: np.ndarray, *, tiled: bool) -> Any:
    """A VTK texture. Mesa's software driver takes minutes for one picture of large tiles filtered anisotropically."""
    import pyvista as pv

    texture = pv.Texture(pixels)
    texture.SetRepeat(True)
    texture.SetInterpolate(True)
    texture.SetMipmap(True)
    texture.SetMaximumAnisotropicFiltering(1 if tiled and max(pixels.shape[:2]) > _SMALL_TILE else 8)
    return texture


def _vertex_colors(part: Part) -> np.ndarray:
    """``[V, 3]`` uint8: base colour times vertex colours, which VTK multiplies with the texture."""
    colors = np.broadcast_to(np.asarray(part.base_color[:3], np.float32), part.vertices.shape)
    if part.colors is not None:
        colors = colors * part.colors
    return (np.clip(colors, 0, 1) * 255 + 0.5).astype(np.uint8)


def _require_opengl() -> None:
    """Say what is missing where VTK would crash instead: without libEGL, or with one that has no driver."""
    if sys.platform != "linux" or os.environ.get("DISPLAY"):
        return
    for library in ("libEGL.so.1", "libOSMesa.so.8", "libOSMesa.so.6"):
        try:
            loaded = ctypes.CDLL(library)
        except OSError:
            continue
        if "EGL" not in library or _egl_devices(loaded) > 0:
            return
    raise RuntimeError(
        "mesh views need OpenGL, got neither libEGL with a driver nor libOSMesa; "
        "on Debian: apt-get install libegl1 libgl1-mesa-dri"
    )


def _egl_devices(egl: ctypes.CDLL) -> int:
    """How many devices EGL can draw on (EGL_EXT_device_enumeration)."""
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return 0
    count = ctypes.c_int(0)
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
    return count.value if query(0, None, ctypes.byref(count)) else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep VTK's warnings, such as that there is no X server, from standard error."""
    from vtkmodules.vtkCommonCore import vtkObject

    before = vtkObject.GetGlobalWarningDisplay()
    vtkObject.SetGlobalWarningDisplay(0)
    try:
        yield
    finally:
        vtkObject.SetGlobalWarningDisplay(before)
