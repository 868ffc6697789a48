"""Options that are the fields of a dataclass, so that a default and its comment stand in one place."""

from __future__ import annotations

import difflib
import operator
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ..settings import set_values, settings_of


def option_values(kind: type, words: Sequence[str], aliases: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Plain values of the options among ``words``, for `settings.from_plain`; ValueError for unknown ones or no value.

    A field ``batch_size`` is the option ``--batch-size``; a pair takes two words, a list may be given many times, and
    what is neither text nor a list of texts is read as YAML. ``none`` is None where None is allowed. ``aliases`` are
    other names of options -> fields.
    """
    settings = {setting.name: setting for setting in settings_of(kind)}
    names = {"--" + name.replace("_", "-"): name for name in settings} | dict(aliases or {})
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        option, equals, text = rest.pop(0).partition("=")
        if option not in names:
            near = difflib.get_close_matches(option, names, n=1)
            raise ValueError(f"options must be known, got {option}; {f'is it {near[0]}?' if near else 'see --help'}")
        setting = settings[names[option]]
        inner = typing.get_args(setting.hint)
        count = len(inner) if typing.get_origin(setting.hint) is tuple and Ellipsis not in inner else 1
        texts = [text] if equals else [rest.pop(0) for _ in range(min(count, len(rest)))]
        if len(texts) < count:
            raise ValueError(f"{option} must be followed by {count} value{'s' * (count > 1)}, got {len(texts)}")
        if Ellipsis in inner:
            values.setdefault(setting.name, []).extend(texts)
        elif count > 1:
            values = set_values(values, [f"{setting.name}=[{', '.join(texts)}]"])
        elif type(None) in inner and texts[0].lower() == "none":
            values[setting.name] = None
        elif setting.hint is str or str in inner:
            values[setting.name] = texts[0]
        else:
            values = set_values(values, [f"{setting.name}={texts[0]}"])
    return values


def describe(config: Any) -> str:
    """One line for each setting of a dataclass: name, value and what it is."""
    values = [(setting, operator.attrgetter(setting.name)(config)) for setting in settings_of(type(config))]
    return "\n".join(
        f"{setting.name} = {value}" + f"  # {setting.comment}" * bool(setting.comment) for setting, value in values
    )
