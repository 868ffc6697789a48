"""``clipgs teacher``: draw views for `mini`, the embedded teacher, and train it on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import PASS_ON, Wrap, bar
from .triplet_commands import chosen_sources, noting


def mount(app: typer.Typer, plain_errors: Wrap) -> None:
    """Hang ``teacher views`` and ``teacher train`` into the command.

    Args:
        app: the command.
        plain_errors: what turns expected errors into one line.
    """
    group = typer.Typer(help="Draw views for mini, the embedded teacher, and train it.", no_args_is_help=True)
    group.command("views")(plain_errors(views))
    group.command("train", context_settings=PASS_ON)(plain_errors(train))
    app.add_typer(group, name="teacher")


def views(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the pictures and views.jsonl.")],
    meshes: Annotated[Path | None, typer.Option(help="Folder of meshes: GLB, glTF, OBJ, PLY, STL, OFF, .sh3f.")] = None,
    catalogue: Annotated[int | None, typer.Option(min=1, help="So many objects of the procedural catalogue.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Table (.tsv, .csv) of the meshes: path and label.")] = None,
    count: Annotated[int, typer.Option("--views", min=1, help="Pictures of each object.")] = 16,
    size: Annotated[int, typer.Option(min=1, help="Pixels per side.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the texts and the catalogue.")] = 0,
    factors: Annotated[str, typer.Option(help="Base colour factors of glTF: linear, srgb or guess.")] = "guess",
) -> None:
    """Draw objects over nothing and list them with label, texts and split, for `clipgs teacher train`.

    Objects that fail are listed in left_out.jsonl with the reason; the exit code is 1 then. The same command goes on
    with a run that was stopped.
    """
    from ..triplets.teacher_views import write_teacher_views

    sources = chosen_sources({"--meshes": meshes, "--catalogue": catalogue}, labels, seed)
    with bar("drawing", len(sources)) as show:
        report = write_teacher_views(
            sources, out, views=count, size=size, seed=seed, factors=factors, progress=noting(show)
        )
    print(f"{report.folder}: {report.objects} objects, {len(report.left_out)} left out")
    if report.left_out:
        raise typer.Exit(1)


def train(
    context: typer.Context,
    views: Annotated[Path, typer.Option(metavar="DIR", help="Folder with views.jsonl, see `clipgs teacher views`.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the tower, its records and its model card.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting, e.g. image_size=96.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch decides.")] = 0,
    about: Annotated[str, typer.Option(help="A sentence on the data and their licence, for the model card.")] = "",
) -> None:
    """Train the image tower of mini on rendered views; a run that was stopped goes on exactly.

    Every setting is an option too, most used: --steps 1000, --batch-size 64, --lr 1e-3, --image-size 64, --seed 0.
    """
    from ..settings import from_plain, set_values
    from ..training import MiniConfig, train_mini
    from .dataclass_options import option_values

    values = set_values({}, settings or []) | option_values(MiniConfig, context.args)
    last, score = {"card": ""}, ""
    with bar("training", from_plain(MiniConfig, values).steps) as show:
        for last in train_mini(views, out, values, device=device, threads=threads, about=about):
            score = f", score {last['score']:.3f}" if "score" in last else score
            show(last["step"], note=f"loss {last['loss']:.3f}{score}" if "loss" in last else "")
    print(f"model card: {last['card']}")
