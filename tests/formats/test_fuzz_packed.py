"""Damaged packed files: an orderly answer within bounds of memory and time, whatever the bytes.

Compressed formats are damaged twice: outside, where checksums catch most, and inside, behind them.
``CLIPGS_FUZZ`` raises the number of examples.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clipgs_lib.formats import FORMATS, SplatWarning, write_splats
from clipgs_lib.formats.raw import to_splats
from clipgs_lib.splats import Splats

from .mutations import assert_survives, fuzz_settings, mutations
from .sog_samples import version_1
from .test_gltf import document, glb
from .test_ksplat import encode

COUNT = 40
LIMIT = 32 << 20


def make_splats() -> Splats:
    """``COUNT`` gaussians of SH degree 1, mild enough for every format to hold."""
    g = torch.Generator().manual_seed(7)
    return Splats(
        means=0.5 * torch.randn(COUNT, 3, generator=g),
        quats=torch.nn.functional.normalize(torch.randn(COUNT, 4, generator=g), dim=1),
        scales=0.02 + 0.1 * torch.rand(COUNT, 3, generator=g),
        opacities=torch.rand(COUNT, generator=g),
        sh0=2 * torch.rand(COUNT, 1, 3, generator=g) - 1,
        shN=torch.rand(COUNT, 3, 3, generator=g) - 0.5,
    )


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, bytes]:
    """Small valid files, by name."""
    folder = tmp_path_factory.mktemp("seeds")
    splats = make_splats()
    written = {"v3.spz": {}, "v2.spz": {"version": 2}, "v4.spz": {"version": 4}, "x.sog": {}}
    files = {name: write_splats(splats, folder / name, **options).read_bytes() for name, options in written.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplatWarning)
        files["x.splat"] = write_splats(splats, folder / "x.splat").read_bytes()
    files["plain.spz"] = gzip.decompress(files["v3.spz"])
    files |= {f"{level}.ksplat": encode(splats, level, bucket=16, sections=2) for level in (0, 1, 2)}
    files["x.glb"] = glb(*document(splats))
    return files


@pytest.fixture(scope="module")
def folders(tmp_path_factory, seeds) -> dict[str, Path]:
    """The same SOG unpacked, and one of version 1."""
    base = tmp_path_factory.mktemp("folders")
    with zipfile.ZipFile(write(base / "x.sog", seeds["x.sog"])) as archive:
        archive.extractall(base / "v2")
    version_1(make_splats(), base / "v1")
    return {"v1": base / "v1", "v2": base / "v2"}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def reader(name: str):
    """Read by a given format, so that damage of the magic number is met too, and validate the columns."""
    return lambda path: to_splats(FORMATS[name].read(path), path)


FLAT = ["x.splat", "0.ksplat", "1.ksplat", "2.ksplat", "plain.spz", "v2.spz", "v3.spz", "v4.spz", "x.sog", "x.glb"]
NAMES = {".splat": "splat", ".ksplat": "ksplat", ".spz": "spz", ".sog": "sog", ".glb": "gltf"}


@pytest.mark.parametrize("seed", FLAT)
@given(data=st.data())
@fuzz_settings
def test_damaged_file(tmp_path, seeds, seed, data):
    path = write(tmp_path / seed, data.draw(mutations(seeds[seed])))
    assert_survives(reader(NAMES[path.suffix]), path, LIMIT)


@pytest.mark.parametrize("seed", FLAT)
def test_the_seeds_are_valid(tmp_path, seeds, seed):
    path = write(tmp_path / seed, seeds[seed])
    assert len(assert_survives(reader(NAMES[path.suffix]), path, LIMIT)) == COUNT


@pytest.mark.parametrize("seed", ["v2.spz", "v3.spz"])
@given(data=st.data())
@fuzz_settings
def test_damage_inside_the_gzip_stream(tmp_path, seeds, seed, data):
    inner = data.draw(mutations(gzip.decompress(seeds[seed])))
    assert_survives(reader("spz"), write(tmp_path / "x.spz", gzip.compress(inner, mtime=0)), LIMIT)


@given(data=st.data())
@fuzz_settings
def test_damage_inside_the_zstd_streams(tmp_path, seeds, data):
    """Every stream stays a valid frame; its length may lie, and so may the table, which follows it half the time."""
    whole = seeds["v4.spz"]
    streams, at = [], 32 + 16 * whole[15]
    for index in range(whole[15]):
        length, _ = struct.unpack_from("<QQ", whole, 32 + 16 * index)
        streams.append(zstandard.ZstdDecompressor().decompress(whole[at : at + length]))
        at += length
    which = data.draw(st.integers(0, len(streams) - 1))
    plain = [len(stream) for stream in streams]
    streams[which] = data.draw(mutations(streams[which]))
    if data.draw(st.booleans()):
        plain[which] = len(streams[which])
    packed = [zstandard.ZstdCompressor().compress(stream) for stream in streams]
    table = b"".join(struct.pack("<QQ", len(p), size) for p, size in zip(packed, plain, strict=True))
    assert_survives(reader("spz"), write(tmp_path / "x.spz", whole[:32] + table + b"".join(packed)), LIMIT)


@pytest.mark.parametrize("version", ["v1", "v2"])
@given(data=st.data())
@fuzz_settings
def test_damaged_member_of_a_sog_folder(tmp_path, folders, version, data):
    folder = tmp_path / "sog"
    shutil.copytree(folders[version], folder, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(sorted(file.name for file in folder.iterdir())))
    write(folder / name, data.draw(mutations((folders[version] / name).read_bytes())))
    assert_survives(reader("sog"), folder, LIMIT)


VALUES = st.sampled_from(
    [None, True, -1, 0, 1, 2, 3, 63, 2**31, 2**64, 10**40, 1e308, -0.5, "", "x", "../x", [], {}, [0]]
)


def damage_json(data: st.DataObject, value):
    """Replace, remove or repeat one entry somewhere in a JSON value."""
    keys = sorted(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if not keys:
        return data.draw(VALUES)
    key = data.draw(st.sampled_from(list(keys)))
    action = data.draw(st.sampled_from(["deeper", "deeper", "deeper", "replace", "remove", "repeat"]))
    if action == "deeper":
        value[key] = damage_json(data, value[key])
    elif action == "replace":
        value[key] = data.draw(VALUES)
    elif action == "remove":
        del value[key]
    elif isinstance(value, list):
        value.append(value[key])
    return value


@pytest.mark.parametrize("version", ["v1", "v2"])
@given(data=st.data())
@fuzz_settings
def test_damaged_meaning_of_sog_json(tmp_path, folders, version, data):
    folder = tmp_path / "sog"
    shutil.copytree(folders[version], folder, dirs_exist_ok=True)
    meta = damage_json(data, json.loads((folders[version] / "meta.json").read_text()))
    (folder / "meta.json").write_text(json.dumps(meta))
    assert_survives(reader("sog"), folder, LIMIT)


@given(data=st.data())
@fuzz_settings
def test_damaged_meaning_of_gltf_json(tmp_path, data):
    root, binary = document(make_splats())
    for _ in range(data.draw(st.integers(1, 3))):
        root = damage_json(data, root)
        if not isinstance(root, dict):
            break
    assert_survives(reader("gltf"), write(tmp_path / "x.glb", glb(root, binary)), LIMIT)
