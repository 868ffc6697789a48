"""Builds: any number of workers, killed and taken up again, with bad objects among them, on full disks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from clipgs_lib.pool import over_processes
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.shards.tar import ShardError
from clipgs_lib.triplets import catalogue_sources, stages
from clipgs_lib.triplets.build import _attempt, build_triplets
from clipgs_lib.triplets.recipe import BuildConfig, Source

from ..conftest import ROOT
from ..shards.shard_samples import small_shards
from .build_samples import cheap, deadly, endless, hopeless, leaving, slow, sources, teacherless, troubled

module = sys.modules["clipgs_lib.triplets.build"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def build(folder: Path, count: int = 12, produce=cheap, **options):
    with small_shards(5):
        return build_triplets(sources(count), folder, produce=produce, **options)


def test_a_set_is_built_and_does_not_depend_on_the_workers(tmp_path):
    seen = []
    report = build(tmp_path / "one", workers=1, progress=lambda *counts: seen.append(counts))
    assert (report.objects, report.quarantined, report.resumed) == (12, 0, 0)
    assert [done for done, _, _ in seen] == list(range(1, 13)) and {(total, bad) for _, total, bad in seen} == {(12, 0)}
    build(tmp_path / "three", workers=3)
    assert files(tmp_path / "one") == files(tmp_path / "three")
    shards = ShardSet(tmp_path / "one")
    assert shards.verify() == [] and sorted(shards.manifest["splits"]) == ["test", "train", "val"]
    assert shards.manifest["build"]["config"]["gaussians"] == 1024
    assert not (tmp_path / "one" / ".building").exists()


def test_another_seed_is_another_set(tmp_path):
    for seed in (0, 1):
        build(tmp_path / str(seed), 4, config=BuildConfig(seed=seed))
    hashes = {ShardSet(tmp_path / str(seed)).manifest["content_sha256"] for seed in (0, 1)}
    assert len(hashes) == 2


def test_bad_objects_are_set_aside_with_their_reason(tmp_path):
    report = build(tmp_path / "set", produce=troubled, workers=2)
    assert (report.objects, report.quarantined) == (8, 4) and "4 set aside in quarantine.jsonl" in str(report)
    lines = [json.loads(line) for line in (tmp_path / "set" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"thing-{i:03d}" for i in (3, 5, 6, 7)]
    assert lines[0]["reason"] == "ValueError: the mesh must have faces, got <b>none</b>"
    assert lines[0]["place"].startswith("build_samples.py, line ") and lines[0]["source"] == "catalogue 3"
    assert "produce must keep the source's key, got 'another'" in lines[2]["reason"]
    assert "0 views" in lines[3]["reason"]
    shards = ShardSet(tmp_path / "set")
    assert [row["key"] for row in shards.rows if row["key"] in {line["key"] for line in lines}] == []
    assert shards["thing-008"].provenance["notes"] == ["decimated from 10,000,000 faces"]
    again = build(tmp_path / "again", produce=troubled, workers=1)
    assert files(tmp_path / "set") == files(again.folder)


def test_an_object_that_kills_its_process_costs_only_itself(tmp_path):
    report = build(tmp_path / "set", 6, produce=deadly, workers=2)
    assert (report.objects, report.quarantined) == (5, 1)
    [line] = (tmp_path / "set" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == "thing-002" and "worker process died" in json.loads(line)["reason"]


def test_an_object_without_end_is_set_aside_and_its_worker_replaced(tmp_path):
    others = worker_processes()
    report = build(tmp_path / "set", 8, produce=endless, workers=2, limit=1.5)
    assert (report.objects, report.quarantined) == (6, 2)
    lines = [json.loads(line) for line in (tmp_path / "set" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["thing-001", "thing-004"]
    assert {line["reason"] for line in lines} == {"it took longer than 1.5 s, so its process was ended"}
    assert worker_processes() <= others


def test_objects_whose_process_died_have_a_second_try(tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()
    monkeypatch.setenv("BUILD_LOG", str(tmp_path / "log"))
    report = build(tmp_path / "set", 4, produce=leaving, workers=2)
    assert (report.objects, report.quarantined) == (4, 0)
    build(tmp_path / "other", 4)
    assert files(tmp_path / "set") == files(tmp_path / "other")


def test_a_build_that_nobody_wants_any_more_leaves_no_worker(tmp_path):
    others = worker_processes()
    results = over_processes(partial(_attempt, endless, BuildConfig()), [[one] for one in sources(8)], workers=2)
    assert next(results)[0][0].index == 0
    assert len(worker_processes() - others) == 2
    results.close()
    assert worker_processes() <= others


def worker_processes() -> set[psutil.Process]:
    """Children of our children, among them those of other tests: workers are forked by a server."""
    return {child for child in psutil.Process().children(recursive=True) if child.ppid() != os.getpid()}


def test_when_nothing_works_there_is_no_set(tmp_path):
    with pytest.raises(ShardError, match=r"at least one of 3 objects must work, .* OSError: no such texture"):
        build(tmp_path / "set", 3, produce=hopeless)
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_a_build_without_its_teacher_stops_and_can_go_on(tmp_path):
    with pytest.raises(ShardError, match="no teacher 'mini'; mend it and build again"):
        build(tmp_path / "set", produce=teacherless)
    report = build(tmp_path / "set")
    assert (report.objects, report.quarantined) == (12, 0) and report.resumed <= 3


def test_a_killed_build_goes_on_with_nothing_lost_or_doubled(tmp_path, monkeypatch):
    """SIGKILL to the parent while two workers are at it: no orphans, and the set is that of an undisturbed build."""
    folder, log = tmp_path / "set", tmp_path / "log"
    command = [sys.executable, "-m", "tests.triplets.build_samples", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"BUILD_LOG": str(log)})
    staged = lambda: [*(folder / ".building").glob("*/*.tar"), *(folder / ".building").glob("*/*.json")]  # noqa: E731
    until(lambda: len(staged()) >= 6 or process.poll() is not None)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(family) >= 2
    until(lambda: not any(child.is_running() and child.status() != "zombie" for child in family))
    before = {path.stem for path in staged()}
    assert 6 <= len(before) < 18 and not (folder / "manifest.json").exists()
    first = log.read_text().split()
    monkeypatch.setenv("BUILD_LOG", str(log))
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    assert set(log.read_text().split()[len(first) :]) == {s.key for s in sources(18)} - before  # none made twice
    monkeypatch.setenv("BUILD_LOG", str(tmp_path / "other-log"))
    undisturbed = build(tmp_path / "undisturbed", 18, produce=slow)  # whose bytes do not depend on the workers
    assert (undisturbed.objects, undisturbed.quarantined) == (17, 1)
    assert files(folder) == files(tmp_path / "undisturbed")


def until(condition, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def test_a_packing_that_was_killed_is_done_again(tmp_path, monkeypatch):
    from clipgs_lib.triplets import staging as module

    def killed(*_args, **_named):
        (tmp_path / "set" / "train-000000.tar").write_bytes(b"half")
        (tmp_path / "set" / ".index.parquet.12.partial").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_set", killed)
        build(tmp_path / "set")
    report = build(tmp_path / "set")
    assert (report.objects, report.resumed) == (12, 12)
    build(tmp_path / "other")
    assert files(tmp_path / "set") == files(tmp_path / "other")


def test_a_finished_set_is_left_alone_and_another_recipe_is_refused(tmp_path):
    build(tmp_path / "set", 4)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}
    report = build(tmp_path / "set", 4)
    assert (report.objects, report.resumed) == (4, 4)
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}
    with pytest.raises(ShardError, match="same sources and options, got views 12 there and 6 now; choose another"):
        build(tmp_path / "set", 4, config=BuildConfig(views=6))
    with pytest.raises(ShardError, match="sources 4 there and 5 now"):
        build(tmp_path / "set", 5)


def test_strangers_and_second_builds_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    with pytest.raises(ShardError, match=r"must be empty, or hold a build to go on with, got thesis.txt"):
        build(tmp_path / "set", 2)
    (tmp_path / "set" / "thesis.txt").unlink()
    (tmp_path / "set" / ".building").mkdir()
    with (tmp_path / "set" / ".building" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ShardError, match="one build may run in a folder"):
            build(tmp_path / "set", 2)


def test_a_full_disk_stops_the_build_and_the_next_one_goes_on(tmp_path, monkeypatch):
    """The disk fills after some objects: one clear error, whole files only, and later the rest."""
    sync, count = os.fsync, {"left": 5}

    def full(descriptor):
        count["left"] -= 1
        if count["left"] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ShardError, match=r"have room, got \[Errno 28\] No space left on device"):
            build(tmp_path / "set", workers=2)
    left = [path for path in (tmp_path / "set").rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in left) == ["", ".json", *[".tar"] * 4]  # lock, recipe, four whole objects
    report = build(tmp_path / "set")
    assert (report.objects, report.resumed) == (12, 4)
    build(tmp_path / "other")
    assert files(tmp_path / "set") == files(tmp_path / "other")


def test_sources_and_numbers_are_checked(tmp_path):
    one = Source("a", "catalogue")
    for wrong in ([], [one, one], [Source("../x", "mesh")]):
        with pytest.raises(ValueError, match=r"at least one source|keys must be unique"):
            build_triplets(wrong, tmp_path / "set", produce=cheap)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        build(tmp_path / "set", 2, workers=0)
    with pytest.raises(ValueError, match="limit must be a positive number of seconds, got 0"):
        build(tmp_path / "set", 2, limit=0)
    for wrong in ({"views": 1}, {"size": 8}, {"gaussians": 3}, {"iterations": -1}, {"quality": 101}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number"):
            BuildConfig(**wrong)
    for wrong in ({"up_axis": "z"}, {"factors": "gamma"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one of"):
            BuildConfig(**wrong)
    assert not (tmp_path / "set").exists()


# ---- batches on CUDA ---------------------------------------------------------------------------------------------

SMALL = BuildConfig(views=2, size=32, gaussians=40, iterations=3, teacher=None)


@pytest.fixture
def on_paper(monkeypatch) -> list[int]:
    """CUDA on paper: fits run on the CPU and workers in this process; gives the sizes of the batches fitted."""
    sizes = list[int]()
    real_job, real_fit = stages.mesh_job, stages.fit_many

    def fit_many(jobs, *arguments, **options):
        sizes.append(len(jobs))
        return real_fit(jobs, *arguments, **options)

    monkeypatch.setattr(stages, "mesh_job", lambda *arguments, device: real_job(*arguments))
    monkeypatch.setattr(stages, "fit_many", fit_many)
    here = lambda work, items, **_: ((item, work(item), "") for item in items)  # noqa: E731
    monkeypatch.setattr(module, "over_processes", here)
    monkeypatch.setattr(module, "BATCH", 3)
    return sizes


def test_on_cuda_objects_are_fitted_in_batches(tmp_path, on_paper):
    cuda = replace(SMALL, device="cuda")
    assert build_triplets(catalogue_sources(7), tmp_path / "cuda", cuda).objects == 7
    assert on_paper == [3, 3, 1]
    build_triplets(catalogue_sources(7), tmp_path / "cpu", SMALL)
    assert on_paper == [3, 3, 1, *[1] * 7]  # one by one on the CPU
    both = [ShardSet(tmp_path / name) for name in ("cuda", "cpu")]
    for key in (row["key"] for row in both[0].rows):
        batched, alone = (shards[key] for shards in both)
        assert batched.views == alone.views and batched.texts == alone.texts
        assert batched.provenance["psnr"] == pytest.approx(alone.provenance["psnr"], abs=1.0)


def test_a_batch_loses_only_the_bad_and_goes_on(tmp_path, on_paper, monkeypatch):
    bad = Source("nothing", "mesh", path=str(tmp_path / "none.glb"), name="none.glb", info={"label": "cup"})
    some = [*catalogue_sources(2), bad, *catalogue_sources(4, start=2)]
    real, cuda = stages.fit_many, replace(SMALL, device="cuda")

    def short_of_memory(jobs, *arguments, **options):
        if len(jobs) > 2:
            raise RuntimeError("CUDA out of memory")
        return real(jobs, *arguments, **options)

    monkeypatch.setattr(stages, "fit_many", short_of_memory)
    report = build_triplets(some, tmp_path / "set", cuda)
    assert (report.objects, report.quarantined) == (6, 1) and on_paper == [2, 1, 1, 1, 1]
    assert "nothing" in (tmp_path / "set" / "quarantine.jsonl").read_text()

    def stop(done, total, aside):
        if done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(stages, "fit_many", real)
    with pytest.raises(KeyboardInterrupt):
        build_triplets(some, tmp_path / "again", cuda, progress=stop)
    assert build_triplets(some, tmp_path / "again", cuda).resumed == 4
    assert files(tmp_path / "set") == files(tmp_path / "again")


def test_a_batch_whose_process_died_is_made_again_one_by_one(tmp_path, on_paper, monkeypatch):
    def died(work, items, **_):
        for item in items:
            yield (item, None, "the worker process died") if item[-1].index in (1, 5) else (item, work(item), "")

    monkeypatch.setattr(module, "over_processes", died)
    report = build_triplets(catalogue_sources(6), tmp_path / "set", replace(SMALL, device="cuda"))
    assert (report.objects, report.quarantined) == (5, 1) and on_paper == [3, 1, 1]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_build_on_a_real_device(tmp_path):
    config = BuildConfig(views=4, size=96, gaussians=512, iterations=100, teacher=None, device="cuda")
    build_triplets(catalogue_sources(20), tmp_path / "cuda", config)
    build_triplets(catalogue_sources(20), tmp_path / "cpu", replace(config, device="cpu"), workers=4)
    psnr = [[row["psnr"] for row in ShardSet(tmp_path / name).rows] for name in ("cuda", "cpu")]
    assert len(psnr[0]) == 20 and np.mean(psnr[0]) == pytest.approx(np.mean(psnr[1]), abs=1.0)
