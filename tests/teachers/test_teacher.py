"""What every teacher keeps: frozen, unit-norm, batches as one by one, an identity that tells weights apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clipgs_lib.libraries import import_open_clip
from clipgs_lib.teachers import load_teacher
from clipgs_lib.teachers.preprocess import Preprocess

from . import tiny


def test_embeddings_are_unit_norm_float32(teacher):
    images, texts = teacher.encode_image(tiny.pictures(5)), teacher.encode_text(["a cup", "two cups"])
    assert images.shape == (5, teacher.embed_dim) and texts.shape == (2, 16)
    for made in (images, texts):
        assert made.dtype == torch.float32
        torch.testing.assert_close(made.norm(dim=1), torch.ones(len(made)))


def test_it_is_frozen(teacher):
    assert not any(p.requires_grad for p in teacher._model.parameters())
    assert not any(module.training for module in teacher._model.modules())
    pixels = tiny.pictures(2).requires_grad_()
    assert not teacher.encode_image(pixels).requires_grad
    assert torch.equal(teacher.encode_image(pixels), teacher.encode_image(pixels))


def test_batches_equal_one_by_one(teacher):
    images, texts = tiny.pictures(7), [f"{n} red cups" for n in ["one", "two", "three", "four", "five"]]
    torch.testing.assert_close(teacher.encode_image(images), torch.cat([teacher.encode_image(i[None]) for i in images]))
    torch.testing.assert_close(teacher.encode_text(texts), torch.cat([teacher.encode_text([t]) for t in texts]))


def test_nothing_in_nothing_out(teacher):
    assert teacher.encode_image(torch.empty(0, 8, 8, 3)).shape == (0, 16)
    assert teacher.encode_text([]).shape == (0, 16)


def test_bytes_and_floats_agree(teacher):
    pixels = (tiny.pictures(3) * 255).round().to(torch.uint8)
    expected = teacher.encode_image(pixels.float() / 255)
    torch.testing.assert_close(teacher.encode_image(pixels), expected)
    torch.testing.assert_close(teacher.encode_image(pixels.numpy()), expected)


def test_the_embedding_is_open_clips_own(teacher):
    """Towers, tokenizer, preprocessing and scale as open_clip uses them."""
    open_clip, model = import_open_clip(), tiny.build().eval()
    pixels = (tiny.pictures(1, size=50) * 255).round().to(torch.uint8)
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=32), is_train=False)
    with torch.no_grad():
        image = model.encode_image(transform(Image.fromarray(pixels[0].numpy()))[None], normalize=True)
        text = model.encode_text(open_clip.SimpleTokenizer(context_length=16)(["a blue cup"]), normalize=True)
    torch.testing.assert_close(teacher.encode_image(pixels), image, atol=0.01, rtol=0)  # PIL rounds to 8 bits between
    torch.testing.assert_close(teacher.encode_text(["a blue cup"]), text)
    assert teacher.logit_scale == pytest.approx(1 / 0.07)  # exponentiated
    assert teacher.logit_bias == 0


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 41), (20, 24), (32, 32)])
def test_preprocessing_is_open_clips(mode, interpolation, shape):
    open_clip = import_open_clip()
    config = open_clip.transform.merge_preprocess_dict(
        open_clip.transform.PreprocessCfg(),
        {"size": (32, 32), "resize_mode": mode, "interpolation": interpolation, "fill_color": 128},
    )
    coarse = tiny.pictures(1, size=60)[:, : shape[0], : shape[1]]
    pixels = (coarse * 255).round().to(torch.uint8)
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**config), is_train=False)
    expected = transform(Image.fromarray(pixels[0].numpy()))[None]
    torch.testing.assert_close(Preprocess.from_config(config)(pixels), expected, atol=0.035, rtol=0)  # 2/255 over std


@pytest.mark.parametrize(("key", "value"), [("resize_mode", "stretch"), ("interpolation", "lanczos")])
def test_preprocessing_that_we_do_not_know(key, value):
    config = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "fill_color": 0}
    config |= {"resize_mode": "shortest", "interpolation": "bicubic", key: value}
    with pytest.raises(ValueError, match=f"{value}.*not supported"):
        Preprocess.from_config(config)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(8, 8, 3), "add a batch axis"),
        (torch.rand(2, 3, 8, 8), "channels last"),
        (torch.rand(2, 8, 8, 4), "alpha over a background"),
        (torch.rand(2, 0, 8, 3), r"\[2, 0, 8, 3\]"),
        (torch.full((1, 8, 8, 3), 200.0), "divide by 255"),
        (torch.full((1, 8, 8, 3), torch.nan), r"lie in \[0, 1\]"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.int64), "int64"),
    ],
)
def test_bad_images(teacher, images, words):
    with pytest.raises(ValueError, match=words):
        teacher.encode_image(images)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ("a cup", "got one str"),
        (["a cup", "  "], "at 1"),
        ([None], "non-empty strings"),
        (["half \ud800 a pair"], "surrogate"),
    ],
)
def test_bad_texts(teacher, texts, words):
    with pytest.raises(ValueError, match=words):
        teacher.encode_text(texts)


def test_strange_texts_are_read(teacher):
    made = teacher.encode_text(["word " * 20_000, "<b>&amp;</b>", "كوب أزرق", "🍵🫖"])
    torch.testing.assert_close(made.norm(dim=1), torch.ones(4))


def test_zero_shot_is_the_renormalised_mean(teacher):
    labels, templates = ["cup", "red car"], ["a {}", "a drawing of a {}.", "{}"]
    rows = [teacher.encode_text([t.format(label) for t in templates]).mean(dim=0) for label in labels]
    expected = torch.nn.functional.normalize(torch.stack(rows), dim=1)
    torch.testing.assert_close(teacher.zero_shot_weights(labels, templates), expected)
    asked = [lambda c, t=t: t.format(c) for t in templates]
    torch.testing.assert_close(teacher.zero_shot_weights(labels, asked), expected)


@pytest.mark.parametrize(
    ("labels", "templates", "words"),
    [
        ([], ["a {}"], "got 0 and 1"),
        (["cup"], [], "got 1 and 0"),
        (["cup"], ["a cup"], "needs {}"),
        (["cup"], ["a {}", str.upper], "got both"),
        (["cup", ""], ["a {}"], "non-empty"),
    ],
)
def test_bad_zero_shot(teacher, labels, templates, words):
    with pytest.raises(ValueError, match=words):
        teacher.zero_shot_weights(labels, templates)


def test_identity_changes_with_one_bit(teacher, weights, tmp_path):
    state = load_file(weights)
    same = tmp_path / "other name.safetensors"
    save_file(state, str(same))
    assert load_teacher(f"{tiny.NAME}@{same}", device="cpu").digest == teacher.digest
    bits = state["text_projection"].view(torch.int32)
    bits[0, 0] ^= 1
    save_file(state, str(same))
    changed = load_teacher(f"{tiny.NAME}@{same}", device="cpu")
    assert changed.digest != teacher.digest
    assert re.fullmatch(rf"{tiny.NAME}@weights.safetensors sha256:[0-9a-f]{{64}}", teacher.identity)
    assert str(weights.parent) not in repr(teacher) and str(weights.parent) not in teacher._repr_html_()
    assert f"{teacher.embed_dim} numbers" in teacher._repr_html_() and teacher.digest[:12] in teacher._repr_html_()


def test_identity_changes_with_preprocessing_and_activation(tmp_path, weights, teacher):
    folder = tiny.save_folder(tmp_path / "other")  # same weights, other mean and std
    assert load_teacher(f"local-dir:{folder}", device="cpu").digest != teacher.digest


def test_autocast_around_it_changes_nothing(teacher):
    images, texts = tiny.pictures(4), ["a cup"]
    exact = [teacher.encode_image(images), teacher.encode_text(texts), teacher.zero_shot_weights(texts)]
    with torch.autocast("cpu", torch.bfloat16):
        around = [teacher.encode_image(images), teacher.encode_text(texts), teacher.zero_shot_weights(texts)]
    assert all(torch.equal(one, other) for one, other in zip(exact, around, strict=True))


def test_bad_options(weights):
    with pytest.raises(ValueError, match="got 0"):
        load_teacher(f"{tiny.NAME}@{weights}", device="cpu", batch_size=0)


@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.filterwarnings("error")
def test_numpy_arrays_are_left_alone(teacher, writeable):
    pixels = np.zeros((1, 8, 8, 3), np.float64)
    pixels.flags.writeable = writeable
    teacher.encode_image(pixels)
    assert pixels.dtype == np.float64 and not pixels.any()
