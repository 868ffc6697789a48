"""The ``clipgs`` command.

Each command imports what it needs when it runs, so that ``clipgs --help`` answers at once, and so does the sentence
about a file that is not there. An expected error (a file that is broken or missing, an option out of range) is one red
line and exit code 2; with ``CLIPGS_DEBUG=1`` the traceback is shown. Exit code 1 says that the command worked but found
something wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .._version import __version__
from . import (
    curation_commands,
    evaluation_commands,
    gallery_commands,
    notebook_commands,
    splat_commands,
    training_commands,
    triplet_commands,
    twin_commands,
)
from .output import plain_errors

_GROUPS = {
    "triplets": "Make triplets (splats, views, texts) and look at them.",
    "evaluate": "Measure encoders on sets: zero-shot, few-shot, retrieval, robustness, cost, or all.",
    "teacher": "Draw views for mini, the embedded teacher, and train it.",
    "notebooks": "List the notebooks and run them.",
}
# words of a command -> what runs, and an example that its help ends with
_COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "triplets build": (triplet_commands.build, "--meshes models --labels models.csv --out set --workers 4"),
    "triplets embed": (triplet_commands.embed, "set --teacher ViT-B-32/laion2b_s34b_b79k --out set-vitb32"),
    "triplets inspect": (triplet_commands.inspect, "set --verify"),
    "triplets sample": (triplet_commands.sample, "--out sample --raw fits --objects 20"),
    "teacher views": (training_commands.views, "--catalogue 2000 --out views"),
    "teacher train": (training_commands.train_teacher, "--views views --out mini --steps 1000"),
    "train": (training_commands.train, "--shards set --init point-mini --out run --steps 2000"),
    **evaluation_commands.COMMANDS,
    "ablate": (training_commands.ablate, "notebooks/full/design_ablation.yaml --out ablation --jobs 2"),
    "embed": (gallery_commands.embed, "models --out gallery"),
    "search": (gallery_commands.search, 'gallery "a striped mug" --minus wood -k 12 --sheet hits.png'),
    "report": (gallery_commands.report, "gallery --queries data/queries/kits.json --out report.html"),
    "curate": (curation_commands.curate, "set --positives 'a photo of food' --labels food.jsonl --out food"),
    "twin": (twin_commands.twin, "scene --pool set --out twin"),
    "audit": (triplet_commands.audit, "set --out audit"),
    "convert": (splat_commands.convert, "thing.ply thing.spz --max-gaussians 20000"),
    "diagnose": (splat_commands.diagnose, "thing.ply --fix mended.ply"),
    "render": (splat_commands.render, "thing.sog turn.gif --views 36"),
    "notebooks list": (notebook_commands.list_notebooks, ""),
    "notebooks run": (notebook_commands.run_notebooks, "03_tokenizer -p SPLATS ~/splats/thing.ply"),
}
_ABOUT = "3D Gaussian splats aligned with CLIP: convert, check, render, train, and run the notebooks."


def _command() -> typer.Typer:
    style: dict[str, Any] = {"no_args_is_help": True, "add_completion": False}
    names = {"help_option_names": ["-h", "--help"]}
    command = typer.Typer(name="clipgs", help=_ABOUT, pretty_exceptions_enable=False, context_settings=names, **style)
    groups = {"": command} | {name: typer.Typer(help=text, **style) for name, text in _GROUPS.items()}
    for words, (function, example) in _COMMANDS.items():
        group, _, name = words.rpartition(" ")
        options: dict[str, Any] = {"cls": notebook_commands.PairsCommand} if words == "notebooks run" else {}
        if "context" in inspect.signature(function).parameters:  # options of a dataclass beside those it declares
            options["context_settings"] = {"allow_extra_args": True, "ignore_unknown_options": True}
        epilog = f"Example: clipgs {words} {example}".rstrip()
        groups[group].command(name, epilog=epilog, **options)(plain_errors(function))
    for name in _GROUPS:
        command.add_typer(groups[name], name=name)
    return command


app = _command()


def _version(asked: bool) -> None:
    if asked:
        print(f"clipgs_lib {__version__}")
        raise typer.Exit


@app.callback(help=_ABOUT)
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass
