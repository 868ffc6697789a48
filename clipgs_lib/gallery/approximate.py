"""Search in a gallery of millions by faiss: faster, and not exact; how far off it is, is measured when it is built.

Exact search reads each row and stays the default. This index keeps rows in lists by nearness, a byte a number, and
reads some of the lists; what it finds is scored exactly. ``approximate.faiss`` lies beside the gallery, and
``approximate.json`` says of which parts it was built, how many lists a search reads, and its recall@10: the share of
the exact ten best that it finds for 200 rows of the gallery. Texts lie further from all rows; theirs may be lower.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..files import replacing, write_text
from .gallery import Gallery
from .storage import GalleryError

INDEX, FACTS = "approximate.faiss", "approximate.json"
GOOD = 0.95  # recall@10 up to which a search reads more lists
_STEP = 1 << 16  # rows added at a time


def use_faiss(gallery: Gallery, progress: Callable[[int, int], None] = lambda done, total: None) -> float:
    """Let a gallery on disk search by faiss from now on; filters, and very many hits, are still searched exactly.

    Args:
        gallery: from `Gallery.open`; an index of other rows beside it is built anew.
        progress: called with rows indexed and rows in all.

    Returns:
        Recall@10 in ``[0, 1]``; ``gallery.recall`` from now on.

    Raises:
        GalleryError: when faiss is not installed, or the gallery is not on disk.
        OSError: when the index cannot be written.
    """
    try:
        import faiss
    except ImportError as error:
        got, todo = str(error)[:100], "pip install 'clipgs_lib[ann]', or search exactly"
        raise GalleryError(gallery.folder or "gallery", "faiss must be installed", got, todo) from None
    if gallery.folder is None:
        raise GalleryError("gallery", "a gallery must lie on disk to have an index", "one in memory", "save it")
    path, facts = gallery.folder / INDEX, dict[str, Any]()
    index: Any = None
    try:
        facts = json.loads((gallery.folder / FACTS).read_text(encoding="utf-8"))
        index = faiss.read_index(str(path)) if facts["parts"] == gallery.parts else None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        pass  # there is none, or it is damaged
    if index is None or index.ntotal != len(gallery):
        index, facts = _build(faiss, gallery, progress)
        with replacing(path) as temporary:
            faiss.write_index(index, str(temporary))
        write_text(gallery.folder / FACTS, json.dumps(facts))
    index.nprobe = facts["lists read"]
    gallery.nearest, gallery.recall = partial(_nearest, index, gallery), facts["recall@10"]
    return gallery.recall


def _build(faiss: Any, gallery: Gallery, progress: Callable[[int, int], None]) -> tuple[Any, dict[str, Any]]:
    """The index, and what is kept beside it."""
    count, best = len(gallery), min(10, len(gallery))
    lists = max(1, min(int(count**0.5), count // 40))
    index = faiss.index_factory(gallery.dim, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(gallery.take(torch.arange(0, count, max(1, count // (64 * lists)))).numpy())
    for first in range(0, count, _STEP):
        index.add(gallery.take(torch.arange(first, min(first + _STEP, count))).numpy())
        progress(index.ntotal, count)
    queries = gallery.take(torch.arange(0, count, max(1, count // 200)))
    gallery.nearest, index.nprobe, recall = None, 1, 0.0
    exact = gallery.search(queries, best).indices  # [Q, 10]
    while True:
        near = _nearest(index, gallery, queries, best)[0]
        recall = float((exact[:, :, None] == near[:, None]).any(dim=2).float().mean())
        if recall >= GOOD or index.nprobe >= lists:
            return index, {"parts": gallery.parts, "lists read": index.nprobe, "recall@10": recall}
        index.nprobe *= 2


def _nearest(index: Any, gallery: Gallery, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows and cosines ``[Q, k]`` of the best in the lists read for ``[Q, D]``; a row -1 where they hold no more."""
    near = torch.from_numpy(index.search(queries.numpy(), min(4 * k, len(gallery)))[1])  # [Q, 4k]
    scores = torch.stack([gallery.take(rows.clamp_min(0)) @ query for rows, query in zip(near, queries, strict=True)])
    best = scores.masked_fill(near < 0, -2.0).topk(k, dim=1)
    return near.gather(1, best.indices), best.values
