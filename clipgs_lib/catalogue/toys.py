"""Toys."""

from itertools import pairwise

import numpy as np

from .model import Choice, Count, Pieces, Range, in_group, painted
from .shapes import extrude, join, lathe, row, sweep, turned
from .solids import box, capsule, cone, cylinder, ellipsoid, rod, sphere, torus, wheel

toy = in_group("toys")


@toy("spinning top", "whirligig", parts=("knob", "tip"), accent="knob")
def _spinning_top(
    h=Range("height", 0.49, 1.3, "flat", "tall"),
    r=Range("radius", 0.4, 0.65, "slim", "wide"),
    shoulder=Range("shoulder", 0.4, 0.7),
    form=Choice("knob", ("round", "long"), "knob"),
) -> Pieces:
    body = turned([(0.03, 0.05), (0.45 * r, 0.3 * h), (r, shoulder * h), (0.55 * r, 0.85 * h), (0.1, h)], 22, 28)
    top = sphere(0.11, 9, 14).move(0, h + 0.18) if form == "round" else cylinder(0.05, 0.4, 12).move(0, h + 0.05)
    yield "body", "main", body
    yield "tip", "silver", cone(0.0, 0.05, 0.1, 12)
    yield "knob", "accent", rod((0, h - 0.02, 0), (0, h + 0.12, 0), 0.05) + top


@toy("stacking rings", "ring stacker", "ring tower", parts=("rings", "base"), accent="base")
def _stacking_rings(
    radius=Range("radius", 0.4, 0.65, "narrow", "wide"),
    t=Range("thickness", 0.1, 0.16, "thin", "thick"),
    shrink=Range("shrink", 0.35, 0.7),
    rings=Count("rings", (3, 4, 5, 6), "ring"),
) -> Pieces:
    top = 0.08 + 1.9 * t * rings
    radii = [radius * (1 - (1 - shrink) * i / (rings - 1)) for i in range(rings)]
    yield "rings", "main", join([torus(r - t, t).move(0, 0.08 + t + 1.9 * t * i) for i, r in enumerate(radii)])
    yield "base", "accent", cylinder(radius, 0.08)
    yield "pole", "light brown", cylinder(0.07, top + 0.05)
    yield "knob", "accent", sphere(0.12, 9, 14).move(0, top + 0.1)


@painted(patterns=("plain", "gradient", "marble", "wood", "speckles", "diagonal stripes"))
@toy("dice", "die", parts=("pips",), accent="pips")
def _die(
    bevel=Range("bevel", 0.02, 0.22, "sharp-edged", "rounded"),
    pip_size=Range("pip", 0.06, 0.1, "", "big-dotted"),
    s=Range("spread", 0.2, 0.27),
    pips=Count("pips", (1, 2, 3, 4, 5, 6), "pip"),
) -> Pieces:
    corners = [(-s, s), (s, -s), (-s, -s), (s, s)]
    paired, odd = [*corners, (-s, 0), (s, 0)], pips % 2
    layout = paired[: pips - odd] + [(0, 0)] * odd
    pip = wheel(pip_size, 0.02, 14)
    face = join([pip.move(x, y, 0.5) for x, y in layout])
    sides = [face, *(face.turn("y", a) for a in (90, 180, 270)), face.turn("x", 90), face.turn("x", -90)]
    yield "cube", "main", box(1, 1, 1, bevel).move(0, -0.5)
    yield "pips", "accent", join(sides)


@toy("teddy bear", "stuffed bear", parts=("ears", "scarf", "arms", "legs"), accent="scarf")
def _teddy_bear(
    b=Range("belly", 0.34, 0.48, "slim", "fat"),
    h=Range("head", 0.26, 0.36, "", "big-headed"),
    e=Range("ear", 0.08, 0.16, "small-eared", "big-eared"),
    leg=Range("leg", 0.3, 0.5),
) -> Pieces:
    top = 0.3 + 1.75 * b + 0.7 * h
    yield "body", "main", ellipsoid(b, 0.95 * b, 0.85 * b, 13, 22).move(0, 0.28 + 0.75 * b)
    yield "head", "main", sphere(h).move(0, top)
    yield "ears", "main", sphere(e, 9, 14).scale(z=0.5).move(0.72 * h, top + 0.75 * h).mirror()
    yield "arms", "body", capsule(0.12, 0.5).turn("z", -125).move(0.7 * b, 0.3 + 1.45 * b, 0.1).mirror()
    yield "legs", "body", capsule(0.15, leg + 0.15).turn("x", 80).move(0.55 * b, 0.16, 0.1).mirror()
    yield "muzzle", "beige", ellipsoid(0.4 * h, 0.32 * h, 0.3 * h).move(0, top - 0.25 * h, 0.82 * h)
    yield "nose", "black", ellipsoid(0.06, 0.045, 0.05, 7, 10).move(0, top - 0.15 * h, 1.12 * h)
    yield "eyes", "black", sphere(0.04, 6, 8).move(0.38 * h, top + 0.15 * h, 0.88 * h).mirror()
    yield "scarf", "accent", torus(0.62 * h, 0.075).move(0, top - 0.82 * h)


