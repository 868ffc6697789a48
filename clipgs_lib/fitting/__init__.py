"""Splats out of views: starts on a surface, optimisation through the rasteriser."""

from .mesh_fits import mesh_job, splat_job
from .optimise import CurvePoint, FitConfig, FitJob, FitResult, fit, fit_many
from .starts import init_from_mesh, init_from_points, init_from_splats, init_random
