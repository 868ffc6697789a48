"""Batches: padding, normalisation, what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clipgs_lib.splats import Splats
from clipgs_lib.tokenizer import SplatBatch, TokenizerWarning, collate
from tests.conftest import make_splats


def test_objects_are_normalised_and_padded():
    parts = [make_splats(30), make_splats(12, degree=2, seed=1)]
    batch = collate(parts)
    assert len(batch) == 2 and batch.means.shape == (2, 30, 3) and batch.mask.sum(dim=1).tolist() == [30, 12]
    wanted = parts[1].normalize()
    assert torch.equal(batch.means[1, :12], wanted.means) and torch.equal(batch.scales[1, :12], wanted.scales)
    assert torch.equal(batch.colors[1, :12], parts[1].colors.clamp(0, 1))
    assert not batch.means[1, 12:].any() and not batch.colors[1, 12:].any()
    assert torch.equal(collate(parts, normalize=False).means[0], parts[0].means)


def test_what_is_not_finite_is_left_out_and_counted():
    good = make_splats(20)
    means, scales = good.means.clone(), good.scales.clone()
    means[3, 1], scales[7, 0] = torch.nan, torch.inf
    with pytest.warns(TokenizerWarning, match=r"left out 2 gaussians that are not finite, of 1 of 2 objects"):
        batch = collate([replace(good, means=means, scales=scales), good])
    keep = torch.ones(20, dtype=torch.bool)
    keep[[3, 7]] = False
    assert torch.equal(batch.mask[0], keep)
    assert torch.equal(batch.means[0][keep], good[keep].normalize().means)  # rows keep their places
    assert all(getattr(batch, name).isfinite().all() for name in ("means", "scales", "quats", "opacities", "colors"))


def test_a_missing_colour_gets_the_default():
    splats = make_splats(5)
    sh0 = splats.sh0.clone()
    sh0[2] = torch.nan
    batch = collate([replace(splats, sh0=sh0)], color_default=0.25)
    assert batch.mask.all() and batch.colors[0, 2].tolist() == [0.25] * 3


def test_what_cannot_be_collated_is_refused():
    splats = make_splats(4)
    with pytest.raises(TypeError, match=r"for one object write collate\(\[splats\]\)"):
        collate(splats)
    with pytest.raises(ValueError, match="at least one Splats, got an empty sequence"):
        collate([])
    with pytest.raises(ValueError, match=r"at least one finite gaussian, got none of 4 in object 1 \(broken\)"):
        collate([splats, replace(splats, means=splats.means * torch.nan, source="broken")])
    with pytest.raises(ValueError, match="object 0: normalize needs at least two different centres"):
        collate(
            [Splats(**{n: getattr(splats[:1], n) for n in ("means", "quats", "scales", "opacities", "sh0", "shN")})]
        )
    batch = collate([splats])
    with pytest.raises(ValueError, match=r"opacities must be torch\.float32 \[B, N\] like the mask"):
        replace(batch, opacities=batch.opacities[..., None])
    with pytest.raises(ValueError, match=r"mask must be torch\.bool \[B, N\]"):
        replace(batch, mask=batch.mask.float())
    assert isinstance(batch.to("cpu"), SplatBatch)
