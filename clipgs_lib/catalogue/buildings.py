"""Buildings."""

import numpy as np

from .model import EVERY, Choice, Count, Pieces, Range, contrasting, in_group, painted
from .shapes import Shape, arc, around, extrude, join, lathe, lay, row, slab, sweep
from .solids import box, cone, cylinder, rod, sphere, torus

building = in_group("buildings")
WALLS = (*EVERY, "bricks", "wood")
STONY = (*EVERY, "bricks", "marble")
_LINES = ("horizontal stripes", "vertical stripes")
FACADES = ("grid", "plain", *_LINES, "checks", "gradient", "bricks", "diagonal stripes", "zigzag")


def _gable(x: float, z: float, height: float, over: float = 0.08) -> Shape:
    """Pitched roof over an ``x`` by ``z`` floor, ridge along z."""
    return extrude([(-x / 2 - over, 0), (x / 2 + over, 0), (0, height)], z + 2 * over)


@painted(patterns=WALLS, colors=contrasting("light blue"))
@building("house", "cottage", parts=("roof", "door", "chimney", "windows"), accent="roof")
def _house(
    w=Range("width", 0.8, 1.5, "narrow", "wide"),
    h=Range("height", 0.41, 1.3, "low", "tall"),
    roof=Range("roof", 0.35, 0.7, "flat-roofed", "steep-roofed"),
    windows=Count("windows", (2, 4, 6), "window"),
) -> Pieces:
    d = 0.9
    step = 0.4 * w / (windows // 2)
    window = box(0.6 * step + 0.03, 0.26 * h, 0.04).move(0, 0.55 * h, d / 2)
    places = [side * (0.12 * w + step * (i + 0.5)) for side in (-1, 1) for i in range(windows // 2)]
    yield "walls", "main", box(w, h, d)
    yield "roof", "accent", _gable(w, d, roof).move(0, h)
    yield "chimney", "maroon", box(0.15, 0.8 * roof, 0.15).move(0.27 * w, h + 0.25 * roof, -0.1)
    yield "door", "dark brown", box(0.17 * w, 0.5 * h, 0.05).move(0, 0, d / 2)
    yield "windows", "light blue", join([window.move(x) for x in places])


@building("castle", "fortress", parts=("towers", "gate", "walls"), accent="roofs", patterns=STONY)
def _castle(
    w=Range("width", 1.0, 1.5, "narrow", "wide"),
    t=Range("tower", 0.66, 1.77, "low", "tall"),
    roof=Range("roof", 0.25, 0.55),
    towers=Count("towers", (2, 3, 4), "tower"),
) -> Pieces:
    tower = lathe([(0, 0), (0.2, 0), (0.2, t), (0.24, t), (0.24, t + 0.12), (0, t + 0.12)])
    corners = [(-w / 2, w / 2), (w / 2, w / 2), (0.0, -w / 2), (w / 2, -w / 2)][:towers]
    if towers == 4:
        corners[2] = (-w / 2, -w / 2)
    along, edge = np.linspace(-w / 2 + 0.05, w / 2 - 0.05, 6), w / 2 - 0.05
    places = [(x, s * edge) for x in along for s in (-1, 1)] + [(s * edge, z) for z in along[1:-1] for s in (-1, 1)]
    gate = join([box(0.26, 0.22, 0.04), cylinder(0.13, 0.04).turn("x", 90).move(0, 0.22, -0.02)]).move(0, 0, w / 2)
    yield "towers", "main", join([tower.move(x, 0, z) for x, z in corners])
    yield "roofs", "accent", join([cone(0.28, 0.01, roof).move(x, t + 0.12, z) for x, z in corners])
    yield "walls", "main", box(w, 0.5 * t, w)
    yield "battlements", "body", join([box(0.1, 0.1, 0.1).move(x, 0.5 * t, z) for x, z in places])
    yield "gate", "dark brown", gate


@painted(patterns=STONY, colors=contrasting("navy"))
@building("lighthouse", "light tower", parts=("roof", "gallery", "door", "windows"), accent="roof")
def _lighthouse(
    h=Range("height", 0.98, 2.36, "short", "tall"),
    r=Range("radius", 0.3, 0.45, "slender", "wide"),
    taper=Range("taper", 0.5, 0.85),
    windows=Count("windows", (1, 2, 3, 4), "window"),
) -> Pieces:
    t = r * taper
    levels = 0.36 + 0.56 * (np.arange(windows) + 0.5) / windows
    bar = rod((0, h + 0.05, 1.2 * t), (0, h + 0.17, 1.2 * t), 0.015, sides=5)
    yield "tower", "main", lathe([(r, 0), (t, h)])
    yield "base", "gray", lathe([(0, -0.1), (1.3 * r, -0.1), (1.2 * r, 0), (0, 0)])
    yield "gallery", "black", cylinder(1.25 * t, 0.06).move(0, h)
    yield "gallery", "black", torus(1.2 * t, 0.02).move(0, h + 0.17) + around(bar, 10)
    yield "lamp", "yellow", cylinder(0.6 * t, 0.25).move(0, h + 0.06)
    yield "roof", "accent", cone(0.8 * t, 0.02, 0.28).move(0, h + 0.31)
    yield "door", "dark brown", box(0.18, 0.3, 0.08).move(0, 0, r - 0.03)
    yield "windows", "navy", join([box(0.1, 0.11, 0.06).move(0, y * h, r + (t - r) * y) for y in levels])


@building("windmill", "mill", parts=("sails", "cap", "door"), accent="cap", patterns=WALLS)
def _windmill(
    h=Range("height", 0.74, 1.77, "short", "tall"),
    r=Range("radius", 0.35, 0.55, "slender", "wide"),
    s=Range("sail", 0.6, 0.95, "", "long-sailed"),
    count=Count("sails", (3, 4, 5, 6), "sail"),
) -> Pieces:
    blade = box(0.05, s, 0.03) + box(0.2, 0.75 * s, 0.02).move(0.1, 0.24 * s, 0)
    sails = join([blade.turn("z", 20 + 360 * i / count) for i in range(count)]).move(0, h, 0.62 * r + 0.15)
    yield "tower", "main", lathe([(0, 0), (r, 0), (0.6 * r, h)])
    yield "cap", "accent", sphere(0.66 * r, 11, 22).scale(y=0.9).move(0, h)
    yield "axle", "dark brown", rod((0, h, 0), (0, h, 0.62 * r + 0.2), 0.05)
    yield "sails", "beige", sails
    yield "door", "dark brown", box(0.2, 0.34, 0.08).move(0, 0, r - 0.06)


@building("tent", "camping tent", parts=("flags", "entrance", "poles"), accent="flags")
def _tent(
    n=Range("length", 0.82, 2.12, "short", "long"),
    w=Range("width", 0.9, 1.4, "narrow", "wide"),
    h=Range("height", 0.49, 1.3, "low", "tall"),
    flags=Count("flags", (1, 2, 3), "flag"),
) -> Pieces:
    places, flag = np.linspace(n / 2, -n / 2, flags + 1)[:flags], extrude([(0, 0), (0.26, 0.08), (0, 0.16)], 0.02)
    yield "canvas", "main", extrude([(-w / 2, 0), (w / 2, 0), (0, h)], n)
    yield "entrance", "black", extrude([(-0.2 * w, 0), (0.2 * w, 0), (0, 0.72 * h)], 0.02).move(0, 0, n / 2)
    yield "poles", "gray", join([rod((0, 0, z), (0, h + 0.34, z), 0.02) for z in places])
    yield "flags", "accent", join([flag.move(0, h + 0.18, z) for z in places])


@painted(
    patterns=("plain", "marble", "gradient", "speckles", "vertical stripes", "horizontal stripes", "zigzag", "checks")
)
@building("temple", "greek temple", parts=("columns", "steps", "roof"), accent="roof")
def _temple(
    n=Range("length", 0.82, 2.01, "short", "long"),
    c=Range("column", 0.41, 1.12, "low", "tall"),
    pediment=Range("pediment", 0.2, 0.4),
    count=Count("columns", (4, 6, 8, 10), "column"),
) -> Pieces:
    w = 0.9
    column = lathe([(0.11, 0), (0.11, 0.05), (0.08, 0.07), (0.065, c - 0.07), (0.11, c - 0.04), (0.11, c)], 18)
    k = count // 2
    columns = row(column, k, ((n - 0.16) / (k - 1), 0, 0))
    yield "steps", "body", box(n + 0.3, 0.08, w + 0.3) + box(n + 0.15, 0.08, w + 0.15).move(0, 0.08)
    yield "columns", "main", join([columns.move(0, 0.16, 0.38), columns.move(0, 0.16, -0.38)])
    yield "beam", "body", box(n + 0.1, 0.1, w + 0.1).move(0, c + 0.16)
    yield "roof", "accent", extrude([(-n / 2 - 0.1, 0), (n / 2 + 0.1, 0), (0, pediment)], w + 0.2).move(0, c + 0.26)
    yield "cella", "body", box(0.75 * n, c, 0.4).move(0, 0.16)


@painted(patterns=WALLS, colors=contrasting("light blue"))
@building("church", "chapel", parts=("spire", "door", "windows", "cross"), accent="roof")
def _church(
    n=Range("length", 0.74, 1.77, "short", "long"),
    t=Range("tower", 0.74, 1.65, "low-towered", "high-towered"),
    s=Range("spire", 0.4, 0.9, "", "pointed"),
    count=Count("windows", (2, 3, 4), "side window"),
) -> Pieces:
    z = n / 2 + 0.14
    yield "walls", "main", box(0.7, 0.6, n)
    yield "tower", "main", box(0.42, t, 0.42).move(0, 0, z)
    yield "roof", "accent", _gable(0.7, n, 0.4, 0.05).move(0, 0.6)
    yield "spire", "accent", lathe([(0.36, 0), (0.01, s)], 4).turn("y", 45).move(0, t, z)
    yield "cross", "golden", box(0.03, 0.2, 0.03).move(0, t + s, z) + box(0.12, 0.03, 0.03).move(0, t + s + 0.1, z)
    yield "door", "dark brown", box(0.2, 0.32, 0.04).move(0, 0, z + 0.21)
    yield "windows", "light blue", row(box(0.74, 0.26, 0.1).move(0, 0.2), count, (0, 0, n / (count + 0.5)))


@painted(patterns=FACADES)
@building("skyscraper", "high-rise", "office tower", parts=("antenna", "entrance", "roof"), accent="roof")
def _skyscraper(
    height=Range("height", 1.15, 2.6, "", "very tall"),
    width=Range("width", 0.45, 0.75, "slender", "wide"),
    setback=Range("setback", 0.6, 0.9),
    sections=Count("sections", (1, 2, 3), "stepped section"),
) -> Pieces:
    part = height / sections
    widths = [width * setback**i for i in range(sections)]
    caps = join([box(w + 0.04, 0.04, 0.9 * w + 0.04).move(0, part * (i + 1) - 0.02) for i, w in enumerate(widths)])
    yield "sections", "main", join([box(w, part, 0.9 * w).move(0, part * i) for i, w in enumerate(widths)])
    yield "roof", "accent", caps
    yield "antenna", "silver", rod((0, height, 0), (0, height + 0.4, 0), 0.03, 0.008)
    yield "entrance", "navy", box(0.4 * width, 0.16, 0.04).move(0, 0, 0.45 * width)


@painted(patterns=("bricks", "plain", "marble", "speckles", "checks", "gradient", "horizontal stripes", "zigzag"))
@building("water well", "well", parts=("roof", "posts", "bucket"), accent="roof")
def _water_well(
    r=Range("radius", 0.4, 0.6, "narrow", "wide"),
    h=Range("wall", 0.35, 0.65, "low", "tall"),
    roof_size=Range("roof", 0.3, 0.5),
    roof_form=Choice("roof_form", ("pitched", "conical"), "roof"),
) -> Pieces:
    roof = _gable(2 * r, 0.7, roof_size, 0.06) if roof_form == "pitched" else cone(1.25 * r, 0.02, roof_size)
    bar = rod((-r, h + 0.5, 0), (r, h + 0.5, 0), 0.05) + rod((0, h + 0.05, 0), (0, h + 0.5, 0), 0.015)
    yield "wall", "main", lathe([(0, 0), (r, 0), (r, h), (r - 0.1, h), (r - 0.1, 0.05), (0, 0.05)], 26)
    yield "water", "blue", cylinder(r - 0.1, 0.02).move(0, 0.6 * h)
    yield "posts", "brown", box(0.07, 0.75, 0.07).move(r - 0.05, h - 0.02).mirror()
    yield "roof", "accent", roof.move(0, h + 0.7)
    yield "winch", "dark brown", bar
    yield "bucket", "silver", cone(0.09, 0.13, 0.18, 16).move(0, h - 0.1)


@building("bridge", "stone bridge", parts=("arches", "railings"), accent="railings", patterns=STONY)
def _bridge(
    n=Range("length", 1.31, 2.83, "short", "long"),
    h=Range("height", 0.41, 1.06, "low", "tall"),
    d=Range("deck", 0.4, 0.7),
    arches=Count("arches", (1, 2, 3, 4), "arch"),
) -> Pieces:
    span = n / arches
    rise = min(0.42 * span, h - 0.16)
    curve_xy = arc(1.0, 180, 0, 16) * [0.42 * span, rise]
    low = np.concatenate([[(-0.5 * span, 0)], curve_xy, [(0.5 * span, 0)]])
    arch = slab(low, np.stack([low[:, 0], np.full(len(low), h - 0.1)], axis=1), d)
    rim = sweep(lay(curve_xy, "xy"), 0.03, 6)
    rails = box(n, 0.12, 0.05).move(0, h, d / 2 - 0.03)
    yield "arches", "main", row(arch, arches, (span, 0, 0))
    yield "trim", "body", row(rim.move(0, 0, d / 2) + rim.move(0, 0, -d / 2), arches, (span, 0, 0))
    yield "road", "gray", box(n, 0.1, d).move(0, h - 0.1)
    yield "railings", "accent", rails + rails.scale(z=-1)


@painted(patterns=WALLS, colors=(*contrasting("black"), "light brown"))
@building("birdhouse", "nesting box", parts=("holes", "roof", "post", "perches"), accent="roof")
def _birdhouse(
    w=Range("width", 0.5, 0.8, "narrow", "wide"),
    h=Range("height", 0.41, 1.06, "low", "tall"),
    t=Range("post", 0.5, 1.1, "", "high-mounted"),
    holes=Count("holes", (1, 2, 3), "hole"),
) -> Pieces:
    spots = [t + h * y for y in (np.arange(holes) + 0.75) / (holes + 0.4)]
    size = min(0.13, 0.3 * h / holes)
    yield "box", "main", box(w, h, 0.66).move(0, t)
    yield "roof", "accent", _gable(w, 0.66, 0.32, 0.1).move(0, t + h)
    yield "holes", "black", join([cylinder(size, 0.04, 20).turn("x", 90).move(0, y, 0.32) for y in spots])
    yield "post", "brown", cylinder(0.06, t)
    yield "foot", "brown", cylinder(0.25, 0.05)
    yield "perches", "dark brown", join([rod((0, y - 1.3 * size, 0.3), (0, y - 1.3 * size, 0.48), 0.02) for y in spots])
