"""Choosing the format: by content when reading, by name when writing, and what is said of everything else."""

from __future__ import annotations

import os
import shutil
import warnings

import pytest
import torch

from clipgs_lib.formats import FORMATS, read_splats, sniff, write_splats
from clipgs_lib.formats.raw import FormatError

REAL = {
    "ply/hamburger.ply": "ply",
    "ply/monkey.ply": "ply",
    "ply/playbot_sh1.ply": "ply",
    "ply/playbot_sh2.ply": "ply",
    "compressed_ply/guitar.compressed.ply": "compressed_ply",
    "compressed_ply/playbot_sh2.compressed.ply": "compressed_ply",
    "splat/guitar.splat": "splat",
    "ksplat/hamburger_c0.ksplat": "ksplat",
    "ksplat/hamburger_c1.ksplat": "ksplat",
    "spz/hamburger_v3.spz": "spz",
    "spz/playbot_sh2_v4.spz": "spz",
    "sog/hamburger.sog": "sog",
    "sog/monkey_0001.sog": "sog",
    "sog/playbot_3_0": "sog",
    "glb/hamburger.khr_gaussian.glb": "gltf",
    "tiny/minimal-raw.spz": "spz",
    "tiny/minimal-v2.spz": "spz",
    "tiny/minimal-v3.spz": "spz",
    "tiny/minimal-v4.spz": "spz",
    "tiny/minimal.ksplat": "ksplat",
    "tiny/minimal.splat": "splat",
}
WRITABLE = {"ply": ".ply", "compressed_ply": ".compressed.ply", "splat": ".splat", "spz": ".spz", "sog": ".sog"}


def test_the_registry_is_whole():
    names = {"ply", "compressed_ply", "splat", "ksplat", "spz", "sog", "gltf", "checkpoint", "points"}
    assert set(FORMATS) == names
    for name, module in FORMATS.items():
        assert name == module.NAME
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in module.SUFFIXES)
        assert callable(module.sniff) and callable(module.read)
    assert {name for name, module in FORMATS.items() if hasattr(module, "write")} >= set(WRITABLE)


@pytest.mark.parametrize("file", REAL)
def test_real_files_are_recognised_and_read(real_data, file):
    path = real_data / "splats" / file
    assert sniff(path) == REAL[file]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splats = read_splats(path)
    assert len(splats) >= 4 and bool(splats.finite_mask().all())
    assert splats.source == path.name


@pytest.mark.parametrize("file", REAL)
def test_content_decides_under_a_wrong_name(real_data, tmp_path, file):
    """Only raw .splat records, which have no magic number, need their name."""
    source = real_data / "splats" / file
    if source.is_dir():
        shutil.copytree(source, tmp_path / "wrong.ply")
    else:
        shutil.copyfile(source, tmp_path / "wrong.ply")
    assert sniff(tmp_path / "wrong.ply") == REAL[file]


@pytest.mark.parametrize("name", WRITABLE)
def test_writing_goes_by_name_reading_by_content(tmp_path, splats_factory, name):
    splats = splats_factory(40)
    splats.sh0.clamp_(-1.7, 1.7)  # inside the colours that every format can hold
    path = write_splats(splats, tmp_path / f"ünï cödé 文件{WRITABLE[name].upper()}")
    assert sniff(path) == name
    assert len(read_splats(path)) == 40
    renamed = path.rename(tmp_path / "x.bin")
    assert len(read_splats(renamed, format=name)) == 40
    assert list(tmp_path.iterdir()) == [renamed]


def test_format_overrides_the_name(tmp_path, splats_factory):
    path = write_splats(splats_factory(5), tmp_path / "x.dat", format="ply")
    assert sniff(path) == "ply"


def test_gradients_are_left_behind(tmp_path, splats_factory):
    splats = splats_factory(5)
    splats.means.requires_grad_(True)
    assert not read_splats(write_splats(splats, tmp_path / "x.ply")).means.requires_grad


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device(tmp_path, splats_factory):
    path = write_splats(splats_factory(5), tmp_path / "x.ply")
    splats = read_splats(path, device="cuda")
    assert splats.device.type == "cuda"
    write_splats(splats, path)


def test_unknown_words(tmp_path, splats_factory):
    path = write_splats(splats_factory(5), tmp_path / "x.ply")
    with pytest.raises(ValueError, match=r"format must be one of .*ply.*, got 'obj'"):
        read_splats(path, format="obj")
    with pytest.raises(FormatError, match=r"end in a suffix of a writable format, got '\.obj'; use one of .*\.ply"):
        write_splats(splats_factory(5), tmp_path / "x.obj")
    with pytest.raises(FormatError, match="format must be writable, got points; choose one of"):
        write_splats(splats_factory(5), tmp_path / "x.ply", format="points")
    with pytest.raises(TypeError, match="nonsense"):
        read_splats(path, nonsense=1)


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz", ".ksplat", ".sog", ".glb", ".pt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"got an empty file \(0 bytes\); fetch it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345678\n",
            "got a Git LFS pointer; run `git lfs pull`",
        ),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>" + b" " * 15, "got an HTML or XML page saved under this"),
        (b"\xef\xbb\xbf\n <HTML><head></head></html>", "got an HTML or XML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "got an HTML or XML page"),
    ],
)
def test_what_is_commonly_saved_under_a_splats_name(tmp_path, suffix, content, message):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read_splats(path)
    assert str(caught.value).startswith(f"{path}: the file must hold gaussians")


def test_a_git_lfs_pointer_of_whole_splat_records_is_still_a_pointer(tmp_path):
    path = tmp_path / "x.splat"
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567"
    path.write_bytes(text.ljust(128, b"\n"))
    with pytest.raises(FormatError, match="Git LFS pointer"):
        read_splats(path)


def test_unknown_content(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    with pytest.raises(FormatError, match=r"the content must be one of .*ply.*got bytes that start b'\\x89PNG"):
        read_splats(path)


def test_paths_that_are_no_files(tmp_path, splats_factory):
    with pytest.raises(FormatError, match=r"must name an existing file.*check the spelling"):
        read_splats(tmp_path / "none.ply")
    with pytest.raises(FormatError, match=r"a folder must be an unpacked SOG \(with meta\.json\)"):
        read_splats(tmp_path)
    os.mkfifo(tmp_path / "x.ply")
    with pytest.raises(FormatError, match="must name a regular file, got a FIFO"):
        read_splats(tmp_path / "x.ply")
    with pytest.raises(FormatError, match="output folder must exist"):
        write_splats(splats_factory(1), tmp_path / "none" / "x.ply")
