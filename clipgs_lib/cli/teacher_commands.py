"""``clipgs teacher``: train `mini`, the embedded teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import PASS_ON, Wrap, bar


def mount(app: typer.Typer, plain_errors: Wrap) -> None:
    """Hang ``teacher train`` into the command.

    Args:
        app: the command.
        plain_errors: what turns expected errors into one line.
    """
    group = typer.Typer(help="Train mini, the embedded teacher.", no_args_is_help=True)
    group.callback()(lambda: None)  # a group of one command keeps its name
    group.command("train", context_settings=PASS_ON)(plain_errors(train))
    app.add_typer(group, name="teacher")


def train(
    context: typer.Context,
    views: Annotated[Path, typer.Option(metavar="DIR", help="Folder with views.jsonl.")],
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
