"""Names of colours: what is painted and what is measured agree; OKLab and linear light."""

from __future__ import annotations

import numpy as np
import pytest

from clipgs_lib.captions.attributes import palette
from clipgs_lib.colors import COLORS, EXAMPLES, LIKE, NAMES, linear_from_srgb, nearest, oklab, srgb_from_linear


def name_colors(colors: np.ndarray) -> list[str]:
    return [NAMES[i] for i in nearest(colors)]


@pytest.mark.parametrize("name", COLORS)
def test_what_is_painted_is_measured_by_its_own_word(name):
    """Or by one that both sides use; also under the small tints of the catalogue's objects."""
    word = LIKE.get(name, name)
    assert word in COLORS
    assert name_colors(np.array([COLORS[name]])) == [word]
    assert palette(np.array([COLORS[name]] * 9)).main == (word,)
    tints = 0.05 * (np.random.default_rng(0).random((500, 3)) - 0.5)
    tinted = name_colors(np.clip(COLORS[name] + tints, 0, 1))
    assert tinted.count(word) >= 0.9 * len(tinted)


def test_shades_in_one_word_go_together_with_their_family():
    half = [COLORS["navy"], COLORS["blue"]]
    assert palette(np.array(half)).main == ("blue",)
    assert palette(np.array([*half, *[COLORS["navy"]] * 5])).main == ("navy",)


def test_oklab_of_white_black_and_red():
    got = oklab(np.array([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]]))
    assert got == pytest.approx(np.array([[1, 0, 0], [0, 0, 0], [0.628, 0.2249, 0.1258]]), abs=1e-3)


def test_every_example_of_a_colour_has_its_name():
    for name, examples in EXAMPLES.items():
        assert name_colors(np.array(examples)) == [LIKE.get(name, name)] * len(examples)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *(("ff0000", "red"), ("00ff00", "green"), ("0000ff", "blue"), ("ffff00", "yellow"), ("8b4513", "brown")),
        *(("808080", "gray"), ("ffa500", "orange"), ("000080", "navy"), ("800000", "dark red")),
        *(("87ceeb", "light blue"), ("006400", "dark green"), ("800080", "purple"), ("d2b48c", "light brown")),
        *(("f5f5dc", "cream"), ("40e0d0", "turquoise"), ("ffc0cb", "pink"), ("2f4f4f", "dark gray")),
    ],
)
def test_colours_of_the_web_get_the_names_that_people_use(code, name):
    assert name_colors(np.array([[byte / 255 for byte in bytes.fromhex(code)]])) == [name]


def test_srgb_transfer_is_its_own_inverse():
    values = np.linspace(0, 1, 256)
    assert srgb_from_linear(linear_from_srgb(values)) == pytest.approx(values, abs=1e-9)
