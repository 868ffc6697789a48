"""``clipgs evaluate``: one protocol, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .output import Device, bar, must_exist
from .training_commands import Settings

_ABOUT = {
    "all": "Measure encoders by every protocol, and the bag of views beside them.",
    "zero-shot": "Classify objects by the names of classes: Top-1, 3, 5, each class, labels that training had not.",
    "few-shot": "Classify objects after a few labelled ones: episodes of n ways and m shots, and linear probes.",
    "retrieval": "Find objects by texts and pictures and these by objects: R@1, 5, 10, MRR, median rank.",
    "robustness": "Change splats (fewer, turned, cut, written in a format, ...): what moves, and what is still known.",
    "cost": "Time and memory of one object: drawing, where an encoder reads views, and the encoder, on one thread.",
    "pairs": "Tell objects of the catalogue apart that differ in texture, colour, shape or count alone; not in all.",
    "views": "Find names and objects by 1, 2, 4, ... views of each, where an encoder reads views; not in all.",
}


def evaluate_by(name: str) -> Callable[..., None]:
    """The command of a protocol, or of "all"."""

    def command(
        sets: Annotated[
            list[Path], typer.Argument(metavar="SET...", help="Finished sets, or a folder class/test/* of meshes.")
        ],
        encoder: Annotated[list[str], typer.Option(help="Shipped name or folder; once per encoder.")],
        split: Annotated[str, typer.Option(help="Of the sets: train, val, test, unseen, or all.")] = "all",
        classes: Annotated[
            str,
            typer.Option(help="labels (of the sets), modelnet40, scanobjectnn, objaverse-lvis, or a file of names."),
        ] = "labels",
        zero_shot: Annotated[
            str, typer.Option(help="Teacher of the words, as --teacher takes it, or none.")
        ] = "teacher",
        settings: Settings = None,
        device: Device = "auto",
        work: Annotated[
            Path, typer.Option(metavar="DIR", help="Where embeddings are kept, and sets that are built of meshes.")
        ] = Path("build/evaluation"),
        out: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Write JSON, a Parquet beside it, and a page if robust.")
        ] = None,
    ) -> None:
        must_exist(*sets)
        from ..evaluation import PROTOCOLS, EvaluationConfig, evaluate
        from ..files import write_text
        from ..settings import from_plain, set_values

        values = {"split": split, "classes": classes, "zero_shot": zero_shot, "device": device}
        config = from_plain(EvaluationConfig, set_values(values, settings or []))
        chosen = PROTOCOLS if name == "all" else (name,)
        if out is not None:  # before minutes of work, so that they are not lost
            out.parent.mkdir(parents=True, exist_ok=True)
        with bar(name, 1) as show:
            results = evaluate(encoder, sets, chosen, config, work=work, progress=show)
        if out is not None:
            results.write(out)
            if rows := [row for row in results.rows if row["protocol"] == "robustness"]:
                write_text(out.with_suffix(".html"), _cards(rows))
        print(results.tables())

    command.__doc__ = f"""{_ABOUT[name]}

    Every number has a 95 % interval, chance and a count; methods are compared in pairs on the same objects. More
    settings, as --set NAME=VALUE: queries, episodes, draws (few-shot), objects, views (robustness), timed (cost),
    pairs, prompts, precision, seed. A folder of meshes as ModelNet40 has them is built into a set once, below --work.
    """
    return command


def _cards(rows: list[dict[str, Any]]) -> str:
    """A page of all methods together, and of each a card: figure and table."""
    from ..pages import fill
    from ..plots import robustness_figure

    cards = []
    for method in dict.fromkeys(row["method"] for row in rows):
        chosen, table = [row for row in rows if row["method"] == method], dict[str, dict[str, str]]()
        for row in chosen:
            cell = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            table.setdefault(row["task"], {})[row["metric"]] = cell
        figure = robustness_figure(chosen).to_html(full_html=False, include_plotlyjs=False)
        metrics = list(dict.fromkeys(row["metric"] for row in chosen))
        cards.append({"method": method, "figure": figure, "metrics": metrics, "rows": table, "n": chosen[0]["n"]})
    together = robustness_figure(rows).to_html(full_html=False, include_plotlyjs=True)
    return fill(Path(__file__).parent / "templates" / "robustness.html.j2", {"together": together, "cards": cards})


COMMANDS = {
    f"evaluate {name}": (evaluate_by(name), "set --encoder clipgs-mini --encoder point-mini") for name in _ABOUT
}