@painted(colors=("white", "light blue", "beige", "pink", "yellow"))
@toy("snowman", "snow figure", parts=("hat", "nose", "arms"), accent="hat")
def _snowman(
    size=Range("size", 0.4, 0.55, "slim", "fat"),
    shrink=Range("shrink", 0.66, 0.82),
    hat_size=Range("hat", 0.2, 0.45, "", "tall-hatted"),
    balls=Count("balls", (2, 3, 4), "snowball"),
) -> Pieces:
    radii = [size * shrink**i for i in range(balls)]
    heights = np.cumsum([0.9 * radii[0], *(0.85 * (a + b) for a, b in pairwise(radii))])
    y, r = float(heights[-1]), radii[-1]
    arm = rod((0.85 * radii[-2], heights[-2], 0), (radii[-2] + 0.4, heights[-2] + 0.25, 0), 0.025)
    hat = lathe([(0, 0), (1.05 * r, 0), (1.05 * r, 0.04), (0.65 * r, 0.04), (0.65 * r, hat_size), (0, hat_size)])
    yield "balls", "main", join([sphere(a, 13, 22).move(0, h) for a, h in zip(radii, heights, strict=True)])
    yield "hat", "accent", hat.move(0, y + 0.72 * r)
    yield "nose", "orange", cone(0.07, 0.005, 0.3, 12).turn("x", 90).move(0, y, 0.93 * r)
    yield "arms", "dark brown", arm.mirror()
    yield "eyes", "black", sphere(0.04, 6, 8).move(0.35 * r, y + 0.3 * r, 0.88 * r).mirror()


@toy("robot", "toy robot", parts=("arms", "antennas", "legs"), accent="arms")
def _robot(
    w=Range("width", 0.5, 0.85, "slim", "stocky"),
    h=Range("height", 0.49, 1.12, "short", "tall"),
    d=Range("head", 0.3, 0.5, "", "big-headed"),
    n=Range("leg", 0.3, 0.55),
    count=Count("antennas", (1, 2, 3), "antenna"),
) -> Pieces:
    arm = rod((w / 2, n + 0.85 * h, 0), (w / 2 + 0.22, n + 0.4 * h, 0.1), 0.07)
    arm = arm + sphere(0.1, 9, 12).move(w / 2 + 0.22, n + 0.36 * h, 0.1)
    tip = n + h + 0.08 + d
    antenna = rod((0, 0, 0), (0, 0.2, 0), 0.02) + sphere(0.05, 7, 10).move(0, 0.22)
    yield "body", "main", box(w, h, 0.42, 0.05).move(0, n)
    yield "head", "main", box(0.8 * w, d, 0.4, 0.05).move(0, n + h + 0.08)
    yield "neck", "gray", cylinder(0.1, 0.12).move(0, n + h - 0.02)
    yield "arms", "accent", arm.mirror()
    yield "legs", "accent", (box(0.18, n, 0.2) + box(0.22, 0.1, 0.34, 0.03).move(0, 0, 0.05)).move(0.25 * w).mirror()
    yield "eyes", "yellow", sphere(0.075, 9, 12).move(0.13, n + h + 0.08 + 0.58 * d, 0.2).mirror()
    yield "mouth", "black", box(0.3, 0.05, 0.03).move(0, n + h + 0.08 + 0.18 * d, 0.2)
    yield "antennas", "red", row(antenna, count, (0.15, 0, 0)).move(0, tip)


@toy("pinwheel", "paper windmill", parts=("blades", "stick"), accent="stick")
def _pinwheel(
    r=Range("radius", 0.45, 0.7, "small", "large"),
    stick=Range("stick", 0.66, 1.65, "short-sticked", "long-sticked"),
    curl=Range("curl", 0.08, 0.2),
    count=Count("blades", (3, 4, 5, 6, 8), "blade"),
) -> Pieces:
    wide = min(0.75, 0.9 * np.tan(np.pi / count) + 0.2)
    blade = extrude([(0, 0), (0.55 * wide * r, 0.55 * r), (0.1 * r, r)], 0.03)
    bent = blade.push("z", lambda v: 2.2 * curl * v[:, 0].clip(0) / r)
    yield "blades", "main", join([bent.turn("z", 360 * i / count) for i in range(count)]).move(0, stick, 0.06)
    yield "stick", "accent", rod((0, 0, 0), (0, stick + 0.05, 0), 0.035)
    yield "pin", "yellow", sphere(0.06, 8, 12).move(0, stick, 0.1)


