"""``clipgs embed``, ``clipgs search`` and ``clipgs report``: galleries of embedded objects."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import Device, EncoderName, bar, must_exist
from .triplet_commands import noting

if TYPE_CHECKING:
    from ..gallery import Gallery

LabelFile = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Text with a label on each line; each hit gets the nearest."),
]

TextTemplates = Annotated[
    list[str] | None,
    typer.Option("--template", metavar="TEXT", help="Such as 'a photo of a {}', {} for the words; several: the mean."),
]


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
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the hits' splats there, with a table of what they are.")
    ] = None,
    labels: LabelFile = None,
    template: TextTemplates = None,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="By faiss, for galleries of millions; its recall is printed.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Search a gallery by words, pictures, objects and their mixture.

    A score says how many standard deviations a hit stands out from the gallery; it is the sum of what each part of the
    query contributed.
    """
    must_exist(gallery, labels, *(image or ()))
    from ..files import replacing
    from ..gallery import Gallery, Query, ask, lines_of, picture_term, row_term, text_term, zero_shot_labels
    from ..gallery.query import TEMPLATES, check_templates
    from ..gallery.sheet import hits_sheet

    templates, opened = tuple(template or TEMPLATES), Gallery.open(gallery)
    check_templates(templates)
    if approximate:
        from ..gallery.approximate import use_faiss

        with bar("indexing", len(opened)) as show:
            recall = use_faiss(opened, show)
        print(f"searched by faiss, which finds {recall:.1%} of the exact ten best (recall@10)", file=sys.stderr)
    terms = [row_term(opened, key) for key in like or ()]
    teacher = _teacher(opened, device) if text is not None or image or minus or labels else None
    if teacher is not None:
        terms = [
            *([text_term(teacher, text, templates=templates)] if text is not None else []),
            *(picture_term(teacher, path, name=path.name) for path in image or ()),
            *terms,
            *(text_term(teacher, words, -0.5, templates) for words in minus or ()),
        ]
    answer = ask(opened, Query(tuple(terms)), k, where=where, collapse=collapse)
    plain, rows = answer.to_plain(), [hit.row for hit in answer.hits]
    for hit in plain["hits"]:
        hit |= opened.card(hit["row"])
    if labels and teacher is not None:
        names, shares = zero_shot_labels(opened, teacher, lines_of(labels), rows=rows)
        for hit, name, share in zip(plain["hits"], names, shares.tolist(), strict=True):
            hit |= {"label": name, "label_share": share}
    print(json.dumps(plain, ensure_ascii=False, indent=1) if as_json else _table(plain))
    if sheet is not None:
        with replacing(sheet) as temporary:
            hits_sheet(opened, answer).save(temporary, "PNG")
    if export is not None:
        from ..gallery.embedding import export_splats

        export_splats(opened, [hit.key for hit in answer.hits], export)


def _teacher(gallery: Gallery, device: str) -> Any:
    from ..evaluation import load_teacher_of
    from ..runtime import resolve_device
    from ..shards import TeacherInfo

    return load_teacher_of(TeacherInfo(gallery.teacher, gallery.dim), device=resolve_device(device))


def _table(answer: dict[str, Any]) -> str:
    some = answer["hits"] and not answer["fits"]
    lines = [f"nothing fits well (fit {answer['fit']:.1f})"] if some else []
    for hit in answer["hits"]:
        shares = " ".join(f"{share:+.1f}" for share in hit["contributions"]) if len(hit["contributions"]) > 1 else ""
        more = f" and {len(hit['alike'])} alike" if hit["alike"] else ""
        test = "[test]" if hit["split"] == "test" else ""
        label = f"= {hit['label']} ({hit['label_share']:.0%})" if "label" in hit else ""
        caption = " ".join(hit["caption"].split())[:80] + more
        parts = (f"{hit['rank']:3d}. {hit['score']:5.2f}", shares, hit["key"], caption, label, test)
        lines.append("  ".join(part for part in parts if part))
    return "\n".join(lines) or "no row may come"


def report(
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="Folder that `clipgs embed` made.")],
    queries: Annotated[Path, typer.Option(metavar="FILE", help="A text on each line, or YAML or JSON.")],
    out: Annotated[Path, typer.Option(metavar="HTML", help="The page.")],
    k: Annotated[int, typer.Option("-k", min=1, max=60, help="Hits of each query.")] = 6,
    live: Annotated[int, typer.Option(min=0, help="Hits of each query whose splats can be turned.")] = 1,
    labels: LabelFile = None,
    template: TextTemplates = None,
    device: Device = "auto",
) -> None:
    """Write the hits of many queries as one page that needs no network: pictures, scores, and splats to turn.

    YAML or JSON is a mapping of texts to the words of right categories, such as data/queries/kits.json, or a list of
    texts and of mappings with text, image, like, minus and right; where right answers are known, the page says how many
    of the first five hits are. It takes at most 5 MB; splats beyond stay pictures.
    """
    must_exist(gallery, queries, labels)
    from ..gallery import Gallery, Session, lines_of, read_questions
    from ..gallery.query import TEMPLATES
    from ..gallery.questions import FIRST

    questions, opened = read_questions(queries), Gallery.open(gallery)
    names = lines_of(labels) if labels else []
    from ..widgets.answers import write_report

    session = Session(opened, _teacher(opened, device), per_page=max(k, FIRST), templates=template or TEMPLATES)
    with bar("searching", len(questions)) as show:
        facts = write_report(
            out, session, questions, title=f"{queries.stem} · {gallery.resolve().name}", k=k, live=live, labels=names,
            command=shlex.join(["clipgs", *sys.argv[1:]]), progress=show,
        )  # fmt: skip
    print(f"{out}: {facts['queries']} queries, {facts['live']} splats to turn, {facts['bytes'] / 1e6:.1f} MB")
    if "judged" in facts:
        shares = (f"{name} {facts[name]:.0%}" for name in ("precision@5", "any right", "by chance"))
        print(f"{facts['judged']} queries with right answers: {', '.join(shares)}")
    if facts["lost"]:
        print(f"splats of {len(facts['lost'])} hits could not be read; the first: {facts['lost'][0]}")
