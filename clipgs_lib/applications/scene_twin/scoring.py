"""How good twins are, over composed rooms whose truth is known. Intervals are 95 % bootstraps over rooms."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...evaluation import compare
from ...evaluation.scores import intervals, resampled
from ...files import write_text
from ...rendering import orbit_cameras, psnr, render, save_png, ssim
from ...rendering.images import to_uint8
from ...splats import Splats
from ...words import head_noun
from .composer import assets_in, compose
from .placement import overlaps
from .scenes import Scene
from .twin import KEEP, MODES, Mode, Pool, Twin, make_twin, queries, retrieve

Values = dict[tuple[str, str, str], list[float]]  # encoder, mode and metric -> a value for each object of a room

KS = (1, KEEP)
COARSE = ", coarse names"  # behind modes that searched by the head of each name
_MEASURES = 2  # version of what a room's file holds
_EQUAL = 0.02  # mean difference of two pictures of a shape, in [0, 1], below which they count as equal


def score_rooms(
    count: int,
    pools: Mapping[str, Pool],
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compose rooms, make their twins, measure both, and write ``scores.json`` with one picture and row per room.

    Retrieval is measured with all objects in the pool (``instance``: the same object is right) and with those of the
    room kept out (``category``: one of the same category is right; where there is none, the query is left out), and
    over both (``either``: the mean of the two, of objects that have both). Names are the categories, which flatters
    searches by text; ``coarse names`` are their head nouns ("office chair" -> "chair"), and what is right stays the
    same. Twins are made by the first encoder and each mode ("twin" is the fused one), and once more with the true
    shapes, which measures placement alone. A run that was stopped goes on: rooms that have a row of the same encoders
    and pool are not made again.

    Args:
        count: rooms, with seeds from ``seed`` on.
        pools: by the name of their encoder; the same objects in all, which rooms are furnished with.
        out: folder.
        seed: of the first room.
        progress: called with rooms done, and rooms in all.

    Returns:
        What ``scores.json`` says: ``rows`` with ``encoder``, ``mode``, ``metric``, ``value``, ``low``, ``high``,
        ``median`` and ``n``; shares, metres, degrees and dB. Differences of modes have ``p`` and ``verdict`` too.

    Raises:
        ValueError: when the pool holds nothing to furnish rooms with, or ``count < 1``.
    """
    if count < 1:
        raise ValueError(f"there must be at least 1 room to score, got {count}")
    pool, top = next(iter(pools.values())), Path(out)
    assets = assets_in(pool.owners)
    top.mkdir(parents=True, exist_ok=True)
    facts = {
        "encoders": {name: each.encoder.identity for name, each in pools.items()},
        "teacher": pool.teacher.identity,
        "measures": _MEASURES,
        "sets": sorted({shards.manifest["content_sha256"] for shards in pool.owners.values()}),
    }
    rooms = []
    for number in range(seed, seed + count):
        file = top / f"room-{number:04d}.json"
        room = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if room.get("made_with") != facts:
            values, twin = score_room(compose(number, assets), pools)
            room = {"made_with": facts, "values": [[*name, each] for name, each in values.items()]}
            save_png(file.with_suffix(".png"), twin.picture())
            write_text(file, json.dumps(room) + "\n")
        rooms.append({(encoder, mode, metric): each for encoder, mode, metric, each in room["values"]})
        if progress:
            progress(len(rooms), count)
    scores = facts | {"pool": len(pool.keys), "rooms": count, "seed": seed, "rows": _summary(rooms)}
    write_text(top / "scores.json", json.dumps(scores, indent=1) + "\n")
    return scores


def score_room(scene: Scene, pools: Mapping[str, Pool]) -> tuple[Values, Twin]:
    """Raw measures of one composed scene, and its twin by the first encoder, fused."""
    first, pool = next(iter(pools.items()))
    keys = {one.number: one.truth.key for one in scene.objects if one.truth is not None}
    values = _hits(scene, pools)
    began = time.process_time()
    twin = make_twin(scene, pool)
    values[first, "twin", "CPU seconds per object"] = [(time.process_time() - began) / len(keys)]
    exact = twin.changed(pool, keys)
    equal = {number: _equal_yaws(pool, key) for number, key in keys.items()}
    others = {f"twin by {mode}": twin.searched(pool, mode) for mode in MODES[1:]}
    for which, made in {"twin": twin, **others, "twin of the true shapes": exact}.items():
        values |= {(first, which, metric): errors for metric, errors in _errors(made, pool, equal).items()}
    return values, twin


def coarse_name(name: str) -> str:
    """The head of a name, without what numbers and commas say: ``office chair`` and ``chair 2 seats`` are a chair."""
    return head_noun(re.split(r",|\s\d", name)[0])


def _hits(scene: Scene, pools: Mapping[str, Pool]) -> Values:
    """Whether each object is found, by each encoder, mode and kind of name, and how modes differ."""
    coarse = replace(scene, objects=tuple(replace(one, name=coarse_name(one.name)) for one in scene.objects))
    values: Values = {}
    for name, pool in pools.items():
        by_image = _hits_of(scene, pool, "image")
        values |= {(name, "image", metric): hits for metric, hits in by_image.items()}
        for asked, suffix in ((scene, ""), (coarse, COARSE)):
            by = {"fused": _hits_of(asked, pool, "fused"), "text": _hits_of(asked, pool, "text")}
            values |= {
                (name, mode + suffix, metric): hits for mode, each in by.items() for metric, hits in each.items()
            }
            for other, each in (("text", by["text"]), ("image", by_image)):
                for metric in ("instance R@1", "category R@1", "either R@1"):
                    pairs = zip(by["fused"][metric], each[metric], strict=True)
                    values[name, f"fused - {other}{suffix}", metric] = [a - b for a, b in pairs]
    return values


