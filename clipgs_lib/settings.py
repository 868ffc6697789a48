"""Plain values, as JSON and YAML files and command lines hold them, to frozen dataclasses and back.

pydantic decides what a value is; the sentences are ours: they name the setting, say what it must be and what came.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import yaml
from pydantic import AllowInfNan, BeforeValidator, Strict, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

# kind of pydantic's complaint -> what the value must be
_PHRASES = {
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    "float_type": "a number",
    "finite_number": "finite",
    "bool_type": "true or false",
    "string_type": "a text",
    "none_required": "none",
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type"), "a mapping"),
}


class SettingError(ValueError):
    """A setting with a value of another type. ``value`` is what came (inside of lists and mappings, the entry)."""

    def __init__(self, name: str, phrase: str, value: Any) -> None:
        super().__init__(f"{name} must be {phrase}, got {value!r}")
        self.name, self.value = name, value


@dataclass(frozen=True)
class Setting:
    """One field of a dataclass of settings, as help texts and forms show it."""

    name: str  # dotted where the dataclass stands inside of another: "augment.drop"
    hint: Any  # its type
    default: Any  # dataclasses.MISSING where it must be given
    comment: str  # the comment beside the field in the source, or the one above it


def conform(value: Any, hint: Any, name: str, exact: bool = False) -> Any:
    """A plain value as the type that ``hint`` asks for, or SettingError (a ValueError) that names the setting.

    Nothing is guessed: "1" and True are no numbers. An int is a float too, a list stands for a tuple, a mapping for a
    dataclass. A hint is any type of these: bool, int, float, str, Literal, tuple, list, dict, Mapping, dataclasses,
    their unions. ``exact`` refuses what is taken otherwise: a whole float for an int, one text for a tuple of texts,
    inf and nan.
    """
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise SettingError(name, "a mapping", value)
        return from_plain(hint, value, f"{name}.")
    try:
        return _adapter(hint, exact).validate_python(value)
    except ValidationError as error:
        complaints = error.errors(include_url=False)
        complaint = next((entry for entry in complaints if entry["type"] != "none_required"), complaints[0])
        raise SettingError(name, _phrase(hint, complaint), complaint["input"]) from None


def check(config: Any) -> None:
    """SettingError (a ValueError) for the first field of a dataclass that is not of its annotated type."""
    for name, hint in _hints(config.__class__).items():
        conform(getattr(config, name), hint, name)


def from_plain(kind: type, values: Mapping[str, Any], where: str = "") -> Any:
    """A dataclass from plain values by field, nothing unknown and nothing missing.

    ``where`` is put before names in sentences, e.g. ``"augment."``.

    Raises:
        ValueError: for unknown or missing names, or a value of another type; the message names the setting.
    """
    known = {entry.name: entry for entry in fields(kind) if entry.init}
    if unknown := sorted(str(name) for name in set(values) - set(known)):
        names = ", ".join(where + name for name in unknown)
        raise ValueError(f"settings must be among {', '.join(known)}; got unknown {names}")
    needed = [name for name, entry in known.items() if entry.default is entry.default_factory is MISSING]
    if missing := [where + name for name in needed if name not in values]:
        raise ValueError(f"settings must include {', '.join(missing)}; got none")
    hints = _hints(kind)
    return kind(**{name: conform(value, hints[name], where + name) for name, value in values.items()})


def to_plain(config: Any) -> dict[str, Any]:
    """A dataclass as JSON values, which `from_plain` reads again."""
    return to_jsonable_python(config)


def settings_of(kind: type, where: str = "") -> tuple[Setting, ...]:
    """Fields of a dataclass in order, each with its comment; those of dataclasses inside it under dotted names."""
    comments: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            comments |= _comments(base)
    hints = _hints(kind)
    settings: list[Setting] = []
    for entry in fields(kind):
        hint, name = hints[entry.name], where + entry.name
        if is_dataclass(hint) and isinstance(hint, type):
            settings += settings_of(hint, f"{name}.")
            continue
        default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        settings.append(Setting(name, hint, default, comments.get(entry.name, "")))
    return tuple(settings)


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Values of a JSON or YAML file.

    Raises:
        ValueError: when the file holds something other than a mapping, or nothing that can be parsed.
        OSError: when it cannot be read.
    """
    values = read_plain(path) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold NAME: value pairs, got {type(values).__name__}")
    return values


def read_plain(path: str | os.PathLike[str]) -> Any:
    """What a JSON or YAML file holds, whatever it is; ValueError when it cannot be parsed, OSError when not read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text) if Path(path).suffix.lower() == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: must be JSON or YAML, got {str(error)[:200]}; correct the file") from None


def set_values(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """``values`` with ``NAME=VALUE`` settings put in; ``augment.NAME`` and ``encoder_options.NAME`` go one level down.

    Raises:
        ValueError: for a setting without ``=``, or one that is no YAML value.
    """
    out = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"a setting must be NAME=VALUE, got {setting!r}")
        head, _, tail = name.strip().partition(".")
        place = out.setdefault(head, {}) if tail else out
        if not isinstance(place, dict):
            raise ValueError(f"{head} has no fields to set, got {setting!r}")
        place[tail or head] = _yaml_value(text, setting)
    return out


def _yaml_value(text: str, setting: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"a setting's value must be a YAML value, got {setting!r}; quote it") from None
    if not isinstance(value, str):
        return value
    try:
        return float(value)  # YAML 1.1 reads 1e-3 as a text; people mean the number
    except ValueError:
        return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


@functools.cache
def _adapter(hint: Any, exact: bool) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(hint, exact))


def _strict(hint: Any, exact: bool) -> Any:
    """``hint`` so that pydantic takes only what `conform` promises."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is int and not exact:
        return Annotated[int, Strict(), BeforeValidator(_whole)]
    if hint is float:
        return Annotated[float, Strict(), AllowInfNan(not exact)]
    if hint in (bool, int, str):
        return Annotated[hint, Strict()]
    if origin in (None, Literal) or inner == ():
        return hint
    inside = tuple(entry if entry is Ellipsis else _strict(entry, exact) for entry in inner)
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, inside)
    if origin is tuple and inner[0] is str and not exact:
        return Annotated[origin[inside], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    return origin[inside]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _phrase(hint: Any, complaint: Any) -> str:
    if complaint["type"] == "literal_error":
        return "one of " + complaint["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    if complaint["type"] in ("missing", "too_long", "too_short"):
        return f"a list of {len(typing.get_args(hint))}"
    return _PHRASES.get(complaint["type"], complaint["msg"].removeprefix("Input should be ").lower())


@functools.cache
def _comments(kind: type) -> dict[str, str]:
    """Comment beside or above each field that the source of a dataclass declares itself."""
    comments: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        if entry := re.match(r"    (\w+): .*?(?:  # (.*))?$", line):
            comments[entry[1]] = entry[2] or " ".join(above)
        note = re.match(r"    # (.*)", line)
        above = [*above, note[1]] if note else []
    return comments
