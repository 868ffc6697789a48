"""Plants."""

import numpy as np

from .model import Count, Pieces, Range, in_group, painted
from .shapes import arc, around, curve, join, lathe, line, sweep
from .solids import cone, cylinder, ellipsoid, leaf, rod, sphere, spindle, vessel

plant = in_group("plants")


GREENS = ("green", "dark green", "lime", "teal")


def _pot(r: float, h: float) -> Pieces:
    outer, inner = vessel([(0.65 * r, 0), (0.95 * r, 0.8 * h), (1.08 * r, 0.8 * h), (1.08 * r, h)], 0.06)
    yield "pot", "accent", outer
    yield "inside", "accent", inner
    yield "soil", "dark brown", cylinder(0.92 * r, 0.02).move(0, 0.9 * h)


@painted(colors=(*GREENS, "red", "purple", "yellow", "pink"))
@plant("potted plant", "houseplant", parts=("leaves", "pot"), accent="pot")
def _potted_plant(
    leaf_length=Range("leaf_length", 0.5, 1.0, "", "long-leaved"),
    pot=Range("pot", 0.3, 0.5, "", "wide-potted"),
    leaf_width=Range("leaf_width", 0.16, 0.34),
    pot_height=Range("pot_height", 0.35, 0.65),
    count=Count("leaves", (4, 6, 8, 10), "leaf"),
) -> Pieces:
    inner = count // 2
    low, high = leaf(leaf_length, leaf_width, 0.45), leaf(1.2 * leaf_length, leaf_width, 0.15)
    leaves = around(low.move(0, 0, 0.05), count - inner) + around(high, inner, 180 / inner)
    yield from _pot(pot, pot_height)
    yield "leaves", "main", leaves.move(0, 0.9 * pot_height)


@painted(colors=(*GREENS, "turquoise", "yellow"))
@plant("cactus", "potted cactus", parts=("arms", "pot", "flower"), accent="pot")
def _cactus(
    h=Range("height", 0.66, 1.65, "short", "tall"),
    r=Range("radius", 0.16, 0.26, "slim", "thick"),
    pot=Range("pot", 0.3, 0.45),
    count=Count("arms", (1, 2, 3, 4), "arm"),
) -> Pieces:
    def ribs(v: np.ndarray) -> np.ndarray:
        wave = 1 + 0.07 * np.cos(9 * np.arctan2(v[:, 0], v[:, 2]))
        return v * np.stack([wave, np.ones_like(wave), wave], axis=1)

    low = lathe(np.concatenate([[(0, 0), (0.9 * r, 0)], arc(r, 0, 90, 7, (0, h - r))]), 40, planar=False).warp(ribs)
    bend = curve([(0, 0, 0), (0, 0.0, r + 0.12), (0, 0.1, r + 0.2), (0, 0.36, r + 0.22)], 10)
    yield from _pot(pot, 0.4)
    yield "trunk", "main", low.move(0, 0.34)
    for i in range(count):
        arm = sweep(bend, 0.55 * r, 10) + sphere(0.55 * r, 8, 10).move(0, 0.36, r + 0.22)
        angle = 90 + 180 * i if count < 3 else 360 * i / count + 45
        yield "arms", "main", arm.turn("y", angle).move(0, (0.38 + 0.1 * (i % 2)) * h).move(0, 0.34)
    yield "flower", "pink", around(ellipsoid(0.05, 0.04, 0.1).move(0, 0.03, 0.07), 6).move(0, 0.34 + h)


@painted(
    patterns=("plain", "gradient", "horizontal stripes", "camouflage", "speckles", "diagonal stripes"), colors=GREENS
)
@plant("palm tree", "palm", parts=("fronds", "trunk", "coconuts"))
def _palm_tree(
    height=Range("height", 0.82, 2.12, "short", "tall"),
    bend=Range("bend", 0.0, 0.5, "straight", "leaning"),
    frond_size=Range("frond", 0.6, 0.95),
    fronds=Count("fronds", (5, 6, 7, 8, 9), "frond"),
) -> Pieces:
    t = np.linspace(0, 1, 16)
    thick = 0.12 - 0.05 * t + 0.012 * (np.arange(16) % 2)
    path = curve([(0, 0, 0), (0, 0.2, 0.4 * frond_size), (0, 0.08, 0.8 * frond_size), (0, -0.25, frond_size)], 10)
    wide = [0.03, 0.08, 0.12, 0.14, 0.14, 0.13, 0.11, 0.08, 0.05, 0.01]
    cut = [(-0.1, -1), (0.25, 0), (-0.1, 1), (0.05, 0)]
    yield "trunk", "brown", sweep(line(bend * t**2, height * t, 0), thick, 10, normal=(0, 0, 1))
    yield "fronds", "main", around(sweep(path, wide, section=cut, normal=(1, 0, 0)), fronds).move(bend, height)
    yield "coconuts", "dark brown", around(sphere(0.08, 8, 10).move(0, -0.06, 0.1), 3).move(bend, height)


