"""The one place that imports open_clip and timm, because torchvision, on which both stand, may need help first."""

from __future__ import annotations

import importlib.util
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import torch

# torchvision from PyPI is built for CUDA. Beside a CPU-only torch its native library cannot be loaded, and its import
# dies with "operator torchvision::nms does not exist" where it registers shape rules for operators that only that
# library declares; open_clip and timm die with it. Nothing here runs these operators (they serve detectors): when the
# library does not load we declare the two that torchvision asks for at import, without an implementation.
_MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_DECLARED: list[torch.library.Library] = []  # a declaration lives as long as its Library object


@cache
def prepare_torchvision() -> bool:
    """Make ``import torchvision`` work beside this torch; returns whether its native operators are there."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("teachers need torchvision, which is not installed; run: pip install torchvision==0.28.0")
    for path in sorted(Path(spec.origin).parent.glob("_C.*")):
        with suppress(OSError):
            torch.ops.load_library(str(path))
            return True
    _DECLARED.append(torch.library.Library("torchvision", "DEF"))
    for schema in _MISSING:
        _DECLARED[0].define(schema)
    return False


@contextmanager
def quick_when_offline() -> Iterator[None]:
    """Let the hub's client look only into its cache while its host has no address here.

    Otherwise it tries each file six times, which takes the better part of a minute without a network. Behind a proxy,
    which resolves names itself, nothing is changed.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    if not offline and not urllib.request.getproxies():
        try:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        except OSError:
            offline = True
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@cache
def import_open_clip() -> ModuleType:
    """open_clip, imported once, after torchvision is made fit for it."""
    prepare_torchvision()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and forked workers lock each other out
    import open_clip

    return open_clip


@cache
def import_timm() -> ModuleType:
    """timm, imported once, after torchvision is made fit for it."""
    prepare_torchvision()
    import timm

    return timm
