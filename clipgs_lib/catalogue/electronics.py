"""Electronics."""

from .model import METALS, SHINY, TIMBER, Choice, Count, Pieces, Range, contrasting, in_group, painted
from .shapes import Shape, arc, around, join, lathe, lay, line, row, sweep
from .solids import box, cylinder, ellipsoid, rod, sphere, torus, wheel

electronics = in_group("electronics")


@painted(patterns=TIMBER)
@electronics("television", "tv", "tv set", parts=("screen", "antenna", "knobs", "legs"), accent="knobs")
def _television(
    w=Range("width", 1.1, 1.7, "narrow", "wide"),
    h=Range("height", 0.53, 1.12, "low", "tall"),
    d=Range("depth", 0.25, 0.5, "slim", "deep"),
    knobs=Count("knobs", (1, 2, 3, 4), "knob"),
) -> Pieces:
    antenna = rod((0, 0.2 + h, 0), (0.28, 0.6 + h, 0), 0.018).mirror() + sphere(0.08, 7, 12).move(0, 0.2 + h)
    legs = around(rod((0.3 * w, 0.22, 0.1), (0.36 * w, 0, 0.2), 0.035), 1)
    legs = legs + rod((0.3 * w, 0.22, -0.1), (0.36 * w, 0, -0.2), 0.035)
    yield "case", "main", box(w, h, d, 0.05).move(0, 0.2)
    yield "screen", "black", box(0.7 * w, 0.8 * h, 0.06, 0.03).move(-0.09 * w, 0.2 + 0.1 * h, d / 2)
    yield "knobs", "accent", row(wheel(0.055, 0.06, 14), knobs, (0, -0.15, 0)).move(0.4 * w, 0.2 + h / 2, d / 2)
    yield "antenna", "silver", antenna
    yield "legs", "dark brown", legs.mirror()


@painted(colors=(*contrasting("black"), *METALS))
@electronics("laptop", "notebook computer", parts=("keys", "touchpad", "screen"))
def _laptop(
    w=Range("width", 0.9, 1.4, "small", "wide"),
    d=Range("depth", 0.6, 0.9),
    open=Range("open", 80, 125, "half-open", "wide-open"),
    rows=Count("rows", (3, 4, 5), "row of keys"),
) -> Pieces:
    step = 0.5 * d / rows
    keys = row(box(0.066 * w, 0.03, 0.74 * step, 0.01), 10, (0.085 * w, 0, 0))
    keys = row(keys, rows, (0, 0, step)).move(0, 0.05, -0.14 * d)
    tilt = open - 90

    def place(shape: Shape) -> Shape:
        return shape.turn("x", -tilt).move(0, 0.06, -d / 2)

    yield "base", "body", box(w, 0.06, d, 0.02)
    yield "lid", "main", place(box(w, 0.96 * d, 0.04, 0.015))
    yield "screen", "light blue", place(box(0.9 * w, 0.82 * d, 0.02).move(0, 0.07 * d, 0.025))
    yield "keys", "black", keys
    yield "touchpad", "gray", box(0.26 * w, 0.02, 0.2 * d).move(0, 0.05, 0.33 * d)


@electronics("camera", "photo camera", parts=("lens", "flash", "shutter button"), accent="lens")
def _camera(
    w=Range("width", 0.8, 1.2, "narrow", "wide"),
    n=Range("lens_length", 0.2, 0.6, "", "long-lensed"),
    h=Range("height", 0.5, 0.75),
    r=Range("lens_radius", 0.2, 0.28),
    form=Choice("flash", ("square", "round"), "flash"),
) -> Pieces:
    lens = lathe([(0.9 * r, 0), (0.9 * r, 0.6 * n), (r, 0.62 * n), (r, n), (0.8 * r, n), (0.75 * r, n - 0.05)])
    lens = lens.turn("x", 90).move(0, 0.48 * h, 0.17)
    flash = box(0.26, 0.16, 0.24, 0.03) if form == "square" else cylinder(0.13, 0.16).scale(1, 1, 0.9)
    yield "body", "main", box(w, h, 0.36, 0.06)
    yield "lens", "accent", lens
    yield "glass", "navy", wheel(0.8 * r, 0.05, 24).move(0, 0.48 * h, 0.12 + n)
    yield "flash", "silver", flash.move(0, h - 0.02)
    yield "shutter button", "red", cylinder(0.06, 0.06, 16).move(0.36 * w, h)
    yield "dial", "silver", cylinder(0.09, 0.05, 16).move(-0.34 * w, h)


