"""Pictures of splats: cameras, one differentiable `render` for CPU and CUDA, picture files and measures."""

from .cameras import (
    Cameras,
    Gaussians,
    axis_vector,
    look_at,
    orbit_cameras,
    pinhole,
    sphere_cameras,
    turntable_cameras,
    visible_sphere,
)
from .images import contact_sheet, psnr, save_gif, save_png, ssim
from .mesh_views import MeshViews, render_views
from .rasterize import RenderOutput, render
