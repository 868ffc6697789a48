"""The interface: shapes, modes, batches of unequal objects, attention, dropout, names and settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clipgs_lib.encoders import (
    EncoderConfig,
    EncoderError,
    build_encoder,
    config_from_dict,
    encoder_config,
    encoder_names,
)
from clipgs_lib.encoders.encoder import attended, drop_patches
from clipgs_lib.encoders.pointbert import ball_query, scattered_order
from clipgs_lib.formats import read_splats
from clipgs_lib.tokenizer import Patches, SplatBatch, collate

from ..conftest import make_splats

# three kinds of blocks and PointBERT, made small; weights do not depend on groups
SMALL = {
    "clipgs-mini": {"groups": 40, "depth": 2},
    "point-mini": {"groups": 40, "depth": 2},
    "naive-mini": {"groups": 40, "depth": 2},
    "clipgs-base": {"groups": 40, "group_size": 16, "depth": 1, "width": 96},
    "clipgs-giant": {"groups": 40, "group_size": 16, "depth": 1, "width": 128},
    "pointbert": {"groups": 40, "group_size": 16, "depth": 2},
}


@pytest.fixture(scope="module")
def encoders():
    """One of each kind, with weights that make objects differ: at the start all embeddings are nearly one."""
    torch.manual_seed(3)
    built = {name: build_encoder(name, **settings).eval() for name, settings in SMALL.items()}
    with torch.no_grad():
        for name, parameter in (item for encoder in built.values() for item in encoder.named_parameters()):
            if "cls" in name:
                parameter.mul_(0.05)
            elif parameter.ndim > 1:
                parameter.mul_(2)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.fixture(params=SMALL)
def encoder(request, encoders):
    """Each of them in turn."""
    return encoders[request.param]


@pytest.fixture(scope="module")
def objects():
    """Too small for 40 patches, for 32 gaussians a patch, and large."""
    return [make_splats(n, seed=n) for n in (20, 300, 1000, 45)]


def test_names():
    sizes = ("mini", "tiny", "small", "base", "large", "giant")
    assert encoder_names() == [f"{f}-{s}" for f in ("clipgs", "point", "naive") for s in sizes] + [
        *("pointbert", "pointbert-mini", "voxel-mini", "duoduo-mini", "duoduo-b32", "bag-mean", "bag-max")
    ]
    for name in encoder_names():
        assert encoder_config(name).name == name


def test_mini_is_small_enough():
    for name in ("pointbert-mini", "voxel-mini"):
        encoder = build_encoder(name)
        assert 2e6 < sum(p.numel() for p in encoder.parameters()) < 3e6 and encoder.embed_dim == 384
    for name in ("clipgs-mini", "point-mini", "naive-mini"):
        encoder = build_encoder(name)
        numbers = sum(p.numel() for p in encoder.parameters())
        assert 2.5e6 < numbers < 3.5e6
        assert 2 * numbers + 4 * sum(b.numel() for b in encoder.buffers()) < 7e6
        assert encoder.embed_dim == 384
        assert (encoder.config.tokenizer.groups, encoder.config.tokenizer.group_size) == (64, 32)
        assert (encoder.config.width, encoder.config.depth) == (192, 6)


def test_encode_gives_unit_rows_in_the_order_given(encoder, objects):
    embeds = encoder.encode(objects, batch_size=3)
    assert embeds.shape == (4, encoder.embed_dim)
    assert embeds.dtype == torch.float32
    assert not embeds.requires_grad
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(4))
    assert float((embeds @ embeds.T).fill_diagonal_(0).max()) < 0.9995
    for i, one in enumerate(objects):
        torch.testing.assert_close(encoder.encode(one)[0], embeds[i], atol=2e-6, rtol=0)
    assert encoder.encode([]).shape == (0, encoder.embed_dim)


@pytest.mark.parametrize("mixed", [False, True])
def test_passes_side_by_side_give_the_same(encoders, objects, mixed):
    """Without gradients and under the caller's autocast in every thread; torch's threads are as before."""
    before, embeds = torch.get_num_threads(), {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                embeds[threads] = encoders["clipgs-mini"].encode(objects, batch_size=1)
            assert torch.get_num_threads() == threads and not embeds[threads].requires_grad
    finally:
        torch.set_num_threads(before)
    assert torch.equal(embeds[1], embeds[2]) and torch.equal(embeds[1], embeds[3])
    alone = encoders["clipgs-mini"].encode(objects[0])
    assert torch.equal(alone[0], embeds[1][0]) != mixed


def test_the_error_of_a_pass_comes_out(encoders, objects):
    flat = replace(objects[0], means=torch.zeros_like(objects[0].means))
    with pytest.raises(ValueError, match="object 0"):
        encoders["clipgs-mini"].encode([*objects, flat], batch_size=1)


def test_masked_patches_and_padding_never_matter(encoder, objects):
    """20 gaussians alone, with a thousand beside them, and with their repeated patches turned into noise."""
    alone = encoder.tokens(objects[0])
    assert alone.mask.sum() == 20
    noise = alone._replace(tokens=alone.tokens.clone())
    noise.tokens[~alone.mask] = 1e3
    noise.centers[~alone.mask] = 7.0
    together = encoder.tokens(objects)
    assert together.mask.sum(dim=1).tolist() == [20, 40, 40, 40]
    with torch.no_grad():
        want = encoder.embed(alone)
        assert torch.equal(encoder.embed(noise), want)
        cut = type(alone)(*(part[:, :20] for part in alone))  # no masked patch at all, so no mask
        torch.testing.assert_close(encoder.embed(cut), want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.embed(together)[:1], want, rtol=1e-4, atol=1e-5)


def test_order_position_and_size_do_not_matter(encoder, objects):
    splats = objects[2]
    want = encoder.encode(splats)[0]
    shuffled = splats[torch.randperm(len(splats), generator=torch.Generator().manual_seed(0))]
    matrix = torch.eye(4)
    matrix[:3] *= 2.5
    matrix[:3, 3] = torch.tensor([0.3, -4.0, 1.0])
    turned = replace(splats, quats=-splats.quats)
    # pointbert draws the gaussians of a ball by their coordinates: moving them redraws a few
    moved = 1 - 1e-4 if encoder.config.kind == "pointbert" else 1 - 1e-6
    for other, least in ((shuffled, 1 - 1e-6), (turned, 1 - 1e-6), (splats.transform(matrix), moved)):
        assert float(encoder.encode(other)[0] @ want) > least


def test_modes_come_back_and_dropout_stays_off(encoders, objects):
    encoder = encoders["clipgs-mini"]
    encoder.train()
    encoder.tokenizer.eval()  # as one freezes statistics
    first = encoder.encode(objects)
    assert torch.equal(encoder.encode(objects), first)
    assert encoder.training and not encoder.tokenizer.training and encoder.visual.training
    bad = make_splats(8)
    with pytest.raises(ValueError, match="two different centres"):
        encoder.encode(replace(bad, means=torch.zeros(8, 3)))
    assert encoder.training
    encoder.eval()
    assert torch.equal(encoder.encode(objects), first)


def test_patch_dropout_is_on_in_training_only(encoders, objects):
    encoder = encoders["point-mini"]
    batch = collate(objects)
    encoder.eval()
    assert torch.equal(encoder(batch), encoder(batch))
    encoder.train()
    encoder.tokenizer.eval()
    seen = []
    watch = encoder.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    torch.manual_seed(0)
    first, second = encoder(batch), encoder(batch)
    torch.manual_seed(0)
    again = encoder(batch)
    watch.remove()
    encoder.eval()
    assert seen == [21, 21, 21]  # CLS and half of 40
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_drop_patches_keeps_real_ones_first():
    mask = torch.tensor([[True, True, False, False, False, False], [True] * 6])
    ranks = torch.arange(6).repeat(2, 1)
    patches = Patches(ranks[..., None].float().expand(-1, -1, 3), ranks[..., None].expand(-1, -1, 4), mask)
    kept = drop_patches(patches, 0.5)
    assert kept.centers.shape == (2, 3, 3) and kept.indices.shape == (2, 3, 4)
    assert kept.mask.tolist() == [[True, True, False], [True, True, True]]
    assert kept.indices[0, :2, 0].tolist() == [0, 1]
    assert kept.indices[1, :, 0].diff().min() > 0  # all different, in their order
    assert torch.equal(kept.centers[..., 0].long(), kept.indices[..., 0])
    assert drop_patches(patches, 0.99).mask.shape == (2, 1)
    counts = sum((drop_patches(patches, 0.5).indices[1, :, :1] == torch.arange(6)).sum(0) for _ in range(300))
    assert counts.min() > 100 and counts.max() < 200  # each patch is kept about half of the time


def test_dropped_patches_are_not_tokenized(encoders, objects):
    encoder = encoders["clipgs-mini"]
    batch, seen = collate(objects), []
    watch = encoder.tokenizer.points.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    encoder.train()
    encoder(batch)
    encoder.eval()
    encoder(batch)
    watch.remove()
    assert seen[0] == 20 * len(batch) < seen[1]  # half of 40 patches, of the smallest object too


def test_attended_is_none_where_nothing_is_masked():
    assert attended(torch.ones(2, 3, dtype=torch.bool)) is None
    mask = torch.tensor([[True, False], [True, True]])
    assert attended(mask)[:, 0, 0].tolist() == [[True, True, False], [True, True, True]]


def test_tokens_are_what_enters_and_index_the_gaussians(encoder, objects):
    out = encoder.tokens(objects[1])
    config = encoder.config
    size = config.group_size if config.kind == "pointbert" else config.tokenizer.group_size
    assert out.tokens.shape == (1, 40, config.width)
    assert out.indices.shape == (1, 40, size)
    means = collate([objects[1]]).means[0]
    near = (means[out.indices[0]] - out.centers[0][:, None]).norm(dim=-1)  # [G, M]
    if config.kind == "pointbert":
        assert float(near.max()) <= config.radius + 1e-6
    else:
        assert float(near[:, 0].max()) == 0
    with torch.no_grad():
        want = torch.nn.functional.normalize(encoder.embed(out), dim=-1)
    torch.testing.assert_close(want, encoder.encode(objects[1]))


def test_ball_query_beside_loops():
    batch = collate([make_splats(60, seed=1), make_splats(25, seed=2)])
    centers = batch.means[:, :9]
    found = ball_query(batch, centers, 0.4, 6)
    for b in range(2):
        order = [int(i) for i in scattered_order(batch.means[b]) if batch.mask[b, i]]
        for g in range(9):
            inside = [i for i in order if float((batch.means[b, i] - centers[b, g]).norm()) <= 0.4][:6]
            assert inside
            assert found[b, g].tolist() == inside + inside[:1] * (6 - len(inside))


def test_scattered_order_depends_on_coordinates_alone_and_is_scattered():
    points = make_splats(4000, seed=5).means
    order = scattered_order(points)
    assert sorted(order.tolist()) == list(range(4000))
    shuffle = torch.randperm(4000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(points[shuffle][scattered_order(points[shuffle])], points[order])
    ranks = torch.empty(4000)
    ranks[order] = torch.arange(4000.0)
    for axis in range(3):
        assert abs(float(torch.corrcoef(torch.stack([ranks, points[:, axis]]))[0, 1])) < 0.06


def test_seed_decides_the_weights(objects):
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(build_encoder("clipgs-mini", depth=1))
    assert made[0].identity == made[1].identity != made[2].identity
    assert made[0].identity.startswith("clipgs-mini sha256:")
    assert "clipgs-mini" in repr(made[0])


@pytest.mark.parametrize("name", ["clipgs-mini", "point-mini"])
def test_new_encoders_tell_objects_apart(name, objects):
    torch.manual_seed(0)
    found = build_encoder(name).eval().encode(objects)
    others = (found @ found.T)[~torch.eye(len(objects), dtype=torch.bool)]
    assert others.mean() < 0.995  # 0.9998 with the blocks as timm draws them


def test_layers_for_learning_rates(encoder):
    depth = encoder.config.depth
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert set(layers.values()) == set(range(depth + 2))
    last = "proj." if encoder.config.kind == "pointbert" else "trans2embed."
    assert {layer for name, layer in layers.items() if name.startswith(last)} == {depth + 1}
    assert all(layers[name] == 0 for name in layers if "cls" in name or "tokenizer" in name or "lift" in name)


def test_gradients_reach_every_parameter(encoder, objects):
    encoder.train()
    encoder(collate(objects)).square().sum().backward()
    encoder.eval()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    encoder.zero_grad()
    assert without == []


def test_one_batch_can_be_learnt():
    torch.manual_seed(0)
    encoder = build_encoder("clipgs-mini", embed_dim=16, depth=2, groups=12, group_size=8, patch_dropout=0.0)
    batch = collate([make_splats(80, seed=s) for s in range(6)])
    targets = torch.nn.functional.normalize(torch.randn(6, 16), dim=-1)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=2e-3)
    for _ in range(40):
        logits = torch.nn.functional.normalize(encoder(batch), dim=-1) @ targets.T / 0.1
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(6))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1


def test_bfloat16_agrees(encoders, objects):
    encoder = encoders["clipgs-mini"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = encoder.encode(objects)
    assert low.dtype == torch.float32
    assert float((low * encoder.encode(objects)).sum(dim=1).min()) > 0.99


def test_diverged_weights_are_named(objects):
    encoder = build_encoder("point-mini", depth=1)
    encoder.trans2embed.weight.data[0] = torch.nan
    with pytest.raises(EncoderError, match="must be finite, got NaN for objects"):
        encoder.encode(objects[1:3])
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        encoder.encode(objects, batch_size=0)


def test_overrides_reach_the_tokenizer():
    config = encoder_config("clipgs-mini", 64, groups=7, orders=("z",), depth=3)
    assert (config.embed_dim, config.depth, config.tokenizer.groups, config.tokenizer.orders) == (64, 3, 7, ("z",))
    assert build_encoder(config, depth=1).config == replace(config, depth=1)
    assert encoder_config("pointbert", groups=5).groups == 5


@pytest.mark.parametrize("name", ["clipgs-small", "point-mini", "pointbert"])
def test_settings_survive_json(name):
    import json

    config = encoder_config(name, 77, groups=33)
    told = json.loads(json.dumps(config.to_dict()))
    assert config_from_dict(told) == config
    assert type(config).from_dict(told) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_encoder("clipgs-huge"), "name must be one of clipgs-mini"),
        (lambda: build_encoder("clipgs-mini", widht=3), "clipgs-mini has no setting widht"),
        (lambda: build_encoder("pointbert", orders=("z",)), "pointbert has no setting orders"),
        (lambda: build_encoder("clipgs-mini", depth=0), "depth must be a positive integer, got 0"),
        (lambda: build_encoder("clipgs-mini", embed_dim=True), "embed_dim must be a positive integer"),
        (lambda: build_encoder("clipgs-mini", patch_dropout=1.0), r"patch_dropout must lie in \[0, 1\), got 1.0"),
        (lambda: build_encoder("clipgs-mini", orders=("spiral",)), "orders must be one or more of"),
        (lambda: build_encoder("clipgs-mini", width=100), "width must be a multiple of the 3 heads"),
        (lambda: build_encoder("clipgs-mini", block="resnet18"), "block must be an EVA model"),
        (lambda: build_encoder("clipgs-mini", block="eva99"), "block must be an EVA model"),
        (lambda: build_encoder("pointbert", radius=-1.0), "radius must be positive"),
        (lambda: build_encoder("clipgs-mini", tokenizer={}), "tokenizer must be a TokenizerConfig"),
        (lambda: config_from_dict({"kind": "cnn"}), "kind must be one of transformer, pointbert"),
        (
            lambda: EncoderConfig.from_dict({"kind": "transformer", "name": "x"}),
            "must include tokenizer, block, width, depth, embed_dim",
        ),
        (lambda: config_from_dict(encoder_config("pointbert").to_dict() | {"knobs": 1}), "got unknown knobs"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(EncoderError, match=message):
        make()


def test_real_splats(encoders, real_data):
    """Tens of thousands of gaussians: finite, independent of the order in the file, and not all alike."""
    files = sorted((real_data / "splats" / "spz").glob("*.spz"))[:2]
    assert files
    made = [read_splats(path).prune()[0] for path in files]
    made = [one.subsample(20_000) if len(one) > 20_000 else one for one in made]
    for name in ("clipgs-mini", "pointbert"):
        embeds = encoders[name].encode(made)
        shuffled = [one[torch.randperm(len(one), generator=torch.Generator().manual_seed(1))] for one in made]
        assert float((encoders[name].encode(shuffled) * embeds).sum(dim=1).min()) > 1 - 1e-5
        assert float(embeds[0] @ embeds[-1]) < 0.999 or len(made) == 1


def test_batches_must_be_batches():
    with pytest.raises(TypeError, match="sequence of Splats"):
        build_encoder("point-mini", depth=1).encode([torch.zeros(3)] * 2)
    assert SplatBatch is type(collate([make_splats(5)]))
