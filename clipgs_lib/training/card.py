"""The model card of a run: where the weights come from and what they can do, in numbers that this run measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..encoders import Encoder
from ..evaluation import Interval
from ..settings import to_plain
from .checkpoint import flat
from .config import FREE, TrainConfig
from .distributed import Place

CARD = "README.md"
_ROWS = 24  # of the table of the curve
_CURVES = (
    *("loss", "loss_text", "loss_image", "lr", "logit_scale"),
    *("val_score", "val_zero_shot_top1", "val_image_r1", "val_text_r1"),
)
TASKS = (
    ("zero_shot_top1", "zero-shot by category, Top-1"),
    ("zero_shot_top3", "zero-shot by category, Top-3"),
    ("zero_shot_top5", "zero-shot by category, Top-5"),
    ("image_r1", "splat finds its own views, R@1"),
    ("image_r5", "splat finds its own views, R@5"),
    ("text_r1", "text finds its splat, R@1"),
    ("text_r5", "text finds its splat, R@5"),
)


def command_of(config: TrainConfig) -> str:
    """The command that repeats a run, with names of folders instead of this machine's paths."""
    values, plain = flat(to_plain(config)), flat(to_plain(TrainConfig(shards=("?",), out="?")))
    words = ["clipgs train", *(f"--shards {Path(folder).name}" for folder in config.shards)]
    words += [f"--encoder {config.encoder}", f"--init {Path(config.init).name}", f"--out {Path(config.out).name}"]
    named = {*FREE, "encoder", "init"} - {"steps"}  # more steps may follow, but these made the weights
    for name, value in values.items():
        if name not in named and (name not in plain or plain[name] != value):
            text = Path(value).name if name == "zero_shot" else json.dumps(value).replace(" ", "")
            words.append(f"--set {name}={text}")
    return " \\\n  ".join(words)


def write_card(
    folder: Path,
    *,
    config: TrainConfig,
    encoder: Encoder,
    info: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    place: Place,
    progress: Mapping[str, Any],
) -> None:
    """Write ``README.md`` beside the exported weights; ``info`` as `save_encoder`, ``records`` as `train` has them."""
    lines = [
        *_about(config, encoder, info["teacher"], int(records[-1]["step"]), place, progress),
        *_data(config, info["data"]["sets"]),
        *_results(info["metrics"]),
        *curve([row for row in records if "val_score" in row or row is records[-1]], _CURVES),
        *_limits(info["teacher"]),
    ]
    (folder / CARD).write_text("\n".join(lines), encoding="utf-8")


def _about(
    config: TrainConfig,
    encoder: Encoder,
    teacher: Mapping[str, Any],
    steps: int,
    place: Place,
    progress: Mapping[str, Any],
) -> list[str]:
    count = sum(value.numel() for value in encoder.parameters())
    reads = "views of objects" if encoder.inputs == "views" else "3D Gaussian splats"
    reads += f", of which it sees {encoder.inputs}," if encoder.inputs in ("points", "voxels") else ""
    beside = " beside the teacher's frozen image tower" if encoder.inputs == "views" else ""
    new = "the teacher's tower as it is" if encoder.inputs == "views" else "random weights"
    start = new if config.init == "none" else f"`{Path(config.init).name}`"
    processes = f", {place.world} processes" if place.world > 1 else ""
    threads = f", {torch.get_num_threads()} threads" if place.device.type == "cpu" else ""
    chosen = "the last" if progress["best"]["score"] is None else "the best on validation objects"
    return [
        f"# {encoder.config.name}",
        "",
        f"An encoder of {reads} in the space of the teacher `{teacher['identity']}` (D = {teacher['dim']}).",
        f"{count:,} parameters{beside}; averaged weights, stored as float16.",
        "",
        "```",
        command_of(config),
        "```",
        "",
        f"- Start: {start}, seed {config.seed}.",
        f"- {steps} steps of {config.batch_size} objects; these weights are those of step {progress['best']['step']}, "
        f"{chosen}.",
        f"- Time: {progress['seconds'] / 60:.1f} minutes on {place.device.type}{threads}{processes}, with validation.",
        f"- Settings of the encoder: `{json.dumps(encoder.config.to_dict(), sort_keys=True)}`",
        f"- Settings of the run: `{json.dumps(config.identity(), sort_keys=True)}`",
        "- Licence of these weights: MIT, as the project.",
        "",
    ]


def _data(config: TrainConfig, data: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["## Data", ""] + ([config.about, ""] if config.about else [])
    rows = [
        [
            *(entry["name"], entry["objects"]),
            ", ".join(f"{name} {count}" for name, count in entry["splits"].items()),
            ", ".join(f"{name} ({count})" for name, count in entry["licences"].items()),
            f"`{entry['content_sha256']}`",
        ]
        for entry in data
    ]
    return [*lines, *table(["set", "objects", "splits", "licences", "content sha256"], rows), ""]


def _results(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = ["## On held-out objects", ""]
    if not any(metrics.values()):
        return [*lines, "Nothing was held out, so nothing is known about other objects.", ""]
    lines += ["*Bag of views*: the mean of the teacher's embeddings of the object's own views, without an encoder."]
    lines += ["For the views' retrieval by a splat it is the thing looked for, so it has no number there."]
    lines += ["In brackets: 95 % intervals by bootstrap over objects.", ""]
    rows = [
        [split, scores["objects"], task, *scores_row(scores, key)]
        for split, scores in metrics.items()
        for key, task in TASKS
        if key in scores
    ]
    lines += table(["split", "objects", "task", "this encoder", "bag of views", "chance"], rows)
    return [*lines, "", "The validation split chose the weights; the test split was measured once, after that.", ""]


def scores_row(scores: Mapping[str, float], key: str) -> list[str]:
    """A score with its interval, that of the bag of views, and chance, in percent."""
    score = Interval(scores[key], scores["low_" + key], scores["high_" + key])
    others = [scores.get("views_" + key), scores.get("chance_" + key)]
    return [str(score), *("" if value is None else f"{100 * value:.1f} %" for value in others)]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table in Markdown."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def curve(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """The section with a table of a run's numbers, of at most `_ROWS` records and the last."""
    rows = list(records[:: max(1, -(-len(records) // _ROWS))])
    rows += [] if not rows or rows[-1] is records[-1] else [records[-1]]
    cells = [[row["step"], *("" if row.get(key) is None else f"{row[key]:.4g}" for key in keys)] for row in rows]
    return ["## Curve", "", *table(["step", *keys], cells), ""]


def _limits(teacher: Mapping[str, Any]) -> list[str]:
    name = str(teacher["identity"]).rpartition(" sha256:")[0]
    return [
        "## Limits",
        "",
        f"- Its space is that of `{name}`: embeddings of another teacher cannot be compared with it.",
        "- It knows single objects like those above, centred, with a known up axis; not scenes, not photographs.",
        "- Words and shapes that the sets do not have were never seen; the numbers above are about objects of the same",
        "  sets, with the same rendering and fitting.",
        "",
    ]
