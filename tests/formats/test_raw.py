"""Shared machinery of the formats: the invalid-gaussian policy, file checks, bounded inflating, atomic writing."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipgs_lib.formats.raw import (
    MAX_GAUSSIANS,
    FormatError,
    RawSplats,
    SplatWarning,
    atomic_write,
    check_count,
    check_regular_file,
    to_splats,
)


def raw(n: int = 5, **changes: object) -> RawSplats:
    r = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "means": r.standard_normal((n, 3)),
        "quats": 3 * r.standard_normal((n, 4)),
        "scales": r.random((n, 3)),
        "opacities": r.random(n),
        "sh0": r.standard_normal((n, 1, 3)),
        "shN": np.empty((n, 0, 3)),
    }
    columns = {name: values.astype(np.float32) for name, values in columns.items()}
    record = RawSplats(**columns)
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def test_error_names_file_rule_reality_and_cure():
    error = FormatError("a b.ply", "it must be so", "this", "do that")
    assert str(error) == "a b.ply: it must be so, got this; do that"
    assert (error.path, error.must, error.got, error.todo) == ("a b.ply", "it must be so", "this", "do that")
    assert isinstance(error, ValueError)


def test_to_splats_normalises_and_keeps_the_name():
    splats = to_splats(raw(), Path("somewhere") / "x.ply")
    torch.testing.assert_close(splats.quats.norm(dim=1), torch.ones(5))
    assert splats.source == "x.ply"


def test_to_splats_drops_and_counts():
    record = raw(6)
    record.means[1, 2] = np.nan
    record.shN = np.zeros((6, 3, 3), np.float32)
    record.shN[2, 0, 1] = np.inf
    record.quats[4] = 0
    with pytest.warns(SplatWarning, match=r"x\.ply: dropped 2 non-finite and 1 zero-quaternion gaussians of 6"):
        assert len(to_splats(record, "x.ply")) == 3


def test_to_splats_refuses_when_nothing_is_left():
    record = raw(3)
    record.quats[:] = 0
    with pytest.raises(
        FormatError, match=r"at least one gaussian must be finite.*3 zero-quaternion of 3; run `clipgs diagnose`"
    ):
        to_splats(record, "x.ply")


def test_sums_that_overflow_do_not_condemn_finite_gaussians():
    record = raw(4)
    record.means[:] = 3e38
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(to_splats(record, "x.ply")) == 4


def test_clean_records_are_taken_as_they_are():
    record = raw(3, clean=True)
    assert to_splats(record, "x.ply").quats.data_ptr() == record.quats.ctypes.data


def test_zero_gaussians_are_empty_splats():
    assert len(to_splats(raw(0), "x.ply")) == 0


def test_regular_file_check(tmp_path):
    good = tmp_path / "ünï cödé 文件.ply"
    good.write_bytes(b"x")
    assert check_regular_file(str(good)) == good
    with pytest.raises(FormatError, match=r"must name an existing file.*check the spelling"):
        check_regular_file(tmp_path / "none")
    with pytest.raises(FormatError, match="must name an existing file"):
        check_regular_file("nul\0byte")
    with pytest.raises(FormatError, match="must name a regular file, got a directory"):
        check_regular_file(tmp_path)
    with pytest.raises(FormatError, match="must name a regular file, got a device"):
        check_regular_file(os.devnull)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FormatError, match="must name a regular file, got a FIFO"):
        check_regular_file(tmp_path / "fifo")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "x.ply"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.geteuid() == 0:  # root may read anything: let the system call answer as it does for others
        monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FormatError, match="must be readable, got no read permission; mend its permissions"):
        check_regular_file(path)


def test_count_check():
    check_count("x", 10, 100, 10)
    with pytest.raises(FormatError, match=r"must lie in 0\.\.200,000,000, got -1"):
        check_count("x", -1, 100, 10)
    with pytest.raises(FormatError, match="got 4,000,000,000"):
        check_count("x", 4_000_000_000, 1 << 62, 1)
    with pytest.raises(FormatError, match="11 gaussians need at least 110 bytes, got 100; the file is truncated"):
        check_count("x", 11, 100, 10)
    check_count("x", MAX_GAUSSIANS, MAX_GAUSSIANS, 1)


def test_atomic_write_replaces_on_success(tmp_path):
    path = tmp_path / "out file.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt()])
def test_atomic_write_leaves_nothing_on_failure(tmp_path, failure):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)), atomic_write(path) as stream:
        stream.write(b"half")
        raise failure
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_explains_system_errors(tmp_path):
    with pytest.raises(FormatError, match=r"output folder must exist, be writable and have room, got .*No such file"):  # noqa: SIM117
        with atomic_write(tmp_path / "no" / "x.bin"):
            pass
    with pytest.raises(FormatError, match="No space left"), atomic_write(tmp_path / "x.bin"):
        raise OSError(28, "No space left on device")
    with pytest.raises(FormatError, match="must name a file, got a directory"), atomic_write(tmp_path):
        pass
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FormatError, match="must name a file, got a FIFO"), atomic_write(tmp_path / "fifo"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["fifo"]
