"""Published checkpoints: names, shapes, what becomes of each tensor, and that the models compute what theirs do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from clipgs_lib.encoders import EncoderError, build_encoder, import_openshape, import_uni3d, init_from_point
from clipgs_lib.encoders.adoption import adopt
from clipgs_lib.encoders.published import adopt_uni3d
from clipgs_lib.tokenizer import collate

from ..conftest import make_splats
from . import published_names as names
from .reference import openshape_forward, uni3d_forward

GROUPS = {"groups": 24, "group_size": 16}  # few, for speed; no weight depends on them
HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "giant": 16}
COUNTS = {"tiny": 6e6, "small": 23e6, "base": 88e6, "large": 307e6, "giant": 1_017e6}  # Uni3D's README, rounded


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    """A checkpoint of Uni3D-tiny's names and shapes."""
    path = tmp_path_factory.mktemp("uni3d") / "model.pt"
    torch.save({"module": names.filled(names.uni3d("tiny"))}, path)
    return path


@pytest.fixture(scope="module")
def clouds():
    """Three objects of unequal size."""
    return [make_splats(n, seed=n) for n in (90, 200, 333)]


@pytest.mark.parametrize("size", names.UNI3D)
@pytest.mark.parametrize("family", ["clipgs", "point"])
def test_every_published_name_of_every_size_has_its_place(size, family):
    with torch.device("meta"):
        encoder = build_encoder(f"{family}-{size}")
        state = {name: torch.empty(shape) for name, shape in names.uni3d(size).items()}
    table = adopt_uni3d(encoder, state, "names")
    left = {row.source for row in table.rows if not row.target}
    stem = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    if names.UNI3D[size][4]:
        stem |= {"head.weight", "head.bias"}
    assert left == {"logit_scale"} | {f"point_encoder.visual.{name}" for name in stem}
    assert table.copied == len(state) - len(left)
    new = {row.target for row in table.rows if not row.source}
    assert all(name.startswith("tokenizer.attributes.") for name in new)
    assert bool(new) == (family == "clipgs")
    depth = names.UNI3D[size][1]
    assert {row.count for row in table.rows if "blocks.*" in row.source} == {depth}
    if family == "point":
        count = sum(p.numel() for p in encoder.parameters())
        assert count == pytest.approx(COUNTS[size], rel=0.08)


def test_openshape_names_have_their_place():
    with torch.device("meta"):
        encoder = build_encoder("pointbert")
        state = {name: torch.empty(shape) for name, shape in names.openshape().items()}
    assert {name: tuple(t.shape) for name, t in encoder.state_dict().items()} == names.openshape()
    table = adopt(encoder, state, title="names", rename=str, unused={}, fresh={})
    assert (table.copied, table.left, table.new) == (len(state), 0, 0)


@pytest.mark.parametrize("size", ["tiny", "base", "giant"])  # the three kinds of blocks
def test_point_encoder_computes_what_uni3d_computes(size, clouds):
    shapes = {n: s for n, s in names.uni3d(size).items() if ".blocks." not in n or ".blocks.0." in n}
    state = names.filled(shapes)
    encoder = build_encoder(f"point-{size}", depth=1, **GROUPS)
    adopt_uni3d(encoder, state, "one block")
    encoder.eval()
    plain = {n.removeprefix("point_encoder."): t.double() for n, t in state.items()}
    batch = collate(clouds[:1])
    out = encoder.tokens(clouds[0])
    assert out.mask.all()
    patches = torch.cat([batch.means, batch.colors], dim=-1)[0].double()[out.indices[0]]  # [G, M, 6]
    centers = out.centers[0].double()
    patches[..., :3] -= centers[:, None]
    want = uni3d_forward(plain, patches, centers, HEADS[size])
    with torch.no_grad():
        got = encoder(batch)[0]
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def test_pointbert_computes_what_openshape_computes(clouds):
    state = names.filled(names.openshape())
    encoder = build_encoder("pointbert", groups=20, group_size=16, radius=0.5)
    adopt(encoder, state, title="", rename=str, unused={}, fresh={})
    encoder.eval()
    batch = collate(clouds[1:2])
    with torch.no_grad():
        tokens = encoder.tokenize(batch)
        got = encoder.embed(tokens)[0]
    rows = torch.cat([batch.means, batch.means, batch.colors], dim=-1)[0].double()
    patches, centers = rows[tokens.indices[0]], tokens.centers[0].double()  # [G, M, 9], [G, 3]
    patches[..., :3] -= centers[:, None]
    want = openshape_forward({n: t.double() for n, t in state.items()}, patches, centers)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def test_right_after_import_clipgs_is_the_point_model(tiny_file, clouds):
    clipgs, table = import_uni3d(tiny_file, "tiny", **GROUPS)
    point, _ = import_uni3d(tiny_file, "tiny", family="point", **GROUPS)
    assert torch.equal(clipgs.encode(clouds), point.encode(clouds))
    batch = collate(clouds)
    with torch.no_grad():
        assert torch.equal(clipgs(batch), point(batch))
    assert table.new > 0
    assert not clipgs.training