@toy("bunch of balloons", "balloons", parts=("strings", "balloons"), accent="strings")
def _balloons(
    r=Range("radius", 0.24, 0.34),
    stretch=Range("stretch", 1.0, 1.4, "round", "oval"),
    string=Range("string", 0.7, 1.2, "short-stringed", "long-stringed"),
    balloons=Count("balloons", (2, 3, 4, 5), "balloon"),
) -> Pieces:
    one = sphere(r, 14, 20).scale(y=stretch) + cone(0.05, 0.01, 0.07, 10).move(0, -r * stretch - 0.05)
    ring = max(0.75 * r / np.sin(np.pi / balloons), 0.9 * r)
    for i in range(balloons):
        a = 2 * np.pi * i / balloons + np.pi / 2
        at = (ring * np.sin(a), string + r * stretch + 0.16 * (i % 2), ring * np.cos(a))
        yield "balloons", "main", one.move(*at)
        yield "strings", "accent", rod((0, 0, 0), (at[0], at[1] - r * stretch, at[2]), 0.012, sides=5)


@toy("rubber duck", "toy duck", parts=("beak", "wings", "tail"), accent="beak")
def _rubber_duck(
    b=Range("body", 0.5, 0.75, "short", "long"),
    h=Range("head", 0.24, 0.36, "small-headed", "big-headed"),
    tail=Range("tail", 0.15, 0.35),
    bill=Choice("bill", ("flat", "pointed"), "beak"),
) -> Pieces:
    beak = ellipsoid(0.17, 0.035, 0.14) if bill == "flat" else cone(0.1, 0.005, 0.24, 12).turn("z", -90)
    head, wing = (0.48 * b, 0.62 + 0.75 * h), ellipsoid(0.5 * b, 0.18, 0.08).turn("z", 12)
    eye = sphere(0.045, 7, 10).move(head[0] + 0.72 * h, head[1] + 0.3 * h)
    yield "body", "main", ellipsoid(b, 0.36, 0.42, 15, 26).move(0, 0.34)
    yield "head", "main", sphere(h).move(*head)
    yield "tail", "main", cone(0.16, 0.01, tail + 0.15, 14).turn("z", 50).move(-0.75 * b, 0.42)
    yield "wings", "body", wing.move(-0.1, 0.42, 0.38) + wing.move(-0.1, 0.42, -0.38)
    yield "beak", "accent", beak.move(head[0] + h + 0.03, head[1] - 0.05)
    yield "eyes", "black", join([eye.move(z=s * 0.6 * h) for s in (-1, 1)])


@toy("kite", "flying kite", parts=("tail", "bows"), accent="bows")
def _kite(
    width=Range("width", 0.7, 1.2, "narrow", "wide"),
    h=Range("height", 0.82, 1.77, "", "tall"),
    t=Range("tail_length", 0.6, 1.2, "", "long-tailed"),
    bows=Count("bows", (2, 3, 4, 5), "bow"),
) -> Pieces:
    w = width / 2
    s = np.linspace(0, 1, 18)
    tail = sweep(np.stack([0.1 * np.sin(2.5 * np.pi * s), -0.6 * h - t * s, 0 * s], axis=1), 0.018, 6, normal=(0, 0, 1))
    at = (np.arange(bows) + 0.8) / bows * 0.98
    bow = extrude([(0, 0), (0.14, -0.08), (0.14, 0.08)], 0.04).mirror()
    ends = [((0, -0.6 * h, -0.03), (0, 0.4 * h, -0.03)), ((-w, 0.05 * h, -0.03), (w, 0.05 * h, -0.03))]
    yield "sail", "main", extrude([(0, -0.6 * h), (w, 0.05 * h), (0, 0.4 * h), (-w, 0.05 * h)], 0.03)
    yield "tail", "black", tail
    yield "bows", "accent", join([bow.move(0.1 * np.sin(2.5 * np.pi * a), -0.6 * h - t * a) for a in at])
    yield "spars", "brown", join([rod(start, stop, 0.02) for start, stop in ends])
