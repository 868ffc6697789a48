"""Tableware and kitchen things."""

import numpy as np

from .model import CERAMIC, METALS, PACKED, SHINY, Choice, Count, Pieces, Range, in_group, painted
from .shapes import Shape, arc, curve, join, lathe, lay, line, row, sweep
from .solids import box, cylinder, hollow, rod, sphere, spindle, vessel

tableware = in_group("tableware")

HEIGHT = Range("height", 0.49, 1.65, "squat", "tall")

CUTLERY = ("plain", "wood", "diagonal stripes", "dots", "checks", "gradient", "speckles")


def _handle(radius: float, low: float, high: float, form: str, thickness: float = 0.06) -> Shape:
    """Handle at ``x = radius`` between two heights: round, square or pointed."""
    reach, middle, half = 0.75 * (high - low), (low + high) / 2, (high - low) / 2
    if form == "round":
        return sweep(lay(arc(1.0, -90, 90, 14) * [reach, half] + [radius - 0.03, middle], "xy"), thickness)
    if form == "square":
        x, y = np.array([0, 0.8, 1, 1, 0.8, 0]), np.array([-1, -1, -0.8, 0.8, 1, 1])
    else:
        x, y = np.array([0, 0.5, 1, 0.5, 0]), np.array([-1, -0.5, 0.6, 0.9, 1])
    return sweep(line(x * reach + radius - 0.03, middle + half * y, 0), thickness)


def _grip(length: float, end: float, thickness: float) -> Shape:
    """Flat handle of a fork or spoon that stands on y = 0."""
    section = arc(1, 0, 360, 13)[:-1] * [0.1, thickness]
    return sweep(line(0, [0, 0.06, 0.5 * length, length], 0), [0.6, 0.9, 0.75, end], section=section, normal=(0, 0, 1))


@tableware("mug", "coffee mug", "cup", parts=("handle",), patterns=PACKED + ("marble",))
def _mug(
    h=HEIGHT,
    r=Range("radius", 0.32, 0.5),
    flare=Range("flare", 0.85, 1.25, "tapered", "flared"),
    handle=Choice("handle", ("round", "square"), "handle"),
) -> Pieces:
    top = r * flare
    yield from hollow([(r - 0.04, 0), (r, 0.05), (top, h)])
    yield "handle", "body", _handle(0.55 * r + 0.45 * top, 0.2 * h, 0.8 * h, handle)


@tableware("teapot", "tea pot", parts=("lid", "spout", "handle"), accent="lid", patterns=CERAMIC)
def _teapot(
    h=Range("height", 0.45, 1.18, "squat", "tall"),
    r=Range("belly", 0.42, 0.62),
    spout=Range("spout", 0.3, 0.5, "short-spouted", "long-spouted"),
    handle=Choice("handle", ("round", "square"), "handle"),
) -> Pieces:
    body = lathe(curve([(0.6 * r, 0), (0.95 * r, 0.2 * h), (r, 0.45 * h), (0.8 * r, 0.8 * h), (0.45 * r, h)], 18))
    lid = [(0.5 * r, 0), (0.42 * r, 0.06), (0.1, 0.12), (0.04, 0.15), (0.09, 0.22), (0.05, 0.27), (0, 0.28)]
    path = curve([(-0.9 * r, 0.35 * h, 0), (-1.1 * r - 0.4 * spout, 0.5 * h, 0), (-r - spout, h, 0)], 10)
    yield "body", "main", body
    yield "bottom", "body", cylinder(0.62 * r, 0.03)
    yield "lid", "accent", lathe(lid).move(0, h - 0.02)
    yield "spout", "body", sweep(path, np.linspace(0.13, 0.055, 10))
    yield "handle", "body", _handle(0.9 * r, 0.22 * h, 0.8 * h, handle, 0.055)


@tableware("vase", "flower vase", patterns=CERAMIC, colors=SHINY)
def _vase(
    h=Range("height", 0.66, 2.12, "squat", "tall"),
    b=Range("belly", 0.3, 0.6, "slender", "bulbous"),
    neck=Range("neck", 0.12, 0.26),
    lip=Range("lip", 0.16, 0.36),
) -> Pieces:
    side = [(0.5 * b, 0), (0.85 * b, 0.2 * h), (b, 0.4 * h), (0.6 * b, 0.65 * h), (neck, 0.82 * h), (lip, h)]
    yield from hollow(curve(side, 26), 0.03)