def test_import_fills_every_parameter_from_the_file(tiny_file):
    encoder, _ = import_uni3d(tiny_file, "tiny")
    state = torch.load(tiny_file, weights_only=True)["module"]
    assert torch.equal(encoder.trans2embed.weight, state["point_encoder.trans2embed.weight"])
    assert torch.equal(encoder.visual.blocks[11].mlp.fc2.bias, state["point_encoder.visual.blocks.11.mlp.fc2.bias"])
    mine = {n: t for n, t in encoder.state_dict().items() if n.endswith("second_conv.3.weight")}
    assert [torch.equal(t, state["point_encoder.encoder.second_conv.3.weight"]) for t in mine.values()] == [True]


def test_other_containers_of_the_same_tensors(tiny_file, tmp_path, clouds):
    state = torch.load(tiny_file, weights_only=True)["module"]
    save_file(state, tmp_path / "flat.safetensors")
    torch.save({"module": {f"module.{n}": t.half() for n, t in state.items()}, "epoch": 3}, tmp_path / "ddp.pt")
    want = import_uni3d(tiny_file, "tiny", **GROUPS)[0].encode(clouds[0])
    assert torch.equal(import_uni3d(tmp_path / "flat.safetensors", "tiny", **GROUPS)[0].encode(clouds[0]), want)
    half = import_uni3d(tmp_path / "ddp.pt", "tiny", **GROUPS)[0]
    assert half.trans2embed.weight.dtype == torch.float32
    assert float((half.encode(clouds[0]) * want).sum()) > 0.999


def test_import_openshape_from_a_file(tmp_path, clouds):
    state = names.filled(names.openshape())
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}, "epoch": 1}, tmp_path / "model.pt")
    encoder, table = import_openshape(tmp_path / "model.pt", groups=16)
    assert table.copied == len(state)
    assert encoder.encode(clouds).shape == (3, 1280)
    assert torch.equal(encoder.ppat.cls_token, state["ppat.cls_token"])


def test_init_from_our_own_point_model(clouds):
    small = {"depth": 2, **GROUPS}
    point = build_encoder("point-mini", **small)
    with torch.no_grad():
        for parameter in point.parameters():
            parameter += 0.01
    clipgs = build_encoder("clipgs-mini", **small)
    assert not torch.allclose(clipgs.encode(clouds), point.encode(clouds), atol=1e-3)
    table = init_from_point(clipgs, point)
    assert torch.equal(clipgs.encode(clouds), point.encode(clouds))
    assert table.copied == len(point.state_dict())
    assert "point-mini -> clipgs-mini" in str(table)


def test_zero_at_the_start_is_not_zero_for_ever(clouds):
    clipgs, point = build_encoder("clipgs-mini", depth=1, **GROUPS), build_encoder("point-mini", depth=1, **GROUPS)
    init_from_point(clipgs, point)
    other = [replace(cloud, opacities=1 - cloud.opacities) for cloud in clouds]
    assert torch.equal(clipgs.tokens(other).tokens, clipgs.tokens(clouds).tokens)
    clipgs.train()
    optimiser = torch.optim.AdamW(clipgs.parameters(), lr=1e-2)
    clipgs(collate(clouds)).square().sum().backward()
    optimiser.step()
    assert not torch.allclose(clipgs.tokens(other).tokens, clipgs.tokens(clouds).tokens, atol=1e-4)
    assert torch.equal(point.tokens(other).tokens, point.tokens(clouds).tokens)


