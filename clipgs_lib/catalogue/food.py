"""Food."""

import numpy as np

from .model import BRIGHT, Choice, Count, Pieces, Range, in_group, painted
from .shapes import arc, around, curve, join, lathe, line, sweep, turned
from .solids import box, cylinder, ellipsoid, leaf, rod, sphere, torus

food = in_group("food")

SWEET = ("pink", "white", "yellow", "light blue", "brown", "red", "orange", "lime", "purple", "turquoise", "beige")


@food("layer cake", "birthday cake", "cake", parts=("candles", "layers", "cherries"), accent="frosting", colors=SWEET)
def _layer_cake(
    radius=Range("radius", 0.4, 0.75, "narrow", "wide"),
    layer=Range("layer", 0.18, 0.32),
    shrink=Range("shrink", 0.0, 0.16),
    count=Count("layers", (1, 2, 3, 4), "layer"),
) -> Pieces:
    radii = [radius * (1 - shrink * i) for i in range(count)]
    step = layer + 0.06
    layers = [lathe([(0, 0), (r, 0), (r, layer), (0, layer)], 30).move(0, step * i) for i, r in enumerate(radii)]
    rims = [lathe([(0, 0), (r, 0), (r + 0.03, 0.04), (r - 0.02, 0.08), (0, 0.08)], 30) for r in radii]
    cream = [rim.move(0, step * i + layer - 0.01) for i, rim in enumerate(rims)]
    top, r = step * count, radii[-1]
    plate = lathe([(0, -0.04), (radius, -0.04), (1.25 * radius, 0.02), (1.25 * radius, 0.03), (0, 0)], 30)
    yield "plate", "white", plate
    yield "layers", "main", join(layers)
    yield "frosting", "accent", join(cream)
    yield "cherries", "red", around(sphere(0.06, 7, 10).move(0, top + 0.04, 0.75 * r), 8)
    yield "candles", "yellow", around(cylinder(0.025, 0.22, 8).move(0, top, 0.3 * r), 4, 45)
    yield "flames", "orange", around(sphere(0.03, 6, 8).scale(1, 1.8, 1).move(0, top + 0.26, 0.3 * r), 4, 45)


@food("ice cream cone", "ice cream", parts=("scoops", "cherry"), colors=SWEET)
def _ice_cream(
    n=Range("cone", 0.7, 1.2, "short", "tall"),
    r=Range("radius", 0.28, 0.42, "slim", "wide"),
    squash=Range("squash", 0.75, 1.0),
    count=Count("scoops", (1, 2, 3), "scoop"),
) -> Pieces:
    balls = [sphere(r * (1.05 - 0.1 * i), 13, 22).scale(y=squash) for i in range(count)]
    top = n + 0.5 * r + 1.25 * r * squash * (count - 1) + r * squash * 0.85
    yield "cone", "light brown", lathe([(0.01, 0), (r, n), (0.3 * r, n)])
    yield "waffle", "brown", join([torus(r * t, 0.018, 20, 6).move(0, n * t) for t in (0.35, 0.55, 0.75, 0.93)])
    yield "scoops", "main", join([ball.move(0, n + 0.5 * r + 1.25 * r * squash * i) for i, ball in enumerate(balls)])
    yield "cherry", "red", sphere(0.09, 9, 12).move(0, top + 0.05)


@food("cupcake", "muffin", parts=("frosting", "wrapper", "candy"), accent="wrapper")
def _cupcake(
    r=Range("radius", 0.35, 0.5),
    c=Range("cup", 0.3, 0.5, "low", "tall"),
    s=Range("swirl", 0.35, 0.7, "", "high-frosted"),
    topping=Choice("topping", ("round", "star-shaped"), "candy"),
) -> Pieces:
    t = np.linspace(0, 1, 30)
    bumps = (1.12 * r * (1 - t) ** 0.75) * (1 + 0.10 * np.abs(np.sin(3.5 * np.pi * t)))
    swirl = lathe(np.stack([bumps, c + s * t], axis=1), planar=False) + lathe([(0, c - 0.01), (1.12 * r, c)])
    star = around(ellipsoid(0.035, 0.05, 0.12).move(0, 0, 0.07), 5).turn("x", 90)
    candy = sphere(0.1, 9, 14) if topping == "round" else star
    yield "wrapper", "accent", lathe([(0, 0), (0.7 * r, 0), (r, c), (0, c)])
    yield "frosting", "main", swirl
    yield "candy", "red", candy.move(0, c + s + 0.05)


@food("donut", "doughnut", parts=("sprinkles", "glaze"), accent="sprinkles", colors=SWEET)
def _donut(
    r=Range("radius", 0.45, 0.65),
    t=Range("thickness", 0.2, 0.32, "thin", "thick"),
    glaze_size=Range("glaze", 0.5, 0.8),
    sprinkles=Count("sprinkles", (6, 12, 24), "sprinkle"),
) -> Pieces:
    cross = np.deg2rad(np.linspace(-20 * glaze_size, 180 + 20 * glaze_size, 14))
    glaze = lathe(np.stack([r + 1.06 * t * np.cos(cross), 1.06 * t * np.sin(cross)], axis=1), 32, planar=False)
    yield "dough", "light brown", torus(r, t, 32, 14)
    yield "glaze", "main", glaze
    for i in range(sprinkles):
        a = 2 * np.pi * i * 0.618
        tilt = np.deg2rad(55 + 70 * ((i * 0.382) % 1))
        at = (r + 1.08 * t * np.cos(tilt), 1.08 * t * np.sin(tilt))
        bit = ellipsoid(0.022, 0.022, 0.075, 5, 6).turn("y", 140.0 * i)
        yield "sprinkles", "accent", bit.move(at[0] * np.sin(a), at[1], at[0] * np.cos(a))


