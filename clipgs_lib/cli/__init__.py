"""The ``clipgs`` command.

Each command imports what it needs when it runs, so that ``clipgs --help`` answers at once. An expected error (a file
that is broken or missing, an option out of range) is one red line and exit code 2; with ``CLIPGS_DEBUG=1`` the
traceback is shown. Exit code 1 says that the command worked but found something wrong.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .._version import __version__
from . import notebook_commands, splat_commands, teacher_commands, train_command, triplet_commands
from .output import plain_errors

app = typer.Typer(
    name="clipgs",
    help="3D Gaussian splats aligned with CLIP: convert, check, render, train, and run the notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (triplet_commands, train_command, teacher_commands, splat_commands, notebook_commands):
    group.mount(app, plain_errors)


def _version(asked: bool) -> None:
    if asked:
        print(f"clipgs_lib {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """3D Gaussian splats aligned with CLIP: convert, check, render, train, and run the notebooks."""
