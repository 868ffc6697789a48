"""Musical instruments."""

import numpy as np

from .model import METALS, PAINTS, TIMBER, Choice, Count, Pieces, Range, contrasting, in_group, painted
from .shapes import arc, around, curve, extrude, join, lathe, lay, line, row, sweep, turned
from .solids import box, cylinder, ellipsoid, rod, sphere, torus

instrument = in_group("musical instruments")


@painted(patterns=TIMBER, colors=(*PAINTS, "light brown"))
@instrument("guitar", "acoustic guitar", parts=("neck", "strings"), accent="neck")
def _guitar(
    s=Range("body", 0.7, 0.95),
    n=Range("neck_length", 0.57, 1.3, "short-necked", "long-necked"),
    waist=Range("waist", 0.6, 0.85),
    strings=Count("strings", (4, 6), "string"),
) -> Pieces:
    side = [(0, 0), (0.36, 0.06), (0.46, 0.3), (0.42 * waist * 1.1, 0.58), (0.36, 0.8), (0.2, 0.97), (0, 1.0)]
    half = curve(side, 22) * [s, s]
    head = extrude([(-0.06, 0), (0.06, 0), (0.11, 0.24), (-0.11, 0.24)], 0.06).move(0, s - 0.06 + n, 0.09)
    places = [(side * 0.13, s + n + 0.02 + 0.07 * i, 0.09) for side in (-1, 1) for i in range(strings // 2)]
    string = rod((0, 0.24 * s, 0.17), (0, s + n, 0.15), 0.007, sides=4)
    yield "body", "main", extrude(np.concatenate([half, half[-2:0:-1] * [-1, 1]]), 0.22, 0.02)
    yield "neck", "accent", box(0.15, n, 0.07).move(0, s - 0.06, 0.1)
    yield "head", "accent", head
    yield "pegs", "silver", join([sphere(0.03, 6, 8).move(*place) for place in places])
    yield "strings", "silver", row(string, strings, (0.12 / (strings - 1), 0, 0))
    yield "sound hole", "black", cylinder(0.14 * s, 0.02).turn("x", 90).move(0, 0.62 * s, 0.1)
    yield "bridge", "dark brown", box(0.3 * s, 0.05, 0.05).move(0, 0.22 * s, 0.13)


@instrument("drum", "snare drum", parts=("rods", "drumsticks"), accent="hoops", colors=contrasting("silver"))
def _drum(
    r=Range("radius", 0.4, 0.7, "narrow", "wide"),
    h=Range("height", 0.25, 1.18, "shallow", "deep"),
    hoop_size=Range("hoop", 0.05, 0.1),
    rods=Count("rods", (4, 6, 8, 10), "tension rod"),
) -> Pieces:
    hoop = lathe([(r - 0.03, 0), (r + 0.04, 0), (r + 0.04, hoop_size), (r - 0.03, hoop_size)])
    end = (0.8 * r, 0.07, -0.1)
    stick = rod((-0.55 * r, 0.05, 0.15), end, 0.025, 0.018) + sphere(0.04, 7, 10).move(*end)
    yield "shell", "main", lathe([(r, 0), (r, h)])
    yield "head", "white", cylinder(r, 0.02).move(0, h - 0.01)
    yield "head", "white", cylinder(r, 0.02)
    yield "hoops", "accent", hoop + hoop.move(0, h - hoop_size / 2)
    yield "rods", "silver", around(rod((0, 0, r + 0.03), (0, h, r + 0.03), 0.022), rods)
    yield "drumsticks", "light brown", stick.move(0, h + 0.03, 0) + stick.turn("y", 55).move(0, h + 0.06, 0.1)


@instrument("xylophone", "glockenspiel", parts=("bars", "mallet"), accent="mallet", patterns=TIMBER)
def _xylophone(
    n=Range("length", 0.98, 2.24, "short", "long"),
    width=Range("width", 0.6, 1.0, "narrow", "wide"),
    taper=Range("taper", 0.4, 0.75),
    count=Count("bars", (4, 5, 6, 7, 8), "bar"),
) -> Pieces:
    step = n / count
    wide = [width * (1 - (1 - taper) * i / (count - 1)) for i in range(count)]
    bars = [box(0.72 * step, 0.06, z, 0.02).move(step * (i - (count - 1) / 2), 0.16) for i, z in enumerate(wide)]
    rail = sweep([(-n / 2, 0.08, 0.33 * width), (n / 2, 0.08, 0.33 * width * taper)], 0.06)
    mallet = rod((-0.4 * n, 0.3, 0.2), (0.25 * n, 0.27, -0.15), 0.02), sphere(0.08, 9, 12).move(0.25 * n, 0.28, -0.15)
    yield "bars", "main", join(bars)
    yield "frame", "dark brown", rail + rail.scale(z=-1)
    yield "stick", "light brown", mallet[0]
    yield "mallet", "accent", mallet[1]


@painted(
    patterns=("plain", "gradient", "horizontal stripes", "diagonal stripes", "dots", "stars", "speckles"),
    colors=(*METALS, "red", "blue", "black", "white", "green", "purple"),
)
@instrument("trumpet", "cornet", parts=("valves", "mouthpiece", "bell"), accent="valves")
def _trumpet(
    n=Range("length", 0.98, 2.12, "short", "long"),
    b=Range("bell", 0.2, 0.36, "", "wide-belled"),
    loop=Range("loop", 0.12, 0.22),
    valves=Count("valves", (2, 3, 4), "valve"),
) -> Pieces:
    bell = turned([(0.045, 0), (0.055, 0.3), (0.1, 0.5), (b, 0.66)], 14)
    bell = bell + turned([(b - 0.012, 0.66), (0.08, 0.5), (0.04, 0.3)], 8)
    valve = cylinder(0.065, 2 * loop + 0.1, 14).move(0, -2 * loop - 0.05)
    valve = valve + cylinder(0.025, 0.14, 8).move(0, 0.05) + cylinder(0.055, 0.03, 12).move(0, 0.18)
    mouth = lathe(curve([(0.03, 0), (0.04, 0.06), (0.09, 0.14)], 8)) + lathe([(0.09, 0.14), (0.02, 0.08)])
    yield "bell", "main", bell.turn("z", -90).move(n / 2 - 0.62)
    yield "tube", "main", rod((-n / 2, 0, 0), (n / 2 - 0.6, 0, 0), 0.04)
    yield "tube", "main", rod((-0.3 * n, -2 * loop, 0), (0.22 * n, -2 * loop, 0), 0.04)
    yield "tube", "main", sweep(lay(arc(loop, -90, 90, 10, (0.22 * n, -loop)), "xy"), 0.04)
    yield "tube", "main", sweep(lay(arc(loop, 90, 270, 10, (-0.3 * n, -loop)), "xy"), 0.04)
    yield "valves", "accent", row(valve, valves, (0.16, 0, 0)).move(-0.04 * n)
    yield "mouthpiece", "silver", mouth.turn("z", 90).move(-n / 2)


@instrument("piano", "upright piano", parts=("keys", "pedals"), patterns=TIMBER, colors=(*PAINTS, "dark brown"))
def _piano(
    w=Range("width", 1.2, 1.7, "narrow", "wide"),
    h=Range("height", 0.74, 1.65, "low", "tall"),
    d=Range("depth", 0.35, 0.55),
    pedals=Count("pedals", (2, 3), "pedal"),
) -> Pieces:
    n = 14
    sharps = [i - 6 for i in range(n - 1) if i % 7 not in (2, 6)]
    black = join([box(0.45 * w / n, 0.05, 0.14).move(0.9 * w / n * i, 0.63, d / 2 + 0.08) for i in sharps])
    legs = box(0.09, 0.5, 0.09).move(w / 2 - 0.08, 0, d / 2 + 0.24).mirror()
    cheeks = box(0.05 * w, 0.18, 0.34).move(0.475 * w, 0.56, d / 2 + 0.13).mirror()
    yield "case", "main", box(w, h, d, 0.02)
    yield "top", "body", box(w + 0.06, 0.05, d + 0.06, 0.02).move(0, h)
    yield "keyboard shelf", "body", join([box(w, 0.1, 0.34).move(0, 0.5, d / 2 + 0.13), legs, cheeks])
    yield "keys", "white", row(box(0.9 * w / n * 0.92, 0.05, 0.24), n, (0.9 * w / n, 0, 0)).move(0, 0.6, d / 2 + 0.13)
    yield "keys", "black", black
    yield "pedals", "golden", row(box(0.07, 0.03, 0.16).move(0, 0.06, d / 2 + 0.06), pedals, (0.14, 0, 0))


@instrument("maraca", "rattle", parts=("handle",), accent="handle")
def _maraca(
    radius=Range("radius", 0.3, 0.48, "", "fat"),
    stretch=Range("stretch", 1.0, 1.4, "round", "egg-shaped"),
    n=Range("handle_length", 0.49, 1.42, "short-handled", "long-handled"),
) -> Pieces:
    yield "head", "main", ellipsoid(radius, radius * stretch, radius, 17, 26).move(0, n + radius * stretch - 0.03)
    yield "handle", "accent", turned([(0.0, 0), (0.1, 0.03), (0.075, 0.2), (0.06, 0.6 * n), (0.08, n + 0.05)], 16, 14)


@instrument("bell", "hand bell", parts=("handle", "clapper"), accent="handle", colors=(*METALS, *PAINTS))
def _bell(
    h=Range("height", 0.49, 1.18, "squat", "tall"),
    m=Range("mouth", 0.36, 0.6, "narrow", "wide"),
    n=Range("handle_length", 0.16, 0.83, "", "long-handled"),
    form=Choice("grip", ("straight", "ring"), "handle"),
) -> Pieces:
    profile = curve([(m, 0), (0.72 * m, 0.25 * h), (0.55 * m, 0.6 * h), (0.42 * m, 0.88 * h), (0, h)], 22)
    inside = lathe(np.concatenate([(profile - [0.03, 0.03]).clip([0, 0], None)[::-1], [(m, 0)]]), planar=False)
    if form == "straight":
        grip = turned([(0.05, 0), (0.09, 0.15 * n), (0.06, 0.6 * n), (0.1, 0.9 * n), (0, n + 0.08)], 14, 14)
    else:
        grip = torus(0.5 * n, 0.05).turn("x", 90).move(0, 0.5 * n)
    yield "body", "main", lathe(profile, planar=False)
    yield "inside", "inside", inside
    yield "clapper", "black", sphere(0.12, 9, 14).move(0, 0.02)
    yield "handle", "accent", grip.move(0, h - 0.03)


@painted(patterns=TIMBER, colors=(*contrasting("black"), "light brown", *METALS))
@instrument("flute", "recorder", parts=("holes", "mouthpiece"), accent="mouthpiece")
def _flute(
    n=Range("length", 1.23, 2.6, "short", "long"),
    r=Range("radius", 0.05, 0.085, "slim", "thick"),
    flare=Range("flare", 1.1, 1.6),
    holes=Count("holes", (4, 5, 6, 7, 8), "finger hole"),
) -> Pieces:
    f = flare * r
    radii, levels = [0, f, f, r, r, f, f, r, r, 0], [0, 0, 0.06, 0.16, 0.24, 0.26, 0.32, 0.34, 0.8 * n, 0.8 * n]
    beak = lathe([(0, 0), (f, 0), (f, 0.07), (r, 0.1), (r, 0.12 * n), (0.55 * r, 0.2 * n), (0, 0.2 * n)], 20)
    bent = beak.push("z", lambda v: -0.9 * r * np.clip(v[:, 1] / n - 0.12, 0, 1) / 0.08)
    hole = cylinder(0.45 * r, 0.02, 12).turn("x", 90).move(0, 0, r - 0.008)
    yield "body", "main", lathe(line(radii, levels), 20)
    yield "mouthpiece", "accent", bent.move(0, 0.8 * n - 0.02)
    yield "holes", "black", row(hole, holes, (0, 0.46 * n / holes, 0)).move(0, 0.5 * n)
    yield "window", "black", box(0.9 * r, 0.05, 0.03).move(0, 0.9 * n, r - 0.02)
