"""Voxels, points on the surface and naive tokens: what they read, beside loops, and what they refuse."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from clipgs_lib.encoders import EncoderError, build_encoder, encoder_config, load_encoder, save_encoder
from clipgs_lib.encoders.encoder import on_surface
from clipgs_lib.encoders.voxels import voxelize
from clipgs_lib.geometry import quat_to_rotmat
from clipgs_lib.tokenizer import SplatBatch, TokenizerWarning, attribute_channels, collate

from ..conftest import make_splats

SMALL = {
    "naive-mini": {"groups": 12, "group_size": 8, "depth": 1},
    "point-mini": {"groups": 12, "group_size": 8, "depth": 1, "attributes": "surface"},
    "pointbert-mini": {"groups": 12, "group_size": 8, "depth": 1, "attributes": "surface", "radius": 0.5},
    "voxel-mini": {"size": 8, "width": 8, "depth": 2},
}


@pytest.fixture(params=SMALL)
def encoder(request):
    """Each of them, small, its batch statistics used and its weights such that objects differ."""
    torch.manual_seed(3)
    made = build_encoder(request.param, 16, **SMALL[request.param])
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.05 if "cls" in name else 2)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for seed in range(4):
            made.train()(made.collate([make_splats(50, seed=seed), make_splats(90, seed=10 + seed)]))
    return made.eval()


@pytest.fixture
def objects():
    return [make_splats(n, seed=n) for n in (20, 300, 45)]


def test_embeddings_are_unit_rows_of_the_set_of_gaussians(encoder, objects):
    embeds = encoder.encode(objects, batch_size=2)
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(3))
    assert float((embeds @ embeds.T).fill_diagonal_(0).max()) < 0.999
    shuffled = [one[torch.randperm(len(one), generator=torch.Generator().manual_seed(1))] for one in objects]
    for other in (shuffled, [replace(one, quats=-one.quats) for one in objects]):
        torch.testing.assert_close(encoder.encode(other), embeds, atol=2e-6, rtol=0)
    moved = [replace(one, means=4 * one.means + 8, scales=4 * one.scales) for one in objects]  # powers of two
    assert float((encoder.encode(moved) * embeds).sum(dim=1).min()) > 1 - 1e-3


def test_a_checkpoint_gives_the_same(encoder, objects, tmp_path):
    loaded = load_encoder(save_encoder(tmp_path, encoder))
    assert torch.equal(loaded.encode(objects), encoder.encode(objects)) and loaded.identity == encoder.identity
    assert loaded.inputs == encoder.inputs


def test_one_batch_can_be_learned_by_heart_and_the_seed_decides(encoder):
    losses = []  # of each step, in two runs
    for _ in range(2):
        losses.append([])
        torch.manual_seed(0)
        made = build_encoder(encoder.config, **({} if encoder.inputs == "voxels" else {"patch_dropout": 0.0}))
        batch = made.collate([make_splats(80, seed=s) for s in range(6)])
        targets = torch.nn.functional.normalize(torch.randn(6, 16), dim=-1)
        optimiser = torch.optim.AdamW(made.parameters(), lr=3e-3)
        for _ in range(80):
            logits = torch.nn.functional.normalize(made(batch), dim=-1) @ targets.T / 0.1
            loss = torch.nn.functional.cross_entropy(logits, torch.arange(6))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[-1].append(float(loss.detach()))
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.parameters())
    assert losses[0] == losses[1] and min(losses[0]) < 0.1  # the last may be a spike, on one kind of CPU or another


def test_bad_splats_are_refused_with_a_sentence(encoder, objects):
    empty, broken = objects[0][:0], objects[1]
    with pytest.raises(ValueError, match="at least one finite gaussian, got none of 0 in object 0"):
        encoder.encode(empty)
    with pytest.raises(ValueError, match="object 0: normalize needs at least two different centres"):
        encoder.encode(replace(broken, means=torch.zeros_like(broken.means)))
    nan = replace(broken, means=torch.full_like(broken.means, torch.nan))
    with pytest.raises(ValueError, match="at least one finite gaussian, got none of 300"):
        encoder.encode(nan)
    some = replace(broken, scales=broken.scales.clone())
    some.scales[:7] = torch.nan
    with pytest.warns(TokenizerWarning, match="left out 7 gaussians"):
        embeds = encoder.encode(some)
    torch.testing.assert_close(embeds, encoder.encode(broken[7:]), atol=2e-6, rtol=0)


def test_layers_for_learning_rates(encoder):
    depth = len(encoder.blocks)
    layers = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert {1, depth, depth + 1} <= layers <= set(range(depth + 2))


# ---- voxels ------------------------------------------------------------------------------------------------------


def test_voxels_beside_loops():
    batch, size = collate([make_splats(12, seed=1), make_splats(7, seed=2)]), 4
    expected = torch.full((2, 4, size, size, size), 0.4)
    expected[:, 0] = 0
    seen: dict[tuple[int, ...], list[tuple[float, torch.Tensor]]] = {}
    for b, n in itertools.product(range(2), range(12)):
        axes = quat_to_rotmat(batch.quats[b, n]).T * batch.scales[b, n][:, None] if batch.mask[b, n] else None
        for step in [] if axes is None else [torch.zeros(3), *axes, *-axes]:
            cell = ((batch.means[b, n] + step + 1) / 2 * size).floor().int().tolist()
            if all(0 <= c < size for c in cell):
                seen.setdefault((b, *cell), []).append((float(batch.opacities[b, n]), batch.colors[b, n]))
    for (b, x, y, z), points in seen.items():
        expected[b, 0, x, y, z] = 1 - torch.tensor([1 - o for o, _ in points]).prod()
        expected[b, 1:, x, y, z] = sum(o * c for o, c in points) / sum(o for o, _ in points)
    torch.testing.assert_close(voxelize(batch, size), expected, atol=1e-5, rtol=1e-4)
    assert len(seen) > 20


def test_padding_and_what_lies_outside_of_the_cube_leave_no_voxel():
    one = collate([make_splats(30, seed=3)])
    padded = collate([make_splats(30, seed=3), make_splats(200, seed=4)])
    assert torch.equal(voxelize(padded, 8)[0], voxelize(one, 8)[0])
    far = replace(one, means=one.means + 5)
    assert torch.equal(voxelize(far, 8)[:, 0], torch.zeros(1, 8, 8, 8))
    assert torch.equal(voxelize(far, 8, empty=0.25)[:, 1:], torch.full((1, 3, 8, 8, 8), 0.25))


def test_an_opaque_gaussian_is_not_quite_certain_and_a_clear_one_leaves_nothing():
    points = collate([make_splats(30, seed=3)])
    solid = voxelize(replace(points, opacities=torch.ones_like(points.opacities)), 8)
    assert 0.99 < float(solid[:, 0].max()) <= 1 and bool(solid.isfinite().all())
    clear = voxelize(replace(points, opacities=torch.zeros_like(points.opacities)), 8)
    assert float(clear[:, 0].abs().max()) == 0 and bool((clear[:, 1:] == 0.4).all())


# ---- points on the surface ---------------------------------------------------------------------------------------


def test_points_lie_within_two_scales_of_a_gaussian_of_their_colour():
    splats = replace(make_splats(200, seed=5), scales=torch.tensor([0.05, 0.03, 0.001]).repeat(200, 1))
    batch = collate([splats, make_splats(31, seed=6)])
    points = on_surface(batch)
    assert torch.equal(points.mask, batch.mask) and not torch.equal(points.means, batch.means)
    same = (points.colors[0][:, None] == batch.colors[0][None]).all(dim=-1)  # [point, gaussian]
    assert bool((same.sum(dim=1) == 1).all())
    origin = same.int().argmax(dim=1)
    offsets = (points.means[0] - batch.means[0, origin])[:, None] @ quat_to_rotmat(batch.quats[0, origin])
    assert bool((offsets[:, 0].abs() <= 2.001 * batch.scales[0, origin]).all())
    assert bool((points.means[1, 31:] == 0).all())  # padding
    large = replace(batch, scales=torch.where(torch.arange(200)[:, None] < 20, 10.0, 0.1) * batch.scales)
    drawn = on_surface(large).colors[0][:, None] == batch.colors[0][None, :20]
    assert float(drawn.all(dim=-1).any(dim=1).float().mean()) > 0.8  # 20 of 200, with 10,000 times the area


def test_points_on_the_surface_are_as_many_and_another_input_of_the_same_weights(objects):
    torch.manual_seed(0)
    centers = build_encoder("point-mini", depth=1, groups=12, group_size=8).eval()
    surface = build_encoder(replace(centers.config, tokenizer=replace(centers.config.tokenizer, attributes="surface")))
    surface.load_state_dict(centers.state_dict())
    batch = surface.collate(objects)
    assert batch.mask.sum(dim=1).tolist() == [20, 300, 45]
    tight = [replace(one, scales=0 * one.scales) for one in objects]  # points are centres again, some of them twice
    means = surface.collate(tight).means[1]
    assert bool((means[:, None] == collate(tight).means[1][None]).all(dim=-1).any(dim=1).all())
    tokens = [encoder.eval().tokens(objects).tokens for encoder in (surface, centers)]
    assert not torch.allclose(*tokens, atol=1e-3)


# ---- naive tokens ------------------------------------------------------------------------------------------------


def test_naive_tokens_see_fourteen_raw_numbers(objects):
    encoder = build_encoder("naive-mini", depth=1, groups=12, group_size=8).eval()
    assert encoder.inputs == "splats" and encoder.tokenizer.attributes is None
    assert encoder.tokenizer.points.first_conv[0].weight.shape == (32, 14, 1)
    batch = encoder.collate(objects)
    rows, zeros = torch.arange(20)[None], torch.zeros(1, 20, 3)
    seen = attribute_channels(batch, torch.zeros(1, 1, dtype=torch.int64), rows, zeros, encoder.config.tokenizer)
    assert seen.shape == (1, 20, 14)
    assert torch.equal(seen[0, :, 6], batch.opacities[0, :20]) and torch.equal(seen[0, :, 7:10], batch.scales[0, :20])
    for name in ("opacities", "scales", "quats"):
        before = encoder(batch)
        other = replace(batch, **{name: getattr(batch, name).flip(1) * 0.5})
        assert isinstance(other, SplatBatch) and not torch.allclose(encoder(other), before, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build_encoder("voxel-mini", size=24, depth=4),
            r"size must be a multiple of 2 \*\* depth = 16, got 24",
        ),
        (lambda: build_encoder("voxel-mini", width=0), "width must be a positive integer, got 0"),
        (lambda: build_encoder("voxel-mini", groups=3), "voxel-mini has no setting groups"),
        (lambda: build_encoder("pointbert-mini", attributes="all"), "attributes must be points or surface, got 'all'"),
        (lambda: encoder_config("point-mini", attributes="mesh"), "attributes must be one of all, points, surface, na"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(EncoderError, match=message):
        make()
