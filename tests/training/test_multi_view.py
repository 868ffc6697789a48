"""Multi-view encoders in training: views through the frozen tower once, some of them per step, and whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipgs_lib.encoders import MultiViewConfig, load_encoder
from clipgs_lib.encoders.duoduo import MiniViews
from clipgs_lib.libraries import import_open_clip
from clipgs_lib.shards import ShardError, ShardSet
from clipgs_lib.shards.triplet import TeacherInfo, encode_triplet, encode_view
from clipgs_lib.shards.writer import write_set
from clipgs_lib.teachers import load_teacher
from clipgs_lib.training import Objects, train
from clipgs_lib.training.data import FrozenViews, Plan, make_batch
from clipgs_lib.training.distributed import Place
from clipgs_lib.training.loop import make_encoder
from clipgs_lib.training.step import Learner
from clipgs_lib.vectors import unit

from ..teachers import tiny
from .samples import config, found_by_text, make_object
from .test_loop import curve

VIT = "tiny-vit-for-training"
VIT_CFG = {**tiny.MODEL_CFG, "vision_cfg": {**tiny.MODEL_CFG["vision_cfg"], "layers": 4}}
PLACE = Place(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A small random ViT, and the name that loads it."""
    folder = tmp_path_factory.mktemp("vit")
    (folder / f"{VIT}.json").write_text(json.dumps(VIT_CFG))
    import_open_clip().add_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(import_open_clip().CLIP(**VIT_CFG).state_dict(), folder / "vit.pt")
    name = f"{VIT}@{folder / 'vit.pt'}"
    return SimpleNamespace(name=name, loaded=load_teacher(name, device="cpu"))


