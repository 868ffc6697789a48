"""The one rule who is train, val or test: what it promises, and what the shipped weights were trained on."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from clipgs_lib import catalogue
from clipgs_lib.catalogue import objects
from clipgs_lib.catalogue.split import seeded, split_of
from clipgs_lib.encoders import load_encoder
from clipgs_lib.meshes import Mesh, read_furniture
from clipgs_lib.meshes.importing import read_mesh
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.shards.writer import split_hashes
from clipgs_lib.splits import HELD_LABELS, RULE, SHARES, SPLITS, UNSEEN, assign, deal, is_held, shape_group
from clipgs_lib.teachers import mini
from clipgs_lib.triplets import catalogue_sources, folder_sources, sample_set
from clipgs_lib.triplets.build import build_triplets
from clipgs_lib.triplets.recipe import BuildConfig, Source
from clipgs_lib.triplets.stages import check_texts, group_of, load_thing

from .triplets.build_samples import cheap, sources

# objects and seed of the sets of the catalogue, as the model cards say
CATALOGUES = {"catalogue": (1000, 1), "cat1024": (4000, 2), "cat1024b": (4000, 5), "cat1024c": (4000, 6)}
CATALOGUES |= {"cat512": (3000, 3), "cat512b": (2000, 7), "cat512c": (1150, 9), "cat512d": (1000, 10)}
CATALOGUES |= {"cat2048": (350, 4), "cat4096": (2000, 8)}
SHIPPED = ("clipgs-mini", "point-mini", "duoduo-mini")
LABELS = [f"label {n}" for n in range(400)]


def test_the_shares_hold():
    splits = Counter(assign(f"group {n}") for n in range(10_000))
    assert [splits[name] / 10_000 for name in SPLITS] == pytest.approx(SHARES, abs=0.01)
    held = sum(map(is_held, LABELS)) / len(LABELS)
    assert 0.5 * HELD_LABELS < held < 1.5 * HELD_LABELS


def test_near_duplicates_never_straddle_and_held_labels_are_never_trained_on():
    for number in range(300):
        splits = {label: assign(f"group {number}", label) for label in LABELS}
        assert set(splits.values()) <= {"train", UNSEEN} or len(set(splits.values())) == 1
        assert not any(split == "train" for label, split in splits.items() if is_held(label))
        assert all(split != UNSEEN for label, split in splits.items() if not is_held(label))


def test_the_rule_is_frozen():
    """These stay what they are as long as the rule has this name."""
    assert RULE == "group-label/1"
    splits = [assign(f"{n} 1.00 0.50 0.25", f"label {n}") for n in range(40)]
    numbers = {name: [n for n, split in enumerate(splits) if split == name] for name in ("val", "test", UNSEEN)}
    assert numbers == {"val": [15, 21, 25, 31], "test": [17], "unseen": [6, 10, 12, 28]}
    assert [n for n in range(30) if is_held(f"label {n}")] == [6, 10, 12, 28]
    assert is_held(" Label 6 ") and not is_held("") and not is_held("  ")
    assert shape_group(12, np.array([1.0, 0.504, 0.25])) == "12 1.00 0.50 0.25"


def test_a_closed_world_is_dealt_out_in_exact_shares():
    dealt = deal(np.random.default_rng(0).random(1_000))
    assert [int((dealt == place).sum()) for place in range(3)] == [800, 100, 100]
    held = next(label for label in LABELS if is_held(label))
    assert [assign("any", held, dealt=split) for split in SPLITS] == list(SPLITS)


def test_catalogue_objects_keep_their_cells():
    made = [catalogue.make(index) for index in range(20)]
    things = [load_thing(source, BuildConfig(), 0) for source in catalogue_sources(20)]
    assert [thing.split for thing in things] == [each.split for each in made]


def test_a_new_set_names_the_rule_and_an_old_one_opens_without(tmp_path):
    build_triplets(sources(4), tmp_path, produce=cheap)
    assert ShardSet(tmp_path).manifest["build"]["split_rule"] == RULE
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["build"]["split_rule"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert build_triplets(sources(4), tmp_path, produce=cheap).resumed == 4
    assert len(ShardSet(tmp_path)) == 4


# ---- what the shipped weights were trained on --------------------------------------------------------------------


def test_no_test_object_of_the_catalogue_was_trained_on():
    """All that was ever trained on catalogue objects went by their cells, which stand."""
    rows = sample_set().rows
    assert all(row["split"] == catalogue.make(int(row["key"].rpartition("-")[2])).split for row in rows[::8])


@pytest.mark.filterwarnings("ignore::clipgs_lib.meshes.MeshWarning")
def test_what_is_shipped_was_trained_on_no_test_object(real_data: Path):
    """The rule, applied anew to the real objects, gives the very training split that the weights name by its hash."""
    folder = real_data / "objects"
    everything, built = list[dict[str, str]](), list[dict[str, str]]()
    for source in folder_sources(folder, labels=folder / "OBJECTS.tsv"):
        everything.append(dealt(source, read_mesh(source.path)))
        built += everything[-1:] if has_texts(source) else []
    for name in SHIPPED:
        assert learned(name, "kits5") == [hashes_with_copies(built, 5)]
        assert learned(name, "kits60") == ([] if name == "duoduo-mini" else [hashes_with_copies(built, 0)])
    counts = Counter(row["split"] for row in everything)
    card = (mini.FOLDER / mini.CARD).read_text(encoding="utf-8")
    assert "`kits`: 1044 objects " + f"({', '.join(f'{name} {counts[name]}' for name in (*SPLITS, UNSEEN))})" in card


def test_what_is_shipped_was_trained_on_no_test_piece_of_furniture(furniture: Path):
    rows = [dealt(one, read_furniture(one.path, one.index)[1].mesh) for one in folder_sources(furniture)]
    for name in SHIPPED:
        assert learned(name, "furn2") == ([] if name == "duoduo-mini" else [hashes_with_copies(rows, 2)])


def dealt(source: Source, mesh: Mesh) -> dict[str, str]:
    """A source's key, and its split by the rule."""
    return {"key": source.key, "split": assign(group_of(mesh.normalize()), source.info.get("label", ""))}


