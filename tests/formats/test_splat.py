"""`.splat`: the bytes mean what the layout says, writing loses no more than a byte's step, bad files are refused."""

from __future__ import annotations

import struct

import pytest
import torch

from clipgs_lib.formats import FormatError, SplatWarning, read_splats, sniff, splat, write_splats
from clipgs_lib.splats import Splats

RECORD = "<6f4B4B"


@pytest.fixture
def save(tmp_path):
    def write(data: bytes, name: str = "x.splat"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def record(mean=(1.0, 2.0, 3.0), scale=(0.1, 0.2, 0.3), rgba=(255, 0, 51, 102), quat=(128, 128, 0, 128)) -> bytes:
    return struct.pack(RECORD, *mean, *scale, *rgba, *quat)


def test_one_record_by_hand(save):
    splats = read_splats(save(record()))
    assert splats.means.tolist() == [[1, 2, 3]]
    torch.testing.assert_close(splats.scales, torch.tensor([[0.1, 0.2, 0.3]]))
    torch.testing.assert_close(splats.colors, torch.tensor([[1.0, 0.0, 0.2]]))
    torch.testing.assert_close(splats.opacities, torch.tensor([0.4]))
    assert splats.quats.tolist() == [[0, 0, -1, 0]]
    assert splats.sh_degree == 0 and splats.up_axis == "unknown"


def test_opacity_bytes_0_and_255_are_exactly_0_and_1(save):
    splats = read_splats(save(record(rgba=(0, 0, 0, 0)) + record(rgba=(0, 0, 0, 255))))
    assert splats.opacities.tolist() == [0.0, 1.0]


def test_tiny_file(real_data):
    splats = read_splats(real_data / "splats/tiny/minimal.splat")
    assert splats.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(splats.scales, torch.full((4, 3), 0.1))
    torch.testing.assert_close(splats.opacities, torch.full((4,), 230 / 255))
    torch.testing.assert_close(splats.colors[1], torch.tensor([170.0, 85.0, 128.0]) / 255)


def test_round_trip_within_half_a_step(tmp_path, splats_factory):
    original = splats_factory(2000)
    original = Splats.from_colors(
        original.means,
        torch.rand(2000, 3, generator=torch.Generator().manual_seed(1)),
        quats=original.quats,
        scales=original.scales,
        opacities=original.opacities,
    )
    back = read_splats(write_splats(original, tmp_path / "ünï cödé 文件.splat"))
    assert torch.equal(back.means, original.means) and torch.equal(back.scales, original.scales)
    assert (back.opacities - original.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.colors - original.colors).abs().max() <= 0.5 / 255 + 1e-6
    angle = 2 * torch.rad2deg(torch.acos((back.quats * original.quats).sum(dim=1).abs().clamp(max=1)))
    assert angle.max() < 0.9
    assert len(list(tmp_path.iterdir())) == 1


def test_writing_what_was_read_gives_the_same_numbers(real_data, tmp_path):
    first = read_splats(real_data / "splats/splat/guitar.splat")
    again = read_splats(write_splats(first, tmp_path / "again.splat"))
    for name in ("means", "scales", "opacities"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    torch.testing.assert_close(again.sh0, first.sh0, rtol=0, atol=1e-6)
    assert (first.quats * again.quats).sum(dim=1).abs().min() > 0.9998


def test_writing_warns_of_what_is_lost(tmp_path, splats_factory):
    loud = splats_factory(50, degree=2)
    with pytest.warns(SplatWarning, match="SH degree 2 was dropped"), pytest.warns(SplatWarning, match="were clipped"):
        write_splats(loud, tmp_path / "x.splat")
    assert read_splats(tmp_path / "x.splat").sh_degree == 0


def test_nothing_is_written_of_bad_splats(tmp_path, splats_factory):
    broken = splats_factory(10)
    broken.means[3, 1] = float("nan")
    with pytest.raises(FormatError, match=r"finite .* got 1 of 10 .*prune"):
        write_splats(broken, tmp_path / "x.splat")
    with pytest.raises(FormatError, match="at least one gaussian"):
        write_splats(broken[:0], tmp_path / "x.splat")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (record() * 3 + b"\0", r"whole records of 32 bytes.*got 97 bytes, that is 3 records and 1 bytes more"),
        ((record() * 3)[:-1], r"got 95 bytes, that is 2 records and 31 bytes more.*truncated"),
        (b"", "empty file"),
    ],
)
def test_sizes_that_are_no_records(save, data, message):
    path = save(data)
    with pytest.raises(FormatError, match=message) as caught:
        read_splats(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(FormatError):
        splat.read(path)


def test_negative_scales_lose_their_sign_with_a_warning(save):
    path = save(record(scale=(-0.1, 0.2, 0.3)))
    with pytest.warns(SplatWarning, match="1 scales are negative"):
        splats = read_splats(path, format="splat")
    torch.testing.assert_close(splats.scales, torch.tensor([[0.1, 0.2, 0.3]]))


def test_non_finite_rows_are_dropped(save):
    path = save(record() * 20 + record(mean=(float("nan"), 0, 0)))
    with pytest.warns(SplatWarning, match="1 non-finite"):
        assert len(read_splats(path)) == 20


def test_sniffing_without_a_magic_number(save):
    assert sniff(save(record() * 5, "anything.bin")) == "splat"
    for data in (b"x" * 320, b"just some text of thirty-two b.", bytes(320), b"\x89PNG" + record() * 2):
        with pytest.raises(FormatError, match="content must be one of"):
            sniff(save(data, "odd.bin"))
    assert not splat.sniff(save(record() + b"\0", "odd.bin"), record() + b"\0")
