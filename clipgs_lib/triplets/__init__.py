"""The triplet factory: objects to sets of splats, views and texts; embedded by a teacher; looked at."""

from .build import build_triplets
from .embed import build_sample_set, embed_triplets, open_set, sample_set
from .inspection import Summary, summarize, write_contact_sheet
from .recipe import BuildConfig, Source, catalogue_sources, folder_sources
from .stages import cameras_of
from .staging import BuildReport
