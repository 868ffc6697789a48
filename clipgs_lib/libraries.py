"""Help that third-party libraries need before their first use: open_clip and timm are imported here and nowhere else,
because torchvision, on which both stand, may need it; numba may need a folder for what it compiles.
"""

import importlib.util
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

# torchvision from PyPI is built for CUDA. Beside a CPU-only torch its native library cannot be loaded, and its import
# dies with "operator torchvision::nms does not exist" where it registers shape rules for operators that only that
# library declares; open_clip and timm die with it. Nothing here runs these operators (they serve detectors): when the
# library does not load we declare the two that torchvision asks for at import, without an implementation.
_MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_DECLARED: list[Any] = []  # a declaration lives as long as its Library object


@cache
def prepare_torchvision() -> bool:
    """Make ``import torchvision`` work beside this torch; returns whether its native operators are there."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("teachers need torchvision, which is not installed; run: pip install torchvision==0.28.0")
    import torch

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
    import urllib.request
    from urllib.parse import urlsplit

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


def give_numba_a_cache() -> None:
    """Have numba keep what it compiles in a temporary folder of this user when it has no other place to write to.

    It looks beside the sources, then in the user's home; without either, every kernel here would fail at its import.
    Nothing changes where one of them, or ``NUMBA_CACHE_DIR``, will do. Processes started from this one use the same.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - no error without a home
    if os.environ.get("NUMBA_CACHE_DIR") or os.access(Path(__file__).parent, os.W_OK) or _made(Path(home, "numba")):
        return
    with suppress(OSError):  # without a temporary folder either, numba has its say
        folder = Path(tempfile.gettempdir(), f"clipgs-numba-{os.getuid()}")
        # numba runs what lies there, so it must be a folder that nobody else can write to
        if (
            not _made(folder)
            or folder.lstat().st_uid != os.getuid()
            or folder.lstat().st_mode & 0o170022 != stat.S_IFDIR
        ):
            folder = Path(tempfile.mkdtemp(prefix="clipgs-numba-"))
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        if "numba" in sys.modules:
            sys.modules["numba"].config.CACHE_DIR = str(folder)


def _made(folder: Path) -> bool:
    """Whether a folder is there, after it has been made if need be, and can be written to."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder.is_absolute() and os.access(folder, os.W_OK)
    return False
