"""Search by faiss: its recall is what it says, it is built once for the rows there are; what is said without faiss."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from clipgs_lib.gallery import Gallery, GalleryError, Query, Term, ask
from clipgs_lib.gallery import approximate as module
from clipgs_lib.gallery.approximate import FACTS, INDEX, use_faiss

from ..conftest import clipgs
from .test_gallery import TEACHER, made, unit


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="faiss is an extra: pip install 'clipgs_lib[ann]'")


def saved(folder: Path, count: int = 3_000, seed: int = 0) -> Path:
    """A gallery on disk whose rows lie in clusters, as embeddings do."""
    centers = unit(60, 32, seed=9)
    rows = torch.nn.functional.normalize(centers.repeat(count // 60, 1) + 0.4 * unit(count, 32, seed=seed), dim=1)
    return Gallery(rows, [f"k{i}" for i in range(count)], teacher=TEACHER).save(folder)


def test_its_recall_is_what_it_says_and_scores_are_exact(tmp_path, faiss):
    folder = saved(tmp_path / "g")
    exact, gallery, seen = Gallery.open(folder), Gallery.open(folder), []
    recall = use_faiss(gallery, lambda *counts: seen.append(counts))
    assert recall == gallery.recall >= 0.95 and seen[-1] == (3_000, 3_000) and exact.recall == 1
    assert f"recall@10 {recall:.1%}" in gallery._repr_html_() and "faiss" not in exact._repr_html_()
    queries = exact.embeds[torch.arange(0, 3_000, 15)]
    best, near = exact.search(queries, 10), gallery.search(queries, 10)
    same = [len(set(a) & set(b)) / 10 for a, b in zip(best.keys, near.keys, strict=True)]
    assert sum(same) / len(same) == pytest.approx(recall, abs=1e-6)
    cosines = (queries[:, None] * exact.embeds[near.indices]).sum(dim=2)
    assert torch.allclose(near.scores, cosines, atol=1e-5) and near.indices.min() >= 0
    assert (near.scores.diff(dim=1) <= 0).all() and near.indices[:, 0].tolist() == list(range(0, 3_000, 15))
    lists = json.loads((folder / FACTS).read_text())["lists read"]
    assert lists < 54, "it reads some of the lists only"
    hits = ask(gallery, Query((Term("shape", "x", queries[3]),)), 5).hits
    assert hits[0].row == 45 and len(hits) == 5


def test_filters_and_many_hits_are_searched_exactly(tmp_path, faiss):
    folder = saved(tmp_path / "g")
    exact, gallery = Gallery.open(folder), Gallery.open(folder)
    use_faiss(gallery)
    gallery.nearest = lambda queries, k: pytest.fail("not by faiss")
    query = exact.embeds[7]
    assert gallery.search(query, 3, where="key=k1|k2").keys == exact.search(query, 3, where="key=k1|k2").keys
    assert gallery.search(query, 500).keys == exact.search(query, 500).keys


def test_it_is_built_anew_for_other_rows_only(tmp_path, faiss, monkeypatch):
    folder, built = saved(tmp_path / "g"), []
    build = module._build
    monkeypatch.setattr(module, "_build", lambda *given: built.append(1) or build(*given))
    first = use_faiss(Gallery.open(folder))
    assert use_faiss(Gallery.open(folder)) == first and len(built) == 1
    saved(folder, seed=1)
    use_faiss(Gallery.open(folder))
    assert len(built) == 2
    (folder / INDEX).write_bytes((folder / INDEX).read_bytes()[:99])
    use_faiss(Gallery.open(folder))
    (folder / FACTS).write_text("[]")
    use_faiss(Gallery.open(folder))
    assert len(built) == 4
    gallery = Gallery.open(made(3).save(tmp_path / "small"))
    assert use_faiss(gallery) == 1 and gallery.search(unit(1)[0], 3).keys == made(3).search(unit(1)[0], 3).keys


def test_without_faiss_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    gallery = Gallery.open(made().save(tmp_path))
    with pytest.raises(GalleryError, match=r"faiss must be installed, got .*; pip install 'clipgs_lib\[ann\]', or"):
        use_faiss(gallery)
    done = clipgs("search", tmp_path, "--like", "k3", "--approximate")
    assert done.returncode == 2 and "faiss must be installed" in done.stderr and "Traceback" not in done.stderr


def test_the_command_prints_the_recall(tmp_path, faiss):
    done = clipgs("search", saved(tmp_path / "g"), "--like", "k3", "-k", 2, "--approximate")
    assert done.returncode == 0 and "of the exact ten best (recall@10)" in done.stderr and "  k3  " in done.stdout
    with pytest.raises(GalleryError, match="must lie on disk to have an index, got one in memory"):
        use_faiss(made())
