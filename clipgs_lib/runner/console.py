"""What the runner says while it runs, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from .state import Outcome

_STYLES = {"passed": "green", "failed": "red", "unchanged": "cyan"}


class Console:
    """Plain lines; on a terminal, between entering and leaving, also a live bar for each running notebook.

    Without a terminal a running notebook is mentioned at most every ``quiet`` seconds, so that logs stay short.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: float = 15.0) -> None:
        self._rich = RichConsole(file=stream, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self._rich, transient=True, disable=not self._rich.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._quiet, self._heard = quiet, dict[str, float]()

    def __enter__(self) -> Console:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def skipped(self, name: str) -> None:
        """A notebook that has not changed."""
        self.say(f"{name:<24} ", "unchanged", " since its last success (--force runs it anyway)")

    def started(self, name: str, cells: int) -> None:
        """A notebook whose process has been started."""
        self._tasks[name] = self._bars.add_task(name, total=cells)
        self._heard[name] = time.monotonic()
        self.say(f"{name:<24} started, {cells} cells")

    def progressed(self, name: str, cell: int, cells: int) -> None:
        """A notebook that begins its ``cell``-th cell."""
        self._bars.update(self._tasks[name], completed=cell, total=cells, refresh=True)
        if self._bars.disable and time.monotonic() - self._heard[name] >= self._quiet:
            self._heard[name] = time.monotonic()
            seconds = self._bars.tasks[self._bars.task_ids.index(self._tasks[name])].elapsed
            self.say(f"{name:<24} cell {cell}/{cells}, {seconds:.0f} s")

    def ended(self, outcome: Outcome) -> None:
        """A notebook that passed or failed."""
        if outcome.name in self._tasks:
            self._bars.remove_task(self._tasks.pop(outcome.name))
            self._bars.refresh()
        note = f"  {outcome.error}" if outcome.error else ""
        self.say(f"{outcome.name:<24} ", outcome.status, f" in {outcome.seconds:.1f} s{note}")

    def table(self, outcomes: Sequence[Outcome], skipped: Sequence[str]) -> None:
        """All notebooks of this run with status and seconds; for failures the place, the error and the log."""
        ran = {outcome.name: outcome for outcome in outcomes}
        width = max([len(name) for name in (*ran, *skipped)] + [8])
        self.say(f"\n{'notebook':<{width}}  {'status':<9}  {'seconds':>7}")
        for name in sorted((*ran, *skipped)):
            outcome = ran.get(name)
            status, seconds = (outcome.status, f"{outcome.seconds:.1f}") if outcome else ("unchanged", "")
            self.say(f"{name:<{width}}  ", status, f"{'':<{9 - len(status)}}  {seconds:>7}")
            if outcome and status == "failed":
                for label, text in (("at", outcome.place), ("error", outcome.error), ("log", outcome.log)):
                    if text:
                        self.say(f"{'':<{width}}    {label}: {text}")

    def say(self, *parts: str) -> None:
        """A line of its own; a part that is a status has its colour on a terminal."""
        self._rich.print(Text.assemble(*((part, _STYLES.get(part, "")) for part in parts)), soft_wrap=True)
