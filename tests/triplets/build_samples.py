"""Cheap stand-ins for the making of an object, importable by worker processes."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import warnings
from pathlib import Path

from clipgs_lib.formats import SplatWarning
from clipgs_lib.shards.triplet import Triplet
from clipgs_lib.triplets.build import build_triplets
from clipgs_lib.triplets.recipe import BuildConfig, Source, StopBuild

from ..shards.shard_samples import make_triplet, small_shards

SPLITS = ("train", "train", "val", "test")


def sources(count: int) -> list[Source]:
    """Objects 0 .. count - 1."""
    return [Source(key=f"thing-{i:03d}", kind="catalogue", index=i) for i in range(count)]


def cheap(source: Source, config: BuildConfig) -> Triplet:
    """An object that depends on index and seed only."""
    number = source.index + 1_000 * config.seed
    return make_triplet(number, key=source.key, split=SPLITS[source.index % 4])


def troubled(source: Source, config: BuildConfig) -> Triplet:
    """Some objects fail in one of several ways, one warns."""
    if source.index == 3:
        raise ValueError("the mesh must have faces, got <b>none</b>")
    if source.index == 5:
        raise MemoryError
    if source.index == 6:
        return make_triplet(6, key="another")
    if source.index == 7:
        return make_triplet(7, key=source.key, views=())
    if source.index == 8:
        warnings.warn("decimated from 10,000,000 faces", SplatWarning, stacklevel=1)
    return cheap(source, config)


def deadly(source: Source, config: BuildConfig) -> Triplet:
    """Object 2 takes its process down, as a crash in native code does."""
    if source.index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return cheap(source, config)


def dying(source: Source, config: BuildConfig) -> Triplet:
    """Object 2 takes its process down once it is made; every attempt at an object leaves a line in its file."""
    with Path(source.path).open("a") as log:
        log.write(source.key + "\n")
    made = cheap(source, config)
    if source.index == 2:
        os._exit(1)
    return made


def endless(source: Source, config: BuildConfig) -> Triplet:
    """Objects 1 and 4 never come to an end: one asleep, one inside a C function that keeps Python's lock."""
    if source.index == 1:
        time.sleep(3_600)
    if source.index == 4:
        re.match("(a+)+b", 60 * "a")
    return cheap(source, config)


def leaving(source: Source, config: BuildConfig) -> Triplet:
    """Every object takes its process down the first time, as where memory is short; the second time it works."""
    mark = Path(os.environ["BUILD_LOG"]) / source.key
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return cheap(source, config)


def hopeless(source: Source, config: BuildConfig) -> Triplet:
    """Nothing works."""
    raise OSError(f"no such texture for {source.key}")


def teacherless(source: Source, config: BuildConfig) -> Triplet:
    """From object 3 on it turns out that none can be made."""
    if source.index >= 3:
        raise StopBuild("no teacher 'mini'")
    return cheap(source, config)


def slow(source: Source, config: BuildConfig) -> Triplet:
    """Takes a while, and leaves a line per attempt beside the set."""
    with Path(os.environ["BUILD_LOG"]).open("a") as log:
        log.write(source.key + "\n")
    time.sleep(0.1)
    if source.index == 4:
        raise ValueError("the mesh must have faces")
    return cheap(source, config)


if __name__ == "__main__":
    with small_shards(5):
        build_triplets(sources(18), sys.argv[1], workers=2, produce=slow)
