"""gsplat checkpoints: parameters in, nothing else unpickled, nothing inflated."""

from __future__ import annotations

import pickle
import shutil
import zipfile

import pytest
import torch

from clipgs_lib.formats import gsplat_checkpoint, read_splats, sniff
from clipgs_lib.formats.raw import FormatError

from .mutations import assert_survives
from .ply_samples import assert_same


def parameters(splats) -> dict[str, torch.Tensor]:
    """What gsplat trains."""
    return {
        "means": splats.means,
        "quats": splats.quats,
        "scales": splats.scales.log(),
        "opacities": splats.opacities.logit(),
        "sh0": splats.sh0,
        "shN": splats.shN,
    }


@pytest.fixture
def save(tmp_path):
    def write(content, name="ckpt_29999_rank0.pt"):
        path = tmp_path / name
        torch.save(content, path)
        return path

    return write


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_trainer_checkpoint(save, splats_factory, degree):
    splats = splats_factory(50, degree)
    state = torch.nn.ParameterDict(parameters(splats)).state_dict()
    path = save({"step": 29999, "splats": state, "pose_adjust": {"embeds.weight": torch.zeros(2, 9)}})
    assert sniff(path) == "checkpoint"
    assert_same(read_splats(path), splats)
    notes = gsplat_checkpoint.read(path).notes
    assert notes[0] == "saved at training step 29,999" and "other ranks" in notes[1]


def test_bare_dict_parameters_half_precision_and_columns(save, splats_factory):
    splats = splats_factory(20, 1)
    bare: dict[str, torch.Tensor] = {
        name: torch.nn.Parameter(value.half()) for name, value in parameters(splats).items()
    }
    bare["opacities"] = bare["opacities"][:, None].detach()
    path = save(bare, "x.ckpt")
    assert_same(read_splats(path), splats, rtol=1e-2, atol=1e-2)
    assert not read_splats(path).means.requires_grad


def test_without_shN_and_with_strides(save, splats_factory):
    content = parameters(splats_factory(20))
    del content["shN"]
    content["means"] = content["means"].T.contiguous().T
    assert_same(read_splats(save(content)), splats_factory(20))


def test_reading_owns_its_memory(save, splats_factory):
    """The file may go away afterwards."""
    path = save(parameters(splats_factory(5)))
    splats = read_splats(path)
    with path.open("r+b") as stream:
        stream.truncate(0)
    assert_same(splats, splats_factory(5))


def test_objects_are_refused_by_name(save, splats_factory):
    splats = splats_factory(5)
    with pytest.raises(FormatError, match=r"but tensors and plain containers, got a clipgs_lib\.splats\.Splats"):
        read_splats(save(splats))
    with pytest.raises(FormatError, match=r"got a torch\.nn\.modules\.container\.ParameterDict; .*state_dict\(\)"):
        read_splats(save({"splats": torch.nn.ParameterDict(parameters(splats))}))


class Exploit:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def test_code_is_not_run(save, splats_factory):
    path = save({"splats": parameters(splats_factory(3)), "x": Exploit()})
    with pytest.raises(FormatError, match=r"got a (\w+\.)?exec; objects are never unpickled"):
        read_splats(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": None}, "means must be a dense floating tensor .* got a NoneType"),
        ({"means": torch.zeros(5, 4)}, r"means must be .*\[N, 3\] with N = 5, got shape \[5, 4\]"),
        ({"quats": torch.zeros(4, 4)}, r"quats must be .*N = 5, got shape \[4, 4\]"),
        ({"scales": torch.zeros(5, 2)}, r"scales must be .*got shape \[5, 2\]"),
        ({"opacities": torch.zeros(5, 2)}, r"opacities must be .*got shape \[5, 2\]"),
        ({"sh0": torch.zeros(5, 3)}, r"sh0 must be .*got shape \[5, 3\]"),
        ({"shN": torch.zeros(5, 7, 3)}, r"shN must be .*K-1 in 0, 3, 8, 15.*got shape \[5, 7, 3\]"),
        ({"means": torch.zeros(5, 3, dtype=torch.int32)}, r"got a torch\.int32"),
        ({"means": torch.zeros(5, 3).to_sparse()}, r"got a torch\.float32 torch\.sparse_coo"),
        ({"means": torch.zeros(())}, r"got shape \[\]"),
        ({"means": torch.zeros(1).expand(4_000_000_000, 3)}, "must lie in"),
    ],
)
def test_parameters_that_do_not_fit(save, splats_factory, change, message):
    path = save({"splats": parameters(splats_factory(5)) | change})
    with pytest.raises(FormatError, match=message):
        read_splats(path)
    assert_survives(read_splats, path, max_extra_bytes=8 << 20)


