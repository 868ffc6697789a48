"""Minimal pairs of the catalogue: exactly one thing differs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from clipgs_lib import catalogue
from clipgs_lib.catalogue.describe import describe
from clipgs_lib.catalogue.split import split_of

PAIRS = 24


@pytest.fixture(scope="module", params=catalogue.KINDS)
def made(request):
    return request.param, list(catalogue.pairs(request.param, PAIRS, seed=5))


def changed(a: dict, b: dict) -> list[str]:
    """Dotted names of the parameters that differ."""
    out = []
    for key in a:
        if isinstance(a[key], dict):
            out += [f"{key}.{inner}" for inner in a[key] if a[key][inner] != b[key][inner]]
        elif a[key] != b[key]:
            out.append(key)
    return out


def same_geometry(a, b) -> bool:
    return len(a.mesh.parts) == len(b.mesh.parts) and all(
        p.name == q.name and np.array_equal(p.vertices, q.vertices) and np.array_equal(p.faces, q.faces)
        for p, q in zip(a.mesh.parts, b.mesh.parts, strict=True)
    )


def test_pairs_differ_in_one_parameter(made):
    kind, found = made
    assert len(found) == PAIRS
    assert len({pair.objects[0].category for pair in found}) > PAIRS // 2
    wanted = {"texture": "pattern", "color": "color", "count": "count"}
    for pair in found:
        a, b = pair.objects
        name = wanted.get(kind, f"shape.{pair.attribute}")
        assert changed(a.params, b.params) == [name]
        assert a.split == b.split and a.id != b.id and pair.kind == kind and pair.values[0] != pair.values[1]


def test_captions_differ_in_the_attribute_only(made):
    kind, found = made
    for pair in found:
        a, b = (set(caption.text.split()) for caption in pair.captions)
        spec = catalogue.CATEGORIES[pair.objects[0].category]
        free = {"a", "an", "with"}
        for item, value in zip(pair.objects, pair.values, strict=True):
            if kind == "texture":
                pattern = catalogue.PATTERNS[str(value)]
                free |= set(pattern.phrase.format(second=item.params["second"], article="a").split()) | {"plain"}
            elif kind == "count":
                free |= {*spec.count.name.split(), *spec.count.one.split(), *pair.captions[0].text.split()[-4:]}
                free |= set(pair.captions[1].text.split()[-4:])
            else:
                free |= set(str(value).split())
        assert a != b
        assert a ^ b <= free, [caption.text for caption in pair.captions]


def test_texture_pairs_share_geometry_and_colors():
    for pair in catalogue.pairs("texture", PAIRS, seed=6):
        a, b = pair.objects
        assert same_geometry(a, b)
        textures = [[p.texture for p in item.mesh.parts if p.texture is not None] for item in (a, b)]
        assert textures[0] or textures[1]
        if textures[0] and textures[1]:
            assert any(not np.array_equal(p, q) for p, q in zip(*textures, strict=True))
        for p, q in zip(a.mesh.parts, b.mesh.parts, strict=True):
            if p.texture is None and q.texture is None:
                assert p.base_color == q.base_color


def test_color_pairs_share_geometry_and_pattern():
    for pair in catalogue.pairs("color", PAIRS, seed=6):
        a, b = pair.objects
        assert same_geometry(a, b)
        colors = [item.mesh.sample(500, np.random.default_rng(0)).colors for item in (a, b)]
        assert np.abs(colors[0] - colors[1]).max() > 0.3
        named = {tuple(np.round(color, 4)) for color in catalogue.COLORS.values()}
        for p, q in zip(a.mesh.parts, b.mesh.parts, strict=True):
            assert (p.uvs is None) == (q.uvs is None)
            if {p.base_color[:3], q.base_color[:3]} & named:  # accents and fixed paints; the main colour has a tint
                assert p.base_color == q.base_color
            if p.uvs is not None:
                np.testing.assert_array_equal(p.uvs, q.uvs)


def test_count_pairs_say_their_numbers():
    for pair in catalogue.pairs("count", PAIRS, seed=6):
        texts = [caption.text for caption in pair.captions]
        assert all(isinstance(value, int) for value in pair.values)
        assert texts[0].split()[:3] == texts[1].split()[:3]
        assert not same_geometry(*pair.objects)


def test_shape_pairs_change_the_shape_only():
    for pair in catalogue.pairs("shape", PAIRS, seed=6):
        a, b = pair.objects
        assert not same_geometry(a, b)
        for word, caption in zip(pair.values, pair.captions, strict=True):
            assert str(word) in caption.text
        for p, q in zip(a.mesh.parts, b.mesh.parts, strict=True):
            assert p.name == q.name and p.base_color == q.base_color
            if p.texture is not None:
                np.testing.assert_array_equal(p.texture, q.texture)


def test_pairs_repeat_and_keep_to_a_split():
    first = [p.objects[0].id + p.objects[1].id for p in catalogue.pairs("color", 4, seed=9)]
    assert first == [p.objects[0].id + p.objects[1].id for p in catalogue.pairs("color", 4, seed=9)]
    for split in catalogue.SPLITS:
        for pair in catalogue.pairs("texture", 3, split=split):
            assert {item.split for item in pair.objects} == {split}
    with pytest.raises(ValueError, match="kind must be one of"):
        next(catalogue.pairs("smell", 1))
    with pytest.raises(ValueError, match="split must be one of"):
        next(catalogue.pairs("color", 1, split="dev"))


def test_stools_count_their_legs():
    stool = catalogue.make(list(catalogue.CATEGORIES).index("stool"))
    faces = {}
    for legs in (3, 4, 5):
        params = stool.params | {"count": legs, "pattern": "plain"}
        faces[legs] = next(len(p.faces) for p in catalogue.build_mesh(params).parts if p.name == "legs")
        captions = describe(params, np.random.default_rng(0))
        assert any(f"{['three', 'four', 'five'][legs - 3]} legs" in c.text for c in captions)
    assert all(faces[a] * b == faces[b] * a for a, b in combinations(faces, 2))


def test_held_combinations_cannot_slip_into_training():
    for index, (name, spec) in enumerate(catalogue.CATEGORIES.items()):
        held = [p for p in spec.patterns if catalogue.held_combination(name, p)]
        item = catalogue.make(index, seed=2)
        if held and item.split == "train":
            with pytest.raises(ValueError, match="held out for the test split"):
                split_of(item.params | {"pattern": held[0]})
            return
    pytest.fail("no training object with a held-out combination")
