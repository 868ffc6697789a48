"""Notebook widgets: the live splat viewer."""

from __future__ import annotations

from .splat_view import SplatView

__all__ = ["SplatView"]
