"""Unit rows: what makes them, and the one tolerance by which a row counts as unit-norm."""

from __future__ import annotations

import torch
from torch import Tensor

from .words import first_of

UNIT_TOLERANCE = 1e-2
"""How far a norm may be from 1: rows rounded to float16 (0.05 %) and bfloat16 (0.4 %) stay inside."""


def unit(rows: Tensor) -> Tensor:
    """Rows ``[..., D]`` in float32 with length 1; a row of zeros stays zero."""
    return torch.nn.functional.normalize(rows.float(), dim=-1)


def unit_faults(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Norms ``[...]`` of rows ``[..., D]``, and which of them are not 1 within `UNIT_TOLERANCE`; NaN never is."""
    norms = torch.linalg.vector_norm(rows.detach().float(), dim=-1)
    return norms, ~((norms - 1).abs() <= UNIT_TOLERANCE)


def check_unit(name: str, rows: Tensor, valid: Tensor | None = None) -> None:
    """ValueError for rows ``[..., D]`` that are not unit-norm, but for those that are not ``valid [...]``."""
    norms, bad = unit_faults(rows)
    bad = bad if valid is None else bad & valid
    if not bool(bad.any()):
        return
    if bool((broken := bad & ~norms.isfinite()).any()):
        raise ValueError(f"{name} must be finite, got NaN or inf in rows {rows_of(broken)}; look at these samples")
    raise ValueError(
        f"{name} must be unit-norm, got norms from {norms[bad].min():.3g} to {norms[bad].max():.3g} in rows "
        f"{rows_of(bad)}; normalise them: torch.nn.functional.normalize({name}, dim=-1)"
    )


def rows_of(mask: Tensor) -> str:
    """Indices of the True entries of a mask as text, the first few of them; empty when there are none."""
    return first_of(tuple(row) if len(row) > 1 else row[0] for row in mask.nonzero().tolist())
