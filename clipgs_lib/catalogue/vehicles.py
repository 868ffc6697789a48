"""Vehicles on wheels."""

import numpy as np

from .model import TIMBER, Choice, Count, Pieces, Range, contrasting, in_group, painted
from .shapes import curve, extrude, join, lathe, line, row, sweep
from .solids import box, cylinder, ellipsoid, rod, sphere, torus, wheel

vehicle = in_group("vehicles")

LENGTH = Range("length", 1.15, 2.6, "short", "long")


def _wheels(radius: float, width: float, xs: np.ndarray | list[float], z: float) -> Pieces:
    """Pairs of wheels with hubs under a vehicle that drives towards +x."""
    tyre, hub = wheel(radius, width), wheel(0.5 * radius, width + 0.03, 14)
    places = [(x, side * z) for x in xs for side in (-1, 1)]
    yield "wheels", "black", join([tyre.move(x, radius, s) for x, s in places])
    yield "hubs", "silver", join([hub.move(x, radius, s) for x, s in places])


@vehicle("car", "automobile", "motor car", parts=("wheels", "windows"), colors=contrasting("navy"))
def _car(
    n=LENGTH,
    roof=Range("roof", 0.24, 0.44, "low", "tall"),
    w=Range("width", 0.7, 0.95),
    body_form=Choice("body_form", ("sedan", "hatchback")),
) -> Pieces:
    r = 0.19
    x = n / 2
    body = [(-x, 0.16), (x, 0.16), (x + 0.03, 0.3), (x - 0.05, 0.42), (0.5 * x, 0.5), (-0.6 * x, 0.52), (-x, 0.48)]
    back = -0.62 * x if body_form == "sedan" else -0.95 * x
    cabin = [(back, 0.5), (0.5 * x, 0.5), (0.18 * x, 0.5 + roof), (back + 0.18, 0.5 + roof)]
    glass = [(back + 0.1, 0.54), (0.4 * x, 0.54), (0.15 * x, 0.46 + roof), (back + 0.2, 0.46 + roof)]
    lamps = sphere(0.07, 7, 10).move(x, 0.36, w / 2 - 0.14) + sphere(0.07, 7, 10).move(x, 0.36, 0.14 - w / 2)
    lean, edge = np.rad2deg(np.arctan2(0.32 * x, roof)), np.hypot(0.32 * x, roof)
    yield "body", "main", extrude(body, w, 0.06)
    yield "cabin", "main", extrude(cabin, w - 0.1, 0.04)
    yield "windows", "navy", extrude(glass, w - 0.07)
    yield "windows", "navy", box(0.05, 0.76 * edge, 0.7 * w).turn("z", lean).move(0.468 * x, 0.5 + 0.1 * roof)
    yield "headlights", "yellow", lamps
    yield from _wheels(r, 0.16, [-0.6 * x, 0.6 * x], w / 2 - 0.04)


@vehicle("truck", "lorry", "delivery truck", parts=("wheels", "cab", "cargo box"), accent="cab")
def _truck(
    n=LENGTH,
    cargo=Range("cargo", 0.6, 1.0, "low", "tall"),
    w=Range("width", 0.65, 0.9),
    axles=Count("axles", (2, 3, 4), "axle"),
) -> Pieces:
    x = n / 2
    cab = [(x - 0.02, 0.2), (x + 0.5, 0.2), (x + 0.5, 0.55), (x + 0.38, 0.92), (x - 0.02, 0.92)]
    glass = box(0.3, 0.26, w + 0.06).move(x + 0.2, 0.58) + box(0.04, 0.28, 0.75 * w).turn("z", 18).move(x + 0.5, 0.58)
    xs = [x + 0.25, *np.linspace(-x + 0.25, -x + 0.25 + 0.42 * (axles - 2), axles - 1)]
    yield "cargo box", "main", box(n, cargo, w, 0.03).move(-0.06, 0.3)
    yield "cab", "accent", extrude(cab, w, 0.04)
    yield "windows", "navy", glass
    yield "headlights", "yellow", join([sphere(0.06, 7, 10).move(x + 0.5, 0.35, s * (w / 2 - 0.12)) for s in (-1, 1)])
    yield "frame", "gray", box(n + 0.4, 0.1, 0.5 * w).move(0.2, 0.2)
    yield from _wheels(0.2, 0.15, xs, w / 2 - 0.06)


