"""Files of queries, which answers to them are right, and how many of the hits are: a test of sense."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ..settings import from_plain, read_plain
from .gallery import Gallery
from .query import Query, ask, picture_term, text_term

if TYPE_CHECKING:
    from ..teachers import Teacher

FIRST = 5  # hits that precision looks at
_WAYS: dict[str, tuple[Literal["text", "picture"], ...]] = {
    "words": ("text",),
    "a picture": ("picture",),
    "both": ("text", "picture"),
}  # in which the test of sense asks


@dataclass(frozen=True)
class Question:
    """A query of a file."""

    text: str = ""  # any words
    image: str = ""  # a picture's file; relative to the file of queries
    like: str = ""  # key of an object of the gallery
    minus: str = ""  # words for what it is not to be; they weigh half
    right: tuple[str, ...] = ()  # words of categories, or keys, that are right answers; empty where not known
    photo: str = ""  # file of a photograph of a right answer, which the test of sense asks by


def read_questions(path: str | os.PathLike[str]) -> list[Question]:
    """Queries of a file.

    A ``.yaml``, ``.yml`` or ``.json`` holds a mapping of texts to the words of right categories or to other fields of
    `Question`, or a list of texts and of mappings with such fields. Of any other file each line is a text, but blank
    ones and ``# notes``.

    Raises:
        ValueError: when there is no query, an unknown field, or a value of another type.
        OSError: when it cannot be read.
    """
    path = Path(path)
    values: Any = lines_of(path) if path.suffix.lower() not in (".yaml", ".yml", ".json") else read_plain(path)
    if isinstance(values, Mapping):
        values = [
            (dict(more) if isinstance(more, Mapping) else {"right": more or []}) | {"text": text}
            for text, more in values.items()
        ]
    if not isinstance(values, list) or not values:
        got = type(values).__name__ if values else "nothing"
        raise ValueError(f"{path}: must hold at least one query, got {got}; write a text on each line, or see --help")
    questions: list[Question] = []
    for number, value in enumerate(values, start=1):
        try:
            plain = value if isinstance(value, Mapping) else {"text": value}
            question = from_plain(Question, plain)
            if not (question.text.strip() or question.image or question.like):
                raise ValueError("a query must have a text, an image or a key to be like, got none of them")
        except ValueError as error:
            raise ValueError(f"{path}: query {number}: {str(error)[:300]}") from None
        image = str(path.parent / question.image) if question.image else ""
        questions.append(replace(question, image=image))
    return questions


def lines_of(path: str | os.PathLike[str]) -> list[str]:
    """Lines of a text file in UTF-8 that are neither blank nor begin with ``#``; ValueError when it has none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be text in UTF-8, got {error.reason}; save it as such") from None
    texts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not texts:
        raise ValueError(f"{path}: must hold at least one line that is no # note, got none; write a text on each line")
    return texts


def right_rows(gallery: Gallery, words: Sequence[str]) -> Tensor:
    """Rows ``[N]`` bool whose category holds one of the words as whole words, in any case, or whose key is one."""
    names = [word.strip() for word in words if word.strip()]
    pattern = re.compile(rf"\b(?:{'|'.join(re.escape(name.casefold()) for name in names) or '(?!)'})\b")
    pairs = zip(gallery.keys, gallery.categories, strict=True)
    return torch.tensor([key in names or bool(pattern.search(category.casefold())) for key, category in pairs])


def precision_of_queries(
    gallery: Gallery,
    teacher: Teacher,
    questions: Sequence[Question],
    k: int = FIRST,
    kinds: Sequence[Literal["text", "picture"]] = ("text",),
    photos: Path | None = None,
) -> dict[str, float]:
    """How many of the first hits of each query are right, by the categories of the gallery: a test of sense.

    Args:
        gallery: whose descriptions have a ``category``.
        teacher: of the gallery.
        questions: each with a text and the words of right categories, see `right_rows`.
        k: hits looked at; of a query with fewer right rows, as many as there are.
        kinds: what is asked by: the text, a picture, or both. The picture is the question's photograph, else that of
            the first right row, which then is no answer.
        photos: folder of the photographs; None to do without.

    Returns:
        text -> share of right hits in ``[0, 1]``; texts without a right row in the gallery are left out.

    Raises:
        ValueError: when a photograph is not in the folder, or cannot be read.
    """
    shares = {}
    for question in questions:
        right, allowed = right_rows(gallery, question.right), torch.ones(len(gallery), dtype=torch.bool)
        terms = [text_term(teacher, question.text)] if "text" in kinds else []
        if "picture" in kinds and right.any():
            picture: Any = photos / question.photo if photos is not None and question.photo else None
            if picture is None:
                example = int(right.nonzero()[0, 0])
                allowed[example] = right[example] = False
                picture = Image.open(io.BytesIO(gallery.thumbnail(example)))
            terms.append(picture_term(teacher, picture))
        if count := min(k, int(right.sum())):
            hits = ask(gallery, Query(tuple(terms)), count, where=allowed).hits
            shares[question.text] = sum(bool(right[hit.row]) for hit in hits) / count
    return shares


def sense_rows(
    galleries: Mapping[str, Gallery], teacher: Teacher, questions: Sequence[Question], photos: Path | None = None
) -> list[dict[str, Any]]:
    """The test of sense as a table: for each gallery, by words, by a picture, and by both (`precision_of_queries`).

    Returns:
        Rows of ``index``, ``asked by``, ``questions`` (that have an answer), ``photographs`` (how many of them were
        asked by one), ``precision@5`` and ``any right``, shares.
    """
    rows, pictured = [], {one.text for one in questions if one.photo and photos is not None}
    for name, gallery in galleries.items():
        for way, kinds in _WAYS.items():
            shares = precision_of_queries(gallery, teacher, questions, kinds=kinds, photos=photos)
            asked = {"photographs": len(pictured & set(shares)) if "picture" in kinds else 0}
            row = {"index": name, "asked by": way, "questions": len(shares)} | asked
            rows.append(row | mean_shares(list(shares.values())))
    return rows


def mean_shares(shares: Sequence[float]) -> dict[str, float]:
    """Of the shares of right hits of queries: their mean, and how many queries have any; 0 without queries."""
    count = max(len(shares), 1)
    return {"precision@5": sum(shares) / count, "any right": sum(share > 0 for share in shares) / count}
