"""Model cards, of encoders and of mini: where weights come from and what they can do, in numbers of this very run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..encoders import Encoder
from ..evaluation import Interval, Ranked, zero_shot
from ..files import text_of, write_text
from ..pages import fill
from ..settings import to_plain
from ..splits import SPLITS, UNSEEN
from ..teachers import mini
from ..teachers.preprocess import Preprocess
from ..teachers.teacher import zero_shot_weights
from ..vectors import unit
from .checkpoint import flat
from .distributed import Place
from .mini_views import ViewedObject, ViewSet
from .run_config import FREE, TrainConfig

CARD, TEMPLATES = "README.md", Path(__file__).with_name("templates")
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
    curve = [row for row in records if "val_score" in row or row is records[-1]]
    shown = curve[:: -(-len(curve) // _ROWS)]
    facts: dict[str, Any] = {"config": config, "encoder": encoder, "info": info, "records": records, "place": place}
    facts |= {"progress": progress, "tasks": TASKS, "curves": _CURVES, "interval": Interval}
    facts |= {
        "command": command_of(config),
        "start": "" if config.init == "none" else Path(config.init).name,
        "parameters": sum(value.numel() for value in encoder.parameters()),
        "threads": torch.get_num_threads(),
        "settings": lambda values: json.dumps(values, sort_keys=True),
        "curve": shown if shown[-1] is curve[-1] else [*shown, curve[-1]],
    }
    write_text(folder / CARD, fill(TEMPLATES / "encoder_card.md.j2", facts))


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


def write_mini_card(folder: Path, sets: Sequence[ViewSet], measured: Measured, facts: Mapping[str, Any]) -> Path:
    """Write the model card beside the weights; every number in it was measured by this run.

    ``facts``: command, about (a sentence on the data and their licence), config, image_sha256.
    """
    count, ranks = measured.photo_ranks()
    values = {"sets": sets, "splits": (*SPLITS, UNSEEN), "prompts": mini.PROMPTS, "words": count, "photographs": ranks}
    values |= {
        **facts,
        "settings": json.dumps(facts["config"], sort_keys=True),
        "rows": [(split, part, *(ranked[way] for way in _WAYS)) for split, part, ranked in measured.rows],
    }
    write_text(folder / mini.CARD, fill(TEMPLATES / "mini_card.md.j2", values))
    return folder / mini.CARD
