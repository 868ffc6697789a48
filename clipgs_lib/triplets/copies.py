"""Copies of a mesh that look otherwise: the same shape in other colours, or with a pattern, and texts that say so.

Colours are changed by families of names ("brown" of light and dark brown): all that an object has of one family turns
into one other named colour, with its shades about that. A part whose texture is a picture rather than a palette, or
has little difference in it, counts as one colour, its mean. What a copy is called then is measured on it like on any
object; only patterns are said beyond that. Its names lose their words for colours and materials.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..captions.attributes import family_of
from ..captions.caption import Caption
from ..captions.enrich import ObjectCaptions, split_size
from ..captions.names import natural_order
from ..catalogue.assemble import TILE
from ..catalogue.model import PAINTS, contrasting
from ..catalogue.patterns import PATTERNS, PRINTS, texture
from ..colors import COLORS, NAMES, from_oklab, nearest, oklab
from ..meshes import Mesh, Part
from ..meshes.mesh import SurfaceSamples
from ..words import with_article
from .recipe import Source

MAX_COPIES = 99
_SAMPLES = 12_000
_CELL = 0.12  # of a grid that samples hide each other in, radii of the object
_PALETTE = 1_024  # different colours up to which a texture is a palette of flat ones
_FLAT = 0.75  # share of a part whose triangles each have one colour, from which other textures are palettes, too
_ONE = 0.08  # standard deviation in OKLab below which all colours of a part are one: the grain of wood
_SMALL = 0.04  # share of the surface below which a colour stays: eyes, buttons
_CHANGED = 0.7  # share of the other colours that change; the largest always does
_PATTERNED = 0.5  # share of the copies that get a pattern
_LARGE = 0.5  # area that a pattern needs to be seen, in squared radii of the object
_BROAD = 0.5  # area that a pattern needs to be seen, in surfaces of the box about it: not on ladders
_SHADES = 0.07  # standard deviation of lightness that a painted colour may have and be called the same
_MATERIALS = {  # that a whole object may be of, in their two colours
    "wood": [("light brown", "brown"), ("brown", "dark brown")],
    "marble": [("white", "gray"), ("black", "white"), ("green", "white")],
}
_FAMILY = np.array([family_of(name) for name in NAMES])


class Painted(NamedTuple):
    """A mesh that was painted anew."""

    mesh: Mesh  # of the same triangles
    changes: dict[str, Any]  # what was changed, as plain JSON
    color: str  # of the surface that bears the pattern
    adjective: str  # "wooden"; "" when there is none
    feature: str  # "white dots"; "" when there are none


class _Paint(NamedTuple):
    """How colours of one family change."""

    mean: float  # lightness of what there is
    goal: np.ndarray  # [3] OKLab of what it becomes
    keep: float  # share of the shading that stays


def with_copies(sources: Sequence[Source], copies: int) -> list[Source]:
    """The sources, each followed by ``copies`` of its mesh, ``KEY-c1`` and so on.

    ValueError when ``copies`` is out of 0 to `MAX_COPIES`, or there are copies of something else than meshes.
    """
    if not 0 <= copies <= MAX_COPIES:
        raise ValueError(f"copies must be in 0..{MAX_COPIES}, got {copies}")
    if copies and (others := {source.kind for source in sources} - {"mesh"}):
        raise ValueError(f"copies must be of meshes, got {', '.join(sorted(others))}; leave --copies out")
    numbers = range(1, copies + 1)
    return [s for one in sources for s in (one, *(replace(one, key=f"{one.key}-c{n}", copy=n) for n in numbers))]


def paint_copy(mesh: Mesh, seed: int) -> Painted:
    """Recolour a mesh by ``seed``, and in half of the cases put a pattern onto what had its commonest colour.

    The mesh is in the unit sphere, since patterns have the size that they have in the catalogue. The triangles stay the
    same, in the same order but for those under a pattern, which become a part each.
    """
    rng = np.random.default_rng(seed)
    samples = mesh.sample(_SAMPLES, rng)
    seen = _outside(samples.points)
    area = samples.area * float(seen.mean())
    points, normals, colors, part_of = (column[seen] for column in samples[:4])
    samples = SurfaceSamples(points, normals, colors, part_of, area)
    families, lab = _families(samples.colors), oklab(samples.colors)
    wholes = [""] * len(mesh.parts)  # family of parts that count as one colour
    for index, part in enumerate(mesh.parts):
        rows = samples.part == index
        if rows.any() and (np.linalg.norm(lab[rows].std(axis=0)) < _ONE or _is_picture(part)):
            wholes[index] = str(_families(samples.colors[rows].mean(axis=0, keepdims=True))[0])
            families[rows] = wholes[index]
    shares = {str(name): float((families == name).mean()) for name in np.unique(families)}
    main = max(shares, key=shares.__getitem__)
    names, pattern = _draw(shares, main, rng), ""
    under = families == main
    if rng.random() < _PATTERNED and _broad(samples.points[under], shares[main] * area):
        pattern = str(rng.choice([*PRINTS, *_MATERIALS] if shares[main] >= 0.6 else PRINTS))
    second = ""
    if pattern in _MATERIALS:
        names[main], second = _MATERIALS[pattern][int(rng.integers(len(_MATERIALS[pattern])))]
    elif pattern:
        second = str(rng.choice(contrasting(names[main])))
    paints = {old: _paint(new, lab[families == old]) for old, new in names.items()}
    done: dict[Any, np.ndarray] = {}
    parts = [_painted(part, whole, paints, done) for part, whole in zip(mesh.parts, wholes, strict=True)]
    changes: dict[str, Any] = {"colors": names}
    if not pattern:
        return Painted(replace(mesh, parts=tuple(parts)), changes, names[main], "", "")
    look = texture(pattern, np.array(COLORS[names[main]]), np.array(COLORS[second]))
    out: list[Part] = []
    for old, new, whole in zip(mesh.parts, parts, wholes, strict=True):
        under = _faces_of(old, whole, main)
        out += [replace(new, faces=new.faces[~under])] * (not under.all())
        out += [_patterned(new, under, look, mesh.up_axis)] * bool(under.any())
    kind = PATTERNS[pattern]
    changes |= {"pattern": pattern, "on": main, "second": second}
    feature = kind.phrase.format(second=second).replace("horizontal ", "").replace("vertical ", "")
    return Painted(
        replace(mesh, parts=tuple(out)), changes, names[main], kind.adjective if kind.material else "", feature
    )


def copy_captions(painted: Painted, original: ObjectCaptions) -> tuple[Caption, ...]:
    """What is said of a copy: its captions so far, made from names without colours and measured, and its pattern."""
    short = [caption.text for caption in original.report.kept if len(caption.text.split()) <= 4]
    if not short or not (painted.adjective or painted.feature):
        return original.captions
    (size, noun), tail = (
        split_size(natural_order(short[0])),
        f" {'and' if ' with ' in short[0] else 'with'} {painted.feature}" if painted.feature else "",
    )
    measured = {family_of(name) for name in original.attributes.palette.main} if original.attributes else set()
    colors = ["", painted.color] if family_of(painted.color) in measured else [""]
    phrases = [" ".join(word for word in (size, color, painted.adjective, noun) if word) for color in colors]
    texts = [with_article(phrase) + tail for phrase in phrases]
    texts.append(f"a 3D model of {texts[-1]}")
    return (*original.captions, *(Caption(text, "enriched") for text in texts))


def _outside(points: np.ndarray) -> np.ndarray:
    """Which of ``points [n, 3]`` in the unit sphere are seen from one of 26 sides: not what is within a car."""
    seen = np.zeros(len(points), bool)
    for side in itertools.product((-1, 0, 1), repeat=3):
        if any(side):
            frame = np.linalg.qr(np.column_stack([side, np.eye(3)]))[0]  # [3, 3], the first column along the side
            depth = points @ np.array(side) / np.linalg.norm(side)
            cell = np.floor((points @ frame[:, 1:] + 2) / _CELL).astype(np.int64) @ np.array([1 << 16, 1])
            _, cell = np.unique(cell, return_inverse=True)
            front = np.full(cell.max() + 1, -np.inf)
            np.maximum.at(front, cell, depth)
            seen |= depth >= front[cell] - _CELL / 2
    return seen


def _is_picture(part: Part) -> bool:
    """Whether the part's texture changes within its triangles, which a palette of flat colours does not."""
    if part.texture is None or len(_distinct(part.texture)[0]) <= _PALETTE:
        return False
    corners = part.vertices[part.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    places = [np.tile(np.float32(0.2 + 0.4 * row), (len(corners), 1)) for row in np.eye(3)]
    seen = np.stack([_families(part.lookup(np.arange(len(corners)), place)) for place in places])
    return bool(areas[(seen == seen[0]).all(axis=0)].sum() < _FLAT * areas.sum())


def _broad(points: np.ndarray, area: float) -> bool:
    """Whether a surface through ``points [n, 3]`` has room for a pattern: is large, and no frame of thin bars."""
    a, b, c = np.ptp(points, axis=0)
    return area >= max(_BROAD * 2 * (a * b + b * c + c * a), _LARGE)


def _draw(shares: Mapping[str, float], main: str, rng: np.random.Generator) -> dict[str, str]:
    """Which families become which colour: the main one, and most of the others that are not small."""
    large = [name for name in sorted(shares, key=lambda name: (-shares[name], name)) if shares[name] >= _SMALL]
    changed = [name for name in large if name == main or rng.random() < _CHANGED]
    taken = {name for name in shares if name not in changed and shares[name] >= _SMALL} | {main}
    names: dict[str, str] = {}
    for old in changed:
        free = [paint for paint in PAINTS if family_of(paint) not in taken | {old}]
        apart = set(contrasting(*names.values())) if names else set(free)
        options = [paint for paint in free if paint in apart] or free
        if options:
            names[old] = str(rng.choice(options))
            taken.add(family_of(names[old]))
    return names


def _paint(name: str, lab: np.ndarray) -> _Paint:
    keep = min(1.0, _SHADES / max(float(lab[:, 0].std()), 1e-6))
    return _Paint(float(lab[:, 0].mean()), oklab(np.array(COLORS[name])), keep)


def _repaint(colors: np.ndarray, families: np.ndarray, paints: Mapping[str, _Paint]) -> np.ndarray:
    """Colours ``[n, 3]`` in ``[0, 1]`` of families ``[n]`` changed; darker shades are less colourful as well."""
    out = np.array(colors, np.float64)
    for old, paint in paints.items():
        rows = families == old
        light = paint.goal[0] + paint.keep * (oklab(out[rows])[:, :1] - paint.mean)
        tint = paint.goal[1:] * (light / paint.goal[0]).clip(0.4, 1.3)
        out[rows] = from_oklab(np.concatenate([light.clip(0.03, 0.99), tint], axis=1))
    return out


def _painted(part: Part, whole: str, paints: Mapping[str, _Paint], done: dict[Any, np.ndarray]) -> Part:
    """The part in new colours; ``done`` holds textures, which parts share."""

    def painted(colors: np.ndarray) -> np.ndarray:
        families = np.full(len(colors), whole) if whole else _families(colors)
        return _repaint(colors, families, paints)

    base, white = np.array(part.base_color[:3]), (1.0, 1.0, 1.0, part.base_color[3])
    if part.texture is not None:
        key = (id(part.texture), part.base_color, whole)
        if key not in done:
            colors, index = _distinct(part.texture)
            done[key] = np.rint(255 * painted(colors / 255 * base)).astype(np.uint8)[index]
        return replace(part, texture=done[key], base_color=white)
    if part.colors is not None:
        return replace(part, colors=painted(part.colors * base).astype(np.float32), base_color=white)
    r, g, b = (float(value) for value in painted(base[None])[0])
    return replace(part, base_color=(r, g, b, part.base_color[3]))


def _faces_of(part: Part, whole: str, name: str) -> np.ndarray:
    """Which triangles ``[F]`` have the colour ``name``."""
    if whole:
        return np.full(len(part.faces), whole == name)
    count = len(part.faces)
    return _families(part.lookup(np.arange(count), np.full((count, 3), 1 / 3, np.float32))) == name


def _patterned(part: Part, under: np.ndarray, look: np.ndarray, up_axis: str) -> Part:
    """The triangles ``under`` with a tiled texture, laid on along the axis that each faces most."""
    corners = part.vertices[part.faces[under]]  # [F, 3, 3]
    facing = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])).argmax(axis=1)
    up = 1 if up_axis == "unknown" else "xyz".index(up_axis[1])
    one, other = (axis for axis in range(3) if axis != up)
    across = np.where(facing == one, other, one)
    upward = np.where(facing == up, other, up)
    axes = np.stack([across, upward], axis=1)[:, None].repeat(3, axis=1)  # [F, 3, 2]
    uvs = np.take_along_axis(corners, axes, axis=2).reshape(-1, 2) / TILE
    faces = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
    white = (1.0, 1.0, 1.0, part.base_color[3])
    return Part(corners.reshape(-1, 3), faces, white, uvs.astype(np.float32), look, name=part.name)


def _families(colors: np.ndarray) -> np.ndarray:
    """Family of the name of each colour ``[n, 3]`` in ``[0, 1]``."""
    codes = np.rint(255 * np.clip(colors, 0, 1)).astype(np.uint8)
    distinct, index = _distinct(codes)
    if len(distinct) > _PALETTE:
        distinct, index = _distinct(codes | 7)  # five bits of each channel do
    return _FAMILY[nearest(distinct / 255)][index]


def _distinct(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different colours ``[m, 3]`` of ``[..., 3]`` uint8, and the index of each ``[...]``."""
    codes = colors.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    distinct, index = np.unique(codes, return_inverse=True)
    return np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=1), index.reshape(codes.shape)
