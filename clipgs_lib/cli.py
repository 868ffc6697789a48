"""The ``clipgs`` command.

Each command imports what it needs when it runs, so that ``clipgs --help`` answers at once. An expected error (a file
that is broken or missing, an option out of range) is one red line and exit code 2; with ``CLIPGS_DEBUG=1`` the
traceback is shown. Exit code 1 says that the command worked but found something wrong.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from . import cli_train, cli_triplets
from ._version import __version__
from .words import plural

if TYPE_CHECKING:
    import torch

    from .rendering import Cameras
    from .splats import Splats

T = TypeVar("T")
_HERE = Path(__file__).resolve().parent
_COLOURS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "grey": (0.5, 0.5, 0.5)}

app = typer.Typer(
    name="clipgs",
    help="3D Gaussian splats aligned with CLIP: convert, check, render, and run the notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
notebooks_app = typer.Typer(help="List the notebooks and run them.", no_args_is_help=True)
app.add_typer(notebooks_app, name="notebooks")


def _plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command end in one line instead of a traceback when the error is an expected one."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
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
    return _HERE in Path(frames[-1].filename).resolve().parents


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.secho(f"warning: {message}", fg="yellow", err=True)


class _PairsCommand(TyperCommand):
    """A command whose ``-p`` takes NAME and VALUE as two words (typer's options take one)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two words before they are parsed."""
        return super().parse_args(ctx, join_pairs(args))


def join_pairs(args: Sequence[str]) -> list[str]:
    """``-p NAME VALUE`` as ``-p NAME=VALUE``; the joined form passes unchanged, and so does all after ``--``."""
    joined, rest = list[str](), list(args)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word == "--":
            return joined + rest
        if word in ("-p", "--param") and rest:
            name = rest.pop(0)
            joined.append(f"{name}={rest.pop(0)}" if re.fullmatch(r"\w+", name) and rest else name)
    return joined


def _version(wanted: bool) -> None:
    if wanted:
        print(f"clipgs_lib {__version__}")
        raise typer.Exit


cli_triplets.mount(app, _plain_errors)
cli_train.mount(app, _plain_errors)


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """3D Gaussian splats aligned with CLIP: convert, check, render, and run the notebooks."""


@app.command()
@_plain_errors
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Splat file of any known format, or a SOG folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Its name chooses the format, e.g. out.spz.")],
    format: Annotated[str | None, typer.Option(help="Write this format whatever OUT is called.")] = None,
    sh_degree: Annotated[int | None, typer.Option(min=0, max=3, help="Keep spherical harmonics up to this.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Drop non-finite and invisible gaussians first.")] = False,
    max_gaussians: Annotated[
        int | None, typer.Option(min=1, help="Draw at most this many, by opacity and area.")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Centre, and scale into the unit sphere.")] = False,
) -> None:
    """Convert a splat file to another format, told by the name of OUT."""
    from .formats import read_splats, sniff, write_splats

    with _Steps(3) as step:
        step("reading")
        splats = read_splats(source)
        before = f"{source}: {sniff(source)}, {_size(source)}, {len(splats):,} gaussians, SH {splats.sh_degree}"
        step("changing")
        splats = _change(splats, sh_degree, prune, max_gaussians, normalize)
        step("writing")
        written = write_splats(splats, target, format=format)
    after = f"{written}: {sniff(written)}, {_size(written)}, {len(splats):,} gaussians, SH {splats.sh_degree}"
    print(f"{before}\n{after} ({_bytes(written) / max(_bytes(source), 1):.1%} of the size)")


def _change(splats: Splats, sh_degree: int | None, prune: bool, max_gaussians: int | None, normalize: bool) -> Splats:
    if prune:
        splats, report = splats.prune()
        typer.echo(f"prune: {report}", err=True)
    if max_gaussians is not None and len(splats) > max_gaussians:
        splats = splats.subsample(max_gaussians)
    if normalize:
        splats = splats.normalize()
    if sh_degree is not None and sh_degree < splats.sh_degree:
        splats = splats.with_sh_degree(sh_degree)
    return splats


@app.command()
@_plain_errors
def diagnose(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files to look at.")],
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a repaired copy here (with a single PATH).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of text.")] = False,
) -> None:
    """Say what files are, what is wrong with them and how to mend it.

    Exit code 1 when a file has an error, 2 when one cannot be looked at.
    """
    from .formats import FormatError
    from .formats import diagnose as examine

    if fix is not None and len(paths) != 1:
        raise ValueError(f"--fix needs exactly one PATH, got {len(paths)}; run it once per file")
    found, unread = [], 0
    for path in _progress(paths, "diagnosing", "file"):
        try:
            found.append(examine(path, fix=fix))
        except (FormatError, OSError) as error:
            typer.secho(f"error: {error}", fg="red", err=True)
            unread += 1
    if as_json:
        print(json.dumps([diagnosis.to_dict() for diagnosis in found], indent=1))
    else:
        print("\n\n".join(str(diagnosis) for diagnosis in found))
    if unread:
        raise typer.Exit(2)
    if not all(diagnosis.ok for diagnosis in found):
        raise typer.Exit(1)


@app.command()
@_plain_errors
def render(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Splat file of any known format.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A .png, a .gif, or a folder for one PNG per view.")],
    views: Annotated[
        int | None, typer.Option(min=1, help="Cameras on a circle. PNG: 1, more make a sheet; GIF: 36; folder: 8.")
    ] = None,
    size: Annotated[int, typer.Option(min=1, max=8192, help="Width and height of a view, pixels.")] = 512,
    elevation: Annotated[float, typer.Option(min=-89, max=89, help="Degrees above the horizon.")] = 15.0,
    fov: Annotated[float, typer.Option(min=1, max=170, help="Field of view, degrees.")] = 40.0,
    up: Annotated[
        str | None, typer.Option(help="Which way is up: +x -x +y -y +z -z. From the file if left out.")
    ] = None,
    background: Annotated[str, typer.Option(help="black, white, grey, or #rrggbb.")] = "white",
    fps: Annotated[float, typer.Option(min=1, max=50, help="Frames per second of a GIF.")] = 12.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Render a splat file from cameras on a circle about it."""
    from .formats import read_splats
    from .rendering import contact_sheet, save_gif, save_png, turntable_cameras
    from .runtime import resolve_device

    colour, kind = parse_colour(background), target.suffix.lower()
    if kind not in (".png", ".gif", ""):
        raise ValueError(f"OUT must end in .png or .gif or be a folder without suffix, got {target.name!r}")
    where = resolve_device(device)
    splats = read_splats(source, device=str(where))
    count = views or {".png": 1, ".gif": 36, "": 8}[kind]
    cameras = turntable_cameras(splats, count, width=size, height=size, fov=fov, elevation=elevation, up=up)
    pictures = _draw(splats, cameras, colour)
    if kind == ".gif":
        save_gif(target, pictures, fps=fps)
    elif kind == ".png":
        save_png(target, pictures[0] if count == 1 else contact_sheet(pictures))
    else:
        target.mkdir(parents=True, exist_ok=True)
        digits = max(3, len(str(count - 1)))
        for index, picture in enumerate(pictures):
            save_png(target / f"{index:0{digits}d}.png", picture)
    print(f"{target}: {plural(count, 'view')} of {len(splats):,} gaussians, {size} x {size} pixels")


def _draw(splats: Splats, cameras: Cameras, background: tuple[float, float, float]) -> list[torch.Tensor]:
    """One picture ``[H, W, 3]`` per camera, one camera at a time so that memory does not grow with their number."""
    import torch

    from .rendering import render as rasterise

    pictures = []
    with torch.no_grad():
        for index in _progress(range(len(cameras.viewmats)), "rendering", "view"):
            one = slice(index, index + 1)
            viewmats, Ks = cameras.viewmats[one].to(splats.device), cameras.Ks[one].to(splats.device)
            drawn = rasterise(splats, viewmats, Ks, cameras.width, cameras.height, background=background)
            pictures.append(drawn.colors[0].clamp(0, 1).cpu())
    return pictures


def parse_colour(text: str) -> tuple[float, float, float]:
    """``"black"``, ``"white"``, ``"grey"`` or ``"#rrggbb"`` as three numbers in ``[0, 1]``.

    Raises:
        ValueError: for anything else.
    """
    if text.lower() in _COLOURS:
        return _COLOURS[text.lower()]
    found = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text)
    if not found:
        raise ValueError(f"--background must be {', '.join(_COLOURS)} or #rrggbb, got {text!r}")
    red, green, blue = (int(part, 16) / 255 for part in found.groups())
    return red, green, blue


@notebooks_app.command("list")
@_plain_errors
def list_notebooks(
    notebooks_dir: Annotated[Path, typer.Option(help="Where the notebooks are.")] = Path("notebooks"),
    out: Annotated[Path, typer.Option(help="Where `run` wrote its results.")] = Path("build/notebooks"),
) -> None:
    """Show each notebook with its question, parameters and last result."""
    from .runner import find_notebooks, load_outcome

    for notebook in find_notebooks(notebooks_dir):
        outcome = load_outcome(out, notebook.name)
        state = f"{outcome.status} in {outcome.seconds:.1f} s" if outcome else "not run yet"
        typer.secho(f"{notebook.name}  ", bold=True, nl=False)
        print(f"{notebook.title} ({state})")
        if notebook.question:
            print(f"    {notebook.question}")
        for parameter in notebook.parameters.values():
            print(f"    {parameter.name}: {parameter.type} = {parameter.default!r}")


@notebooks_app.command("run", cls=_PairsCommand)
@_plain_errors
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
    notebooks_dir: Annotated[Path, typer.Option(help="Where the notebooks are.")] = Path("notebooks"),
) -> None:
    """Run notebooks with papermill; pages and an index go to OUT.

    Everything is checked before anything starts. A failed notebook does not stop the others; the exit code is 1 then.
    Relative values of *_DIR, *_FILE and *_PATH parameters count from the folder you are in.
    """
    from .runner import Console, Options, find_notebooks, read_parameters_file, resolve_parameters, write_index
    from .runner import run_notebooks as run

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
    report = run(chosen, values, options, console)
    console.table(report.outcomes, report.skipped)
    console.say(f"\nindex: {write_index(there, out)}")
    if report.interrupted:
        raise typer.Exit(130)
    if report.failed:
        raise typer.Exit(1)


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ValueError(f"-p must be followed by NAME VALUE, got only {word!r}")
    return name, value


class _Steps:
    """A progress bar over named steps, on a terminal only."""

    def __init__(self, count: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=count, leave=False, disable=not sys.stderr.isatty(), bar_format="{desc} {bar} {elapsed}")

    def __enter__(self) -> Callable[[str], None]:
        return self._begin

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _begin(self, name: str) -> None:
        self._bar.set_description(name)
        self._bar.update(1)


def _progress(items: Iterable[T], what: str, unit: str) -> Iterable[T]:
    from tqdm import tqdm

    return tqdm(items, desc=what, unit=unit, leave=False, disable=not sys.stderr.isatty())


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _size(path: Path) -> str:
    return f"{_bytes(path) / 1e6:,.2f} MB"


if __name__ == "__main__":
    app()
