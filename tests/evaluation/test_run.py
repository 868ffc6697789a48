"""All protocols at once, and ``clipgs evaluate``."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clipgs_lib import evaluation
from clipgs_lib.cli import app
from clipgs_lib.training import train
from clipgs_lib.triplets import sample_set

from ..training.samples import config

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def encoders(folder, tmp_path_factory):
    """Two encoders: of one step, and of thirty."""
    top = tmp_path_factory.mktemp("runs")
    for steps, name in ((1, "one"), (30, "two")):
        list(train(config(folder, top / name, steps=steps)))
    return [str(top / name / "encoder") for name in ("one", "two")]


def test_everything_is_measured_at_once(folder, encoders, knowing, tmp_path):
    chosen = evaluation.EvaluationConfig(episodes=3, queries=3, draws=2, objects=4, views=2, timed=2, device="cpu")
    said = []
    results = evaluation.evaluate(
        encoders, [folder], config=chosen, work=tmp_path / "work", progress=lambda *words: said.append(words[2])
    )
    rows = {(row["protocol"], row["method"]) for row in results.rows}
    assert rows == {(p, m) for p in evaluation.PROTOCOLS for m in (evaluation.BAG, *encoders)}
    assert results.facts["methods"][encoders[0]]["reads"] == "splats" and results.facts["labels"] == 4
    assert results.facts["sets"][0]["objects"] == results.facts["objects"] == 70
    assert said[0] == "objects read" and "changes of splats" in said
    assert not any("not trained on" in note for note in results.notes)
    top = {
        row["method"]: row["value"] for row in results.rows if row["task"] == "all labels" and row["metric"] == "Top-1"
    }
    assert top[evaluation.BAG] > 0.9, "its teacher knows the words"
    means = "3D -> mean of its views, gallery of 70"
    found = {row["method"]: row["value"] for row in results.rows if (row["task"], row["metric"]) == (means, "R@1")}
    assert found[encoders[0]] < found[encoders[1]] < 1 and set(found) == set(encoders)


def test_an_encoder_of_other_sets_has_no_labels_that_training_had(folder, encoders, knowing, tmp_path, monkeypatch):
    def with_one_label(*words):
        objects = load_set(*words)
        return replace(objects, trained=frozenset(objects.labels[:1]))

    load_set = evaluation.run.load_set
    monkeypatch.setattr(evaluation.run, "load_set", with_one_label)
    chosen = evaluation.EvaluationConfig(device="cpu", split="all")
    tasks = {}
    stranger = tmp_path / "stranger"
    shutil.copytree(encoders[0], stranger)
    facts = json.loads((stranger / "config.json").read_text())
    for row in facts["data"]["sets"]:
        row["content_sha256"] = "0" * 64
    (stranger / "config.json").write_text(json.dumps(facts))
    for names in ([encoders[0]], [str(stranger)], [encoders[0], str(stranger)]):
        results = evaluation.evaluate(names, [folder], ["zero-shot"], chosen, work=tmp_path / "work")
        tasks[len(tasks)] = {row["task"] for row in results.rows}
    assert tasks[1] == {"all labels"} and any("not trained on" in note for note in results.notes)
    assert tasks[0] == tasks[2] == {"all labels", "labels that training had", "labels that training had not"}


def test_minimal_pairs_are_measured_beside_a_set(tmp_path):
    chosen = evaluation.EvaluationConfig(device="cpu", split="val", pairs=2)
    sample = sample_set().folder
    results = evaluation.evaluate(["clipgs-mini"], [sample], ["pairs"], chosen, work=tmp_path)
    rows = {(row["task"], row["method"]): row for row in results.rows}
    kinds = [f"{kind} alone" for kind in ("texture", "color", "shape", "count")]
    assert {task for task, _ in rows} == set(kinds) and len(rows) == 8
    assert all((row["n"], row["chance"], row["metric"]) == (2, 0.5, "right side") for row in rows.values())
    pairs = evaluation.load_set((tmp_path / "pairs-2",), "all")
    texts = pairs.texts[pairs.owners.int().argmax(dim=0)]
    right = [(pairs.bag()[i : i + 2] @ texts[i : i + 2].T).argmax(dim=0) == torch.arange(2) for i in range(0, 16, 2)]
    assert rows["texture alone", evaluation.BAG]["value"] == torch.stack(right)[:2].float().mean()
    assert {row["a"] for row in results.pairs} == {"clipgs-mini"}


def test_more_views_tell_more_and_all_of_them_what_the_other_protocols_say(tmp_path):
    chosen = evaluation.EvaluationConfig(device="cpu", split="val")
    sample = sample_set().folder
    asked = (["bag-mean", "duoduo-mini", "clipgs-mini"], [sample], ["views", "zero-shot", "retrieval"], chosen)
    results = evaluation.evaluate(*asked, work=tmp_path)
    rows = [row for row in results.rows if row["metric"] in ("Top-1", "R@1")]
    by = {(row["protocol"], row["task"], row["method"]): row["value"] for row in rows}
    counts = ("1 view", "2 views", "4 views")  # of the 4 that an object of the sample has
    assert {task for protocol, task, _ in by if protocol == "views"} == {
        f"{ask}, {count}" for ask in ("zero-shot", "text -> 3D") for count in counts
    }
    gallery = "text -> 3D, gallery of 24"
    for method in (evaluation.BAG, "bag-mean", "duoduo-mini"):
        assert by["views", "zero-shot, 4 views", method] == by["zero-shot", "all labels", method]
        assert by["views", "text -> 3D, 4 views", method] == by["retrieval", gallery, method]
        assert by["views", "text -> 3D, 1 view", method] < by["views", "text -> 3D, 4 views", method]
    objects = evaluation.load_set([sample], "val")
    first = torch.nn.functional.normalize(torch.stack([rows[0] for rows in objects.images]), dim=1)
    by_hand = evaluation.hit_rates(objects.texts @ first.T, objects.owners, (1,)).mean()
    assert by["views", "text -> 3D, 1 view", "bag-mean"] == pytest.approx(by_hand, abs=1e-6)
    assert "clipgs-mini" not in {method for protocol, _, method in by if protocol == "views"}
    assert "views: only methods that read views have a part" in results.notes


def test_the_command_writes_what_it_says_and_agrees_with_training(folder, encoders, tmp_path):
    words = ["evaluate", "retrieval", str(folder), "--split", "test", "--device", "cpu", "--work", str(tmp_path / "w")]
    words += ["--encoder", encoders[0], "--encoder", encoders[1], "--out", str(tmp_path / "scores.json")]
    done = RUNNER.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "retrieval, text -> 3D, gallery of 12" in done.output and "against" in done.output
    written = json.loads((tmp_path / "scores.json").read_text())
    assert {row["protocol"] for row in written["rows"]} == {"retrieval"} and written["facts"]["settings"][
        "split"
    ] == "test"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.json", "scores.parquet", "w"]
    place = ("3D -> mean of its views, gallery of 12", "R@1")
    [row] = [r for r in written["rows"] if (r["task"], r["metric"]) == place and r["method"] == encoders[0]]
    known = json.loads((Path(encoders[0]) / "config.json").read_text())["metrics"]["test"]
    assert row["n"] == 12 and row["value"] == pytest.approx(known["image_r1"], abs=1e-5)


def test_robustness_writes_a_page(folder, encoders, knowing, tmp_path):
    words = ["evaluate", "robustness", str(folder), "--encoder", encoders[0], "--device", "cpu"]
    words += [
        "--set",
        "objects=3",
        "--set",
        "views=1",
        "--work",
        str(tmp_path / "w"),
        "--out",
        str(tmp_path / "new" / "r.json"),
    ]
    done = RUNNER.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"robustness, {encoders[0]} (n = 3)" in done.output and "half of the object cut off" in done.output
    page, written = ((tmp_path / "new" / name).read_text() for name in ("r.html", "r.json"))
    rows = json.loads(written)["rows"]
    assert all(f"<h2>{method}</h2>" in page for method in (evaluation.BAG, encoders[0]))
    cut = next(row for row in rows if (row["method"], row["task"]) == (encoders[0], "half of the object cut off"))
    assert f"<td>{cut['value']:.3f} [{cut['low']:.3f}, {cut['high']:.3f}]</td>" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", "unseen"], "must hold at least 2 objects, got 0"),
        (["--encoder", "clipgs-mini"], "must be 'stand-in sha256:00', but it was trained against"),
        (["--set", "shots=3"], "unknown shots"),
        (["--set", "episodes=1"], "episodes must be at least 2, got 1"),
        (["--set", "prompts=[a]"], "prompts must each contain {}"),
    ],
)
def test_what_cannot_be_measured_is_one_line(folder, encoders, tmp_path, words, said):
    start = ["evaluate", "zero-shot", str(folder), "--encoder", encoders[0], "--zero-shot", "none", "--device", "cpu"]
    done = RUNNER.invoke(app, [*start, "--work", str(tmp_path), *words])
    assert done.exit_code == 2 and said in done.output, done.output
    assert done.output.strip().splitlines()[-1].startswith("error: ")


def test_the_help_of_a_protocol_speaks_of_its_own_settings(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = RUNNER.invoke(app, ["evaluate", "few-shot", "--help"]).output
    assert "--set" in said and "episodes" in said and "batch_size" not in said and "augment" not in said


def test_bad_calls_are_refused_before_anything_is_loaded(folder):
    with pytest.raises(ValueError, match=r"protocols must be some of zero-shot, .*, got speed"):
        evaluation.evaluate(["clipgs-mini"], [folder], ["speed"])
    for encoders in ([], ["clipgs-mini", "clipgs-mini"]):
        with pytest.raises(ValueError, match="encoders must be one or more, each once"):
            evaluation.evaluate(encoders, [folder])


def test_without_words_what_needs_them_is_left_out(folder, encoders, tmp_path):
    chosen = evaluation.EvaluationConfig(zero_shot="none", device="cpu", split="test")
    results = evaluation.evaluate(encoders[:1], [folder], ["zero-shot", "retrieval"], chosen, work=tmp_path)
    assert {row["protocol"] for row in results.rows} == {"retrieval"}
    assert "zero-shot: left out, as zero_shot=none says" in results.notes
