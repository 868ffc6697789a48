"""Tools."""

from __future__ import annotations

import numpy as np

from .model import EVERY, TIMBER, Choice, Count, Piece, Range, in_group, varies
from .paints import METALS, PAINTS
from .shapes import arc, curve, extrude, join, lathe, lay, line, row, sweep, turned
from .solids import box, cone, rod, torus, wheel

tool = in_group("tools")
HANDLE = Range("handle_length", 0.74, 1.89, "short-handled", "long-handled")
WOODY = (*PAINTS, "light brown")
OVAL = arc(1, 0, 360, 13)[:-1]


def _grip(length: float, x: float = 0.08, z: float = 0.06) -> Piece:
    """Slightly swelling handle that stands on y = 0."""
    path = [(0, 0, 0), (0, 0.04, 0), (0, 0.35 * length, 0), (0, length, 0)]
    return Piece("handle", "main", sweep(path, [0.85, 1.1, 1.15, 0.85], section=OVAL * [x, z], normal=(0, 0, 1)))


@tool("hammer", "claw hammer", parts=("head", "handle"), accent="head")
@varies(
    HANDLE,
    Range("head", 0.26, 0.42, "", "heavy"),
    Range("face", 0.1, 0.16),
    Choice("peen", ("clawed", "double-faced"), "head"),
    patterns=TIMBER,
    colors=WOODY,
)
def _hammer(n: float, h: float, f: float, peen: str) -> list[Piece]:
    face = lathe([(0, 0), (f, 0), (f, 0.14), (0.75 * f, 0.18), (0.6 * f, h), (0, h)], 18).turn("z", -90)
    face = face.scale(x=-1).move(h + 0.06, n)
    if peen == "clawed":
        claw = sweep(
            curve([(0, n, 0), (-0.5 * h, n + 0.02, 0), (-h, n - 0.08, 0), (-1.25 * h, n - 0.24, 0)], 10),
            np.linspace(1, 0.35, 10),
            section=OVAL * [0.09, 0.06],
        )
        other = claw.move(z=0.045) + claw.move(z=-0.045)
    else:
        other = face.scale(x=-1)
    return [_grip(n), Piece("head", "accent", join([face, other, box(0.2, 0.22, 0.2, 0.03).move(0, n - 0.11)]))]


@tool("screwdriver", "slotted screwdriver", parts=("handle", "shaft", "tip"))
@varies(
    Range("handle_length", 0.41, 1.06, "short-handled", "long-handled"),
    Range("shaft", 0.41, 1.42, "stubby", "long"),
    Range("radius", 0.12, 0.2),
    Choice("tip", ("flat", "pointed"), "tip"),
    patterns=TIMBER,
)
def _screwdriver(n: float, s: float, r: float, tip: str) -> list[Piece]:
    radii = [0.0, 0.85 * r, r, 0.95 * r, 0.6 * r, 0.8 * r, 0.3 * r]
    blade = (
        cone(0.045, 0.002, 0.16, 12)
        if tip == "pointed"
        else extrude([(-0.045, 0), (0.045, 0), (0.075, 0.14), (-0.075, 0.14)], 0.035)
    )
    return [
        Piece("handle", "main", turned(line(radii, [0, 0.03, 0.2 * n, 0.65 * n, 0.85 * n, n, n + 0.04]), 22, 18)),
        Piece("shaft", "silver", rod((0, n, 0), (0, n + s, 0), 0.045)),
        Piece("tip", "gray", blade.move(0, n + s)),
    ]


