"""``clipgs train``: train an encoder on shards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from .output import PASS_ON, Wrap, bar

_FIRST = os.environ.get("RANK", "0") == "0"  # under torchrun one process speaks
_SHOWN = ("loss", "val_score", "val_zero_shot_top1", "val_image_r1", "val_text_r1")


def mount(app: typer.Typer, plain_errors: Wrap) -> None:
    """Hang ``train`` into the command.

    Args:
        app: the command.
        plain_errors: what turns expected errors into one line.
    """
    app.command("train", context_settings=PASS_ON)(plain_errors(train))


def train(
    context: typer.Context,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder of the run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, exactly.")] = False,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings as JSON or YAML.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting, e.g. weighting=softmax, augment.drop=0."),
    ] = None,
    list_settings: Annotated[
        bool, typer.Option("--list", help="Print all settings with their values and meaning, and stop.")
    ] = False,
) -> None:
    """Train an encoder; the best weights and their model card come to OUT/encoder.

    Every setting is an option too, most used: --shards DIR (once per set), --encoder clipgs-mini, --init point-mini,
    --steps 2000, --batch-size 64, --lr 1e-3, --views 5, --precision auto, --seed 0, --device auto. --list shows all.

    An option beats --set, which beats --config. A run that was stopped, even by kill -9, goes on exactly with --resume
    --out DIR. For several processes: torchrun --nproc-per-node 8 -m clipgs_lib train ...
    """
    from ..encoders import EncoderError
    from ..settings import from_plain, read_file, set_values, settings_of
    from ..training import TrainConfig
    from ..training import train as run
    from .dataclass_options import describe, option_values

    given = option_values(TrainConfig, context.args) | ({"resume": True} if resume else {})
    given |= {} if out is None else {"out": out}
    if list_settings:
        shown = from_plain(TrainConfig, {"shards": ["DIR"], "out": "DIR"} | given)
        for setting in settings_of(TrainConfig):
            value: Any = shown
            for name in setting.name.split("."):
                value = getattr(value, name)
            print(describe(setting, value))
        return
    before = Path(out or "") / "config.json"  # of the run that is resumed
    values = read_file(before) if resume and before.is_file() else {}
    values = set_values(values | (read_file(config) if config else {}), settings or [])
    chosen = from_plain(TrainConfig, values | given)
    try:
        last = _follow(run(chosen), chosen.steps)
    except EncoderError as error:
        raise ValueError(str(error)) from error
    if _FIRST:
        for name, value in last.items():
            print(f"{name}: {value}")


def _follow(records: Iterable[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Show a bar with the latest numbers, and return the last record."""
    last, latest = dict[str, Any](), dict[str, str]()
    with bar("training", steps, silent=not _FIRST) as show:
        for last in records:
            latest |= {name: f"{last[name]:.3f}" for name in _SHOWN if name in last}
            numbers = ", ".join(f"{name} {value}" for name, value in latest.items())
            show(last["step"], note=numbers)
            if "val_score" in last and _FIRST and not sys.stderr.isatty():
                typer.echo(f"step {last['step']}: {numbers}", err=True)
    return last
