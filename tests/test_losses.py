"""Losses against slow references in float64 (loops over i, j, k), their limits, gradients, masks and refusals."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields
from typing import get_args

import pytest
import torch
from torch.nn.functional import normalize

from clipgs_lib import losses
from clipgs_lib.libraries import import_open_clip
from clipgs_lib.losses import voting

SCALE = 7.0
WEIGHTINGS, REDUCTIONS = (get_args(kind) for kind in (voting.Weighting, voting.Reduction))
CHOICES = [entry.name for entry in fields(losses.Voting)]


def voting_of(options: dict) -> losses.Voting:
    """The fields of `Voting` among options, taken out."""
    return losses.Voting(**{name: options.pop(name) for name in CHOICES if name in options})


def votes_of(images, texts, weighting: str, temperature: float = 0.07, **masks) -> torch.Tensor:
    return losses.voting_weights(images, texts, losses.Voting(weighting, temperature=temperature), **masks)


def voting_loss(*inputs, **options) -> torch.Tensor:
    return losses.image_voting_loss(*inputs, voting_of(options), **options)


def clip_gs_loss(shape, images, texts, scale, **options) -> torch.Tensor:
    voting, same, rows = voting_of(options), options.get("same"), options.get("rows")
    keep, valid = None if same is None else ~same, options.get("text_valid")
    text = losses.pair_loss(shape, texts, scale, keep=keep, valid=valid, rows=rows)
    return text + losses.image_voting_loss(shape, images, texts, scale, voting, **options)


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1)


def batch(size: int = 6, views: int = 4, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Splats [B, D], views [B, K, D] and texts [B, D] that agree somewhat, so that cosines of both signs occur."""
    shape = unit(size, dim, seed=1)
    images = normalize(shape[:, None] + 2.5 * unit(size, views, dim, seed=2), dim=-1)
    texts = normalize(shape + 1.2 * unit(size, dim, seed=3), dim=-1)
    return shape, images, texts


