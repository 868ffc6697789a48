"""The procedural catalogue: every category builds, repeats, is split without leaks, and says what it holds."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest

from clipgs_lib import catalogue
from clipgs_lib.catalogue.describe import NUMBERS
from clipgs_lib.catalogue.patterns import PRINTS, SIZE, mask, texture
from clipgs_lib.catalogue.split import cell_of, cell_splits

NAMES = list(catalogue.CATEGORIES)
OBJECTS = {}


def objects(rounds: int = 3) -> list[catalogue.CatalogueObject]:
    """``rounds`` objects of every category, made once."""
    for index in range(rounds * len(NAMES)):
        if index not in OBJECTS:
            OBJECTS[index] = catalogue.make(index)
    return [OBJECTS[index] for index in range(rounds * len(NAMES))]


def digest(item: catalogue.CatalogueObject) -> str:
    """Digest of an object's values rounded to 3 digits, so that the last bits of a machine's sine do not matter."""
    out = hashlib.sha256(json.dumps(item.params, sort_keys=True).encode())
    for part in item.mesh.parts:
        out.update(f"{part.name} {part.base_color} {len(part.faces)}".encode())
        out.update(
            (np.round(part.vertices.astype(np.float64) * 1000 + 0.25).sum(axis=0) // 16).astype(np.int64).tobytes()
        )
        if part.texture is not None:
            out.update((part.texture.astype(np.int64).sum(axis=(0, 1)) // 256).tobytes())
    for caption in item.captions:
        out.update(caption.text.encode())
    return out.hexdigest()[:16]


def test_enough_categories_and_patterns():
    assert len(NAMES) >= 48
    assert len(catalogue.PATTERNS) >= 8
    assert len({spec.group for spec in catalogue.CATEGORIES.values()}) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_meshes_are_sound(name):
    for item in objects()[NAMES.index(name) :: len(NAMES)]:
        assert item.category == name and item.mesh.up_axis == "+y"
        radius = 0.0
        for part in item.mesh.parts:
            corners = part.vertices[part.faces].astype(np.float64)  # [F, 3, 3]
            area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
            assert np.isfinite(part.vertices).all() and len(part.faces), part.name
            assert area.min() > 1e-10, f"{part.name}: a triangle without area"
            radius = max(radius, float(np.linalg.norm(part.vertices[np.unique(part.faces)], axis=1).max()))
            assert part.name and (part.texture is None or max(part.texture.shape) <= 256)
            if part.uvs is not None:
                spread = np.ptp(part.uvs[part.faces], axis=1).max()
                assert np.isfinite(part.uvs).all() and np.abs(part.uvs).max() < 60 and spread < 20, part.name
        low, high = item.mesh.bounds()
        assert abs(radius - 1) < 1e-3
        np.testing.assert_allclose(low + high, 0, atol=1e-3)
        assert (high - low).min() > 0.02


@pytest.mark.parametrize("end", ["low", "high"])
def test_extremes_build(end):
    """All parameters at one end of their ranges at once."""
    for index, (name, spec) in enumerate(catalogue.CATEGORIES.items()):
        params = dict(objects(1)[index].params, shape={r.name: getattr(r, end) for r in spec.ranges})
        if spec.count:
            params["count"] = spec.count.values[0 if end == "low" else -1]
        params["choices"] = {c.name: c.options[0 if end == "low" else -1] for c in spec.choices}
        mesh = catalogue.build_mesh(params)
        low, high = mesh.bounds()
        assert mesh.n_faces < 20_000 and (high - low).min() > 0.02, name
        assert {part.name for part in mesh.parts} == {part.name for part in objects(1)[index].mesh.parts}, name


def first_hits(corners: np.ndarray, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Cosine ``[R]`` between each ray and the normal of the first of the triangles ``[F, 3, 3]`` that it meets."""
    a, e, f = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]  # Moeller and Trumbore, 1997
    p = np.cross(directions[:, None], f[None])  # [R, F, 3]
    det = np.einsum("rfk,fk->rf", p, e)
    inverse = 1 / np.where(np.abs(det) < 1e-12, np.inf, det)
    t = origins[:, None] - a[None]
    u = np.einsum("rfk,rfk->rf", t, p) * inverse
    q = np.cross(t, e[None])
    v = np.einsum("rk,rfk->rf", directions, q) * inverse
    depth = np.einsum("rfk,fk->rf", q, f) * inverse
    depth[(np.abs(det) < 1e-12) | (u < 0) | (v < 0) | (u + v > 1) | (depth < 0)] = np.inf
    nearest = depth.argmin(axis=1)
    normal = np.cross(e, f)[nearest]
    return np.einsum("rk,rk->r", directions, normal / np.linalg.norm(normal, axis=1, keepdims=True))


