"""The CUDA back end: how it calls gsplat (checked anywhere), and that both back ends agree (needs a GPU)."""

from __future__ import annotations

import inspect

import pytest
import torch

from clipgs_lib.rendering import Cameras, Gaussians
from clipgs_lib.rendering.rasterize import rasterize_cuda
from clipgs_lib.splats import COLUMNS, Splats

from .dense import dense_render
from .scenes import BACKGROUNDS, cameras, gradients, leaves, probe, rasterize


@pytest.fixture
def fake_gsplat(monkeypatch):
    """gsplat's `rasterization` with its real signature, drawn by the dense reference on the CPU."""
    import gsplat

    signature = inspect.signature(gsplat.rasterization)
    calls = []

    def rasterization(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        a = call.arguments
        calls.append(a)
        columns = {name: a[name] for name in ("means", "quats", "scales", "opacities")}
        columns |= {"sh0": a["colors"][:, :1], "shN": a["colors"][:, 1:]}
        colors, alphas, depths = dense_render(
            columns, a["viewmats"], a["Ks"], a["width"], a["height"], a["sh_degree"], a["backgrounds"]
        )
        return torch.cat([colors, depths], dim=-1).float(), alphas.float(), {}

    monkeypatch.setattr(gsplat, "rasterization", rasterization)
    return calls


def test_the_call_to_gsplat_means_what_ours_does(splats_factory, fake_gsplat):
    bad = splats_factory(2, 3, seed=8)
    bad.means[0], bad.quats[1] = float("nan"), 0.0
    splats, views = Splats.cat([splats_factory(60, 3), bad]), cameras()
    columns, behind = leaves(splats, BACKGROUNDS)
    gaussians = tuple(columns[name] for name in COLUMNS)
    found = rasterize_cuda(Gaussians(*gaussians), views, 2, behind)
    expected = rasterize(*gaussians, *views, sh_degree=2, background=behind)
    for ours, theirs in zip(expected, found, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-5
    (call,) = fake_gsplat
    defaults = {"near_plane": 0.01, "far_plane": 1e10, "eps2d": 0.3, "radius_clip": 0.0, "rasterize_mode": "classic"}
    assert {name: call[name] for name in defaults} == defaults
    assert call["render_mode"] == "RGB+ED"
    assert len(call["means"]) == 60
    probe(found).backward()
    assert all(value.grad[60:].abs().sum() == 0 for value in columns.values())


@pytest.mark.parametrize("kind", ["no gaussians", "only bad ones", "no cameras"])
def test_nothing_to_draw_never_reaches_gsplat(splats_factory, fake_gsplat, kind):
    splats, views = splats_factory(3, 1), cameras()
    viewmats, Ks, behind = views.viewmats, views.Ks, BACKGROUNDS
    if kind == "no gaussians":
        splats = splats[[]]
    elif kind == "only bad ones":
        splats.sh0[:] = float("nan")
    else:
        viewmats, Ks, behind = viewmats[:0], Ks[:0], behind[:0]
    columns, behind = leaves(splats, behind)
    colors, alphas, depths = rasterize_cuda(Gaussians(*columns.values()), Cameras(viewmats, Ks, 9, 7), 1, behind)
    assert fake_gsplat == []
    assert torch.equal(colors, behind[:, None, None].expand(-1, 7, 9, -1))
    assert alphas.shape == depths.shape == (len(behind), 7, 9, 1)
    assert not alphas.any()
    colors.sum().backward()
    assert all(not value.grad.any() for value in columns.values())
    assert torch.equal(behind.grad, torch.full_like(behind, 63.0))


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(splats_factory):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    splats, views = splats_factory(3000, 3), cameras(2.5, width=150, height=111)
    bad = splats_factory(1, 3)
    bad.means[0] = float("nan")
    splats = Splats.cat([splats, bad])
    output, found = gradients(splats, views, BACKGROUNDS)
    columns, behind = leaves(splats, BACKGROUNDS)
    output_cuda = rasterize(
        **{name: value.cuda() for name, value in columns.items()}, **views._asdict(), background=behind.cuda()
    )
    for ours, theirs in zip(output, output_cuda, strict=True):
        error = (ours.detach() - theirs.detach().cpu()).abs()
        assert error.mean() < 1e-5
        assert (error > 1e-2).float().mean() < 1e-3  # single pixels where a threshold falls the other way
    probe(tuple(out.cpu() for out in output_cuda)).backward()
    for name, value in (*columns.items(), ("background", behind)):
        assert (found[name] - value.grad).norm() <= 1e-2 * found[name].norm(), name
