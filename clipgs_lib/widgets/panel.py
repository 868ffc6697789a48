"""What the explorer and the labelling grid share: a page of messages, and a still for later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets as t
from PIL import Image

from .still import encode_png, with_picture


class Panel(anywidget.AnyWidget):
    """A widget whose page sends messages; whatever goes wrong with one becomes a sentence on the page.

    What is shown travels as messages, not as traits, so that a saved notebook does not hold it: it holds a still.
    """

    _css = Path(__file__).parent / "widgets.css"

    theme = t.Enum(("auto", "light", "dark"), "auto").tag(sync=True)
    _info = t.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._receive)

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        """Do what a message of the page asks for, and reply; messages of unknown kinds are ignored."""
        raise NotImplementedError

    def picture(self) -> Image.Image:
        """What a saved notebook shows."""
        raise NotImplementedError

    def _receive(self, _widget: Any, content: Any, _buffers: list[Any]) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if not isinstance(kind, str):
            return
        try:
            self.handle(kind, content)
        except (Exception, KeyboardInterrupt) as error:  # encoders and readers may raise anything, and nobody sees it
            known = isinstance(error, ValueError | OSError | KeyError) and error.args
            words = error.args[0] if known and isinstance(error, KeyError) else error
            text = str(words) if known else f"{type(error).__name__}: {words}"
            text = "Stopped, as the kernel was interrupted" if isinstance(error, KeyboardInterrupt) else text
            self.send({"type": "say", "seq": content.get("seq"), "of": kind, "text": f"{text[:300]}.", "wrong": True})

    def still(self) -> bytes:
        """PNG of what is shown, at most 100 kB; what a saved notebook shows."""
        return encode_png(self.picture())

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return with_picture(super()._repr_mimebundle_(**kwargs), self, self.still(), self.live())

    def live(self) -> dict[str, Any]:
        """What an output holds beside the picture when pages are exported, so that they need no kernel; or nothing."""
        return {}
