"""What the runner says while it runs, and the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from .state import Outcome

_COLOURS = {"passed": "32", "failed": "31", "unchanged": "36"}


class Console:
    """Plain lines; on a terminal also one line that keeps showing where each running notebook is.

    Without a terminal a running notebook is mentioned at most every ``quiet`` seconds, so that logs stay short.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: float = 15.0) -> None:
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self._quiet = quiet
        self._cells: dict[str, tuple[int, int]] = {}
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def skipped(self, name: str) -> None:
        """A notebook that has not changed."""
        self._line(f"{name:<24} {self._paint('unchanged')} since its last success (--force runs it anyway)")

    def started(self, name: str, cells: int) -> None:
        """A notebook whose process has been started."""
        self._began[name] = self._said[name] = time.monotonic()
        self._cells[name] = (0, cells)
        self._line(f"{name:<24} started, {cells} cells")

    def progressed(self, name: str, cell: int, cells: int) -> None:
        """A notebook that begins its ``cell``-th cell."""
        self._cells[name] = (cell, cells)
        now = time.monotonic()
        if self.terminal:
            self._live()
        elif now - self._said[name] >= self._quiet:
            self._said[name] = now
            self._line(f"{name:<24} cell {cell}/{cells}, {now - self._began[name]:.0f} s")

    def ended(self, outcome: Outcome) -> None:
        """A notebook that passed or failed."""
        self._cells.pop(outcome.name, None)
        note = f"  {outcome.error}" if outcome.error else ""
        self._line(f"{outcome.name:<24} {self._paint(outcome.status)} in {outcome.seconds:.1f} s{note}")
        if self.terminal and self._cells:
            self._live()

    def table(self, outcomes: Sequence[Outcome], skipped: Sequence[str]) -> None:
        """All notebooks of this run with status and seconds; for failures the place, the error and the log."""
        rows: list[tuple[str, str, str, Outcome | None]] = [(o.name, o.status, f"{o.seconds:.1f}", o) for o in outcomes]
        rows += [(name, "unchanged", "", None) for name in skipped]
        width = max([len(row[0]) for row in rows] + [8])
        self._line(f"\n{'notebook':<{width}}  {'status':<9}  {'seconds':>7}")
        for name, status, seconds, outcome in sorted(rows, key=lambda row: row[0]):
            self._line(f"{name:<{width}}  {self._paint(status, 9)}  {seconds:>7}")
            if outcome is not None and outcome.status == "failed":
                for label, text in (("at", outcome.place), ("error", outcome.error), ("log", outcome.log)):
                    if text:
                        self._line(f"{'':<{width}}    {label}: {text}")

    def say(self, text: str) -> None:
        """A line of its own."""
        self._line(text)

    def _live(self) -> None:
        """Rewrite the last line of the terminal: a bar for each running notebook."""
        parts = []
        for name, (cell, cells) in self._cells.items():
            full = round(10 * cell / max(cells, 1))
            seconds = time.monotonic() - self._began[name]
            parts.append(f"{name} {'█' * full}{'░' * (10 - full)} {cell}/{cells} {seconds:.0f} s")
        self.stream.write("\r\x1b[K" + "   ".join(parts)[:200])
        self.stream.flush()

    def _line(self, text: str) -> None:
        self.stream.write(("\r\x1b[K" if self.terminal else "") + text + "\n")
        self.stream.flush()

    def _paint(self, status: str, width: int = 0) -> str:
        text = f"{status:<{width}}"
        return f"\x1b[{_COLOURS[status]}m{text}\x1b[0m" if self.terminal else text