@tool("axe", "hatchet", parts=("handle", "blades"), accent="blades")
@varies(
    HANDLE,
    Range("blade", 0.3, 0.55, "", "broad"),
    Range("reach", 0.3, 0.5),
    Count("blades", (1, 2), "blade"),
    patterns=TIMBER,
    colors=WOODY,
)
def _axe(n: float, b: float, reach: float, blades: int) -> list[Piece]:
    edge = np.stack([reach + 0.06 * np.cos(t := np.linspace(-1.2, 1.2, 9)), 0.5 * b * np.sin(t) / np.sin(1.2)], axis=1)
    head = extrude(np.concatenate([[(-0.1, -0.12)], edge, [(-0.1, 0.12)]]), 0.12)

    thin = head.warp(lambda v: v * line(1, 1, np.clip(1.05 - v[:, 0] / (reach + 0.06), 0.08, 1)))
    blade = thin.move(0, n - 0.16)
    return [_grip(n), Piece("blades", "accent", blade if blades == 1 else blade.mirror())]


@tool("shovel", "spade", parts=("blade", "handle", "grip"), accent="blade")
@varies(
    Range("handle_length", 0.82, 2.01, "short-handled", "long-handled"),
    Range("blade", 0.4, 0.7, "", "large-bladed"),
    Range("width", 0.32, 0.5, "narrow", "wide"),
    Choice("tip", ("pointed", "square"), "blade"),
    patterns=TIMBER,
    colors=WOODY,
)
def _shovel(n: float, b: float, width: float, form: str) -> list[Piece]:
    w = width / 2
    tip = [(-0.75 * w, 0.2 * b), (0, 0), (0.75 * w, 0.2 * b)] if form == "pointed" else [(-w, 0), (0, -0.01), (w, 0)]
    blade = extrude(
        [*tip, (w, 0.5 * b), (w, 0.92 * b), (0.4 * w, b), (-0.4 * w, b), (-w, 0.92 * b), (-w, 0.5 * b)], 0.05
    )
    top = b + n
    fork = [rod((0, top - 0.03, 0), (x, top + 0.15, 0), 0.035) for x in (0.13, -0.13)]
    return [
        Piece("blade", "accent", blade.push("z", lambda v: 1.2 * v[:, 0] ** 2)),
        Piece("handle", "main", rod((0, 0.85 * b, 0.03), (0, top, 0), 0.05)),
        Piece("grip", "black", join([*fork, rod((-0.17, top + 0.15, 0), (0.17, top + 0.15, 0), 0.04)])),
    ]


@tool("rake", "garden rake", parts=("teeth", "handle"), accent="teeth")
@varies(
    Range("handle_length", 0.98, 2.24, "short-handled", "long-handled"),
    Range("width", 0.5, 0.95, "narrow", "wide"),
    Range("tooth", 0.12, 0.26),
    Count("teeth", (4, 5, 6, 7, 8), "tooth"),
    patterns=TIMBER,
    colors=WOODY,
)
def _rake(n: float, w: float, tooth_size: float, teeth: int) -> list[Piece]:
    tooth = sweep(
        curve(
            [
                (0, 0, 0),
                (0, -0.02, 0.5 * tooth_size),
                (0, -0.1, tooth_size),
                (0, -0.1 - 0.6 * tooth_size, 1.1 * tooth_size),
            ],
            8,
        ),
        np.linspace(0.04, 0.02, 8),
    )
    return [
        Piece("handle", "main", rod((0, 0, 0), (0, n, 0), 0.05)),
        Piece("head", "accent", box(w + 0.08, 0.08, 0.08, 0.02).move(0, -0.04)),
        Piece("teeth", "accent", row(tooth, teeth, (w / (teeth - 1), 0, 0))),
    ]


@tool("paintbrush", "brush", parts=("bristles", "handle"), accent="bristles")
@varies(
    Range("handle_length", 0.49, 1.53, "short-handled", "long-handled"),
    Range("width", 0.3, 0.65, "narrow", "wide"),
    Range("bristle_length", 0.3, 0.6),
    patterns=TIMBER,
    colors=WOODY,
)
def _paintbrush(n: float, w: float, b: float) -> list[Piece]:
    up, wide = [(0, t * n, 0) for t in (0, 0.04, 0.3, 0.7, 0.9, 1.0)], [0.5, 0.75, 0.7, 0.5, 0.8, 1.0]
    hair = sweep(
        [(0, 0, 0), (0, 0.7 * b, 0), (0, b, 0)], [1, 1.02, 0.75], section=OVAL * [0.48 * w, 0.1], normal=(0, 0, 1)
    )
    return [
        Piece("handle", "main", sweep(up, wide, section=OVAL * [0.45 * w, 0.08], normal=(0, 0, 1))),
        Piece("ferrule", "silver", box(w, 0.2, 0.2, 0.06).move(0, n - 0.02)),
        Piece("bristles", "accent", hair.move(0, n + 0.16)),
    ]


