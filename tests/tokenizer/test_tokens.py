"""Tokens: invariances, padding, odd objects, switches."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch.nn import functional as F

from clipgs_lib.geometry import quat_to_rotmat
from clipgs_lib.splats import COLUMNS, Splats
from clipgs_lib.tokenizer import GSTokenizer, SplatBatch, TokenizerConfig, TokenizerWarning, attribute_channels, collate
from tests.conftest import make_splats

SMALL = TokenizerConfig(
    groups=24, group_size=12, dim=32, attribute_widths=(16, 16, 32), point_widths=(16, 32, 32), zero_init=False
)
KINDS = {
    "default": SMALL,
    "cycle": replace(SMALL, combine="cycle"),
    "sorted": replace(SMALL, sort_patches="hilbert", squash="sigmoid-linear"),
    "quat": replace(SMALL, rotation="quat", order_within=False, pool="mean", squash="none"),
    "points": replace(SMALL, attributes="points"),
}


def trained(config: TokenizerConfig, seed: int = 0) -> GSTokenizer:
    """A tokenizer with settled running statistics, in eval mode."""
    torch.manual_seed(seed)
    tokenizer = GSTokenizer(config)
    with torch.no_grad():
        for step in range(20):
            tokenizer(collate([make_splats(200, seed=100 + step)]))
    return tokenizer.eval()


@pytest.fixture(params=KINDS, scope="module")
def tokenizer(request):
    return trained(KINDS[request.param])


@torch.no_grad()
def tokens_of(tokenizer: GSTokenizer, *splats: Splats) -> torch.Tensor:
    return tokenizer(collate(splats)).tokens


def closeness(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=-1).min())


def test_permuted_gaussians_give_the_same_tokens(tokenizer):
    splats = make_splats(150)
    shuffle = torch.randperm(150, generator=torch.Generator().manual_seed(1))
    assert closeness(tokens_of(tokenizer, splats), tokens_of(tokenizer, splats[shuffle])) > 1 - 1e-5


def test_permuting_a_regular_grid_changes_nothing(tokenizer):
    """Everything ties here: starts, farthest points, neighbours, cells."""
    axis = torch.arange(5.0)
    splats = replace(make_splats(125), means=torch.cartesian_prod(axis, axis, axis))
    shuffle = torch.randperm(125, generator=torch.Generator().manual_seed(1))
    assert closeness(tokens_of(tokenizer, splats), tokens_of(tokenizer, splats[shuffle])) > 1 - 1e-5


def test_the_sign_of_quaternions_changes_nothing(tokenizer):
    splats = make_splats(100)
    signs = torch.where(torch.rand(100, 1, generator=torch.Generator().manual_seed(2)) < 0.5, -1.0, 1.0)
    assert torch.equal(tokens_of(tokenizer, splats), tokens_of(tokenizer, replace(splats, quats=splats.quats * signs)))


def test_place_and_size_change_nothing(tokenizer):
    splats = make_splats(100)
    moved = replace(splats, means=splats.means * 3.7 + 2.0, scales=splats.scales * 3.7)
    assert closeness(tokens_of(tokenizer, splats), tokens_of(tokenizer, moved)) > 1 - 1e-4


def test_an_object_is_the_same_alone_and_in_company(tokenizer):
    parts = [make_splats(80), make_splats(9, seed=1), make_splats(140, seed=2)]
    together = tokens_of(tokenizer, *parts)
    for row, part in zip(together, parts, strict=True):
        assert torch.allclose(row, tokens_of(tokenizer, part)[0], atol=1e-5)


def test_objects_with_too_few_gaussians_or_copies(tokenizer):
    few = tokenizer(collate([make_splats(5)]))
    assert few.mask.sum() == 5 and not few.tokens[0, 5:].any() and few.tokens[0, :5].any(dim=1).all()
    one = make_splats(13)
    doubled = tokens_of(tokenizer, Splats.cat([one] * 20))
    assert doubled.isfinite().all()


def test_one_broken_position_leaves_the_rest_as_it_was(tokenizer):
    splats = make_splats(100)
    means = splats.means.clone()
    means[40, 2] = torch.nan
    with pytest.warns(TokenizerWarning, match="left out 1 gaussians"):
        batch = collate([replace(splats, means=means)])
    with torch.no_grad():
        got = tokenizer(batch)
    keep = torch.arange(100) != 40
    assert torch.equal(got.tokens, tokens_of(tokenizer, splats[keep]))
    assert not (got.indices == 40).any() and len(got.indices[..., 0].unique()) == 24


def test_batch_statistics_do_not_see_padding():
    torch.manual_seed(0)
    parts = [make_splats(6), make_splats(120, seed=1)]
    first = GSTokenizer(SMALL)
    second = GSTokenizer(SMALL)
    second.load_state_dict(first.state_dict())
    batch = collate(parts)
    noisy = SplatBatch(**{f.name: getattr(batch, f.name).clone() for f in fields(batch)})
    for name in ("means", "scales", "colors", "quats", "opacities"):
        getattr(noisy, name)[~batch.mask] = 1e6
    assert torch.equal(first(batch).tokens, second(noisy).tokens)
    for (name, a), b in zip(first.named_buffers(), second.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_batch_statistics_do_not_see_repeated_patches():
    torch.manual_seed(0)
    many, exact = GSTokenizer(replace(SMALL, groups=200)), GSTokenizer(replace(SMALL, groups=30))
    exact.load_state_dict(many.state_dict())
    batch = collate([make_splats(30)])
    assert torch.equal(many(batch).tokens[:, :30], exact(batch).tokens)
    for (name, a), b in zip(many.named_buffers(), exact.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_at_step_zero_the_tokens_are_those_of_the_point_model():
    torch.manual_seed(0)
    both, points = GSTokenizer(replace(SMALL, zero_init=True)), GSTokenizer(replace(SMALL, attributes="points"))
    points.points.load_state_dict(both.points.state_dict())
    batch = collate([make_splats(90)])
    for mode in (True, False):
        assert torch.equal(both.train(mode)(batch).tokens, points.train(mode)(batch).tokens)


def test_what_each_channel_holds():
    splats = make_splats(50)
    batch = collate([splats])
    objects, rows = torch.zeros(1, 1, dtype=torch.int64), torch.arange(50)[None]
    offsets = batch.means[0][None] - batch.means[0, 3]
    channels = attribute_channels(batch, objects, rows, offsets, SMALL)[0]
    scales = splats.normalize().scales
    wanted = [
        offsets[0], splats.colors.clamp(0, 1), splats.opacities[:, None], scales.log().sigmoid(),
        quat_to_rotmat(splats.quats).reshape(50, 9),
    ]  # fmt: skip
    assert torch.allclose(channels, torch.cat(wanted, dim=1), atol=1e-6)
    assert torch.allclose(channels[:, 6], splats.opacities.logit().sigmoid(), atol=1e-6)
    assert len(SMALL.channels) == 19 and SMALL.channels[6] == "opacity"
    quat = attribute_channels(batch, objects, rows, offsets, KINDS["quat"])[0]
    assert quat.shape == (50, 14) and (quat[:, 10] >= 0).all() and torch.equal(quat[:, 7:10], scales)
    linear = attribute_channels(batch, objects, rows, offsets, KINDS["sorted"])[0]
    assert torch.allclose(linear[:, 6:10], torch.cat([splats.opacities[:, None], scales], dim=1).sigmoid())


def test_orders_and_attributes_matter():
    splats = make_splats(100)
    plain = tokens_of(trained(SMALL), splats)
    single = trained(SMALL)
    single.config = replace(SMALL, orders=("z",))
    assert not torch.allclose(plain, tokens_of(single, splats), atol=1e-3)
    for column in ("quats", "opacities", "scales"):
        changed = replace(splats, **{column: getattr(splats, column).flip(0)})
        assert not torch.allclose(plain, tokens_of(trained(SMALL), changed), atol=1e-3)


def test_each_patch_cycles_to_its_order():
    cycle = trained(replace(SMALL, combine="cycle"))
    one = [trained(replace(SMALL, orders=(name,))) for name in SMALL.orders]
    for other in one:
        other.load_state_dict(cycle.state_dict())
    got, wanted = tokens_of(cycle, make_splats(90)), [tokens_of(other, make_splats(90)) for other in one]
    for rank in range(SMALL.groups):
        assert torch.allclose(got[0, rank], wanted[rank % 3][0, rank], atol=1e-5)


def test_known_patches_are_taken_as_they_are_and_gradients_flow():
    torch.manual_seed(0)
    tokenizer = GSTokenizer(SMALL)
    batch = collate([make_splats(90), make_splats(7, seed=1)])
    patches = tokenizer.patchify(batch)
    result = tokenizer(batch, patches)
    assert result.indices is patches.indices
    result.tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tokenizer.parameters())


def test_the_defaults_are_unis_patches():
    config = TokenizerConfig()
    assert (config.groups, config.group_size, config.dim) == (512, 64, 512)
    assert config == TokenizerConfig(orders=list(config.orders), point_widths=list(config.point_widths))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("groups", 0, "groups must be a whole number of at least 1, got 0"),
        ("group_size", 2.0, "group_size must be a whole number"),
        ("squash", "tanh", "squash must be one of sigmoid, sigmoid-linear, none, got 'tanh'"),
        ("orders", (), "orders must be one or more of xyz, hilbert, z"),
        ("orders", ("peano",), "orders must be one or more of"),
        ("sort_patches", "x", "sort_patches must be None or one of"),
        ("attribute_widths", (1, 2), "attribute_widths must be three channel counts"),
        ("point_widths", (1, 2, 0), "every one of point_widths must be a whole number"),
        ("color_default", 2.0, r"color_default must lie in \[0, 1\]"),
    ],
)
def test_switches_out_of_range_are_refused(field, value, words):
    with pytest.raises(ValueError, match=words):
        TokenizerConfig(**{field: value})


def test_columns_of_splats_and_batches_agree():
    assert {f.name for f in fields(SplatBatch)} - {"mask", "colors"} == set(COLUMNS) - {"sh0", "shN"}
