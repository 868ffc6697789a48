"""Hypothesis helpers shared by the fuzz tests of all formats: damage valid bytes, demand an orderly answer.

Beside the tests, so: ``from .mutations import assert_survives, fuzz_settings, mutations``.
"""

from __future__ import annotations

import os
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from clipgs_lib.formats.raw import FormatError, SplatWarning

FUZZ_EXAMPLES = int(os.environ.get("CLIPGS_FUZZ", "60"))
"""Examples per fuzz test; raise it through the environment for a long run."""

fuzz_settings = settings(
    derandomize=True,
    deadline=None,
    max_examples=FUZZ_EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""Decorator for every fuzz test: repeatable, quick by default."""

_HEAD = 512
_EXTREMES = {  # by size in bytes; unsigned, so that the signed readings include -1, -2, the least and the greatest
    k // 8: [0, 1, 2**k - 1, 2**k - 2, 2 ** (k - 1), 2 ** (k - 1) - 1, 2 ** (k // 2)] for k in (16, 32, 64)
}


def mutations(valid: bytes, *, max_steps: int = 3) -> st.SearchStrategy[bytes]:
    """Strategy of damaged copies of ``valid``: one to ``max_steps`` random edits, the first 512 bytes favoured.

    Edits: truncate, flip a bit, overwrite bytes, insert, delete, duplicate a slice, append, and overwrite a 2, 4 or
    8-byte little-endian integer by an extreme value.
    """
    return st.lists(st.sampled_from(sorted(_EDITS)), min_size=1, max_size=max_steps).flatmap(
        lambda names: _chain(valid, names)
    )


@st.composite
def _chain(draw: st.DrawFn, valid: bytes, names: list[str]) -> bytes:
    data = bytearray(valid)
    for name in names:
        data = _EDITS[name](draw, data)
    return bytes(data)


def _place(draw: st.DrawFn, data: bytearray) -> int:
    """An index into the data (0 when it is empty); two times of three inside the first 512 bytes."""
    last = max(0, len(data) - 1)
    return draw(st.one_of(st.integers(0, min(_HEAD, last)), st.integers(0, min(_HEAD, last)), st.integers(0, last)))


def _truncate(draw: st.DrawFn, data: bytearray) -> bytearray:
    return data[: _place(draw, data)]


def _flip(draw: st.DrawFn, data: bytearray) -> bytearray:
    if data:
        data[_place(draw, data)] ^= 1 << draw(st.integers(0, 7))
    return data


def _overwrite(draw: st.DrawFn, data: bytearray) -> bytearray:
    at = _place(draw, data)
    patch = draw(st.binary(min_size=1, max_size=16))
    data[at : at + len(patch)] = patch
    return data


def _insert(draw: st.DrawFn, data: bytearray) -> bytearray:
    at = _place(draw, data)
    data[at:at] = draw(st.binary(min_size=1, max_size=64))
    return data


def _delete(draw: st.DrawFn, data: bytearray) -> bytearray:
    at = _place(draw, data)
    del data[at : at + draw(st.integers(1, 64))]
    return data


def _duplicate(draw: st.DrawFn, data: bytearray) -> bytearray:
    start, at = _place(draw, data), _place(draw, data)
    data[at:at] = data[start : start + draw(st.integers(1, 256))]
    return data


def _append(draw: st.DrawFn, data: bytearray) -> bytearray:
    return data + draw(st.binary(min_size=1, max_size=64))


def _extreme(draw: st.DrawFn, data: bytearray) -> bytearray:
    size = draw(st.sampled_from(sorted(_EXTREMES)))
    at = min(_place(draw, data), max(0, len(data) - size))
    data[at : at + size] = draw(st.sampled_from(_EXTREMES[size])).to_bytes(size, "little")
    return data


_EDITS: dict[str, Callable[[st.DrawFn, bytearray], bytearray]] = {
    "truncate": _truncate,
    "flip": _flip,
    "overwrite": _overwrite,
    "insert": _insert,
    "delete": _delete,
    "duplicate": _duplicate,
    "append": _append,
    "extreme": _extreme,
}


def assert_survives(
    read: Callable[[Path], Any], path: Path, max_extra_bytes: int = 64 << 20, seconds: float = 20.0
) -> Any | None:
    """Read a damaged file: it must work or raise `FormatError`, within bounds of memory and time.

    Args:
        read: called with ``path``.
        path: the damaged file.
        max_extra_bytes: bound of Python-traced memory (numpy included) that reading may add at its peak.
        seconds: generous bound, to catch a hang; no performance claim.

    Returns:
        What ``read`` returned, or None when it raised `FormatError`.
    """
    outcome = None
    tracemalloc.start()
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SplatWarning)
            outcome = read(path)
    except FormatError as error:
        assert str(error).startswith(str(path)), f"the message must name the file: {error}"
        assert error.must and error.got, f"the message must say what must hold and what came: {error}"
    finally:
        took = time.monotonic() - began
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= max_extra_bytes, f"reading took {peak:,} bytes at its peak, more than the bound {max_extra_bytes:,}"
    assert took <= seconds, f"reading took {took:.1f} s, more than the bound {seconds} s"
    return outcome
