"""Pictures of splats: cameras, one differentiable `render` for CPU and CUDA, picture files and measures."""

from __future__ import annotations

from .cameras import Cameras, look_at, orbit_cameras, pinhole, turntable_cameras
from .images import contact_sheet, psnr, save_gif, save_png, ssim
from .rasterize import RenderOutput, rasterize, render

__all__ = [
    "Cameras",
    "RenderOutput",
    "contact_sheet",
    "look_at",
    "orbit_cameras",
    "pinhole",
    "psnr",
    "rasterize",
    "render",
    "save_gif",
    "save_png",
    "ssim",
    "turntable_cameras",
]