def _hits_of(scene: Scene, pool: Pool, mode: Mode) -> dict[str, list[float]]:
    """Metric -> 0 or 1 for each object that has it, and of ``either`` the mean of both kinds."""
    truths = {one.number: one.truth for one in scene.objects if one.truth is not None}
    hidden = {truth.key for truth in truths.values()}
    left = {category for key, category in zip(pool.keys, pool.categories, strict=True) if key not in hidden}
    kin = {number: truth for number, truth in truths.items() if truth.category in left}
    instance, category = retrieve(scene, pool, mode), retrieve(scene, pool, mode, exclude=hidden)
    out: dict[str, list[float]] = {}
    for k in KS:
        same = {n: float(truth.key in [match.key for match in instance[n][:k]]) for n, truth in truths.items()}
        alike = {n: float(truth.category in [match.category for match in category[n][:k]]) for n, truth in kin.items()}
        either = [(same[n] + alike[n]) / 2 for n in kin]
        out |= {f"instance R@{k}": [*same.values()], f"category R@{k}": [*alike.values()], f"either R@{k}": either}
    return out


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


@functools.lru_cache(maxsize=1_000)  # a shape stands in several rooms
def _equal_yaws(pool: Pool, key: str) -> list[float]:
    return equal_yaws(pool.splats(key))


def yaw_error(yaw: float, truth: float, equal: Sequence[float] = (0.0,)) -> float:
    """Degrees in ``[0, 180]`` between two yaws, the least over turns that look the same."""
    return min(abs((yaw - truth - turn + 180) % 360 - 180) for turn in equal)


def _errors(twin: Twin, pool: Pool, equal: Mapping[int, Sequence[float]]) -> dict[str, list[float]]:
    """Measures of a twin, a list over its objects each; those of the picture have one entry."""
    truths = {one.number: one.truth for one in twin.scene.objects if one.truth is not None}
    sides = {number: np.ptp(np.stack(shape.bounds()), axis=0).max() for number, shape in twin.shapes.items()}
    stages = {
        "start": {number: fit.start for number, fit in twin.fits.items()},
        "fitted": {number: fit.pose for number, fit in twin.fits.items()},
        "final": twin.poses,
    }
    out = {"support right": [float(twin.supports[n] == truth.support) for n, truth in truths.items()]}
    for stage, poses in stages.items():
        touching = {number for pair in overlaps(poses, twin.shapes, twin.supports) for number in pair}
        out |= {
            f"yaw error {stage}": [yaw_error(poses[n].yaw, t.pose.yaw, equal[n]) for n, t in truths.items()],
            f"position error {stage}": [math.dist(poses[n].position, t.pose.position) for n, t in truths.items()],
            f"size error {stage}": [
                math.expm1(abs(math.log(poses[n].scale * sides[n] / max(t.size)))) for n, t in truths.items()
            ],
            f"collides {stage}": [float(n in touching) for n in truths],
        }
        if stage != "fitted":
            out |= {f"{metric} {stage}": each for metric, each in _likeness(twin, poses, pool).items()}
    return out


def _likeness(twin: Twin, poses: Mapping[int, Any], pool: Pool) -> dict[str, list[float]]:
    """PSNR and SSIM of picture and twin on the pixels of objects, and the teacher's cosine of their crops."""
    scene, drawn = twin.scene, twin.draw(poses)
    mask = torch.from_numpy(np.any([one.mask for one in scene.objects], axis=0))[..., None]
    pair = [torch.where(mask, picture, torch.ones(())) for picture in (drawn, scene.colors)]
    inside = [picture[mask[..., 0]][None] for picture in (drawn, scene.colors)]  # [1, n, 3]
    remade = replace(scene, image=to_uint8(drawn))
    crops = [queries(s, pool.teacher)[1] for s in (scene, remade)]
    return {
        "PSNR": [float(psnr(*inside))],
        "SSIM": [float(ssim(*pair))],
        "cosine": (crops[0] * crops[1]).sum(dim=1).tolist(),
    }


def _summary(rooms: Sequence[Values]) -> list[dict[str, Any]]:
    rows = []
    for name in rooms[0]:
        lists = [room[name] for room in rooms]
        values = np.concatenate(lists)
        row: dict[str, Any] = dict(zip(("encoder", "mode", "metric"), name, strict=True)) | {"n": len(values)}
        if len(values):
            draws = (values[:, None], np.repeat(np.arange(len(lists)), [len(each) for each in lists]), 0)
            [interval] = intervals(*draws)
            numbers = vars(interval) | {"median": float(np.median(values))}
            row |= {key: round(number, 4) for key, number in numbers.items()}
            if " - " in name[1]:
                paired = compare(interval.value, resampled(*draws)[:, 0])
                row |= {"p": round(paired["p"], 4), "verdict": paired["verdict"]}
        rows.append(row)
    return rows
