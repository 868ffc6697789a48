"""Other names of the same thing, from a small table of ours."""

from __future__ import annotations

from collections.abc import Iterable

# names that can stand for each other; kinds of a thing (a stool is no chair) are left out
_TABLE = """
    sofa/couch/settee, television/TV set/telly, airplane/aeroplane/plane, bicycle/bike, car/automobile,
    police car/cop car/patrol car, refrigerator/fridge, donut/doughnut, hamburger/burger,
    trash can/garbage can/dustbin/trashcan, spaceship/space ship/starship/spacecraft, rock/stone/boulder,
    nightstand/night stand/bedside table, fire truck/fire engine, truck/lorry, eggplant/aubergine, gun/firearm,
    gravestone/tombstone/headstone, ship/vessel, house/dwelling, shop/store, lamp/light, cabinet/cupboard,
    wardrobe/closet, bunny/rabbit, chest/coffer, streetlight/street lamp, french fries/fries/chips,
    popsicle/ice lolly, soda can/can of soda, carpet/rug, pillow/cushion, windmill/wind mill, bucket/pail,
    robot/android, tap/faucet, stove/cooker, mobile phone/cell phone/cellphone, backpack/rucksack,
    potted plant/plant in a pot
"""
GROUPS = tuple(tuple(group.strip().split("/")) for group in _TABLE.split(","))


class Synonyms:
    """Groups of names that can stand for each other.

    A name that appears in several groups means several things and has no synonyms.

    Args:
        groups: each at least two names; spelling is kept, look-up ignores capitals.
    """

    def __init__(self, groups: Iterable[Iterable[str]] = GROUPS) -> None:
        self._groups: dict[str, tuple[str, ...] | None] = {}
        for group in groups:
            names = tuple(dict.fromkeys(group))
            for name in names:
                key = name.casefold()
                self._groups[key] = None if key in self._groups else names

    @classmethod
    def with_group(cls, names: Iterable[str]) -> Synonyms:
        """Our own table and one more group, which wins where our table has one of its names as well."""
        group = tuple(names)
        said = {name.casefold() for name in group}
        return cls([group, *(other for other in GROUPS if said.isdisjoint(name.casefold() for name in other))])

    def of(self, name: str) -> tuple[str, ...]:
        """Other names of the same thing; empty when none is known."""
        group = self._groups.get(name.casefold()) or ()
        return tuple(other for other in group if other.casefold() != name.casefold())
