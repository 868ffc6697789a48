"""Curation: find the objects of a set that a text means, by a few labels; after NuiScene's filtering of Objaverse."""

from __future__ import annotations

from .curated import Curation, embeds_of, read_manifest, texts_of
from .oracle import oracle_curves, task_of, tasks
