"""SOG: version 1 from an encoder written here, version 2 by round trip; hostile names, zips and images are refused."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from clipgs_lib.formats import FormatError, SplatWarning, read_splats, sniff, write_splats
from clipgs_lib.formats.sog_palette import codebook, nearest, sh_palette


def webp(values: np.ndarray, side: int, **options) -> bytes:
    """``[N, 1 to 4]`` bytes as a square lossless WebP, row by row."""
    image = np.full((side * side, 4), 255, np.uint8)
    image[: len(values), : values.shape[1]] = values
    stream = io.BytesIO()
    options = {"lossless": True, "exact": True} | options
    Image.fromarray(image.reshape(side, side, 4)).save(stream, "WEBP", **options)
    return stream.getvalue()


def linear(values: np.ndarray) -> tuple[np.ndarray, list[float], list[float]]:
    """Bytes of ``[N, C]`` linear over the range of each channel, and that range."""
    low, high = values.min(axis=0), values.max(axis=0)
    return np.rint((values - low) / (high - low) * 255).astype(np.uint8), low.tolist(), high.tolist()


def smallest_three(quats: np.ndarray) -> np.ndarray:
    rows = []
    for quat in quats:
        place = int(np.abs(quat).argmax())
        quat = quat * (1 if quat[place] > 0 else -1)
        rest = [quat[i] for i in range(4) if i != place]
        rows.append([round((v * 2**0.5 + 1) / 2 * 255) for v in rest] + [252 + place])
    return np.array(rows, np.uint8)


def version_1(splats, folder) -> None:
    """Write ``splats`` as an unpacked SOG of version 1; each SH vector gets its own palette entry."""
    n, side = len(splats), int(np.ceil(len(splats) ** 0.5))
    means = splats.means.double().numpy()
    logs = np.sign(means) * np.log1p(np.abs(means))
    low, high = logs.min(axis=0), logs.max(axis=0)
    fixed = np.rint((logs - low) / (high - low) * 65535).astype(np.uint16)
    scales, scale_low, scale_high = linear(splats.scales.log().numpy())
    logits = torch.logit(splats.opacities)[:, None]
    colors, color_low, color_high = linear(torch.cat([splats.sh0[:, 0], logits], dim=1).numpy())
    files = {
        "means_l.webp": webp((fixed & 255).astype(np.uint8), side),
        "means_u.webp": webp((fixed >> 8).astype(np.uint8), side),
        "scales.webp": webp(scales, side),
        "quats.webp": webp(smallest_three(splats.quats.numpy()), side),
        "sh0.webp": webp(colors, side),
    }
    meta = {
        "means": {
            "shape": [n, 3], "mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"shape": [n, 3], "mins": scale_low, "maxs": scale_high, "files": ["scales.webp"]},
        "quats": {"shape": [n, 4], "encoding": "quaternion_packed", "files": ["quats.webp"]},
        "sh0": {"shape": [n, 1, 4], "mins": color_low, "maxs": color_high, "files": ["sh0.webp"]},
    }  # fmt: skip
    if splats.sh_degree:
        add_palette(splats.shN.numpy(), side, files, meta)
    folder.mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    for name, data in files.items():
        (folder / name).write_bytes(data)


def add_palette(sh: np.ndarray, side: int, files: dict, meta: dict) -> None:
    n, coefficients = sh.shape[:2]
    low, high = float(sh.min()), float(sh.max())
    rows = -(-n // 64)
    image = np.full((rows * 64, coefficients, 4), 255, np.uint8)
    image[:n, :, :3] = np.rint((sh - low) / (high - low) * 255)
    stream = io.BytesIO()
    Image.fromarray(image.reshape(rows, 64 * coefficients, 4)).save(stream, "WEBP", lossless=True, exact=True)
    files["shN_centroids.webp"] = stream.getvalue()
    labels = np.arange(n)
    files["shN_labels.webp"] = webp(np.stack([labels & 255, labels >> 8], axis=1).astype(np.uint8), side)
    meta["shN"] = {
        "shape": [n, 3 * coefficients], "mins": low, "maxs": high, "quantization": 8,
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }  # fmt: skip


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


def edit(folder, change) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def matched(splats, reference):
    """``splats`` in the order of ``reference``, by nearest centre."""
    index = cKDTree(splats.means.numpy()).query(reference.means.numpy())[1]
    assert len(np.unique(index)) == len(reference)
    return splats[torch.from_numpy(index)]


def angle(a, b) -> torch.Tensor:
    return 2 * torch.rad2deg(torch.acos((a.quats * b.quats).sum(dim=1).abs().clamp(max=1)))


# ---- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_version_1(tmp_path, splats_factory, degree):
    original = splats_factory(400, degree)
    version_1(original, tmp_path / "old")
    back = read_splats(tmp_path / "old")
    assert back.sh_degree == degree
    assert (back.means - original.means).abs().max() < 1e-4
    log_range = float(original.scales.log().max() - original.scales.log().min())
    assert (back.scales.log() - original.scales.log()).abs().max() <= log_range / 255 / 2 + 1e-5
    assert (back.opacities - original.opacities).abs().max() < 0.01
    sh_range = float(original.sh0.max() - original.sh0.min())
    assert (back.sh0 - original.sh0).abs().max() <= sh_range / 255 / 2 + 1e-5
    assert angle(back, original).max() < 1.3
    if degree:
        sh_range = float(original.shN.max() - original.shN.min())
        assert (back.shN - original.shN).abs().max() <= sh_range / 255 / 2 + 1e-5


def test_zip_folder_and_meta_json_hold_the_same(bundle, folder):
    assert sniff(bundle) == sniff(folder) == sniff(folder / "meta.json") == "sog"
    zipped, unpacked, named = read_splats(bundle), read_splats(folder), read_splats(folder / "meta.json")
    for name in ("means", "quats", "scales", "opacities", "sh0", "shN"):
        assert torch.equal(getattr(zipped, name), getattr(unpacked, name))
        assert torch.equal(getattr(zipped, name), getattr(named, name))


def test_deflated_zip_reads_too(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.sog", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    assert len(read_splats(tmp_path / "d.sog")) == 100


def test_png_images_read_too(folder):
    for file in folder.glob("*.webp"):
        Image.open(file).convert("RGBA").save(file.with_suffix(".png"))
        expected = read_splats(folder)
        edit(folder, lambda meta, name=file.name: rename(meta, name))
        file.unlink()
        assert torch.equal(read_splats(folder).quats, expected.quats)


def rename(meta: dict, name: str) -> None:
    for entry in meta.values():
        if isinstance(entry, dict) and "files" in entry:
            entry["files"] = [file.replace(name, name.replace(".webp", ".png")) for file in entry["files"]]


def test_opacity_bytes_0_and_255_are_exactly_0_and_1(tmp_path, splats_factory):
    splats = splats_factory(2)
    splats.opacities[:] = torch.tensor([0.0, 1.0])
    back = matched(read_splats(write_splats(splats, tmp_path / "x.sog")), splats)
    assert back.opacities.tolist() == [0.0, 1.0]
    torch.testing.assert_close(back.sh0, splats.sh0)  # colours survive under an alpha of 0


def test_null_at_the_start_of_a_codebook_is_guessed(folder):
    expected = read_splats(folder).scales
    edit(folder, lambda meta: meta["scales"]["codebook"].__setitem__(0, None))
    with pytest.warns(SplatWarning, match="first value of the codebook scales is null"):
        back = read_splats(folder)
    assert (back.scales.log() - expected.log()).abs().max() < 0.2


def test_broken_quaternion_tags_follow_on_invalid(folder):
    pixels = np.array(Image.open(folder / "quats.webp").convert("RGBA"))
    pixels[0, 3, 3] = 17
    Image.fromarray(pixels).save(folder / "quats.webp", lossless=True, exact=True)
    with pytest.warns(SplatWarning, match="1 zero-quaternion gaussians of 100"):
        assert len(read_splats(folder)) == 99


def test_lossy_images_warn(folder):
    pixels = Image.open(folder / "sh0.webp").convert("RGBA")
    pixels.save(folder / "sh0.webp", quality=90)
    with pytest.warns(SplatWarning, match=r"sh0\.webp is a lossy image"):
        read_splats(folder)


# ---- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_within_the_quantisation(tmp_path, splats_factory, degree):
    original = splats_factory(1000, degree)
    path = write_splats(original, tmp_path / "ünï cödé.sog")
    back = matched(read_splats(path), original)
    assert (back.means - original.means).abs().max() < 1e-4
    assert (back.scales.log() - original.scales.log()).abs().max() < 0.02
    assert (back.opacities - original.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.sh0 - original.sh0).abs().max() < 0.03
    assert angle(back, original).max() < 1.3
    if degree:
        assert (back.shN - original.shN).abs().max() < 0.02  # 1,000 palette entries: all but the codebook is exact
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_writing_what_was_read_is_nearly_exact(real_data, tmp_path):
    first = read_splats(real_data / "splats/sog/playbot_3_0")
    path = write_splats(first, tmp_path / "x.sog", palette=4096)
    again = matched(read_splats(path), first)
    assert (again.means - first.means).abs().max() < 5e-5
    torch.testing.assert_close(again.scales, first.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(again.sh0, first.sh0)
    assert torch.equal(again.opacities, first.opacities)
    error = (again.shN - first.shN).pow(2).mean().sqrt() / first.shN.pow(2).mean().sqrt()
    assert error < 0.45
    assert path.stat().st_size < 700_000


def test_a_larger_palette_is_nearer(tmp_path, splats_factory):
    splats = splats_factory(3000, 1)
    errors = []
    for palette in (1, 64, 1024, 3000):
        back = matched(read_splats(write_splats(splats, tmp_path / "x.sog", palette=palette)), splats)
        errors.append(float((back.shN - splats.shN).pow(2).mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4


def test_none_and_one_and_same_bytes(tmp_path, splats_factory):
    for count in (0, 1):
        path = write_splats(splats_factory(1, 2)[:count], tmp_path / f"{count}.sog")
        assert len(read_splats(path)) == count
    a, b = (write_splats(splats_factory(300, 1), tmp_path / name).read_bytes() for name in ("a.sog", "b.sog"))
    assert a == b


def test_flat_gaussians_warn(tmp_path, splats_factory):
    splats = splats_factory(5)
    splats.scales[2, 1] = 0
    with pytest.warns(SplatWarning, match="1 scales of 0 were raised"):
        write_splats(splats, tmp_path / "x.sog")
    assert read_splats(tmp_path / "x.sog").scales.min() < 1e-19


def test_bad_options_and_values_write_nothing(tmp_path, splats_factory):
    splats = splats_factory(5)
    with pytest.raises(ValueError, match="palette must lie in"):
        write_splats(splats, tmp_path / "x.sog", palette=0)
    splats.means[0] = float("inf")
    with pytest.raises(FormatError, match="finite"):
        write_splats(splats, tmp_path / "x.sog")
    assert list(tmp_path.iterdir()) == []


def test_codebook_and_palette():
    random = np.random.default_rng(0)
    values = random.normal(size=5000)
    levels = codebook(values)
    assert levels.shape == (256,) and (np.diff(levels) >= 0).all()
    assert np.abs(levels[nearest(values, levels)] - values).mean() < 0.005
    few = np.array([3.0, 1.0, 1.0, 2.0])
    assert np.array_equal(codebook(few)[nearest(few, codebook(few))], few)
    vectors = np.concatenate([random.normal(loc=c, scale=0.01, size=(50, 6)) for c in range(16)]).astype(np.float32)
    centers, labels = sh_palette(vectors, 64, seed=0)
    assert len(centers) <= 64 and labels.max() < len(centers)
    assert np.abs(centers[labels] - vectors).max() < 0.6


# ---- hostile input -----------------------------------------------------------------------------------------------

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


def test_folder_without_meta(tmp_path):
    with pytest.raises(FormatError, match="unpacked SOG"):
        read_splats(tmp_path)
