"""Pages and model cards: templates of jinja2, filled."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from .words import plural


def fill(template: Path, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] | None = None) -> str:
    """A text by a template, in whose folder others may lie that it builds on.

    Args:
        template: a file; what goes into ``.html.j2`` is escaped, whatever it holds.
        values: by the names that the template has for them.
        filters: more than ``plural`` (a number and its noun) and ``percent`` (of a share, with one digit).
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=template.name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plural": plural, "percent": lambda share: f"{100 * share:.1f} %"} | dict(filters or {})
    return environment.get_template(template.name).render(values)
