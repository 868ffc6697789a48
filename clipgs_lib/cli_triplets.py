"""``clipgs triplets``: build a set of triplets, and look at one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Wrap = Callable[[Callable[..., None]], Callable[..., None]]


def mount(app: typer.Typer, plain_errors: Wrap) -> None:
    """Hang ``triplets build`` and ``triplets inspect`` into the command.

    Args:
        app: the command.
        plain_errors: what turns expected errors into one line.
    """
    own = typer.Typer(help="Make triplets (splats, views, texts) and look at them.", no_args_is_help=True)
    own.command("build")(plain_errors(build))
    own.command("inspect")(plain_errors(inspect))
    app.add_typer(own, name="triplets")


def build(
    out: Annotated[Path, typer.Option("--out", help="Folder of the set; an unfinished build there goes on.")],
    meshes: Annotated[Path | None, typer.Option(help="Folder of meshes: GLB, glTF, OBJ, PLY, STL.")] = None,
    splats: Annotated[Path | None, typer.Option(help="Folder of splats of any known format.")] = None,
    catalogue: Annotated[int | None, typer.Option(min=1, help="So many objects of the procedural catalogue.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Table (.tsv, .csv) with path, and name, label, caption, source, licence.")
    ] = None,
    views: Annotated[int, typer.Option(min=2, max=1000, help="Pictures per object.")] = 12,
    size: Annotated[int, typer.Option(min=16, max=4096, help="Pixels per side of a picture.")] = 224,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the WebP pictures.")] = 90,
    gaussians: Annotated[int, typer.Option(min=4, help="Per object.")] = 1024,
    iterations: Annotated[int, typer.Option(min=0, help="Steps of fitting; 0 keeps the initialisation.")] = 600,
    teacher: Annotated[str, typer.Option(help="CLIP that embeds views and texts, e.g. mini, or none.")] = "mini",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N, for fitting and embedding.")] = "cpu",
    up: Annotated[str | None, typer.Option(help="Up axis of all meshes or splats, e.g. +z; as the file says.")] = None,
    factors: Annotated[str, typer.Option(help="Base colour factors of glTF: linear, srgb or guess.")] = "linear",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on this Ray cluster; 'local' starts one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
) -> None:
    """Build a set from a folder of meshes or splats, or from the catalogue.

    Objects that fail are set aside in quarantine.jsonl with the reason; the exit code is 1 then. The same command goes
    on with a build that was stopped, even by kill -9.
    """
    from tqdm import tqdm

    from .triplets.build import BuildConfig, build_triplets
    from .triplets.build_sources import catalogue_sources, folder_sources

    given = [name for name, value in (("--meshes", meshes), ("--splats", splats), ("--catalogue", catalogue)) if value]
    if len(given) != 1:
        raise ValueError(f"exactly one of --meshes, --splats and --catalogue is needed, got {given or 'none'}")
    if catalogue is not None:
        sources = catalogue_sources(catalogue, seed)
    else:
        sources = folder_sources(meshes or splats or "", kind="mesh" if meshes else "splat", labels=labels)
    config = BuildConfig(
        views=views,
        size=size,
        gaussians=gaussians,
        iterations=iterations,
        teacher=None if teacher == "none" else teacher,
        device=device,
        quality=quality,
        seed=seed,
        up_axis=up,
        factors=factors,
    )
    with tqdm(total=len(sources), desc="building", unit="object", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int, aside: int) -> None:
            bar.n = done
            bar.set_postfix(aside=aside, refresh=False)
            bar.refresh()

        report = build_triplets(sources, out, config, workers=workers, ray=ray, progress=show)
    print(report)
    if report.quarantined:
        raise typer.Exit(1)


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished set.")],
    html: Annotated[Path | None, typer.Option(help="Contact sheet; DIR/contact_sheet.html if left out.")] = None,
    objects: Annotated[int, typer.Option(min=1, max=2000, help="How many the contact sheet shows.")] = 60,
    verify: Annotated[bool, typer.Option("--verify", help="Read and check every object first.")] = False,
) -> None:
    """Print what a set holds and write its contact sheet. With --verify, exit code 1 says that something is damaged."""
    from .triplets.inspect_page import write_contact_sheet
    from .triplets.inspect_set import summarize
    from .triplets.shards_set import ShardSet

    shards = ShardSet(folder)
    wrong: list[Any] = shards.verify() if verify else []
    for sentence in wrong:
        typer.secho(f"damaged: {sentence}", fg="red", err=True)
    if not wrong:
        print(summarize(shards))
        print(f"contact sheet: {write_contact_sheet(shards, html, objects=objects)}")
    else:
        raise typer.Exit(1)
