"""``clipgs curate``: filter a set by a text and a file of labels, or measure what labels buy."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .output import Device, EncoderName, bar, must_exist


def curate(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="Folder of a finished set with embeddings.")],
    positives: Annotated[str | None, typer.Option(metavar="TEXT", help="What is looked for.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="Labels that LabelGrid saved.")] = None,
    precision: Annotated[float, typer.Option(help="Target share of yes among what is kept, in (0, 1].")] = 0.9,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the manifest and the filtered set; with --oracle a file."),
    ] = None,
    oracle: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Label by the set's categories instead, or all; many times."),
    ] = None,
    encoder: EncoderName = "clipgs-mini",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each oracle.")] = 10,
    budget: Annotated[int, typer.Option(min=10, help="Labels of an oracle at most.")] = 400,
    seed: Annotated[int, typer.Option(help="Of folds and bootstraps.")] = 0,
    device: Device = "auto",
) -> None:
    """Keep the objects of a set that a text means, by a few labels; or measure what labels buy, by an oracle.

    OUT/curation.jsonl says of every object its probability, whether it is kept and why; OUT/set is a set of the kept.
    Without --out it only says what would be kept. Labels come from LabelGrid in notebook 09_curation.
    """
    must_exist(folder, labels)
    if bool(oracle) == (positives is not None and labels is not None):
        raise ValueError("either --positives and --labels must be given, or --oracle, got both or neither; see --help")
    from ..applications.curation import Curation
    from ..runtime import resolve_device
    from ..shards import ShardSet

    shards, place = ShardSet(folder), str(resolve_device(device))
    if oracle:
        with bar("embedding", len(shards), "objects") as show:
            rows = _oracles(shards, oracle, encoder, place, seeds, budget, show)
        _say(rows)
        if out is not None:
            from ..files import write_text

            write_text(out, json.dumps({"set": shards.folder.name, "encoder": encoder, "tasks": rows}) + "\n")
        return
    assert positives is not None and labels is not None
    with bar("embedding", len(shards), "objects") as show:
        curation = Curation(shards, positives, labels, encoder=encoder, device=place, seed=seed, progress=show)
    selection = curation.select(precision)
    assert curation.ranking is not None
    print(f"labels: {curation.counts()['yes']} yes, {curation.counts()['no']} no, {curation.counts()['skip']} skipped")
    print(f"AP on labels held out: {curation.ranking.ap}")
    print(f"kept: {int(selection.kept.sum())} of {len(shards)}, expected precision {selection.precision}")
    if out is not None:
        head = curation.write(out, precision, shlex.join(["clipgs", *sys.argv[1:]]))
        print("\n".join([*head["contradictions"], f"{out}: curation.jsonl, set"]))


def _oracles(
    shards: Any, names: list[str], encoder: str, device: str, seeds: int, budget: int, show: Any
) -> dict[str, dict[str, Any]]:
    """Curves of each task that the set has objects of."""
    from ..applications.curation import embeds_of, oracle_curves, task_of, tasks, texts_of

    chosen = list(tasks()) if "all" in names else names
    truths = {name: [row["category"] in task_of(name).labels for row in shards.rows] for name in chosen}
    if "all" in names:
        truths = {name: truth for name, truth in truths.items() if sum(truth) >= 10}  # fewer say nothing
    embeds = embeds_of(shards, encoder, device, progress=show)
    queries = texts_of(shards, [task_of(name).query for name in truths], device)
    rows = {}
    for (name, truth), query in zip(truths.items(), queries, strict=True):
        report = lambda done, of, name=name: show(done, of, f"runs of {name}")  # noqa: E731
        rows[name] = oracle_curves(embeds, query, truth, seeds=seeds, budget=budget, progress=report)
    return rows


def _say(rows: dict[str, dict[str, Any]]) -> None:
    print("task | objects | AP of the text | labels for AP 0.9: active, random | of objects never labelled")
    for name, row in rows.items():
        needed = [
            [row[way]["needed"][half] or f"> {row['labels'][-1]}" for way in ("active", "random")]
            for half in ("pool", "held_out")
        ]
        cells = [" and ".join(map(str, pair)) for pair in needed]
        print(
            f"{name} | {row['positives']} of {row['objects']} | {row['active']['pool'][0][0]:.2f} | {' | '.join(cells)}"
        )
