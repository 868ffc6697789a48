"""Degenerate gaussians, odd picture sizes and bad arguments."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from clipgs_lib.rendering import render
from clipgs_lib.splats import COLUMNS, Splats

from .dense import dense_render
from .scenes import BACKGROUNDS, FRONT, cameras, gradients, one, probe, rasterize


@pytest.mark.parametrize(
    "splats",
    [
        one().detach()[[]],
        one(mean=(0.0, 0.0, 3.0)),  # behind the camera
        one(mean=(0.0, 0.0, 1.995)),  # nearer than the near plane
        one(mean=(50.0, 0.0, 0.0)),  # off the picture
        one(mean=(1e37, 0.0, 0.0), scale=1e38),  # so far off that float32 fails
        one(opacity=0.0),
        one(opacity=0.0039),  # just below 1/255
        one(quat=(0.0, 0.0, 0.0, 0.0)),
        one(mean=(float("nan"), 0.0, 0.0)),
        one(mean=(float("inf"), 0.0, 0.0)),
        one(scale=float("nan")),
        one(scale=float("inf")),
        one(color=(float("nan"), 0.0, 0.0)),
        one(opacity=float("nan")),
        one(mean=(0.0, 0.0, -1e12)),  # beyond the far plane
    ],
)
def test_nothing_to_see_gives_the_background_and_no_gradient(splats):
    columns = {name: getattr(splats, name).clone().requires_grad_() for name in COLUMNS}
    output = rasterize(**columns, **FRONT._asdict(), background=(0.1, 0.2, 0.3))
    assert torch.equal(output.colors, torch.tensor([0.1, 0.2, 0.3]).expand_as(output.colors))
    assert not output.alphas.any()
    assert not output.depths.any()
    (output.colors.sum() + output.depths.sum() + output.alphas.sum()).backward()
    assert all(float(value.grad.abs().sum()) == 0 for value in columns.values())


def test_bad_gaussians_do_not_poison_the_others(splats_factory):
    good, views = splats_factory(50, 1), cameras()
    bad = splats_factory(6, 1, seed=9)
    for i, name in enumerate(COLUMNS):
        getattr(bad, name)[i] = float("nan")
    mixed = Splats.cat([bad, good])
    output, found = gradients(mixed, views, BACKGROUNDS)
    expected, wanted = gradients(good, views, BACKGROUNDS)
    assert all(torch.equal(a, b) for a, b in zip(output, expected, strict=True))
    for name in COLUMNS:
        assert torch.equal(found[name][6:], wanted[name]), name
        assert float(found[name][:6].abs().sum()) == 0, name


def test_non_finite_higher_bands_matter_only_when_used(splats_factory):
    splats, views = splats_factory(20, 1), cameras()
    splats.shN[:] = float("nan")
    assert float(render(splats, *views).alphas.max()) == 0
    assert float(render(splats, *views, sh_degree=0).alphas.max()) > 0.1


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-3, 30.0, 1e6, 1e30])
def test_tiny_and_huge_gaussians(scale):
    columns = {name: getattr(one(scale=scale), name).clone().requires_grad_() for name in COLUMNS}
    output = rasterize(**columns, **FRONT._asdict())
    assert output.colors.isfinite().all()
    assert float(output.alphas.detach()[0, 10, 16]) == pytest.approx(0.8, abs=1e-5)
    probe(output).backward()
    assert all(value.grad.isfinite().all() for value in columns.values())
    if scale < 1e-6:  # only the low-pass is left
        expected = 0.8 * torch.exp(torch.tensor(-0.5 / 0.3))
        assert float(output.alphas.detach()[0, 10, 17]) == pytest.approx(float(expected), abs=1e-5)


def test_opacity_one_is_capped_and_passes_no_gradient_there():
    splats = one(opacity=1.0)
    columns = {name: getattr(splats, name).clone().requires_grad_() for name in COLUMNS}
    output = rasterize(**columns, **FRONT._asdict())
    assert float(output.alphas.detach().max()) == pytest.approx(0.999, abs=1e-6)
    output.alphas[0, 10, 16].sum().backward()
    assert float(columns["opacities"].grad) == 0


def test_needle_across_the_picture():
    """A needle 1e5 times as long as wide keeps the shape that float64 gives it."""
    splats = replace(one(quat=(0.9, 0.1, 0.2, 0.37)), scales=torch.tensor([[10.0, 1e-4, 1e-4]]))
    columns = {name: getattr(splats, name) for name in COLUMNS}
    output = render(splats, *FRONT)
    colors, alphas, _ = dense_render(columns, *FRONT, 0, torch.zeros(1, 3))
    assert (output.alphas - alphas).abs().max() < 1e-5
    assert (output.colors - colors).abs().max() < 1e-5
    assert float(alphas.max()) > 0.5


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 15), (100, 3), (31, 64)])
def test_sizes_that_are_no_multiple_of_the_tile(splats_factory, width, height):
    splats = splats_factory(80, 0)
    views = cameras(2.5, n=1, width=width, height=height)
    output = render(splats, *views)
    colors, alphas, depths = dense_render(
        {name: getattr(splats, name) for name in COLUMNS}, *views, 0, torch.zeros(1, 3)
    )
    assert output.colors.shape == (1, height, width, 3)
    assert output.alphas.shape == output.depths.shape == (1, height, width, 1)
    for ours, theirs in zip(output, (colors, alphas, depths), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5


def bad_input(**changes) -> dict:
    splats = one()
    arguments = {name: getattr(splats, name) for name in COLUMNS} | FRONT._asdict()
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"quats": torch.zeros(1, 3)}, ValueError, r"quats must have shape \[N, 4\] .*, got \[1, 3\]"),
        ({"opacities": torch.zeros(1, 1)}, ValueError, r"opacities must have shape \[N\] .*, got \[1, 1\]"),
        ({"shN": torch.zeros(1, 4, 3)}, ValueError, r"shN must have shape"),
        ({"means": torch.zeros(1, 3).double()}, TypeError, "float32"),
        ({"means": [0.0, 0.0, 0.0]}, TypeError, "float32 torch tensor .*, got list"),
        ({"scales": torch.zeros(1, 3, device="meta")}, ValueError, "on the device of means"),
        ({"viewmats": [[1.0]]}, TypeError, "must be torch tensors"),
        ({"viewmats": torch.tensor(1.0)}, ValueError, r"viewmats must have shape \[C, 4, 4\]"),
        ({"viewmats": torch.eye(4)}, ValueError, r"viewmats must have shape \[C, 4, 4\]"),
        ({"viewmats": torch.full((1, 4, 4), float("nan"))}, ValueError, "finite"),
        ({"viewmats": 2 * torch.eye(4)[None]}, ValueError, "rigid"),
        ({"viewmats": torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]))[None]}, ValueError, "rigid"),
        ({"viewmats": torch.eye(4)[None].requires_grad_()}, ValueError, "no gradient"),
        ({"Ks": torch.eye(3).expand(2, 3, 3)}, ValueError, r"Ks must have shape \[C, 3, 3\] with C = 1"),
        ({"Ks": -torch.eye(3)[None]}, ValueError, "fx, fy > 0"),
        ({"Ks": (torch.eye(3) + torch.diag(torch.ones(2), 1))[None]}, ValueError, "Ks must read"),
        ({"width": 0}, ValueError, r"width must be a whole number of pixels in 1\.\.16384, got 0"),
        ({"height": 20000}, ValueError, "height must be"),
        ({"height": 16.0}, ValueError, "height must be"),
        ({"sh_degree": 4}, ValueError, "sh_degree must be 0, 1, 2, 3 or None"),
        ({"background": torch.zeros(4)}, ValueError, r"background must have shape \[3\] or \[C, 3\]"),
        ({"background": (0.0, float("nan"), 0.0)}, ValueError, "background must be finite"),
    ],
)
def test_bad_input_is_named(changes, error, words):
    with pytest.raises(error, match=words):
        rasterize(**bad_input(**changes))


def test_too_many_pixels_are_refused_before_memory_is_taken(splats_factory):
    views = cameras(n=2)
    with pytest.raises(ValueError, match="at most 268,435,456 pixels"):
        render(splats_factory(5), *views[:2], 16384, 16384)


def test_importing_the_room_is_silent_and_loads_no_gsplat():
    code = "import sys, clipgs_lib.rendering; print('gsplat' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    assert done.stderr == ""
