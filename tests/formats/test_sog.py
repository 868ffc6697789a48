"""SOG: version 1 from an encoder of the tests, version 2 by round trip, and what reading mends or warns of."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from clipgs_lib.formats import FormatError, SplatWarning, read_splats, sniff, write_splats
from clipgs_lib.formats.sog_write import codebook, nearest, sh_palette

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


def test_broken_quaternion_tags_are_dropped(folder):
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
    path = write_splats(first, tmp_path / "x.sog")
    again = matched(read_splats(path), first)
    assert (again.means - first.means).abs().max() < 5e-5
    torch.testing.assert_close(again.scales, first.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(again.sh0, first.sh0)
    assert torch.equal(again.opacities, first.opacities)
    error = (again.shN - first.shN).pow(2).mean().sqrt() / first.shN.pow(2).mean().sqrt()
    assert error < 0.2
    assert path.stat().st_size < 750_000


def test_a_larger_palette_is_nearer(splats_factory):
    vectors = splats_factory(3000, 1).shN.reshape(3000, -1).numpy()
    errors = []
    for size in (1, 64, 1024, 3000):
        entries, labels = sh_palette(vectors, size)
        errors.append(float(((entries[labels] - vectors) ** 2).mean()))
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


def test_bad_values_write_nothing(tmp_path, splats_factory):
    splats = splats_factory(5)
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
    centers, labels = sh_palette(vectors, 64)
    assert len(centers) <= 64 and labels.max() < len(centers)
    assert np.abs(centers[labels] - vectors).max() < 0.6
