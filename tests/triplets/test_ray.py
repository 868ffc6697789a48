"""Builds over Ray: the same set, and a worker that dies costs its object alone. One cluster serves all tests."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray

from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.triplets.build import build_triplets

from .build_samples import cheap, dying, sources, troubled
from .test_build import build, files


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster of two CPUs on this machine; on a busy one its processes may miss each other, so it has three tries."""
    for tries_left in (2, 1, 0):
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
            break
        except Exception as error:  # Ray gives up when its own agent is slow to start, and has no setting for that
            ray.shutdown()
            if not tries_left:
                pytest.skip(f"Ray did not start on this machine: {error}")
            time.sleep(5)
    yield
    ray.shutdown()


def test_ray_gives_the_same_set(tmp_path):
    report = build(tmp_path / "ray", produce=troubled, workers=2, ray="local")
    assert (report.objects, report.quarantined) == (8, 4)
    build(tmp_path / "local", produce=troubled, workers=2)
    quarantine = [(tmp_path / name / "quarantine.jsonl").read_bytes() for name in ("ray", "local")]
    assert quarantine[0] == quarantine[1] and files(tmp_path / "ray") == files(tmp_path / "local")


def test_an_object_whose_worker_dies_twice_costs_only_itself(tmp_path):
    log, out = tmp_path / "log", tmp_path / "set"
    some = [replace(source, path=str(log)) for source in sources(6)]
    report = build_triplets(some, out, produce=dying, ray="local")
    assert (report.objects, report.quarantined) == (5, 1)
    [line] = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    assert line["key"] == "thing-002" and "Ray worker died twice" in line["reason"]
    tries = Counter(log.read_text().split())
    assert set(tries) == {source.key for source in some} and tries["thing-002"] == 2  # retried once
    shards = ShardSet(out)
    assert shards.verify() == [] and len(shards) == 5
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]  # neither staging nor half a file
    build(tmp_path / "whole", 6, produce=cheap)
    whole = ShardSet(tmp_path / "whole")
    assert all(shards.block(row["key"]) == whole.block(row["key"]) for row in shards.rows)