@vehicle("bus", "coach", parts=("wheels", "windows"), colors=contrasting("navy"))
def _bus(
    n=Range("length", 1.48, 3.3, "short", "long"),
    h=Range("height", 0.57, 1.24, "low", "tall"),
    w=Range("width", 0.6, 0.85),
    windows=Count("windows", (3, 4, 5, 6), "side window"),
) -> Pieces:
    step = (n - 0.3) / windows
    side = row(box(0.74 * step, 0.34 * h, w + 0.05, 0.01), windows, (step, 0, 0)).move(0, 0.15 + 0.52 * h)
    yield "body", "main", box(n, h, w, 0.07).move(0, 0.15)
    yield "windows", "navy", side
    yield "windscreen", "navy", box(0.03, 0.4 * h, 0.8 * w).move(n / 2, 0.15 + 0.46 * h)
    yield "headlights", "yellow", join([sphere(0.06, 7, 10).move(n / 2, 0.3, s * (w / 2 - 0.12)) for s in (-1, 1)])
    yield from _wheels(0.18, 0.14, [-0.32 * n, 0.32 * n], w / 2 - 0.04)


@vehicle("steam locomotive", "train engine", "locomotive", parts=("chimney", "cab", "wheels", "boiler"), accent="cab")
def _locomotive(
    n=Range("boiler", 0.66, 1.65, "short", "long"),
    r=Range("radius", 0.24, 0.36, "slim", "wide"),
    chimney=Range("chimney", 0.2, 0.45),
    axles=Count("axles", (3, 4, 5), "axle"),
) -> Pieces:
    stack = lathe([(0.08, 0), (0.08, 0.6 * chimney), (0.14, chimney), (0, chimney)]).move(n - 0.2, 0.3 + 2 * r)
    yield "boiler", "main", cylinder(r, n).turn("z", -90).move(0, 0.34 + r)
    yield "chimney", "accent", stack
    yield "dome", "golden", sphere(0.14, 9, 16).move(0.4 * n, 0.33 + 2 * r)
    yield "cab", "accent", box(0.5, 2 * r + 0.35, 2.1 * r, 0.02).move(-0.24, 0.3)
    yield "cab", "accent", box(0.62, 0.06, 2.4 * r, 0.02).move(-0.24, 0.65 + 2 * r)
    yield "windows", "light blue", box(0.22, 0.22, 2.1 * r + 0.06).move(-0.24, 0.3 + 1.5 * r)
    yield "frame", "black", box(n + 0.5, 0.12, 1.6 * r).move(n / 2 - 0.25, 0.24)
    yield "cowcatcher", "accent", extrude([(0, 0.08), (0.26, 0.08), (0, 0.32)], 1.6 * r).move(n, 0)
    yield from _wheels(0.16, 0.1, np.linspace(-0.3, n - 0.15, axles), 0.85 * r)


@painted(patterns=("plain", "gradient", "diagonal stripes", "dots", "checks", "horizontal stripes"))
@vehicle("bicycle", "bike", parts=("wheels", "saddle", "handlebars", "pedals"), accent="saddle")
def _bicycle(
    r=Range("wheel", 0.34, 0.46, "small-wheeled", "large-wheeled"),
    length=Range("length", 0.78, 1.42, "short", "long"),
    handlebar=Range("handlebar", 0.1, 0.3),
) -> Pieces:
    x = length / 2
    rim = torus(r - 0.045, 0.045, 28, 8).turn("x", 90).move(0, r, 0)
    ends = [(0.9 * r * np.cos(a), r + 0.9 * r * np.sin(a), 0) for a in np.arange(8) * np.pi / 4]
    spokes = join([rod((0, r, 0), end, 0.012, sides=5) for end in ends])
    crank, seat, head = (-0.1, r, 0), (-0.28, r + 0.52, 0), (x - 0.24, r + 0.52, 0)
    tubes = [((-x, r, 0), crank), ((-x, r, 0), seat), (crank, seat), (crank, head), (seat, head), (head, (x, r, 0))]
    top = r + 0.56 + handlebar
    along, up = [x - 0.42, x - 0.26, x - 0.24, x - 0.26, x - 0.42], [top - 0.04, top, top, top, top - 0.04]
    bars = sweep(curve(line(along, up, [-0.28, -0.2, 0, 0.2, 0.28]), 14), 0.028, normal=(0, 1, 0))
    yield "frame", "main", join([rod(a, b, 0.04) for a, b in tubes])
    yield "wheels", "black", rim.move(-x) + rim.move(x)
    yield "spokes", "silver", spokes.move(-x) + spokes.move(x)
    yield "saddle", "accent", ellipsoid(0.19, 0.05, 0.09).move(-0.3, r + 0.62)
    yield "stem", "main", rod(seat, (-0.3, r + 0.6, 0), 0.03) + rod(head, (x - 0.25, top, 0), 0.03)
    yield "handlebars", "silver", bars
    yield "pedals", "gray", rod((-0.1, r, 0), (0.03, r - 0.13, 0.08), 0.02)
    yield "pedals", "gray", rod((-0.1, r, 0), (-0.23, r + 0.13, -0.08), 0.02)
    yield "pedals", "gray", box(0.12, 0.03, 0.1).move(0.03, r - 0.15, 0.13)
    yield "pedals", "gray", box(0.12, 0.03, 0.1).move(-0.23, r + 0.12, -0.13)