@electronics("alarm clock", "clock", parts=("bells", "hands", "legs"), accent="bells", colors=SHINY)
def _alarm_clock(
    r=Range("radius", 0.45, 0.65, "small", "large"),
    d=Range("depth", 0.2, 0.4, "slim", "thick"),
    bell=Range("bell", 0.14, 0.22, "", "big-belled"),
    count=Count("bells", (1, 2), "bell"),
) -> Pieces:
    y = r + 0.14
    marks = join([box(0.03, 0.09, 0.02).move(0, 0.72 * r).turn("z", 30 * i) for i in range(12)])
    hands = box(0.045, 0.62 * r, 0.02).turn("z", -60) + box(0.055, 0.42 * r, 0.02).turn("z", 50)
    dome = lathe(arc(bell, -5, 90, 9), 20, planar=False)
    bells = dome.move(0, r + 0.06) if count == 1 else dome.move(0, r + 0.05).turn("z", -32).mirror()
    yield "case", "main", wheel(r, d, 32).move(0, y)
    yield "face", "white", cylinder(0.88 * r, 0.02, 28).turn("x", 90).move(0, y, d / 2)
    yield "marks", "black", marks.move(0, y, d / 2 + 0.03)
    yield "hands", "black", hands.move(0, y, d / 2 + 0.045)
    yield "bells", "accent", bells.move(0, y)
    yield "legs", "dark brown", rod((0.4 * r, y - 0.8 * r, 0), (0.65 * r, 0, 0), 0.04).mirror()


@painted(patterns=TIMBER)
@electronics("radio", "portable radio", parts=("speaker", "handle", "antenna", "buttons"), accent="buttons")
def _radio(
    w=Range("width", 0.9, 1.5, "narrow", "wide"),
    h=Range("height", 0.41, 0.94, "low", "tall"),
    d=Range("depth", 0.22, 0.4),
    count=Count("buttons", (2, 3, 4, 5), "button"),
    form=Choice("speaker", ("round", "square"), "speaker"),
) -> Pieces:
    s = 0.33 * h
    speaker = wheel(s, 0.06, 26) if form == "round" else box(2 * s, 2 * s, 0.06, 0.02).move(0, -s)
    across, up = [-0.4 * w, -0.4 * w, -0.34 * w, 0.34 * w, 0.4 * w, 0.4 * w], [h, h + 0.16, h + 0.2]
    buttons = row(wheel(0.05, 0.06, 14), count, (0.4 * w / count, 0, 0)).move(0.22 * w, 0.22 * h, d / 2)
    yield "case", "main", box(w, h, d, 0.05)
    yield "speaker", "black", speaker.move(-0.24 * w, h / 2, d / 2)
    yield "dial", "white", box(0.4 * w, 0.25 * h, 0.04).move(0.22 * w, 0.55 * h, d / 2)
    yield "needle", "red", box(0.02, 0.23 * h, 0.02).move(0.27 * w, 0.56 * h, d / 2 + 0.02)
    yield "buttons", "accent", buttons
    yield "handle", "gray", sweep(line(across, up + up[::-1], 0), 0.035)
    yield "antenna", "silver", rod((0.45 * w, h, -0.3 * d), (0.6 * w, h + 0.55, -0.3 * d), 0.015)


@electronics("headphones", "headset", parts=("headband", "ear cups"), accent="headband")
def _headphones(
    r=Range("radius", 0.5, 0.72),
    c=Range("cup", 0.2, 0.32, "small-cupped", "large-cupped"),
    band_size=Range("band", 0.05, 0.1, "thin-banded", "thick-banded"),
    cups=Choice("cups", ("round", "square"), "ear cups"),
) -> Pieces:
    section = arc(1, 0, 360, 11)[:-1] * [0.6 * band_size, 1.3 * band_size]
    cup = wheel(c, 0.16, 24).turn("y", 90) if cups == "round" else box(0.16, 2 * c, 1.7 * c, 0.06).move(0, -c)
    yield "headband", "accent", sweep(lay(arc(r, -5, 185, 26), "xy"), 1.0, section=section)
    yield "ear cups", "main", cup.move(r + 0.03, -0.12).mirror()
    yield "pads", "black", wheel(0.85 * c, 0.1, 20).turn("y", 90).move(r - 0.08, -0.12).mirror()


@painted(colors=(*contrasting("black"), *METALS))
@electronics("flashlight", "torch", parts=("rings", "head", "switch"), accent="head")
def _flashlight(
    n=Range("length", 0.66, 1.65, "short", "long"),
    h=Range("head", 0.2, 0.34, "", "wide-headed"),
    r=Range("radius", 0.11, 0.17),
    rings=Count("rings", (2, 3, 4, 5), "grip ring"),
) -> Pieces:
    yield "tube", "main", lathe([(0, 0), (r - 0.02, 0), (r, 0.03), (r, n), (0, n)])
    yield "rings", "black", row(torus(r, 0.025, 20, 7), rings, (0, 0.09, 0)).move(0, 0.3 * n)
    yield "head", "accent", lathe([(r, 0), (h, 0.22), (h, 0.42), (h - 0.04, 0.42), (h - 0.05, 0.38)]).move(0, n)
    yield "glass", "yellow", cylinder(h - 0.04, 0.02).move(0, n + 0.37)
    yield "switch", "red", ellipsoid(0.05, 0.1, 0.05).move(0, 0.75 * n, r)