def test_strides_that_repeat_a_small_storage_are_not_expanded(save, splats_factory):
    n = 1_000_000
    content = parameters(splats_factory(1))
    content = {k: v[:1].expand(n, *v.shape[1:]) for k, v in content.items()}
    path = save(content)
    assert path.stat().st_size < 10_000
    with pytest.raises(FormatError, match="3,000,000 gaussians need at least 12,000,000 bytes"):
        read_splats(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"splats": {}}, "got the keys of an empty dict"),
        ({"model": torch.zeros(1), "step": 3}, "must hold means, quats, .* got the keys model, step; add means"),
        ([torch.zeros(3)], "must be a dict of tensors, .* got a list"),
        ({"splats": torch.zeros(3)}, "must be a dict of tensors, .* got a Tensor"),
    ],
)
def test_other_checkpoints(save, content, message):
    with pytest.raises(FormatError, match=message):
        read_splats(save(content))


def test_features_instead_of_sh(save, splats_factory):
    content = parameters(splats_factory(5))
    content["features"] = content.pop("sh0")
    with pytest.raises(FormatError, match="add sh0; appearance models without SH cannot be read"):
        read_splats(save(content))


# ---- archives ------------------------------------------------------------------------------------------------------


def rezip(path, out, *, compression=zipfile.ZIP_STORED, change=lambda name, data: data, extra=()):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in extra:
            new.writestr(name, data)
    return out


def test_compressed_members_are_refused(save, tmp_path, splats_factory):
    bomb = rezip(
        save(parameters(splats_factory(3))),
        tmp_path / "bomb.pt",
        compression=zipfile.ZIP_DEFLATED,
        extra=[("archive/data/99", bytes(200 << 20))],
    )
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(FormatError, match="must be stored uncompressed"):
        read_splats(bomb)
    assert_survives(read_splats, bomb, max_extra_bytes=4 << 20)


def test_repeated_members_are_refused(save, tmp_path, splats_factory):
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = rezip(save(parameters(splats_factory(3)), "a.pt"), tmp_path / "b.pt", extra=[("a/data.pkl", b"")])
    with pytest.raises(FormatError, match="members that overlap or repeat"):
        read_splats(twice)


def test_a_large_pickle_is_refused(save, tmp_path, splats_factory):
    path = rezip(
        save(parameters(splats_factory(3))),
        tmp_path / "x.pt",
        change=lambda name, data: data + bytes(5 << 20) if name.endswith("data.pkl") else data,
    )
    with pytest.raises(FormatError, match=r"one data\.pkl of at most 4,194,304 bytes, got 1 of 5"):
        read_splats(path)


def test_pickles_that_are_broken(save, tmp_path, splats_factory):
    good = save(parameters(splats_factory(3)))
    for i, data in enumerate((b"", b"\x80\x02", b"garbage", pickle.dumps({"means": 3}, 2)[:-1])):
        path = rezip(good, tmp_path / f"{i}.pt", change=lambda name, old, d=data: d if name.endswith(".pkl") else old)
        with pytest.raises(FormatError, match=r"the checkpoint must be intact.*it is damaged or of another format"):
            read_splats(path)


def test_truncation(save, splats_factory):
    data = save(parameters(splats_factory(3))).read_bytes()
    path = save(parameters(splats_factory(3)), "cut.pt")
    for end in [*range(0, len(data), 101), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(FormatError):
            read_splats(path)


def test_other_zips_are_not_checkpoints(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("meta.txt", "no")
    assert not gsplat_checkpoint.sniff(tmp_path / "x.pt", (tmp_path / "x.pt").read_bytes()[:4096])
    with pytest.raises(FormatError, match="the content must be one of"):
        read_splats(tmp_path / "x.pt")


def test_the_legacy_form_of_torch_save_is_not_taken(tmp_path, splats_factory):
    path = tmp_path / "x.pt"
    torch.save(parameters(splats_factory(3)), path, _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match="the content must be one of"):
        read_splats(path)


def test_content_decides_not_the_name(save, splats_factory, tmp_path):
    path = save(parameters(splats_factory(3)))
    shutil.copy(path, tmp_path / "x.sog")
    assert sniff(tmp_path / "x.sog") == "checkpoint"