@painted(colors=(*GREENS, "white", "light blue"))
@plant("pine tree", "fir tree", "christmas tree", parts=("tiers", "trunk", "star"), accent="star")
def _pine_tree(
    radius=Range("radius", 0.4, 0.75, "narrow", "wide"),
    tier_size=Range("tier", 0.35, 0.6),
    trunk=Range("trunk", 0.2, 0.45),
    tiers=Count("tiers", (2, 3, 4, 5), "tier"),
) -> Pieces:
    step = 0.62 * tier_size
    cones = [cone(radius * (1 - 0.75 * i / tiers), 0.01, tier_size) for i in range(tiers)]
    star = around(ellipsoid(0.03, 0.03, 0.1, 7, 8).move(0, 0, 0.06), 5).turn("x", 90)
    star = star.move(0, trunk + step * (tiers - 1) + tier_size + 0.06)
    yield "tiers", "main", join([tier.move(0, trunk + step * i) for i, tier in enumerate(cones)])
    yield "trunk", "brown", cylinder(0.13, trunk + 0.05)
    yield "star", "accent", star


@painted(
    patterns=("plain", "gradient", "speckles", "dots", "camouflage", "stars"),
    colors=(*GREENS, "orange", "pink", "yellow", "red"),
)
@plant("tree", "leafy tree", parts=("branches", "trunk"))
def _tree(
    t=Range("trunk", 0.41, 1.18, "short", "tall"),
    crown_size=Range("crown", 0.35, 0.6, "", "bushy"),
    s=Range("spread", 0.2, 0.4),
    branches=Count("branches", (3, 4, 5), "branch"),
) -> Pieces:
    blob = sphere(0.75 * crown_size, 11, 18)
    crown = around(blob.move(0, t + 0.3, s), branches) + sphere(crown_size, 12, 20).move(0, t + 0.35 + 0.6 * crown_size)
    yield "trunk", "brown", spindle([(0.2, 0), (0.12, 0.15), (0.09, 0.6 * t), (0.08, t + 0.2)], 10, 14)
    yield "branches", "brown", around(rod((0, 0.7 * t, 0), (0, t + 0.15, s), 0.055, 0.03), branches)
    yield "crown", "main", crown


@painted(colors=("red", "orange", "yellow", "pink", "purple", "white", "light blue", "blue", "maroon"))
@plant("flower", "blossom", parts=("petals", "stem", "leaves"), accent="center")
def _flower(
    stem=Range("stem", 0.66, 1.65, "short-stemmed", "long-stemmed"),
    petal_size=Range("petal", 0.22, 0.42, "", "large-petalled"),
    center_size=Range("center", 0.12, 0.2),
    petals=Count("petals", (4, 5, 6, 7, 8), "petal"),
) -> Pieces:
    wide = min(0.6 * petal_size, 0.95 * (center_size + petal_size / 2) * np.sin(np.pi / petals))
    petal = ellipsoid(wide, 0.05, 0.62 * petal_size).move(0, 0, center_size + 0.5 * petal_size)
    yield "petals", "main", (around(petal, petals)).turn("x", 60).move(0, stem, 0.05)
    yield "center", "accent", sphere(center_size, 10, 16).scale(y=0.55).move(0, 0.02).turn("x", 60).move(0, stem, 0.05)
    yield "stem", "green", rod((0, 0, 0), (0, stem, 0), 0.035)
    yield "leaves", "green", around(leaf(0.45, 0.2, 0.3), 2, 90).move(0, 0.2 * stem)
