"""The triplet factory: mesh import, procedural catalogue, splat fitting, captions and shards."""

from __future__ import annotations

from . import catalogue
from .build import BuildConfig, BuildReport, Source, build_triplets
from .build_embed import embed_triplets
from .build_sample import build_sample_set, sample_set
from .build_sources import catalogue_sources, folder_sources
from .build_stages import cameras_of
from .captions import Caption, draw_caption, score_captions
from .captions_attributes import Attributes, measure
from .captions_enrich import ObjectCaptions, caption_object
from .captions_filter import FilterReport, captions_table, filter_captions
from .fitting import (
    FitConfig,
    FitJob,
    FitResult,
    fit,
    fit_many,
    fit_mesh,
    init_from_mesh,
    init_from_points,
    init_from_splats,
    init_random,
    mesh_job,
    refit,
)
from .importing import ImportReport, ImportRow, MeshImport, import_folder, mesh_files, read_mesh, read_mesh_notes
from .importing_base import MeshError, MeshWarning
from .inspect_page import write_contact_sheet
from .inspect_set import Summary, summarize
from .shards import TeacherInfo, Triplet
from .shards_read import ShardWarning, TripletStream
from .shards_set import ShardSet
from .shards_tar import ShardError

__all__ = [
    "Attributes",
    "BuildConfig",
    "BuildReport",
    "Caption",
    "FilterReport",
    "FitConfig",
    "FitJob",
    "FitResult",
    "ImportReport",
    "ImportRow",
    "MeshError",
    "MeshImport",
    "MeshWarning",
    "ObjectCaptions",
    "ShardError",
    "ShardSet",
    "ShardWarning",
    "Source",
    "Summary",
    "TeacherInfo",
    "Triplet",
    "TripletStream",
    "build_sample_set",
    "build_triplets",
    "cameras_of",
    "caption_object",
    "captions_table",
    "catalogue",
    "catalogue_sources",
    "draw_caption",
    "embed_triplets",
    "filter_captions",
    "fit",
    "fit_many",
    "fit_mesh",
    "folder_sources",
    "import_folder",
    "init_from_mesh",
    "init_from_points",
    "init_from_splats",
    "init_random",
    "measure",
    "mesh_files",
    "mesh_job",
    "read_mesh",
    "read_mesh_notes",
    "refit",
    "sample_set",
    "score_captions",
    "summarize",
    "write_contact_sheet",
]