def seen_object(number: int, split: str, teacher, size: int = 32):
    """An object with four views, each of another colour, and their true embeddings."""
    rng = np.random.default_rng([3, number])
    pictures = rng.integers(0, 256, (4, 2, 2, 3)).astype(np.uint8).repeat(size // 2, 1).repeat(size // 2, 2)
    views = tuple(encode_view(picture) for picture in pictures)
    told = make_object(number, split)
    text_embeds = told.text_embeds
    if teacher.embed_dim != text_embeds.shape[1]:
        text_embeds = unit(torch.from_numpy(rng.normal(size=(3, teacher.embed_dim)))).half().numpy()
    made = replace(told, views=views, teacher=TeacherInfo(teacher.identity, teacher.embed_dim), text_embeds=text_embeds)
    return replace(made, image_embeds=teacher.encode_image(made.images()).half().numpy())


def seen_set(folder: Path, splits: str, teacher) -> Path:
    """A set with an object for each letter: t train, v val, e test."""
    folder.mkdir(parents=True)
    words = {"t": "train", "v": "val", "e": "test"}
    blocks = [encode_triplet(seen_object(number, words[letter], teacher)) for number, letter in enumerate(splits)]
    write_set(folder, blocks, build={"what": "test"})
    return folder


@pytest.fixture(scope="module")
def seen(teacher, tmp_path_factory):
    """Twenty objects to learn from, four to validate, four to test."""
    return seen_set(tmp_path_factory.mktemp("sets") / "seen", 20 * "t" + 4 * "v" + 4 * "e", teacher.loaded)


@pytest.fixture
def settings(seen, teacher, tmp_path):
    """A short run."""
    return lambda **changes: config(
        seen,
        tmp_path / "runs" / changes.pop("name", "run"),
        **{
            "encoder": "duoduo-b32",
            "encoder_options": {"teacher": teacher.name, "depth": 2},
            "loss": "contrastive_3d",
            "batch_size": 10,
            "views": 3,
            "steps": 6,
            "validate_every": 3,
            "save_every": 2,
            **changes,
        },
    )


def objects_of(run):
    """Objects whose views have been read, as a trainer has them, and the encoder."""
    objects = Objects(run.shards, run.memory_gb)
    encoder = make_encoder(run, objects)
    objects.read_for(encoder, Path(run.out).parent)
    return objects, encoder


def test_views_are_read_once_and_kept_beside_the_run(settings, seen, tmp_path, monkeypatch):
    objects, encoder = objects_of(settings())
    shards = ShardSet(seen)
    expected = encoder.freeze(shards[5].images()).tokens.half()
    content = objects.sample(5).content
    assert content.counts == (4,) and torch.equal(content.tokens, expected)
    objects.sample(6)
    [file] = (tmp_path / "runs").glob("seen-views-*.npy")
    stored = np.load(file)
    assert stored.dtype == np.float16 and len(stored) == 4 * len(shards)
    assert [bool(rows.any()) for rows in stored.reshape(len(shards), -1)] == [n in (5, 6) for n in range(len(shards))]
    again, other = objects_of(settings(name="other"))
    monkeypatch.setattr(other, "freeze", lambda views: pytest.fail("these views have been read"))
    assert torch.equal(again.sample(5).content.tokens, expected)
    with pytest.raises(pytest.fail.Exception):
        again.sample(7)


def test_another_depth_reads_anew_and_an_array_of_another_shape_is_refused(settings, teacher, tmp_path):
    objects_of(settings())[0].sample(0)
    options = {"teacher": teacher.name, "depth": 3}
    objects_of(settings(encoder_options=options))[0].sample(0)
    files = sorted((tmp_path / "runs").glob("seen-views-*.npy"))
    assert len(files) == 2
    for file in files:
        np.save(file, np.zeros((2, 3), np.float16))
    with pytest.raises(ValueError, match=r"must hold float16 \[112, 5, 32\], got float16 \[2, 3\]; delete the file"):
        objects_of(settings())[0].sample(0)


def test_a_step_sees_one_to_k_views_and_aims_at_their_mean(settings):
    run = settings(batch_size=20)
    objects, _ = objects_of(run)
    plan, counts = Plan(objects, run, PLACE), []
    for step in range(3):
        batch = make_batch(objects, plan, step, run)
        [part] = batch.parts
        counts += part.counts
        assert batch.images.shape == (20, 1, 16) and batch.views_valid.all()
        for row, tokens in enumerate(part.tokens.split(part.counts)):
            sample = objects.sample(int(batch.ids[row]))
            same = (tokens[:, None] == sample.content.tokens[None]).all(dim=-1).all(dim=-1)  # [m, V]
            assert same.sum() == len(tokens)
            drawn = same.int().argmax(dim=1)
            mean = unit(unit(sample.image_embeds[drawn]).mean(dim=0))
            torch.testing.assert_close(batch.images[row, 0], mean, atol=1e-6, rtol=0)
    assert set(counts) == {1, 2, 3}
    voted = make_batch(objects, plan, 0, settings(batch_size=20, loss="clip_gs"))  # each view by itself
    assert voted.images.shape == (20, 3, 16) and tuple(voted.views_valid.sum(dim=1).tolist()) == voted.parts[0].counts


def test_a_run_learns_and_its_export_stands_alone(settings, teacher, seen):
    run = settings()
    records = list(train(run))
    assert records[0] == {"step": 0, "read": 0, "of": 28}
    steps = [row for row in records if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6] and all(np.isfinite(row["loss"]) for row in steps)
    last = steps[-1]
    assert {"val_text_r1", "val_views_text_r1", "val_score"} <= set(last) and "val_image_r1" not in last
    encoder = load_encoder(Path(run.out) / "encoder", teacher=teacher.loaded.identity)
    assert encoder.inputs == "views" and str(Path(teacher.name.partition("@")[2]).parent) not in str(encoder.config)
    assert encoder.encode(ShardSet(seen)[0].images()).shape == (1, 16)
    scores = found_by_text([f"{run.out}/encoder"], seen, Path(run.out) / "kept", "test")
    assert scores[f"{run.out}/encoder"] == pytest.approx(records[-1]["test_text_r1"], abs=1e-5)
    card = (Path(run.out) / "encoder" / "README.md").read_text()
    assert "An encoder of views of objects" in card and "beside the teacher's frozen image tower" in card
    for name, value in teacher.loaded.tower.state_dict().items():  # half precision apart, it is what it was
        if ".attn." not in name:
            torch.testing.assert_close(encoder.tower.state_dict()[name], value, atol=2e-3, rtol=2e-3)


def test_a_run_in_half_precision_learns_too(settings):
    """What "auto" takes where the hardware has bfloat16; the views that are kept are float16."""
    rows = [row for row in train(settings(precision="bf16", steps=3)) if "loss" in row]
    assert len(rows) == 3 and all(np.isfinite(row["loss"]) for row in rows) and "val_text_r1" in rows[-1]


def test_a_stopped_run_goes_on_bit_for_bit(settings):
    whole = [row for row in train(settings(name="whole")) if "read" not in row]
    stopped = train(settings())
    next(row for row in stopped if row["step"] == 5)
    stopped.close()
    rest = [row for row in train(settings(resume=True)) if "read" not in row]
    assert rest[0]["step"] == 5
    assert curve(rest)[:-1] == curve(whole[5:])[:-1]


def test_micro_batches_and_streaming_do_too(settings):
    one = list(train(settings(name="one", steps=2)))
    parts = list(train(settings(name="parts", steps=2, accumulate=2)))
    assert parts[-2]["loss"] == pytest.approx(one[-2]["loss"], abs=1e-4)
    streamed = list(train(settings(name="streamed", steps=2, memory_gb=1e-6)))
    assert np.isfinite(streamed[-2]["loss"]) and "read" not in streamed[0]


def test_one_batch_can_be_learned_by_heart(settings, teacher):
    run = settings(batch_size=8, lr=1e-2, warmup=1, steps=200, encoder_options={"teacher": teacher.name, "depth": 4})
    objects, encoder = objects_of(run)
    batch = make_batch(objects, Plan(objects, run, PLACE), 0, run)
    learner = Learner(encoder, run, PLACE)
    frozen = {name: value.clone() for name, value in encoder.tower.state_dict().items()}
    losses = [learner.update(batch)["loss_text"] for _ in range(80)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, frozen[name]) for name, value in encoder.tower.state_dict().items())