@tableware("bowl", "dish", patterns=CERAMIC + ("wood",), colors=SHINY)
def _bowl(
    r=Range("radius", 0.6, 1.0),
    h=Range("height", 0.2, 0.83, "shallow", "deep"),
    f=Range("foot", 0.25, 0.45),
) -> Pieces:
    yield from hollow(curve([(f, 0), (0.6 * r + 0.2 * f, 0.2 * h), (0.92 * r, 0.6 * h), (r, h)], 16))


@tableware("plate", "dinner plate", parts=("rim",), accent="rim", patterns=CERAMIC)
def _plate(
    r=Range("radius", 0.6, 1.0, "small", "large"),
    rim=Range("rim", 0.12, 0.32, "", "wide-rimmed"),
    d=Range("depth", 0.05, 0.16, "flat", "deep"),
) -> Pieces:
    i = r - rim
    yield "bottom", "main", lathe([(0, 0), (0.85 * i, 0), (i, 0.6 * d), (r, d), (r, d + 0.03)], 36)
    yield "center", "main", lathe([(i, 0.6 * d + 0.05), (0.85 * i, 0.05), (0, 0.05)], 36)
    yield "rim", "accent", lathe([(r, d + 0.03), (i, 0.6 * d + 0.05)], 36)


@painted(
    patterns=("plain", "horizontal stripes", "vertical stripes", "dots", "stars", "gradient", "zigzag", "flowers"),
    colors=(*METALS, "light blue", "turquoise", "white", "purple", "red", "lime", "pink"),
)
@tableware("wine glass", "goblet", parts=("stem", "foot"), accent="stem")
def _wine_glass(
    s=Range("stem", 0.25, 0.94, "short-stemmed", "long-stemmed"),
    b=Range("bowl", 0.25, 0.42),
    h=Range("height", 0.45, 0.8),
) -> Pieces:
    side = [(0.05, s), (0.75 * b, s + 0.15 * h), (b, s + 0.45 * h), (0.85 * b, s + h)]
    yield from hollow(curve(side, 16), 0.02, 0.04, name="cup")
    yield "stem", "accent", rod((0, 0.05, 0), (0, s + 0.03, 0), 0.045, 0.05)
    yield "foot", "accent", lathe([(0, 0), (0.9 * b + 0.05, 0), (0.9 * b, 0.03), (0.06, 0.08), (0, 0.08)])


@tableware("pitcher", "jug", parts=("handle", "spout"), patterns=CERAMIC, colors=SHINY)
def _pitcher(
    h=Range("height", 0.66, 1.77, "squat", "tall"),
    b=Range("belly", 0.35, 0.55),
    m=Range("mouth", 0.2, 0.34),
    handle=Choice("handle", ("round", "pointed"), "handle"),
) -> Pieces:
    side = [(0.7 * b, 0), (b, 0.3 * h), (0.8 * b, 0.6 * h), (0.85 * m, 0.82 * h), (m, h)]
    outer, inner = vessel(curve(side, 20), 0.035)

    def lip(v: np.ndarray) -> np.ndarray:
        pull = 0.3 * np.clip((v[:, 1] / h - 0.8) / 0.2, 0, 1) ** 2 * np.clip(-v[:, 0] / m, 0, 1) ** 4
        return v + np.stack([-pull, 0.2 * pull, 0 * pull], axis=1)

    yield "body", "main", outer.warp(lip)
    yield "inside", "inside", inner.warp(lip)
    yield "spout", "body", sweep([(-0.8 * m, 0.8 * h, 0), (-m - 0.12, h - 0.01, 0)], [0.03, 0.11])
    yield "handle", "body", _handle(0.86 * m + 0.05, 0.42 * h, 0.95 * h, handle, 0.05)


@tableware("fork", "table fork", parts=("handle", "tines"), accent="tines", patterns=CUTLERY, colors=SHINY)
def _fork(
    n=Range("handle_length", 0.74, 1.89, "short-handled", "long-handled"),
    w=Range("width", 0.2, 0.34),
    tine_length=Range("tine_length", 0.3, 0.5),
    tines=Count("tines", (2, 3, 4), "tine"),
) -> Pieces:
    web = box(w, 0.3, 0.06, 0.025).move(0, n + 0.02)
    up, out = [n + 0.28, n + 0.25 + 0.7 * tine_length, n + 0.3 + tine_length], [0, 0.02, 0.05]
    tine = sweep(line(0, up, out), [0.032, 0.028, 0.012])
    yield "handle", "main", _grip(n, 0.4, 0.06)
    yield "tines", "accent", web + rod((0, n - 0.04, 0), (0, n + 0.05, 0), 0.04)
    yield "tines", "accent", row(tine, tines, ((w - 0.06) / (tines - 1), 0, 0))


