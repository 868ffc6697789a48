"""Triplets on disk: WebDataset shards with an index and a manifest, written safely, streamed exactly."""

from __future__ import annotations

from .shard_set import ShardSet, ShardWarning, TripletStream, open_embedded
from .tar import ShardError
from .triplet import TeacherInfo, Triplet
