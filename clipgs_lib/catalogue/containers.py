"""Containers."""

import numpy as np

from .model import EVERY, PACKED, PAINTS, SHINY, Choice, Count, Pieces, Range, in_group, painted
from .shapes import Shape, arc, around, join, lathe, lay, line, row, sweep, turned
from .solids import box, cone, cylinder, hollow, sphere, torus, vessel

container = in_group("containers")

HEIGHT = Range("height", 0.49, 1.65, "squat", "tall")


@container("bottle", "flask", parts=("cap",), accent="cap", patterns=PACKED)
def _bottle(
    h=Range("height", 0.57, 1.77, "short", "tall"),
    r=Range("radius", 0.2, 0.36, "slim", "wide"),
    shoulder=Range("shoulder", 0.1, 0.4),
    n=Range("neck", 0.07, 0.13),
) -> Pieces:
    side = [(r, h), (0.8 * r, h + 0.4 * shoulder), (n, h + shoulder), (n, h + shoulder + 0.2)]
    yield "body", "main", lathe([(r - 0.04, 0), (r, 0.04), (r, h)]) + turned(side, 10)
    yield "bottom", "body", cylinder(r - 0.03, 0.02)
    yield "cap", "accent", cylinder(n + 0.025, 0.13).move(0, h + shoulder + 0.16)


@container("jar", "canister", parts=("lid", "knob"), accent="lid", patterns=(*PACKED, "marble"))
def _jar(
    h=HEIGHT,
    r=Range("radius", 0.3, 0.55, "slim", "wide"),
    lid_height=Range("lid_height", 0.08, 0.22),
    form=Choice("knob", ("round", "flat"), "knob"),
) -> Pieces:
    knob = sphere(0.09, 9, 14).move(0, 0.05) if form == "round" else cylinder(0.14, 0.06)
    yield "body", "main", lathe([(0, 0), (r - 0.06, 0), (r, 0.06), (r, h - 0.1), (0.85 * r, h), (0, h)])
    yield "lid", "accent", lathe([(0, 0), (0.9 * r, 0), (0.9 * r, lid_height), (0, lid_height + 0.02)]).move(0, h)
    yield "knob", "accent", knob.move(0, h + lid_height)


@container("bucket", "pail", parts=("handle",), patterns=(*PACKED, "wood"), colors=SHINY)
def _bucket(
    h=Range("height", 0.49, 1.3, "shallow", "tall"),
    r=Range("radius", 0.4, 0.6),
    taper=Range("taper", 0.6, 0.9, "tapered", ""),
) -> Pieces:
    yield from hollow([(taper * r, 0), (r, h)], 0.03)
    yield "rim", "body", torus(r, 0.035).move(0, h)
    yield "handle", "silver", sweep(lay(arc(1.0, 0, 180, 18) * [r + 0.02, 0.9 * r] + [0, h], "xy"), 0.03)


@painted(
    patterns=("plain", "wood", "checks", "grid", "plaid", "horizontal stripes", "zigzag", "gradient"),
    colors=("brown", "light brown", "dark brown", "beige", "white", "pink", "light blue", "gray"),
)
@container("basket", "wicker basket", parts=("handle", "apples"), accent="apples")
def _basket(
    length=Range("length", 0.66, 1.65, "", "long"),
    h=Range("height", 0.29, 0.83, "shallow", "deep"),
    arch=Range("arch", 0.5, 0.9),
    apples=Count("apples", (2, 3, 4, 5), "apple"),
) -> Pieces:
    n = length / 2
    outer, inner = vessel([(0.75, 0), (1.0, h)], 0.08)
    yield "body", "main", outer.scale(n, 1, 0.42)
    yield "inside", "inside", inner.scale(n, 1, 0.42)
    yield "apples", "accent", around(sphere(0.15, 9, 14).move(0, 0, 0.3), apples).scale(x=1.5 * n).move(0, h)
    yield "filling", "beige", cylinder(0.93, 0.02).scale(n, 1, 0.42).move(0, 0.85 * h)
    yield "handle", "body", sweep(lay(arc(1.0, 0, 180, 18) * [n, arch] + [0, h], "xy"), 0.06)


@painted(
    patterns=("wood", "plain", "label", "horizontal stripes", "dots", "stars", "gradient"),
    colors=("light brown", "brown", "dark brown", "white", "red", "blue", "green", "yellow"),
)
@container("crate", "wooden box", parts=("planks",))
def _crate(
    x=Range("length", 0.57, 1.65, "", "long"),
    y=Range("height", 0.33, 1.18, "shallow", "tall"),
    z=Range("depth", 0.5, 0.9),
    planks=Count("planks", (2, 3, 4, 5), "plank"),
) -> Pieces:
    step = y / planks
    long, short = box(x, 0.78 * step, 0.05), box(0.05, 0.78 * step, z)
    ring = join([long.move(0, 0, z / 2), long.move(0, 0, -z / 2), short.move(x / 2), short.move(-x / 2)])
    posts = join([box(0.09, y, 0.09).move(a * (x / 2 - 0.05), 0, b * (z / 2 - 0.05)) for a in (-1, 1) for b in (-1, 1)])
    yield "planks", "main", row(ring, planks, (0, step, 0), centred=False).move(0, 0.06)
    yield "posts", "body", posts
    yield "floor", "body", box(x, 0.05, z)