def ragged(size: int = 6, views: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views that are there [B, K] (one object has none), texts that are there [B], and which objects are the same."""
    there = torch.ones(size, views, dtype=torch.bool)
    there[1, 2:] = False
    there[4] = False
    captioned = torch.ones(size, dtype=torch.bool)
    captioned[[2, 4]] = False
    same = losses.same_rows(torch.tensor([0, 1, 2, 0, -1, -1]), torch.tensor([5, 6, 7, 8, 9, 6]))
    return there, captioned, same


# ---- references: one candidate at a time -------------------------------------------------------------------------


def slow_nll(positive: float, negatives: list[float]) -> float:
    """-log softmax of the positive; negatives are (weighted) exponentials."""
    return -math.log(math.exp(positive) / (math.exp(positive) + sum(negatives)))


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return SCALE * sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def slow_pair(a, b, keep=None, valid=None) -> float:
    size, total, counted = len(a), 0.0, 0
    for i in range(size):
        if valid is not None and not valid[i]:
            continue
        counted += 1
        others = [j for j in range(size) if j != i and (keep is None or keep[i, j])]
        total += slow_nll(dot(a[i], b[i]), [math.exp(dot(a[i], b[j])) for j in others if valid is None or valid[j]])
        back = [j for j in range(size) if j != i and (keep is None or keep[j, i])]
        total += slow_nll(dot(b[i], a[i]), [math.exp(dot(b[i], a[j])) for j in back])
    return total / (2 * counted)


def slow_votes(images, texts, weighting, there, captioned, temperature) -> list[list[float]]:
    votes = [[0.0] * images.shape[1] for _ in images]
    for i in range(len(images)):
        mine = [k for k in range(images.shape[1]) if there[i, k]]
        if weighting == "uniform":
            for k in mine:
                votes[i][k] = 1.0
            continue
        if not captioned[i] or not mine:
            continue
        cosine = {k: dot(images[i, k], texts[i]) / SCALE for k in mine}
        best = max(mine, key=lambda k: cosine[k])
        for k in mine:
            if weighting == "cosine":
                votes[i][k] = max(0.0, cosine[k])
            elif weighting == "softmax":
                total = sum(math.exp(c / temperature) for c in cosine.values())
                votes[i][k] = len(mine) * math.exp(cosine[k] / temperature) / total
            elif weighting == "normalised":
                total = sum(max(0.0, c) for c in cosine.values())
                votes[i][k] = len(mine) * max(0.0, cosine[k]) / total if total else 0.0
            else:
                votes[i][k] = float(len(mine)) if k == best else 0.0
    return votes


def slow_voting(shape, images, votes, counted, reduction, exclude_own, same, there) -> float:
    size, views, total = len(shape), images.shape[1], 0.0
    number = [sum(bool(t) for t in row) for row in there]
    for i in range(size):
        mine = 0.0
        for k in range(views):
            if not there[i, k]:
                continue
            against = []
            for j in range(size):
                for m in range(views):
                    barred = (j, m) == (i, k) or (j == i and exclude_own) or (j != i and same[i, j])
                    if there[j, m] and not barred:
                        against.append(math.exp(dot(shape[i], images[j, m])) / number[j])
            forward = slow_nll(dot(shape[i], images[i, k]), against)
            splats = [j for j in range(size) if j != i and not same[i, j]]
            backward = slow_nll(dot(images[i, k], shape[i]), [math.exp(dot(images[i, k], shape[j])) for j in splats])
            mine += votes[i][k] * (forward + backward)
        total += mine / number[i] if reduction == "mean" and number[i] else mine
    return total / (2 * counted)


def slow_multi_positive(shape, positives, same, there) -> float:
    size, views, total, counted = len(shape), positives.shape[1], 0.0, 0
    for i in range(size):
        mine = [k for k in range(views) if there[i, k]]
        others = [j for j in range(size) if j != i and not same[i, j]]
        away = 0.0
        for j in others:
            theirs = [math.exp(dot(shape[i], positives[j, m])) for m in range(views) if there[j, m]]
            away += sum(theirs) / len(theirs) if theirs else 0.0
        if not mine or away == 0:
            continue
        counted += 1
        for k in mine:
            back = sum(math.exp(dot(positives[i, k], shape[j])) for j in others)
            total += (math.log(away) + math.log(back) - 2 * dot(shape[i], positives[i, k])) / len(mine)
    return total / (2 * counted)


# ---- parity ------------------------------------------------------------------------------------------------------


def close(fast: torch.Tensor, slow: float) -> None:
    assert fast.item() == pytest.approx(slow, abs=1e-12, rel=1e-10)


def test_pair_loss_is_open_clips_and_the_slow_one():
    shape, _, texts = batch()
    fast = losses.pair_loss(shape, texts, SCALE)
    assert torch.equal(fast, import_open_clip().loss.ClipLoss()(shape, texts, torch.tensor(SCALE)))
    close(fast, slow_pair(shape, texts))
    close(losses.pair_loss(shape, texts, SCALE, keep=torch.ones(6, 6, dtype=torch.bool)), slow_pair(shape, texts))


def test_masked_pair_loss_is_the_slow_one():
    shape, _, texts = batch()
    _, captioned, same = ragged()
    close(losses.pair_loss(shape, texts, SCALE, valid=captioned), slow_pair(shape, texts, valid=captioned))
    close(losses.pair_loss(shape, texts, SCALE, keep=~same), slow_pair(shape, texts, keep=~same))
    close(
        losses.pair_loss(shape, texts, SCALE, keep=~same, valid=captioned),
        slow_pair(shape, texts, keep=~same, valid=captioned),
    )
    one_way = torch.ones(6, 6, dtype=torch.bool)
    one_way[0, 3] = False  # the reverse direction masks the transposed entry
    close(losses.pair_loss(shape, texts, SCALE, keep=one_way), slow_pair(shape, texts, keep=one_way))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("masked", [False, True])
def test_votes_are_the_slow_ones(weighting, masked):
    _, images, texts = batch()
    there, captioned, _ = ragged() if masked else (torch.ones(6, 4).bool(), torch.ones(6).bool(), None)
    slow = slow_votes(images, texts, weighting, there, captioned, 0.1)
    valid = {"views_valid": there, "text_valid": captioned} if masked else {}
    fast = votes_of(images, texts, weighting, temperature=0.1, **valid)
    assert torch.allclose(fast, torch.tensor(slow, dtype=torch.float64), atol=1e-12)
    assert bool((fast >= 0).all()) and not fast.requires_grad


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("exclude_own", [True, False])
def test_voting_loss_is_the_slow_one(weighting, reduction, exclude_own):
    shape, images, texts = batch()
    full = torch.ones(6, 4, dtype=torch.bool), torch.ones(6, dtype=torch.bool), torch.eye(6, dtype=torch.bool)
    for there, captioned, same in (full, ragged()):
        fast = voting_loss(
            shape,
            images,
            texts,
            SCALE,
            weighting=weighting,
            reduction=reduction,
            exclude_own=exclude_own,
            same=same,
            views_valid=there,
            text_valid=captioned,
        )
        counted = there.any(dim=1) & (captioned | (weighting == "uniform"))
        votes = slow_votes(images, texts, weighting, there, captioned, 0.07)
        slow = slow_voting(shape, images, votes, int(counted.sum()), reduction, exclude_own, same, there)
        close(fast, slow)


@pytest.mark.parametrize("masked", [False, True])
def test_multi_positive_loss_is_the_slow_one(masked):
    shape, images, _ = batch()
    there, _, same = ragged()
    if masked:
        close(
            losses.multi_positive_loss(shape, images, SCALE, same=same, valid=there),
            slow_multi_positive(shape, images, same, there),
        )
    else:
        eye = torch.eye(6, dtype=torch.bool)
        close(
            losses.multi_positive_loss(shape, images, SCALE),
            slow_multi_positive(shape, images, eye, torch.ones(6, 4).bool()),
        )


def test_float32_and_autocast_agree_with_float64():
    inputs = batch(size=32, dim=64)
    inputs = unit(32, 64, seed=7), *inputs[1:]  # splats that do not match yet: a loss far from 0
    singles = [x.float() for x in inputs]
    exact = float(clip_gs_loss(*inputs, 100.0))
    assert float(clip_gs_loss(*singles, 100.0)) == pytest.approx(exact, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(clip_gs_loss(*singles, 100.0)) == pytest.approx(exact, rel=1e-5)
    halves = [x.bfloat16() for x in inputs]
    assert clip_gs_loss(*halves, 10.0).dtype == torch.float32


# ---- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighting", ["uniform", "softmax", "top1"])
def test_one_view_with_vote_one_is_the_pair_loss(reduction, weighting):
    shape, images, texts = batch(views=1)
    voted = voting_loss(shape, images, texts, SCALE, weighting=weighting, reduction=reduction)
    close(voted, float(losses.pair_loss(shape, images[:, 0], SCALE)))


def test_uniform_logits_give_the_log_of_the_number_of_candidates():
    size, views = 6, 4
    same = unit(1, 5).expand(size, 5)
    images = same[:, None].expand(size, views, 5)
    close(losses.pair_loss(same, same, SCALE), math.log(size))

    def uniform(**options: object) -> torch.Tensor:
        return voting_loss(same, images, same, SCALE, weighting="uniform", **options)

    back = math.log(size)
    close(uniform(), math.log(size))
    close(uniform(exclude_own=False), (math.log(size + (views - 1) / views) + back) / 2)
    close(uniform(reduction="sum"), views * math.log(size))
    close(losses.multi_positive_loss(same, images, SCALE), math.log(size - 1))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_identical_views_equal_one_view(weighting):
    shape, images, texts = batch()
    texts = images[:, 0]  # so that no cosine is negative
    texts = normalize(texts + 0.3 * unit(6, 5, seed=9), dim=-1)
    one = images[:, :1]
    options = {"weighting": weighting, "reduction": "mean"}
    many = voting_loss(shape, one.expand(-1, 5, -1), texts, SCALE, **options)
    close(many, float(voting_loss(shape, one, texts, SCALE, **options)))
    if weighting == "softmax":
        close(many, float(losses.pair_loss(shape, one[:, 0], SCALE)))


def test_softmax_voting_goes_from_uniform_to_top1_with_its_temperature():
    _, images, texts = batch()
    hot, cold = (votes_of(images, texts, "softmax", temperature=t) for t in (1e6, 1e-4))
    assert torch.allclose(hot, votes_of(images, texts, "uniform"), atol=1e-5)
    assert torch.allclose(cold, votes_of(images, texts, "top1"), atol=1e-9)


def test_votes_average_to_one_except_the_papers_cosine():
    _, images, texts = batch()
    for weighting in ("softmax", "normalised", "uniform", "top1"):
        means = votes_of(images, texts, weighting).mean(dim=1)
        assert torch.allclose(means, torch.ones_like(means)), weighting
    cosine = torch.einsum("bkd,bd->bk", images, texts)
    assert bool((cosine < 0).any())
    assert torch.equal(votes_of(images, texts, "cosine"), cosine.clamp(min=0))


def test_negative_cosines_do_not_vote():
    _, images, texts = batch()
    cosine = torch.einsum("bkd,bd->bk", images, texts)
    assert int((votes_of(images, texts, "cosine") == 0).sum()) == int((cosine <= 0).sum()) > 0
    views = normalize(texts[0] + 0.5 * unit(4, 5, seed=8), dim=-1)  # all views of object 0 near one direction
    images, texts = torch.cat([views[None], images[1:]]), torch.cat([-texts[:1], texts[1:]])  # its text opposite
    for weighting in ("cosine", "normalised"):
        assert votes_of(images, texts, weighting)[0].tolist() == [0, 0, 0, 0]
    assert float(votes_of(images, texts, "softmax")[0].sum()) == pytest.approx(4)


def test_a_batch_without_the_false_negative_has_no_floor():
    """The same caption twice among 8: unmasked, the loss of a perfect model stays at 2/8 · log 2 (REFERENCE, traps)."""
    shape = torch.eye(8, dtype=torch.float64)
    shape[1] = shape[0]
    assert float(losses.pair_loss(shape, shape, 100.0)) == pytest.approx(math.log(2) / 4, abs=1e-9)  # 0.173
    same = losses.same_rows(torch.tensor([3, 3, 0, 1, 2, 4, 5, 6]))
    assert float(losses.pair_loss(shape, shape, 100.0, keep=~same)) == pytest.approx(0, abs=1e-9)
    for weighting in WEIGHTINGS:
        voted = voting_loss(shape, shape[:, None], shape, 100.0, weighting=weighting, same=same)
        assert float(voted) == pytest.approx(0, abs=1e-9)


# ---- masks -------------------------------------------------------------------------------------------------------


def test_same_rows_joins_ids_and_negative_ids_join_nobody():
    same = losses.same_rows(torch.tensor([0, 0, 1, -1, -1]), torch.tensor([5, 6, 6, 7, 8]))
    pairs = {tuple(p) for p in same.nonzero().tolist() if p[0] < p[1]}
    assert pairs == {(0, 1), (1, 2)}
    assert torch.equal(same, same.T) and bool(same.diagonal().all())


@pytest.mark.parametrize("content", [0.0, 1e9, math.nan, math.inf])
def test_masked_rows_may_hold_anything(content):
    shape, images, texts = batch()
    there, captioned, same = ragged()
    options = {"views_valid": there, "text_valid": captioned, "same": same}
    for weighting in WEIGHTINGS:
        results = []
        for fill in (0.5, content):
            splats = shape.clone().requires_grad_()
            views = torch.where(there[..., None], images, fill)
            words = torch.where(captioned[:, None], texts, fill)
            loss = clip_gs_loss(splats, views, words, SCALE, weighting=weighting, **options)
            loss = loss + losses.multi_positive_loss(splats, views, SCALE, same=same, valid=there)
            loss.backward()
            results.append((loss.detach(), splats.grad))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1]) and bool(results[0][1].isfinite().all())


def test_nobody_left_gives_zero_with_zero_gradients():
    shape, images, texts = batch()
    none = torch.zeros(6, dtype=torch.bool)
    everybody = torch.ones(6, 6, dtype=torch.bool)
    for weighting in WEIGHTINGS:
        splats = shape.clone().requires_grad_()
        empty = clip_gs_loss(
            splats, images, texts, SCALE, views_valid=none[:, None].expand(6, 4), text_valid=none, weighting=weighting
        )
        alone = clip_gs_loss(splats, images, texts, SCALE, same=everybody, weighting=weighting)
        bare = losses.multi_positive_loss(splats, images, SCALE, same=everybody)
        (empty + alone + bare).backward()
        assert [x.item() for x in (empty, alone, bare)] == [0, 0, 0]
        assert torch.equal(splats.grad, torch.zeros_like(shape))


def test_a_view_that_is_not_there_changes_nothing_at_all():
    shape, images, texts = batch()
    fewer = torch.ones(6, 4, dtype=torch.bool)
    fewer[:, 3] = False
    for weighting in WEIGHTINGS:
        masked = voting_loss(shape, images, texts, SCALE, weighting=weighting, views_valid=fewer)
        close(masked, float(voting_loss(shape, images[:, :3], texts, SCALE, weighting=weighting)))


def test_order_of_objects_and_views_does_not_matter():
    shape, images, texts = batch()
    there, captioned, same = ragged()
    rows, views = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 3, 1])
    for weighting in WEIGHTINGS:
        one = clip_gs_loss(
            shape, images, texts, SCALE, weighting=weighting, views_valid=there, text_valid=captioned, same=same
        )
        other = clip_gs_loss(
            shape[rows],
            images[rows][:, views],
            texts[rows],
            SCALE,
            weighting=weighting,
            views_valid=there[rows][:, views],
            text_valid=captioned[rows],
            same=same[rows][:, rows],
        )
        close(one, float(other))


# ---- gradients, temperature, processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("exclude_own", [True, False])
def test_gradients_of_the_voting_loss(weighting, exclude_own):
    shape, images, texts = batch(size=6, views=4, dim=3)
    there, captioned, same = ragged()

    def loss(direction: torch.Tensor, log: torch.Tensor) -> torch.Tensor:
        return clip_gs_loss(
            normalize(direction, dim=-1),
            images,
            texts,
            log.exp(),
            weighting=weighting,
            exclude_own=exclude_own,
            views_valid=there,
            text_valid=captioned,
            same=same,
        )

    log = torch.tensor(math.log(SCALE), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (1.7 * shape.requires_grad_(), log))


def test_gradients_of_the_other_losses():
    shape, images, texts = batch(size=6, views=4, dim=3)
    there, captioned, same = ragged()
    log = torch.tensor(math.log(SCALE), dtype=torch.float64, requires_grad=True)

    def loss(splats: torch.Tensor, views: torch.Tensor, log: torch.Tensor) -> torch.Tensor:
        splats, views, scale = normalize(splats, dim=-1), normalize(views, dim=-1), log.exp()
        masked = losses.pair_loss(splats, texts, scale, valid=captioned, keep=~same)
        masked = masked + losses.pair_loss(splats, views[:, 0], scale, valid=there[:, 0], keep=~same)
        plain = losses.pair_loss(splats, texts, scale)
        return masked + plain + losses.multi_positive_loss(splats, views, scale, same=same, valid=there)

    assert torch.autograd.gradcheck(loss, (1.7 * shape.requires_grad_(), 0.6 * images.requires_grad_(), log))


def test_votes_send_no_gradient_to_texts():
    shape, images, texts = batch()
    texts.requires_grad_()
    voting_loss(shape.requires_grad_(), images, texts, SCALE, weighting="softmax").backward()
    assert texts.grad is None and shape.grad is not None


@pytest.mark.parametrize("cuts", [(0, 3, 6), (0, 1, 6), (0, 2, 5, 6)])
def test_shares_of_processes_sum_to_the_whole(cuts):
    """Each process sees all gathered rows and computes its own; sums of losses and of gradients are the whole ones."""
    shape, images, texts = batch()
    there, captioned, same = ragged()

    def loss(splats: torch.Tensor, weighting: str, rows: slice | None) -> torch.Tensor:
        total = clip_gs_loss(
            splats,
            images,
            texts,
            SCALE,
            weighting=weighting,
            exclude_own=False,
            views_valid=there,
            text_valid=captioned,
            same=same,
            rows=rows,
        )
        total = total + losses.multi_positive_loss(splats, images, SCALE, same=same, valid=there, rows=rows)
        return total + losses.pair_loss(splats, images[:, 0], SCALE, valid=there[:, 0], rows=rows)

    for weighting in WEIGHTINGS:
        whole, parts = shape.clone().requires_grad_(), shape.clone().requires_grad_()
        expected = loss(whole, weighting, None)
        shares = [loss(parts, weighting, slice(a, b)) for a, b in itertools.pairwise(cuts)]
        close(sum(shares), expected.item())
        expected.backward()
        sum(shares).backward()
        assert torch.allclose(whole.grad, parts.grad, atol=1e-12)


def test_logit_scale_learns_and_stays_in_range():
    scale = losses.LogitScale()
    assert scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert list(scale.state_dict()) == ["log"]
    shape = unit(4, 8, dtype=torch.float32)
    optimiser = torch.optim.SGD(scale.parameters(), lr=50.0)
    for _ in range(20):  # a perfect match asks for an ever larger scale
        optimiser.zero_grad()
        losses.pair_loss(shape, shape, scale()).backward()
        assert bool(scale.log.grad.isfinite())
        optimiser.step()
        assert scale().item() <= 100.001
        scale.clamp_()
    assert scale().item() > 15
    with torch.no_grad():
        scale.log.fill_(9.0)
    assert scale().item() == pytest.approx(100, rel=1e-5)
    scale.clamp_()
    losses.pair_loss(shape, shape.flip(0), scale()).backward()
    assert float(scale.log.grad) != 0  # at the limit it can still go back
    with torch.no_grad():
        scale.log.fill_(-3.0)
    assert scale().item() == 1


def test_one_batch_is_overfitted():
    _, images, texts = batch(size=8, views=3, dim=16)
    texts = normalize(images.mean(dim=1) + 0.2 * texts, dim=-1)
    start = normalize(unit(8, 16, seed=5), dim=-1).requires_grad_()
    scale = losses.LogitScale().double()
    optimiser = torch.optim.Adam([start, *scale.parameters()], lr=0.05)
    history = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = clip_gs_loss(normalize(start, dim=-1), images, texts, scale(), weighting="softmax")
        loss.backward()
        optimiser.step()
        scale.clamp_()
        history.append(float(loss.detach()))
    assert history[-1] < 0.1 * history[0]
    nearest = (normalize(start.detach(), dim=-1) @ texts.T).argmax(dim=1)
    assert nearest.tolist() == list(range(8))


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_a_batch_of_one_is_refused():
    shape, images, texts = (x[:1] for x in batch())
    for call in (
        lambda: losses.pair_loss(shape, texts, SCALE),
        lambda: voting_loss(shape, images, texts, SCALE),
        lambda: losses.multi_positive_loss(shape, images, SCALE),
        lambda: clip_gs_loss(shape, images, texts, SCALE),
    ):
        with pytest.raises(ValueError, match=r"at least 2 objects, got 1.*larger batches"):
            call()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_rows_are_named(bad):
    shape, images, texts = batch()
    broken = texts.clone()
    broken[[2, 5], 1] = bad
    with pytest.raises(ValueError, match=r"b must be finite.* rows 2, 5;"):
        losses.pair_loss(shape, broken, SCALE)
    with pytest.raises(ValueError, match=r"texts must be finite.* rows 2, 5;"):
        voting_loss(shape, images, broken, SCALE)
    views = images.clone()
    views[3, 1, 0] = bad
    with pytest.raises(ValueError, match=r"images must be finite.* rows \(3, 1\);"):
        voting_loss(shape, views, texts, SCALE)
    splats = shape.clone()
    splats[:, 0] = bad
    with pytest.raises(ValueError, match=r"shape must be finite.* rows 0, 1, 2, 3, 4, 5;"):
        losses.multi_positive_loss(splats, images, SCALE)


def test_bad_input_is_told_what_to_do():
    shape, images, texts = batch()
    keep = torch.ones(6, 6, dtype=torch.bool)
    cases = [
        (
            lambda: losses.pair_loss(2 * shape, texts, SCALE),
            r"a must be unit-norm, got norms from 2 to 2.*normalize\(a",
        ),
        (lambda: losses.pair_loss(shape, texts[:5], SCALE), r"b must be float \[6, 5\], got torch.float64 \[5, 5\]"),
        (lambda: losses.pair_loss(shape[0], texts, SCALE), r"a must be \[B, D\], got \[5\]"),
        (lambda: losses.pair_loss(shape, texts, -1.0), r"positive number \(already exponentiated\), got -1"),
        (lambda: losses.pair_loss(shape, texts, math.nan), r"positive number"),
        (lambda: losses.pair_loss(shape, texts, torch.ones(2)), r"one positive number"),
        (lambda: losses.pair_loss(shape, texts, SCALE, keep=keep[:5]), r"keep must be bool \[6, 6\]"),
        (lambda: losses.pair_loss(shape, texts, SCALE, keep=keep.float()), r"keep must be bool .* torch.float32"),
        (lambda: losses.pair_loss(shape, texts, SCALE, valid=keep), r"mask of b must be bool \[6\]"),
        (lambda: voting_loss(shape, texts, texts, SCALE), r"\[B, K, D\].*view axis missing"),
        (lambda: voting_loss(shape, images[:, :0], texts, SCALE), r"K >= 1, got \[6, 0, 5\]"),
        (lambda: voting_loss(shape[:4], images, texts, SCALE), r"images must be \[4, K, 5\] like shape"),
        (lambda: voting_loss(shape, images, texts, SCALE, weighting="best"), r"weighting must be one of"),
        (lambda: voting_loss(shape, images, texts, SCALE, reduction="max"), r"reduction must be one of"),
        (lambda: voting_loss(shape, images, texts, SCALE, temperature=0), r"temperature must be > 0"),
        (lambda: voting_loss(shape, images, texts, SCALE, same=keep[0]), r"same must be bool \[6, 6\]"),
        (lambda: voting_loss(shape, images, texts, SCALE, views_valid=keep), r"mask of images"),
        (lambda: losses.same_rows(), r"ids must be integer tensors"),
        (lambda: losses.same_rows(torch.zeros(3)), r"ids must be integer tensors"),
        (lambda: losses.LogitScale(init=0.07), r"1 <= init <= 100.*1/scale"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
