"""Objects as bytes: what comes back, what is refused, and that equal input gives equal bytes."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_lib.captions.caption import Caption
from clipgs_lib.shards.tar import BLOCK, END, ShardError, pack_members, unpack_members
from clipgs_lib.shards.triplet import TeacherInfo, decode_triplet, decode_view, encode_triplet, encode_view
from clipgs_lib.splats import COLUMNS

from ..conftest import ROOT
from .shard_samples import TEACHER, make_triplet, tar_of, unit_rows


def members(block: bytes) -> dict[str, bytes]:
    return {part: bytes(data) for _, part, data in unpack_members(block, "test")}


def repacked(block: bytes, **changes: bytes | None) -> bytes:
    """The object with members replaced, added or (None) left out; names with ``__`` for a dot."""
    parts = members(block) | {name.replace("__", "."): data for name, data in changes.items()}
    return pack_members("object-0001", [(part, data) for part, data in parts.items() if data is not None])


def remade(block: bytes, **changes: bytes) -> bytes:
    """The object with members replaced *and* their hashes mended, as an attacker would."""
    meta = json.loads(members(block)["meta.json"])
    for name, data in changes.items():
        meta["sha256"][name.replace("__", ".")] = hashlib.sha256(data).hexdigest()
    return repacked(block, meta__json=json.dumps(meta).encode(), **changes)


def with_meta(block: bytes, **changes: object) -> bytes:
    meta = json.loads(members(block)["meta.json"]) | changes
    return repacked(block, meta__json=json.dumps(meta).encode())


@pytest.mark.parametrize("number", [0, 1])  # SH degree 0 and 1
def test_round_trip(number):
    triplet = make_triplet(number)
    again = decode_triplet(encode_triplet(triplet), "test")
    for name in COLUMNS:
        before, after = getattr(triplet.splats, name), getattr(again.splats, name)
        assert torch.equal(before.half().float(), after) or name == "quats"
    assert torch.allclose(again.splats.quats.norm(dim=-1), torch.ones(20), atol=2e-3)
    for name in ("key", "views", "texts", "category", "split", "provenance", "teacher"):
        assert getattr(again, name) == getattr(triplet, name), name
    assert np.array_equal(again.image_embeds, triplet.image_embeds)
    assert np.array_equal(again.text_embeds, triplet.text_embeds)
    assert again.images().shape == (2, 20, 24, 3) and again.images([1]).shape == (1, 20, 24, 3)
    assert "20 gaussians, 2 views, 3 texts, embedded by stand-in/1" in repr(again)


def test_an_object_without_teacher_has_no_embeddings():
    block = encode_triplet(make_triplet(3, teacher=None))
    assert "embeds.safetensors" not in members(block)
    assert decode_triplet(block, "test").teacher is None


def test_equal_objects_give_equal_bytes_and_plain_ustar():
    block = encode_triplet(make_triplet(1))
    assert block == encode_triplet(make_triplet(1))
    with tarfile.open(fileobj=io.BytesIO(block + END)) as tar:  # any tar program can read it
        found = {info.name: info for info in tar.getmembers()}
        assert tar.extractfile("object-0001.meta.json").read() == members(block)["meta.json"]
    assert {(i.mtime, i.uid, i.gid, i.mode, i.uname) for i in found.values()} == {(0, 0, 0, 0o644, "")}
    assert next(iter(found)) == "object-0001.meta.json" and len(block) % BLOCK == 0


def test_bytes_do_not_depend_on_the_process():
    code = (
        "import hashlib; from tests.shards.shard_samples import *; "
        "print(hashlib.sha256(encode_triplet(make_triplet(1))).hexdigest())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == hashlib.sha256(encode_triplet(make_triplet(1))).hexdigest()


def test_views_keep_their_colours_and_thin_lines():
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[16:48, 16:48] = (200, 40, 90)
    again = decode_view(encode_view(picture), "test")
    assert np.abs(again.astype(int) - picture)[20:44, 20:44].max() <= 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "../../x"}, "key and split must be plain words"),
        ({"split": "../train"}, "key and split must be plain words"),
        ({"views": ()}, "0 views"),
        ({"texts": ()}, "0 texts"),
        ({"texts": (Caption("  ", "raw"),) * 3}, "a text must have 1 to 20,000 characters"),
        ({"texts": (Caption("x" * 100_000, "raw"),) * 3}, "got 100,000 characters"),
        ({"provenance": {"psnr": float("nan")}}, "finite numbers"),
        ({"provenance": {"path": object()}}, "plain JSON"),
        (
            {"image_embeds": unit_rows(2, 24, 0)},
            r"must be float16 \[2, 16\].*stand-in/1 \(D = 16\).*got float16 \[2, 24\]",
        ),
        ({"image_embeds": unit_rows(3, 16, 0)}, r"got float16 \[3, 16\]"),
        ({"text_embeds": None}, "got NoneType"),
        ({"text_embeds": unit_rows(3, 16, 0) * np.float16(2)}, "unit-norm, got a norm of 2"),
        ({"text_embeds": unit_rows(3, 16, 0) * np.float16(np.nan)}, "unit-norm, got a norm of nan"),
        ({"teacher": None}, "image_embeds must name their teacher"),
    ],
)
def test_what_cannot_be_written(changes, words):
    with pytest.raises(ShardError, match=words):
        encode_triplet(
            make_triplet(1, **({"teacher": TEACHER} | changes))
            if "teacher" not in changes
            else replace(make_triplet(1), **changes)
        )


def test_values_outside_float16_are_refused():
    triplet = make_triplet(1)
    for value in (1e6, float("nan")):
        means = triplet.splats.means.clone()
        means[3, 1] = value
        with pytest.raises(ShardError, match=r"object object-0001: means must be finite in float16"):
            encode_triplet(replace(triplet, splats=replace(triplet.splats, means=means)))


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((5000, 4, 3), np.uint8), None]
)
def test_pictures_that_cannot_be_written(picture):
    with pytest.raises(ShardError, match="a view must be uint8"):
        encode_view(picture)


# ---- hostile bytes -----------------------------------------------------------------------------------------------


def webp(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "WEBP", quality=1)
    return buffer.getvalue()


def test_an_image_bomb_is_refused_before_decoding(monkeypatch):
    with pytest.raises(ShardError, match=r"at most 4096 pixels a side, got 4200 x 16"):
        decode_view(webp(4200, 16), "x.view000.webp")
    with monkeypatch.context() as patch:  # Pillow's own limit, for pictures that would take a minute to make here
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(ShardError, match="decompression bomb"):
            decode_view(webp(20, 20), "x.view000.webp")
    with pytest.raises(ShardError, match="intact WebP"):
        decode_view(webp(20, 20)[:-8], "x.view000.webp")


@pytest.mark.parametrize(
    "name", ["object-0001.pyd", "object-0001.pkl", "object-0001.view000.pickle", "object-0001.pth"]
)
def test_members_outside_the_whitelist_are_refused_unread(name):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    block = encode_triplet(make_triplet(1)) + tar_of([(name, pickle.dumps(Bomb()))])[: 2 * BLOCK]
    with pytest.raises(ShardError, match=rf"test, member {name.replace('.', '.')}: .* refused"):
        decode_triplet(block, "test")


@pytest.mark.parametrize(
    "name",
    ["../../x.meta.json", "/etc/x.meta.json", "a/b.meta.json", "a\n.meta.json", ".meta.json", "ä.meta.json", "a" * 99],
)
def test_paths_are_refused(name):
    with pytest.raises(ShardError, match=r"test, member .*without paths"):
        decode_triplet(tar_of([(name, b"{}")]), "test")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_are_refused(kind):
    with pytest.raises(ShardError, match=r"member 'object-0001.meta.json/?': members must be regular files"):
        decode_triplet(tar_of([("object-0001.meta.json", b"")], kind), "test")


def test_truncated_members_are_named():
    block = encode_triplet(make_triplet(1))
    for cut in range(1, len(block), 777):
        with pytest.raises(ShardError, match=r"^test"):
            decode_triplet(block[:cut], "test")
    with pytest.raises(ShardError, match=r"member object-0001.splat.safetensors: the member must be complete"):
        decode_triplet(block[:3000], "test")


def test_any_flipped_byte_is_noticed_or_harmless():
    block, rng = encode_triplet(make_triplet(1)), np.random.default_rng(0)
    wanted = {part: data for part, data in members(block).items() if part != "meta.json"}  # the index has its hash
    for place in rng.integers(0, len(block), 300):
        broken = bytearray(block)
        broken[place] ^= 1 << int(rng.integers(8))
        try:
            again = decode_triplet(bytes(broken), "test")
        except ShardError:
            continue
        found = members(bytes(broken))
        del found["meta.json"]
        assert found == wanted, f"byte {place} changed {again} unnoticed"  # else padding, or a word of meta.json


def absurd_size() -> bytes:
    info = tarfile.TarInfo("object-0001.meta.json")
    info.size = 7 * 1024**3
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (absurd_size(), r"the size must be at most 268,435,456 bytes, got 7,516,192,768"),
        (b"\x00" * 512, "an object must have members"),
        (b"", "an object must have members"),
        (b"junk" * 128, "at byte 0: a tar header must carry its checksum"),
        (b"junk", "must have 512 bytes"),
    ],
)
def test_broken_headers(block, words):
    with pytest.raises(ShardError, match=words):
        decode_triplet(block, "test")


def test_lies_behind_good_hashes_are_refused():
    block = encode_triplet(make_triplet(1))
    deep = b"[" * 100_000
    header = json.dumps({"means": {"dtype": "F16", "shape": [2**60, 3], "data_offsets": [0, 6 * 2**60]}}).encode()
    huge = len(header).to_bytes(8, "little") + header
    for changed, words in [
        (remade(block, texts__json=deep), "must be JSON"),
        (remade(block, texts__json=b'[{"text": 3, "source": "raw", "score": null}]'), "text must be a string"),
        (remade(block, texts__json=b'[{"text": "a", "source": "raw", "score": NaN}]'), "NaN is not JSON"),
        (remade(block, texts__json=b"[]"), "0 texts"),
        (remade(block, splat__safetensors=huge), "intact safetensors"),
        (remade(block, splat__safetensors=b"\xff" * 64), "intact safetensors"),
        (remade(block, embeds__safetensors=members(block)["splat.safetensors"]), "must hold image_embeds, text_embeds"),
        (repacked(block, texts__json=None), "must have this member"),
        (repacked(block, view001__webp=None), "the members must be those that meta.json names"),
        (repacked(block, view000__webp=b"other"), "must have the sha256"),
        (with_meta(block, schema="clipgs-triplet/9"), "another version wrote it"),
        (with_meta(block, teacher={"identity": "x", "dim": True}), "teacher must be null or"),
        (with_meta(block, teacher={"identity": "other", "dim": 512}), r"as other \(D = 512\) makes them"),
        (with_meta(block, up_axis="up"), "up_axis must be one of"),
        (with_meta(block, category=["x"]), "category must be a short string"),
    ]:
        with pytest.raises(ShardError, match=words):
            decode_triplet(changed, "test")


def test_two_objects_in_one_block_are_refused():
    with pytest.raises(ShardError, match="one object must follow another"):
        decode_triplet(encode_triplet(make_triplet(1)) + encode_triplet(make_triplet(2)), "test")


def test_errors_cross_processes():
    error = pickle.loads(pickle.dumps(ShardError("a.tar", "it must hold", "nothing", "mend it")))
    assert str(error) == "a.tar: it must hold, got nothing; mend it"


def test_teacher_says_itself():
    assert str(TeacherInfo("mini", 384)) == "mini (D = 384)"
