"""``clipgs triplets``: build a set of triplets or the embedded one, embed it by another teacher, and look at one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .output import bar, must_exist

if TYPE_CHECKING:
    from ..triplets import Source


Meshes = Annotated[Path | None, typer.Option(help="Folder of meshes: GLB, glTF, OBJ, PLY, STL, OFF, .sh3f.")]
Catalogue = Annotated[int | None, typer.Option(min=1, help="So many objects of the procedural catalogue.")]
Teacher = Annotated[str, typer.Option(help="CLIP that embeds views and texts: mini, an open_clip model, or none.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Set = Annotated[Path, typer.Argument(metavar="DIR", help="A finished set.")]


def build(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Folder of the set; an unfinished build there goes on.")] = None,
    meshes: Meshes = None,
    splats: Annotated[Path | None, typer.Option(help="Folder of splats of any known format.")] = None,
    catalogue: Catalogue = None,
    labels: Annotated[
        Path | None, typer.Option(help="Table (.tsv, .csv): path, and name, label, caption, synonyms, source, licence.")
    ] = None,
    partial_labels: Annotated[
        bool, typer.Option("--partial-labels", help="Take a table of which much does not fit the folder.")
    ] = False,
    copies: Annotated[int, typer.Option(help="So many copies of each mesh, in other colours or with a pattern.")] = 0,
    split: Annotated[str | None, typer.Option(help="Only objects of the catalogue that lie in this split.")] = None,
    teacher: Teacher = "mini",
    list_settings: Annotated[bool, typer.Option("--list", help="Print the settings of objects, and stop.")] = False,
    workers: Workers = 1,
    limit: Annotated[float, typer.Option(help="Seconds for one object; after that it is set aside.")] = 1800.0,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on this Ray cluster; 'local' starts one.")
    ] = None,
) -> int:
    """Build a set from a folder of meshes or splats, or from the catalogue.

    Settings of the objects are options too: --views, --size, --elevations LOW HIGH, --gaussians, --iterations,
    --device, --quality, --seed, --up, --factors. --list shows all with their values and meaning.

    Objects that fail are set aside in quarantine.jsonl with the reason; the exit code is 1 then. The same command goes
    on with a build that was stopped, even by kill -9.
    """
    origins = {"--meshes": meshes, "--splats": splats, "--catalogue": catalogue}
    folder = Path() if list_settings else checked_folder(out, origins, labels)
    from ..settings import from_plain
    from ..triplets.build import BuildConfig, build_triplets
    from ..triplets.copies import with_copies
    from .dataclass_options import describe, option_values

    values = option_values(BuildConfig, context.args, {"--up": "up_axis"})
    config = from_plain(BuildConfig, values | {"teacher": None if teacher == "none" else teacher})
    if list_settings:
        print(describe(config))
        return 0
    sources = with_copies(chosen_sources(origins, labels, config.seed, partial_labels, split), copies)
    with bar("building", len(sources)) as show:
        report = build_triplets(sources, folder, config, workers=workers, ray=ray, limit=limit, progress=noting(show))
    print(report)
    return int(report.quarantined > 0)


def embed(
    folder: Set,
    teacher: Teacher,
    out: Annotated[Path, typer.Option(help="Folder of the new set; an unfinished one there goes on.")],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Pictures in one pass through the teacher.")] = 256,
) -> int:
    """Embed the views and texts of a set by another teacher; splats and views stay as they are.

    Objects that cannot be read are set aside; the exit code is 1 then. The same command goes on with a run that was
    stopped.
    """
    must_exist(folder)
    from ..shards.shard_set import ShardSet
    from ..triplets.embed import embed_triplets

    shards = ShardSet(folder)
    with bar("embedding", len(shards)) as show:
        report = embed_triplets(shards, out, teacher, device=device, batch=batch, progress=noting(show))
    print(report)
    return int(report.objects < len(shards))


def checked_folder(out: Path | None, origins: Mapping[str, Path | int | None], labels: Path | None) -> Path:
    """``out``, when it is given, exactly one of ``origins`` (options -> values) is, and what they name is there.

    ValueError otherwise, with all that is needed in one sentence.
    """
    given = [name for name, value in origins.items() if value]
    if out is None or len(given) != 1:
        *names, last = origins
        got = ", ".join([*given, *(["--out"] if out else [])]) or "none"
        raise ValueError(
            f"exactly one of {', '.join(names)} and {last} is needed, and --out DIR, got {got}; "
            "e.g. --catalogue 20 --out set, or --meshes models --out set"
        )
    must_exist(*(value for value in (*origins.values(), labels) if isinstance(value, Path)))
    return out


def chosen_sources(
    origins: Mapping[str, Path | int | None],
    labels: Path | None,
    seed: int,
    partial: bool = False,
    split: str | None = None,
) -> list[Source]:
    """The objects of the one origin that is given, see `checked_folder`; ``partial`` as in `folder_sources`.

    ValueError for a ``split`` of anything but the catalogue: where a mesh belongs is known once it is read.
    """
    from ..triplets import catalogue_sources, folder_sources

    [(option, origin)] = [(name, value) for name, value in origins.items() if value]
    if isinstance(origin, int):
        return catalogue_sources(origin, seed, split=split)
    if split is not None:
        raise ValueError(f"--split needs --catalogue, got {option}: where a mesh belongs is known once it is read")
    kind: Literal["mesh", "splat"] = "mesh" if option == "--meshes" else "splat"
    return folder_sources(origin or "", kind=kind, labels=labels, partial=partial)


def noting(show: Callable[..., None], aside: str = "set aside") -> Callable[[int, int, int], None]:
    """A bar as what builds report to: objects done, in all, and set aside."""
    return lambda done, total, count: show(done, total, f"{count} {aside}")


def inspect(
    folder: Set,
    html: Annotated[Path | None, typer.Option(help="Contact sheet; DIR/contact_sheet.html if left out.")] = None,
    objects: Annotated[int, typer.Option(min=1, max=2000, help="How many the contact sheet shows.")] = 60,
    verify: Annotated[bool, typer.Option("--verify", help="Read and check every object first.")] = False,
) -> int:
    """Print what a set holds and write its contact sheet. With --verify, exit code 1 says that something is damaged."""
    must_exist(folder)
    from ..shards.shard_set import ShardSet
    from ..triplets.inspection import summarize, write_contact_sheet

    shards = ShardSet(folder)
    wrong = shards.verify() if verify else []
    for sentence in wrong:
        typer.secho(f"damaged: {sentence}", fg="red", err=True)
    if not wrong:
        print(summarize(shards))
        print(f"contact sheet: {write_contact_sheet(shards, html, objects=objects)}")
    return int(bool(wrong))


def audit(
    context: typer.Context,
    folder: Set,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of audit.json and audit.html; else SET.")
    ] = None,
) -> int:
    """Look for leaks between splits, wrong labels, and captions that mislead; propose a split and masks.

    The settings of `clipgs_lib.evaluation.audit.AuditConfig` are options too: --cosine, --difference, --neighbours,
    --agreement, --behind, --related. Exit code 1 says that something was found.
    """
    words, place = [str(folder), *context.args], 0  # options that come first were taken for the folder
    while words[place : place + 1] and words[place].startswith("--"):
        place += 1 if "=" in words[place] else 2
    folder = Path(words.pop(place)) if place < len(words) else folder
    must_exist(folder)
    from ..evaluation.audit import AuditConfig, audit_set, write_audit
    from ..settings import from_plain
    from .dataclass_options import option_values

    config = from_plain(AuditConfig, option_values(AuditConfig, words))
    with bar("reading", 0) as show:
        audited = audit_set(folder, config, show)
    print(audited)
    print(f"pictures: {write_audit(audited, out or folder)[1]}")
    return int(not audited.clean)


def sample(
    out: Annotated[Path, typer.Option(help="Folder of the sample.")],
    raw: Annotated[Path, typer.Option(help="Folder of the fits, which another teacher uses as they are.")],
    teacher: Teacher = "mini",
    objects: Annotated[int | None, typer.Option(min=1, help="The first so many of the catalogue, else all.")] = None,
    workers: Workers = 1,
) -> None:
    """Build the embedded sample; the same command goes on after a stop.

    With another teacher in place of the old one, remove OUT and run it again: the fits in RAW are used as they are.
    """
    from ..files import size_on_disk
    from ..triplets.embed import OBJECTS, build_sample_set

    count = objects or OBJECTS
    with bar("building", count) as show:
        report = build_sample_set(out, raw, teacher=teacher, objects=count, workers=workers, progress=noting(show))
    print(f"{report}\n{size_on_disk(out) / 1e6:.2f} MB")
