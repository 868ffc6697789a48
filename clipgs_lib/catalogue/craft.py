"""Vehicles of water, air and space."""

import numpy as np

from .model import Count, Pieces, Range, contrasting, in_group, painted
from .shapes import Shape, arc, around, curve, extrude, join, lathe, line, row, sweep, turned
from .solids import box, cone, cylinder, ellipsoid, rod, torus, wheel

vehicle = in_group("vehicles")


@vehicle("airplane", "plane", "aeroplane", parts=("wings", "engines", "tail"), accent="wings")
def _airplane(
    n=Range("length", 1.31, 2.83, "short", "long"),
    span=Range("span", 1.4, 2.4, "short-winged", "wide-winged"),
    sweep=Range("sweep", 0.0, 0.5),
    engines=Count("engines", (2, 4), "engine"),
) -> Pieces:
    s = span / 2
    half = [(0.01, -n / 2), (0.09, -0.3 * n), (0.16, 0), (0.16, 0.3 * n), (0.1, 0.45 * n), (0.01, n / 2)]

    def wing(reach: float, root: float, tip: float, back: float) -> Shape:
        outline = [(0.0, root / 2), (0.0, -root / 2), (reach, -back - tip / 2), (reach, tip / 2 - back)]
        return extrude(outline, 0.05).turn("x", 90).mirror()

    tail = extrude([(-0.34, 0), (0, 0), (-0.2, 0.4), (-0.38, 0.4)], 0.05).turn("y", -90).move(0, 0.08, -n / 2 + 0.05)
    ends = [arc(0.075, -90, 0, 5, (0, 0.075 - 0.17)), arc(0.075, 0, 90, 5, (0, 0.17 - 0.075))]
    engine = lathe(np.concatenate(ends), 14, planar=False).turn("x", 90)
    at = np.array([0.4]) if engines == 2 else np.array([0.3, 0.62])
    yield "fuselage", "main", turned(half, 20).turn("x", 90)
    yield "wings", "accent", wing(s, 0.46, 0.2, sweep).move(0, -0.03, 0.05)
    yield "tail", "accent", tail.turn("y", 0)
    yield "tail", "accent", wing(0.4, 0.26, 0.14, 0.12).move(0, 0.05, -0.43 * n)
    yield "engines", "gray", join([engine.move(t * s, -0.09, -sweep * t + 0.1) for t in at]).mirror()
    yield "cockpit", "navy", ellipsoid(0.1, 0.06, 0.14).move(0, 0.12, 0.34 * n)


@vehicle("rocket", "space rocket", parts=("fins", "nose cone", "porthole"), accent="fins")
def _rocket(
    h=Range("height", 0.98, 2.6, "short", "tall"),
    r=Range("radius", 0.2, 0.34, "slim", "fat"),
    nose_size=Range("nose", 0.4, 0.9, "", "sharp-nosed"),
    fins=Count("fins", (3, 4, 5, 6), "fin"),
) -> Pieces:
    body = lathe(curve([(0.75 * r, 0.2), (r, 0.2 + 0.35 * h), (0.95 * r, 0.2 + 0.75 * h), (0.8 * r, 0.2 + h)], 14))
    nose = turned([(0.8 * r, 0), (0.5 * r, 0.55 * nose_size), (0, nose_size)], 10).move(0, 0.2 + h)
    fin = extrude([(0.6 * r, 0.25), (1.5 * r + 0.08, 0.0), (1.5 * r + 0.05, 0.25), (0.85 * r, 0.3 + 0.35 * h)], 0.06)
    yield "body", "main", body
    yield "nose cone", "accent", nose
    yield "fins", "accent", around(fin, fins, 90 if fins % 2 == 0 else 30)
    yield "nozzle", "gray", lathe([(0, 0.22), (0.65 * r, 0.05), (0.45 * r, 0.22), (0, 0.22)])
    yield "porthole", "silver", torus(0.4 * r, 0.05, 20, 8).turn("x", 90).move(0, 0.2 + 0.68 * h, 0.93 * r)
    yield "porthole", "light blue", wheel(0.4 * r, 0.06).move(0, 0.2 + 0.68 * h, 0.93 * r)


@vehicle("sailboat", "sailing boat", parts=("sails", "hull", "mast"), accent="hull")
def _sailboat(
    length=Range("length", 0.98, 2.12, "short", "long"),
    m=Range("mast", 0.9, 2.24, "", "tall-masted"),
    beam=Range("beam", 0.35, 0.6),
    sails=Count("sails", (1, 2, 3), "sail"),
) -> Pieces:
    n = length / 2

    def keel(v: np.ndarray) -> np.ndarray:
        narrow = np.sqrt(np.clip(1.02 - (v[:, 0] / n).clip(0, 1) ** 2, 0.0004, 1)) * (0.55 + 0.45 * v[:, 1] / 0.35)
        return np.stack([v[:, 0], v[:, 1] + 0.12 * (v[:, 0] / n).clip(0, 1) ** 2, v[:, 2] * narrow], axis=1)

    t = np.linspace(-n, n, 14)
    cut = [(-0.175, -beam / 2), (0.175, -beam / 2), (0.175, beam / 2), (-0.175, beam / 2)]
    main = [(-0.06, 0.55), (-0.06, m + 0.25), (-0.9 * n, 0.55)]
    jib = [(0.06, 0.5), (0.92 * n, 0.5), (0.06, 0.8 * m + 0.3)]
    top = [(-0.06 - 0.0, m + 0.3), (0.3, m + 0.36), (-0.06, m + 0.42)]
    yield "hull", "accent", sweep(line(t, 0.175, 0), 1.0, section=cut, normal=(0, 0, 1)).warp(keel)
    yield "sails", "main", join([extrude(outline, 0.03) for outline in (main, jib, top)[:sails]])
    yield "mast", "brown", rod((0, 0.3, 0), (0, m + 0.45, 0), 0.035)
    yield "boom", "brown", rod((0, 0.5, 0), (-0.92 * n, 0.5, 0), 0.025)


