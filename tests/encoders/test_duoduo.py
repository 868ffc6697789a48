"""DuoduoCLIP: what it is at the start, what the number and order of views change, checkpoints, published weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import clipgs_lib as cg
from clipgs_lib.encoders import (
    EncoderError,
    MultiViewConfig,
    ViewTokens,
    build_encoder,
    import_duoduo,
    load_encoder,
    save_encoder,
)
from clipgs_lib.encoders.adoption import adopt
from clipgs_lib.encoders.duoduo import MiniViews, VitViews
from clipgs_lib.libraries import import_open_clip
from clipgs_lib.teachers import load_teacher
from clipgs_lib.vectors import unit

from ..teachers import tiny
from . import duoduo_names as names

VIT, RESNET = "tiny-vit-for-views", "tiny-resnet-for-views"
# four blocks, of which two see all views
VIT_CFG = {**tiny.MODEL_CFG, "vision_cfg": {**tiny.MODEL_CFG["vision_cfg"], "layers": 4}}


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """Name of a small random ViT with its weights in a file."""
    folder = tmp_path_factory.mktemp("vit")
    convolutions = VIT_CFG["vision_cfg"] | {"layers": [1, 1, 1, 1], "width": 8, "head_width": 4}
    (folder / f"{VIT}.json").write_text(json.dumps(VIT_CFG))
    (folder / f"{RESNET}.json").write_text(json.dumps(VIT_CFG | {"vision_cfg": convolutions}))
    import_open_clip().add_model_config(folder)
    tiny.register(folder / "other")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = import_open_clip().CLIP(**VIT_CFG)
    torch.save(model.state_dict(), folder / "vit.pt")
    return f"{VIT}@{folder / 'vit.pt'}"


@pytest.fixture(scope="module")
def teachers(vit):
    """The teachers whose towers the encoders have."""
    return {"mini": load_teacher("mini", device="cpu"), "b32": load_teacher(vit, device="cpu")}


@pytest.fixture(params=["mini", "b32"])
def kind(request):
    """Each family in turn."""
    return request.param


@pytest.fixture
def teacher(kind, teachers):
    return teachers[kind]


@pytest.fixture
def encoder(kind, teacher):
    """A new one over the tower of its teacher."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "mini":
            made = MiniViews(
                MultiViewConfig(teacher_sha256=teacher.digest), teacher.tower, teacher.preprocess, held=False
            )
        else:
            config = MultiViewConfig(name="duoduo-b32", teacher=VIT, depth=2, embed_dim=16)
            made = VitViews(config, teacher.tower, teacher.preprocess, held=True)
    return made.eval()


