"""``clipgs train``: train an encoder on shards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Wrap = Callable[[Callable[..., None]], Callable[..., None]]
_FIRST = os.environ.get("RANK", "0") == "0"  # under torchrun one process speaks
_SHOWN = ("loss", "val_score", "val_zero_shot_top1", "val_image_r1", "val_text_r1")


def mount(app: typer.Typer, plain_errors: Wrap) -> None:
    """Hang ``train`` into the command.

    Args:
        app: the command.
        plain_errors: what turns expected errors into one line.
    """
    app.command("train")(plain_errors(train))


def train(
    shards: Annotated[
        list[str] | None, typer.Option("--shards", metavar="DIR", help="A finished set; give it once per set.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder of the run.")] = None,
    encoder: Annotated[str | None, typer.Option(help="clipgs-mini, point-mini, clipgs-base, ...")] = None,
    init: Annotated[
        str | None, typer.Option(metavar="NAME|DIR|none", help="Encoder to start from, e.g. point-mini.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Objects per step, over all processes.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    views: Annotated[int | None, typer.Option(help="Views drawn per object and step.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, exactly.")] = False,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings as JSON or YAML.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting, e.g. weighting=softmax, augment.drop=0."),
    ] = None,
    list_settings: Annotated[
        bool, typer.Option("--list", help="Print all settings with their values, and stop.")
    ] = False,
) -> None:
    """Train an encoder; the best weights and their model card come to OUT/encoder.

    An option beats --set, which beats --config. A run that was stopped, even by kill -9, goes on exactly with --resume
    --out DIR. For several processes: torchrun --nproc-per-node 8 -m clipgs_lib.cli train ...
    """
    from .encoders import EncoderError
    from .settings import read_file, set_values
    from .training import TrainConfig
    from .training import train as run

    named = {
        "shards": shards,
        "out": out,
        "encoder": encoder,
        "init": init,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "views": views,
        "precision": precision,
        "seed": seed,
        "device": device,
        "resume": resume or None,
    }
    given = {name: value for name, value in named.items() if value is not None}
    if list_settings:
        for name, value in TrainConfig.from_dict({"shards": ["DIR"], "out": "DIR"} | given).to_dict().items():
            print(f"{name} = {value}")
        return
    before = Path(out or "") / "config.json"  # of the run that is resumed
    values = read_file(before) if resume and before.is_file() else {}
    values = set_values(values | (read_file(config) if config else {}), settings or [])
    chosen = TrainConfig.from_dict(values | given)
    try:
        last = _follow(run(chosen), chosen.steps)
    except EncoderError as error:
        raise ValueError(str(error)) from error
    if _FIRST:
        for name, value in last.items():
            print(f"{name}: {value}")


def _follow(records: Any, steps: int) -> dict[str, Any]:
    """Show a bar with the latest numbers, and return the last record."""
    from tqdm import tqdm

    last, tty = dict[str, Any](), sys.stderr.isatty()
    shown: dict[str, str] = {}
    with tqdm(total=steps, desc="training", unit="step", disable=not (_FIRST and tty)) as bar:
        for last in records:
            shown |= {name: f"{last[name]:.3f}" for name in _SHOWN if name in last}
            bar.n = last["step"]
            bar.set_postfix(shown, refresh=False)
            bar.update(0)
            if "val_score" in last and _FIRST and not tty:
                told = ", ".join(f"{name} {value}" for name, value in shown.items())
                typer.echo(f"step {last['step']}: {told}", err=True)
    return last
