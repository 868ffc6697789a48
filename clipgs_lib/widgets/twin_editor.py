"""`TwinEditor`: take other shapes for the objects of a twin, move them, and see it solved again beside the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets
from PIL import Image

from ..applications.scene_twin.twin import Pool, Twin, crop
from ..rendering.images import to_uint8
from .splat_view import SplatView
from .still import encode_png, with_picture


class TwinEditor(ipywidgets.VBox):
    """A twin in a `SplatView`, the crop of one object beside it, its candidates, and fields to move it.

    What the buttons do goes through `swap` and `move`, which work without a page.

    Args:
        twin: to begin with.
        pool: which holds its shapes.
        height: of the view, CSS pixels.

    Attributes:
        twin: as it is now.
        view: the `SplatView` of its splats.
    """

    def __init__(self, twin: Twin, pool: Pool, *, height: int = 420) -> None:
        self.twin, self._pool, self._height = twin, pool, height
        self._objects = {one.number: one for one in twin.scene.objects}
        names = [(f"{number} {one.name}", number) for number, one in self._objects.items()]
        self._object = ipywidgets.Dropdown(options=names, description="object")
        self._shape = ipywidgets.Dropdown(description="shape")
        self._steps = [ipywidgets.FloatText(0, description=word) for word in ("right, m", "forward, m", "turn, °")]
        self._crop, self._text = ipywidgets.Image(width=160), ipywidgets.Label()
        buttons = [ipywidgets.Button(description=word) for word in ("Take this shape", "Move")]
        buttons[0].on_click(lambda _: self._try(self.swap, self._object.value, self._shape.value))
        buttons[1].on_click(lambda _: self._try(self.move, self._object.value, *(each.value for each in self._steps)))
        self._object.observe(lambda _: self._look(), "value")
        fields = [self._crop, self._object, self._shape, buttons[0], *self._steps, buttons[1]]
        self._row = ipywidgets.HBox([ipywidgets.VBox(fields, layout={"flex": "0 0 auto"})])  # whole beside the view
        super().__init__([self._row, self._text])
        self._look()
        self._show(twin)

    def swap(self, number: int, key: str) -> Twin:
        """Take another shape for an object, and set all straight; ValueError for what is not there."""
        return self._show(self.twin.changed(self._pool, {number: key}))

    def move(self, number: int, right: float = 0.0, forward: float = 0.0, turn: float = 0.0) -> Twin:
        """Move an object by metres along +x and +z and degrees about +y, and set all straight."""
        pose = self.twin.poses[number]
        x, y, z = pose.position
        pose = replace(pose, position=(x + right, y, z + forward), yaw=pose.yaw + turn)
        return self._show(self.twin.changed(self._pool, moved={number: pose}))

    def _show(self, twin: Twin) -> Twin:
        self.twin = twin
        former, self.view = self._row.children[1:], SplatView(twin.splats(), height=self._height)
        self._row.children = [self._row.children[0], self.view]
        for each in former:
            each.close()
        self._text.value = f"overlaps: {twin.graph()['overlaps'] or 'none'}"
        return twin

    def _look(self) -> None:
        """Show the crop and the candidates of the object that is chosen."""
        one = self._objects[self._object.value]
        self._crop.value = encode_png(Image.fromarray(crop(*self.twin.scene.closest(one))))
        candidates, chosen = self.twin.matches[one.number], self.twin.chosen[one.number]
        self._shape.options = [(f"{match.category} {match.score:.2f}", match.key) for match in candidates]
        self._shape.index = next((i for i, match in enumerate(candidates) if match.key == chosen), None)

    def _try(self, action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except ValueError as error:  # nobody sees a callback's traceback
            self._text.value = f"{error}."

    def still(self) -> bytes:
        """PNG of the picture and the twin before and after, at most 100 kB; what a saved notebook shows."""
        return encode_png(Image.fromarray(to_uint8(self.twin.picture())))

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return with_picture(super()._repr_mimebundle_(**kwargs), self, self.still())

    def __repr__(self) -> str:
        return f"TwinEditor({self.twin.scene.name!r}: {self._text.value})"
