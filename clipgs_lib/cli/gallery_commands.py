"""``clipgs embed`` and ``clipgs search``: galleries of embedded objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import Device, EncoderName, bar, must_exist
from .triplet_commands import noting

if TYPE_CHECKING:
    from ..gallery import Answer


def embed(
    source: Annotated[Path, typer.Argument(metavar="DIR|SET", help="Folder of splats and meshes, or a finished set.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the gallery; what is in it stays.")],
    encoder: EncoderName = "clipgs-mini",
    labels: Annotated[
        Path | None, typer.Option(help="Table (.tsv, .csv) of a folder: path, and name, label, caption.")
    ] = None,
    device: Device = "auto",
    gaussians: Annotated[int, typer.Option(min=4, help="That a mesh, or splats of more, are covered with.")] = 1_024,
) -> int:
    """Embed objects into a gallery to search in.

    Any mix of splat formats and meshes, told by content. The same command goes on with a run that was stopped, even by
    kill -9, and adds what is new. Objects that fail are listed; the exit code is 1 then.
    """
    must_exist(source, labels)
    from ..gallery.embedding import embed_gallery
    from ..runtime import resolve_device
    from ..triplets import BuildConfig

    config = BuildConfig(iterations=0, gaussians=gaussians)
    with bar("embedding", 0) as show:
        report = embed_gallery(
            source, out, encoder=encoder, labels=labels, device=resolve_device(device), config=config,
            progress=noting(show, "left out"),
        )  # fmt: skip
    print(report)
    return int(bool(report.left_out))


def search(
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="Folder that `clipgs embed` made.")],
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to look for; once per picture.")] = None,
    like: Annotated[list[str] | None, typer.Option(metavar="ID", help="An object of the gallery to look for.")] = None,
    minus: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="What it is not to be; weighs half.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 12,
    where: Annotated[
        list[str] | None, typer.Option(help="category=mug|cup, caption~striped, split!=train; all must hold.")
    ] = None,
    collapse: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Cosine from which near-duplicates are shown as one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the hits.")] = None,
    device: Annotated[str, typer.Option(help="Of the teacher: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Search a gallery by words, pictures, objects and their mixture.

    A score says how many standard deviations a hit stands out from the gallery; it is the sum of what each part of the
    query contributed.
    """
    must_exist(gallery, *(image or ()))
    from ..gallery import Gallery, Query, ask, picture_term, row_term, text_term
    from ..gallery.sheet import hits_sheet

    opened = Gallery.open(gallery)
    terms = [row_term(opened, key) for key in like or ()]
    if text is not None or image or minus:
        from ..evaluation import load_teacher_of
        from ..runtime import resolve_device
        from ..shards import TeacherInfo

        info = TeacherInfo(opened.teacher, opened.dim)
        teacher = load_teacher_of(info, device=resolve_device(device))
        terms = [
            *([text_term(teacher, text)] if text is not None else []),
            *(picture_term(teacher, path, name=path.name) for path in image or ()),
            *terms,
            *(text_term(teacher, words, -0.5) for words in minus or ()),
        ]
    answer = ask(opened, Query(tuple(terms)), k, where=where, collapse=collapse)
    print(json.dumps(answer.to_plain(), ensure_ascii=False, indent=1) if as_json else _table(answer))
    if sheet is not None:
        from ..files import replacing

        with replacing(sheet) as temporary:
            hits_sheet(opened, answer).save(temporary, "PNG")


def _table(answer: Answer) -> str:
    lines = [] if answer.fits else [f"nothing fits well (fit {answer.fit:.1f})"] if answer.hits else ["no row may come"]
    for hit in answer.hits:
        shares = " ".join(f"{share:+.1f}" for share in hit.contributions) if len(hit.contributions) > 1 else ""
        more = f" and {len(hit.alike)} alike" if hit.alike else ""
        caption = " ".join(hit.caption.split())[:80]
        lines.append(
            "  ".join(part for part in (f"{hit.rank:3d}. {hit.score:5.2f}", shares, hit.key, caption + more) if part)
        )
    return "\n".join(lines)
