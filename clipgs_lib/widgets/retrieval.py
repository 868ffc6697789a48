"""`RetrievalExplorer`: search a gallery of splats by words and pictures, and open what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import torch
import traitlets as t
from torch import Tensor

from ..gallery import Gallery, combine
from ..splats import Splats
from .retrieval_pictures import MAX_BYTES, check_thumbnails, decode_picture, sheet, thumbnail
from .splat_view import SplatView
from .still import page_script, with_picture

MAX_HITS = 48
MAX_TEXT = 2_000  # characters
_FOLDER = Path(__file__).parent


class RetrievalPanel(anywidget.AnyWidget):
    """Search field and result grid on the page; `RetrievalExplorer` gives it its meaning.

    Messages from the page: ``{"type": "load"}`` (a page opened), ``{"type": "search", "text"}`` with the bytes of a
    picture or none, ``{"type": "open", "row"}``. Messages to it: ``{"type": "hits", "note", "hits"}`` with a picture
    for each hit, ``{"type": "say", "text"}``. Hits are no traits, so that a saved notebook does not hold them.
    """

    _esm = page_script("retrieval")
    _css = _FOLDER / "widgets.css"

    theme = t.Enum(("auto", "light", "dark"), "auto").tag(sync=True)
    _info = t.Dict().tag(sync=True)


class RetrievalExplorer(ipywidgets.VBox):
    """Type a text or choose a picture, see the best splats as pictures with scores, click one to open it.

    Enter searches; a text and a picture together search for both. Everything the page does goes through `search` and
    `show`, which work without a page.

    Args:
        gallery: embeddings of the splats; ``meta["caption"]`` is what a hit is called, else its key.
        encode_text: list of one text -> ``[1, D]``, such as ``teacher.encode_text``.
        encode_image: uint8 ``[1, H, W, 3]`` -> ``[1, D]``, such as ``teacher.encode_image``; None for no pictures.
        thumbnails: one per row of the gallery: PNG, JPEG or WebP bytes, or uint8 ``[H, W, 3]``.
        open_splats: key -> `Splats`; None when they cannot be opened.
        k: how many hits, ``1..48``; a smaller gallery gives all it has.
        teacher: identity of the teacher behind ``encode_text`` and ``encode_image``; another than the gallery's is
            refused.
        theme: ``"auto"`` (follows the notebook), ``"light"`` or ``"dark"``.

    Attributes:
        results: what `search` returned last.
        view: the `SplatView` of what `show` opened last, or None.

    Raises:
        ValueError: when the thumbnails, ``k`` or the teacher do not fit.
    """

    def __init__(
        self,
        gallery: Gallery,
        *,
        encode_text: Callable[[Sequence[str]], Tensor],
        encode_image: Callable[[Tensor], Tensor] | None = None,
        thumbnails: Sequence[bytes | np.ndarray],
        open_splats: Callable[[str], Splats] | None = None,
        k: int = 12,
        teacher: str | None = None,
        theme: str = "auto",
    ) -> None:
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k must lie in 1..{MAX_HITS}, got {k}")
        if teacher is not None and teacher != gallery.teacher:
            must = f"the teacher must be {gallery.teacher}, in whose space the gallery lies"
            raise ValueError(f"{must}, got {teacher}; load that teacher, or embed the splats again with yours")
        self.gallery, self.k = gallery, k
        self.results: list[dict[str, Any]] = []
        self.view: SplatView | None = None
        self._encode_text, self._encode_image, self._open_splats = encode_text, encode_image, open_splats
        self._thumbnails = check_thumbnails(thumbnails, len(gallery))
        self._note = f"{len(gallery):,} splats; no search yet"
        info = {"pictures": encode_image is not None, "opens": open_splats is not None, "max_bytes": MAX_BYTES}
        self.panel = RetrievalPanel(theme=theme, _info=info | {"note": self._note})
        self._slot = ipywidgets.VBox([])
        super().__init__([self.panel, self._slot])
        self.panel.on_msg(self._receive)

    # ---- what a person does ------------------------------------------------------------------------------------

    def search(
        self, text: str = "", image: bytes | np.ndarray | None = None, k: int | None = None
    ) -> list[dict[str, Any]]:
        """Find the best splats for a text, a picture, or both together, and show them.

        Args:
            text: any words; empty when a picture is given alone.
            image: a PNG, JPEG or WebP file, or uint8 ``[H, W, 3]``.
            k: how many; None for the explorer's own.

        Returns:
            Best first, dicts of ``rank`` (from 1), ``key``, ``row``, ``score`` (cosine), ``caption``.

        Raises:
            ValueError: with a sentence for a person, when there is nothing to search for or a picture cannot be read.
        """
        k = self.k if k is None else k
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k must lie in 1..{MAX_HITS}, got {k}")
        query, note = self._query(text, image)
        hits = self.gallery.search(query, min(k, len(self.gallery)))
        self.results = [
            {"rank": rank, "key": key, "row": row, "score": score, "caption": self._caption(row)}
            for rank, (key, row, score) in enumerate(
                zip(hits.keys, hits.indices.tolist(), hits.scores.tolist(), strict=True), start=1
            )
        ]
        self._note = f"{note}: the best {len(self.results)} of {len(self.gallery):,}"
        self._send_hits()
        return [dict(one) for one in self.results]

    def show(self, key: str) -> SplatView:
        """Open a splat below the results, as a click on its picture does.

        Raises:
            KeyError: when the gallery has no such key.
            ValueError: when the explorer was made without ``open_splats``.
        """
        row = self.gallery.row(key)
        if self._open_splats is None:
            raise ValueError("splats cannot be opened here; make the explorer with open_splats=")
        view = SplatView({self._caption(row): self._open_splats(key)}, theme=self.panel.theme)
        if self.view is not None:
            self.view.close()
        self.view = view
        self._slot.children = [view]
        return view

    # ---- how it is done ----------------------------------------------------------------------------------------

    def _query(self, text: str, image: bytes | np.ndarray | None) -> tuple[Tensor, str]:
        """The direction ``[D]`` to search in, and what it is called."""
        words = " ".join(str(text).split())
        if not words and image is None:
            todo = "type a few words, or choose a picture" if self._encode_image else "type a few words"
            raise ValueError(f"there is nothing to search for; {todo}")
        if len(words) > MAX_TEXT:
            raise ValueError(f"a text may have at most {MAX_TEXT:,} characters, got {len(words):,}; shorten it")
        parts, names = [], []
        if words:
            parts.append(_one_row(self._encode_text([words]), "encode_text"))
            names.append(f"“{words}”" if len(words) <= 60 else f"“{words[:59]}…”")
        if image is not None:
            if self._encode_image is None:
                raise ValueError("pictures cannot be searched for here; make the explorer with encode_image=")
            pixels = image if isinstance(image, np.ndarray) else decode_picture(bytes(image))
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
                raise ValueError(f"image must be a file or uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
            batch = torch.from_numpy(np.array(pixels))[None]  # [1, H, W, 3]
            parts.append(_one_row(self._encode_image(batch), "encode_image"))
            names.append("your picture")
        return combine(*parts), " and ".join(names)

    def _caption(self, row: int) -> str:
        caption = self.gallery.meta[row].get("caption")
        return caption if isinstance(caption, str) and caption.strip() else self.gallery.keys[row]

    def _send_hits(self) -> None:
        pictures = [thumbnail(self._thumbnails[one["row"]]) for one in self.results]
        hits = [one | {"kind": picture.kind} for one, picture in zip(self.results, pictures, strict=True)]
        self.panel.send({"type": "hits", "note": self._note, "hits": hits}, buffers=[one.data for one in pictures])

    def _receive(self, _widget: Any, content: Any, buffers: list[Any]) -> None:
        """Do what the page asks for; whatever goes wrong becomes a sentence there."""
        kind = content.get("type") if isinstance(content, dict) else None
        try:
            if kind == "load":
                self._send_hits()
            elif kind == "search":
                self.search(str(content.get("text", "")), bytes(buffers[0]) if buffers else None)
            elif kind == "open":
                self.show(self.gallery.keys[int(content["row"])])
                self.panel.send({"type": "say", "text": f"{self._note}; opened {self._caption(int(content['row']))}"})
        except ValueError as error:
            self.panel.send({"type": "say", "text": f"{error}.", "wrong": True})
        except (
            Exception
        ) as error:  # encoders and open_splats may raise anything, and nobody sees a callback's traceback
            words = f"{type(error).__name__}: {error}"[:300]
            self.panel.send({"type": "say", "text": f"That did not work. {words}", "wrong": True})

    # ---- without a page ----------------------------------------------------------------------------------------

    def still(self) -> bytes:
        """PNG of the present results, at most 100 kB; what a saved notebook shows."""
        hits = [
            (thumbnail(self._thumbnails[one["row"]]), f"{one['caption']}\n{one['score']:.3f}") for one in self.results
        ]
        return sheet(self._note, hits)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return with_picture(super()._repr_mimebundle_(**kwargs), self, self.still())

    def __repr__(self) -> str:
        lines = [f"{one['rank']:3d}. {one['score']:.3f}  {one['caption'][:80]}" for one in self.results]
        return "\n".join([f"RetrievalExplorer({self._note})", *lines])


def _one_row(embeds: Any, name: str) -> Tensor:
    if not isinstance(embeds, Tensor) or embeds.ndim != 2 or len(embeds) != 1:
        got = list(embeds.shape) if isinstance(embeds, Tensor) else type(embeds).__name__
        raise ValueError(f"{name} must return a tensor [1, D] for one input, got {got}")
    return embeds[0].detach().float().cpu()
