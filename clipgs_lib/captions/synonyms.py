"""Other names of the same thing, from a small table of ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# kinds of a thing (a stool is no chair) are left out
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
Groups = Sequence[Sequence[str]]  # of names that can stand for each other
GROUPS: Groups = [group.strip().split("/") for group in _TABLE.split(",")]


def synonyms_of(name: str, groups: Groups = GROUPS) -> list[str]:
    """Other names of the same thing, whatever the capitals of ``name``.

    None is known of a name outside the groups, nor of one in several of them, which means several things.
    """
    key = name.casefold()
    holding = [group for group in groups if key in map(str.casefold, group)]
    return [other for other in holding[0] if other.casefold() != key] if len(holding) == 1 else []


def with_group(names: Iterable[str]) -> Groups:
    """Our own groups and one more, which wins where a group of ours has one of its names as well."""
    group = list(names)
    said = set(map(str.casefold, group))
    return [group, *(other for other in GROUPS if said.isdisjoint(map(str.casefold, other)))]
