"""Hostile and broken SOG: names, zips, images and meta.json that lie are refused, in bounded memory."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from clipgs_lib.formats import FormatError, read_splats, write_splats

from .sog_samples import edit, version_1


@pytest.fixture
def bundle(tmp_path, splats_factory):
    """A small valid SOG zip of SH degree 1."""
    return write_splats(splats_factory(100, 1), tmp_path / "good.sog")


@pytest.fixture
def folder(tmp_path, bundle):
    """The same, unpacked."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "folder")
    return tmp_path / "folder"


NAMES = ["../../x", "/etc/passwd", "..", "", "a/b.webp", "c:x", "..\\x", "x\0y"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["folder", "zip"])
def test_names_that_lead_away(folder, tmp_path, name, place):
    edit(folder, lambda meta: meta["scales"].__setitem__("files", [name]))
    path = folder if place == "folder" else tmp_path / "x.sog"
    if place == "zip":
        shutil.make_archive(str(tmp_path / "x"), "zip", folder)
        (tmp_path / "x.zip").rename(path)
    with pytest.raises(FormatError, match="must name plain files beside it"):
        read_splats(path, format="sog")


def rezip(folder, path, extra=()) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        for member, data in extra:
            archive.writestr(member, data)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../evil.webp", r"stay inside the zip, got '\.\./evil"),
        ("/absolute.webp", "stay inside the zip"),
        ("a/../../x", "stay inside the zip"),
        ("c:\\x", "stay inside the zip"),
    ],
)
def test_zip_members_that_lead_away(folder, tmp_path, member, message):
    rezip(folder, tmp_path / "x.sog", [(member, b"x")])
    with pytest.raises(FormatError, match=message):
        read_splats(tmp_path / "x.sog")


def test_zip_with_symbolic_link(folder, tmp_path):
    link = zipfile.ZipInfo("link.webp")
    link.external_attr = 0o120777 << 16
    rezip(folder, tmp_path / "x.sog", [(link, b"/etc/passwd")])
    with pytest.raises(FormatError, match=r"a symbolic link 'link\.webp'"):
        read_splats(tmp_path / "x.sog")


def test_zip_with_duplicate_names(folder, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        rezip(folder, tmp_path / "x.sog", [("sh0.webp", b"other")])
    with pytest.raises(FormatError, match=r"different names, got 'sh0\.webp' twice"):
        read_splats(tmp_path / "x.sog")


def test_zip_with_encrypted_member(bundle):
    data = bytearray(bundle.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    bundle.write_bytes(data)
    with pytest.raises(FormatError, match="must not be encrypted"):
        read_splats(bundle)


def test_zip_with_thousands_of_members(folder, tmp_path):
    rezip(folder, tmp_path / "x.sog", [(f"{i}", b"") for i in range(1001)])
    with pytest.raises(FormatError, match="at most 1000 members"):
        read_splats(tmp_path / "x.sog")


def peak_of_refusing(path, message: str) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message):
            read_splats(path, format="sog")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["sh0.webp", "meta.json"])
@pytest.mark.parametrize("lie", [False, True])
def test_zip_bomb_is_not_inflated(folder, tmp_path, name, lie):
    (folder / name).unlink()
    path = tmp_path / "x.sog"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        archive.writestr(name, bytes(64 << 20))
    if lie:  # claim a small size in the central directory
        data = bytearray(path.read_bytes())
        at = data.rindex(name.encode()) - 46
        data[at + 24 : at + 28] = struct.pack("<I", 1000)
        path.write_bytes(data)
    message = "refused as a bomb" if not lie else "zip must be intact|valid JSON|WebP or PNG"
    assert peak_of_refusing(path, message) < 16 << 20


