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
from typing import Annotated, Any

import typer

from ..errors import ExplainedError

_PACKAGE = Path(__file__).resolve().parents[1]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
EncoderName = Annotated[str, typer.Option(help="Shipped name or folder; bag-mean: the teacher's views.")]


def plain_errors(command: Callable[..., int | None]) -> Callable[..., None]:
    """Let a command end in one line instead of a traceback when the error is an expected one.

    What it returns is its exit code.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a code page that lacks a letter must not end the command
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                code = command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(128 + signal.SIGPIPE) from None
        except Exception as error:
            if os.environ.get("CLIPGS_DEBUG") or not _is_expected(error):
                raise
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(2) from None
        if code:
            raise typer.Exit(code)

    return wrapped


def _is_expected(error: Exception) -> bool:
    """Whether the system said no to a file, or one of our own checks raised (anything else is a bug to be seen)."""
    if isinstance(error, OSError):
        return True
    ours = isinstance(error, ValueError) or type(error).__module__.split(".")[0] == _PACKAGE.name
    return ours and _PACKAGE in Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve().parents


def must_exist(*paths: Path | None) -> None:
    """ExplainedError for the first input at which there is nothing, before a command imports what takes seconds.

    None is one that was not given. With ``CLIPGS_DEBUG`` nothing is said here, so that the traceback is the reader's.
    """
    for path in paths:
        if path is not None and not os.path.lexists(path) and not os.environ.get("CLIPGS_DEBUG"):
            must = "the path must name an existing file or folder"
            raise ExplainedError(path, must, f"nothing there in {path.absolute().parent}", "check the spelling")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.secho(f"warning: {message}", fg="yellow", err=True)


@contextmanager
def bar(doing: str, total: int, unit: str = "", *, silent: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal, as a function of how many are done, of how many, with a note behind the bar.

    The last two may be left out, as they are by some who report progress. ``unit`` is the note then; ``silent`` shows
    nothing, such as in a process of many that another one speaks for.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    console = Console(stderr=True)
    hidden = silent or not console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(doing, total=total, note=unit)

        def show(done: int, total: int | None = None, note: str | None = None) -> None:
            progress.update(task, completed=done, total=total, note=unit if note is None else note)

        yield show