@tool("wrench", "spanner", parts=("jaws",))
@varies(
    Range("length", 0.9, 2.12, "short", "long"),
    Range("jaw", 0.2, 0.32, "", "wide-jawed"),
    Range("thickness", 0.08, 0.14),
    Count("jaws", (1, 2), "open jaw"),
    patterns=EVERY,
    colors=(*METALS, *PAINTS),
)
def _wrench(n: float, j: float, t: float, jaws: int) -> list[Piece]:
    cut = [(-0.09, -t / 2), (0.09, -t / 2), (0.09, t / 2), (-0.09, t / 2)]
    fork = sweep(lay(arc(j, 135, 405, 18), "xy"), section=cut).turn("z", 180).move(0, n + j)
    end = (
        fork.scale(y=-1).move(0, n) if jaws == 2 else torus(j - 0.02, 0.1, 20, 8).turn("x", 90).scale(z=0.6).move(0, -j)
    )
    return [Piece("shaft", "main", box(0.17, n, t, 0.03)), Piece("jaws", "main", fork), Piece("end", "main", end)]


@tool("saw", "hand saw", parts=("handle", "teeth"), accent="handle")
@varies(
    Range("length", 0.9, 2.12, "short", "long"),
    Range("depth", 0.28, 0.45, "narrow", "wide"),
    Range("taper", 0.3, 0.6),
    Count("teeth", (8, 10, 12), "tooth"),
    patterns=("plain", "gradient", "speckles", "diagonal stripes", "dots", "checks"),
    colors=("silver", "gray", "light blue", "copper", "golden", "white"),
)
def _saw(n: float, d: float, taper: float, teeth: int) -> list[Piece]:
    blade = extrude([(0, -0.5 * d), (n, -0.5 * d), (n, -0.5 * d + taper * d), (0, 0.5 * d)], 0.03)
    tooth = extrude([(0, 0), (-n / teeth, 0), (-0.5 * n / teeth, -0.1)], 0.03)
    return [
        Piece("blade", "main", blade),
        Piece("teeth", "main", row(tooth, teeth, (n / teeth, 0, 0), centred=False).move(n / teeth, -0.5 * d)),
        Piece("handle", "accent", torus(0.2, 0.065, 20, 8).turn("x", 90).scale(1, 1.25, 1).move(-0.17)),
    ]


@tool("magnifying glass", "hand lens", parts=("handle", "lens", "rim"), accent="rim")
@varies(
    Range("radius", 0.34, 0.55, "small", "large"),
    Range("handle_length", 0.41, 1.3, "short-handled", "long-handled"),
    Range("rim", 0.05, 0.09, "thin-rimmed", "thick-rimmed"),
    patterns=TIMBER,
    colors=WOODY,
)
def _magnifying_glass(r: float, n: float, rim: float) -> list[Piece]:
    grip = turned([(0, 0), (0.1, 0.04), (0.09, 0.3 * n), (0.07, 0.8 * n), (0.1, 0.95 * n), (0.05, n)], 16, 16)
    return [
        Piece("handle", "main", grip),
        Piece("neck", "accent", rod((0, n - 0.03, 0), (0, n + 0.16, 0), 0.045)),
        Piece("rim", "accent", torus(r, rim).turn("x", 90).move(0, n + 0.13 + r)),
        Piece("lens", "light blue", wheel(r, 0.05, 28).move(0, n + 0.13 + r)),
    ]