def test_another_teacher_and_views_of_several_sizes_are_refused(settings, teacher, tmp_path):
    with pytest.raises(ValueError, match=r"tower of the shards' teacher .*with sha256:.*encoder_options.teacher=NAME"):
        list(train(settings(encoder_options={"teacher": VIT, "depth": 2})))
    odd = seen_object(0, "train", teacher.loaded)
    views = (*odd.views[:3], encode_view(np.zeros((8, 8, 3), np.uint8)))
    folder = tmp_path / "odd"
    folder.mkdir()
    write_set(folder, [encode_triplet(replace(odd, views=views))], build={"what": "test"})
    objects, _ = objects_of(replace(settings(), shards=(str(folder),)))
    with pytest.raises(ShardError, match=r"object-0000.* of one size, got 32 x 32, 8 x 8 pixels"):
        objects.sample(0)


def test_over_mini_it_begins_as_the_bag_of_views(tmp_path):
    mini = load_teacher("mini", device="cpu")
    folder = seen_set(tmp_path / "set", "tt", mini)
    encoder = MiniViews(MultiViewConfig(), mini.tower, mini.preprocess, held=False)
    objects = Objects([str(folder)])
    objects.read_for(encoder)
    assert FrozenViews(encoder, None).size({"n_views": 4}) == 4 * 16_000
    samples = [objects.sample(number) for number in range(2)]
    bags = unit(torch.stack([unit(sample.image_embeds).mean(dim=0) for sample in samples]))
    torch.testing.assert_close(encoder.encode([sample.content for sample in samples]), bags, atol=2e-3, rtol=0)
