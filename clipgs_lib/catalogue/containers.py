"""Containers."""

from __future__ import annotations

import numpy as np

from .model import EVERY, PACKED, Choice, Count, Piece, Range, in_group, varies
from .paints import PAINTS, SHINY
from .shapes import Shape, arc, around, join, lathe, lay, line, row, sweep, turned
from .solids import box, cone, cylinder, sphere, torus, vessel

container = in_group("containers")

HEIGHT = Range("height", 0.49, 1.65, "squat", "tall")


@container("bottle", "flask", parts=("cap",), accent="cap")
@varies(
    Range("height", 0.57, 1.77, "short", "tall"),
    Range("radius", 0.2, 0.36, "slim", "wide"),
    Range("shoulder", 0.1, 0.4),
    Range("neck", 0.07, 0.13),
    patterns=PACKED,
)
def _bottle(h: float, r: float, shoulder: float, n: float) -> list[Piece]:
    body = lathe([(r - 0.04, 0), (r, 0.04), (r, h)])
    body += turned([(r, h), (0.8 * r, h + 0.4 * shoulder), (n, h + shoulder), (n, h + shoulder + 0.2)], 10)
    return [
        Piece("body", "main", body),
        Piece("bottom", "body", cylinder(r - 0.03, 0.02)),
        Piece("cap", "accent", cylinder(n + 0.025, 0.13).move(0, h + shoulder + 0.16)),
    ]


@container("jar", "canister", parts=("lid", "knob"), accent="lid")
@varies(
    HEIGHT,
    Range("radius", 0.3, 0.55, "slim", "wide"),
    Range("lid_height", 0.08, 0.22),
    Choice("knob", ("round", "flat"), "knob"),
    patterns=(*PACKED, "marble"),
)
def _jar(h: float, r: float, lid_height: float, form: str) -> list[Piece]:
    knob = sphere(0.09, 9, 14).move(0, 0.05) if form == "round" else cylinder(0.14, 0.06)
    return [
        Piece("body", "main", lathe([(0, 0), (r - 0.06, 0), (r, 0.06), (r, h - 0.1), (0.85 * r, h), (0, h)])),
        Piece("lid", "accent", lathe([(0, 0), (0.9 * r, 0), (0.9 * r, lid_height), (0, lid_height + 0.02)]).move(0, h)),
        Piece("knob", "accent", knob.move(0, h + lid_height)),
    ]


@container("bucket", "pail", parts=("handle",))
@varies(
    Range("height", 0.49, 1.3, "shallow", "tall"),
    Range("radius", 0.4, 0.6),
    Range("taper", 0.6, 0.9, "tapered", ""),
    patterns=(*PACKED, "wood"),
    colors=SHINY,
)
def _bucket(h: float, r: float, taper: float) -> list[Piece]:
    outer, inner = vessel([(taper * r, 0), (r, h)], 0.03)
    return [
        Piece("body", "main", outer),
        Piece("inside", "inside", inner),
        Piece("rim", "body", torus(r, 0.035).move(0, h)),
        Piece("handle", "silver", sweep(lay(arc(1.0, 0, 180, 18) * [r + 0.02, 0.9 * r] + [0, h], "xy"), 0.03)),
    ]


@container("basket", "wicker basket", parts=("handle", "apples"), accent="apples")
@varies(
    Range("length", 0.66, 1.65, "", "long"),
    Range("height", 0.29, 0.83, "shallow", "deep"),
    Range("arch", 0.5, 0.9),
    Count("apples", (2, 3, 4, 5), "apple"),
    patterns=("plain", "wood", "checks", "grid", "plaid", "horizontal stripes", "zigzag", "gradient"),
    colors=("brown", "light brown", "dark brown", "beige", "white", "pink", "light blue", "gray"),
)
def _basket(length: float, h: float, arch: float, apples: int) -> list[Piece]:
    n = length / 2
    outer, inner = vessel([(0.75, 0), (1.0, h)], 0.08)
    return [
        Piece("body", "main", outer.scale(n, 1, 0.42)),
        Piece("inside", "inside", inner.scale(n, 1, 0.42)),
        Piece("apples", "accent", around(sphere(0.15, 9, 14).move(0, 0, 0.3), apples).scale(x=1.5 * n).move(0, h)),
        Piece("filling", "beige", cylinder(0.93, 0.02).scale(n, 1, 0.42).move(0, 0.85 * h)),
        Piece("handle", "body", sweep(lay(arc(1.0, 0, 180, 18) * [n, arch] + [0, h], "xy"), 0.06)),
    ]


@container("crate", "wooden box", parts=("planks",))
@varies(
    Range("length", 0.57, 1.65, "", "long"),
    Range("height", 0.33, 1.18, "shallow", "tall"),
    Range("depth", 0.5, 0.9),
    Count("planks", (2, 3, 4, 5), "plank"),
    patterns=("wood", "plain", "label", "horizontal stripes", "dots", "stars", "gradient"),
    colors=("light brown", "brown", "dark brown", "white", "red", "blue", "green", "yellow"),
)
def _crate(x: float, y: float, z: float, planks: int) -> list[Piece]:
    step = y / planks
    long, short = box(x, 0.78 * step, 0.05), box(0.05, 0.78 * step, z)
    ring = join([long.move(0, 0, z / 2), long.move(0, 0, -z / 2), short.move(x / 2), short.move(-x / 2)])
    posts = join([box(0.09, y, 0.09).move(a * (x / 2 - 0.05), 0, b * (z / 2 - 0.05)) for a in (-1, 1) for b in (-1, 1)])
    return [
        Piece("planks", "main", row(ring, planks, (0, step, 0), centred=False).move(0, 0.06)),
        Piece("posts", "body", posts),
        Piece("floor", "body", box(x, 0.05, z)),
    ]


