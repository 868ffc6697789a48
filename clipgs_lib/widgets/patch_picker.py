"""`PatchPicker`: click a gaussian, see the patch that it belongs to and the token that the patch becomes."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np

from ..plots import patch_rows
from ..splats import Splats
from ..tokenizer import Patches
from .colormap import red_colormap
from .splat_view import SplatView
from .still import with_picture

HINT = "Click a gaussian to see its patch; Esc goes back to the whole."


class PatchPicker(ipywidgets.VBox):
    """A `SplatView` in which a click shows a patch: its gaussians red, darkest at the centre, the rest faded.

    Args:
        splats: the splat as it was given to the tokenizer.
        patches: of this one splat, from `tokenizer.patchify` (or an encoder's `Tokens`, which have the same names).
        **view: options of `SplatView`.

    Attributes:
        view: the `SplatView`.
        picked: what `pick` returned last, None when nothing is picked.

    Raises:
        ValueError: when the patches are not those of this splat.
    """

    def __init__(self, splats: Splats, patches: Patches, **view: Any) -> None:
        self._splats = splats.detach().to("cpu")
        self._patches = patch_rows(self._splats, patches.indices, patches.mask)
        self.view = SplatView(splats, **view)
        self.picked: dict[str, Any] | None = None
        self._text = ipywidgets.HTML(HINT)
        super().__init__([self.view, self._text])
        self.view.observe(self._clicked, "selected")

    def pick(self, index: int) -> dict[str, Any]:
        """Show the patch of a gaussian, as a click on it does.

        Of several patches that hold it, the one with the nearest centre is shown; if none does, the one whose centre
        is the nearest of all.

        Args:
            index: row of the gaussian in the splats as passed.

        Returns:
            ``gaussian`` (its row), ``token`` (number of the patch among the G tokens), ``inside`` (whether the patch
            holds the gaussian), ``tokens`` (all patches that hold it), ``center`` ``[3]`` in scene units,
            ``center_gaussian`` (its row), ``size`` (different gaussians in the patch), ``radius`` and ``distance``
            (of the farthest of them and of this one from the centre, scene units).

        Raises:
            IndexError: when there is no such gaussian.
            ValueError: when its position is not finite.
        """
        picked = self._describe(int(index))
        self.picked = picked
        patch = int(np.flatnonzero(self._patches.tokens == picked["token"])[0])
        values = np.full(len(self._splats), np.nan)
        values[self._patches.rows[patch]] = self._patches.distances[patch]
        label = f"distance to the centre of token {picked['token']}"
        self.view.set_values(values, label=label, value_range=(0.0, picked["radius"]), ramp=red_colormap())
        self._text.value = _sentence(picked)
        self.view.selected = [0, picked["gaussian"]]
        return picked

    def clear(self) -> None:
        """Go back to the whole splat in its own colours."""
        self.picked = None
        self.view.set_values(None)
        self._text.value = HINT
        self.view.set_trait("selected", None)

    def _describe(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self._splats):
            raise IndexError(f"index must lie in 0..{len(self._splats) - 1}, the gaussians there are, got {index}")
        patches, means = self._patches, self._splats.means.double().numpy()
        apart = np.linalg.norm(means[patches.rows[:, 0]] - means[index], axis=1)  # [P]
        if not np.isfinite(apart).all():
            raise ValueError(f"gaussian {index} must have a finite position to belong somewhere, got {means[index]}")
        inside = patches.owner[index] >= 0
        patch = int(patches.owner[index] if inside else apart.argmin())
        rows = patches.rows[patch]
        return {
            "gaussian": index,
            "token": int(patches.tokens[patch]),
            "inside": bool(inside),
            "tokens": patches.tokens[(patches.rows == index).any(axis=1)].tolist(),
            "center": means[rows[0]].tolist(),
            "center_gaussian": int(rows[0]),
            "size": len(np.unique(rows)),
            "radius": float(patches.distances[patch].max()),
            "distance": float(apart[patch]),
        }

    def _clicked(self, change: Any) -> None:
        if change["new"] is None:
            if self.picked is not None:
                self.clear()
        elif self.picked is None or self.picked["gaussian"] != change["new"][1]:
            self.pick(change["new"][1])

    @property
    def sentence(self) -> str:
        """What is picked, in words and numbers."""
        return "nothing picked" if self.picked is None else _sentence(self.picked)

    def still(self) -> bytes:
        """PNG of the present view with the picked patch, at most 100 kB; what a saved notebook shows."""
        return self.view.still()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self.view.poster = self.still()
        return with_picture(super()._repr_mimebundle_(**kwargs), self, self.view.poster, self.view.live())

    def __repr__(self) -> str:
        return f"PatchPicker({len(self._patches.tokens)} patches of {len(self._splats):,} gaussians; {self.sentence})"


def _sentence(picked: dict[str, Any]) -> str:
    """What was picked, in words and numbers only."""
    place = ", ".join(f"{value:.3g}" for value in picked["center"])
    where = f"token {picked['token']}: {picked['size']} gaussians within {picked['radius']:.3g} of the centre ({place})"
    if not picked["inside"]:
        return f"gaussian {picked['gaussian']:,} is in no patch; the nearest is {where}, {picked['distance']:.3g} away"
    others = [token for token in picked["tokens"] if token != picked["token"]]
    also = f"; also in {', '.join(map(str, others[:6]))}{' …' if len(others) > 6 else ''}" if others else ""
    return f"gaussian {picked['gaussian']:,} is in {where}, {picked['distance']:.3g} from it{also}"
