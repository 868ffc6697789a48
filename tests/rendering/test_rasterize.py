"""The rasteriser against gsplat's torch references, a naive compositor, finite differences and itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clipgs_lib.geometry import rotation_about
from clipgs_lib.rendering import Cameras, render
from clipgs_lib.splats import COLUMNS, Splats

from .dense import dense_render
from .scenes import BACKGROUNDS, FRONT, cameras, gradients, leaves, one, probe, rasterize


def scene(splats_factory, kind: str) -> tuple[Splats, Cameras]:
    """A usual one; one seen from within (clamped Jacobian, culling); one so opaque that pixels stop and cap."""
    if kind == "usual":
        usual = splats_factory(150, 3, 0)
        return replace(usual, sh0=3 * usual.sh0), cameras()  # strong colours, so that some clamp at black
    if kind == "within":
        return splats_factory(60, 2, 3), cameras(0.5)
    crowd = splats_factory(400, 0, 2)
    return replace(crowd, opacities=(crowd.opacities + 0.5).clamp_max(1.0)), cameras(2.0)


@pytest.mark.parametrize("kind", ["usual", "within", "opaque"])
def test_picture_and_gradients_agree_with_the_dense_reference(splats_factory, kind):
    splats, views = scene(splats_factory, kind)
    output, found = gradients(splats, views, BACKGROUNDS)
    columns, behind = leaves(splats, BACKGROUNDS)
    expected = dense_render(columns, *views, splats.sh_degree, behind)
    probe(expected).backward()
    assert expected[1].max() > 0.5
    for name, ours, theirs in zip(output._fields, output, expected, strict=True):
        assert (ours.detach() - theirs.detach()).abs().max() <= 1e-5, name
    for name, wanted in [*((k, v.grad) for k, v in columns.items()), ("background", behind.grad)]:
        if wanted.numel() == 0:
            continue
        assert wanted.abs().max() > 0, name
        error = (found[name] - wanted).abs().max() / wanted.abs().max()
        assert error <= 1e-4, f"{name}: {error:.2g}"
        assert (found[name] - wanted).norm() <= 1e-4 * wanted.norm(), name


def test_the_dense_scenes_reach_every_branch(splats_factory):
    """The parity above means something only if colours clamp, pixels stop and gaussians leave the limits."""
    usual, _ = scene(splats_factory, "usual")
    assert (usual.colors < -0.2).any()
    within, views = scene(splats_factory, "within")
    local = within.means @ views.viewmats[0, :3, :3].T + views.viewmats[0, :3, 3]
    assert (local[:, 2] < 0.01).any()
    assert ((local[:, 2] > 0.1) & (local[:, 0].abs() / local[:, 2] > 1.3 * 0.6)).any()
    opaque, views = scene(splats_factory, "opaque")
    assert (opaque.opacities == 1).any()
    wall = replace(one(scale=20.0, color=(9.0, 9.0, 9.0)), means=8 * torch.nn.functional.normalize(-views.centers[:1]))
    before, after = render(opaque, *views), render(Splats.cat([opaque, wall]), *views)
    same = (after.colors[0] == before.colors[0]).all(dim=-1)
    assert 0 < int(same.sum()) < same.numel()


def test_projection_agrees_with_gsplat(splats_factory):
    from concurrent.futures import ThreadPoolExecutor

    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics

    from clipgs_lib.rendering import cpu
    from clipgs_lib.rendering.cpu_projection import HALF_LOG2E

    splats, views = splats_factory(200, 3, 5), cameras(1.5, n=1)
    arrays = [getattr(splats, name).numpy() for name in COLUMNS]
    (camera,) = cpu._kernel_cameras(views, 3)
    with ThreadPoolExecutor(1) as pool:
        view = cpu._project(pool, arrays, camera, False)
    double = {name: getattr(splats, name).double() for name in COLUMNS}
    covars, _ = _quat_scale_to_covar_preci(double["quats"], double["scales"], compute_preci=False)
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        double["means"], covars, views.viewmats.double(), views.Ks.double(), views.width, views.height
    )
    order = torch.from_numpy(view.order).long()
    # gsplat's torch reference bounds by 3.33 sigma; ours is at most that, so ours is a subset, near to far
    assert set(order.tolist()) <= set((radii[0] > 0).all(dim=-1).nonzero()[:, 0].tolist())
    assert len(order) > 50
    assert (depths[0][order].diff() >= -1e-6).all()
    records = torch.from_numpy(view.records).double()
    assert torch.allclose(torch.from_numpy(view.centers), means2d[0][order], atol=1e-9)
    a, b, c = records[:, :3].T / HALF_LOG2E**0.5
    ours = torch.stack([a * a, a * b, b * b + c * c], dim=1)
    assert torch.allclose(ours, conics[0][order], rtol=1e-5, atol=1e-6)
    colors = _spherical_harmonics(3, (double["means"] - torch.from_numpy(camera.position)), splats.sh.double()) + 0.5
    assert torch.allclose(records[:, 4:7], colors[order].clamp_min(0), atol=1e-6)
    assert torch.allclose(records[:, 7], depths[0][order], rtol=1e-6)


def test_gradients_agree_with_finite_differences(splats_factory):
    """Central differences of the float32 renderer itself, along random directions per attribute."""
    splats = splats_factory(12, 2, 7)
    splats = replace(splats, scales=splats.scales * 3)
    views = cameras(3.0, n=1, width=20, height=18)
    target = torch.rand(1, 18, 20, 3, generator=torch.Generator().manual_seed(3))

    def loss(columns: dict[str, Tensor]) -> Tensor:
        output = rasterize(**columns, **views._asdict())
        return ((output.colors.double() - target) ** 2).sum() + (output.alphas.double() * target[..., :1]).sum()

    columns, _ = leaves(splats, BACKGROUNDS[0])
    loss(columns).backward()
    generator = torch.Generator().manual_seed(4)
    for name in COLUMNS:
        direction = torch.randn(columns[name].shape, generator=generator) * columns[name].detach().abs().mean()
        step = 3e-4
        with torch.no_grad():
            ends = [loss({**columns, name: columns[name] + sign * step * direction}) for sign in (1, -1)]
        numeric = float(ends[0] - ends[1]) / (2 * step)
        analytic = float((columns[name].grad * direction).sum())
        assert analytic == pytest.approx(numeric, rel=2e-2, abs=2e-3), name


def test_runs_and_thread_counts_are_bit_identical(splats_factory):
    splats, views = splats_factory(6000, 1, 1), cameras(3.0, width=130, height=90)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            output, grads = gradients(splats, views, BACKGROUNDS)
            results.append([*output, *grads.values()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_bands_do_not_change_gradients(splats_factory, monkeypatch):
    from clipgs_lib.rendering import cpu

    splats, views = splats_factory(500, 1, 1), cameras(3.0, width=70, height=50)
    _, whole = gradients(splats, views, BACKGROUNDS)
    monkeypatch.setattr(cpu, "ROWS", 100)
    _, banded = gradients(splats, views, BACKGROUNDS)
    assert all(torch.equal(whole[name], banded[name]) for name in whole)


def test_no_grad_draws_the_same_and_keeps_nothing(splats_factory):
    splats, views = splats_factory(300, 2), cameras()
    output, _ = gradients(splats, views, BACKGROUNDS)
    columns, behind = leaves(splats, BACKGROUNDS)
    with torch.no_grad():
        plain = rasterize(**columns, **views._asdict(), background=behind)
    assert plain.colors.grad_fn is None
    assert output.colors.grad_fn is not None
    assert all(torch.equal(a, b) for a, b in zip(plain, output, strict=True))


def test_batch_of_cameras_equals_single_cameras(splats_factory):
    splats, views = splats_factory(200, 3), cameras(n=3)
    batch = render(splats, *views)
    for i in range(3):
        single = render(splats, views.viewmats[i : i + 1], views.Ks[i : i + 1], views.width, views.height)
        assert all(torch.equal(a[i], b[0]) for a, b in zip(batch, single, strict=True))


def test_moving_splats_and_camera_together_leaves_the_picture(splats_factory):
    splats, views = splats_factory(200, 3), cameras()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation_about("y", 63) @ rotation_about("x", -140)
    matrix[:3, 3] = torch.tensor([0.4, -1.0, 2.0])
    moved = render(splats.transform(matrix), (views.viewmats.double() @ matrix.inverse()).float(), *views[1:])
    original = render(splats, *views)
    assert (moved.colors - original.colors).abs().max() < 5e-3  # alpha thresholds flip on single pixels
    assert (moved.colors - original.colors).abs().mean() < 2e-6
    assert (moved.alphas - original.alphas).abs().mean() < 2e-6


def test_rigid_transform_is_seen_by_sh(splats_factory):
    """Turning the splats without the camera does change the picture: the test above is not vacuous."""
    splats, views = splats_factory(200, 3), cameras()
    assert (render(splats.rotate("y", 63), *views).colors - render(splats, *views).colors).abs().mean() > 0.01


def test_lower_sh_degree_equals_dropping_bands(splats_factory):
    splats, views = splats_factory(100, 3), cameras()
    for degree in (0, 1, 2):
        low = render(splats, *views, sh_degree=degree)
        assert torch.equal(low.colors, render(splats.with_sh_degree(degree), *views).colors)
    assert torch.equal(render(splats, *views, sh_degree=3).colors, render(splats, *views).colors)
    flat = splats.with_sh_degree(0)
    assert torch.equal(render(flat, *views, sh_degree=3).colors, render(flat, *views).colors)


def test_background_shows_through_what_alpha_leaves(splats_factory):
    splats, views = splats_factory(40), cameras()
    black, white = render(splats, *views), render(splats, *views, background=(1.0, 1.0, 1.0))
    assert torch.allclose(white.colors, black.colors + (1 - black.alphas), atol=1e-6)
    assert torch.equal(white.alphas, black.alphas)
    each = render(splats, *views, background=BACKGROUNDS)
    assert torch.allclose(each.colors, black.colors + (1 - black.alphas) * BACKGROUNDS[:, None, None], atol=1e-6)


def test_one_gaussian_by_hand():
    """In the middle of the picture: alpha is the opacity, depth the distance, spread the blurred sigma."""
    output = render(one(), *FRONT, background=(0.0, 0.0, 1.0))
    assert float(output.alphas[0, 10, 16]) == pytest.approx(0.8, abs=1e-6)
    assert float(output.depths[0, 10, 16]) == pytest.approx(2.0, abs=1e-5)
    assert output.colors[0, 10, 16].tolist() == pytest.approx([0.8, 0.4, 0.2], abs=1e-5)
    focal = float(FRONT.Ks[0, 0, 0])
    variance = (focal * 0.1 / 2) ** 2 + 0.3
    expected = 0.8 * torch.exp(torch.tensor(-0.5 * 9 / variance))
    assert float(output.alphas[0, 10, 19]) == pytest.approx(float(expected), abs=1e-5)
    assert float(output.alphas[0, 13, 16]) == pytest.approx(float(expected), abs=1e-5)


def test_picture_axes():
    """A gaussian to the camera's right and above the middle lands right of and above the middle."""
    output = render(one(mean=(0.3, 0.15, 0.0), scale=0.02), *FRONT)
    y, x = divmod(int(output.alphas[0, :, :, 0].argmax()), 33)
    assert x > 16
    assert y < 10


def test_equal_depths_are_drawn_in_index_order():
    near, far = one(color=(1.0, 0.0, 0.0)), one(color=(0.0, 1.0, 0.0))
    assert render(Splats.cat([near, far]), *FRONT).colors[0, 10, 16].tolist() == pytest.approx([0.8, 0.16, 0], abs=1e-5)
    assert render(Splats.cat([far, near]), *FRONT).colors[0, 10, 16].tolist() == pytest.approx([0.16, 0.8, 0], abs=1e-5)


def test_no_cameras_give_no_pictures(splats_factory):
    views = cameras()
    output = render(splats_factory(5), views.viewmats[:0], views.Ks[:0], 8, 8)
    assert output.colors.shape == (0, 8, 8, 3)


def test_gradient_descent_recovers_colours(splats_factory):
    """Forty steps on the colours alone bring the picture to the target: gradients are usable as they are."""
    splats, views = splats_factory(200, 0), cameras()
    target = render(splats, *views).colors
    sh0 = torch.zeros_like(splats.sh0, requires_grad=True)
    optimizer = torch.optim.Adam([sh0], lr=0.2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = ((render(replace(splats, sh0=sh0), *views).colors - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
