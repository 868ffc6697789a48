"""``clipgs notebooks``: list the notebooks and run them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class PairsCommand(TyperCommand):
    """A command whose ``-p`` takes NAME and VALUE as two words (typer's options take one)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two words before they are parsed."""
        return super().parse_args(ctx, join_pairs(args))


def join_pairs(args: Sequence[str]) -> list[str]:
    """``-p NAME VALUE`` as ``-p NAME=VALUE``; the joined form passes unchanged, and so does all after ``--``."""
    joined, rest = list[str](), list(args)
    while rest and joined[-1:] != ["--"]:
        pair = joined[-1:] in (["-p"], ["--param"]) and re.fullmatch(r"\w+", rest[0])
        joined.append("=".join(rest[: 1 + bool(pair)]))
        del rest[: 1 + bool(pair)]
    return joined + rest


NotebooksDir = Annotated[Path, typer.Option(help="Where the notebooks are.")]


def list_notebooks(
    notebooks_dir: NotebooksDir = Path("notebooks"),
    out: Annotated[Path, typer.Option(help="Where `run` wrote its results.")] = Path("build/notebooks"),
) -> None:
    """Show each notebook with its question, parameters and last result."""
    from ..runner import find_notebooks, load_outcome

    for notebook in find_notebooks(notebooks_dir):
        outcome = load_outcome(out, notebook.name)
        state = f"{outcome.status} in {outcome.seconds:.1f} s" if outcome else "not run yet"
        typer.secho(f"{notebook.name}  ", bold=True, nl=False)
        print(f"{notebook.title} ({state})")
        if notebook.question:
            print(f"    {notebook.question}")
        for parameter in notebook.parameters.values():
            print(f"    {parameter.name}: {parameter.type} = {parameter.default!r}")


def run_notebooks(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="All if none is named.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="NAME VALUE", help="Set a parameter; read as its declared type."),
    ] = None,
    params: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML or JSON: NAME: value, or sections named like notebooks.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Run also what has not changed since its success.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that one cell may take.")] = 600.0,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("build/notebooks"),
    notebooks_dir: NotebooksDir = Path("notebooks"),
) -> int:
    """Run notebooks with papermill; pages and an index go to OUT.

    Everything is checked before anything starts. A failed notebook does not stop the others; the exit code is 1 then.
    Relative paths, also those in FILE, count from the folder you are in, and ~ is your home. A parameter holds a path
    when its name ends in _DIR, _FILE or _PATH, or when the comment beside it says file or folder.
    """
    from ..runner import Console, Options, find_notebooks, read_parameters_file, resolve_parameters
    from ..runner import run_notebooks as run

    options = Options(out=out, jobs=jobs, timeout=timeout, force=force)
    chosen = find_notebooks(notebooks_dir, names or ())
    there = find_notebooks(notebooks_dir) if names else chosen
    words = [_pair(word) for word in param or ()]
    values = resolve_parameters(
        {notebook.name: notebook.parameters for notebook in chosen},
        words,
        read_parameters_file(params) if params else None,
        others=[notebook.name for notebook in there],
    )
    console = Console()
    report = run(chosen, values, options, console, there)
    console.table(report.outcomes, report.skipped)
    console.say(f"\nindex: {out / 'index.html'}")
    return 130 if report.interrupted else int(bool(report.failed))


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ValueError(f"-p must be followed by NAME VALUE, got only {word!r}")
    return name, value
