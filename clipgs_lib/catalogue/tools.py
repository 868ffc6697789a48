"""Tools."""

import numpy as np

from .model import EVERY, METALS, PAINTS, TIMBER, Choice, Count, Pieces, Range, in_group, painted
from .shapes import arc, curve, extrude, join, lathe, lay, line, row, sweep, turned
from .solids import box, cone, rod, torus, wheel

tool = in_group("tools", patterns=TIMBER, colors=(*PAINTS, "light brown"))
HANDLE = Range("handle_length", 0.74, 1.89, "short-handled", "long-handled")
OVAL = arc(1, 0, 360, 13)[:-1]


def _grip(length: float, x: float = 0.08, z: float = 0.06) -> Pieces:
    """Slightly swelling handle that stands on y = 0."""
    path = [(0, 0, 0), (0, 0.04, 0), (0, 0.35 * length, 0), (0, length, 0)]
    yield "handle", "main", sweep(path, [0.85, 1.1, 1.15, 0.85], section=OVAL * [x, z], normal=(0, 0, 1))


@tool("hammer", "claw hammer", parts=("head", "handle"), accent="head")
def _hammer(
    n=HANDLE,
    h=Range("head", 0.26, 0.42, "", "heavy"),
    f=Range("face", 0.1, 0.16),
    peen=Choice("peen", ("clawed", "double-faced"), "head"),
) -> Pieces:
    face = lathe([(0, 0), (f, 0), (f, 0.14), (0.75 * f, 0.18), (0.6 * f, h), (0, h)], 18).turn("z", -90)
    face = face.scale(x=-1).move(h + 0.06, n)
    if peen == "clawed":
        path = curve([(0, n, 0), (-0.5 * h, n + 0.02, 0), (-h, n - 0.08, 0), (-1.25 * h, n - 0.24, 0)], 10)
        claw = sweep(path, np.linspace(1, 0.35, 10), section=OVAL * [0.09, 0.06])
        other = claw.move(z=0.045) + claw.move(z=-0.045)
    else:
        other = face.scale(x=-1)
    yield from _grip(n)
    yield "head", "accent", join([face, other, box(0.2, 0.22, 0.2, 0.03).move(0, n - 0.11)])


@tool("screwdriver", "slotted screwdriver", parts=("handle", "shaft", "tip"), patterns=TIMBER, colors=PAINTS)
def _screwdriver(
    n=Range("handle_length", 0.41, 1.06, "short-handled", "long-handled"),
    s=Range("shaft", 0.41, 1.42, "stubby", "long"),
    r=Range("radius", 0.12, 0.2),
    tip=Choice("tip", ("flat", "pointed"), "tip"),
) -> Pieces:
    radii = [0.0, 0.85 * r, r, 0.95 * r, 0.6 * r, 0.8 * r, 0.3 * r]
    flat = extrude([(-0.045, 0), (0.045, 0), (0.075, 0.14), (-0.075, 0.14)], 0.035)
    blade = cone(0.045, 0.002, 0.16, 12) if tip == "pointed" else flat
    yield "handle", "main", turned(line(radii, [0, 0.03, 0.2 * n, 0.65 * n, 0.85 * n, n, n + 0.04]), 22, 18)
    yield "shaft", "silver", rod((0, n, 0), (0, n + s, 0), 0.045)
    yield "tip", "gray", blade.move(0, n + s)


@tool("axe", "hatchet", parts=("handle", "blades"), accent="blades")
def _axe(
    n=HANDLE,
    b=Range("blade", 0.3, 0.55, "", "broad"),
    reach=Range("reach", 0.3, 0.5),
    blades=Count("blades", (1, 2), "blade"),
) -> Pieces:
    edge = np.stack([reach + 0.06 * np.cos(t := np.linspace(-1.2, 1.2, 9)), 0.5 * b * np.sin(t) / np.sin(1.2)], axis=1)
    head = extrude(np.concatenate([[(-0.1, -0.12)], edge, [(-0.1, 0.12)]]), 0.12)

    thin = head.warp(lambda v: v * line(1, 1, np.clip(1.05 - v[:, 0] / (reach + 0.06), 0.08, 1)))
    blade = thin.move(0, n - 0.16)
    yield from _grip(n)
    yield "blades", "accent", blade if blades == 1 else blade.mirror()


@tool("shovel", "spade", parts=("blade", "handle", "grip"), accent="blade")
def _shovel(
    n=Range("handle_length", 0.82, 2.01, "short-handled", "long-handled"),
    b=Range("blade", 0.4, 0.7, "", "large-bladed"),
    width=Range("width", 0.32, 0.5, "narrow", "wide"),
    form=Choice("tip", ("pointed", "square"), "blade"),
) -> Pieces:
    w = width / 2
    tip = [(-0.75 * w, 0.2 * b), (0, 0), (0.75 * w, 0.2 * b)] if form == "pointed" else [(-w, 0), (0, -0.01), (w, 0)]
    rest = [(w, 0.5 * b), (w, 0.92 * b), (0.4 * w, b), (-0.4 * w, b), (-w, 0.92 * b), (-w, 0.5 * b)]
    top = b + n
    fork = [rod((0, top - 0.03, 0), (x, top + 0.15, 0), 0.035) for x in (0.13, -0.13)]
    yield "blade", "accent", extrude([*tip, *rest], 0.05).push("z", lambda v: 1.2 * v[:, 0] ** 2)
    yield "handle", "main", rod((0, 0.85 * b, 0.03), (0, top, 0), 0.05)
    yield "grip", "black", join([*fork, rod((-0.17, top + 0.15, 0), (0.17, top + 0.15, 0), 0.04)])


