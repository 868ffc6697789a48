"""Things to wear or carry."""

import numpy as np

from .model import METALS, PACKED, SHINY, Choice, Count, Pieces, Range, in_group, painted
from .shapes import arc, around, extrude, join, lathe, lay, line, row, sweep
from .solids import box, capsule, cone, cylinder, rod, sphere, torus

wear = in_group("clothing")


@wear("top hat", "silk hat", "hat", parts=("brim", "ribbon"), accent="ribbon")
def _top_hat(
    h=Range("height", 0.29, 1.06, "low", "tall"),
    r=Range("radius", 0.34, 0.46),
    b=Range("brim", 0.14, 0.4, "narrow-brimmed", "wide-brimmed"),
    flare=Range("flare", 0.9, 1.2),
) -> Pieces:
    brim = lathe([(r - 0.02, -0.02), (r + b, 0.03), (r + b, 0.06), (r, 0.02)], 30)
    brim = brim.push("y", lambda v: 0.28 * v[:, 0] ** 2 * (np.hypot(v[:, 0], v[:, 2]) > r + 0.05))
    band = lathe([(r + 0.005, 0.03), (r + 0.025, 0.03), (r + 0.025 + (flare - 1) * r * 0.2, 0.17), (r, 0.17)], 30)
    yield "crown", "main", lathe([(0, 0), (r, 0), (flare * r, h), (0, h)], 30)
    yield "brim", "main", brim
    yield "ribbon", "accent", band


@wear("party hat", "cone hat", parts=("pompom",), accent="pompom")
def _party_hat(
    h=Range("height", 0.57, 1.65, "short", "tall"),
    r=Range("radius", 0.34, 0.55, "narrow", "wide"),
    m=Range("pompom", 0.1, 0.2, "", "big-tasselled"),
    pompom_form=Choice("pompom_form", ("round", "spiky"), "pompom"),
) -> Pieces:
    spikes = [around(cone(0.05, 0.005, 1.5 * m, 6).turn("x", a), 6, a) for a in (20, 60, 100)]
    ball = sphere(m, 10, 16) if pompom_form == "round" else join(spikes)
    yield "cone", "main", lathe([(r, 0), (0.03, h)])
    yield "inside", "inside", lathe([(0.03, h - 0.02), (r - 0.01, 0)])
    yield "pompom", "accent", ball.move(0, h)
    yield "hem", "accent", torus(r, 0.035).move(0, 0.02)


@painted(
    patterns=("plain", "gradient", "dots", "checks", "zigzag", "diagonal stripes", "speckles", "vertical stripes"),
    colors=(*METALS, "red", "blue", "purple", "pink", "white", "yellow"),
)
@wear("crown", "royal crown", parts=("points", "jewels"), accent="jewels")
def _crown(
    r=Range("radius", 0.4, 0.6, "narrow", "wide"),
    h=Range("height", 0.25, 0.71, "low", "tall"),
    flare=Range("flare", 1.0, 1.3, "", "flared"),
    n=Count("points", (4, 5, 6, 8), "point"),
) -> Pieces:
    low = 0.3 * h + 0.1
    top = r * (1 + (flare - 1) * low / h)
    wide = np.pi * top / n

    def wrap(v: np.ndarray) -> np.ndarray:
        out = top * (1 + (flare - 1) * v[:, 1] / h) + v[:, 2]
        return np.stack([out * np.sin(v[:, 0] / top), v[:, 1], out * np.cos(v[:, 0] / top)], axis=1)

    yield "band", "main", lathe([(r, 0), (top, low), (top - 0.03, low), (r - 0.03, 0), (r, 0)], 40)
    yield "points", "main", around(extrude([(-wide, 0), (wide, 0), (0, h)], 0.04).warp(wrap).move(0, low), n)
    yield "pearls", "white", around(sphere(0.055, 8, 12).move(0, low + h + 0.03, top * flare), n)
    yield "jewels", "accent", around(sphere(0.07, 8, 12).scale(z=0.6).move(0, 0.5 * low, (r + top) / 2), n)


@wear("boot", "rubber boot", parts=("sole", "heel"), accent="sole", patterns=PACKED)
def _boot(
    s=Range("shaft", 0.33, 1.3, "ankle-high", "knee-high"),
    w=Range("width", 0.24, 0.34, "slim", "wide"),
    f=Range("foot", 0.5, 0.75),
    h=Range("heel", 0.06, 0.2, "flat-heeled", "high-heeled"),
) -> Pieces:
    leg = lathe([(0.85 * w, 0), (w, 0.35 * s), (1.08 * w, s), (w, s), (0.8 * w, 0.2 * s)], 24).move(0, h + 0.28)
    body = sphere(1.0, 13, 26).warp(lambda v: np.stack([v[:, 0], v[:, 1].clip(-0.35), v[:, 2]], axis=1))
    tall = body.scale(0.55 * f + 0.35 * w, 0.42, w)
    lower = tall.warp(lambda v: v * line(1, np.where(v[:, 0] > 0, 1 - 0.35 * v[:, 0] / f, 1.0), 1))  # towards the toe
    yield "shaft", "main", leg
    yield "foot", "main", lower.move(0, 0.14).move(0.5 * f - 0.85 * w, h + 0.03)
    yield "sole", "accent", cylinder(1.0, 0.07, 28).scale(0.55 * f + 0.4 * w, 1, 1.04 * w).move(0.5 * f - 0.55 * w, h)
    yield "heel", "accent", box(0.9 * w, h + 0.03, 1.5 * w, 0.02).move(-0.45 * w)
    yield "cuff", "accent", torus(1.05 * w, 0.035).move(0, h + 0.28 + s)