@vehicle("hot-air balloon", "hot air balloon", parts=("basket", "ropes"), accent="basket")
def _hot_air_balloon(
    r=Range("radius", 0.6, 0.9),
    stretch=Range("stretch", 0.9, 1.35, "round", "tall"),
    drop=Range("drop", 0.3, 0.7),
) -> Pieces:
    t = r * stretch
    basket = lathe([(0, 0), (0.16, 0), (0.2, 0.24), (0.16, 0.24), (0.13, 0.05), (0, 0.05)])
    wide, tall = [0.26 * r, 0.68 * r, r, 0.75 * r, 0.3 * r, 0], [-0.95 * t, -0.55 * t, 0.15 * t, 0.75 * t, 0.97 * t, t]
    low = -0.95 * t - drop
    yield "balloon", "main", turned(line(wide, tall), 26, 28)
    yield "basket", "accent", basket.move(0, low)
    yield "ropes", "dark brown", around(rod((0, low + 0.2, 0.15), (0, -0.95 * t, 0.26 * r), 0.014, sides=5), 6)


@painted(colors=contrasting("golden"))
@vehicle("submarine", "sub", parts=("periscope", "propeller", "portholes", "tower"), accent="tower")
def _submarine(
    length=Range("length", 1.23, 2.71, "short", "long"),
    r=Range("radius", 0.28, 0.42, "slim", "fat"),
    tower_size=Range("tower", 0.2, 0.4),
    portholes=Count("portholes", (2, 3, 4, 5), "porthole"),
) -> Pieces:
    n = length / 2
    t = np.linspace(-np.pi / 2, np.pi / 2, 20)
    step = (1.1 * n / portholes, 0, 0)
    ports = row(torus(0.08, 0.03, 16, 6).turn("x", 90), portholes, step).move(0, 0.06, 0.97 * r)
    glass = row(wheel(0.07, 0.05, 14), portholes, step).move(0, 0.06, 0.97 * r)
    tower = extrude(arc(1, 0, 360, 21)[:-1] * [0.3, 0.14], r + tower_size, 0.03).turn("x", 90)
    scope = sweep(curve([(0, 0, 0), (0, 0.28, 0), (0.03, 0.34, 0), (0.14, 0.35, 0)], 10), 0.03)
    scope = scope.move(0.1 * n, r + tower_size - 0.02)
    blade = ellipsoid(0.02, 0.16, 0.06).move(0, 0.16, 0)
    yield "hull", "main", lathe(line(r * np.cos(t) ** 0.55, n * np.sin(t)), planar=False).turn("z", -90)
    yield "portholes", "golden", ports + ports.scale(z=-1)
    yield "glass", "light blue", glass + glass.scale(z=-1)
    yield "tower", "accent", tower.move(0.1 * n, (r + tower_size) / 2)
    yield "periscope", "gray", scope
    yield "propeller", "golden", join([blade.turn("x", 90 * i) for i in range(4)]).move(-n - 0.05)


@vehicle("helicopter", "chopper", parts=("blades", "skids", "tail"), accent="tail")
def _helicopter(
    n=Range("tail_length", 0.7, 1.2, "", "long-tailed"),
    r=Range("cabin", 0.32, 0.46),
    rotor=Range("rotor", 0.8, 1.3, "", "wide-bladed"),
    blades=Count("blades", (2, 3, 4, 5), "rotor blade"),
) -> Pieces:
    small = join([box(0.03, 0.3, 0.05).turn("z", 90 * i) for i in range(4)])
    skid = sweep([(0.5 * r + 0.25, 0.1, 0), (0.5 * r + 0.12, 0, 0), (-0.5 * r - 0.2, 0, 0)], 0.028).move(0, 0, 0.7 * r)
    legs = rod((0.3 * r, 0, 0.7 * r), (0.25 * r, r, 0.4 * r), 0.022)
    legs = legs + rod((-0.4 * r, 0, 0.7 * r), (-0.35 * r, r, 0.4 * r), 0.022) + skid
    fin = extrude([(0, 0), (0.18, 0), (0.02, 0.32), (-0.12, 0.32)], 0.04).move(-r - n - 0.02, 1.55 * r)
    yield "cabin", "main", ellipsoid(1.35 * r, r, 0.85 * r, 15, 24).move(0, 1.25 * r)
    yield "windscreen", "navy", ellipsoid(0.75 * r, 0.62 * r, 0.72 * r).move(0.68 * r, 1.42 * r)
    yield "tail", "accent", rod((-0.8 * r, 1.35 * r, 0), (-r - n, 1.6 * r, 0), 0.15, 0.05, 12)
    yield "tail", "accent", fin
    yield "blades", "gray", around(box(rotor, 0.025, 0.12).move(rotor / 2), blades).move(0, 2.25 * r + 0.12)
    yield "rotor", "gray", cylinder(0.05, 0.22, 12).move(0, 2.2 * r - 0.05)
    yield "tail rotor", "gray", small.move(-r - n, 1.6 * r, 0.08)
    yield "skids", "black", legs + legs.scale(z=-1)
    yield "hub", "gray", cone(0.1, 0.04, 0.08, 12).move(0, 2.25 * r + 0.08)
