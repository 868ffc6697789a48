"""Minimal pairs: hits against a naive loop, and a small set of them built for real."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from clipgs_lib.catalogue import KINDS
from clipgs_lib.evaluation.benchmarks import build_pairs, pair_hits


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def keys(pairs: int) -> list[str]:
    return [f"{kind}-{number:04d}-{side}" for kind in KINDS for number in range(pairs) for side in (0, 1)]


def test_hits_are_those_of_a_naive_loop():
    names, shapes, texts = keys(5), unit(40, 8), unit(40, 8, seed=1)
    found = pair_hits(names, shapes, texts)
    assert list(found) == list(KINDS)
    for kind in KINDS:
        rows = [row for row, name in enumerate(names) if name.startswith(kind)]
        expected = []
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            hits = [
                float(texts[own] @ shapes[own] > texts[own] @ shapes[other])
                for own, other in ((first, second), (second, first))
            ]
            expected.append(sum(hits) / 2)
        assert found[kind].tolist() == expected


def test_limits_of_hits():
    names, texts = keys(3), unit(24, 8)
    swapped = texts.reshape(-1, 2, 8).flip(1).reshape(-1, 8)
    assert all(hits.tolist() == [1.0] * 3 for hits in pair_hits(names, texts, texts).values())
    assert all(hits.tolist() == [0.0] * 3 for hits in pair_hits(names, swapped, texts).values())
    blind = pair_hits(names, texts[:1].expand(24, -1), texts)  # one embedding for everything
    assert all(hits.tolist() == [0.5] * 3 for hits in blind.values())


def test_one_kind_alone_and_none():
    names = [name for name in keys(2) if name.startswith("count")]
    assert list(pair_hits(names, unit(4, 8), unit(4, 8, seed=2))) == ["count"]
    assert pair_hits([], torch.zeros(0, 8), torch.zeros(0, 8)) == {}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_pairs(tmp_path_factory.mktemp("pairs") / "set", 1, "mini")


def test_pairs_are_a_set_of_test_objects_that_differ_in_one_thing(built):
    assert [row["key"] for row in built.rows] == keys(1)
    assert {row["split"] for row in built.rows} == {"test"} and {row["n_gaussians"] for row in built.rows} == {1024}
    for kind in KINDS:
        a, b = (built.read(f"{kind}-0000-{side}") for side in (0, 1))
        assert a.category == b.category and len(a.texts) == len(b.texts) == 1 and a.texts[0].text != b.texts[0].text
        assert a.provenance["pair"] == b.provenance["pair"] and a.provenance["source"] != b.provenance["source"]
        assert a.image_embeds.shape == (4, 384) and not (a.splats.means == b.splats.means).all()


def test_a_finished_set_is_left_and_another_refused(built):
    before = {path: path.stat().st_mtime_ns for path in built.folder.iterdir()}
    again = build_pairs(built.folder, 1, "mini")
    assert again.manifest == built.manifest
    assert before == {path: path.stat().st_mtime_ns for path in built.folder.iterdir()}
    with pytest.raises(ValueError, match="must be empty or of the same sources"):
        build_pairs(built.folder, 2, "mini")
    with pytest.raises(ValueError, match="no teacher 'nobody'"):
        build_pairs(built.folder.with_name("other"), 1, "nobody")
