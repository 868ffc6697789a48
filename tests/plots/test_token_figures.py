"""Numbers and limits of the figures about tokens (how they look was checked by eye)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipgs_lib import geometry
from clipgs_lib.colors import oklab
from clipgs_lib.plots import (
    channels_figure,
    coverage_figure,
    order_figure,
    patch_figure,
    patch_rows,
    token_coverage_figure,
)
from clipgs_lib.plots.shown import choose
from clipgs_lib.plots.token_figures import PATCH_COLORS, _spread_colors
from clipgs_lib.splats import Splats
from clipgs_lib.tokenizer import CHANNELS, TokenizerConfig, attribute_channels, collate, patchify


@pytest.fixture(scope="module")
def cut():
    """A splat with one broken gaussian, and its patches."""
    from ..conftest import make_splats

    splats = make_splats(400, seed=3)
    means = splats.means.clone()
    means[7] = torch.nan
    splats = replace(splats, means=means)
    with pytest.warns(UserWarning, match="left out 1 gaussians"):
        batch = collate([splats])
    return splats, batch, patchify(batch, 24, 16)


# ---- patches -------------------------------------------------------------------------------------------------------


def test_each_gaussian_belongs_to_the_nearest_centre_of_its_patches(cut):
    splats, _, patches = cut
    patched = patch_rows(splats, patches.indices, patches.mask)
    assert patched.rows.shape == (24, 16) and patched.tokens.tolist() == list(range(24))
    assert patched.owner[7] == -1 and np.isfinite(patched.distances).all()
    means = splats.means.double().numpy()
    for gaussian in range(400):
        mine = [t for t in range(24) if gaussian in patched.rows[t]]
        if not mine:
            assert patched.owner[gaussian] == -1
            continue
        distances = [np.linalg.norm(means[gaussian] - means[patched.rows[t, 0]]) for t in mine]
        assert patched.owner[gaussian] == mine[int(np.argmin(distances))]


def test_masked_patches_are_left_out_and_tokens_keep_their_numbers(splats_factory):
    splats = splats_factory(5)
    patches = patchify(collate([splats]), 8, 4)
    patched = patch_rows(splats, patches.indices, patches.mask)
    assert len(patched.tokens) == 5 and set(patched.rows.ravel()) == set(range(5))
    keep = torch.tensor([[True, False, True, False, False, False, False, True]])
    assert patch_rows(splats, patches.indices, keep).tokens.tolist() == [0, 2, 7]


def test_the_figure_draws_every_finite_gaussian_once_in_its_patchs_colour(cut):
    splats, _, patches = cut
    figure = patch_figure(splats, patches.indices[0], title="<b>x</b>")
    held, loose, centers = figure.data
    patched = patch_rows(splats, patches.indices)
    drawn = np.concatenate([held.customdata[:, 0], loose.customdata[:, 0]])
    assert len(drawn) == len(set(drawn)) and set(drawn) <= set(range(400)) - {7}
    assert len(drawn) >= 390  # the frame leaves out lone points
    assert held.customdata[:, 1].tolist() == patched.owner[held.customdata[:, 0]].tolist()
    of_token = {}
    for token, color in zip(held.customdata[:, 1], held.marker.color, strict=True):
        assert of_token.setdefault(token, color) == color
    assert len(centers.x) == 24 and centers.customdata[:, 1].tolist() == [16] * 24
    assert figure.layout.title.text == "&lt;b&gt;x&lt;/b&gt;"
    share = (patched.owner >= 0).sum() / 399
    assert f"24 patches of 16 cover {share:.0%} of the gaussians" in figure.layout.title.subtitle.text
    assert "1 not finite left out" in figure.layout.title.subtitle.text
    assert held.marker.color.dtype == np.uint8  # numbers, not strings


def test_the_figure_thins_and_stays_small(splats_factory):
    splats = splats_factory(6000)
    figure = patch_figure(splats, patchify(collate([splats]), 32, 64).indices, max_points=1500)
    assert sum(len(trace.customdata) for trace in figure.data[:-1]) <= 1500
    assert "1,500 of 6,000" in figure.layout.title.subtitle.text
    assert len(figure.to_json()) < 120_000


def test_thinning_keeps_every_part_of_the_shape(splats_factory):
    body, handle = splats_factory(3000), splats_factory(300)
    handle = replace(handle, means=0.1 * handle.means + torch.tensor([4.0, 0, 0]), scales=0.02 * handle.scales)
    whole = Splats.cat([body, handle])
    weight = whole.opacities * whole.area()
    heaviest, spread = choose(whole, 600), choose(whole, 600, spread=True)
    assert not (heaviest.rows >= 3000).any(), "the handle is light: by opacity × area it is lost"
    assert len(spread.rows) == 600 and int((spread.rows >= 3000).sum()) >= 6
    assert bool((spread.rows.diff() > 0).all()) and int(weight.argmax()) in spread.rows
    cells = ((whole.means - whole.means.amin(0)) / np.ptp(whole.means.numpy(), axis=0).max() * 8).long().clamp(max=7)
    occupied, seen = ({tuple(cell) for cell in rows.tolist()} for rows in (cells, cells[spread.rows]))
    assert seen == occupied
    few = choose(whole, 7, spread=True)
    assert len(few.rows) == 7 and few.note == "7 of 3,300 gaussians shown, some of every part"


def test_neighbouring_patches_of_a_surface_are_told_apart():
    g = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(4000, 3, generator=g), dim=1)
    centers = points[geometry.farthest_points(points[None], 128)[0]].numpy()
    colors = _spread_colors(centers)
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    rank = gaps.argsort(axis=1).argsort(axis=1)
    assert not (colors[:, None] == colors[None])[(rank > 0) & (rank <= 3)].any()
    lab = oklab(np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in PATCH_COLORS]) / 255)
    apart = np.linalg.norm(lab[colors][:, None] - lab[colors][None], axis=2)
    assert np.median(apart[rank == 1]) > 0.15  # a mean pair of the palette


def test_neighbouring_centres_have_other_colours():
    grid = np.stack(np.meshgrid(*[np.arange(7.0)] * 2), axis=-1).reshape(-1, 2)
    centers = np.c_[grid, np.zeros(len(grid))]
    colors = _spread_colors(centers)
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    beside = (gaps > 0) & (gaps < 1.1)
    assert not (colors[:, None] == colors[None])[beside].any()
    assert set(colors) == set(range(len(PATCH_COLORS)))


@pytest.mark.parametrize(
    ("indices", "mask", "words"),
    [
        (torch.zeros(2, 3), None, r"integers \[G, M\] of one splat, got float32 \[2, 3\]"),
        (torch.zeros(2, 4, 3, dtype=torch.int64), None, r"got int64 \[2, 4, 3\]"),
        (torch.zeros(0, 3, dtype=torch.int64), None, r"got int64 \[0, 3\]"),
        (torch.full((2, 3), 50), None, r"lie in 0\.\.49, the gaussians there are, got 50\.\.50; of another splat\?"),
        (torch.full((2, 3), -1), None, r"got -1\.\.-1"),
        (
            torch.zeros(2, 3, dtype=torch.int64),
            torch.zeros(2, dtype=torch.bool),
            "2 values, some true, got 2, 0 of them true",
        ),
        (torch.zeros(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.bool), "mask must have 2 values"),
    ],
)
def test_indices_that_do_not_fit_are_refused(splats_factory, indices, mask, words):
    with pytest.raises(ValueError, match=words):
        patch_rows(splats_factory(50), indices, mask)


# ---- coverage ------------------------------------------------------------------------------------------------------


def test_the_coverage_curve_is_the_distance_to_the_nearest_centre():
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    chosen = geometry.farthest_points(points[None], 40)[0]
    largest, mean = coverage_figure(points, {"farthest": chosen, "random": torch.arange(40)}).data[:2]
    for count, high, middle in zip(largest.x, largest.y, mean.y, strict=True):
        nearest = torch.cdist(points.double(), points[chosen[: int(count)]].double()).amin(dim=1)
        assert high == pytest.approx(float(nearest.max()), rel=1e-5)
        assert middle == pytest.approx(float(nearest.mean()), rel=1e-5)
    assert (np.diff(largest.y) <= 0).all() and largest.x[-1] == 40


def test_when_every_point_is_a_centre_the_line_ends():
    points = torch.eye(3)
    figure = coverage_figure(points, {"all": torch.arange(3)})
    assert np.isnan(figure.data[0].y[-1])  # a distance of 0 has no place on a logarithmic axis


def test_token_coverage_counts_gaussians_in_the_first_patches(cut):
    _, _, patches = cut
    figure = token_coverage_figure(patches.indices, 400, sizes=(4, 16, 99))
    assert [trace.name for trace in figure.data] == ["4 a patch", "16 a patch"]
    for trace, size in zip(figure.data, (4, 16), strict=True):
        for tokens, share in zip(trace.x, trace.y, strict=True):
            covered = patches.indices[0, :tokens, :size].unique().numel()
            assert share == pytest.approx(100 * covered / 400, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: coverage_figure(torch.zeros(4, 2), {"a": torch.arange(2)}), r"points \[N, 3\]"),
        (lambda: coverage_figure(torch.full((4, 3), torch.nan), {"a": torch.arange(2)}), "finite"),
        (lambda: coverage_figure(torch.zeros(4, 3), {}), "a choice"),
        (lambda: coverage_figure(torch.zeros(4, 3), {"a": torch.tensor([4])}), r"'a' must hold rows in 0\.\.3"),
        (lambda: token_coverage_figure(torch.zeros(2, 3, dtype=torch.int64), 9, sizes=(4,)), r"one in 1\.\.3"),
        (lambda: token_coverage_figure(torch.full((2, 3), 9), 9), r"in 0\.\.8"),
    ],
)
def test_choices_that_do_not_fit_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- orders and channels -------------------------------------------------------------------------------------------


def test_paths_go_through_the_points_in_their_order():
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(1))
    orders = {name: order(points) for name, order in geometry.ORDERS.items()}
    figure = order_figure(points, orders, title="t")
    assert [trace.scene for trace in figure.data] == ["scene", "scene2", "scene3"]
    lengths = {}
    for trace, (name, order) in zip(figure.data, orders.items(), strict=True):
        path = np.stack([trace.x, trace.y, trace.z], axis=1)
        assert np.array_equal(path, points[order].numpy())
        lengths[name] = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    shown = [note.text for note in figure.layout.annotations]
    assert shown == [f"{n}: path × {lengths[n] / min(lengths.values()):.2f}" for n in orders]


@pytest.mark.parametrize("order", [torch.arange(3), torch.zeros(4, dtype=torch.int64), torch.arange(4) + 1])
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match=r"each of 0\.\.3 once"):
        order_figure(torch.rand(4, 3), {"bad": order})


@pytest.mark.parametrize("rotation", ["matrix", "quat"])
def test_channels_are_counted_by_attribute(cut, rotation):
    _, batch, patches = cut
    objects = torch.zeros(24, 1, dtype=torch.int64)
    offsets = batch.means[objects, patches.indices[0]] - patches.centers[0][:, None]
    features = attribute_channels(batch, objects, patches.indices[0], offsets, TokenizerConfig(rotation=rotation))
    figure = channels_figure(features)
    names = [trace.name for trace in figure.data]
    expected = [name for group in CHANNELS.values() for name in group]
    assert names == (expected if rotation == "matrix" else [*expected[:10], "w", "x", "y", "z"])
    for trace, column in zip(figure.data, features.flatten(0, 1).T, strict=True):
        assert 99 < float(np.sum(trace.y)) <= 100.01 or trace.name.startswith(("x -", "y -", "z -", "scale"))
        middle = float((trace.x * trace.y).sum() / trace.y.sum())
        assert middle == pytest.approx(float(column.mean()), abs=0.02)
    assert len(figure.to_json()) < 60_000


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"\[\.\.\., 19\] or \[\.\.\., 14\], got \[5, 6\]"):
        channels_figure(torch.zeros(5, 6))