@painted(patterns=(*EVERY, "wood", "label"), colors=(*PAINTS, "light brown"))
@container("barrel", "keg", parts=("hoops",), accent="hoops")
def _barrel(
    h=Range("height", 0.74, 1.77, "squat", "tall"),
    r=Range("radius", 0.4, 0.6),
    bulge=Range("bulge", 1.08, 1.28, "", "round-bellied"),
    count=Count("hoops", (2, 3, 4), "hoop"),
) -> Pieces:
    t = np.linspace(0, 1, 12)
    wide = r * (1 + (bulge - 1) * (1 - (2 * t - 1) ** 2))
    body = lathe([(0, 0), *zip(wide, h * t, strict=True), (r - 0.05, h), (r - 0.05, h - 0.04), (0, h - 0.04)])
    yield "body", "main", body
    for y in np.linspace(0.12, 0.88, count):
        at = [r * (1 + (bulge - 1) * (1 - (2 * s - 1) ** 2)) for s in (y - 0.035, y + 0.035)]
        radii = [at[0] - 0.02, at[0] + 0.025, at[1] + 0.025, at[1] - 0.02]
        levels = [(y - 0.04) * h, (y - 0.035) * h, (y + 0.035) * h, (y + 0.04) * h]
        yield "hoops", "accent", lathe(line(radii, levels))


@container("suitcase", "travel case", parts=("handle", "straps", "corners"), accent="straps", patterns=PACKED)
def _suitcase(
    x=Range("width", 0.9, 1.5, "narrow", "wide"),
    y=Range("height", 0.6, 1.1),
    z=Range("depth", 0.25, 0.5, "slim", "thick"),
    straps=Count("straps", (1, 2, 3), "strap"),
) -> Pieces:
    strap = box(0.1, y + 0.04, z + 0.04, 0.03).move(0, -0.02)
    places = [(a * (x / 2 - 0.05), b, c * (z / 2 - 0.05)) for a in (-1, 1) for b in (0.05, y - 0.05) for c in (-1, 1)]
    yield "body", "main", box(x, y, z, 0.08)
    yield "straps", "accent", row(strap, straps, (0.62 * x / max(straps - 1, 1), 0, 0))
    yield "corners", "dark brown", join([sphere(0.09, 7, 12).move(*place) for place in places])
    yield "handle", "dark brown", sweep(lay(arc(0.16, 0, 180, 12) * [1, 0.9] + [0, y], "xy"), 0.035)


@painted(
    patterns=("wood", "plain", "vertical stripes", "diagonal stripes", "stars", "gradient", "camouflage"),
    colors=("light brown", "brown", "dark brown", "maroon", "navy", "dark green", "purple"),
)
@container("treasure chest", "trunk", "chest", parts=("lid", "bands", "lock"), accent="bands")
def _treasure_chest(
    x=Range("width", 0.9, 1.5, "narrow", "wide"),
    y=Range("height", 0.33, 0.83, "low", "tall"),
    z=Range("depth", 0.5, 0.8),
    bands=Count("bands", (2, 3, 4), "band"),
) -> Pieces:
    def lid(length: float, grow: float) -> Shape:
        outline = arc(z / 2 + grow, 0, 180, 15)[::-1] * [-1, 1]
        return sweep([(-length / 2, 0, 0), (length / 2, 0, 0)], 1.0, section=outline, normal=(0, 1, 0))

    step = 0.8 * x / (bands - 1)
    band = lid(0.1, 0.03).move(0, y) + box(0.1, y, z + 0.06)
    yield "body", "main", box(x, y, z)
    yield "lid", "main", lid(x, 0.0).move(0, y + 0.02)
    yield "bands", "accent", join([band.move(step * (i - (bands - 1) / 2)) for i in range(bands)])
    yield "lock", "golden", box(0.16, 0.2, 0.08, 0.02).move(0, y - 0.14, z / 2 + 0.03)


@container("trash can", "waste bin", "garbage can", parts=("lid", "pedal"), accent="lid", patterns=PACKED, colors=SHINY)
def _trash_can(
    h=Range("height", 0.66, 1.65, "short", "tall"),
    r=Range("radius", 0.35, 0.55),
    taper=Range("taper", 0.7, 1.0, "tapered", ""),
) -> Pieces:
    dome = arc(r, 5, 90, 8) * [1, 0.5] + [0, 0.05]
    lid = lathe(np.concatenate([[(0, 0), (r + 0.04, 0), (r + 0.04, 0.06)], dome]), planar=False).move(0, h)
    yield "body", "main", lathe([(0, 0), (taper * r, 0), (r, h)])
    yield "lid", "accent", lid
    yield "pedal", "black", box(0.2, 0.05, 0.22, 0.02).move(0, 0.03, r)
    yield "knob", "black", cone(0.05, 0.07, 0.07, 12).move(0, h + 0.5 * r + 0.03)
