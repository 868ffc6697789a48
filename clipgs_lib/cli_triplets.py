"""``clipgs triplets``: build a set of triplets, embed it by another teacher, and look at one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Wrap = Callable[[Callable[..., None]], Callable[..., None]]


def mount(app: typer.Typer, plain_errors: Wrap) -> None:
    """Hang ``triplets build``, ``triplets embed`` and ``triplets inspect`` into the command.

    Args:
        app: the command.
        plain_errors: what turns expected errors into one line.
    """
    own = typer.Typer(help="Make triplets (splats, views, texts) and look at them.", no_args_is_help=True)
    own.command("build")(plain_errors(build))
    own.command("embed")(plain_errors(embed))
    own.command("inspect")(plain_errors(inspect))
    app.add_typer(own, name="triplets")


def build(
    out: Annotated[Path, typer.Option("--out", help="Folder of the set; an unfinished build there goes on.")],
    meshes: Annotated[Path | None, typer.Option(help="Folder of meshes: GLB, glTF, OBJ, PLY, STL.")] = None,
    splats: Annotated[Path | None, typer.Option(help="Folder of splats of any known format.")] = None,
    catalogue: Annotated[int | None, typer.Option(min=1, help="So many objects of the procedural catalogue.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Table (.tsv, .csv): path, and name, label, caption, synonyms, source, licence.")
    ] = None,
    views: Annotated[int, typer.Option(min=2, max=1000, help="Pictures per object.")] = 12,
    size: Annotated[int, typer.Option(min=16, max=4096, help="Pixels per side of a picture.")] = 224,
    elevations: Annotated[
        tuple[float, float],
        typer.Option(metavar="LOW HIGH", help="Belt of the cameras, degrees; -90 90 is all around."),
    ] = (-20.0, 70.0),
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the WebP pictures.")] = 90,
    gaussians: Annotated[int, typer.Option(min=4, help="Per object.")] = 1024,
    iterations: Annotated[int, typer.Option(min=0, help="Steps of fitting; 0 keeps the initialisation.")] = 600,
    teacher: Annotated[str, typer.Option(help="CLIP that embeds views and texts, e.g. mini, or none.")] = "mini",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N, for fitting and embedding.")] = "cpu",
    up: Annotated[str | None, typer.Option(help="Up axis of all meshes or splats, e.g. +z; as the file says.")] = None,
    factors: Annotated[str, typer.Option(help="Base colour factors of glTF: linear, srgb or guess.")] = "linear",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    limit: Annotated[float, typer.Option(help="Seconds for one object; after that it is set aside.")] = 1800.0,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on this Ray cluster; 'local' starts one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
) -> None:
    """Build a set from a folder of meshes or splats, or from the catalogue.

    Objects that fail are set aside in quarantine.jsonl with the reason; the exit code is 1 then. The same command goes
    on with a build that was stopped, even by kill -9.
    """
    from .triplets.build import BuildConfig, build_triplets
    from .triplets.sources import catalogue_sources, folder_sources

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
        elevations=elevations,
        gaussians=gaussians,
        iterations=iterations,
        teacher=None if teacher == "none" else teacher,
        device=device,
        quality=quality,
        seed=seed,
        up_axis=up,
        factors=factors,
    )
    with _bar(len(sources), "building") as show:
        report = build_triplets(sources, out, config, workers=workers, ray=ray, limit=limit, progress=show)
    print(report)
    if report.quarantined:
        raise typer.Exit(1)


def embed(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished set, with or without embeddings.")],
    teacher: Annotated[str, typer.Option(help="CLIP that embeds views and texts, e.g. mini.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new set; an unfinished one there goes on.")],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Pictures in one pass through the teacher.")] = 256,
) -> None:
    """Embed the views and texts of a set by another teacher; splats and views stay as they are.

    Objects that cannot be read are set aside; the exit code is 1 then. The same command goes on with a run that was
    stopped.
    """
    from .shards.shard_set import ShardSet
    from .triplets.embed import embed_triplets

    shards = ShardSet(folder)
    with _bar(len(shards), "embedding") as show:
        report = embed_triplets(shards, out, teacher, device=device, batch=batch, progress=show)
    print(report)
    if report.objects < len(shards):
        raise typer.Exit(1)


@contextmanager
def _bar(total: int, doing: str) -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar on a terminal, as a function of objects done, in all, and set aside."""
    from tqdm import tqdm

    with tqdm(total=total, desc=doing, unit="object", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int, aside: int) -> None:
            bar.n = done
            bar.set_postfix(aside=aside, refresh=False)
            bar.refresh()

        yield show


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished set.")],
    html: Annotated[Path | None, typer.Option(help="Contact sheet; DIR/contact_sheet.html if left out.")] = None,
    objects: Annotated[int, typer.Option(min=1, max=2000, help="How many the contact sheet shows.")] = 60,
    verify: Annotated[bool, typer.Option("--verify", help="Read and check every object first.")] = False,
) -> None:
    """Print what a set holds and write its contact sheet. With --verify, exit code 1 says that something is damaged."""
    from .shards.shard_set import ShardSet
    from .triplets.inspect_page import write_contact_sheet
    from .triplets.inspect_set import summarize

    shards = ShardSet(folder)
    wrong: list[Any] = shards.verify() if verify else []
    for sentence in wrong:
        typer.secho(f"damaged: {sentence}", fg="red", err=True)
    if not wrong:
        print(summarize(shards))
        print(f"contact sheet: {write_contact_sheet(shards, html, objects=objects)}")
    else:
        raise typer.Exit(1)