@pytest.fixture
def moved(encoder):
    """The same after a training of a sort: its new weights do something."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.cross.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))
    return encoder


@pytest.fixture(scope="module")
def views():
    """Twelve pictures that differ."""
    return tiny.pictures(12, size=48)


def test_a_single_view_begins_as_the_tower_bit_for_bit(encoder, teacher, views):
    for view in views[:3]:
        assert torch.equal(encoder.encode(view[None]), teacher.encode_image(view[None]))
    assert torch.equal(encoder.encode([view[None] for view in views[:4]]), teacher.encode_image(views[:4]))


def test_mini_begins_as_the_bag_of_views(teachers, views):
    teacher = teachers["mini"]
    encoder = MiniViews(MultiViewConfig(), teacher.tower, teacher.preprocess, held=False)
    bag = unit(teacher.encode_image(views).mean(dim=0))
    torch.testing.assert_close(encoder.encode(views)[0], bag, atol=1e-6, rtol=0)


def test_only_what_sees_all_views_is_trained(encoder, kind):
    encoder.train()
    trained = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert trained and all(name.startswith("cross.") for name in trained)
    assert not any(module.training for module in encoder.tower.modules())
    layers = {encoder.layer_of(name) for name in trained}
    assert layers == {1, 2} and len(encoder.blocks) == 2 and encoder.inputs == "views"
    if kind == "b32":
        assert {name.split(".")[2] for name in trained} == {"in_proj_weight", "in_proj_bias", "out_proj"}


def test_it_costs_little_beside_mini(teachers, tmp_path):
    teacher = teachers["mini"]
    encoder = MiniViews(MultiViewConfig(teacher_sha256=teacher.digest), teacher.tower, teacher.preprocess, held=False)
    folder = save_encoder(tmp_path, encoder, half=True)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    assert all(name.startswith("cross.") for name in load_file(folder / "weights.safetensors"))


def test_views_see_each_other(moved, views):
    alone = unit(torch.stack([moved.encode(view[None])[0] for view in views[:2]]).mean(dim=0))
    assert float(moved.encode(views[:2])[0] @ alone) < 0.9999


def test_the_order_of_views_does_not_matter(moved, views):
    expected = moved.encode(views)
    for seed in range(3):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(moved.encode(views[order]), expected, atol=1e-6, rtol=0)


def test_any_number_of_views_and_unequal_ones_in_a_batch(moved, views):
    objects = [views[:count] for count in (12, 1, 3, 7, 1, 12)]
    together = moved.encode(objects, batch_size=6)
    assert together.shape == (6, moved.embed_dim)
    for row, one in enumerate(objects):
        torch.testing.assert_close(moved.encode(one)[0], together[row], atol=2e-6, rtol=0)
    assert float(together[2] @ together[0]) < 0.99999
    assert moved.encode(torch.cat([views, views[:8]])).shape == (1, moved.embed_dim)  # more than in training
    assert moved.encode([]).shape == (0, moved.embed_dim)


def test_views_come_in_many_forms(moved, views, tmp_path):
    pixels = (views[:2] * 255).round().to(torch.uint8)
    expected = moved.encode(pixels)[0]
    for number, picture in enumerate(pixels):
        Image.fromarray(picture.numpy()).save(tmp_path / f"{number}.png")
    forms = [
        pixels.numpy(),
        list(pixels),
        [Image.fromarray(picture.numpy()) for picture in pixels],
        [str(tmp_path / "0.png"), tmp_path / "1.png"],
        moved.freeze([pixels]),
    ]
    for one in forms:
        torch.testing.assert_close(moved.encode(one), expected[None], atol=1e-6, rtol=0)
    for many in ([pixels, pixels], pixels[None].expand(2, -1, -1, -1, -1), [list(pixels)] * 2, forms[-1:] * 2):
        torch.testing.assert_close(moved.encode(many), expected.expand(2, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (torch.zeros(0, 8, 8, 3), "at least one view, got none for object 0; leave it out"),
        ([torch.zeros(2, 8, 8, 3), []], "at least one view, got none for object 1"),
        ([np.zeros((8, 8, 3)), np.zeros((8, 9, 3))], "of one size, got 8 x 8, 9 x 8 pixels; render them alike"),
        (torch.zeros(8, 8, 3), r"shape \[B, H, W, 3\] .*add a batch axis"),
        (torch.zeros(2, 3, 8, 8), "move channels last"),
        (torch.full((1, 8, 8, 3), 7.0), r"must lie in \[0, 1\]"),
        ([["nowhere.png"]], "'nowhere.png' at 0 must be a file"),
        (Image.new("RGB", (8, 8)), "must be its views, got one Image; put it into a list"),
        ("a.png", "got one str; put it into a list"),
    ],
)
def test_views_that_do_not_do(teachers, objects, message):
    teacher = teachers["b32"]
    config = MultiViewConfig(name="duoduo-b32", teacher=VIT, depth=2, embed_dim=16)
    with pytest.raises(ValueError, match=message):
        VitViews(config, teacher.tower, teacher.preprocess, held=True).encode(objects)


def test_gradients_reach_what_is_trained_and_nothing_else(moved, views):
    moved.train()(moved.freeze([views[:3], views[3:4]])).square().sum().backward()
    assert all(value.grad is not None for value in moved.cross.parameters())
    assert all(value.grad is None for value in moved.tower.parameters())


def test_tokens_are_batches_of_views():
    one = ViewTokens(torch.ones(2, 3, 4), (2,))
    both = ViewTokens.join([one, ViewTokens(torch.zeros(1, 3, 4), (1,))])
    assert (len(both), both.counts, both.tokens.shape) == (2, (2, 1), (3, 3, 4))


# ---- checkpoints -------------------------------------------------------------------------------------------------


def test_round_trip_with_the_teacher_named(views, tmp_path):
    torch.manual_seed(0)
    encoder = cg.build_encoder("duoduo-mini", depth=1)
    torch.nn.init.normal_(encoder.cross[0].linear2.weight, std=0.1)
    encoder.info = {"teacher": {"identity": "mini sha256:1", "dim": 384}, "data": {}, "metrics": {"score": 0.5}}
    loaded = cg.load_encoder(save_encoder(tmp_path, encoder))
    assert (loaded.config, loaded.identity, loaded.info) == (encoder.config, encoder.identity, encoder.info)
    assert torch.equal(loaded.encode(views), encoder.encode(views))
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    document["config"]["teacher_sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(EncoderError, match=r"needs the teacher 'mini' with sha256 000000000000\.\.\., got .*restore"):
        load_encoder(tmp_path)


def test_round_trip_with_the_tower_inside(vit, teachers, views, tmp_path):
    encoder = build_encoder("duoduo-b32", teacher=vit, depth=2, embed_dim=16).eval()
    assert encoder.config.teacher == VIT and encoder.config.teacher_sha256 == teachers["b32"].digest
    assert torch.equal(encoder.encode(views[:1]), teachers["b32"].encode_image(views[:1]))
    loaded = load_encoder(save_encoder(tmp_path, encoder))
    assert loaded.identity == encoder.identity
    assert torch.equal(loaded.encode(views), encoder.encode(views))


def test_a_copy_is_apart(encoder, views):
    import copy

    before, twin = encoder.encode(views), copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in twin.cross.parameters():
            parameter.add_(0.1)
    assert torch.equal(encoder.encode(views), before) and not torch.equal(twin.encode(views), before)


def test_settings_that_do_not_go_together(vit, teachers):
    for changes, message in (
        ({"teacher": vit, "depth": 5, "embed_dim": 16}, "depth must be at most the 4 blocks of the tower, got 5"),
        ({"teacher": vit, "depth": 2}, f"embed_dim must be that of the teacher {VIT}, 16, got 512"),
        (
            {"teacher": RESNET, "depth": 2},
            f"plain image ViT of open_clip, or be mini, got '{RESNET}' with ModifiedResNet",
        ),
        ({"teacher": "ViT-B-32@nowhere.pt"}, "needs the image tower of 'ViT-B-32@nowhere.pt', got: weights"),
        ({"teacher": "no such"}, "a teacher's name must be one of"),
    ):
        with pytest.raises(EncoderError, match=message):
            build_encoder("duoduo-b32", **changes)
    with pytest.raises(EncoderError, match="depth must be a positive integer"):
        replace(MultiViewConfig(), depth=0)


# ---- published weights -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(teachers, tmp_path_factory):
    """A checkpoint in the published shape, of a small ViT whose last attentions have been trained."""
    model = teachers["b32"]._model
    state = {f"duoduoclip.{name}": value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if ".visual.transformer.resblocks.2.attn" in name or ".visual.transformer.resblocks.3.attn" in name:
            value.mul_(1.5)
    path = tmp_path_factory.mktemp("published") / "Four_1to6F_bs1600_LT2.ckpt"
    torch.save(names.lightning({"contrastive_loss.logit_scale": torch.tensor(2.66), **state}), path)
    return path


def test_names_and_shapes_of_the_published_file_have_their_place(teachers, monkeypatch):
    """Of the real size, without its weights."""
    with torch.device("meta"):
        tower = import_open_clip().CLIP(**import_open_clip().get_model_config("ViT-B-32")).visual
        config = MultiViewConfig(name="duoduo-b32", teacher="ViT-B-32", depth=6, embed_dim=512)
        encoder = VitViews(config, tower, teachers["b32"].preprocess, held=True)
        state = {name: torch.empty(shape) for name, shape in names.duoduo().items()}
    monkeypatch.setattr("clipgs_lib.encoders.published._read", lambda path: state)
    monkeypatch.setattr("clipgs_lib.encoders.published.build_encoder", lambda *args, **options: encoder)
    _, table = import_duoduo("Four_1to6F_bs1600_LT6.ckpt")
    rows = {(row.source, row.target): row.count for row in table.rows}
    inside = "transformer.resblocks.*.attn.in_proj_weight"
    assert rows[f"duoduoclip.visual.{inside}", "cross.*.in_proj_weight"] == 6
    assert rows[f"duoduoclip.visual.{inside}", f"tower_weights.{inside}"] == 6
    assert rows["duoduoclip.visual.proj", "tower_weights.proj"] == 1
    visual = [name for name in state if name.startswith("duoduoclip.visual.")]
    assert (table.copied, table.left, table.new) == (len(visual), len(state) - len(visual), 0)
    trained = sum(value.numel() for value in encoder.parameters() if value.requires_grad)
    assert trained == pytest.approx(14.2e6, rel=0.01)  # as the paper says


def test_a_published_file_is_read(published, teachers, views, tmp_path):
    encoder, table = import_duoduo(published, teacher=VIT, depth=2, embed_dim=16)
    text = str(table)
    assert "Four_1to6F_bs1600_LT2.ckpt -> duoduo-b32" in text and "text tower, never trained" in text
    assert "training only" in text
    expected = _published_forward(teachers["b32"], views[:5])
    torch.testing.assert_close(encoder.encode(views[:5])[0], expected, atol=1e-5, rtol=0)
    loaded = load_encoder(save_encoder(tmp_path, encoder))
    assert torch.equal(loaded.encode(views[:5]), encoder.encode(views[:5]))


def _published_forward(teacher, views):
    """The model in plain arithmetic: attention of the last two of four blocks over the tokens of all views."""
    tower, pixels = teacher.tower, teacher.preprocess(views)
    with torch.no_grad():
        patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([tower.class_embedding.expand(len(patches), 1, -1), patches], dim=1)
        x = tower.ln_pre(x + tower.positional_embedding)  # [m, L, W]
        for number, block in enumerate(tower.transformer.resblocks):
            factor, y = (1.5 if number >= 2 else 1.0), block.ln_1(x)
            y = y.reshape(1, -1, y.shape[-1]) if number >= 2 else y
            qkv = y @ (factor * block.attn.in_proj_weight).T + factor * block.attn.in_proj_bias
            heads = qkv.unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)  # 3 x [B, H, L, 16]
            weights = (heads[0] @ heads[1].transpose(-1, -2) / 4).softmax(dim=-1)
            y = (weights @ heads[2]).transpose(1, 2).flatten(2)
            y = y @ (factor * block.attn.out_proj.weight).T + factor * block.attn.out_proj.bias
            x = x + y.reshape(x.shape)
            x = x + block.mlp(block.ln_2(x))
        return unit(tower.ln_post(x)[:, 0].mean(dim=0) @ tower.proj)


def test_published_files_that_do_not_fit(published, tmp_path):
    with pytest.raises(
        EncoderError, match=r"every tensor must have its place, but .*resblocks\.1\.ln_1.* has no place"
    ):
        import_duoduo(published, teacher=tiny.NAME, depth=1, embed_dim=16)
    with pytest.raises(EncoderError, match="teacher must be a ViT of open_clip, got 'mini'"):
        import_duoduo(published, teacher="mini", depth=1, embed_dim=384)
    with pytest.raises(EncoderError, match="a checkpoint must be a file"):
        import_duoduo(tmp_path / "none.ckpt")
    encoder, _ = import_duoduo(published, teacher=VIT, depth=2, embed_dim=16)
    state = {"model.visual.conv1.weight": torch.zeros(1)}
    with pytest.raises(EncoderError, match="has no place"):
        adopt(encoder, state, title="x", rename=lambda key: key, unused={}, fresh={"": "any"})
    torch.save(
        {"state_dict": {"duoduoclip.visual.proj": torch.zeros(1)}, "callbacks": {"x": replace}}, tmp_path / "a.ckpt"
    )
    with pytest.raises(EncoderError, match="objects are never unpickled"):
        import_duoduo(tmp_path / "a.ckpt")
