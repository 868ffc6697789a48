"""Views of shards through the frozen part of a multi-view encoder, once: a file of each set keeps what comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..encoders import MultiViewEncoder, ViewTokens
from ..files import replacing
from ..shards import ShardError, ShardSet, Triplet


class FrozenViews:
    """Tokens of the views of an object, float16: out of the file of its set, or made now and put there.

    The files lie in ``folder`` (None for no files) as ``SET-views-HASH.npy``, of teacher, depth and content of the set:
    16 KB a view for `mini` at 160 px. They can be deleted at any time between runs; a run that was stopped goes on with
    what is there.
    """

    def __init__(self, encoder: MultiViewEncoder, folder: Path | None) -> None:
        self.encoder, self.folder = encoder, folder
        self.shape = encoder.freeze([np.zeros((1, 8, 8, 3), np.uint8)]).tokens.shape[1:]  # of one view
        self._files: dict[str, tuple[np.ndarray, dict[str, int]]] = {}  # by content of the set; place of each object

    def size(self, row: Mapping[str, Any]) -> int:
        """Bytes of an object's tokens."""
        return 2 * int(row["n_views"]) * self.shape.numel()

    def __call__(self, shards: ShardSet, triplet: Triplet) -> ViewTokens:
        """The tokens of one object; ShardError when a view is damaged, or the views are of several sizes."""
        if self.folder is None:
            return self._read(triplet)
        content = shards.manifest["content_sha256"]
        if content not in self._files:
            self._files[content] = self._open(shards, content, self.folder)
        tokens, places = self._files[content]
        count, start = len(triplet.views), places[triplet.key]
        rows = tokens[start : start + count]
        if not rows.any(axis=-1).all():  # no token is all zeros once it is written
            rows[:] = self._read(triplet).tokens.numpy()
        return ViewTokens(torch.from_numpy(np.array(rows)), (count,))

    def _read(self, triplet: Triplet) -> ViewTokens:
        pictures = [triplet.images([view])[0] for view in range(len(triplet.views))]
        try:
            views = self.encoder.freeze([pictures])
        except ValueError as error:
            must = "the views must be fit for a multi-view encoder"
            raise ShardError(f"object {triplet.key}", must, str(error), "leave the object out") from None
        return ViewTokens(views.tokens.half().cpu(), views.counts)

    def _open(self, shards: ShardSet, content: str, folder: Path) -> tuple[np.ndarray, dict[str, int]]:
        config = self.encoder.config
        facts = f"{config.teacher} {config.teacher_sha256} {config.depth} {content}"
        digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
        path = folder / f"{shards.folder.resolve().name}-views-{digest}.npy"
        starts = np.cumsum([0, *(row["n_views"] for row in shards.rows)]).tolist()
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                np.lib.format.open_memmap(draft, "w+", np.float16, (starts[-1], *self.shape)).flush()
        tokens = np.lib.format.open_memmap(path, "r+")
        if tokens.shape != (starts[-1], *self.shape) or tokens.dtype != np.float16:
            must = f"{path} must hold float16 {[starts[-1], *self.shape]}"
            raise ValueError(f"{must}, got {tokens.dtype} {list(tokens.shape)}; delete the file")
        return tokens, {row["key"]: start for row, start in zip(shards.rows, starts, strict=False)}
