"""Robustness and cost: what changed splats do to embeddings and accuracy, and what an embedding takes."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..encoders import Encoder
from ..formats import FORMATS, SplatWarning, read_splats, write_splats
from ..geometry import SH_C0, rotation_about
from ..rendering import render, sphere_cameras
from ..splats import COLUMNS, Splats
from .evaluation_set import EvaluationSet, Progress
from .protocols import targets_of
from .results import Measured, Results
from .scores import rank

CLEAN = "unchanged"
MEGABYTE = 1e6
Change = Callable[[Splats, np.random.Generator], Splats]


def changes_of(degree: int) -> dict[str, Change]:
    """Everything that is done to splats of an SH degree, by name; each takes a splat and a source of randomness."""
    changes: dict[str, Change] = {
        "half of the gaussians": lambda splats, rng: _subsample(splats, rng, 0.5),
        "a tenth of the gaussians": lambda splats, rng: _subsample(splats, rng, 0.1),
        "turned by 90 degrees": lambda splats, rng: _turned(splats, 90),
        "turned by 180 degrees": lambda splats, rng: _turned(splats, 180),
        "tilted by 30 degrees": lambda splats, rng: _turned(splats, 30, tilt=True),
        "5 % floaters": _floaters,
        "half of the object cut off": _halved,
        "colours jittered": _jittered,
        "colours dropped": lambda splats, rng: replace(splats.with_sh_degree(0), sh0=torch.zeros_like(splats.sh0)),
    }
    if degree > 0:
        changes["SH above degree 0 dropped"] = lambda splats, rng: splats.with_sh_degree(0)
    for name, module in FORMATS.items():
        if hasattr(module, "write"):
            changes[f"as {name}"] = _written(name, module.SUFFIXES[0])
    return changes


def _subsample(splats: Splats, rng: np.random.Generator, share: float) -> Splats:
    return splats.subsample(min(len(splats), max(4, round(share * len(splats)))), seed=int(rng.integers(1 << 31)))


def _turned(splats: Splats, degrees: float, *, tilt: bool = False) -> Splats:
    """Turn about the up axis (+y where it is unknown), or about the axis after it; up stays as it was said to be."""
    up = "y" if splats.up_axis == "unknown" else splats.up_axis[1]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation_about({"x": "y", "y": "z", "z": "x"}[up] if tilt else up, degrees)
    return replace(splats.transform(matrix), up_axis=splats.up_axis)


def _floaters(splats: Splats, rng: np.random.Generator) -> Splats:
    """A twentieth more gaussians, taken from the object and put anywhere in 1.5 times its box."""
    count = max(1, len(splats) // 20)
    more = splats[torch.from_numpy(rng.choice(len(splats), count))]
    low, high = splats.bounds()
    places = torch.from_numpy(rng.random((count, 3), dtype=np.float32))
    middle, size = (low + high) / 2, 1.5 * (high - low)
    return Splats.cat([splats, replace(more, means=middle + (places - 0.5) * size)])


def _halved(splats: Splats, rng: np.random.Generator) -> Splats:
    """One side of the object, seen from a random direction on the ground: as one scan from one side has it."""
    up = "xyz".index("y" if splats.up_axis == "unknown" else splats.up_axis[1])
    angle = 2 * np.pi * rng.random()
    direction = torch.tensor(np.insert([np.cos(angle), np.sin(angle)], up, 0.0), dtype=torch.float32)
    along = splats.means @ direction
    return splats[along >= along.median()]


def _jittered(splats: Splats, rng: np.random.Generator) -> Splats:
    """Each channel times 0.7 to 1.3 and plus -0.1 to 0.1, the same for the whole object."""
    gain = torch.from_numpy(rng.uniform(0.7, 1.3, 3).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, 3).astype(np.float32))
    colors = (splats.colors * gain + shift).clamp(0, 1)
    return replace(splats, sh0=((colors - 0.5) / SH_C0)[:, None], shN=splats.shN * gain)


def _written(name: str, suffix: str) -> Change:
    """Write and read in a format; up is what it was."""

    def change(splats: Splats, rng: np.random.Generator) -> Splats:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", SplatWarning)
            path = write_splats(splats, Path(folder) / f"object{suffix}", format=name)
            return replace(read_splats(path, format=name), up_axis=splats.up_axis)

    return change


def robustness_protocol(
    results: Results,
    objects: EvaluationSet,
    methods: Mapping[str, Encoder],
    classes: Sequence[str],
    weights: Tensor | None,
    *,
    count: int = 48,
    views: int = 4,
    size: int = 160,
    progress: Progress | None = None,
) -> None:
    """Change splats and compare: cosine of the embeddings before and after, and zero-shot accuracy after.

    Of ``count`` objects at most, drawn at random. Methods that read views see pictures of the changed splats, also of
    the unchanged ones. Without the ``weights [C, D]`` of the classes' names there is no accuracy.
    """
    order = np.random.default_rng(results.seed).permutation(len(objects))[:count]
    splats = objects.splats(order)
    names = np.array(objects.names)[order]
    known, target = targets_of([objects.labels[number] for number in order], classes)
    changes: dict[str, Change] = {CLEAN: lambda splats, rng: splats} | changes_of(max(one.sh_degree for one in splats))
    before, hits_before = dict[str, Tensor](), dict[str, np.ndarray]()
    for done, (task, change) in enumerate(changes.items(), start=1):
        rngs = [np.random.default_rng([results.seed, int(number)]) for number in order]
        changed = [change(one, rng) for one, rng in zip(splats, rngs, strict=True)]
        reads_views = any(method.inputs == "views" for method in methods.values())
        pictures = [pictures_of(one, views, size) for one in changed] if reads_views else []
        for name, method in methods.items():
            embeds = method.encode(pictures if method.inputs == "views" else changed).float().cpu()
            place = ("robustness", task)
            cosine = (embeds * before.setdefault(name, embeds)).sum(dim=1).double().numpy()
            results.measured.append(Measured(*place, "cosine", name, cosine, names, unit="cosine"))
            if weights is None or not known:
                continue
            ranks = rank(embeds[known], weights, target, (1, 5), ("embeds", "weights"))
            for column, k in enumerate(ranks.ks):
                hits = ranks.hits[:, column]
                results.measured.append(Measured(*place, f"Top-{k}", name, hits, names[known], ranks.chance[column]))
            lost = hits - hits_before.setdefault(name, hits)
            results.measured.append(Measured(*place, "change of Top-5", name, lost, names[known]))
        if progress:
            progress(done, len(changes))


def pictures_of(splats: Splats, views: int, size: int) -> Tensor:
    """Pictures ``[views, size, size, 3]`` in ``[0, 1]`` of splats over white, from a belt around them."""
    up = "+y" if splats.up_axis == "unknown" else splats.up_axis
    cameras = sphere_cameras(views, up=up, width=size, height=size, elevations=(-20.0, 70.0))
    drawn = render(splats.normalize(), *cameras[:2], size, size, background=(1.0, 1.0, 1.0))
    return drawn.colors.clamp(0, 1).cpu()


def cost_protocol(
    results: Results,
    objects: EvaluationSet,
    methods: Mapping[str, Encoder],
    *,
    tower: torch.nn.Module | None = None,
    count: int = 12,
    size: int = 160,
) -> None:
    """Time and memory of one object at a time: from splats in memory to the embedding, on one CPU thread or on CUDA.

    Methods that read views have as many drawn of the splats as the set has of the object, and drawing counts; so do the
    weights of the image ``tower`` that they stand on.
    """
    names = np.array(objects.names)[:count]
    splats = objects.splats(range(len(names)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, method in methods.items():
            _cost(method, splats[0], len(objects.images[0]), size)  # the first call prepares what later ones use
            rows = [_cost(method, one, len(rows), size) for one, rows in zip(splats, objects.images, strict=False)]
            parts = [method, *([getattr(method, "tower", tower)] if method.inputs == "views" else [])]
            values = {id(value): value for part in parts if part is not None for value in part.parameters()}
            weights = sum(value.numel() * value.element_size() for value in values.values()) / MEGABYTE
            columns = [*np.array(rows).T, np.full(len(rows), weights)]
            metrics = (("ms", "ms"), ("ms for drawing", "ms"), ("MB read", "MB"), ("MB of weights", "MB"))
            for (metric, unit_), column in zip(metrics, columns, strict=True):
                place = ("cost", "one object, one thread", metric)
                results.measured.append(Measured(*place, name, column, names, unit=unit_))
    finally:
        torch.set_num_threads(threads)


def _cost(method: Encoder, splats: Splats, views: int, size: int) -> tuple[float, float, float]:
    """Milliseconds in all and for drawing, and megabytes read; the quicker of two times."""
    best = (np.inf, np.inf, 0.0)
    for _ in range(2):
        start = time.perf_counter()
        content: list[Any] = [pictures_of(splats, views, size) if method.inputs == "views" else splats]
        drawn = time.perf_counter()
        method.encode(content).cpu()
        end = time.perf_counter()
        parts = content if method.inputs == "views" else [getattr(splats, name) for name in COLUMNS]
        megabytes = sum(part.numel() * part.element_size() for part in parts) / MEGABYTE
        best = min(best, (1e3 * (end - start), 1e3 * (drawn - start), megabytes))
    return best