def webp_header(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    payload = b"\x2f" + struct.pack("<I", bits) + bytes(20)
    return b"RIFF" + struct.pack("<I", len(payload) + 12) + b"WEBPVP8L" + struct.pack("<I", len(payload)) + payload


def test_webp_bomb_is_not_decoded(folder):
    (folder / "means_u.webp").write_bytes(webp_header(16383, 16383))
    assert peak_of_refusing(folder, r"between 100 and 16,784 pixels for this count, got 16,383 x 16,383") < 4 << 20
    stream = io.BytesIO()
    Image.new("RGBA", (4000, 4000)).save(stream, "PNG")
    (folder / "means_u.webp").write_bytes(stream.getvalue())
    assert peak_of_refusing(folder, "got 4,000 x 4,000") < 4 << 20


def test_image_smaller_than_the_count(folder):
    Image.new("RGBA", (8, 8)).save(folder / "sh0.webp", lossless=True)
    with pytest.raises(FormatError, match=r"sh0\.webp must hold between 100 and .* got 8 x 8"):
        read_splats(folder)


def test_a_count_that_the_bytes_cannot_justify(folder):
    edit(folder, lambda meta: meta.__setitem__("count", 150_000_000))
    assert peak_of_refusing(folder, "150,000,000 gaussians need at least") < 4 << 20


CHANGES = {
    "future version": (lambda m: m.update(version=3), "SOG version must be 1 or 2, got 3"),
    "count is text": (lambda m: m.update(count="9"), "whole number >= 0 in count, got '9'"),
    "negative count": (lambda m: m.update(count=-1), "whole number >= 0 in count, got -1"),
    "huge count": (lambda m: m.update(count=10**30), "whole number >= 0 in count"),
    "no means": (lambda m: m.pop("means"), "must hold an object 'means', got None"),
    "means a list": (lambda m: m.update(means=[1]), r"must hold an object 'means', got \[1\]"),
    "one file of two": (lambda m: m["means"]["files"].pop(), r"2 file\(s\) in means.files"),
    "file no text": (lambda m: m["quats"].update(files=[7]), r"1 file\(s\) in quats.files, got \[7\]"),
    "short codebook": (lambda m: m["scales"]["codebook"].pop(), "256 finite"),
    "codebook not finite": (lambda m: m["sh0"]["codebook"].__setitem__(9, float("nan")), "sh0.codebook"),
    "mins missing": (lambda m: m["means"].pop("mins"), "3 finite .* means.mins, got None"),
    "file absent": (lambda m: m["sh0"].update(files=["no.webp"]), "must hold the file 'no.webp'"),
    "bands": (lambda m: m["shN"].update(bands=4), "shN.bands must be 1, 2 or 3"),
    "other bands": (lambda m: m["shN"].update(bands=2), "palette image must be 512 pixels wide, got 192"),
    "palette too small": (lambda m: m["shN"].update(count=60_000), "must hold 60,000 entries, 64 a row, got 2 rows"),
    "palette count zero": (lambda m: m["shN"].update(count=0), r"shN.count lie in 1\.\.65536"),
    "labels beyond": (lambda m: m["shN"].update(count=50), "labels must point into the palette of 50, got label 99"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_meta_that_does_not_hold(folder, case):
    change, message = CHANGES[case]
    edit(folder, change)
    with pytest.raises(FormatError, match=message) as caught:
        read_splats(folder)
    assert str(caught.value).startswith(str(folder))


@pytest.mark.parametrize("text", ["", "[]", "{", "nul", '{"a":' * 100_000, "\xff\xfe"])
def test_meta_that_is_no_json_object(folder, text):
    (folder / "meta.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match=r"meta\.json must be"):
        read_splats(folder)


def test_palette_of_version_1_with_odd_width(tmp_path, splats_factory):
    version_1(splats_factory(20, 1), tmp_path / "old")
    Image.new("RGBA", (100, 4)).save(tmp_path / "old/shN_centroids.webp", lossless=True)
    with pytest.raises(FormatError, match="192, 512 or 960 pixels wide, got 100"):
        read_splats(tmp_path / "old")


def test_broken_image_and_broken_zip(folder, bundle):
    data = (folder / "sh0.webp").read_bytes()
    (folder / "sh0.webp").write_bytes(data[:60])
    with pytest.raises(FormatError, match=r"sh0\.webp must be an intact"):
        read_splats(folder)
    (folder / "sh0.webp").write_bytes(b"GIF89a")
    with pytest.raises(FormatError, match=r"sh0\.webp must be a WebP or PNG"):
        read_splats(folder)
    bundle.write_bytes(bundle.read_bytes()[:-30])
    with pytest.raises(FormatError, match="zip must be intact"):
        read_splats(bundle)


def test_members_that_are_no_files(folder):
    (folder / "sh0.webp").unlink()
    os.mkfifo(folder / "sh0.webp")
    with pytest.raises(FormatError, match=r"must hold the file 'sh0\.webp', got none"):
        read_splats(folder)


def test_unreadable_member(folder, monkeypatch):
    whole = Path.open

    def refusing(path, *arguments, **options):
        if path.name == "sh0.webp":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(FormatError, match=r"'sh0\.webp' must be readable, got .*Permission denied"):
        read_splats(folder)


def test_folder_without_meta(tmp_path):
    with pytest.raises(FormatError, match="unpacked SOG"):
        read_splats(tmp_path)
