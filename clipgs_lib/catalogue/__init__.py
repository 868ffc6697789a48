"""Procedural catalogue: parametric textured objects that know their own captions.

`make(index, seed)` gives object ``index``: a mesh of named parts, its parameters, captions out of these parameters, and
its split. `pairs` yields two objects that differ in texture, colour, shape or count alone. Object i of a seed is the
same on every machine. How splits and held-out categories and combinations are chosen stands in `split`.
"""

from ..colors import COLORS
from ..splits import SPLITS
from . import (  # importing them registers their categories, in this order
    buildings,
    clothing,
    containers,
    craft,
    electronics,
    food,
    furniture,
    instruments,
    lamps,
    plants,
    sports,
    tableware,
    tools,
    toys,
    vehicles,
)
from .assemble import build_mesh
from .describe import KINDS
from .model import CATEGORIES
from .objects import CatalogueObject, Pair, make, pairs
from .patterns import PATTERNS
from .split import HELD_CATEGORIES, VERSION, held_combination
