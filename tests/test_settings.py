"""Plain values to dataclasses: strict, with sentences, and back; comments of the source as help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

import pytest

from clipgs_lib.settings import (
    Setting,
    SettingError,
    check,
    conform,
    from_plain,
    read_file,
    set_values,
    settings_of,
    to_plain,
)


@dataclass(frozen=True)
class Inner:
    size: int = 3  # voxels
    # two lines
    # above
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    folders: tuple[str, ...]  # where
    inner: Inner = field(default_factory=Inner)
    rate: float = 1e-3  # per step
    shares: Mapping[str, float] | None = None  # of sources
    pair: tuple[float, float] = (0.5, 1.0)  # low and high
    count: int = 1  # of things


GOOD = [
    (3, int, 3),
    (3.0, int, 3),
    (3, float, 3.0),
    ("a", tuple[str, ...], ("a",)),
    (["a", "b"], tuple[str, ...], ("a", "b")),
    (None, str | None, None),
    ([1, 2], list[int], [1, 2]),
    ({"a": 1}, dict[str, float], {"a": 1.0}),
    ({"size": 4}, Inner, Inner(size=4)),
    (Inner(), Inner, Inner()),
]
BAD = [
    ("1", int, "x must be a whole number, got '1'"),
    (True, int, "x must be a whole number, got True"),
    (2.5, int, "x must be a whole number, got 2.5"),
    (float("inf"), int, "x must be a whole number, got inf"),
    (True, float, "x must be a number, got True"),
    (1, bool, "x must be true or false, got 1"),
    (1, str, "x must be a text, got 1"),
    (1, str | None, "x must be a text, got 1"),
    ("c", Literal["a", "b", "d"], "x must be one of a, b, d, got 'c'"),
    (1, tuple[str, ...], "x must be a list, got 1"),
    ([0.5], tuple[float, float], "x must be a list of 2, got [0.5]"),
    ([1, 2, 3], tuple[float, float], "x must be a list of 2, got [1, 2, 3]"),
    ([1, "2"], list[int], "x must be a whole number, got '2'"),
    ([1], Mapping[str, Any], "x must be a mapping, got [1]"),
    ([1], Inner, "x must be a mapping, got [1]"),
    ({"size": "big"}, Inner, "x.size must be a whole number, got 'big'"),
]


@pytest.mark.parametrize(("value", "hint", "expected"), GOOD)
def test_values_that_fit(value, hint, expected):
    result = conform(value, hint, "x")
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(("value", "hint", "sentence"), BAD)
def test_values_that_do_not_fit(value, hint, sentence):
    with pytest.raises(ValueError) as caught:
        conform(value, hint, "x")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("value", "hint"), [(3.0, int), ("a", tuple[str, ...]), (float("nan"), float)])
def test_exact_takes_nothing_for_something_else(value, hint):
    conform(value, hint, "x")
    with pytest.raises(SettingError) as caught:
        conform(value, hint, "x", exact=True)
    assert caught.value.value is value


def test_a_dataclass_and_back():
    config = from_plain(Outer, {"folders": "one", "inner": {"kind": "b"}, "shares": {"raw": 1}})
    assert config == Outer(("one",), Inner(kind="b"), shares={"raw": 1.0})
    assert from_plain(Outer, to_plain(config)) == config
    check(config)
    with pytest.raises(ValueError, match=r"count must be a whole number, got 1\.5"):
        check(Outer(("one",), count=1.5))


def test_unknown_and_missing_names():
    with pytest.raises(ValueError, match=r"must be among folders, .*; got unknown pare"):
        from_plain(Outer, {"folders": "one", "pare": 1})
    with pytest.raises(ValueError, match=r"got unknown inner\.siz"):
        from_plain(Outer, {"folders": "one", "inner": {"siz": 1}})
    with pytest.raises(ValueError, match="must include folders"):
        from_plain(Outer, {})


def test_fields_with_their_comments():
    settings = settings_of(Outer)
    assert settings[:3] == (
        Setting("folders", tuple[str, ...], MISSING, "where"),
        Setting("inner.size", int, 3, "voxels"),
        Setting("inner.kind", Literal["a", "b"], "a", "two lines above"),
    )
    assert [entry.comment for entry in settings[3:]] == ["per step", "of sources", "low and high", "of things"]


def test_settings_on_the_command_line():
    values = set_values(
        {"augment": {"drop": 0.3}}, ["lr=1e-3", "augment.jitter=0", "weighting=top1", "prompts=['a {}']"]
    )
    assert values == {"augment": {"drop": 0.3, "jitter": 0}, "lr": 1e-3, "weighting": "top1", "prompts": ["a {}"]}
    with pytest.raises(ValueError, match="NAME=VALUE"):
        set_values({}, ["lr"])
    with pytest.raises(ValueError, match="no fields"):
        set_values({"lr": 1.0}, ["lr.x=1"])


def test_files(tmp_path):
    (tmp_path / "run.yml").write_text("shards: [a]\nout: b\nsteps: 7\n")
    assert read_file(tmp_path / "run.yml") == {"shards": ["a"], "out": "b", "steps": 7}
    (tmp_path / "list.yml").write_text("- a\n")
    with pytest.raises(ValueError, match="NAME: value"):
        read_file(tmp_path / "list.yml")
    (tmp_path / "bad.yml").write_text("{")
    with pytest.raises(ValueError, match="must be JSON or YAML"):
        read_file(tmp_path / "bad.yml")
