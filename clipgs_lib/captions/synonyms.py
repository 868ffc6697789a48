"""Other names of the same thing, from a small table of ours and, when its file is at hand, from LVIS."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# each row holds names that can stand for each other; kinds of a thing (a stool is no chair) are left out
OWN_GROUPS: tuple[tuple[str, ...], ...] = (
    ("sofa", "couch", "settee"),
    ("television", "TV set", "telly"),
    ("airplane", "aeroplane", "plane"),
    ("bicycle", "bike"),
    ("car", "automobile"),
    ("police car", "cop car", "patrol car"),
    ("refrigerator", "fridge"),
    ("donut", "doughnut"),
    ("hamburger", "burger"),
    ("trash can", "garbage can", "dustbin", "trashcan"),
    ("spaceship", "space ship", "starship", "spacecraft"),
    ("rock", "stone", "boulder"),
    ("nightstand", "night stand", "bedside table"),
    ("fire truck", "fire engine"),
    ("truck", "lorry"),
    ("eggplant", "aubergine"),
    ("gun", "firearm"),
    ("gravestone", "tombstone", "headstone"),
    ("ship", "vessel"),
    ("house", "dwelling"),
    ("shop", "store"),
    ("lamp", "light"),
    ("cabinet", "cupboard"),
    ("wardrobe", "closet"),
    ("bunny", "rabbit"),
    ("chest", "coffer"),
    ("streetlight", "street lamp"),
    ("french fries", "fries", "chips"),
    ("popsicle", "ice lolly"),
    ("soda can", "can of soda"),
    ("carpet", "rug"),
    ("pillow", "cushion"),
    ("windmill", "wind mill"),
    ("bucket", "pail"),
    ("robot", "android"),
    ("tap", "faucet"),
    ("stove", "cooker"),
    ("mobile phone", "cell phone", "cellphone"),
    ("backpack", "rucksack"),
    ("potted plant", "plant in a pot"),
)
_KINDS_NOT_NAMES = ("person",)  # LVIS lists baby, boy, man ... as synonyms of this


class Synonyms:
    """Groups of names that can stand for each other.

    A name that appears in several groups means several things and has no synonyms.

    Args:
        groups: each at least two names; spelling is kept, look-up ignores capitals.
    """

    def __init__(self, groups: Iterable[Iterable[str]] = OWN_GROUPS) -> None:
        self._groups: dict[str, tuple[str, ...] | None] = {}
        for group in groups:
            names = tuple(dict.fromkeys(group))
            for name in names:
                key = name.casefold()
                self._groups[key] = None if key in self._groups else names

    @classmethod
    def from_lvis(cls, path: str | Path, *, own: bool = True) -> Synonyms:
        """Read the category list of LVIS v1: a JSON list of objects with ``name`` and ``synonyms``.

        Names with a qualifier in brackets, ``mouse_(computer_equipment)``, are left out since without it they are
        ambiguous. Where our own table has a name as well, its group wins.

        Args:
            path: ``lvis_names.json``.
            own: add our own table.

        Raises:
            ValueError: when the file is not such a list.
            OSError: when it cannot be read.
        """
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        groups = list(_lvis_groups(rows, path))
        if not own:
            return cls(groups)
        ours = {name.casefold() for group in OWN_GROUPS for name in group}
        return cls([*OWN_GROUPS, *(group for group in groups if ours.isdisjoint(name.casefold() for name in group))])

    @classmethod
    def with_group(cls, names: Iterable[str]) -> Synonyms:
        """Our own table and one more group, which wins where our table has one of its names as well."""
        group = tuple(names)
        said = {name.casefold() for name in group}
        return cls([group, *(own for own in OWN_GROUPS if said.isdisjoint(name.casefold() for name in own))])

    def __len__(self) -> int:
        """Names that have a synonym."""
        return sum(group is not None for group in self._groups.values())

    def of(self, name: str) -> tuple[str, ...]:
        """Other names of the same thing; empty when none is known."""
        group = self._groups.get(name.casefold()) or ()
        return tuple(other for other in group if other.casefold() != name.casefold())


def _lvis_groups(rows: Any, path: str | Path) -> Iterator[tuple[str, ...]]:
    if not isinstance(rows, list):
        raise ValueError(f"{path} must hold a list of LVIS categories, got {type(rows).__name__}")
    for row in rows:
        names = row.get("synonyms") if isinstance(row, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path} must hold categories with a list 'synonyms' of strings, got {str(row)[:80]}")
        if row.get("name") in _KINDS_NOT_NAMES:
            continue
        plain = tuple(name.replace("_", " ") for name in names if "(" not in name)
        if len(plain) > 1:
            yield plain
