"""The one rule who is train, val or test: by hashes alone, so neither order nor seed decides, and additions move none.

An object has a *group*, which its near-duplicates share (see `shape_group`), and a label. Groups go to train, val and
test (80/10/10) as a whole. One label in ten is kept from training: where the group says train, such an object is put
into the split `UNSEEN`. So, for any two objects, however many sets there are and whoever split them:

- near-duplicates never straddle train and test, also when they are labelled differently (a cup, a mug);
- no label of the held ones is ever trained on.

Two rules came before it. That of triplet sets split by the geometry, but held no label back; its hash is kept, so the
real objects that the first encoders were tested on are test objects still. That of `mini` held labels back and sent
them to val and test; since a near-duplicate by another name may be in training, it had to see the whole set first to
move such pairs together, so each set was split in its own way, and `mini` trained on what the encoders were tested on.

A closed world, whose groups are all known, may `deal` them out in exact shares instead, and say so to `assign`: the
catalogue does (`catalogue.split`), by cells of its parameters, with categories and combinations of its own held back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

RULE = "group-label/1"  # stands in the manifest of each set; raise the number when any object may move
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)  # of groups; a tenth of some thousand objects tests to about 3 % (95 % interval of a share)
UNSEEN: Literal["unseen"] = "unseen"  # held labels in groups of train: for tests of words, never for training
HELD_LABELS = 0.1  # of labels: enough to measure on, few enough to train on what is left
DIGITS = 2  # of the extents in the name of a group: 1 % of the unit sphere, below what a fit shows


def shape_group(elements: int, extent: Sequence[float] | np.ndarray) -> str:
    """Name of the group of a shape: copies and recoloured twins share it.

    Args:
        elements: triangles of the mesh, or gaussians of the splats.
        extent: ``[3]`` size of its bounding box, once it is centred and fits the unit sphere.
    """
    return f"{elements} " + " ".join(f"{value:.{DIGITS}f}" for value in extent)


def assign(group: str, label: str = "", *, dealt: Split | None = None) -> Literal["train", "val", "test", "unseen"]:
    """The split of an object.

    Args:
        group: what its near-duplicates share.
        label: what it is, in any case; empty when unknown, which is never held back.
        dealt: the split that a closed world has dealt out to its group; it stands.
    """
    if dealt is not None:
        return dealt
    place = _unit(group)
    if place >= SHARES[0]:
        return "val" if place < SHARES[0] + SHARES[1] else "test"
    return UNSEEN if is_held(label) else "train"


def is_held(label: str) -> bool:
    """Whether a label is kept from training."""
    word = label.strip().casefold()
    return bool(word) and _unit(f"label {word}") < HELD_LABELS


def deal(draws: np.ndarray) -> np.ndarray:
    """Deal out all groups of a closed world in exact shares, in the order of ``draws [n]``.

    Returns:
        ``[n]`` indices into `SPLITS`.
    """
    rank = np.argsort(np.argsort(draws, kind="stable"), kind="stable")
    return np.searchsorted(np.cumsum(SHARES)[:-1] * len(draws), rank, side="right")


def _unit(text: str) -> float:
    """A number in ``[0, 1)`` that a text alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
