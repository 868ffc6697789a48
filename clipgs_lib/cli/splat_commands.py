"""``clipgs convert``, ``diagnose`` and ``render``: splat files changed, checked and looked at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExplainedError
from .output import Device, bar, must_exist

if TYPE_CHECKING:
    from ..splats import Splats

_COLOURS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "grey": (0.5, 0.5, 0.5)}


Source = Annotated[Path, typer.Argument(metavar="IN", help="Splat file of any known format, or a SOG folder.")]


def convert(
    source: Source,
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
    must_exist(source)
    from ..files import size_on_disk
    from ..formats import read_splats, write_splats

    with bar("converting", 3) as show:
        show(0, note="reading")
        splats = read_splats(source)
        before = _line(source, splats)
        show(1, note="changing")
        if prune:
            splats, report = splats.prune()
            typer.echo(f"prune: {report}", err=True)
        if max_gaussians is not None and len(splats) > max_gaussians:
            splats = splats.subsample(max_gaussians)
        if normalize:
            splats = splats.normalize()
        if sh_degree is not None and sh_degree < splats.sh_degree:
            splats = splats.with_sh_degree(sh_degree)
        show(2, note="writing")
        written = write_splats(splats, target, format=format)
    share = size_on_disk(written) / max(size_on_disk(source), 1)
    print(f"{before}\n{_line(written, splats)} ({share:.1%} of the size)")


def _line(path: Path, splats: Splats) -> str:
    """File, format, size and content in one line."""
    from ..files import size_on_disk
    from ..formats import sniff

    megabytes = size_on_disk(path) / 1e6
    return f"{path}: {sniff(path)}, {megabytes:,.2f} MB, {len(splats):,} gaussians, SH {splats.sh_degree}"


def diagnose(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files to look at.")],
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a repaired copy here (with a single PATH).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of text.")] = False,
) -> int:
    """Say what files are, what is wrong with them and how to mend it.

    Exit code 1 when a file has an error, 2 when one cannot be looked at.
    """
    if fix is not None and len(paths) != 1:
        raise ValueError(f"--fix needs exactly one PATH, got {len(paths)}; run it once per file")
    reports, unread = [], 0
    with bar("diagnosing", len(paths), "files") as show:
        for index, path in enumerate(paths):
            show(index)
            try:
                must_exist(path)
                from ..formats import diagnose as examine

                reports.append(examine(path, fix=fix))
            except (ExplainedError, OSError) as error:
                typer.secho(f"error: {error}", fg="red", err=True)
                unread += 1
    if as_json:
        print(json.dumps([report.to_dict() for report in reports], indent=1))
    else:
        print("\n\n".join(str(report) for report in reports))
    return 2 if unread else int(not all(report.ok for report in reports))


def render(
    source: Source,
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
    device: Device = "auto",
) -> None:
    """Render a splat file from cameras on a circle about it."""
    must_exist(source)
    import torch

    from ..formats import read_splats
    from ..rendering import contact_sheet, save_gif, save_png, turntable_cameras
    from ..rendering import render as rasterise
    from ..runtime import resolve_device
    from ..words import plural

    colour, kind = parse_colour(background), target.suffix.lower()
    if kind not in (".png", ".gif", ""):
        raise ValueError(f"OUT must end in .png or .gif or be a folder without suffix, got {target.name!r}")
    where = resolve_device(device)
    splats = read_splats(source, device=str(where))
    count = views or {".png": 1, ".gif": 36, "": 8}[kind]
    cameras = turntable_cameras(splats, count, width=size, height=size, fov=fov, elevation=elevation, up=up)
    pictures = []
    with torch.no_grad(), bar("rendering", count, "views") as show:
        for index in range(count):  # one camera at a time, so that memory does not grow with their number
            show(index)
            viewmat, K = cameras.viewmats[index : index + 1].to(where), cameras.Ks[index : index + 1].to(where)
            drawn = rasterise(splats, viewmat, K, size, size, background=colour)
            pictures.append(drawn.colors[0].clamp(0, 1).cpu())
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


def parse_colour(text: str) -> tuple[float, float, float]:
    """``"black"``, ``"white"``, ``"grey"`` or ``"#rrggbb"`` as three numbers in ``[0, 1]``, or ValueError."""
    if text.lower() in _COLOURS:
        return _COLOURS[text.lower()]
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ValueError(f"--background must be {', '.join(_COLOURS)} or #rrggbb, got {text!r}")
    red, green, blue = bytes.fromhex(text[1:])
    return red / 255, green / 255, blue / 255
