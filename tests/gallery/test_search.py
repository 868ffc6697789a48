"""Search by codes: always what a full sort gives, for rows that make it hard as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipgs_lib.gallery import search
from clipgs_lib.gallery.search import Block, best_rows, encode_rows


def unit(count: int, dim: int = 48, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def near(count: int, dim: int = 48) -> torch.Tensor:
    """Rows that differ by less than their codes can say."""
    return torch.nn.functional.normalize(unit(1, dim) + 1e-3 * unit(count, dim, seed=1), dim=1)


def spikes(count: int, dim: int = 48) -> torch.Tensor:
    """Rows with one large number, whose others are rounded away."""
    rows = 0.002 * unit(count, dim)
    rows[torch.arange(count), torch.arange(count) % dim] = 1.0
    return torch.nn.functional.normalize(rows, dim=1)


def plain(rows: torch.Tensor, query: torch.Tensor, k: int, allowed: torch.Tensor | None = None) -> torch.Tensor:
    scores = (rows.double() @ query.double()).float()
    if allowed is not None:
        scores[~allowed] = -2
    return scores.topk(k).values


@pytest.mark.parametrize("make", [unit, near, spikes])
@pytest.mark.parametrize("count", [2_000, 2_001, 4_159])
def test_codes_give_what_a_full_sort_gives(make, count):
    rows, queries = make(count), torch.cat([unit(2, seed=5), make(count)[7:9]])
    blocks = [Block(rows, encode_rows(rows))]
    indices, scores = best_rows(blocks, queries, 5, None)
    for query, line, values in zip(queries, indices, scores, strict=True):
        assert torch.allclose(values, plain(rows, query, 5), atol=2e-7)
        assert torch.allclose(rows[line] @ query, values, atol=2e-7) and len(set(line.tolist())) == 5


def test_a_mask_holds_and_may_leave_few_or_none():
    rows, query = unit(4_000), unit(1, seed=3)
    blocks = [Block(rows, encode_rows(rows))]
    for share in (0.5, 0.01):
        allowed = torch.rand(4_000, generator=torch.Generator().manual_seed(1)) < share
        indices, scores = best_rows(blocks, query, 6, allowed)
        assert bool(allowed[indices[0]].all()) and torch.allclose(scores[0], plain(rows, query[0], 6, allowed))
    two = torch.zeros(4_000, dtype=torch.bool)
    two[[17, 3_999]] = True
    assert sorted(best_rows(blocks, query, 6, two)[0][0].tolist()) == [17, 3_999]
    assert best_rows(blocks, query, 6, torch.zeros_like(two))[0].shape == (1, 0)


def test_parts_and_many_queries_make_no_difference():
    rows, queries = unit(6_000), unit(9, seed=4)
    whole = best_rows([Block(rows)], queries, 12, None)
    cut = [rows[:4_500], rows[4_500:5_990], rows[5_990:]]
    for blocks in ([Block(part, encode_rows(part)) for part in cut], [Block(rows, encode_rows(rows))]):
        for some in (queries, queries[:2]):
            indices, scores = best_rows(blocks, some, 12, None)
            assert torch.equal(indices, whole[0][: len(some)]) and torch.allclose(scores, whole[1][: len(some)])


def test_of_equal_rows_the_lower_comes_first_by_codes_too():
    rows = unit(3_000)
    rows[[40, 1_500, 2_999]] = rows[40].clone()
    assert best_rows([Block(rows, encode_rows(rows))], rows[40:41], 2, None)[0].tolist() == [[40, 1_500]]


@pytest.mark.parametrize("dim", [1, 3, 384, 1_024, 2_048])
def test_codes_keep_their_word(dim):
    rows = torch.cat([unit(50, dim), torch.eye(dim)[:1].repeat(2, 1)])
    codes = encode_rows(rows)
    rest = rows - codes.codes.float() * codes.scales[:, None]
    assert bool((rest.norm(dim=1) <= codes.errors + 1e-7).all()) and float(codes.errors.max()) < 0.02
    assert int(codes.codes.abs().max()) == 127


def test_sums_of_codes_do_not_overflow():
    rows = torch.nn.functional.normalize(torch.ones(2_000, 4_096), dim=1)
    rows[1_234] *= -1
    indices, scores = best_rows([Block(rows, encode_rows(rows))], -rows[:1], 3, None)
    assert indices[0, 0] == 1_234 and np.allclose(scores[0].numpy(), [1, -1, -1], atol=1e-5)


def test_few_rows_are_scored_exactly(monkeypatch):
    rows, seen = unit(20_000), []
    plain_best = search._best_of
    monkeypatch.setattr(search, "_best_of", lambda s, rows, k: seen.append(len(rows)) or plain_best(s, rows, k))
    best_rows([Block(rows, encode_rows(rows))], unit(1, seed=9), 10, None)
    assert seen and max(seen) < 1_000
