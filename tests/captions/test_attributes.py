"""Attributes measured on shapes whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import clipgs_lib as cg
from clipgs_lib.captions.attributes import measure, palette
from clipgs_lib.meshes import Mesh, Part
from clipgs_lib.meshes.importing import read_mesh
from clipgs_lib.splats import Splats

QUAD = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def rgb(code: str) -> tuple[float, float, float]:
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def box(size, center=(0, 0, 0), color=(0.5, 0.5, 0.5), texture=None) -> list[Part]:
    """Six faces, each with the whole texture."""
    parts = []
    for axis in range(3):
        for side in (-1, 1):
            u, v = (axis + 1) % 3, (axis + 2) % 3  # u x v points along +axis
            corners = np.zeros((4, 3), np.float32)
            corners[:, axis] = side
            corners[:, u], corners[:, v] = side * np.array([-1, 1, 1, -1]), [-1, -1, 1, 1]
            corners = (corners * np.array(size) / 2 + center).astype(np.float32)
            uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
            shade = (*color, 1.0) if texture is None else (1.0, 1.0, 1.0, 1.0)
            parts.append(Part(corners, QUAD, shade, uvs=uvs if texture is not None else None, texture=texture))
    return parts


def cylinder(sides: int = 32, height: float = 1.0) -> Part:
    """An open tube about y."""
    turns = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack([np.cos(turns), np.zeros(sides), np.sin(turns)], axis=1)
    vertices = np.concatenate([ring, ring + [0, height, 0]]).astype(np.float32)
    i = np.arange(sides)
    j = (i + 1) % sides
    faces = np.concatenate([np.stack([i, j, i + sides], 1), np.stack([j, j + sides, i + sides], 1)])
    return Part(vertices, faces.astype(np.int32))


def mesh(*parts: Part, up: str = "+y") -> Mesh:
    return Mesh(tuple(parts), up_axis=up)


def stripes(period: int = 16) -> np.ndarray:
    rows = (np.arange(128) // (period // 2)) % 2
    return np.repeat(np.where(rows[:, None, None], (220, 30, 30), (250, 250, 250)), 128, axis=1).astype(np.uint8)


def test_few_colours_are_named_and_many_are_not():
    red, white, black, blue = (rgb(code) for code in ("e02020", "ffffff", "000000", "2060d8"))
    assert palette(np.array([red] * 8 + [white] * 2)).main == ("red",)
    assert palette(np.array([red] * 6 + [white] * 4)).main == ("red", "white")
    assert palette(np.array([red] * 4 + [white] * 3 + [black] * 2)).main == ("red", "white", "black")
    many = palette(np.array([red, white, black, blue]))
    assert many.many and many.main == () and many.covered == 0
    assert set(many.shares.values()) == {0.25} and len(many.shares) == 4


def test_shades_of_one_colour_go_together():
    shades = np.array([rgb("2fa33a"), rgb("1c5220"), rgb("ffffff")])
    assert palette(shades.repeat([5, 4, 1], axis=0)).main == ("green",)
    assert palette(shades.repeat([1, 8, 1], axis=0)).main == ("dark green",)
    assert palette(shades.repeat([0, 0, 2], axis=0)).main == ("white",)


@pytest.mark.parametrize(
    ("size", "up", "proportion"),
    [
        ((1, 3, 1), "+y", "tall"),
        ((1, 3, 1), "-y", "tall"),
        ((1, 3, 1), "+x", "long"),
        ((3, 1, 1), "+y", "long"),
        ((2, 0.3, 2), "+y", "flat"),
        ((2, 0.3, 2), "+x", "thin"),
        ((1, 1.2, 1), "+z", "compact"),
        ((1, 1.5, 1), "+y", ""),
        ((1, 3, 1), "unknown", "long"),
        ((2, 2, 0.3), "unknown", "flat"),
    ],
)
def test_proportions_follow_the_up_axis(size, up, proportion):
    got = measure(mesh(*box(size), up=up))
    assert got.proportion == proportion
    assert sorted(got.extents) == pytest.approx(sorted(size), rel=0.05)


def test_symmetry_is_about_upright_planes_only():
    assert measure(mesh(*box((1, 2, 1.5)))).symmetric
    lopsided = mesh(*box((1, 2, 1)), *box((1, 0.3, 1), center=(1, 0.8, 0.4)), *box((0.3, 0.3, 1), center=(0, -0.5, 1)))
    assert not measure(lopsided).symmetric
    t_shape = [*box((0.3, 2, 0.3)), *box((0.3, 0.3, 3), center=(0, 1, 0)), *box((1, 0.3, 0.3), center=(0.6, -0.9, 0))]
    assert measure(mesh(*t_shape)).symmetric  # left-right, though neither front-back nor top-bottom


def test_turning_about_the_up_axis_tells_round_from_square():
    tube = measure(mesh(cylinder()))
    assert tube.round and tube.roundness > 0.95 and tube.symmetric
    assert not measure(mesh(*box((1, 1, 1)))).round
    assert not measure(mesh(cylinder(), up="+x")).round
    assert measure(mesh(cylinder(), up="unknown")).roundness == 0


def test_patterns_are_told_from_plain_faces():
    plain, striped = measure(mesh(*box((1, 1, 1)))), measure(mesh(*box((1, 1, 1), texture=stripes())))
    assert (plain.texture, striped.texture) == ("plain", "patterned")
    assert plain.busyness < 0.01 and striped.busyness > 0.6
    assert striped.palette.main == ("white", "red") or striped.palette.main == ("red", "white")
    slabs = [
        box((1 + k % 2 / 3, 0.1, 1 + k % 2 / 3), center=(0, 0.1 * k, 0), color=(k % 2, 0, 1 - k % 2)) for k in range(10)
    ]
    assert measure(mesh(*(part for slab in slabs for part in slab))).texture == ""  # parts make no pattern
    two_tone = mesh(*box((1, 1, 1), color=(1, 0, 0)), *box((1, 1, 1), center=(0, 1, 0), color=(0, 0, 1)))
    assert measure(two_tone).texture != "patterned"


def as_splats(shape: Mesh, n: int = 2000) -> Splats:
    """Flat gaussians on the surface, turned along the normals by half angles."""
    samples = shape.sample(n, np.random.default_rng(1))
    normals = torch.from_numpy(samples.normals)
    quats = torch.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], torch.zeros(n)], dim=1)  # z -> normal
    quats[quats.norm(dim=1) < 1e-3] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    size = (samples.area / n) ** 0.5 / 2
    return Splats.from_colors(
        torch.from_numpy(samples.points), torch.from_numpy(samples.colors),
        quats=quats, scales=torch.tensor([size, size, size / 10]).repeat(n, 1), opacities=torch.full((n,), 0.9),
        up_axis=shape.up_axis,
    )  # fmt: skip


def test_splats_of_a_mesh_measure_as_the_mesh():
    shape = mesh(*box((1, 3, 1), color=rgb("e02020")), *box((1.5, 0.5, 1.5), center=(0, 1.7, 0), color=rgb("2060d8")))
    one, two = measure(shape), measure(as_splats(shape))
    assert (one.proportion, one.symmetric, one.round, one.palette.main) == ("tall", True, False, ("red", "blue"))
    assert (two.proportion, two.symmetric, two.round, two.palette.main) == ("tall", True, False, ("red", "blue"))
    assert two.palette.shares["red"] == pytest.approx(one.palette.shares["red"], abs=0.05)


def test_faint_and_broken_gaussians_do_not_count():
    splats = as_splats(mesh(*box((1, 3, 1), color=rgb("e02020"))))
    ghost = as_splats(mesh(*box((9, 1, 9), color=rgb("2060d8"))))
    ghost = replace(ghost, opacities=ghost.opacities * 0)
    broken = replace(splats[:50], means=splats.means[:50] * torch.nan)
    got = measure(Splats.cat([splats, ghost, broken]))
    assert got.palette.main == ("red",) and got.proportion == "tall"


def test_equal_seeds_measure_equally():
    shape = mesh(*box((1, 2, 3), texture=stripes()))
    assert measure(shape, seed=3) == measure(shape, seed=3)
    assert measure(shape, seed=3) != measure(shape, seed=4)


def test_nothing_to_measure_is_an_error():
    empty = as_splats(mesh(*box((1, 1, 1))))
    with pytest.raises(ValueError, match="needs a gaussian with opacity and area > 0, got 2000 gaussians without"):
        measure(replace(empty, opacities=empty.opacities * 0))


def test_real_splats_have_the_colours_one_sees(real_data):
    burger = measure(cg.read_splats(real_data / "splats" / "ply" / "hamburger.ply"))
    assert burger.palette.main[0] == "brown" and burger.proportion == "compact"
    bot = measure(cg.read_splats(real_data / "splats" / "ply" / "playbot_sh1.ply"))
    assert bot.palette.main[0] == "black" and bot.symmetric
    assert bot.texture != "patterned"  # noise of gaussians is no pattern


@pytest.mark.parametrize(
    ("name", "color", "facts"),
    [
        ("qt_farm_animals_zebra", "black", {"texture": "patterned", "symmetric": True, "round": False}),
        ("qt_cloud_pack_airballoon_b", "red", {"texture": "patterned", "round": True}),
        ("kn_platformer_kit_coingold", "yellow", {"symmetric": True}),
        ("kn_castle_kit_flagblue", "light blue", {"proportion": "thin", "texture": ""}),
        ("pm_plate", "white", {"proportion": "flat", "texture": "plain", "symmetric": True, "round": True}),
        ("pm_firetruck", "dark red", {"symmetric": True, "round": False}),
    ],
)
def test_real_meshes_are_what_one_sees(real_data, name, color, facts):
    got = measure(read_mesh(real_data / "objects" / "train_cc0" / f"{name}.glb"))
    assert color in got.palette.main
    assert {key: getattr(got, key) for key in facts} == facts
