"""The embedded samples: what they promise, and that data/samples is what the code makes."""

from __future__ import annotations

import pytest
import torch

from clipgs_lib.formats import read_splats
from tests.conftest import ROOT
from tests.made_samples import COUNTS, make_sample


@pytest.mark.parametrize("name", COUNTS)
def test_samples_are_finite_unit_sized_and_repeatable(name):
    splats = make_sample(name, 500)
    assert len(splats) == 500
    assert splats.prune()[1].removed == 0
    assert float(splats.means.norm(dim=1).max()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(splats.means, make_sample(name, 500).means)
    assert not torch.equal(splats.means, make_sample(name, 500, seed=1).means)


def test_gaussians_lie_flat_on_their_surface():
    """On the ball the thin axis is the radius."""
    from clipgs_lib import geometry

    ball = make_sample("ball", 400)
    thin = geometry.quat_to_rotmat(ball.quats)[:, :, 2]
    centre = ball.means.double()
    radial = torch.nn.functional.normalize(centre - centre.mean(0), dim=1).float()
    assert float((thin * radial).sum(1).abs().median()) > 0.995


def test_only_the_knot_shines():
    assert make_sample("knot", 200).sh_degree == 3
    assert make_sample("knot", 200).shN.abs().max() > 0.05
    assert make_sample("mug", 200).sh_degree == 0


@pytest.mark.parametrize("name", COUNTS)
def test_committed_files_are_what_the_code_makes(name):
    stored, made = read_splats(ROOT / "data" / "samples" / f"{name}.ply"), make_sample(name, COUNTS[name])
    assert len(stored) == len(made)
    for column in ("means", "scales", "opacities", "sh0", "shN"):
        assert torch.allclose(getattr(stored, column), getattr(made, column), atol=1e-5), column
    assert float((stored.quats * made.quats).sum(1).abs().min()) > 1 - 1e-5


def test_unknown_names_and_tiny_counts_are_refused():
    with pytest.raises(ValueError, match="mug, ball, knot"):
        make_sample("teapot")
    with pytest.raises(ValueError, match="at least 100"):
        make_sample("mug", 10)