@container("barrel", "keg", parts=("hoops",), accent="hoops")
@varies(
    Range("height", 0.74, 1.77, "squat", "tall"),
    Range("radius", 0.4, 0.6),
    Range("bulge", 1.08, 1.28, "", "round-bellied"),
    Count("hoops", (2, 3, 4), "hoop"),
    patterns=(*EVERY, "wood", "label"),
    colors=(*PAINTS, "light brown"),
)
def _barrel(h: float, r: float, bulge: float, count: int) -> list[Piece]:
    t = np.linspace(0, 1, 12)
    wide = r * (1 + (bulge - 1) * (1 - (2 * t - 1) ** 2))
    body = lathe([(0, 0), *zip(wide, h * t, strict=True), (r - 0.05, h), (r - 0.05, h - 0.04), (0, h - 0.04)])
    hoops = []
    for y in np.linspace(0.12, 0.88, count):
        at = [r * (1 + (bulge - 1) * (1 - (2 * s - 1) ** 2)) for s in (y - 0.035, y + 0.035)]
        radii = [at[0] - 0.02, at[0] + 0.025, at[1] + 0.025, at[1] - 0.02]
        hoops.append(lathe(line(radii, [(y - 0.04) * h, (y - 0.035) * h, (y + 0.035) * h, (y + 0.04) * h])))
    return [Piece("body", "main", body), Piece("hoops", "accent", join(hoops))]


@container("suitcase", "travel case", parts=("handle", "straps", "corners"), accent="straps")
@varies(
    Range("width", 0.9, 1.5, "narrow", "wide"),
    Range("height", 0.6, 1.1),
    Range("depth", 0.25, 0.5, "slim", "thick"),
    Count("straps", (1, 2, 3), "strap"),
    patterns=PACKED,
)
def _suitcase(x: float, y: float, z: float, straps: int) -> list[Piece]:
    strap = box(0.1, y + 0.04, z + 0.04, 0.03).move(0, -0.02)
    corner = sphere(0.09, 7, 12)
    places = [(a * (x / 2 - 0.05), b, c * (z / 2 - 0.05)) for a in (-1, 1) for b in (0.05, y - 0.05) for c in (-1, 1)]
    return [
        Piece("body", "main", box(x, y, z, 0.08)),
        Piece("straps", "accent", row(strap, straps, (0.62 * x / max(straps - 1, 1), 0, 0))),
        Piece("corners", "dark brown", join([corner.move(*place) for place in places])),
        Piece("handle", "dark brown", sweep(lay(arc(0.16, 0, 180, 12) * [1, 0.9] + [0, y], "xy"), 0.035)),
    ]


@container("treasure chest", "trunk", "chest", parts=("lid", "bands", "lock"), accent="bands")
@varies(
    Range("width", 0.9, 1.5, "narrow", "wide"),
    Range("height", 0.33, 0.83, "low", "tall"),
    Range("depth", 0.5, 0.8),
    Count("bands", (2, 3, 4), "band"),
    patterns=("wood", "plain", "vertical stripes", "diagonal stripes", "stars", "gradient", "camouflage"),
    colors=("light brown", "brown", "dark brown", "maroon", "navy", "dark green", "purple"),
)
def _treasure_chest(x: float, y: float, z: float, bands: int) -> list[Piece]:

    def lid(length: float, grow: float) -> Shape:
        outline = arc(z / 2 + grow, 0, 180, 15)[::-1] * [-1, 1]
        return sweep([(-length / 2, 0, 0), (length / 2, 0, 0)], 1.0, section=outline, normal=(0, 1, 0))

    step = 0.8 * x / (bands - 1)
    band = lid(0.1, 0.03).move(0, y) + box(0.1, y, z + 0.06)
    return [
        Piece("body", "main", box(x, y, z)),
        Piece("lid", "main", lid(x, 0.0).move(0, y + 0.02)),
        Piece("bands", "accent", join([band.move(step * (i - (bands - 1) / 2)) for i in range(bands)])),
        Piece("lock", "golden", box(0.16, 0.2, 0.08, 0.02).move(0, y - 0.14, z / 2 + 0.03)),
    ]


@container("trash can", "waste bin", "garbage can", parts=("lid", "pedal"), accent="lid")
@varies(
    Range("height", 0.66, 1.65, "short", "tall"),
    Range("radius", 0.35, 0.55),
    Range("taper", 0.7, 1.0, "tapered", ""),
    patterns=PACKED,
    colors=SHINY,
)
def _trash_can(h: float, r: float, taper: float) -> list[Piece]:
    dome = arc(r, 5, 90, 8) * [1, 0.5] + [0, 0.05]
    lid = lathe(np.concatenate([[(0, 0), (r + 0.04, 0), (r + 0.04, 0.06)], dome]), planar=False).move(0, h)
    return [
        Piece("body", "main", lathe([(0, 0), (taper * r, 0), (r, h)])),
        Piece("lid", "accent", lid),
        Piece("pedal", "black", box(0.2, 0.05, 0.22, 0.02).move(0, 0.03, r)),
        Piece("knob", "black", cone(0.05, 0.07, 0.07, 12).move(0, h + 0.5 * r + 0.03)),
    ]
