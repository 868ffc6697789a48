"""What all commands say alike: errors in one line, and progress on a terminal."""

from __future__ import annotations

import functools
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

_PACKAGE = Path(__file__).resolve().parents[1]
# settings of a command that takes options of a dataclass beside those it declares, see `dataclass_options`
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
Wrap = Callable[[Callable[..., None]], Callable[..., None]]


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command end in one line instead of a traceback when the error is an expected one."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a code page that lacks a letter must not end the command
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(128 + signal.SIGPIPE) from None
        except (ValueError, OSError) as error:
            if os.environ.get("CLIPGS_DEBUG") or not _is_expected(error):
                raise
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(2) from None

    return wrapped


def _is_expected(error: ValueError | OSError) -> bool:
    """Whether the system said no to a file, or one of our own checks raised (anything else is a bug to be seen)."""
    if isinstance(error, OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return _PACKAGE in Path(frames[-1].filename).resolve().parents


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.secho(f"warning: {message}", fg="yellow", err=True)


@contextmanager
def bar(doing: str, total: int, unit: str = "", *, silent: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal, as a function of how many are done, with a note that is shown behind the bar.

    Args:
        doing: what is done.
        total: how many there are; the function takes another number as ``total=``.
        unit: what they are.
        silent: show nothing, such as in a process of many that another one speaks for.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    console = Console(stderr=True)
    hidden = silent or not console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(doing, total=total, note=unit)

        def show(done: int, *, note: str | None = None, total: int | None = None) -> None:
            progress.update(task, completed=done, total=total, note=unit if note is None else note)

        yield show
