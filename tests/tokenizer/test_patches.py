"""Patches: coverage, sequence, too small objects."""

from __future__ import annotations

import pytest
import torch

from clipgs_lib.geometry import ORDERS
from clipgs_lib.tokenizer import collate, patchify
from tests.conftest import make_splats


def test_a_patch_holds_the_gaussians_nearest_to_its_centre():
    batch = collate([make_splats(200), make_splats(90, seed=1)])
    patches = patchify(batch, 16, 8)
    for b, n in enumerate((200, 90)):
        distances = torch.cdist(patches.centers[b].double(), batch.means[b, :n].double())
        assert torch.equal(patches.indices[b], distances.topk(8, largest=False).indices)
    assert torch.equal(patches.gather(batch.means)[:, :, 0], patches.centers)
    assert patches.mask.all() and patches.indices[1].max() < 90
    assert not any(value.requires_grad for value in patches)


def test_more_patches_cover_more():
    batch = collate([make_splats(300)])
    shares = [float(patchify(batch, groups, 16).coverage(batch.mask)) for groups in (4, 16, 64, 300)]
    assert shares == sorted(shares) and 0 < shares[0] < 0.25 and shares[-1] == 1


def test_small_objects_repeat_under_a_mask():
    batch = collate([make_splats(5), make_splats(40, seed=2)])
    for sort in (None, "hilbert"):
        patches = patchify(batch, 12, 8, sort=sort)
        assert patches.mask.sum(dim=1).tolist() == [5, 12]
        assert patches.mask[0].tolist() == [True] * 5 + [False] * 7
        assert patches.indices[0].max() < 5
        assert (patches.indices[0, :, 5:] == patches.indices[0, :, :1]).all()
        assert len(set(patches.indices[0, :5, 0].tolist())) == 5


def test_patches_can_follow_a_curve():
    batch = collate([make_splats(300)])
    plain, along = patchify(batch, 32, 8), patchify(batch, 32, 8, sort="hilbert")
    order = ORDERS["hilbert"](plain.centers)[0]
    assert torch.equal(along.centers[0], plain.centers[0, order])
    assert torch.equal(along.indices[0], plain.indices[0, order])
    with pytest.raises(ValueError, match="sort must be None or one of xyz, hilbert, z, got 'x'"):
        patchify(batch, 4, 4, sort="x")