@painted(
    patterns=("plain", "gradient", "speckles", "vertical stripes", "dots", "stars", "hearts"),
    colors=("red", "green", "yellow", "lime", "maroon", "orange", "pink"),
)
@food("apple", "fruit", parts=("stem", "leaves"))
def _apple(
    h=Range("height", 0.61, 1.3, "flat", "tall"),
    dip=Range("dip", 0.08, 0.22),
    taper=Range("taper", 0.7, 1.0, "tapered", ""),
    leaves=Count("leaves", (1, 2, 3), "leaf"),
) -> Pieces:
    radii = [0, 0.3 * taper, 0.5 * taper, 0.55, 0.36, 0.1, 0]
    leaf = ellipsoid(0.03, 0.08, 0.17).move(0, 0, 0.16).turn("x", -25)
    yield "fruit", "main", turned(line(radii, [0.08, 0, 0.25 * h, 0.65 * h, 0.95 * h, h - 0.5 * dip, h - dip]), 28, 28)
    yield "stem", "dark brown", sweep(curve([(0, h - dip - 0.05, 0), (0.02, h, 0), (0.08, h + 0.16, 0)], 8), 0.03)
    yield "leaves", "green", around(leaf, leaves, 60).move(0.02, h, 0)


@painted(
    patterns=("plain", "speckles", "dots", "gradient", "diagonal stripes", "checks"),
    colors=("light brown", "brown", "beige", "orange", "black", "yellow"),
)
@food("hamburger", "burger", "cheeseburger", parts=("patties", "lettuce", "bun"))
def _hamburger(
    r=Range("radius", 0.5, 0.75),
    bun=Range("bun", 0.25, 0.5, "flat", "tall"),
    patty=Range("patty", 0.12, 0.22),
    patties=Count("patties", (1, 2, 3), "patty"),
) -> Pieces:
    step = patty + 0.1
    top = 0.2 + step * patties
    crown = lathe(np.concatenate([[(0, 0)], arc(1.0, 0, 90, 10) * [r, bun]]), 30, planar=False).move(0, top + 0.06)
    meat = lathe([(0, 0), (r, 0), (r + 0.04, 0.5 * patty), (r, patty), (0, patty)], 26)
    cheese = box(1.5 * r, 0.04, 1.5 * r)
    leaf = lathe([(0, 0), (r, 0), (r + 0.09, 0.03), (r, 0.05), (0, 0.05)], 40)
    waved = leaf.push("y", lambda v: 0.035 * np.sin(9 * np.arctan2(v[:, 0], v[:, 2])))
    layers = range(patties)
    yield "bun", "main", crown
    yield "bun", "main", lathe([(0, 0), (0.9 * r, 0), (r, 0.08), (r, 0.2), (0, 0.2)], 26)
    yield "patties", "dark brown", join([meat.move(0, 0.2 + step * i) for i in layers])
    yield "cheese", "yellow", join([cheese.turn("y", 20 + 30 * i).move(0, 0.2 + patty + step * i) for i in layers])
    yield "lettuce", "green", waved.move(0, top - 0.01)


@food("lollipop", "lolly", parts=("stick",), accent="stick", colors=BRIGHT)
def _lollipop(
    r=Range("radius", 0.35, 0.6, "small", "large"),
    stick=Range("stick", 0.57, 1.53, "short-sticked", "long-sticked"),
    thickness=Range("thickness", 0.35, 1.0, "flat", "round"),
) -> Pieces:
    yield "candy", "main", sphere(r, 15, 26).scale(z=thickness).move(0, stick + 0.9 * r)
    yield "stick", "accent", rod((0, 0, 0), (0, stick + 0.05, 0), 0.045)


@food("mushroom", "toadstool", parts=("cap", "stem"), accent="stem")
def _mushroom(
    s=Range("stem", 0.33, 1.06, "short", "tall"),
    c=Range("cap", 0.4, 0.7, "narrow", "wide-capped"),
    dome=Range("dome", 0.3, 0.6, "flat", "pointed"),
) -> Pieces:
    cap = lathe(np.concatenate([arc(1.0, -12, 90, 14) * [c, dome] + [0, 0.05]]), 28, planar=False).move(0, s)
    yield "cap", "main", cap
    yield "gills", "beige", lathe([(0, s + 0.02), (0.98 * c, s + 0.05 - 0.2 * dome)], 28)
    yield "stem", "accent", lathe(curve([(0, 0), (0.24, 0.02), (0.18, 0.4 * s), (0.15, s + 0.04)], 14))


@painted(
    patterns=("plain", "gradient", "horizontal stripes", "speckles", "waves", "dots"),
    colors=("orange", "yellow", "purple", "red", "white", "pink"),
)
@food("carrot", "root vegetable", parts=("leaves",))
def _carrot(
    n=Range("length", 0.74, 1.89, "short", "long"),
    r=Range("radius", 0.16, 0.3, "slim", "thick"),
    bulge=Range("bulge", 0.6, 0.9),
    leaves=Count("leaves", (3, 5, 7), "leaf"),
) -> Pieces:
    radii = [0.005, 0.5 * bulge * r, bulge * r, r, 0.6 * r, 0]
    yield "root", "main", turned(line(radii, [0, 0.3 * n, 0.65 * n, 0.92 * n, n, n]), 24, 18)
    yield "leaves", "green", around(leaf(0.55, 0.16, 0.1), leaves).move(0, n - 0.03)