@tool("rake", "garden rake", parts=("teeth", "handle"), accent="teeth")
def _rake(
    n=Range("handle_length", 0.98, 2.24, "short-handled", "long-handled"),
    w=Range("width", 0.5, 0.95, "narrow", "wide"),
    tooth_size=Range("tooth", 0.12, 0.26),
    teeth=Count("teeth", (4, 5, 6, 7, 8), "tooth"),
) -> Pieces:
    t = tooth_size
    bend = line(0, [0, -0.02, -0.1, -0.1 - 0.6 * t], [0, 0.5 * t, t, 1.1 * t])
    tooth = sweep(curve(bend, 8), np.linspace(0.04, 0.02, 8))
    yield "handle", "main", rod((0, 0, 0), (0, n, 0), 0.05)
    yield "head", "accent", box(w + 0.08, 0.08, 0.08, 0.02).move(0, -0.04)
    yield "teeth", "accent", row(tooth, teeth, (w / (teeth - 1), 0, 0))


@tool("paintbrush", "brush", parts=("bristles", "handle"), accent="bristles")
def _paintbrush(
    n=Range("handle_length", 0.49, 1.53, "short-handled", "long-handled"),
    w=Range("width", 0.3, 0.65, "narrow", "wide"),
    b=Range("bristle_length", 0.3, 0.6),
) -> Pieces:
    up, wide = [(0, t * n, 0) for t in (0, 0.04, 0.3, 0.7, 0.9, 1.0)], [0.5, 0.75, 0.7, 0.5, 0.8, 1.0]
    hair = sweep(line(0, [0, 0.7 * b, b], 0), [1, 1.02, 0.75], section=OVAL * [0.48 * w, 0.1], normal=(0, 0, 1))
    yield "handle", "main", sweep(up, wide, section=OVAL * [0.45 * w, 0.08], normal=(0, 0, 1))
    yield "ferrule", "silver", box(w, 0.2, 0.2, 0.06).move(0, n - 0.02)
    yield "bristles", "accent", hair.move(0, n + 0.16)


@tool("wrench", "spanner", parts=("jaws",), patterns=EVERY, colors=(*METALS, *PAINTS))
def _wrench(
    n=Range("length", 0.9, 2.12, "short", "long"),
    j=Range("jaw", 0.2, 0.32, "", "wide-jawed"),
    t=Range("thickness", 0.08, 0.14),
    jaws=Count("jaws", (1, 2), "open jaw"),
) -> Pieces:
    cut = [(-0.09, -t / 2), (0.09, -t / 2), (0.09, t / 2), (-0.09, t / 2)]
    fork = sweep(lay(arc(j, 135, 405, 18), "xy"), section=cut).turn("z", 180).move(0, n + j)
    ring = torus(j - 0.02, 0.1, 20, 8).turn("x", 90).scale(z=0.6).move(0, -j)
    yield "shaft", "main", box(0.17, n, t, 0.03)
    yield "jaws", "main", fork
    yield "end", "main", fork.scale(y=-1).move(0, n) if jaws == 2 else ring


@painted(
    patterns=("plain", "gradient", "speckles", "diagonal stripes", "dots", "checks"),
    colors=("silver", "gray", "light blue", "copper", "golden", "white"),
)
@tool("saw", "hand saw", parts=("handle", "teeth"), accent="handle")
def _saw(
    n=Range("length", 0.9, 2.12, "short", "long"),
    d=Range("depth", 0.28, 0.45, "narrow", "wide"),
    taper=Range("taper", 0.3, 0.6),
    teeth=Count("teeth", (8, 10, 12), "tooth"),
) -> Pieces:
    tooth = extrude([(0, 0), (-n / teeth, 0), (-0.5 * n / teeth, -0.1)], 0.03)
    yield "blade", "main", extrude([(0, -0.5 * d), (n, -0.5 * d), (n, -0.5 * d + taper * d), (0, 0.5 * d)], 0.03)
    yield "teeth", "main", row(tooth, teeth, (n / teeth, 0, 0), centred=False).move(n / teeth, -0.5 * d)
    yield "handle", "accent", torus(0.2, 0.065, 20, 8).turn("x", 90).scale(1, 1.25, 1).move(-0.17)


@tool("magnifying glass", "hand lens", parts=("handle", "lens", "rim"), accent="rim")
def _magnifying_glass(
    r=Range("radius", 0.34, 0.55, "small", "large"),
    n=Range("handle_length", 0.41, 1.3, "short-handled", "long-handled"),
    rim=Range("rim", 0.05, 0.09, "thin-rimmed", "thick-rimmed"),
) -> Pieces:
    grip = turned([(0, 0), (0.1, 0.04), (0.09, 0.3 * n), (0.07, 0.8 * n), (0.1, 0.95 * n), (0.05, n)], 16, 16)
    yield "handle", "main", grip
    yield "neck", "accent", rod((0, n - 0.03, 0), (0, n + 0.16, 0), 0.045)
    yield "rim", "accent", torus(r, rim).turn("x", 90).move(0, n + 0.13 + r)
    yield "lens", "light blue", wheel(r, 0.05, 28).move(0, n + 0.13 + r)