def learned(encoder: str, name: str) -> list[dict[str, str]]:
    """The hashes of the splits of each set of this name that a shipped encoder learned from."""
    return [entry["split_sha256"] for entry in load_encoder(encoder).info["data"]["sets"] if entry["name"] == name]


def hashes_with_copies(rows: list[dict[str, str]], copies: int) -> dict[str, str]:
    """Of each split's members, with so many recoloured copies of each in the split of their original."""
    ends = ("", *(f"-c{n}" for n in range(1, copies + 1)))
    copied = [{**row, "key": row["key"] + end} for row in rows for end in ends]
    return {split: entry["sha256"] for split, entry in split_hashes(copied).items()}


@pytest.mark.parametrize("name", SHIPPED)
def test_of_the_catalogue_every_encoder_learned_from_the_train_split_alone(name):
    sets = [
        entry
        for entry in load_encoder(name).info["data"]["sets"]
        if not entry["name"].startswith(("kits", "furn", "sample"))
    ]
    assert sets
    for entry in sets:
        expected = catalogue_hashes(*CATALOGUES[entry["name"]])
        only = expected if entry["name"] in ("catalogue", "cat1024") else {"train": expected["train"]}
        assert entry["split_sha256"] == only


@cache
def catalogue_hashes(count: int, seed: int) -> dict[str, str]:
    """Hash of each split of a set of the catalogue: every object's parameters are drawn again, but no mesh made."""
    rows = []
    for index in range(count):
        spec = list(catalogue.CATEGORIES.values())[index % len(catalogue.CATEGORIES)]
        split, _ = split_of(objects._draw(spec, seeded("object", seed, index)))
        rows.append({"key": f"catalogue-{index:06d}", "split": split})
    assert rows[count // 2]["split"] == catalogue.make(count // 2, seed).split
    return {split: facts["sha256"] for split, facts in split_hashes(rows).items()}


def has_texts(source) -> bool:
    try:
        check_texts(source)
    except ValueError:
        return False
    return True
