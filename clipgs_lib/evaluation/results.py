"""Results of all protocols in one form: values of single objects, and rows, comparisons, tables and files out of them.

A file of results is JSON (`SCHEMA`) with a Parquet beside it. The JSON holds ``facts``, ``notes`` and

=============  =====================================================================================================
``rows``       one for each protocol, task, metric and method: ``value``, its interval ``low``, ``high``, ``std`` of
               what it sums up, ``n`` objects (or episodes), ``queries``, ``chance`` (null if there is none), ``unit``
``pairs``      two methods ``a`` and ``b`` on the same objects: ``difference`` of a to b, ``low``, ``high``, ``p`` (two
               sides, of the bootstrap; nothing corrects for the number of comparisons), ``n``, ``verdict`` on a
``classes``    zero-shot accuracy of each class: ``method``, ``label``, ``n``, ``value``, ``low``, ``high``
``confusion``  ``method``, ``label``, ``taken_for``, ``n``: objects of a class that were taken for another, or for it
=============  =====================================================================================================

and the Parquet a line for each value: protocol, task, metric, method, object, label, value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import replacing, write_text
from .scores import RESAMPLES, Statistic, resampled, statistic_of

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "clipgs-evaluation/1"
BETTER, WORSE, SAME = "better", "worse", "not distinguishable"
LESS_IS_BETTER = ("rank", "ms", "MB")  # units


@dataclass(frozen=True, eq=False)
class Measured:
    """What one method reached with each object, in one task and metric."""

    protocol: str
    task: str
    metric: str
    method: str
    values: np.ndarray  # [Q] float64
    objects: np.ndarray  # [Q] str: what the bootstrap draws as a whole; equal in all methods
    chance: float | None = None  # None where guessing has no meaning
    unit: str = "share"  # share (of 1), cosine, rank, ms or MB
    statistic: Statistic = "mean"  # of the values
    labels: np.ndarray | None = None  # [Q] str, for "macro"

    @property
    def place(self) -> dict[str, Any]:
        """Protocol, task and metric, by these names."""
        return {"protocol": self.protocol, "task": self.task, "metric": self.metric}

    @cached_property
    def value(self) -> float:
        """The statistic."""
        even = np.ones((1, len(self.values)))
        return float(statistic_of(self.values[:, None], even, self.statistic, self.labels)[0, 0])

    def draws(self, seed: int) -> np.ndarray:
        """The statistic of resampled objects ``[RESAMPLES]``, the same objects for every method."""
        return resampled(self.values[:, None], self.objects, seed, self.statistic, self.labels)[:, 0]


@dataclass(eq=False)
class Results:
    """Everything that was measured in one call."""

    facts: dict[str, Any] = field(default_factory=dict)  # sets, teacher, methods, settings
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    measured: list[Measured] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)  # of objects, by key
    seed: int = 0

    @cached_property
    def _draws(self) -> list[np.ndarray]:
        return [one.draws(self.seed) for one in self.measured]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each protocol, task, metric and method, see above."""
        rows = []
        for one, draws in zip(self.measured, self._draws, strict=True):
            low, high = np.quantile(draws, [0.025, 0.975])
            rows.append(
                one.place
                | {"method": one.method, "value": one.value, "low": float(low), "high": float(high)}
                | {"std": float(one.values.std(ddof=1)) if len(one.values) > 1 else 0.0}
                | {"n": len(np.unique(one.objects)), "queries": len(one.values)}
                | {"chance": one.chance, "unit": one.unit}
            )
        return rows

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """Every two methods that were measured on the same objects, paired, see above."""
        pairs, places = [], dict[tuple[str, ...], list[int]]()
        for number, one in enumerate(self.measured):
            places.setdefault(tuple(one.place.values()), []).append(number)
        for numbers in places.values():
            for i, j in combinations(numbers, 2):
                b, a = self.measured[i], self.measured[j]  # later methods against earlier ones, the bag of views first
                if np.array_equal(a.objects, b.objects):
                    facts = compare(a.value - b.value, self._draws[j] - self._draws[i], a.unit in LESS_IS_BETTER)
                    names = {"a": a.method, "b": b.method, "n": len(np.unique(a.objects)), "unit": a.unit}
                    pairs.append(a.place | names | facts)
        return pairs

    def frame(self) -> pd.DataFrame:
        """The values of single objects, tidy: protocol, task, metric, method, object, label, value."""
        import pandas as pd

        parts = [
            pd.DataFrame(one.place | {"method": one.method, "object": one.objects, "value": one.values})
            for one in self.measured
        ]
        whole = pd.concat(parts, ignore_index=True)
        return whole.assign(label=whole["object"].map(self.labels).fillna(""))

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the JSON, and the Parquet beside it, each whole or not at all; returns the path of the Parquet."""
        path = Path(path)
        document: dict[str, Any] = {"schema": SCHEMA, "facts": self.facts, "notes": self.notes}
        for name in ("rows", "pairs", "classes", "confusion"):
            document[name] = [
                {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
                for row in getattr(self, name)
            ]
        columns = ("protocol", "task", "metric", "method")
        table = self.frame().astype(dict.fromkeys(columns, "category"))
        with replacing(path.with_suffix(".parquet")) as draft:
            table.to_parquet(draft, index=False)
        write_text(path, json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        return path.with_suffix(".parquet")

    def tables(self) -> str:
        """All rows as text: a table for each task, a line for each method; for robustness a table for each method."""
        blocks = []
        for protocol, rows in groupby(self.rows, key=lambda row: row["protocol"]):
            across, down = ("method", "task") if protocol == "robustness" else ("task", "method")
            chosen = list(rows)
            for name in dict.fromkeys(row[across] for row in chosen):
                blocks.append(_table(f"{protocol}, {name}", [row for row in chosen if row[across] == name], down))
                blocks[-1] += "".join(f"  {line}\n" for line in self._verdicts(protocol, name))
        return "\n".join([*blocks, *(f"note: {note}" for note in self.notes)])

    def _verdicts(self, protocol: str, task: str) -> list[str]:
        """Comparisons by the first metric of a task, in words."""
        pairs = [pair for pair in self.pairs if (pair["protocol"], pair["task"]) == (protocol, task)]
        first = next((one.metric for one in self.measured if (one.protocol, one.task) == (protocol, task)), "")
        lines = []
        for pair in pairs:
            if pair["metric"] == first:
                numbers = [_number(pair[key], pair["unit"], sign=True) for key in ("difference", "low", "high")]
                interval = f"{numbers[0]} [{numbers[1]}, {numbers[2]}], p = {pair['p']:.3f}"
                lines.append(f"{first}: {pair['a']} against {pair['b']} {interval}: {pair['verdict']}")
        return lines


def compare(difference: float, draws: np.ndarray, less_is_better: bool = False) -> dict[str, Any]:
    """A paired difference with its interval, p (two sides) and a verdict in words.

    Args:
        difference: of one method to another.
        draws: the same of resampled objects ``[R]``.
        less_is_better: of the values.
    """
    low, high = np.quantile(draws, [0.025, 0.975])
    sides = [(np.count_nonzero(side) + 1) / (len(draws) + 1) for side in (draws <= 0, draws >= 0)]
    facts = {"difference": difference, "low": float(low), "high": float(high), "p": min(1.0, 2 * float(min(sides)))}
    return facts | {"verdict": verdict_on(low, high, less_is_better)}


def verdict_on(low: float, high: float, less_is_better: bool = False) -> str:
    """What the interval of a difference says: better, worse or not distinguishable."""
    if low <= 0 <= high:
        return SAME
    return BETTER if (low > 0) != less_is_better else WORSE


def class_rows(method: str, labels: Sequence[str], accuracy: np.ndarray, counts: np.ndarray, seed: int) -> list[Any]:
    """Rows of ``classes`` for classes that have objects; intervals are those of resampled hits of the class."""
    some = np.flatnonzero(counts)
    draws = np.random.default_rng(seed).binomial(counts[some], accuracy[some], (RESAMPLES, len(some))) / counts[some]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return [
        {"method": method, "label": labels[c], "n": int(counts[c]), "value": float(accuracy[c])}
        | {"low": float(a), "high": float(b)}
        for c, a, b in zip(some.tolist(), low, high, strict=True)
    ]


def _table(title: str, rows: Sequence[dict[str, Any]], down: str) -> str:
    """Lines of a table: a row for each of ``down``, a column for each metric, and a last row with chance."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    names = list(dict.fromkeys(row[down] for row in rows))
    cells = {(row[down], row["metric"]): _cell(row) for row in rows}
    chances = {row["metric"]: row for row in rows if row["chance"] is not None}
    table = [[down, *metrics]] + [[name, *(cells.get((name, metric), "") for metric in metrics)] for name in names]
    if chances:
        blind = [_number(chances[m]["chance"], chances[m]["unit"]) if m in chances else "" for m in metrics]
        table.append(["chance", *blind])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    sizes = sorted({(row["n"], row["queries"]) for row in rows})
    n, queries = sizes[-1]
    size = f"n = {n:,}" + (f", {queries:,} queries" if queries > n else "")
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([f"{title} ({size})", *(f"  {line}" for line in lines)]) + "\n"


def _cell(row: dict[str, Any]) -> str:
    numbers = [_number(row[key], row["unit"]) for key in ("value", "low", "high")]
    spread = f" ± {_number(row['std'], row['unit'])}" if row["protocol"] == "few-shot" else ""
    return f"{numbers[0]}{spread} [{numbers[1]}, {numbers[2]}]"


def _number(value: float, unit: str, sign: bool = False) -> str:
    """Shares in percent, all others with three digits."""
    shown = 100 * value if unit == "share" else value
    text = f"{shown:+.1f}" if unit == "share" and sign else f"{shown:.1f}" if unit == "share" else f"{shown:.3g}"
    return f"+{text}" if sign and unit != "share" and value > 0 else text
