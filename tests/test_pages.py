"""Templates: pages are escaped, cards are not, and both have the filters."""

from __future__ import annotations

import pytest

from clipgs_lib.pages import fill


@pytest.mark.parametrize(("name", "shown"), [("a.html.j2", "&lt;b&gt;"), ("a.md.j2", "<b>")])
def test_pages_are_escaped_and_cards_are_not(tmp_path, name, shown):
    (tmp_path / name).write_text(
        "{% if text %}\n{{ text }}: {{ 2 | plural('mug') }}, {{ 0.5 | percent }}\n{% endif %}\n"
    )
    assert fill(tmp_path / name, {"text": "<b>"}) == f"{shown}: 2 mugs, 50.0 %\n"


def test_more_filters_and_templates_beside_it(tmp_path):
    (tmp_path / "whole.html.j2").write_text("<p>{% block middle %}{% endblock %}</p>\n")
    (tmp_path / "part.html.j2").write_text(
        "{% extends 'whole.html.j2' %}{% block middle %}{{ word | loud }}{% endblock %}"
    )
    assert fill(tmp_path / "part.html.j2", {"word": "a"}, {"loud": str.upper}) == "<p>A</p>\n"
