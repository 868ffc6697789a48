"""Our shards in a `webdataset` pipeline: for sets on the web, and for loops that are built on it already.

Unlike `TripletStream` it needs no index and reads each tar from front to back, so it can follow a URL; it promises
neither exact resuming nor equal parts. webdataset gives the list of shards, its division among ranks and workers, the
HTTP stream and the shuffle buffer. It is imported with ``WDS_SECURE=1``, since it runs ``pipe:`` commands and unpickles
otherwise; its tar reader and decoders are not used at all.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .tar import BLOCK, ShardError, parse_header
from .triplet import Triplet, from_parts


def as_webdataset(urls: Sequence[str | os.PathLike[str]], *, shuffle: int = 0, seed: int = 0) -> Any:
    """A ``webdataset.DataPipeline`` that yields `Triplet`; ranks and workers share the shards among them.

    Args:
        urls: tars of a set: paths, or ``http://`` and ``https://`` addresses.
        shuffle: size of the buffer that objects are drawn from; 0 keeps their order.
        seed: of the order of shards and of the buffer.

    Raises:
        ShardError: for other kinds of URL; from the pipeline, naming tar and member, for whatever `unpack_members`
            and `decode_triplet` refuse.
    """
    wds = _secure_webdataset()
    places = [os.fspath(url) for url in urls]
    for place in places:
        if not place.startswith(("http://", "https://")) and not Path(place).is_file():
            raise ShardError(place[:200], "a shard must be a file, or an http(s) address", "neither", "refused")
    stages = [
        wds.SimpleShardList(places, seed=seed if shuffle else None),
        wds.split_by_node,
        wds.split_by_worker,
        _read_shards,
    ]
    if shuffle:
        stages.append(wds.detshuffle(shuffle, seed=seed))
    return wds.DataPipeline(*stages)


def _secure_webdataset() -> Any:
    os.environ["WDS_SECURE"] = "1"  # read when webdataset is imported
    import webdataset
    from webdataset import utils as settings

    settings.enforce_security = True  # in case somebody imported it before us
    return webdataset


def _read_shards(sources: Iterator[Mapping[str, str]]) -> Iterator[Triplet]:
    """The pipeline's stage from ``{"url"}`` to objects."""
    for source in sources:
        url = source["url"]
        with _open(url) as stream:
            if not url.endswith(".gz"):
                yield from _read_objects(stream, url)
                continue
            try:
                yield from _read_objects(gzip.GzipFile(fileobj=stream), url)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ShardError(url, "the shard must unpack as gzip", str(error)[:200], "fetch it again") from None


def _open(url: str) -> Any:
    if url.startswith(("http://", "https://")):
        return _secure_webdataset().gopen(url)
    return Path(url).open("rb")


def _read_objects(stream: BinaryIO | gzip.GzipFile, where: str) -> Iterator[Triplet]:
    """Objects out of a tar that is read once, from front to back."""
    key, parts, position = "", dict[str, bytes](), 0
    while True:
        header = stream.read(BLOCK)
        if not any(header):
            if len(header) < BLOCK:
                raise ShardError(where, "a tar must end in empty blocks", "an early end", "fetch it again")
            break
        owner, part, size = parse_header(header, f"{where} at byte {position:,}", where)
        if owner != key and parts:
            yield from_parts(key, parts, where)
            parts = {}
        if part in parts:
            raise ShardError(f"{where}, member {owner}.{part}", "a member must come once", "it twice", "refused")
        data = stream.read(size + (-size % BLOCK))
        if len(data) < size + (-size % BLOCK):
            got = f"{min(len(data), size):,} of {size:,} bytes"
            raise ShardError(f"{where}, member {owner}.{part}", "the member must be complete", got, "fetch it again")
        key, parts[part] = owner, data[:size]
        position += BLOCK + len(data)
    if parts:
        yield from_parts(key, parts, where)
