"""Two processes with gloo do what one does at the same batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clipgs_lib.settings import to_plain
from clipgs_lib.training import Objects
from clipgs_lib.training.data import Plan, make_batch
from clipgs_lib.training.distributed import Place, shares
from clipgs_lib.training.loop import make_encoder
from clipgs_lib.training.step import Learner

from .samples import config

SHARP = {"groups": 8, "group_size": 8, "dim": 16, "width": 24, "depth": 2, "patch_dropout": 0.0, "drop_path": 0.0}
CHILD = """
import json, os, sys, torch, torch._dynamo
from pathlib import Path
from clipgs_lib.libraries import import_timm
from safetensors.torch import save_file
from clipgs_lib.settings import from_plain
from clipgs_lib.training import Objects, TrainConfig, gather_with_grad, train
from clipgs_lib.training.data import Plan, make_batch
from clipgs_lib.training.distributed import agree, gather, join
from clipgs_lib.training.loop import make_encoder
from clipgs_lib.training.step import Learner

torch.set_num_threads(1)
job = json.loads(sys.argv[1])
import_timm()
other = os.fork()  # only now, since imports take seconds
os.environ |= {"RANK": "0" if other else "1", "LOCAL_RANK": "0" if other else "1"}
with join(torch.device("cpu")) as place:
    sizes = (3, 1)
    mine = torch.arange(float(2 * sizes[place.rank])).reshape(-1, 2) + 10 * place.rank
    mine.requires_grad_()
    everyone = gather_with_grad(mine, sizes)
    (everyone * torch.arange(8.0).reshape(4, 2) * (place.rank + 1)).sum().backward()
    told = {"gathered": everyone.detach(), "gradient": mine.grad,
            "mask": gather(torch.tensor([True, False, True])[:sizes[place.rank]], sizes).long()}
    for name, values in job["steps"].items():
        settings = from_plain(TrainConfig, values)
        objects = Objects(settings.shards)
        learner = Learner(make_encoder(settings, objects), settings, place)
        record = learner.update(make_batch(objects, Plan(objects, settings, place), 0, settings))
        told[name + "/loss"] = torch.tensor(record["loss"], dtype=torch.float64)
        told[name + "/scale"] = learner.scale.log.grad
        told |= {f"{name}/{key}": value.grad for key, value in learner.encoder.named_parameters()}
    try:
        agree(f"rank {place.rank}", place)
    except ValueError as error:
        assert "others on rank 1" in str(error), error
    else:
        raise AssertionError("two different runs went through as one")
    told = {key: value.contiguous().clone() for key, value in told.items()}
    save_file(told, f"{job['out']}/{place.rank}.safetensors")
    losses = [row.get("loss") for row in train(from_plain(TrainConfig, job["run"]))]
    Path(job["out"], f"{place.rank}.json").write_text(json.dumps(losses))
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def steps_of(shards: Path, out: Path):
    """Settings under which one process and two must agree: batch norm with stored statistics."""
    plain = {"encoder_options": SHARP, "batch_norm": "frozen", "batch_size": 16}
    return {
        "voting": config(shards, out, **plain),
        "micro": config(shards, out, accumulate=2, image_loss="multi_positive", **plain),
        "masked": config(shards, out, weighting="uniform", views=4, **plain),
    }


@pytest.fixture(scope="module")
def two(shards, tmp_path_factory):
    """What two processes found, by rank; and their folder."""
    out = tmp_path_factory.mktemp("two")
    run = config(shards, out / "run", steps=3, warmup=1, validate_every=2, encoder_options=SHARP)
    job = {name: to_plain(settings) for name, settings in steps_of(shards, out).items()}
    text = json.dumps({"out": str(out), "steps": job, "run": to_plain(run)})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", CHILD, text]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]
    return out, [load_file(out / f"{rank}.safetensors") for rank in range(2)], losses


def test_gathering_takes_uneven_ranks_and_sums_gradients(two):
    _, found, _ = two
    everyone = torch.cat([torch.arange(6.0).reshape(3, 2), torch.arange(2.0).reshape(1, 2) + 10])
    for rank, told in enumerate(found):
        assert torch.equal(told["gathered"], everyone)
        assert torch.equal(told["mask"], torch.tensor([1, 0, 1, 1]))
        own = slice(0, 3) if rank == 0 else slice(3, 4)
        assert torch.equal(told["gradient"], 3 * torch.arange(8.0).reshape(4, 2)[own])  # 1 of rank 0 and 2 of rank 1


@pytest.mark.parametrize("name", ["voting", "micro", "masked"])
def test_loss_and_gradients_are_those_of_one_process_at_the_same_batch(two, shards, name):
    out, found, _ = two
    settings = steps_of(shards, out)[name]
    objects, place = Objects(settings.shards), Place(0, 1, torch.device("cpu"))
    learner = Learner(make_encoder(settings, objects), settings, place)
    record = learner.update(make_batch(objects, Plan(objects, settings, place), 0, settings))
    assert record["objects"] == 15  # 7 and 8: the ranks' parts differ
    for told in found:
        assert float(told[f"{name}/loss"]) == pytest.approx(record["loss"], rel=1e-6)
        assert torch.allclose(told[f"{name}/scale"], learner.scale.log.grad, rtol=1e-4, atol=1e-8)
        for key, value in learner.encoder.named_parameters():
            assert torch.allclose(told[f"{name}/{key}"], value.grad, rtol=1e-3, atol=1e-6 * record["grad_norm"]), key


def test_a_whole_run_of_two_processes_yields_the_same_on_both_and_writes_once(two):
    out, _, losses = two
    assert losses[0] == losses[1] and len(losses[0]) == 5
    assert len((out / "run" / "metrics.jsonl").read_text().splitlines()) == 4
    assert (out / "run" / "encoder" / "README.md").is_file()


def test_shares_differ_by_one_at_most():
    assert shares(15, 2) == (7, 8) and shares(16, 2) == (8, 8) and sum(shares(100, 7)) == 100
