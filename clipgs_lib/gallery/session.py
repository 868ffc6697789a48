"""What a person does with galleries: one state, the answer to it, and one function for each action.

Pages and notebooks call the same functions, so whatever a page shows a test and a script get without one.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ..files import write_text
from ..rendering.images import to_uint8
from ..settings import from_plain, read_file, to_plain
from ..splats import Splats
from ..teachers.preprocess import Picture, read_picture
from .gallery import Gallery
from .query import TEMPLATES, Answer, Hit, Query, Term, ask, check_templates, picture_term, row_term, text_term
from .storage import Space

if TYPE_CHECKING:
    from ..encoders.encoder import TokenEncoder
    from ..teachers import Teacher

MAX_UPLOAD = 20_000_000  # bytes of a picture's file
_SIDE = 448  # pixels to which pictures are shrunk; teachers see a few hundred
_KINDS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_HIDDEN = ("caption", "category", "kind", "origin", "piece", "file")  # fields that details do not list
_NEIGHBOURS = 6
_MAPPED = 16_384  # objects up to which t-SNE takes minutes, not hours


@dataclass(frozen=True)
class Part:
    """A part of a query, as plain values."""

    kind: Literal["text", "picture", "shape"]
    name: str  # words of a text, key of a shape, what a picture is called
    weight: float = 1.0  # negative for what is not to be there
    picture: str = ""  # of a picture: its file as base64


@dataclass(frozen=True)
class State:
    """All that decides what is shown."""

    parts: tuple[Part, ...] = ()
    more: tuple[str, ...] = ()  # keys of hits marked as right
    less: tuple[str, ...] = ()  # keys of hits marked as wrong
    index: str = ""  # name of the gallery; "" for the first
    compare: str = ""  # name of another one, whose hits stand beside; "" for none
    category: str = ""  # only objects of it, or whose category contains it when none is called so
    split: str = ""  # only objects of it
    among: tuple[str, ...] = ()  # only these keys; empty for all
    page: int = 0
    opened: str = ""  # key of the object that is looked at


class Session:
    """A search in one or several galleries of one teacher: a state, and the answer to it.

    Args:
        galleries: one, or several by name, such as the same objects embedded by several encoders.
        teacher: embeds texts and pictures.
        encoder: made the embeddings of one of the galleries; when it has tokens, `relevance` can say why its objects
            match.
        open_splats: key -> `Splats`; by default out of the set or file that the gallery was embedded from.
        per_page: hits on a page, ``1..60``.
        file: JSON that keeps the state: taken over when it was made for the same ``start``, and written at each change.
        start: words to begin with.
        templates: of texts, see `text_term`.

    Attributes:
        state: what decides what is shown; `change` makes the next one.
        answers: to the state, by name: of the gallery that is searched, then of the one beside; none without a query.
        teacher: of all galleries.

    Raises:
        GalleryError: for a gallery of another teacher.
        ValueError: when ``per_page`` is out of range, a template has no ``{}``, or ``start`` cannot be searched for.
    """

    def __init__(
        self,
        galleries: Gallery | Mapping[str, Gallery],
        teacher: Teacher,
        *,
        encoder: TokenEncoder | None = None,
        open_splats: Callable[[str], Splats] | None = None,
        per_page: int = 12,
        file: str | os.PathLike[str] | None = None,
        start: str = "",
        templates: Sequence[str] = TEMPLATES,
    ) -> None:
        if not 1 <= per_page <= 60:
            raise ValueError(f"per_page must lie in 1..60, got {per_page}")
        self.galleries = {"": galleries} if isinstance(galleries, Gallery) else dict(galleries)
        if not self.galleries:
            raise ValueError("galleries must name at least one, got none")
        for name, gallery in self.galleries.items():
            gallery.space.check(Space(teacher.identity, "", teacher.embed_dim), f"gallery {name!r}")
        self.per_page, self.encoder = per_page, encoder
        self._explained = encoder.identity if encoder is not None and hasattr(encoder, "relevance") else None
        self.state = State(index=next(iter(self.galleries)))
        self.answers: dict[str, Answer] = {}
        check_templates(templates)
        self.teacher, self._file, self._start, self._templates = teacher, file, start, tuple(templates)
        self._open_splats = open_splats
        self._term = lru_cache(256)(self._make_term)
        try:
            kept = read_file(file) if file is not None else {}
            resumed = kept.get("start") == start and self.change(**kept.get("state", {})) is not None
        except (ValueError, KeyError, TypeError, OSError):
            resumed = False  # there is none, it is damaged, or of other galleries: begin anew
        if not resumed:
            self.search(start)

    # ---- actions -----------------------------------------------------------------------------------------------

    def search(
        self, text: str = "", *, image: Picture | bytes | None = None, like: str = "", minus: str = ""
    ) -> list[Hit]:
        """Begin a new query.

        Args:
            text: any words.
            image: a picture, or the bytes of its file.
            like: key of an object.
            minus: words for what it is not to be; they weigh half.

        Returns:
            The hits of the first page; none without a query.

        Raises:
            ValueError: for a text that says nothing, or a picture that cannot be read.
            KeyError: when the gallery has no such object.
        """
        self.change(parts=query_parts(text, image=image, like=like, minus=minus), more=(), less=())
        return self.hits

    def ask(self, parts: Sequence[Part]) -> Answer:
        """Answer a query of the present gallery with as many hits as a page has; the state stays as it is.

        Raises:
            ValueError: for what `ask` and `text_term` refuse.
            KeyError: when the gallery has no such object.
        """
        return ask(self.gallery, self._query(self.state.index, parts), self.per_page)

    def change(self, **fields: Any) -> Answer | None:
        """Change fields of the state and ask again; a state that cannot be answered leaves the one before.

        A change of anything but the page goes back to the first page, and of what is asked for takes back the marks.
        An index is never compared with itself: when it becomes the one beside, the two change places.

        Returns:
            The answer, None without a query.

        Raises:
            ValueError: for a field that does not exist or fit, and for what `ask` and `text_term` refuse.
            KeyError: for a key or index that does not exist.
        """
        changed = to_plain(fields)
        state = from_plain(State, to_plain(self.state) | changed)
        asked = [[(part.kind, part.name) for part in one.parts] for one in (self.state, state)]
        if asked[0] != asked[1] and not changed.keys() & {"more", "less"}:
            state = replace(state, more=(), less=())
        if changed.keys() - {"page", "opened"} and "page" not in changed:
            state = replace(state, page=0)
        if state.compare == state.index:
            state = replace(state, compare=self.state.index if self.state.index != state.index else "")
        names = [state.index] + ([state.compare] if state.compare else [])
        for name in names:
            if name not in self.galleries:
                raise KeyError(f"index must be one of {', '.join(self.galleries)}, got {name!r}")
        masks = {name: self._allowed(state, name) for name in names}
        mask = masks[state.index]
        last = (int(mask.sum()) if mask is not None else len(self.galleries[state.index])) - 1
        state = replace(state, page=max(0, min(state.page, last // self.per_page)))
        answers = self.answers  # stand when only another object is looked at
        if replace(state, opened=self.state.opened) != self.state:
            given = {name: self._answer(state, name, mask) for name, mask in masks.items()}
            answers = {name: one for name, one in given.items() if one is not None}
        self.state, self.answers = state, answers
        if self._file is not None:
            write_text(self._file, json.dumps({"start": self._start, "state": to_plain(state)}))
        return self.answer

    def open(self, key: str) -> Splats:
        """The splats of an object, which is looked at from now on; as `splats`."""
        splats = self.splats(key)
        self.change(opened=key)
        return splats

    def splats(self, key: str) -> Splats:
        """The splats of an object; KeyError, or what reading them raises."""
        from .embedding import open_splats

        self.gallery.row(key)
        return self._open_splats(key) if self._open_splats else open_splats(self.gallery, key)

    def export(self, folder: str | os.PathLike[str]) -> Path:
        """Take the objects of the lasso, else the hits of the page, to a new folder; see `embedding.export_splats`."""
        from .embedding import export_splats

        return export_splats(self.gallery, self.state.among or [hit.key for hit in self.hits], folder, self.splats)

    # ---- what is to be seen ------------------------------------------------------------------------------------

    @property
    def gallery(self) -> Gallery:
        """The one that is searched."""
        return self.galleries[self.state.index]

    @property
    def answer(self) -> Answer | None:
        """To the state, of the gallery that is searched; None without a query."""
        return self.answers.get(self.state.index)

    @property
    def hits(self) -> list[Hit]:
        """Of the present page, best first."""
        return self.hits_of(self.state.index)

    def hits_of(self, index: str) -> list[Hit]:
        """Of the present page of one of the ``answers``, best first; none of another gallery."""
        return list(self.answers[index].hits[self.state.page * self.per_page :]) if index in self.answers else []

    @property
    def note(self) -> str:
        """How many hits there are of how many objects, in one line."""
        count = len(self.gallery)
        if self.answer is None:
            return f"{count:,} splats; no search yet"
        filtered = f" that the filter lets through, of {count:,}" if self.answer.rows < count else ""
        if not self.hits:
            return f"none of {count:,} splats passes the filter"
        both = {hit.key for hit in self.hits} & {hit.key for hit in self.hits_of(self.state.compare)}
        beside = f"; {len(both)} of them beside, too" if self.state.compare else ""
        return f"{self.hits[0].rank:,} to {self.hits[-1].rank:,} of {self.answer.rows:,} splats{filtered}{beside}"

    def facts(self, key: str) -> dict[str, str]:
        """What is known of an object beside caption and category, by name; not where its splats lie."""
        meta = self.gallery.describe([self.gallery.row(key)])[0]
        return {name: str(meta[name]) for name in meta if name not in _HIDDEN and str(meta[name])}

    def details(self, key: str) -> dict[str, Any]:
        """Of an object: its ``facts`` by name, and the ``neighbours``: rows and cosines of the most similar others."""
        row = self.gallery.row(key)
        near = self.gallery.search(self.gallery.take([row])[0], min(_NEIGHBOURS + 1, len(self.gallery)))
        pairs = zip(near.indices.tolist(), near.scores.tolist(), strict=True)
        return {"facts": self.facts(key), "neighbours": [pair for pair in pairs if pair[0] != row][:_NEIGHBOURS]}

    @cached_property
    def categories(self) -> list[str]:
        """All of the galleries, sorted."""
        return sorted({name for gallery in self.galleries.values() for name in gallery.categories if name})

    def positions(self, kind: str = "pca") -> Tensor:
        """Places ``[N, 2]`` of the objects on a map, in ``[-1, 1]``.

        The kind ``"pca"`` takes the two directions of most variance; ``"t-sne"`` (van der Maaten and Hinton 2008) keeps
        neighbours together, takes seconds for a thousand objects, and is remembered. ValueError for another kind, or
        t-SNE of fewer than 3 or more than 16,384 objects.
        """
        if kind == "t-sne":
            return _tsne(self.gallery)
        if kind != "pca":
            raise ValueError(f"a map must be pca or t-sne, got {kind!r}")
        rows = self.gallery.sample - self.gallery.sample.mean(dim=0)
        axes = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, [-1, -2]]  # [D, 2]
        axes = axes * axes.sum(dim=0).sign()
        places = (self.gallery.embeds.cpu() - self.gallery.sample.mean(dim=0)) @ axes
        return places / places.abs().amax(dim=0).clamp_min(1e-9)

    # ---- why ---------------------------------------------------------------------------------------------------

    @property
    def explains(self) -> bool:
        """Whether `relevance` knows why objects of the present gallery match: their encoder is here, and has tokens."""
        return self._explained is not None and self._explained == self.gallery.encoder

    def relevance(self, splats: Splats, term: int = 0) -> Tensor:
        """How much each gaussian of an object speaks for a term of the query, by occlusion of its patches.

        Args:
            splats: N gaussians of an object of the gallery.
            term: which, of ``answer.query.terms``.

        Returns:
            ``[N]``: what the cosine to the term loses without a patch, averaged over the patches that hold the
            gaussian; NaN for a gaussian in none.

        Raises:
            ValueError: when there is no such term, or the gallery was not made by an encoder with tokens that is here.
        """
        terms = self.answer.query.terms if self.answer else ()
        if not 0 <= term < len(terms):
            raise ValueError(f"term must be one of the {len(terms)} of the query, got {term}; search first")
        if self.encoder is None or not self.explains:
            raise ValueError("what matches can be said of objects embedded by a token encoder; choose that index")
        values, indices, mask = self.encoder.relevance(splats, terms[term].embeds)
        sums, counts = torch.zeros(len(splats)), torch.zeros(len(splats))
        for patch in mask.nonzero()[:, 0].tolist():
            rows = indices[patch].unique()
            sums[rows] += values[patch]
            counts[rows] += 1
        return sums / counts.masked_fill(counts == 0, torch.nan)

    # ---- how it is done ----------------------------------------------------------------------------------------

    def _answer(self, state: State, index: str, allowed: Tensor | None) -> Answer | None:
        """Of a gallery; marks that only another one has do not count there."""
        gallery = self.galleries[index]
        marks = ([key for key in keys if key in gallery or index == state.index] for keys in (state.more, state.less))
        query = self._query(index, state.parts).marked(gallery, *marks)
        rows = (state.page + 1) * self.per_page
        return ask(gallery, query, rows, where=allowed) if query.terms else None

    def _query(self, index: str, parts: Sequence[Part]) -> Query:
        given = [part for part in parts if part.name.strip() or part.picture]
        return Query(tuple(replace(self._term(index, replace(p, weight=1.0)), weight=p.weight) for p in given))

    def _make_term(self, index: str, part: Part) -> Term:
        if part.kind == "text":
            return text_term(self.teacher, part.name, templates=self._templates)
        if part.kind == "shape":
            return row_term(self.galleries[index], part.name)
        return picture_term(self.teacher, _as_image(base64.b64decode(part.picture)), name=part.name)

    def _allowed(self, state: State, index: str) -> Tensor | None:
        """Which rows of a gallery pass the filters and the lasso, None for all."""
        gallery = self.galleries[index]
        filters: list[str] = []
        if category := state.category.strip():
            filters.append(f"category{'=' if category in self.categories else '~'}{category}")
        filters += [f"split={state.split}"] if state.split else []
        mask = gallery.allowed(filters) if filters else None
        if not state.among:
            return mask
        among = torch.zeros(len(gallery), dtype=torch.bool)
        among[[gallery.row(key) for key in state.among if key in gallery or index == state.index]] = True
        return among if mask is None else mask & among


def query_parts(text: str = "", *, image: Picture | bytes | None = None, like: str = "", minus: str = "") -> list[Part]:
    """Parts of a query, see `Session.search`; ValueError for a picture that cannot be read."""
    parts = [Part("text", text)] if text.strip() else []
    if image is not None:
        name = Path(image).name if isinstance(image, str | os.PathLike) else "your picture"
        parts.append(Part("picture", name, 1.0, _as_base64(image)))
    parts += [Part("shape", like)] if like else []
    return parts + ([Part("text", minus, -0.5)] if minus.strip() else [])


@lru_cache(8)
def _tsne(gallery: Gallery) -> Tensor:
    from sklearn.manifold import TSNE

    if not 3 <= len(gallery) <= _MAPPED:
        raise ValueError(f"t-SNE must have 3 to {_MAPPED:,} objects, got {len(gallery):,}; choose PCA")
    perplexity = min(30.0, (len(gallery) - 1) / 3)
    tsne = TSNE(init="pca", metric="cosine", perplexity=perplexity, random_state=0)
    places = torch.from_numpy(tsne.fit_transform(gallery.embeds.cpu().numpy()))
    return places / places.abs().amax(dim=0)


def _as_base64(picture: Picture | bytes) -> str:
    stream = io.BytesIO()
    _as_image(picture).save(stream, "WEBP", quality=95)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _as_image(picture: Picture | bytes) -> Image.Image:
    """A picture, or the bytes of its file, as RGB of bearable size; ValueError with a sentence when it is none."""
    if isinstance(picture, bytes):
        if len(picture) > MAX_UPLOAD:
            most = f"a picture may have at most {MAX_UPLOAD // 10**6} MB"
            raise ValueError(f"{most}, got {len(picture) / 1e6:.1f}; shrink it")
        try:
            picture = Image.open(io.BytesIO(picture), formats=_KINDS)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            got = str(error)[:80] if picture else "an empty file"
            must = f"the picture must be an intact file of the kinds {', '.join(_KINDS)}"
            raise ValueError(f"{must}, got {got}; choose another") from None
    pixels = read_picture(picture)
    image = Image.fromarray(pixels.numpy() if pixels.dtype == torch.uint8 else to_uint8(pixels))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return image
