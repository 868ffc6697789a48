"""What the runner says while it runs, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..words import plural
from .state import Outcome

_STYLES = {"passed": "green", "failed": "red", "unchanged": "cyan"}


class Console:
    """Plain lines; on a terminal, between entering and leaving, also a live bar for each running notebook.

    Without a terminal a running notebook is mentioned every ``quiet`` seconds, so that logs are short but never silent.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: float = 15.0) -> None:
        self._rich = RichConsole(file=stream, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self._rich, transient=True, disable=not self._rich.is_terminal)
        self._running: dict[str, Task] = {}  # their bars
        self._expected: dict[str, float] = {}
        self._quiet = quiet

    def __enter__(self) -> Console:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def skipped(self, name: str) -> None:
        """A notebook that has not changed."""
        self.say(f"{name:<24} ", "unchanged", " since its last success (--force runs it anyway)")

    def planned(self, seconds: Mapping[str, float], jobs: int) -> None:
        """Notebooks that will run, with the seconds expected of each (0 where unknown), so many at a time."""
        self._expected = dict(seconds)
        for name, expected in seconds.items():
            self.say(f"{name:<24} will take about {span(expected)}" if expected else f"{name:<24} has never been timed")
        if any(seconds.values()):
            total = max(sum(seconds.values()) / jobs, *seconds.values())
            self.say(
                f"{plural(len(seconds), 'notebook')}, about {span(total)} in all, by earlier runs or their own words\n"
            )

    def started(self, name: str, cells: int) -> None:
        """A notebook whose process has been started."""
        self._bars.add_task(name, total=cells, heard=time.monotonic())  # when it was mentioned last
        self._running[name] = self._bars.tasks[-1]
        self.say(f"{name:<24} started, {cells} cells")

    def progressed(self, name: str, cell: int, cells: int) -> None:
        """A notebook that begins its ``cell``-th cell."""
        self._bars.update(self._running[name].id, completed=cell, total=cells, refresh=True)
        self.heartbeat()

    def heartbeat(self) -> None:
        """Time has passed, and perhaps nothing else: without a terminal, mention what was not mentioned for long."""
        now = time.monotonic()
        for name, task in self._running.items():
            if self._bars.disable and now - task.fields["heard"] >= self._quiet:
                task.fields["heard"], spent = now, task.elapsed or 0.0
                left = self._expected.get(name, 0.0) - spent
                more = f", about {span(left)} left" if left > 0 else ""
                self.say(f"{name:<24} cell {task.completed:g}/{task.total:g}, {spent:.0f} s{more}")

    def ended(self, outcome: Outcome) -> None:
        """A notebook that passed or failed."""
        if outcome.name in self._running:
            self._bars.remove_task(self._running.pop(outcome.name).id)
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


def span(seconds: float) -> str:
    """``40 s``, ``4 min``: seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