@wear("umbrella", "parasol", parts=("handle", "panels", "shaft"), accent="handle")
def _umbrella(
    r=Range("radius", 0.7, 1.1, "small", "wide"),
    d=Range("dome", 0.25, 0.6, "flat", "deep-domed"),
    s=Range("shaft", 1.1, 1.6),
    panels=Count("panels", (5, 6, 8, 10), "panel"),
    handle=Choice("handle", ("curved", "straight"), "handle"),
) -> Pieces:
    profile = arc(1.0, 4, 90, 12) * [r, d]
    around_sides = 6 * panels

    def ribs(v: np.ndarray) -> np.ndarray:
        share = np.hypot(v[:, 0], v[:, 2]) / r
        sag = 0.12 * share**2 * np.abs(np.sin(0.5 * panels * np.arctan2(v[:, 0], v[:, 2]))) * r
        return v + np.stack([-0.25 * sag * v[:, 0] / r, 0.6 * sag, -0.25 * sag * v[:, 2] / r], axis=1)

    hook = sweep(lay(arc(0.13, 180, 360, 12, (-0.13, 0.1)), "xy"), 0.045)
    grip = hook if handle == "curved" else capsule(0.06, 0.36).move(0, -0.05)
    yield "panels", "main", lathe(profile, around_sides, planar=False).warp(ribs).move(0, s)
    yield "inside", "inside", lathe(profile[::-1] - [0, 0.015], around_sides, planar=False).warp(ribs).move(0, s)
    yield "shaft", "silver", rod((0, 0.1, 0), (0, s + d + 0.1, 0), 0.025)
    yield "handle", "accent", grip


@wear("handbag", "purse", parts=("handle", "flap", "buckles"), accent="flap", patterns=PACKED)
def _handbag(
    w=Range("width", 0.7, 1.2, "narrow", "wide"),
    h=Range("height", 0.41, 1.0, "low", "tall"),
    strap=Range("strap", 0.25, 0.6, "", "long-strapped"),
    count=Count("buckles", (1, 2, 3), "buckle"),
) -> Pieces:
    yield "body", "main", extrude([(-w / 2, 0), (w / 2, 0), (0.42 * w, h), (-0.42 * w, h)], 0.32, 0.04)
    yield "flap", "accent", box(0.86 * w, 0.45 * h, 0.36, 0.04).move(0, 0.58 * h)
    yield "buckles", "golden", row(box(0.09, 0.14, 0.06, 0.02), count, (0.6 * w / count, 0, 0)).move(0, 0.5 * h, 0.18)
    yield "handle", "dark brown", sweep(lay(arc(1.0, 0, 180, 18) * [0.3 * w, strap] + [0, h], "xy"), 0.03)


@painted(patterns=("plain", "diagonal stripes", "gradient", "dots", "zigzag", "speckles"), colors=METALS)
@wear("ring", "finger ring", parts=("gems",), accent="gems")
def _ring(
    radius=Range("radius", 0.5, 0.7),
    band=Range("band", 0.06, 0.13, "thin", "thick"),
    gem_size=Range("gem", 0.14, 0.24, "", "big-jewelled"),
    count=Count("gems", (1, 2, 3, 5), "gem"),
) -> Pieces:
    g = min(gem_size, 1.4 * radius / count)
    gem = lathe([(0, -g), (g, 0.2 * g), (0.65 * g, 0.6 * g), (0, 0.6 * g)], 8).move(0, radius + band + 0.6 * g)
    step = np.rad2deg(2.0 * g / (radius + band + 0.6 * g))
    yield "band", "main", torus(radius, band, 36, 10).turn("x", 90)
    yield "gems", "accent", join([gem.turn("z", step * (i - (count - 1) / 2)) for i in range(count)])


@painted(patterns=("plain", "gradient", "dots", "checks", "diagonal stripes", "speckles", "camouflage"), colors=SHINY)
@wear("eyeglasses", "spectacles", "glasses", parts=("lenses", "temples"), accent="lenses")
def _eyeglasses(
    w=Range("width", 0.26, 0.38, "small", "large"),
    h=Range("height", 0.16, 0.4, "narrow", "tall"),
    rim_size=Range("rim", 0.03, 0.06, "thin-rimmed", "thick-rimmed"),
    temple=Range("temple", 0.7, 1.0),
    lens=Choice("lens", ("round", "square"), "lenses"),
) -> Pieces:
    x = w + 0.08
    angle = np.deg2rad(np.linspace(0, 360, 29))
    power = 1.0 if lens == "round" else 0.45
    circle = line(np.cos(angle), np.sin(angle))[:-1]
    loop = [w, h] * np.sign(circle) * np.abs(circle) ** power
    rim = sweep(lay(np.concatenate([loop, loop[:1]]), "xy"), rim_size, 8, closed=True, normal=(0, 0, 1)).move(x)
    y, far = [0.4 * h, 0.4 * h, 0.4 * h, 0.1 * h - 0.1], [0, -0.06, -temple, -temple - 0.2]
    arm = sweep(line([x + w, x + w + 0.05, x + w + 0.03, x + w], y, far), 0.035, normal=(0.999, 0, 0.04))
    yield "rims", "main", rim.mirror()
    yield "bridge", "body", sweep(lay(arc(1.0, 20, 160, 8) * [0.1, 0.08], "xy"), rim_size)
    yield "temples", "main", arm.mirror()
    yield "lenses", "accent", extrude(loop * 0.98, 0.025).move(x).mirror()
