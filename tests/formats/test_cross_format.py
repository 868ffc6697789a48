"""The same object read from different formats is the same gaussians, up to what each format can hold.

The files were converted by reference tools (see the README of the real data), so this settles every format's frame,
component order, SH order and activation. Formats may reorder: gaussians are matched by nearest centre.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from clipgs_lib.formats import read_splats
from clipgs_lib.geometry import quat_to_rotmat
from clipgs_lib.splats import Splats

EXACT = 1e-5


class Tolerance(NamedTuple):
    """Largest errors allowed; a pair is (99 % of the gaussians, all)."""

    means: float
    log_scales: tuple[float, float]
    opacities: float
    colors: tuple[float, float]
    degrees: float
    covariance: float
    shN: tuple[float, float] = (EXACT, EXACT)


SAME = Tolerance(EXACT, (EXACT, EXACT), EXACT, (EXACT, EXACT), 0.1, EXACT)
BYTE = 1 / 255 + 1e-5
PAIRS = {
    # float32 but for colour and opacity bytes, rounded down
    "hamburger ksplat 0": ("ply/hamburger.ply", "ksplat/hamburger_c0.ksplat",
        SAME._replace(opacities=BYTE, colors=(BYTE, BYTE))),
    # centres in steps of 5 / 65534, float16
    "hamburger ksplat 1": ("ply/hamburger.ply", "ksplat/hamburger_c1.ksplat",
        Tolerance(4e-5, (1e-3, 5e-3), BYTE, (BYTE, BYTE), 0.1, 2.5e-3)),
    # 12 fractional bits, log-scales in steps of 1/16 and not below -10, colour bytes over +-3.33
    "hamburger spz 3": ("ply/hamburger.ply", "spz/hamburger_v3.spz",
        Tolerance(1.3e-4, (0.032, 1.6), 0.002, (0.0038, 0.0038), 0.2, 0.07)),
    # 16-bit log centres, quaternion bytes, codebooks of 256
    "hamburger sog": ("ply/hamburger.ply", "sog/hamburger.sog",
        Tolerance(2.5e-5, (0.025, 0.06), BYTE, (0.002, 0.005), 1.3, 0.09)),
    "hamburger glb": ("ply/hamburger.ply", "glb/hamburger.khr_gaussian.glb", SAME),
    "guitar splat": ("compressed_ply/guitar.compressed.ply", "splat/guitar.splat",
        Tolerance(EXACT, (EXACT, EXACT), BYTE, (0.02, 0.02), 1.8, 0.03)),
    "playbot compressed": ("ply/playbot_sh2.ply", "compressed_ply/playbot_sh2.compressed.ply",
        Tolerance(6e-4, (4e-3, 5e-3), EXACT, (0.007, 0.009), 0.3, 0.009, (0.016, 0.016))),
    # SH in 5 and 4 bits over [-1, 1): few lie outside
    "playbot spz 4": ("ply/playbot_sh2.ply", "spz/playbot_sh2_v4.spz",
        Tolerance(1.3e-4, (0.032, 0.032), EXACT, (0.0038, 2.6), 0.25, 0.07, (0.35, 2.0))),
    "playbot sog": ("ply/playbot_sh2.ply", "sog/playbot_3_0", SAME),
}  # fmt: skip


@lru_cache(maxsize=4)
def load(path: Path) -> Splats:
    return read_splats(path)


def matched(reference: Splats, other: Splats) -> Splats:
    """``reference`` in the order of ``other``; every gaussian must be met once."""
    index = cKDTree(reference.means.numpy()).query(other.means.numpy())[1]
    assert len(np.unique(index)) == len(other) == len(reference)
    return reference[torch.from_numpy(index)]


def worst(error: torch.Tensor) -> tuple[float, float]:
    """The 99 % quantile over gaussians, and the largest error."""
    rows = error.reshape(len(error), -1).abs().amax(dim=1)
    return float(rows.quantile(0.99)), float(rows.max())


def covariances(splats: Splats) -> torch.Tensor:
    axes = quat_to_rotmat(splats.quats) * splats.scales[:, None]
    return axes @ axes.transpose(1, 2)  # [N, 3, 3]


@pytest.mark.real_data
@pytest.mark.parametrize("pair", PAIRS)
def test_same_object(real_data, pair):
    first, second, limit = PAIRS[pair]
    other = load(real_data / "splats" / second)
    reference = matched(load(real_data / "splats" / first), other)
    assert worst(other.means - reference.means)[1] <= limit.means
    assert_within(worst(other.scales.log() - reference.scales.log()), limit.log_scales)
    assert worst(other.opacities - reference.opacities)[1] <= limit.opacities
    colors = [s.colors.clamp(0, 1) if "splat" in pair else s.colors for s in (other, reference)]
    assert_within(worst(colors[0] - colors[1]), limit.colors)
    dots = (other.quats.double() * reference.quats.double()).sum(dim=1).abs().clamp(max=1)
    assert float(torch.rad2deg(2 * torch.acos(dots)).max()) <= limit.degrees
    stored, expected = covariances(other), covariances(reference)
    size = expected.flatten(1).norm(dim=1)[:, None, None]
    assert worst((stored - expected) / size)[1] <= limit.covariance
    assert other.sh_degree == reference.sh_degree
    if other.sh_degree:
        assert_within(worst(other.shN - reference.shN), limit.shN)


def assert_within(errors: tuple[float, float], limits: tuple[float, float]) -> None:
    assert errors[0] <= limits[0] and errors[1] <= limits[1], f"{errors} exceed {limits}"


@pytest.mark.real_data
def test_lower_sh_degree_is_the_start_of_the_higher(real_data):
    low, high = (load(real_data / "splats/ply" / f"playbot_sh{degree}.ply") for degree in (1, 2))
    assert (low.sh_degree, high.sh_degree) == (1, 2)
    assert torch.equal(low.shN, high.shN[:, :3]) and torch.equal(low.means, high.means)


@pytest.mark.real_data
def test_sh_agrees_better_than_with_any_band_mirrored(real_data):
    """A wrong frame would flip the sign of some SH coefficients; the quantisation alone must explain the errors."""
    other = load(real_data / "splats/spz/playbot_sh2_v4.spz")
    reference = matched(load(real_data / "splats/ply/playbot_sh2.ply"), other)
    right = (other.shN - reference.shN).abs().mean(dim=(0, 2))
    mirrored = (other.shN + reference.shN).abs().mean(dim=(0, 2))
    assert (right < 0.03).all() and (mirrored > 3 * right).all()


TINY = ("minimal.splat", "minimal.ksplat", "minimal-v3.spz", "minimal-v4.spz")


@pytest.mark.real_data
@pytest.mark.parametrize("name", TINY[1:])
def test_tiny_files_agree(real_data, name):
    reference, other = (load(real_data / "splats/tiny" / n) for n in (TINY[0], name))
    assert torch.equal(other.means, reference.means)
    torch.testing.assert_close(other.colors, reference.colors, rtol=0, atol=0.004)
    torch.testing.assert_close(other.opacities, reference.opacities)
    # the rotations of these four round gaussians differ between the files, and cannot be seen
    torch.testing.assert_close(covariances(other), covariances(reference), rtol=0.07, atol=1e-5)
