"""`LabelGrid`: a page of thumbnails that a person answers with yes, no or skip, by the keyboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..applications.curation import Curation
from ..gallery import picture_sheet, picture_strip
from .panel import Panel
from .still import page_script

MAX_PAGE = 60


class LabelGrid(Panel):
    """Label the objects that a curation asks for: y, n, s(kip), u(ndo), arrows, and Enter for the next page.

    Every answer is saved before the next one is taken. What the page does goes through `answer`, `undo` and
    `next_page`, which work without a page. Messages from the page: ``load``, ``answer`` with ``answer`` and ``key``,
    ``undo``, ``next``. Messages to it: ``page`` with ``cells``, ``note``, ``at`` and a strip of pictures, ``state``
    with ``answers``, ``note``, ``at``, and ``say`` with ``text``.

    Args:
        curation: what is labelled, in which file, and the ranking that chooses the pages.
        thumbnails: key -> PNG, JPEG or WebP bytes, or uint8 ``[H, W, 3]``.
        captions: key -> what an object is called on the page; its key where there is none.
        count: objects on a page, ``1..60``.
        theme: ``"auto"`` (follows the notebook), ``"light"`` or ``"dark"``.

    Attributes:
        page: keys of the objects shown.
        at: place of the one that is answered next.

    Raises:
        ValueError: when ``count`` is out of range.
    """

    _esm = page_script("panel", "label_grid")

    def __init__(
        self,
        curation: Curation,
        thumbnails: Callable[[str], bytes | np.ndarray],
        captions: Mapping[str, str] | None = None,
        *,
        count: int = 12,
        theme: str = "auto",
    ) -> None:
        if not 1 <= count <= MAX_PAGE:
            raise ValueError(f"count must lie in 1..{MAX_PAGE}, got {count}")
        self.curation, self.count, self.at = curation, count, 0
        self._thumbnails, self._captions = thumbnails, captions or {}
        super().__init__(theme=theme, _info={"positives": curation.positives})
        self.next_page()

    # ---- what a person does ------------------------------------------------------------------------------------

    def answer(self, answer: Literal["yes", "no", "skip"], key: str = "") -> None:
        """Save an answer about an object of the page, the one at the cursor when none is named, and go on behind it.

        Raises:
            ValueError: for another answer, or an object that is not on the page.
            OSError: when it cannot be saved.
        """
        key = key or (self.page[self.at] if self.page else "")
        if key not in self.page:
            raise ValueError(f"the object must be on the page, got {key!r}; ask for the next page")
        self.curation.label(key, answer)
        self.at = min(self.page.index(key) + 1, len(self.page) - 1)
        self._send_state()

    def undo(self) -> None:
        """Take back the last answer and put the cursor there; an object of an earlier page comes back to this one."""
        stroke = self.curation.undo()
        if stroke is None:
            return self.send({"type": "say", "text": "There is nothing to take back.", "wrong": False})
        if stroke.key in self.page:
            self.at = self.page.index(stroke.key)
            return self._send_state()
        self.page.insert(0, stroke.key)
        self.at = 0
        return self._send_page()

    def next_page(self) -> list[str]:
        """Refit to all answers, also those of other windows, and show what to answer next; returns the keys."""
        self.curation.refit()
        self.page, self.at = self.curation.ask(self.count), 0
        self._send_page()
        return list(self.page)

    # ---- how it is done ----------------------------------------------------------------------------------------

    @property
    def note(self) -> str:
        """Counts, and how good the ranking of the last refit is, in one line."""
        counts, ranking = self.curation.counts(), self.curation.ranking
        done = f"{counts['yes']} yes, {counts['no']} no, {counts['skip']} skipped of {len(self.curation.keys):,}"
        if ranking is None:
            return f"{done}; the text ranks this page"
        ap = ranking.ap
        return f"{done}; AP {ap.value:.2f} [{ap.low:.2f}, {ap.high:.2f}] on labels held out"

    def _state(self) -> dict[str, Any]:
        answers = self.curation.answers()
        answered = [answers[key].answer if key in answers else "" for key in self.page]
        return {"answers": answered, "at": self.at, "note": self.note}

    def _send_state(self) -> None:
        self.send({"type": "state"} | self._state())

    def _send_page(self) -> None:
        cells = [{"key": key, "caption": self._captions.get(key, key)} for key in self.page]
        pictures = picture_strip([self._thumbnails(key) for key in self.page])
        self.send({"type": "page", "cells": cells} | self._state(), buffers=[pictures])

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        """Do what the page asks for; see `Panel.handle`."""
        if kind == "load":
            self._send_page()
        elif kind == "answer":
            answer: Any = content.get("answer")
            self.answer(answer, str(content.get("key") or ""))
        elif kind == "undo":
            self.undo()
        elif kind == "next":
            self.next_page()

    def picture(self) -> Image.Image:
        """The page and its answers; see `Panel.picture`."""
        answered = self._state()["answers"]
        names = [f"{self._captions.get(key, key)}\n{said}" for key, said in zip(self.page, answered, strict=True)]
        tiles = list(zip(map(self._thumbnails, self.page), names, strict=True))
        return picture_sheet(f"{self.curation.positives}: {self.note}", tiles)

    def __repr__(self) -> str:
        return f"LabelGrid({self.curation.positives!r}: {self.note})"
