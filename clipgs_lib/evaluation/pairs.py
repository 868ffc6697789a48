"""Minimal pairs: two objects that differ in texture, colour, shape or count alone, each with the text that says so.

The catalogue makes them and the triplet factory builds them, so they are a set like any other, with the splats, views
and embeddings that an encoder and its teacher need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..catalogue import KINDS, pairs
from ..shards import ShardError, ShardSet, Triplet
from ..triplets import BuildConfig, Source, build_triplets
from ..triplets.stages import Begun, Thing, draw_views, finish, fit_job
from .scores import hit_rates


def build_pairs(out: str | os.PathLike[str], count: int, teacher: str, *, workers: int = 1) -> ShardSet:
    """Build a set of minimal pairs, or go on with one that was stopped; a finished one is left as it is.

    Shapes are of the catalogue's test split. The splats are the start of a fit, unfitted: 1,024 gaussians.

    Args:
        out: folder of the set, made when missing.
        count: pairs of each kind, ``>= 1``.
        teacher: name for `load_teacher`, which embeds views and texts.
        workers: processes.

    Raises:
        ShardError: when the folder holds another set, the teacher cannot be had, or an object could not be made.
    """
    sides = [(f"{kind}-{number:04d}-{side}", number) for kind in KINDS for number in range(count) for side in (0, 1)]
    sources = [Source(key, "pair", index=number) for key, number in sides]
    config = BuildConfig(views=4, size=160, iterations=0, teacher=teacher)
    report = build_triplets(sources, out, config, workers=workers, produce=_side)
    if report.quarantined:
        raise ShardError(str(out), "both sides of every pair must work", str(report), "see its quarantine.jsonl")
    return ShardSet(Path(out))


def _side(source: Source, config: BuildConfig) -> Triplet:
    """One object of a pair; every pair is the first of its own seed, so that none before it has to be made."""
    kind = next(kind for kind in KINDS if source.key.startswith(f"{kind}-"))
    pair, side = next(pairs(kind, 1, seed=source.index, split="test")), int(source.key[-1])
    made = pair.objects[side]
    facts = {"source": f"catalogue {made.id}", "licence": "MIT", "pair": [pair.attribute, *pair.values]}
    thing = Thing(made.mesh.normalize(), made.category, made.split, (pair.captions[side],), facts)
    cameras, images = draw_views(thing.shape, config)
    return finish(Begun(source, thing, cameras, images, fit_job(thing.shape, config, source.index)), config)


def pair_hits(keys: Sequence[str], shapes: Tensor, texts: Tensor) -> dict[str, Tensor]:
    """How well the texts of each pair find their own side among the two; guessing gives 0.5.

    Args:
        keys: N, of the objects of a set that `build_pairs` made, in its order.
        shapes: ``[N, D]`` unit-norm, of the objects.
        texts: ``[N, D]`` unit-norm, of their texts.

    Returns:
        Kind -> ``[P]`` float64 in ``{0, 0.5, 1}``: the share of a pair's two texts that find their side. Ties count
        half.
    """
    out = {}
    for kind in KINDS:
        rows = [row for row, key in enumerate(keys) if key.startswith(f"{kind}-")]
        if rows:
            sides, words = (x[rows].float().reshape(-1, 2, x.shape[1]) for x in (shapes, texts))  # [P, 2, D]
            scores = words @ sides.mT  # [P, 2 texts, 2 sides]
            right = torch.eye(2, dtype=torch.bool).repeat(len(scores), 1)
            out[str(kind)] = hit_rates(scores.flatten(0, 1), right, (1,)).reshape(-1, 2).mean(dim=1)
    return out
