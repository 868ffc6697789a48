"""Lamps and candles."""

from .model import METALS, PAINTS, Choice, Count, Pieces, Range, in_group, painted
from .shapes import arc, around, curve, lathe, lay, sweep
from .solids import cylinder, rod, sphere, spindle, vessel

lamp = in_group("lamps")

HEIGHT = Range("height", 0.57, 1.65, "low", "tall")


@lamp("table lamp", "desk lamp", "lamp", parts=("shade", "base"), accent="base")
def _table_lamp(
    h=Range("height", 0.41, 1.3, "short", "tall"),
    r=Range("shade", 0.3, 0.55, "narrow", "wide"),
    taper=Range("taper", 0.4, 0.95),
    base_form=Choice("base_form", ("round", "slender"), "base"),
) -> Pieces:
    if base_form == "round":
        base = spindle([(0.16, 0), (0.2, 0.05), (0.3, 0.3 * h), (0.2, 0.6 * h), (0.05, 0.8 * h), (0.04, h)])
    else:
        base = lathe([(0, 0), (0.26, 0), (0.26, 0.04), (0.05, 0.09), (0.035, h), (0, h)])
    outer, inner = lathe([(r, 0), (taper * r, 0.45)]), lathe([(taper * r - 0.01, 0.45), (r - 0.01, 0)])
    yield "shade", "main", outer.move(0, h)
    yield "inside", "inside", inner.move(0, h)
    yield "base", "accent", base
    yield "stem", "silver", rod((0, h - 0.05, 0), (0, h + 0.4, 0), 0.025)


@lamp("floor lamp", "standing lamp", parts=("lampshades", "base"), accent="base")
def _floor_lamp(
    height=Range("height", 0.98, 2.24, "short", "tall"),
    shade_size=Range("shade", 0.16, 0.28),
    spread=Range("spread", 0.25, 0.5),
    lampshades=Count("lampshades", (1, 2, 3), "lampshade"),
) -> Pieces:
    s = shade_size
    shade = lathe([(1.1 * s, 0), (0.65 * s, 0.32)]) + lathe([(0.64 * s, 0.32), (1.08 * s, 0)])
    bend = sweep(curve([(0, 0.75, 0), (0, 0.95, 0.4 * spread), (0, 1, spread), (0, 0.9, 1.05 * spread)], 10), 0.025)
    if lampshades == 1:
        arms, shades = rod((0, 0.7, 0), (0, height, 0), 0.025), shade.move(0, height)
    else:
        arms = around(bend.move(0, height - 1), lampshades)
        shades = around(shade.move(0, height - 0.35, 1.05 * spread), lampshades)
    base = lathe([(0, 0), (0.32, 0), (0.3, 0.05), (0.04, 0.09), (0.03, height - 0.2), (0, height - 0.2)])
    yield "lampshades", "main", shades
    yield "arms", "accent", arms
    yield "base", "accent", base


@painted(colors=(*PAINTS, *METALS))
@lamp("lantern", "camping lantern", parts=("handle", "roof", "bars", "candle"), accent="roof")
def _lantern(
    height=HEIGHT,
    r=Range("radius", 0.26, 0.42, "slim", "wide"),
    roof_size=Range("roof", 0.15, 0.4),
    bars=Count("bars", (4, 6, 8), "bar"),
) -> Pieces:
    h = 0.8 * height
    t = roof_size
    roof = lathe([(0, 0), (1.2 * r, 0), (0.3 * r, t), (0.12, t), (0.1, t + 0.08), (0, t + 0.08)])
    candle = cylinder(0.3 * r, 0.45 * h).move(0, 0.15), sphere(0.09, 8, 12).scale(0.7, 1.5, 0.7).move(0, 0.3 + 0.45 * h)
    yield "base", "main", lathe([(0, 0), (1.15 * r, 0), (1.15 * r, 0.1), (r, 0.16), (0, 0.16)])
    yield "bars", "main", around(rod((0, 0.15, 0.92 * r), (0, h, 0.92 * r), 0.03), bars)
    yield "roof", "accent", roof.move(0, h)
    yield "handle", "main", sweep(lay(arc(0.2, -20, 200, 16), "xy"), 0.025).move(0, h + roof_size + 0.12)
    yield "candle", "white", candle[0]
    yield "flame", "orange", candle[1]


@painted(
    patterns=("plain", "marble", "gradient", "diagonal stripes", "speckles", "dots"),
    colors=(*METALS, "black", "white", "navy", "maroon", "dark green"),
)
@lamp("candelabra", "candle holder", "candlestick", parts=("candles", "base"), accent="candles")
def _candelabra(
    height=HEIGHT,
    s=Range("spread", 0.3, 0.6, "compact", "wide"),
    candle=Range("candle", 0.2, 0.45),
    n=Count("candles", (2, 3, 4, 5, 6), "candle"),
) -> Pieces:
    h = 0.8 * height
    stem = [(0.3, 0), (0.28, 0.05), (0.07, 0.12), (0.09, 0.3 * h), (0.05, 0.5 * h), (0.07, h), (0.05, h + 0.04)]
    arm = sweep(curve([(0, 0.55 * h, 0), (0, 0.45 * h, 0.6 * s), (0, 0.6 * h, s), (0, h, s)], 12), 0.035)
    cup, _ = vessel([(0.03, 0), (0.09, 0.08)], 0.02, 0.03)
    yield "base", "main", spindle(stem, 28)
    yield "arms", "main", around(arm, n)
    yield "cups", "main", around(cup.move(0, h, s), n)
    yield "candles", "accent", around(cylinder(0.055, candle, 12).move(0, h + 0.06, s), n)
    yield "flames", "orange", around(sphere(0.04, 7, 10).scale(1, 1.8, 1).move(0, h + 0.11 + candle, s), n)