@tableware("spoon", "ladle", parts=("handle", "scoop"), accent="scoop", patterns=CUTLERY, colors=SHINY)
def _spoon(
    n=Range("handle_length", 0.66, 2.01, "short-handled", "long-handled"),
    w=Range("width", 0.16, 0.28),
    oval=Range("oval", 1.0, 1.6, "", "oval"),
) -> Pieces:
    shell = lathe(np.concatenate([arc(1.0, -90, 0, 8) * [1, 0.6], (arc(0.93, 0, -90, 8) * [1, 0.55])]), planar=False)
    yield "handle", "main", _grip(n, 0.45, 0.055)
    yield "scoop", "accent", shell.turn("x", 90).scale(w, w * oval, w).move(0, n + w * oval - 0.02, 0.06)


@painted(
    patterns=("plain", "speckles", "horizontal stripes", "dots", "gradient", "checks"),
    colors=(*METALS, "black", "red", "blue", "gray", "green", "orange"),
)
@tableware("frying pan", "skillet", "pan", parts=("handle",), accent="handle")
def _frying_pan(
    r=Range("radius", 0.5, 0.8, "small", "large"),
    d=Range("depth", 0.12, 0.32, "shallow", "deep"),
    handle_length=Range("handle_length", 0.41, 1.18, "", "long-handled"),
) -> Pieces:
    grip = sweep([(r - 0.05, 0.8 * d, 0), (r + 0.2, d, 0), (r + handle_length, d + 0.1, 0)], [0.05, 0.06, 0.075])
    yield from hollow([(0.8 * r, 0), (r, d)], 0.03, 0.04)
    yield "handle", "accent", grip


@painted(patterns=PACKED, colors=SHINY)
@tableware("cooking pot", "saucepan", "stockpot", parts=("lid", "handles", "knob"), accent="lid")
def _cooking_pot(
    r=Range("radius", 0.45, 0.7),
    h=Range("height", 0.33, 1.06, "shallow", "deep"),
    lid_height=Range("lid_height", 0.06, 0.2),
    form=Choice("knob", ("round", "flat"), "knob"),
) -> Pieces:
    ears = _handle(r, 0.62 * h, 0.62 * h + 0.24, "square", 0.04).turn("x", 90).move(0, 0.75 * h, -0.75 * h).mirror()
    lid = lathe([(0, 0), (r + 0.03, 0), (r + 0.03, 0.04), (0.5 * r, 0.03 + lid_height), (0, 0.05 + lid_height)])
    knob = sphere(0.1, 9, 14) if form == "round" else cylinder(0.15, 0.07)
    yield "body", "main", lathe([(0, 0), (r - 0.05, 0), (r, 0.05), (r, h)])
    yield "handles", "dark brown", ears
    yield "lid", "accent", lid.move(0, h)
    yield "knob", "dark brown", knob.move(0, h + lid_height + 0.09)


@tableware("cake stand", "tiered tray", parts=("tiers", "stem"), accent="stem", patterns=CERAMIC)
def _cake_stand(
    radius=Range("radius", 0.5, 0.85, "small", "wide"),
    gap=Range("gap", 0.3, 0.5),
    shrink=Range("shrink", 0.1, 0.22),
    tiers=Count("tiers", (1, 2, 3), "tier"),
) -> Pieces:
    radii = [radius - i * shrink for i in range(tiers)]
    profiles = [[(0, 0), (r - 0.05, 0), (r, 0.06), (r - 0.03, 0.07), (r - 0.07, 0.03), (0, 0.03)] for r in radii]
    top = 0.4 + gap * (tiers - 1)
    yield "tiers", "main", join([lathe(p, 32).move(0, 0.35 + gap * i) for i, p in enumerate(profiles)])
    yield "stem", "accent", spindle([(0.3, 0), (0.25, 0.04), (0.05, 0.12), (0.08, 0.22), (0.04, 0.35), (0.035, top)])
    yield "stem", "accent", sphere(0.07, 8, 12).move(0, top + 0.02)
