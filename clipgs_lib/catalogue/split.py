"""Who is in train, val and test: by shape, by whole categories, and by combinations of category and pattern.

Three rules, in this order; all depend on the parameters alone:

1. The categories in `HELD_CATEGORIES` are unseen in training (``holdout="category"``).
2. About one in twelve pairs of (category, print) is unseen in training and validation: such objects are drawn from the
   shapes of the test split (``holdout="combination"``), so that neither the shape nor the pair was trained on.
3. Every category's shape parameters are rounded to quarters; with the counts and choices they name a *cell*, and cells
   go to train, val or test (80/10/10) as a whole. Values near the border of two quarters are never drawn (a gap of 5 %
   of the range), so near-duplicates, whatever their colours, never straddle two splits.
"""

import hashlib
import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ..splits import SPLITS, Split, deal
from .model import BINS, CATEGORIES, Category
from .patterns import PATTERNS

Holdout = Literal["none", "category", "combination"]
VERSION = 1  # of the catalogue: raise it when any object changes

HELD_CATEGORIES: dict[str, Split] = {
    "teapot": "test", "floor lamp": "test", "helicopter": "test", "xylophone": "test", "cactus": "test",
    "lighthouse": "test", "cupcake": "test", "robot": "test", "pinwheel": "val", "rake": "val",
}  # fmt: skip
_HELD_ONE_IN = 12


def seeded(*key: object) -> np.random.Generator:
    """Generator of a key, the same on every machine: PCG64 seeded by SHA-256 of the catalogue's version and the key."""
    digest = hashlib.sha256("/".join(map(str, ("clipgs-catalogue", VERSION, *key))).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


@lru_cache(maxsize=4096)
def held_combination(category: str, pattern: str) -> bool:
    """Whether the pair is kept out of training and validation."""
    if category in HELD_CATEGORIES or pattern == "plain" or PATTERNS[pattern].material:
        return False
    digest = hashlib.sha256(f"clipgs-catalogue/{VERSION}/held/{category}/{pattern}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _HELD_ONE_IN == 0


def cell_sizes(spec: Category) -> list[int]:
    """How many values each cell coordinate has: the ranges, then the count, then the choices."""
    counts = [len(spec.count.values)] if spec.count else []
    return [*(BINS for _ in spec.ranges), *counts, *(len(choice.options) for choice in spec.choices)]


def cell_of(params: dict[str, Any]) -> int:
    """Index of the cell that an object's shape lies in."""
    spec = CATEGORIES[params["category"]]
    place = [r.bin(params["shape"][r.name]) for r in spec.ranges]
    if spec.count:
        place.append(spec.count.values.index(params["count"]))
    place += [choice.options.index(params["choices"][choice.name]) for choice in spec.choices]
    return int(np.ravel_multi_index(place, cell_sizes(spec)))


@lru_cache(maxsize=256)
def cell_splits(category: str) -> np.ndarray:
    """Split of each cell ``[cells]`` as an index into `SPLITS`."""
    total = math.prod(cell_sizes(CATEGORIES[category]))
    if category in HELD_CATEGORIES:
        return np.full(total, SPLITS.index(HELD_CATEGORIES[category]))
    out = deal(seeded("cells", category).random(total))
    out.setflags(write=False)
    return out


def split_of(params: dict[str, Any]) -> tuple[Split, Holdout]:
    """Split and reason of the parameters of an object.

    Raises:
        ValueError: for a held-out combination on a shape that is not in test; it belongs nowhere.
    """
    category, pattern = params["category"], params["pattern"]
    split = SPLITS[int(cell_splits(category)[cell_of(params)])]
    if category in HELD_CATEGORIES:
        return split, "category"
    if held_combination(category, pattern):
        if split != "test":
            raise ValueError(
                f"{category!r} with {pattern!r} is held out for the test split, got a shape of the {split} split; "
                "choose another pattern, or start from a test object"
            )
        return split, "combination"
    return split, "none"
