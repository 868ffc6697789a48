"""Furniture."""

import numpy as np

from .model import EVERY, PAINTS, TIMBER, WOODS, Choice, Count, Pieces, Range, in_group, painted
from .shapes import arc, around, join, lathe, lay, row, sweep
from .solids import box, cylinder, rod, sphere, torus

furniture = in_group("furniture", patterns=TIMBER)

HEIGHT = Range("height", 0.57, 1.65, "low", "tall")

WIDTH = Range("width", 0.7, 1.3, "narrow", "wide")


def _four_legs(x: float, z: float, height: float, size: float) -> Pieces:
    legs = [box(size, height, size).move(a * (x - size) / 2, 0, b * (z - size) / 2) for a in (-1, 1) for b in (-1, 1)]
    yield "legs", "body", join(legs)


@furniture("chair", "dining chair", parts=("legs", "slats", "seat"), accent="slats")
def _chair(
    back=Range("back", 0.45, 1.2, "low-backed", "high-backed"),
    w=Range("width", 0.75, 1.15),
    seat=Range("legs_height", 0.5, 0.9),
    slats=Count("slats", (2, 3, 4, 5), "slat"),
) -> Pieces:
    top = seat + back
    posts = box(0.07, back, 0.07).move(w / 2 - 0.05, seat, -0.4).mirror()
    step = (w - 0.2) / slats
    yield from _four_legs(w, 0.9, seat, 0.08)
    yield "seat", "main", box(w, 0.1, 0.9, 0.03).move(0, seat)
    yield "back", "main", join([posts, box(w, 0.16, 0.08, 0.03).move(0, top - 0.12, -0.4)])
    yield "slats", "accent", row(box(0.55 * step, back - 0.1, 0.04).move(0, seat, -0.4), slats, (step, 0, 0))


@furniture("stool", "bar stool", parts=("seat", "legs"))
def _stool(
    height=Range("height", 0.41, 1.77, "low", "tall"),
    seat=Range("seat", 0.32, 0.5, "narrow", "wide"),
    thickness=Range("thickness", 0.08, 0.2),
    legs=Count("legs", (3, 4, 5, 6), "leg"),
    seat_form=Choice("seat_form", ("round", "flared"), "seat"),
) -> Pieces:
    top = seat if seat_form == "round" else 1.25 * seat
    yield "seat", "main", lathe([(0, 0), (seat, 0), (top, thickness), (0, thickness)]).move(0, height)
    yield "legs", "body", around(rod((0, height, 0.7 * seat), (0, 0, 1.1 * seat), 0.055), legs)
    yield "ring", "body", torus(0.96 * seat, 0.025).move(0, 0.3 * height)


