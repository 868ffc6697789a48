"""Lists of pictures: paths, PIL images and arrays of any size and mode come out as people see them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.teachers import preprocess as module
from clipgs_lib.teachers.preprocess import read_picture

from . import tiny

SPLIT = np.array([[[200, 30, 10], [10, 60, 220]]], np.uint8).repeat(12, 0).repeat(9, 1)  # red left, blue right


def test_a_mixed_list_equals_each_alone(teacher, tmp_path):
    pictures = [(tiny.pictures(1, size)[0].numpy() * 255).round().astype(np.uint8) for size in (40, 57, 33, 16)]
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    Image.fromarray(pictures[3]).save(tmp_path / "d.webp", lossless=True)
    mixed = [tmp_path / "a.png", Image.fromarray(pictures[1]), pictures[2], str(tmp_path / "d.webp")]
    alone = torch.cat([teacher.encode_image(picture[None]) for picture in pictures])
    torch.testing.assert_close(teacher.encode_image(mixed), alone)
    torch.testing.assert_close(teacher.encode_image([torch.from_numpy(p).float() / 255 for p in pictures]), alone)
    assert teacher.encode_image([]).shape == (0, 16)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV"])
def test_colour_modes_show_the_same(mode):
    image = Image.fromarray(SPLIT)
    made = read_picture(image.quantize() if mode == "P" else image.convert(mode)).numpy()
    assert made.dtype == np.uint8 and made.shape == SPLIT.shape
    assert np.abs(made.astype(int) - SPLIT).max() <= 6  # of 255; HSV and CMYK are rounded


@pytest.mark.parametrize("mode", ["L", "I;16", "I", "F", "1", "LA"])
def test_grey_in_any_depth(mode, tmp_path):
    grey = np.zeros((6, 5), np.uint8)
    grey[:, 3:] = 255
    grey[0] = 0 if mode == "1" else 128
    if mode in ("I;16", "I"):
        image = Image.fromarray(grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    made = read_picture(image).float().numpy()
    made = made * 255 if made.max() <= 1 else made
    np.testing.assert_allclose(made, np.repeat(grey[..., None], 3, 2), atol=0.6)
    if mode in ("L", "I;16", "LA", "1"):
        image.save(tmp_path / "a.png")
        again = read_picture(tmp_path / "a.png").float().numpy()
        np.testing.assert_allclose(again * (255 if again.max() <= 1 else 1), made, atol=0.6)


def test_transparency_lies_over_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0], pixels[:2, :, 3] = 255, 255
    pixels[3, :, 3] = 51
    expected = np.full((4, 4, 3), 255)
    expected[:2, :, 1:], expected[3, :, 1:] = 0, 204
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 50, 60, 70])
    palette.info["transparency"] = 0
    assert read_picture(palette)[0].tolist() == [[255, 255, 255], [50, 60, 70]]
    for picture in (pixels, Image.fromarray(pixels), torch.from_numpy(pixels)):
        assert np.abs(read_picture(picture).numpy().astype(int) - expected).max() <= 1
    floats = read_picture(pixels.astype(np.float32) / 255)
    np.testing.assert_allclose(floats.numpy() * 255, expected, atol=0.01)


def test_photographs_stand_as_their_camera_says(tmp_path):
    image, exif = Image.fromarray(SPLIT), Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    made = read_picture(tmp_path / "a.jpg").numpy()
    assert made.shape == (18, 12, 3) and made[0, :, 0].mean() > 150 > 100 > made[-1, :, 0].mean()


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "a.gif")[4, 4].tolist() == [255, 0, 0]


def test_extreme_sizes(teacher, tmp_path, monkeypatch):
    one, long = np.full((1, 1, 3), 90, np.uint8), np.full((2, 20_000, 3), 90, np.uint8)
    made = teacher.encode_image([one, long, np.full((64, 64, 3), 90, np.uint8)])
    torch.testing.assert_close(made[0], made[2])
    torch.testing.assert_close(made[1], made[2])
    monkeypatch.setattr(module, "MAX_PIXELS", 30_000)
    with pytest.raises(ValueError, match="at 1 must have 1 to 30,000 pixels, got 20000 x 2"):
        teacher.encode_image([one, Image.fromarray(long)])


def test_what_cannot_be_read_is_named(teacher, tmp_path):
    Image.fromarray(tiny.pictures(1, 90)[0].mul(255).byte().numpy()).save(tmp_path / "half.png")
    data = (tmp_path / "half.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    for picture, words in [
        (tmp_path / "half.png", r"half.png' at 0 must be whole"),
        (tmp_path / "text.jpg", r"text.jpg' at 0 must be a picture"),
        (tmp_path / "gone.png", "must be a file, got none"),
        (tmp_path, "must be a file"),
        (None, "got NoneType"),
        (np.zeros((3, 8, 8), np.uint8), "move channels last"),
        (np.zeros((8, 8, 3), np.int64), "must be uint8 or float"),
        (np.full((8, 8, 3), 7.0), r"must lie in \[0, 1\]"),
        (np.zeros((0, 8, 3), np.uint8), "must be"),
    ]:
        with pytest.raises(ValueError, match=words):
            teacher.encode_image([picture])
    for alone in (tmp_path / "half.png", Image.new("RGB", (8, 8)), "a.png"):
        with pytest.raises(ValueError, match="put it into a list"):
            teacher.encode_image(alone)


def test_very_long_texts_are_cut(teacher):
    made = teacher.encode_text(["cup " * 25_000, "cup " * 500])
    torch.testing.assert_close(made[0], made[1])
