"""Model cards, of encoders and of mini: where weights come from and what they can do, in numbers of this very run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..encoders import Encoder
from ..evaluation import Interval, Ranked, zero_shot
from ..files import text_of, write_text
from ..settings import to_plain
from ..splits import SPLITS, UNSEEN
from ..teachers import mini
from ..teachers.base import zero_shot_weights
from ..teachers.preprocess import Preprocess
from ..vectors import unit
from .checkpoint import flat
from .config import FREE, TrainConfig
from .distributed import Place
from .mini_views import ViewedObject, ViewSet

CARD, TEMPLATES = "README.md", Path(__file__).with_name("templates")
RESULTS = """\
*Bag of views*: the mean of the teacher's embeddings of the object's own views, without an encoder.
For the views' retrieval by a splat it is the thing looked for, so it has no number there.
In brackets: 95 % intervals by bootstrap over objects.

"""
CHOSEN = "\n\nThe validation split chose the weights; the test split was measured once, after that."
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
    looks = encoder.inputs == "views"
    reads = "views of objects" if looks else "3D Gaussian splats"
    reads += f", of which it sees {encoder.inputs}," if encoder.inputs in ("points", "voxels") else ""
    new = "the teacher's tower as it is" if looks else "random weights"
    text = (
        (TEMPLATES / "encoder_card.md")
        .read_text(encoding="utf-8")
        .format(
            **info["teacher"],
            name=encoder.config.name,
            reads=reads,
            count=sum(value.numel() for value in encoder.parameters()),
            beside=" beside the teacher's frozen image tower" if looks else "",
            command=command_of(config),
            start=new if config.init == "none" else f"`{Path(config.init).name}`",
            seed=config.seed,
            steps=int(records[-1]["step"]),
            batch_size=config.batch_size,
            best=progress["best"]["step"],
            chosen="the last" if progress["best"]["score"] is None else "the best on validation objects",
            minutes=progress["seconds"] / 60,
            device=place.device.type,
            threads=f", {torch.get_num_threads()} threads" if place.device.type == "cpu" else "",
            processes=f", {place.world} processes" if place.world > 1 else "",
            encoder_settings=json.dumps(encoder.config.to_dict(), sort_keys=True),
            settings=json.dumps(config.identity(), sort_keys=True),
            about=config.about + "\n\n" * bool(config.about),
            data=_data(info["data"]["sets"]),
            results=_results(info["metrics"]),
            curve=curve([row for row in records if "val_score" in row or row is records[-1]], _CURVES),
            teacher=str(info["teacher"]["identity"]).rpartition(" sha256:")[0],
        )
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def _data(data: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            *(entry["name"], entry["objects"]),
            ", ".join(f"{name} {count}" for name, count in entry["splits"].items()),
            ", ".join(f"{name} ({count})" for name, count in entry["licences"].items()),
            f"`{entry['content_sha256']}`",
        ]
        for entry in data
    ]
    return table(["set", "objects", "splits", "licences", "content sha256"], rows)


def _results(metrics: Mapping[str, Mapping[str, float]]) -> str:
    if not any(metrics.values()):
        return "Nothing was held out, so nothing is known about other objects."
    rows = list[list[Any]]()
    for split, scores in metrics.items():
        for key, task in ((key, task) for key, task in TASKS if key in scores):
            score = Interval(scores[key], scores["low_" + key], scores["high_" + key])
            others = (scores.get(way + key) for way in ("views_", "chance_"))
            shown = ["" if value is None else f"{100 * value:.1f} %" for value in others]
            rows.append([split, scores["objects"], task, score, *shown])
    return RESULTS + table(["split", "objects", "task", "this encoder", "bag of views", "chance"], rows) + CHOSEN


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = ["|---" * len(head) + "|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
    return "\n".join([f"| {' | '.join(head)} |", *lines])


def curve(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """A table of a run's numbers, of at most `_ROWS` records and the last."""
    rows = list(records[:: max(1, -(-len(records) // _ROWS))])
    rows += [] if not rows or rows[-1] is records[-1] else [records[-1]]
    cells = [[row["step"], *("" if row.get(key) is None else f"{row[key]:.4g}" for key in keys)] for row in rows]
    return table(["step", *keys], cells)


_WAYS = ("mini", "class texts alone")


def photographs(table: str | Path) -> list[tuple[Path, str]]:
    """Pictures and what they show, from a table with tabs and the columns ``path`` (beside the table) and ``label``."""
    head, *rows = [line.split("\t") for line in text_of(Path(table).read_bytes()).splitlines() if line.strip()]
    if not {"path", "label"} <= set(head) or any(len(row) != len(head) for row in rows):
        raise ValueError(f"{table}: a table of photographs needs path and label in every row, got {head}")
    at = head.index("path"), head.index("label")
    return [(Path(table).parent / row[at[0]], row[at[1]].strip().lower()) for row in rows]


class Measured:
    """Zero-shot rankings of a `Mini` in eval mode, and of its class texts alone, on views and on `photographs`."""

    def __init__(self, model: mini.Mini, photos: Sequence[tuple[Path, str]]) -> None:
        self.model, self.photos, self.words = model, photos, {label for _, label in photos}
        self.rows: list[tuple[str, str, dict[str, Ranked]]] = []  # set and split, labels, rankings by way

    def add(
        self,
        views: ViewSet,
        objects: Sequence[ViewedObject],
        features: torch.Tensor,
        *,
        seen: frozenset[str],
        whole: bool,
    ) -> None:
        """Rank N objects of a set by their ``features [N, V, F]`` of V pictures each.

        ``seen`` are labels that were trained on. ``whole`` ranks all together, whatever their split; else each by
        itself.
        """
        every = sorted({obj.label for obj in views.objects})
        self.words |= set(every)
        weights = self._weights(every)
        embeds = {way: unit(unit(self._embed(features.float(), way)).mean(dim=1)) for way in _WAYS}
        for split in ("all",) if whole else ("val", "test", UNSEEN):
            chosen = [i for i, obj in enumerate(objects) if whole or obj.split == split]
            for part in ("seen", "unseen", "all"):
                rows = [i for i in chosen if part == "all" or (objects[i].label in seen) is (part == "seen")]
                if not rows:
                    continue
                labels = every if part == "all" else sorted({objects[i].label for i in rows})
                target = torch.tensor([labels.index(objects[i].label) for i in rows])
                columns = weights[[every.index(label) for label in labels]]
                ranked = {way: zero_shot(embeds[way][rows], columns, target, (1, 5)) for way in _WAYS}
                self.rows.append((f"{views.folder.name}, {split}", part, ranked))

    @torch.no_grad()
    def photo_ranks(self) -> tuple[int, list[tuple[str, str, list[int]]]]:
        """Words in all, and of each photograph its name, its word and the rank of it by each way."""
        words = sorted(self.words)
        weights, tower = self._weights(words), self.model.visual
        pictures = Preprocess.from_config(tower.preprocess_cfg)([path for path, _ in self.photos])
        features = tower.features(pictures)[:, None] if self.photos else pictures
        ranks = []
        for i, (path, word) in enumerate(self.photos):
            scores = [unit(self._embed(features[i], way)) @ weights.T for way in _WAYS]
            ranks.append((path.name, word, [1 + int((s > s[0, words.index(word)]).sum()) for s in scores]))
        return len(words), ranks

    @torch.no_grad()
    def _embed(self, features: torch.Tensor, way: str) -> torch.Tensor:
        tower = self.model.visual
        return tower.embed(features) if way == _WAYS[0] else tower.named(features)

    def _weights(self, labels: Sequence[str]) -> torch.Tensor:
        return zero_shot_weights(self.model, mini.MiniTokenizer(), labels, mini.PROMPTS, "cpu")


_HEAD = ["set, split", "labels", "objects", "candidates", "Top-1", "Top-5", "MRR", "alone: Top-1", "Top-5", "chance"]


def write_mini_card(folder: Path, sets: Sequence[ViewSet], measured: Measured, facts: Mapping[str, Any]) -> Path:
    """Write the model card beside the weights; every number in it was measured by this run.

    ``facts``: command, about (a sentence on the data and their licence), config, image_sha256.
    """
    count, ranks = measured.photo_ranks()
    photos = [[name, word, *both] for name, word, both in ranks]
    text = (
        (TEMPLATES / "mini_card.md")
        .read_text(encoding="utf-8")
        .format(
            **{key: facts[key] for key in ("about", "command", "image_sha256")},
            **{key: facts["config"][key] for key in ("image_size", "eval_views")},
            settings=json.dumps(facts["config"], sort_keys=True),
            sets="\n".join(map(_about, sets)),
            prompts=", ".join(f"`{prompt}`" for prompt in mini.PROMPTS),
            rows=table(_HEAD, (_row(*row) for row in measured.rows)),
            words=f"{count:,}",
            photographs=table(["photograph", "word", "rank", "class texts alone"], photos),
        )
    )
    write_text(folder / mini.CARD, text)
    return folder / mini.CARD


def _about(views: ViewSet) -> str:
    counts = ", ".join(f"{split} {len(views.split(split))}" for split in (*SPLITS, UNSEEN))
    labels = len({obj.label for obj in views.objects})
    head = f"  - `{views.folder.name}`: {len(views.objects)} objects ({counts}) with {labels} labels"
    return f"{head}; `views.jsonl` has sha256\n    `{views.sha256}`"


def _row(split: str, part: str, ranked: Mapping[str, Ranked]) -> list[Any]:
    ours, alone = (ranked[way] for way in _WAYS)
    tops = [f"{100 * top.value:.1f} %" for top in (*ours.values, *alone.values)]
    chance = " / ".join(f"{100 * value:.1f} %" for value in ours.chance)
    return [split, part, ours.objects, ours.candidates, *tops[:2], f"{ours.mrr:.3f}", *tops[2:], chance]