@pytest.mark.parametrize("name", NAMES)
def test_surfaces_face_outwards(name):
    """What a ray from outside meets first shows its front, not its back."""
    mesh, rng = objects(1)[NAMES.index(name)].mesh, np.random.default_rng(0)
    directions = rng.normal(size=(80, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = mesh.sample(80, rng).points - 3 * directions
    corners = np.concatenate([part.vertices[part.faces] for part in mesh.parts]).astype(np.float64)
    back = first_hits(corners, origins, directions) > 0.02
    assert back.mean() < 0.02


def test_objects_repeat():
    first = [catalogue.make(index, seed=3) for index in (0, 57, 111)]
    again = [catalogue.make(index, seed=3) for index in (111, 57, 0)][::-1]
    for a, b in zip(first, again, strict=True):
        assert a.id == b.id and a.params == b.params and a.captions == b.captions
        for p, q in zip(a.mesh.parts, b.mesh.parts, strict=True):
            np.testing.assert_array_equal(p.vertices, q.vertices)
    assert catalogue.make(0, seed=4).id != first[0].id
    with pytest.raises(ValueError, match="at least 0"):
        catalogue.make(-1)


def test_objects_are_the_same_everywhere():
    """Pinned: when this fails, objects changed, and `split.VERSION` must rise with the new values."""
    pinned = {
        (0, 0): "6ea2180459d2f9dd",
        (30, 0): "a9b42c78beb2cc5b",
        (82, 1): "24db3474e8c3f6cb",
        (999, 7): "b921afc575c02572",
    }
    assert {key: digest(catalogue.make(*key)) for key in pinned} == pinned


def test_params_are_json_and_enough_to_rebuild():
    for item in objects(1)[::7]:
        params = json.loads(json.dumps(item.params))
        assert params == item.params
        for p, q in zip(item.mesh.parts, catalogue.build_mesh(params).parts, strict=True):
            np.testing.assert_array_equal(p.vertices, q.vertices)


def test_ids_are_unique():
    ids = [item.id for item in objects()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z-]+-[0-9a-f]{12}", name) for name in ids)


@pytest.mark.parametrize("name", [n for n, p in catalogue.PATTERNS.items() if p.mask])
def test_patterns_show_both_colors_and_tile(name):
    drawn = mask(name)
    assert drawn.shape == (SIZE, SIZE) and drawn.min() >= 0 and drawn.max() <= 1
    assert 0.04 < drawn.mean() < 0.75 and drawn.max() - drawn.min() > 0.8
    steps = np.abs(np.diff(drawn, axis=1)).max(), np.abs(np.diff(drawn, axis=0)).max()
    seams = np.abs(drawn[:, 0] - drawn[:, -1]).max(), np.abs(drawn[0] - drawn[-1]).max()
    assert all(seam <= step + 0.05 for seam, step in zip(seams, steps, strict=True))
    image = texture(name, np.array([1.0, 0, 0]), np.array([0, 0, 1.0]))
    assert image.dtype == np.uint8 and image[..., 0].max() > 200 and image[..., 1].max() == 0


def test_patterns_differ():
    drawn = [mask(name) for name in PRINTS]
    for i, a in enumerate(drawn):
        assert all(np.abs(a - b).mean() > 0.1 for b in drawn[:i])
    with pytest.raises(ValueError, match="plain"):
        mask("plain")


def test_captions_name_what_is_there():
    colors = sorted(catalogue.COLORS, key=len, reverse=True)
    for item in objects():
        spec, params = catalogue.CATEGORIES[item.category], item.params
        names = (item.category, *spec.synonyms)
        texts = [caption.text for caption in item.captions]
        assert 3 <= len(texts) <= 6 and len(set(texts)) == len(texts)
        assert texts[0] in names
        assert any(params["color"] in text for text in texts)
        parts = {part.name for part in item.mesh.parts}
        assert set(spec.parts) | ({spec.accent} - {""}) <= parts, f"{item.category} has no {set(spec.parts) - parts}"
        allowed = {params["color"], params["second"], params["accent"]}
        for caption in item.captions:
            text = caption.text
            assert caption.source == "enriched" and caption.score is None
            assert any(name in text for name in names)
            assert not re.search(
                r"\ba [aeio]|\ban [^aeiou]|  |\bone \w+s\b(?!.*\bof\b)|^$", text.replace("one-", "")
            ), text
            left = text
            for name in names:
                left = left.replace(name, "")
            for color in colors:
                if re.search(rf"\b{color}\b", left):
                    assert color in allowed, f"{text!r} says {color}, the object has {allowed}"
                    left = re.sub(rf"\b{color}\b", "", left)
            said = [NUMBERS.index(w) for w in left.split() if w in NUMBERS] + [
                int(w) for w in left.split() if w.isdigit()
            ]
            assert all(n == params["count"] for n in said), f"{text!r}, count {params['count']}"


def test_full_captions_tell_pattern_and_count():
    for item in objects(1):
        text = " ".join(caption.text for caption in item.captions)
        spec, pattern = catalogue.CATEGORIES[item.category], catalogue.PATTERNS[item.params["pattern"]]
        if pattern.phrase:
            assert pattern.phrase.format(second=item.params["second"], article="a").split()[-1] in text
        elif item.params["pattern"] != "plain":
            assert pattern.adjective in text
        if spec.count:
            assert spec.count.name in text or spec.count.one.split()[0] in text


def test_splits_are_disjoint_and_keep_their_shares():
    cells: dict[tuple[str, int], set[str]] = {}
    for item in objects():
        cells.setdefault((item.category, cell_of(item.params)), set()).add(item.split)
    assert all(len(splits) == 1 for splits in cells.values())
    free = [name for name in NAMES if name not in catalogue.HELD_CATEGORIES]
    for name in free:
        shares = np.bincount(cell_splits(name), minlength=3) / len(cell_splits(name))
        assert shares.min() > 0 and 0.7 < shares[0] < 0.9, name
    splits = [item.split for item in objects()]
    assert 0.6 < splits.count("train") / len(splits) < 0.85
    assert splits.count("val") > 10 and splits.count("test") > 20


def test_held_out_categories_and_combinations():
    assert len(catalogue.HELD_CATEGORIES) >= 6 and set(catalogue.HELD_CATEGORIES) <= set(NAMES)
    held = {(n, p) for n, s in catalogue.CATEGORIES.items() for p in s.patterns if catalogue.held_combination(n, p)}
    pairs = sum(len(s.patterns) for s in catalogue.CATEGORIES.values())
    assert 0.03 < len(held) / pairs < 0.12
    seen = {"none": 0, "category": 0, "combination": 0}
    for item in objects():
        seen[item.holdout] += 1
        if item.category in catalogue.HELD_CATEGORIES:
            assert (item.split, item.holdout) == (catalogue.HELD_CATEGORIES[item.category], "category")
        elif (item.category, item.params["pattern"]) in held:
            assert (item.split, item.holdout) == ("test", "combination")
        else:
            assert item.holdout == "none"
    assert min(seen.values()) > 5
    trained = {(i.category, i.params["pattern"]) for i in objects() if i.split != "test"}
    assert not trained & held
    for _, pattern in held:  # each held-out pattern is seen in training on something else
        assert any(p == pattern for _, p in trained)


def test_different_splits_keep_apart():
    """Two shapes of one category in different splits differ by at least 5 % of a range, or in a count or form."""
    for name in NAMES[::9]:
        spec = catalogue.CATEGORIES[name]
        drawn = [catalogue.make(NAMES.index(name) + len(NAMES) * k, seed=1) for k in range(12)]
        for i, a in enumerate(drawn):
            for b in drawn[:i]:
                if a.split != b.split:
                    same = a.params["count"] == b.params["count"] and a.params["choices"] == b.params["choices"]
                    apart = max(
                        abs(a.params["shape"][r.name] - b.params["shape"][r.name]) / (r.high - r.low)
                        for r in spec.ranges
                    )
                    assert not same or apart > 0.049
