"""Answers to queries on a page that needs no kernel and no network: part of an exported notebook, or a report."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from .._version import __version__
from ..files import writing
from ..gallery import Answer, Gallery, Part, Question, Session, query_parts, right_rows, zero_shot_labels
from ..gallery.questions import FIRST, mean_shares
from ..gallery.sheet import tile
from ..pages import fill
from ..words import plural
from .live import live_data, page_parts
from .splat_view import SplatView

MAX_BYTES = 5_000_000  # of a report
WIDTH, HEIGHT = 380, 300  # of an opened splat, CSS pixels
_SIDE, _PART_SIDE = 144, 64  # of pictures of hits, and of those in a query, pixels
_WORDS = 60_000  # 32-bit words of a splat, see `live_data`
_TEMPLATE = Path(__file__).parent / "templates" / "report.html.j2"
_FRAME = 40_000  # bytes of a report that are neither script nor answers


def answers_data(
    session: Session,
    questions: Sequence[Question],
    *,
    k: int = 6,
    live: int = 6,
    most: int = 1_500_000,
    labels: Sequence[str] = (),
    stacked: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """What `answers.js` shows: of each query its terms and hits, pictures of the hits, and splats of the first ones.

    Args:
        session: searches its present gallery and opens splats; its state stays.
        questions: at least one.
        k: hits of each, at most as many as a page of the session has.
        live: how many of the hits of each query can be turned; the first of each before the second of any.
        most: bytes of all, as JSON; splats that do not fit stay pictures.
        labels: to choose a zero-shot label for each hit from.
        stacked: whether all queries are shown, one below the other, instead of one at a time.
        progress: called with queries done and queries in all, then with splats.

    Returns:
        JSON values: ``queries``, ``pictures`` and ``live`` (`live_data`) by key, ``stacked``, and ``lost``: reasons why
        splats could not be read.

    Raises:
        ValueError: for a query that cannot be answered, and when the hits alone take more than ``most`` bytes.
    """
    queries: list[dict[str, Any]] = []
    pictures: dict[str, str] = {}
    left = most
    for number, question in enumerate(questions, start=1):
        try:
            parts = query_parts(question.text, image=question.image or None, like=question.like, minus=question.minus)
            answer = session.ask(parts)
        except (ValueError, OSError, KeyError) as error:
            name = (question.text or question.image or question.like)[:40]
            words = error.args[0] if isinstance(error, KeyError) else error
            raise ValueError(f"query {number} ({name!r}) must have an answer, got: {words}") from None
        queries.append(_query(session, question, parts, answer, k))
        missing = [hit for hit in answer.hits[:k] if hit.key not in pictures]
        new = {hit.key: _webp(session.gallery.thumbnail(hit.row), _SIDE) for hit in missing}
        pictures |= new
        left -= len(htmlsafe_json_dumps([queries[-1], new]))
        if left < 0:
            must = f"hits of all {len(questions)} queries must fit into {most:,} bytes"
            raise ValueError(f"{must}, got more after query {number}; ask fewer queries, or for fewer hits")
        progress(number, len(questions))
    if labels:
        cards = [card for query in queries for card in query["hits"]]
        rows = [session.gallery.row(card["key"]) for card in cards]
        chosen = zero_shot_labels(session.gallery, session.teacher, labels, rows=rows)[0]
        for card, label in zip(cards, chosen, strict=True):
            card["label"] = label
        left -= len(htmlsafe_json_dumps(chosen)) + 11 * len(chosen)
    ranked = [query["hits"][rank]["key"] for rank in range(live) for query in queries if rank < len(query["hits"])]
    views, lost = _views(session, list(dict.fromkeys(ranked)), left, progress)
    return {"queries": queries, "pictures": pictures, "live": views, "lost": lost, "stacked": stacked}


def _views(
    session: Session, keys: Sequence[str], most: int, progress: Callable[[int, int], None]
) -> tuple[dict[str, Any], list[str]]:
    """`live_data` by key, as many of the first as fit into ``most`` bytes; and why others could not be read."""
    views, lost, left = {}, [], most
    for number, key in enumerate(keys, start=1):
        progress(number, len(keys))
        try:
            name = session.gallery.card(session.gallery.row(key))["caption"]
            view = SplatView({name: session.splats(key)}, width=WIDTH, height=HEIGHT)
        except Exception as error:  # readers that a person brought may raise anything; the picture stays
            lost.append(str(error) or type(error).__name__)
            continue
        data = live_data(view, _WORDS)
        view.close()
        left -= len(htmlsafe_json_dumps({key: data}))
        if left < 0:
            break
        views[key] = data
    return views, lost


def _query(session: Session, question: Question, parts: Sequence[Part], answer: Answer, k: int) -> dict[str, Any]:
    """A query with its hits, and how many of them are right."""
    gallery, hits = session.gallery, answer.hits[:k]
    terms = []
    for part, term in zip(parts, answer.query.terms, strict=True):
        shape = part.kind == "shape"
        picture = gallery.thumbnail(gallery.row(part.name)) if shape else base64.b64decode(part.picture)
        small = _webp(picture, _PART_SIDE) if picture else ""
        terms.append({"name": term.name, "weight": term.weight, "picture": small})
    mask = right_rows(gallery, question.right) if question.right else None
    cards = [
        gallery.card(hit.row)
        | {"score": hit.score, "shares": hit.contributions, "facts": session.facts(hit.key)}
        | {"right": None if mask is None else bool(mask[hit.row])}
        for hit in hits
    ]
    notes, right = [f"the best {len(hits)} of {answer.rows:,}"], None
    if mask is not None:
        of = min(FIRST, int(mask.sum()))
        first = sum(bool(mask[hit.row]) for hit in answer.hits[:of])
        right = {"first": first, "of": of, "share": float(mask.float().mean())} if of else None
        there = f"{first} of the first {of} right" + ("" if of == FIRST else f", the only {of} in the gallery")
        notes.append(there if of else "no right answer is in the gallery")
    return {"terms": terms, "hits": cards, "fits": answer.fits, "notes": notes, "right": right}


def _webp(picture: bytes, side: int) -> str:
    """A picture as a square WebP in base64."""
    stream = io.BytesIO()
    tile(picture, side).save(stream, "WEBP", quality=80)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def write_report(
    path: str | os.PathLike[str],
    session: Session,
    questions: Sequence[Question],
    *,
    title: str,
    command: str,
    **options: Any,
) -> dict[str, Any]:
    """Write a page of queries with their hits, scores, and, where right answers are known, how many hits are right.

    The page is one file of at most 5 MB that asks no network for anything; texts in it stay texts.

    Args:
        path: of the HTML file.
        session: see `answers_data`; pages of at least five hits.
        questions: at least one.
        title: of the page.
        command: that made it, to be shown.
        **options: ``k``, ``live``, ``labels``, ``progress`` of `answers_data`.

    Returns:
        Counts of ``queries``, ``live`` splats and ``bytes``; ``lost``, see `answers_data`; and, where right answers are
        known, ``judged`` queries, and shares ``precision@5``, ``any right``, ``by chance``.

    Raises:
        ValueError: as `answers_data`.
        OSError: when it cannot be written.
    """
    parts = page_parts(SplatView)
    most = MAX_BYTES - len("".join(parts.values())) - _FRAME
    data = answers_data(session, questions, stacked=True, most=most, **options)
    metrics = _metrics([query["right"] for query in data["queries"] if query["right"]])
    values = {"title": title, "facts": _facts(session.gallery, command), "metrics": metrics, "data": data} | parts
    page = fill(_TEMPLATE, values).encode("utf-8", "xmlcharrefreplace")
    with writing(path) as stream:
        stream.write(page)
    return {"queries": len(questions), "live": len(data["live"]), "bytes": len(page), "lost": data["lost"]} | metrics


def _metrics(judged: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the queries with a right answer in the gallery; none without such."""
    if not judged:
        return {}
    means = mean_shares([one["first"] / one["of"] for one in judged])
    return {"judged": len(judged)} | means | {"by chance": statistics.mean(one["share"] for one in judged)}


def _facts(gallery: Gallery, command: str) -> dict[str, str]:
    """What a reader needs to judge a report, and to make it again."""
    versions = {"clipgs_lib": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ("torch", "open_clip_torch", "numpy")}
    return {
        "gallery": str(gallery.folder or "in memory"),
        "objects": plural(len(gallery), "object"),
        "encoder": gallery.encoder or "unknown",
        "teacher": gallery.teacher,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "machine": f"{platform.system()} {platform.machine()}, {plural(os.cpu_count() or 1, 'core')}",
        "written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        "command": command,
    }
