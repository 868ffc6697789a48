"""How good twins are, over composed rooms whose truth is known. Intervals are 95 % bootstraps over scenes."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...evaluation.scores import intervals
from ...files import write_text
from ...rendering import orbit_cameras, render, save_png, ssim
from ...splats import Splats
from .assets import FURNITURE, Asset, catalogue_assets, furniture_assets
from .composer import compose
from .layout import overlaps
from .scenes import Scene, SceneObject
from .search import KEEP, MODES, Match, Pool, crop, retrieve
from .twin import Twin, make_twin, place

KS = (1, KEEP)
_MOST = 10_000  # of the catalogue, that are looked for in a pool
_EQUAL = 0.02  # mean difference of two pictures of a shape, in [0, 1], below which they count as equal


def assets_in(pool: Pool) -> list[Asset]:
    """Furniture where it is installed, and objects of the catalogue, that a pool holds: what rooms can be scored with.

    Raises:
        ValueError: when it holds none.
    """
    assets = furniture_assets() if any(FURNITURE.glob("*.sh3f")) else []
    for shards in set(pool.owners.values()):
        made = shards.read(0).provenance.get("catalogue")
        assets += catalogue_assets(_MOST, made["seed"]) if isinstance(made, dict) else []
    assets = [asset for asset in assets if asset.source.key in pool.owners]
    if not assets:
        raise ValueError(
            "the pool must hold furniture of Sweet Home 3D or objects of the catalogue, got neither; "
            "build it: clipgs triplets build --meshes /usr/share/sweethome3d/furniture --out SET"
        )
    return assets


def score_rooms(
    count: int,
    pool: Pool,
    out: str | os.PathLike[str],
    *,
    encoder: str = "",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compose rooms, make their twins, measure both, and write ``scores.json`` with one picture and row per room.

    Retrieval is measured with all objects in the pool (``instance``: the same object is right) and with those of the
    room kept out (``category``: one of the same category is right; where there is none, the query is left out). Twins
    are made by ``fused``, and once more with the true shapes, which measures placement alone. A run that was stopped
    goes on: rooms that have a row of the same encoder and pool are not made again.

    Args:
        count: rooms, with seeds from ``seed`` on.
        pool: which holds what rooms are furnished with.
        out: folder.
        encoder: name of the pool's encoder, for the record.
        seed: of the first room.
        progress: called with rooms done, and rooms in all.

    Returns:
        What ``scores.json`` says: shares and errors with ``low`` and ``high``, metres, degrees and dB.

    Raises:
        ValueError: when the pool holds nothing to furnish rooms with, or ``count < 1``.
    """
    if count < 1:
        raise ValueError(f"there must be at least 1 room to score, got {count}")
    assets, top = assets_in(pool), Path(out)
    top.mkdir(parents=True, exist_ok=True)
    digest = [encoder, pool.teacher.identity, *sorted({s.manifest["content_sha256"] for s in pool.owners.values()})]
    rows = []
    for number in range(seed, seed + count):
        file = top / f"room-{number:04d}.json"
        row = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if row.get("made_with") != digest:
            scene = compose(number, assets)
            row, twin = score_room(scene, pool)
            row |= {"made_with": digest}
            save_png(file.with_suffix(".png"), twin.picture())
            write_text(file, json.dumps(row) + "\n")
        rows.append(row)
        if progress:
            progress(len(rows), count)
    scores = {"encoder": encoder, "seed": seed, "pool": len(pool.keys)} | _summary(rows)
    write_text(top / "scores.json", json.dumps(scores, indent=1) + "\n")
    return scores


def score_room(scene: Scene, pool: Pool) -> tuple[dict[str, Any], Twin]:
    """Raw measures of one composed scene, JSON, and its twin by ``fused``."""
    keys = {one.number: one.truth.key for one in scene.objects if one.truth is not None}
    row: dict[str, Any] = {"objects": len(keys), "retrieval": {}}
    for mode in MODES:
        instance = retrieve(scene, pool, mode)
        category = retrieve(scene, pool, mode, exclude=set(keys.values()))
        row["retrieval"][mode] = {
            "instance": [_hits(one, instance[one.number], by_key=True) for one in scene.objects],
            "category": [
                _hits(one, category[one.number], by_key=False) for one in scene.objects if _has_kin(one, pool, keys)
            ],
        }
    began = time.process_time()
    twin = make_twin(scene, pool)
    row["seconds"] = (time.process_time() - began) / len(keys)
    exact = place(scene, twin.matches, pool, choice=keys, supports=twin.supports)
    row["placement"] = {"retrieved": _errors(twin, pool), "true shapes": _errors(exact, pool)}
    return row, twin


def _hits(one: SceneObject, matches: Sequence[Match], *, by_key: bool) -> list[float]:
    assert one.truth is not None
    right = [match.key == one.truth.key if by_key else match.category == one.truth.category for match in matches]
    return [float(any(right[:k])) for k in KS]


def _has_kin(one: SceneObject, pool: Pool, keys: Mapping[int, str]) -> bool:
    """Whether the pool holds one of an object's category beside those of the room."""
    left = (name for key, name in zip(pool.keys, pool.categories, strict=True) if key not in keys.values())
    return one.truth is not None and one.truth.category in left