@furniture("table", "desk", parts=("legs", "top"), patterns=(*TIMBER, "marble"))
def _table(
    length=Range("length", 0.82, 2.6, "short", "long"),
    height=Range("height", 0.41, 1.18, "low", "tall"),
    thickness=Range("thickness", 0.06, 0.16),
    count=Count("legs", (4, 6), "leg"),
    form=Choice("top", ("rectangular", "oval"), "top"),
) -> Pieces:
    if form == "oval":
        top = cylinder(1.0, thickness, 32).scale(0.55 * length, 1, 0.5)
    else:
        top = box(length, thickness, 0.95, 0.02)
    leg = box(0.1, height, 0.1)
    reach = 0.36 * length if form == "oval" else length / 2 - 0.1
    legs = row(leg.move(0, 0, 0.3) + leg.move(0, 0, -0.3), count // 2, (2 * reach / (count // 2 - 1), 0, 0))
    yield "top", "main", top.move(0, height)
    yield "legs", "body", legs


@furniture("coffee table", "side table", parts=("foot",), patterns=(*TIMBER, "marble"))
def _coffee_table(
    radius=Range("radius", 0.5, 0.9, "small", "wide"),
    height=Range("height", 0.29, 0.94, "low", "tall"),
    foot=Range("foot", 0.3, 0.6),
) -> Pieces:
    stem = lathe([(0, 0), (foot, 0), (foot, 0.05), (0.09, 0.12), (0.07, 0.5 * height), (0.16, height), (0, height)])
    top = lathe([(0, 0), (radius - 0.02, 0), (radius, 0.03), (radius, 0.07), (0, 0.07)], 32).move(0, height)
    yield "top", "main", top
    yield "foot", "body", stem


@furniture("bookshelf", "shelf", "bookcase", parts=("shelves", "books"))
def _bookshelf(
    w=WIDTH,
    height=HEIGHT,
    d=Range("depth", 0.25, 0.45),
    shelves=Count("shelves", (2, 3, 4, 5), "shelf"),
) -> Pieces:
    h = 1.3 * height
    sides = box(0.06, h, d).move(w / 2, 0, 0).mirror()
    gap = (h - 0.06) / shelves
    yield "case", "main", join([sides, box(w + 0.06, 0.06, d).move(0, h, 0), box(w, h, 0.03).move(0, 0, -d / 2)])
    yield "shelves", "body", row(box(w, 0.05, d), shelves, (0, gap, 0), centred=False)
    for n in sorted(range(4 * shelves), key=lambda n: (n + n // 4 + 1) % 2):  # every other one of a shelf, red first
        shelf, i = divmod(n, 4)
        tall = gap * (0.55 + 0.08 * ((3 * i + shelf) % 4))
        book = box(0.09 * w, tall, 0.7 * d).move(-0.36 * w + 0.115 * w * (i + (shelf % 2) * 2.4), 0.05 + shelf * gap, 0)
        yield "books", "red" if (i + shelf) % 2 else "blue", book


@furniture("dresser", "chest of drawers", "cabinet", parts=("drawers", "knobs", "feet"), accent="drawers")
def _dresser(
    w=WIDTH,
    h=HEIGHT,
    d=Range("depth", 0.4, 0.7),
    drawers=Count("drawers", (2, 3, 4, 5), "drawer"),
) -> Pieces:
    step = (h - 0.1) / drawers
    front = box(0.88 * w, 0.78 * step, 0.06, 0.02)
    knob = sphere(0.045, 7, 10)
    knobs = row(knob, drawers, (0, step, 0), centred=False).move(0.2 * w, 0.22 + 0.39 * step, d / 2 + 0.05).mirror()
    feet = join([box(0.1, 0.16, 0.1).move(x * (w / 2 - 0.07), 0, z * (d / 2 - 0.07)) for x in (-1, 1) for z in (-1, 1)])
    yield "case", "main", box(w, h, d, 0.02).move(0, 0.14)
    yield "drawers", "accent", row(front, drawers, (0, step, 0), centred=False).move(0, 0.22, d / 2)
    yield "knobs", "dark brown", knobs
    yield "feet", "body", feet


@furniture("bed", "double bed", parts=("pillows", "headboard", "blanket"), accent="headboard", patterns=EVERY)
def _bed(
    width=WIDTH,
    headboard=Range("headboard", 0.4, 1.0, "low", "high"),
    n=Range("length", 1.5, 2.0),
    pillows=Count("pillows", (1, 2, 3), "pillow"),
) -> Pieces:
    w = 1.25 * width
    each = 0.9 * w / pillows
    yield "frame", "body", box(w + 0.08, 0.2, n + 0.08).move(0, 0.12)
    yield from _four_legs(w, n, 0.14, 0.1)
    yield "headboard", "accent", box(w + 0.1, headboard + 0.2, 0.09, 0.03).move(0, 0.12, -n / 2 - 0.04)
    yield "mattress", "white", box(w, 0.2, n, 0.05).move(0, 0.3)
    yield "blanket", "main", box(w + 0.06, 0.22, 0.66 * n, 0.05).move(0, 0.31, 0.17 * n)
    yield "pillows", "white", row(box(0.9 * each, 0.14, 0.34, 0.06).move(0, 0.48, -n / 2 + 0.28), pillows, (each, 0, 0))


@furniture("sofa", "couch", parts=("cushions", "armrests"), accent="cushions", patterns=EVERY)
def _sofa(
    n=Range("length", 1.07, 2.6, "short", "long"),
    back=Range("back", 0.35, 0.7),
    d=Range("depth", 0.7, 0.95),
    cushions=Count("cushions", (2, 3, 4), "cushion"),
    arms=Choice("arms", ("round", "square"), "armrests"),
) -> Pieces:
    each = n / cushions
    if arms == "round":
        arm = rod((0, 0.58, -d / 2), (0, 0.58, d / 2), 0.15, sides=14) + box(0.22, 0.5, d).move(0, 0.08)
    else:
        arm = box(0.26, 0.62, d, 0.05).move(0, 0.08)
    yield "base", "main", box(n + 0.2, 0.26, d, 0.03).move(0, 0.08)
    yield "back", "main", box(n + 0.2, back + 0.4, 0.2, 0.07).move(0, 0.1, -d / 2)
    yield "armrests", "main", arm.move(n / 2 + 0.12).mirror()
    yield "cushions", "accent", row(box(0.96 * each, 0.18, d - 0.2, 0.06).move(0, 0.32, 0.08), cushions, (each, 0, 0))
    yield from _four_legs(n + 0.2, d, 0.09, 0.09)


@furniture("armchair", "easy chair", parts=("armrests", "cushion", "legs"), accent="cushion", patterns=EVERY)
def _armchair(
    width=WIDTH,
    back=Range("back", 0.5, 1.0, "low-backed", "high-backed"),
    d=Range("depth", 0.7, 0.9),
) -> Pieces:
    w = 0.8 * width
    yield "base", "main", box(w, 0.24, d, 0.05).move(0, 0.2)
    yield "back", "main", box(w + 0.1, back + 0.35, 0.22, 0.1).turn("x", -10).move(0, 0.2, -d / 2)
    yield "legs", "dark brown", around(rod((0, 0.25, 0.3), (0, 0, 0.42), 0.05, 0.03), 4, 45)
    yield "armrests", "main", box(0.2, 0.5, d, 0.09).move(w / 2 + 0.08, 0.2).mirror()
    yield "cushion", "accent", box(w - 0.05, 0.17, d - 0.15, 0.07).move(0, 0.42, 0.07)


@furniture("bench", "park bench", parts=("planks", "legs"))
def _bench(
    n=Range("length", 0.98, 2.83, "short", "long"),
    h=Range("height", 0.4, 0.6),
    back=Range("back", 0.35, 0.6),
    planks=Count("planks", (2, 3, 4), "plank"),
) -> Pieces:
    rail = box(n, 0.75 * back / planks, 0.05)
    posts = [box(0.07, h, 0.07).move(0, 0, 0.22), box(0.07, h + back + 0.1, 0.07).move(0, 0, -0.35)]
    yield "seat", "main", row(box(n, 0.05, 0.4 / planks).move(0, h, 0), planks, (0, 0, 0.5 / planks))
    yield "planks", "main", row(rail, planks, (0, back / planks, 0), centred=False).move(0, h + 0.12, -0.3)
    yield "legs", "black", join([*posts, box(0.07, 0.06, 0.6).move(0, h - 0.06, -0.06)]).move(n / 2 - 0.15).mirror()


@painted(
    patterns=("plain", "wood", "horizontal stripes", "diagonal stripes", "gradient", "dots"),
    colors=(*PAINTS, "light brown"),
)
@furniture("ladder", "step ladder", parts=("rungs",), accent="rungs")
def _ladder(
    h=Range("height", 0.98, 2.83, "short", "tall"),
    width=Range("width", 0.4, 0.75, "narrow", "wide"),
    lean=Range("lean", 0.1, 0.5),
    rungs=Count("rungs", (3, 4, 5, 6, 7), "rung"),
) -> Pieces:
    rail = sweep([(0, 0, lean), (0, h, 0)], 1.0, section=[(-0.05, -0.06), (0.05, -0.06), (0.05, 0.06), (-0.05, 0.06)])
    levels = [(h * t, lean * (1 - t)) for t in (np.arange(rungs) + 0.7) / (rungs + 0.4)]
    yield "rails", "main", rail.move(width / 2).mirror()
    yield "rungs", "accent", join([rod((-width / 2, y, z), (width / 2, y, z), 0.045) for y, z in levels])


@painted(colors=(*PAINTS, *WOODS[:1]))
@furniture("cradle", "baby crib", parts=("bars", "mattress", "rockers"), accent="mattress")
def _cradle(
    n=Range("length", 0.82, 1.77, "short", "long"),
    h=Range("height", 0.4, 0.7),
    w=Range("width", 0.5, 0.8),
    count=Count("bars", (4, 5, 6, 7), "bar"),
) -> Pieces:
    bars = row(box(0.06, h, 0.05), count, (0.88 * n / count, 0, 0)).move(0, 0.25, w / 2)
    rail = box(n, 0.08, 0.08).move(0, 0.25 + h, w / 2)
    yield "bars", "body", join([bars, bars.scale(z=-1)])
    yield "rails", "body", join([rail, rail.scale(z=-1)])
    yield "ends", "main", box(0.07, h + 0.2, w + 0.08, 0.02).move(n / 2, 0.22, 0).mirror()
    yield "mattress", "accent", box(n - 0.08, 0.2, w - 0.06, 0.06).move(0, 0.25)
    yield "rockers", "body", sweep(lay(arc(1.2, 245, 295, 12, (0, 1.24)), "zy"), 0.05).move(0.4 * n).mirror()
