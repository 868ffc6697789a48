"""Filters by description, as people type them: ``category=mug|cup``, ``faces<5000``, ``caption~striped``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM = re.compile(r"\s*([^=!~<>|]+?)\s*(<=|>=|!=|!~|=|~|<|>)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One condition on one field; nothing of it is evaluated as code."""

    field: str  # of the descriptions, or "key"
    sign: str  # = != are equal, ~ !~ contain, < <= > >= order numbers
    values: tuple[str, ...]  # alternatives, as typed

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``FIELD SIGN VALUE``, where VALUE may be alternatives ``a|b``; texts compare without their case.

        Raises:
            ValueError: for another form, or an order of what is no number.
        """
        form = _FORM.fullmatch(text)
        if form is None or not form[3]:
            example = "category=mug|cup, category!=mug, caption~striped or faces<5000"
            raise ValueError(f"a filter must be FIELD SIGN VALUE such as {example}, got {text[:200]!r}")
        values = tuple(value.strip() for value in form[3].split("|"))
        if form[2] in _ORDERS and (len(values) > 1 or _number(values[0]) is None):
            raise ValueError(f"{form[2]} must be followed by one number, got {form[3][:100]!r} in {text[:200]!r}")
        return cls(form[1], form[2], values)

    def holds(self, value: Any) -> bool:
        """Whether a field's value fits: None where it is absent, of a tuple any entry."""
        entries = value if isinstance(value, tuple) else (value,)
        return any(self._fits(one, text) for one in entries for text in self.values) != self.sign.startswith("!")

    def _fits(self, value: Any, text: str) -> bool:
        if self.sign in _ORDERS:
            number, bound = _number(value), _number(text)
            return number is not None and bound is not None and _ORDERS[self.sign](number, bound)
        if value is None:
            return False
        if self.sign.endswith("~"):
            return text.casefold() in str(value).casefold()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _number(text) == value
        return str(value).casefold() == text.casefold()


def parse_filters(filters: str | Sequence[str]) -> list[Condition]:
    """Conditions that must all hold, of one text or several."""
    return [Condition.parse(text) for text in ([filters] if isinstance(filters, str) else filters)]


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