def equal_yaws(shape: Splats, steps: int = 24) -> list[float]:
    """Degrees by which a shape can be turned about +y without looking different; 0 is always among them."""
    cameras = orbit_cameras(steps, distance=3.2, elevation=25, width=48, height=48)
    with torch.no_grad():
        out = render(shape, *cameras, background=(1.0, 1.0, 1.0))
    # a shape that looks alike from two sides is alike when turned by the angle between them, for all sides
    pictures = out.colors.clamp(0, 1)
    covered = out.alphas.mean().clamp_min(1e-3)
    turned = [(pictures - pictures.roll(k, dims=0)).abs().mean() / covered for k in range(steps)]
    return [360.0 * k / steps for k, difference in enumerate(turned) if k == 0 or float(difference) < _EQUAL]


def yaw_error(yaw: float, truth: float, equal: Sequence[float] = (0.0,)) -> float:
    """Degrees in ``[0, 180]`` between two yaws, the least over turns that look the same."""
    return min(abs((yaw - truth - turn + 180) % 360 - 180) for turn in equal)


def _errors(twin: Twin, pool: Pool) -> dict[str, list[float]]:
    """Measures of a twin, a list over its objects each; those of the picture have one entry."""
    scene, out = twin.scene, dict[str, list[float]]()
    boxes = {number: np.ptp(np.stack(shape.bounds()), axis=0).max() for number, shape in twin.shapes.items()}
    stages = {"start": twin.starts, "fitted": twin.fitted, "final": twin.poses}
    for stage, poses in stages.items():
        touching = {number for pair in overlaps(poses, twin.shapes, twin.supports) for number in pair}
        lists: dict[str, list[float]] = {name: [] for name in ("yaw", "position", "size", "collides")}
        for one in scene.objects:
            assert one.truth is not None
            pose, truth = poses[one.number], one.truth
            lists["yaw"].append(yaw_error(pose.yaw, truth.pose.yaw, equal_yaws(pool.splats(truth.key))))
            lists["position"].append(math.dist(pose.position, truth.pose.position))
            lists["size"].append(math.expm1(abs(math.log(pose.scale * boxes[one.number] / max(truth.size)))))
            lists["collides"].append(float(one.number in touching))
        lists |= _likeness(twin, poses, pool)
        out |= {f"{name} {stage}": values for name, values in lists.items()}
    known = [(twin.supports[one.number], one.truth.support) for one in scene.objects if one.truth is not None]
    return out | {"support": [float(a == b) for a, b in known]}


def _likeness(twin: Twin, poses: Mapping[int, Any], pool: Pool) -> dict[str, list[float]]:
    """PSNR and SSIM of picture and twin on the pixels of objects, and the teacher's cosine of their crops."""
    scene, drawn = twin.scene, twin.draw(poses)
    mask = torch.from_numpy(np.any([one.mask for one in scene.objects], axis=0))[..., None]
    image = torch.from_numpy(scene.image.astype(np.float32) / 255)
    error = ((drawn - image) ** 2 * mask).sum() / (3 * mask.sum())
    pair = [torch.where(mask, picture, torch.ones(())) for picture in (drawn, image)]
    remade = replace(scene, image=(drawn * 255).round().to(torch.uint8).numpy())
    crops = [pool.teacher.encode_image(np.stack([crop(s, one) for one in s.objects])) for s in (scene, remade)]
    return {
        "psnr": [float(-10 * error.clamp_min(1e-10).log10())],
        "ssim": [float(ssim(*pair))],
        "cosine": (crops[0] * crops[1]).sum(dim=1).tolist(),
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def stats(lists: Sequence[Sequence[float]]) -> dict[str, float]:
        groups = np.repeat(np.arange(len(lists)), [len(values) for values in lists])
        values = np.array([value for values in lists for value in values])
        if not len(values):
            return {"count": 0}
        [interval] = intervals(values[:, None], groups, seed=0)
        names = {"value": interval.value, "low": interval.low, "high": interval.high}
        return {name: round(number, 4) for name, number in names.items()} | {"count": len(values)}

    def recall(mode: str, kind: str, place: int) -> list[list[float]]:
        return [[hits[place] for hits in row["retrieval"][mode][kind]] for row in rows]

    kinds = ("instance", "category")
    better = {}
    for other in ("text", "image"):
        for kind in kinds:
            pairs = zip(recall("fused", kind, 0), recall(other, kind, 0), strict=True)
            lists = [[a - b for a, b in zip(one, two, strict=True)] for one, two in pairs]
            better[f"R@1 {kind}: fused - {other}"] = stats(lists)
    names = rows[0]["placement"]["retrieved"]
    return {
        "rooms": len(rows),
        "objects": sum(row["objects"] for row in rows),
        "cpu_seconds_per_object": round(float(np.mean([row["seconds"] for row in rows])), 3),
        "retrieval": {
            mode: {f"R@{k} {kind}": stats(recall(mode, kind, i)) for kind in kinds for i, k in enumerate(KS)}
            for mode in MODES
        },
        "paired": better,
        "placement": {
            which: {name: stats([row["placement"][which][name] for row in rows]) for name in names}
            | {f"median {name}": _median(rows, which, name) for name in names if name.endswith("final")}
            for which in ("retrieved", "true shapes")
        },
    }


def _median(rows: Sequence[Mapping[str, Any]], which: str, name: str) -> float:
    return round(float(np.median([value for row in rows for value in row["placement"][which][name]])), 4)