@vehicle("cart", "wagon", parts=("wheels", "handle"), accent="wheels", patterns=TIMBER)
def _cart(
    n=Range("length", 0.74, 1.77, "short", "long"),
    h=Range("height", 0.25, 0.71, "shallow", "deep"),
    r=Range("wheel", 0.2, 0.36, "", "large-wheeled"),
    count=Count("wheels", (2, 4, 6), "wheel"),
) -> Pieces:
    w = 0.7
    side, end = box(n, h, 0.05), box(0.05, h, w)
    ring = [side.move(0, 0, w / 2), side.move(0, 0, -w / 2), end.move(n / 2), end.move(-n / 2)]
    xs = np.zeros(1) if count == 2 else np.linspace(-n / 2 + 0.1, n / 2 - 0.1, count // 2)
    ends = [((r - 0.05) * np.sin(a), r + (r - 0.05) * np.cos(a), 0) for a in np.arange(8) * np.pi / 4]
    spokes = join([rod((0, r, 0), end, 0.025, sides=6) for end in ends])
    tyre = torus(r - 0.05, 0.05, 24, 8).turn("x", 90).move(0, r) + spokes
    x, y = n / 2 + 0.55, 1.1 * r + 0.35
    yield "box", "main", join([*ring, box(n, 0.06, w)]).move(0, r + 0.03)
    yield "wheels", "accent", join([tyre.move(x, 0, s * (w / 2 + 0.08)) for x in xs for s in (-1, 1)])
    yield "axles", "black", join([rod((x, r, -w / 2 - 0.12), (x, r, w / 2 + 0.12), 0.03) for x in xs])
    yield "handle", "black", rod((n / 2, 1.1 * r, 0), (x, y, 0), 0.03) + rod((x, y, -0.15), (x, y, 0.15), 0.03)


@vehicle("skateboard", "board", parts=("wheels",), accent="wheels", patterns=TIMBER)
def _skateboard(
    length=Range("length", 0.98, 2.24, "short", "long"),
    width=Range("width", 0.35, 0.55, "narrow", "wide"),
    kick=Range("kick", 0.08, 0.24),
    wheels=Count("wheels", (4, 6), "wheel"),
) -> Pieces:
    n, w = length / 2, width / 2

    t = np.linspace(-n, n, 18)
    wide = w * np.clip(1 - np.abs(t / n) ** 6, 0.12, 1) ** 0.5
    cut = [(-0.03, -w), (0.03, -w), (0.03, w), (-0.03, w)]
    deck = sweep(line(t, 0, 0), wide / w, section=cut, normal=(0, 0, 1))
    xs = np.linspace(-0.55 * n, 0.55 * n, wheels // 2)
    trucks = [rod((x, 0.09, -w + 0.05), (x, 0.09, w - 0.05), 0.03) + box(0.14, 0.12, 0.12).move(x, 0.1) for x in xs]
    yield "deck", "main", deck.push("y", lambda v: kick * np.clip(np.abs(v[:, 0]) / n - 0.6, 0, 1) / 0.4).move(0, 0.25)
    yield "wheels", "accent", join([wheel(0.09, 0.11, 16).move(x, 0.09, s * (w - 0.06)) for x in xs for s in (-1, 1)])
    yield "trucks", "silver", join(trucks)