def test_naive_tokens_begin_as_the_point_model_and_learn_what_it_does_not_see(clouds, tiny_file):
    naive, point = build_encoder("naive-mini", depth=1, **GROUPS), build_encoder("point-mini", depth=1, **GROUPS)
    table = init_from_point(naive, point)
    assert table.copied == len(point.state_dict()) and table.new == table.left == 0
    torch.testing.assert_close(naive.encode(clouds), point.encode(clouds), atol=1e-5, rtol=0)
    naive.train()
    naive(collate(clouds)).square().sum().backward()
    assert bool((naive.tokenizer.points.first_conv[0].weight.grad[:, 6:].abs().sum(dim=1) > 0).any())
    published = [import_uni3d(tiny_file, "tiny", family=family, groups=20)[0] for family in ("naive", "point")]
    torch.testing.assert_close(published[0].encode(clouds), published[1].encode(clouds), atol=1e-5, rtol=0)


def test_init_from_point_refuses_other_models():
    point = build_encoder("point-mini", depth=1)
    with pytest.raises(EncoderError, match="attributes 'all' or 'naive', got point-mini"):
        init_from_point(point, point)
    with pytest.raises(EncoderError, match=r"attributes 'points', got pointbert"):
        init_from_point(build_encoder("clipgs-mini", depth=1), build_encoder("pointbert", depth=1))
    with pytest.raises(EncoderError, match="nothing is there for visual"):
        init_from_point(build_encoder("clipgs-mini", depth=2), point)


def test_table_says_what_went_where(tiny_file):
    _, table = import_uni3d(tiny_file, "tiny")
    text = str(table)
    assert "model.pt -> clipgs-tiny" in text.splitlines()[0]
    assert "point_encoder.visual.blocks.*.attn.qkv.weight" in text
    assert "visual.blocks.*.attn.qkv.weight" in text
    assert "576x192" in text
    assert "never run" in text
    assert len(text.splitlines()) < 90
    page = table._repr_html_()
    assert page.count("<tr>") == len(table.rows) + 1
    assert "->" not in page.split("</caption>")[0].replace("-&gt;", "")


BROKEN = {
    "extra": (
        lambda s: s | {"point_encoder.visual.blocks.0.attn.gate.weight": torch.zeros(2)},
        "attn.gate.weight has no",
    ),
    "outside": (lambda s: s | {"text_encoder.weight": torch.zeros(2)}, "text_encoder.weight has no place"),
    "missing": (lambda s: {n: t for n, t in s.items() if not n.endswith("cls_pos")}, "nothing is there for cls_pos"),
    "shape": (lambda s: s | {"point_encoder.cls_pos": torch.zeros(1, 1, 7)}, r"\[1, 1, 7\], not \[1, 1, 192\]"),
    "nan": (lambda s: s | {"point_encoder.cls_pos": torch.full((1, 1, 192), torch.nan)}, "cls_pos is not finite"),
    "twice": (
        lambda s: s | {"point_encoder.visual.norm.weight": s["point_encoder.visual.fc_norm.weight"]},
        "is there twice",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_leftovers_and_gaps_are_refused(case, tiny_file, tmp_path):
    break_it, message = BROKEN[case]
    torch.save({"module": break_it(torch.load(tiny_file, weights_only=True)["module"])}, tmp_path / "model.pt")
    with pytest.raises(EncoderError, match=message):
        import_uni3d(tmp_path / "model.pt", "tiny")


def test_a_refused_checkpoint_changes_nothing(tiny_file):
    encoder = build_encoder("clipgs-tiny", depth=1)
    before = encoder.identity
    with pytest.raises(EncoderError):
        adopt_uni3d(encoder, torch.load(tiny_file, weights_only=True)["module"], "too deep")
    assert encoder.identity == before


def test_another_size_is_refused(tiny_file):
    with pytest.raises(EncoderError, match=r"has shape \[1, 1, 192\], not \[1, 1, 384\]"):
        import_uni3d(tiny_file, "small")
    with pytest.raises(EncoderError, match="size must be one of tiny"):
        import_uni3d(tiny_file, "huge")


class Opener:
    """Would open a file if it were unpickled."""

    def __reduce__(self):
        return open, ("opened.txt", "w")


def test_files_that_are_no_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match="got none at"):
        import_uni3d("nowhere.pt", "tiny")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(EncoderError, match="tensors and plain containers"):
        import_uni3d("cut.pt", "tiny")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(EncoderError, match="must be a safetensors file"):
        import_uni3d("cut.safetensors", "tiny")
    torch.save({"module": {"x": Opener()}}, "evil.pt")
    with pytest.raises(EncoderError, match="never unpickled"):
        import_openshape("evil.pt")
    assert not (tmp_path / "opened.txt").exists()
    torch.save([1, 2], "list.pt")
    with pytest.raises(EncoderError, match="must hold a state dict"):
        import_uni3d("list.pt", "tiny")
