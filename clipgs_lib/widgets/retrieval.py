"""`RetrievalExplorer`: search galleries of splats by words, pictures and shapes, open what fits, and see why."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..gallery import (
    Answer,
    Gallery,
    Hit,
    Question,
    Session,
    answers_sheet,
    picture_sheet,
    picture_strip,
    zero_shot_labels,
)
from ..settings import to_plain
from ..teachers import Teacher
from .answers import answers_data
from .live import ASKED, MIME, page_parts
from .panel import Panel
from .splat_view import SplatView
from .still import page_script

WIDTH, HEIGHT = 380, 300  # of the opened splat, CSS pixels


class RetrievalExplorer(Panel):
    """Type, drop a picture, mix both with sliders; see the best splats, open one beside them, and see why it matched.

    Everything the page does goes through `search`, `change`, `show` and `explain`, which work without a page, and all
    that decides what is shown is ``session.state``. With ``file=`` it outlives the cell and the kernel.

    Messages from the page carry a number ``seq`` that the reply repeats, so that an old reply never replaces a newer
    one: ``load``; ``change`` with fields of the `State`; ``lasso`` with rows; ``open`` with a row; ``why`` with a term;
    ``map`` with a kind. Messages to it: ``show`` (state, a column of hits for each index that answers, and a strip of
    pictures for each), ``details``, ``map``, ``say``.

    Args:
        galleries: one, or several by name, of the same teacher.
        teacher: embeds words and pictures.
        examples: queries to click.
        labels: to choose one for each hit from, by its zero-shot classification.
        theme: ``"auto"`` (follows the notebook), ``"light"`` or ``"dark"``.
        **options: of the `Session`: ``encoder``, ``open_splats``, ``per_page``, ``file``, ``start``,
            ``templates``.

    Attributes:
        session: the search.
        view: the `SplatView` of what `show` opened last, or None.

    Raises:
        GalleryError: for a gallery of another teacher.
        ValueError: when an option does not fit.
    """

    _esm = page_script("panel", "retrieval_map", "retrieval")

    def __init__(
        self,
        galleries: Gallery | Mapping[str, Gallery],
        teacher: Teacher,
        *,
        examples: Sequence[str] = (),
        labels: Sequence[str] = (),
        theme: str = "auto",
        **options: Any,
    ) -> None:
        self.session = Session(galleries, teacher, **options)
        self.view: SplatView | None = None
        self.labels = labels
        metas = [meta for gallery in self.session.galleries.values() for meta in gallery.meta]
        info = {
            "indexes": list(self.session.galleries),
            "examples": list(examples),
            "categories": self.session.categories,
            "splits": sorted({str(meta["split"]) for meta in metas if meta.get("split")}),
        }
        super().__init__(theme=theme, _info=info)

    # ---- what a person does ------------------------------------------------------------------------------------

    def search(self, text: str = "", **query: Any) -> list[Hit]:
        """Begin a new query and show its hits; see `Session.search`."""
        self.session.search(text, **query)
        self._send_answer()
        return self.session.hits

    def change(self, **fields: Any) -> Answer | None:
        """Change weights, marks, filters, page, index or the one beside, and show what comes; see `Session.change`."""
        self.session.change(**fields)
        self._send_answer()
        return self.session.answer

    def show(self, key: str, seq: int | None = None) -> SplatView:
        """Open an object beside the hits, as a click on its picture does.

        Raises:
            KeyError: when the gallery has no such key.
            GalleryError: when its splats cannot be read.
        """
        splats = self.session.open(key)
        name = self.session.gallery.captions([self.session.gallery.row(key)])[0]
        view = SplatView({name: splats}, width=WIDTH, height=HEIGHT, theme=self.theme)
        if self.view is not None:
            self.view.close()
        self.view = view
        self._send_details(seq)
        return view

    def explain(self, term: int | None = 0) -> np.ndarray | None:
        """Paint on the opened object how much each gaussian speaks for a term of the query; None takes it back.

        Returns:
            ``[N]``, see `Session.relevance`.

        Raises:
            ValueError: when nothing is open, or as `Session.relevance`.
        """
        if self.view is None:
            raise ValueError("an object must be open to say why it matched; click one")
        if term is None or self.session.answer is None:
            self.view.set_values(None)
            return None
        (splats,) = self.view._splats.values()
        values = self.session.relevance(splats, term).numpy()
        most = float(np.nanquantile(np.abs(values), 0.98)) or 1.0
        name = self.session.answer.query.terms[term].name[:40]
        self.view.set_values(values, label=f"speaks for “{name}”", value_range=(-most, most))
        return values

    # ---- how it is done ----------------------------------------------------------------------------------------

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        """Do what the page asks for; see `Panel.handle`."""
        seq, keys = content.get("seq"), self.session.gallery.keys
        if kind == "load":
            self._send_answer(seq)
            if self.view is not None:
                self._send_details()
        elif kind == "change":
            self.session.change(**content["changes"])
            self._send_answer(seq)
        elif kind == "lasso":
            self.session.change(among=[keys[int(row)] for row in content["rows"]])
            self._send_answer(seq)
        elif kind == "open":
            self.show(keys[int(content["row"])], seq)
        elif kind == "why":
            self.explain(content["term"])
            self.send({"type": "say", "seq": seq, "text": self.session.note})
        elif kind == "map":
            self.send(
                {"type": "map"},
                buffers=[self.session.positions(content.get("kind", "pca")).numpy().astype("<f4").tobytes()],
            )

    def _card(self, row: int, score: float) -> dict[str, Any]:
        return {"row": row, "score": score} | self.session.gallery.card(row)

    def _cards(self, pairs: Sequence[tuple[int, float]]) -> tuple[list[dict[str, Any]], bytes]:
        """What the page shows of rows and their scores, and their pictures."""
        strip = picture_strip([self.session.gallery.thumbnail(row) for row, _ in pairs])
        return [self._card(*pair) for pair in pairs], strip

    def _send_answer(self, seq: int | None = None) -> None:
        session, answer = self.session, self.session.answer
        columns, strips = zip(*(self._column(name) for name in session.answers or [session.state.index]), strict=True)
        terms = answer.query.terms if answer else ()
        content = {
            "type": "show",
            "seq": seq,
            "state": to_plain(session.state),
            "note": session.note,
            "terms": [{"name": term.name, "weight": term.weight} for term in terms],
            "thumbs": {part.name: self._thumb(part.name) for part in session.state.parts if part.kind == "shape"},
            "columns": columns,
            "pages": -(-answer.rows // session.per_page) if answer else 0,
            "explains": session.explains,
        }
        scores = b"" if answer is None else answer.background.numpy().astype("<f4").tobytes()
        self.send(content, buffers=[*strips, scores])

    def _column(self, index: str) -> tuple[dict[str, Any], bytes]:
        """Hits of an index, and their pictures on a strip; their rows are those of the gallery that is searched."""
        session, gallery, here = self.session, self.session.galleries[index], self.session.gallery
        hits, answer = session.hits_of(index), session.answers.get(index)
        ranks = [{hit.key: hit.rank for hit in other.hits} for name, other in session.answers.items() if name != index]
        cards = [
            gallery.card(hit.row) | {"row": here.row(hit.key) if hit.key in here else -1, "score": hit.score}
            | {"shares": hit.contributions, "beside": [rank.get(hit.key, 0) for rank in ranks]}
            for hit in hits
        ]  # fmt: skip
        if self.labels and hits:
            names = zero_shot_labels(gallery, session.teacher, self.labels, rows=[hit.row for hit in hits])[0]
            cards = [card | {"label": name} for card, name in zip(cards, names, strict=True)]
        fits = answer is None or not answer.hits or answer.fits
        return {"index": index, "fits": fits, "hits": cards}, picture_strip([gallery.thumbnail(h.row) for h in hits])

    def _thumb(self, key: str) -> list[str]:
        """A shape as the query bar shows it: what it is called, and its picture as base64."""
        row = self.session.gallery.row(key)
        picture = base64.b64encode(self.session.gallery.thumbnail(row)).decode("ascii")
        return [self.session.gallery.captions([row])[0], picture]

    def _send_details(self, seq: int | None = None) -> None:
        key = self.session.state.opened
        details = self.session.details(key)
        cards, pictures = self._cards(details["neighbours"])
        opened = self._card(self.session.gallery.row(key), 1.0)
        content = {"type": "details", "seq": seq, "opened": opened, "facts": details["facts"], "neighbours": cards}
        self.send(content | {"view": self.view.model_id if self.view else ""}, buffers=[pictures])

    # ---- without a page ----------------------------------------------------------------------------------------

    def picture(self) -> Image.Image:
        """The present results; see `Panel.picture`."""
        session, answers = self.session, self.session.answers
        if not answers:
            return picture_sheet(session.note, [])
        return answers_sheet({name: (session.galleries[name], answer) for name, answer in answers.items()})

    def live(self) -> dict[str, Any]:
        """The answers to what is typed and to the examples, for pages without a kernel; see `SplatView.live`."""
        typed = [part.name for part in self.session.state.parts if part.kind == "text" and part.name.strip()]
        questions = [Question(text) for text in dict.fromkeys([*typed[:1], *self._info["examples"]])]
        if not questions or not os.environ.get(ASKED):
            return {}
        return {MIME: page_parts(SplatView) | answers_data(self.session, questions, labels=self.labels)}

    def __repr__(self) -> str:
        lines = [f"{hit.rank:3d}. {hit.score:.2f}  {hit.caption[:80]}" for hit in self.session.hits]
        return "\n".join([f"RetrievalExplorer({self.session.note})", *lines])
