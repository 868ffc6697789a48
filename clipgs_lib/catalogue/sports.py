"""Things for sport."""

import numpy as np

from .model import METALS, Count, Pieces, Range, in_group, painted
from .shapes import arc, around, curve, extrude, join, lathe, lay, line, row, sweep
from .solids import box, rod, superquadric, torus, vessel, wheel

toy = in_group("toys")

sport = in_group("sports")


@sport("ball", "toy ball", "play ball")
def _ball(
    stretch=Range("stretch", 0.8, 1.5, "flattened", "oval"),
    round_across=Range("round_across", 0.75, 1.0),
    round_along=Range("round_along", 0.75, 1.0),
) -> Pieces:
    yield "ball", "main", superquadric(0.6, 0.6 * stretch, 0.6, round_across, round_along, 17, 30)


@sport("dumbbell", "hand weight", parts=("grip", "plates"), accent="grip")
def _dumbbell(
    grip=Range("grip", 0.4, 0.8, "short", "long"),
    radius=Range("radius", 0.25, 0.45, "", "large"),
    plate=Range("plate", 0.08, 0.14, "thin-plated", "thick-plated"),
    count=Count("plates", (2, 4, 6), "plate"),
) -> Pieces:
    k = count // 2
    disc = wheel(radius, plate, 26).turn("y", 90)
    plates = [disc.scale(1, 1 - 0.16 * i, 1 - 0.16 * i).move(grip / 2 + (i + 0.5) * (plate + 0.02)) for i in range(k)]
    end = grip / 2 + k * (plate + 0.02) + 0.06
    yield "plates", "main", join(plates).mirror()
    yield "grip", "accent", rod((-end, 0, 0), (end, 0, 0), 0.07, sides=14)


@sport("bowling pin", "skittle", parts=("rings",), accent="rings")
def _bowling_pin(
    h=Range("height", 0.82, 1.89, "short", "tall"),
    b=Range("belly", 0.22, 0.34, "slim", "fat"),
    n=Range("neck", 0.09, 0.13),
    d=Range("head", 0.13, 0.18),
    count=Count("rings", (1, 2, 3), "ring"),
) -> Pieces:
    levels = [0, 0, 0.32 * h, 0.5 * h, 0.7 * h, 0.88 * h, 0.98 * h, h]
    profile = curve(line([0, 0.55 * b, b, 0.8 * b, n, d, 0.6 * d, 0], levels), 40)
    heights = (0.66 + 0.06 * np.arange(count)) * h
    radii = np.interp(heights, profile[8:34, 1], profile[8:34, 0])
    yield "body", "main", lathe(profile, 24, planar=False)
    yield "rings", "accent", join([torus(r, 0.022, 20, 7).move(0, y) for r, y in zip(radii, heights, strict=True)])


@sport("tennis racket", "racquet", parts=("strings", "grip", "frame"), accent="grip")
def _racket(
    r=Range("head", 0.38, 0.55, "", "large-headed"),
    oval=Range("oval", 1.1, 1.5, "round", "oval"),
    n=Range("grip", 0.5, 0.9, "short-handled", "long-handled"),
    count=Count("strings", (5, 7, 9), "cross string"),
) -> Pieces:
    tall = r * oval
    y = n + 0.4 + tall
    yield "frame", "main", sweep(lay(arc(1, -90, 270, 33) * [r, tall], "xy"), 0.05, 10, closed=True).move(0, y)
    yield "frame", "main", rod((0, n, 0), (0.4 * r, n + 0.4 + 0.09 * tall, 0), 0.045).mirror()
    for s in np.linspace(-0.75, 0.75, count):
        across = np.sqrt(1 - s * s)
        yield "strings", "white", rod((-r * across, s * tall, 0), (r * across, s * tall, 0), 0.012, sides=5).move(0, y)
        yield "strings", "white", rod((s * r, -tall * across, 0), (s * r, tall * across, 0), 0.012, sides=5).move(0, y)
    yield "grip", "accent", rod((0, 0, 0), (0, n + 0.04, 0), 0.075, 0.065, 12)


@painted(colors=(*METALS, "red", "blue", "purple", "green", "white", "turquoise"))
@sport("trophy", "trophy cup", "winner's cup", parts=("handles", "base"), accent="base")
def _trophy(
    c=Range("cup", 0.5, 0.9, "short", "tall"),
    r=Range("radius", 0.3, 0.48, "narrow", "wide"),
    s=Range("stem", 0.2, 0.45),
    handles=Count("handles", (2, 3, 4), "handle"),
) -> Pieces:
    outer, inner = vessel(curve([(0.06, 0), (0.6 * r, 0.15 * c), (0.85 * r, 0.5 * c), (r, c)], 18), 0.03, 0.04)
    y = 0.3 + s
    ear = line([0.8 * r, 1.25 * r, 1.5 * r, 1.3 * r, 0.94 * r], [0.3 * c, 0.35 * c, 0.7 * c, 0.95 * c, 0.82 * c])
    stem = lathe(curve([(0.2, 0), (0.06, 0.12), (0.1, 0.3 * s + 0.08), (0.05, s), (0.07, s + 0.04)], 16)).move(0, 0.28)
    yield "cup", "main", outer.move(0, y)
    yield "inside", "inside", inner.move(0, y)
    yield "handles", "body", around(sweep(lay(curve(ear, 12), "xy"), 0.045), handles).move(0, y)
    yield "stem", "body", stem
    yield "base", "accent", box(0.6, 0.18, 0.6, 0.02) + box(0.48, 0.12, 0.48, 0.02).move(0, 0.17)


@sport("surfboard", "longboard", parts=("fins",), accent="fins")
def _surfboard(
    n=Range("length", 1.23, 2.71, "short", "long"),
    width=Range("width", 0.4, 0.62, "narrow", "wide"),
    point=Range("point", 0.5, 0.9, "pointed", ""),
    fins=Count("fins", (1, 2, 3), "fin"),
) -> Pieces:
    t = np.linspace(-1, 1, 28)
    wide = (1 - np.abs(t) ** 2.4).clip(0.002) ** np.where(t > 0, 1.35 - point, 0.5)
    cut = arc(1, 0, 360, 15)[:-1] * [width / 2, 0.05]
    fin = extrude([(0, 0), (0.22, 0), (0.02, -0.24), (-0.06, -0.22)], 0.03).turn("y", -90).turn("x", 90)
    yield "board", "main", sweep(line(0 * t, (t + 1) * n / 2, 0.12 * t**2), wide, section=cut, normal=(0, 0, 1))
    yield "fins", "accent", row(fin.move(0, 0.2, 0.05), fins, (0.14, 0, 0))
