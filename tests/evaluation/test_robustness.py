"""What changes do to splats, and that only they show in the measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipgs_lib import evaluation
from clipgs_lib.encoders import build_encoder
from clipgs_lib.evaluation import Results, robustness
from clipgs_lib.formats import FORMATS

from ..conftest import make_splats
from ..training.samples import KINDS, TEACHER


@pytest.fixture(scope="module")
def splats():
    return make_splats(200, degree=1, seed=0).normalize()


def changed(splats, name, seed=0):
    return robustness.changes_of(splats.sh_degree)[name](splats, np.random.default_rng(seed))


def test_every_writable_format_is_there_and_keeps_the_object_in_its_frame(splats):
    names = [name for name, module in FORMATS.items() if hasattr(module, "write")]
    assert {f"as {name}" for name in names} == {n for n in robustness.changes_of(1) if n.startswith("as ")}
    for name in names:
        found = changed(splats, f"as {name}")
        assert len(found) == len(splats) and found.up_axis == splats.up_axis
        gaps = torch.cdist(splats.means, found.means).amin(dim=1)
        assert float(gaps.max()) < 0.02, name


def test_changes_do_what_their_names_say(splats):
    assert (
        len(changed(splats, "half of the gaussians")) == 100 and len(changed(splats, "a tenth of the gaussians")) == 20
    )
    turned = changed(splats, "turned by 180 degrees")
    assert turned.up_axis == splats.up_axis and not torch.allclose(turned.means, splats.means, atol=0.1)
    whole = changed(turned, "turned by 180 degrees")
    assert torch.allclose(whole.means, splats.means, atol=1e-5)
    up = "xyz".index(splats.up_axis[1]) if splats.up_axis != "unknown" else 1
    tilted = changed(splats, "tilted by 30 degrees")
    assert not torch.allclose(tilted.means[:, up], splats.means[:, up], atol=0.05)
    floating = changed(splats, "5 % floaters")
    assert len(floating) == 210 and torch.equal(floating.means[:200], splats.means)
    half = changed(splats, "half of the object cut off")
    assert len(half) == pytest.approx(100, abs=1) and half.means.unique(dim=0).shape[0] == len(half)
    grey = changed(splats, "colours dropped")
    assert grey.sh_degree == 0 and torch.allclose(grey.colors, torch.full((200, 3), 0.5))
    bright = changed(splats, "colours jittered")
    assert not torch.allclose(bright.colors, splats.colors, atol=0.01) and torch.equal(bright.means, splats.means)
    assert changed(splats, "SH above degree 0 dropped").sh_degree == 0
    assert "SH above degree 0 dropped" not in robustness.changes_of(0)


def test_the_same_seed_gives_the_same_change(splats):
    for name in robustness.changes_of(1):
        if not name.startswith("as "):
            one, two = (changed(splats, name, seed=5) for _ in range(2))
            assert torch.equal(one.means, two.means) and torch.equal(one.sh0, two.sh0), name


def test_unchanged_splats_drift_nowhere_and_what_a_method_does_not_see_does_not_matter(folder, knowing, monkeypatch):
    objects = evaluation.load_set([folder], "test")
    few = {"colours dropped", "tilted by 30 degrees"}
    all_changes = robustness.changes_of
    monkeypatch.setattr(robustness, "changes_of", lambda d: {n: c for n, c in all_changes(d).items() if n in few})
    methods = {"colours": Colours(), "blind": Blind(), evaluation.BAG: bag()}
    results, said = Results(), []
    weights = knowing.zero_shot_weights(KINDS, ())
    options = {"count": 6, "views": 2, "size": 16, "progress": lambda *numbers: said.append(numbers)}
    robustness.robustness_protocol(results, objects, methods, list(KINDS), weights, **options)
    rows = {(row["task"], row["method"], row["metric"]): row for row in results.rows}
    assert said == [(1, 3), (2, 3), (3, 3)] and len(rows) == 3 * 3 * 4
    for name in methods:
        assert rows[robustness.CLEAN, name, "cosine"]["value"] == pytest.approx(1, abs=1e-5)
        assert rows[robustness.CLEAN, name, "change of Top-5"]["value"] == 0
    assert rows["colours dropped", "colours", "cosine"]["value"] < 0.99
    assert rows["tilted by 30 degrees", "colours", "cosine"]["value"] == pytest.approx(1)
    assert rows["colours dropped", evaluation.BAG, "cosine"]["value"] < 0.9999
    assert rows["tilted by 30 degrees", "blind", "cosine"]["value"] == pytest.approx(1)
    assert all(row["n"] == 6 for row in rows.values())
    wordless = Results()
    robustness.robustness_protocol(wordless, objects, {"blind": methods["blind"]}, [], None, count=3)
    assert {row["metric"] for row in wordless.rows} == {"cosine"}


def bag():
    return build_encoder("bag-mean", TEACHER.dim, teacher="stand-in", teacher_sha256="00")


class Colours:
    """The mean colour of an object, at the first places."""

    inputs = "points"

    def encode(self, objects):
        rows = torch.stack([one.colors.mean(dim=0) for one in objects])
        return torch.nn.functional.normalize(torch.nn.functional.pad(rows, (0, TEACHER.dim - 3)), dim=1)


class Blind:
    """The same embedding for every object."""

    inputs = "splats"

    def encode(self, objects):
        return torch.nn.functional.normalize(torch.ones(len(objects), TEACHER.dim), dim=1)

    def parameters(self):
        return iter([torch.zeros(1_000_000, dtype=torch.float32)])


def test_cost_counts_drawing_only_where_views_are_read(folder, knowing):
    objects = evaluation.load_set([folder], "test")
    threads = torch.get_num_threads()
    results = Results()
    methods = {"blind": Blind(), evaluation.BAG: bag()}
    robustness.cost_protocol(results, objects, methods, tower=knowing.tower, count=3, size=16)
    rows = {(row["method"], row["metric"]): row for row in results.rows}
    assert rows["blind", "MB of weights"]["value"] == 4 and rows["blind", "ms for drawing"]["value"] < 1
    assert rows[evaluation.BAG, "MB of weights"]["value"] == pytest.approx((3 * 5 + 5) * 4 / 1e6)
    assert rows[evaluation.BAG, "MB read"]["value"] == pytest.approx(3 * 16 * 16 * 3 * 4 / 1e6), "three views of floats"
    assert rows[evaluation.BAG, "ms"]["value"] > rows[evaluation.BAG, "ms for drawing"]["value"] > 0
    gaussians = np.mean([len(objects.shards[0].read(key).splats) for key in objects.names[:3]])
    assert rows["blind", "MB read"]["value"] == pytest.approx(gaussians * 14 * 4 / 1e6)
    assert rows["blind", "ms"]["chance"] is None and torch.get_num_threads() == threads
