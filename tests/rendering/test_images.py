"""Picture files and measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.rendering import contact_sheet, psnr, save_gif, save_png, ssim


def picture(height: int = 8, width: int = 6, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(height, width, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [3, 4])
def test_png_round_trip(tmp_path, channels):
    image = picture(channels=channels)
    path = save_png(tmp_path / "ein bild é.png", image)
    read = torch.from_numpy(np.asarray(Image.open(path)).copy()).float() / 255
    assert read.shape == image.shape
    assert (read - image).abs().max() <= 0.5 / 255 + 1e-6
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_png_clips_and_blackens_nan(tmp_path):
    image = torch.tensor([[[-1.0, 0.5, 2.0], [float("nan"), float("inf"), 1.0]]], requires_grad=True)
    read = np.asarray(Image.open(save_png(tmp_path / "a.png", image)))
    assert read.tolist() == [[[0, 128, 255], [0, 255, 255]]]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(4, 4), r"\[H, W, 3\]"),
        (torch.zeros(3, 8, 8), r"\[H, W, 3\]"),
        (torch.zeros(0, 4, 3), "H, W >= 1"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "floats in"),
    ],
)
def test_png_refuses(tmp_path, image, words):
    with pytest.raises(ValueError, match=words):
        save_png(tmp_path / "a.png", image)
    assert list(tmp_path.iterdir()) == []


def test_failed_writes_leave_the_old_file_and_nothing_else(tmp_path):
    path = save_png(tmp_path / "a.png", picture())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="one size"):
        save_gif(path, [picture(), picture(9)])
    with pytest.raises(FileNotFoundError):
        save_png(tmp_path / "missing" / "a.png", picture())
    with pytest.raises(IsADirectoryError, match="must name a file"):
        save_png(tmp_path, picture())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_gif_keeps_frames_order_and_pace(tmp_path):
    frames = [torch.full((16, 12, 3), i / 4) for i in range(5)]
    path = save_gif(tmp_path / "a.gif", frames, fps=10)
    with Image.open(path) as gif:
        assert gif.n_frames == 5
        assert gif.size == (12, 16)
        assert gif.info["duration"] == 100
        assert gif.info["loop"] == 0
        for i in range(5):
            gif.seek(i)
            assert np.abs(np.asarray(gif.convert("RGB")).mean() - 255 * i / 4) < 3


@pytest.mark.parametrize("fps", [0, -1, 51])
def test_gif_refuses_impossible_pace(tmp_path, fps):
    with pytest.raises(ValueError, match="fps must lie"):
        save_gif(tmp_path / "a.gif", [picture()], fps)


def test_gif_refuses_no_frames(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        save_gif(tmp_path / "a.gif", [])


def test_contact_sheet_lays_out_row_by_row():
    images = torch.arange(2.0, 7.0)[:, None, None, None].expand(5, 4, 3, 3)
    sheet = contact_sheet(images, 3)
    assert sheet.shape == (10, 13, 3)
    assert sheet[0, ::5, 0].tolist() == [2, 3, 4]
    assert sheet[6, ::5, 0].tolist() == [5, 6, 1]
    assert sheet[4:6].unique().tolist() == [1]
    assert torch.equal(contact_sheet(images), sheet)  # three columns, two rows, gaps of 2
    with pytest.raises(ValueError, match="one size"):
        contact_sheet([picture(4), picture(5)])


def test_captions_stand_below_their_pictures_and_leave_them_alone():
    images = torch.rand(3, 40, 60, 3, generator=torch.Generator().manual_seed(0))
    sheet = contact_sheet(images, 2, ["one", "", "a caption of several words that is wrapped"])
    assert sheet.shape[1] == 122 and sheet.shape[0] > 2 * 40 + 2 + 2 * 30
    below = (sheet.shape[0] - 2) // 2 - 40
    assert torch.equal(sheet[:40, :60], images[0]) and torch.equal(sheet[42 + below : 82 + below, :60], images[2])
    assert float(sheet[40 : 40 + below, :60].min()) < 0.5 < 0.99 < float(sheet[40 : 40 + below, 62:].min())
    assert float(sheet[82 + below :, :60].min()) < 0.5
    with pytest.raises(ValueError, match=r"one per picture \(3\), got 2"):
        contact_sheet(images, 2, ["a", "b"])


def test_psnr_by_hand():
    a = torch.zeros(4, 4, 3)
    assert float(psnr(a, a + 0.1)) == pytest.approx(20.0, abs=1e-4)
    assert math.isinf(float(psnr(a, a)))
    assert psnr(torch.stack([a, a]), torch.stack([a + 0.1, a + 0.01])).tolist() == pytest.approx([20, 40], abs=1e-3)
    with pytest.raises(ValueError, match="share one shape"):
        psnr(a, a[:2])


def test_ssim_against_a_direct_evaluation():
    """One inner pixel of the map, windowed sums written out, against the mean over a picture built from it."""
    a, b = picture(31, 29, 1, seed=1).double(), picture(31, 29, 1, seed=2).double()
    g = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / 4.5)
    window = torch.outer(g, g) / g.sum() ** 2
    pad = [torch.nn.functional.pad(t[..., 0], (5, 5, 5, 5)) for t in (a, b)]
    total = 0.0
    for y in range(31):
        for x in range(29):
            p, q = (t[y : y + 11, x : x + 11] for t in pad)
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2
            cov = (window * p * q).sum() - mp * mq
            total += ((2 * mp * mq + 1e-4) * (2 * cov + 9e-4)) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
    assert float(ssim(a, b)) == pytest.approx(float(total) / (31 * 29), abs=1e-12)


def test_ssim_is_one_for_equal_pictures_and_differentiable():
    a = picture(16, 16)
    assert float(ssim(a, a)) == pytest.approx(1, abs=1e-6)
    b = (a + 0.3 * picture(16, 16, seed=5)).requires_grad_()
    value = ssim(a, b)
    value.backward()
    assert 0 < float(value.detach()) < 0.99
    stepped = (b + 1e-2 * b.grad / b.grad.norm()).detach()
    assert float(ssim(a, stepped)) > float(value.detach())
    both = ssim(torch.stack([a, a]), torch.stack([a, stepped]))
    assert both.shape == (2,)
    assert float(both[1]) == pytest.approx(float(ssim(a, stepped)), abs=1e-6)
