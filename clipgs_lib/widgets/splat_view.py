"""`SplatView`: gaussian splats, live in the notebook."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets as t
from torch import Tensor

from .. import geometry
from ..plots.shown import choose
from ..rendering import Cameras
from ..splats import Splats
from .colormap import FADING, color_indices, colormap
from .framing import camera_dict, checked_camera, scene_of
from .live import ASKED, MIME, live_data, page_parts
from .still import VANISHING, page_script, paper, recolored, shades, still_picture, with_picture
from .wire import block_words, note, pack

# The rules of drawing, those of `clipgs_lib.rendering` (a test compares them).
DRAWING = {"NEAR_PLANE": 0.01, "EPS_2D": 0.3, "MIN_ALPHA": 1 / 255, "MAX_ALPHA": 0.999}
PICK_ALPHA = 0.1  # a click takes the nearest gaussian that is at least this opaque at the pixel
_PARTS = ("data", "camera", "sort", "shaders", "renderer", "controls", "pointer", "viewport", "pace", "view", "widget")
_FOLDER = Path(__file__).parent
_RESET = ("sh_degree", "splat_scale", "linked", "crop", "crop_on", "background")  # what the reset button takes back

Values = Tensor | np.ndarray | Sequence[float]


def _script() -> str:
    """The JavaScript module: constants of Python's rules, then the files one after the other.

    A notebook's front end loads a widget's module as one text that can import nothing beside it, and ours stands in
    several files; so this is a text, where `_css` is a path.
    """
    constants: dict[str, Any] = {**DRAWING, **FADING, "PICK_ALPHA": PICK_ALPHA, "VANISHING": VANISHING}
    constants |= {name: getattr(geometry, name) for name in ("SH_C1", "SH_C2", "SH_C3")}
    lines = [f"const {name} = {json.dumps(value)};" for name, value in constants.items()]
    return "\n".join([*lines, page_script(*(f"splat_{part}" for part in _PARTS))])


class SplatView(anywidget.AnyWidget):
    """Show splats in a notebook with a WebGL2 renderer that follows the rules of `clipgs_lib.render`.

    Drag to orbit, right-drag or shift-drag to pan, wheel or pinch to zoom, click to select, double click to focus;
    the page's ``?`` lists the keys. The splats travel to the page when it asks for them, so they never swell a saved
    notebook; what is saved is a still picture (at most 100 kB) for readers after the kernel. JupyterLab shows it to
    them as a widget state, which the page adds when the notebook is saved there (a state that holds the picture alone);
    with no kernel at all JupyterLab has no widgets and says "Loading widget...". nbconvert shows the picture unless
    there is such a state (then it asks the network for the widget manager: drop ``metadata.widgets`` before exporting,
    as ``clipgs notebooks run`` does).

    Args:
        splats: one `Splats`, a list of them, or a dict from names to them; each gets a viewport.
        values: one number per gaussian ``[N]`` (or a list of such, one per viewport) to colour by; non-finite fades.
        value_label: what the numbers are, for the legend.
        value_range: numbers at the two ends of the colour bar; None takes the least and the greatest finite value.
        columns: viewports side by side; None chooses.
        width: of a viewport, CSS pixels; less when the page is narrower. None chooses.
        height: of a viewport, CSS pixels. None chooses.
        up: which way is up, one of ``splats.UP_AXES`` but "unknown"; None takes the splats' own, else "+y".
        max_gaussians: per viewport; beyond it the largest by opacity times area are shown, and the header says so.
        **traits: starting values of the traits below.

    Traits, in step with the page both ways:
        sh_degree: 0 to 3, the highest SH degree in use.
        splat_scale: factor on the size of all gaussians, 0.05 to 2.
        color_mode: ``"color"`` or ``"value"``.
        background: RGB in ``[0, 1]``; None is the page's own, or a grey where the splat would vanish in that.
        linked: all viewports share one camera pose.
        cameras: list of dicts (viewmat 16 numbers, K 9 numbers, width, height), one per viewport; at first they frame
            the splats as `turntable_cameras` does; see `camera`.
        selected: None, or ``[viewport, row]`` of the clicked gaussian; the row counts in the splats as passed.
        crop_on, crop: hide what lies outside ``[[x0, x1], [y0, y1], [z0, z1]]``; see `crop_mask`.
        theme: ``"auto"`` (follows the notebook), ``"light"`` or ``"dark"``.

    Raises:
        TypeError: when something else than splats comes.
        ValueError: when counts, ranges or names do not hold; the message says which.
    """

    _esm = _script()
    _css = _FOLDER / "widgets.css"

    sh_degree = t.Int(3, min=0, max=3).tag(sync=True)
    splat_scale = t.Float(1.0, min=0.05, max=2.0).tag(sync=True)
    color_mode = t.Enum(("color", "value"), "color").tag(sync=True)
    linked = t.Bool(True).tag(sync=True)
    cameras = t.List(t.Dict()).tag(sync=True)
    selected = t.List(t.Int(), default_value=None, allow_none=True).tag(sync=True)
    crop_on = t.Bool(False).tag(sync=True)
    crop = t.List(t.List(t.Float(), minlen=2, maxlen=2), minlen=3, maxlen=3).tag(sync=True)
    background = t.List(t.Float(min=0, max=1), default_value=None, allow_none=True, minlen=3, maxlen=3).tag(sync=True)
    theme = t.Enum(("auto", "light", "dark"), "auto").tag(sync=True)
    poster = t.Bytes(b"").tag(sync=True)
    _info = t.Dict().tag(sync=True)
    _legend = t.Dict(allow_none=True, default_value=None).tag(sync=True)

    def __init__(
        self,
        splats: Splats | Sequence[Splats] | Mapping[str, Splats],
        *,
        values: Values | Sequence[Values] | None = None,
        value_label: str = "value",
        value_range: tuple[float, float] | None = None,
        columns: int | None = None,
        width: int | None = None,
        height: int | None = None,
        up: str | None = None,
        max_gaussians: int = 300_000,
        **traits: Any,
    ) -> None:
        self._splats = _named(splats)
        if max_gaussians < 1:
            raise ValueError(f"max_gaussians must be at least 1, got {max_gaussians}")
        self._shown = [choose(one, max_gaussians) for one in self._splats.values()]
        for name, shown in zip(self._splats, self._shown, strict=True):
            if len(shown.splats) == 0:
                raise ValueError(f"SplatView needs at least one finite gaussian per splat, got none in {name!r}")
        self._indices: list[np.ndarray] | None = None
        count = len(self._splats)
        columns = columns or (count if count <= 3 else 2 if count == 4 else 3)
        width = width or (640 if count == 1 else 440 if count == 2 else 300)
        height = height or round(0.75 * width)
        _check_layout(columns, width, height)
        linked = bool(traits.get("linked", True))
        scene, places = scene_of([shown.splats for shown in self._shown], up, linked, width, height)
        info = {
            "width": width,
            "height": height,
            "columns": columns,
            "views": [
                {"name": name, "note": note(shown), **shades(shown.splats), **place}
                for name, shown, place in zip(self._splats, self._shown, places, strict=True)
            ],
            "max_degree": max(shown.splats.sh_degree for shown in self._shown),
            "scene": scene,
        }
        traits.setdefault("sh_degree", info["max_degree"])
        traits.setdefault("crop", [list(pair) for pair in zip(scene["low"], scene["high"], strict=True)])
        traits["background"] = _checked_color(traits.get("background"))
        kept = {name: getattr(type(self), name).default_value for name in ("splat_scale", "linked", "crop_on")} | traits
        info["start"] = {name: kept[name] for name in _RESET}
        super().__init__(_info=info, cameras=[place["home"] for place in places], **traits)
        self.on_msg(self._receive)
        if values is not None:
            self.set_values(values, label=value_label, value_range=value_range)

    # ---- camera ------------------------------------------------------------------------------------------------

    @property
    def camera(self) -> Cameras:
        """The cameras of all viewports ``[V, 4, 4]``; ``cg.render(splats, *view.camera)`` draws what is seen.

        Set it to `Cameras` with one camera for all viewports or one for each. A page scales a camera of another size
        to its viewport and reports what it made of it.
        """
        first = self.cameras[0]
        viewmats = torch.tensor([c["viewmat"] for c in self.cameras], dtype=torch.float32).reshape(-1, 4, 4)
        Ks = torch.tensor([c["K"] for c in self.cameras], dtype=torch.float32).reshape(-1, 3, 3)
        return Cameras(viewmats, Ks, int(first["width"]), int(first["height"]))

    @camera.setter
    def camera(self, cameras: Cameras) -> None:
        count, given = len(self._splats), len(cameras.viewmats)
        if given not in (1, count):
            raise ValueError(f"camera must hold 1 camera or {count}, one per viewport, got {given}; pick one of them")
        self.cameras = [camera_dict(cameras, i if given == count else 0) for i in range(count)]

    @t.validate("cameras")
    def _check_cameras(self, proposal: Any) -> list[dict[str, Any]]:
        return [checked_camera(camera) for camera in proposal["value"]]

    # ---- values ------------------------------------------------------------------------------------------------

    def set_values(
        self,
        values: Values | Sequence[Values] | None,
        *,
        label: str = "value",
        value_range: tuple[float, float] | None = None,
        ramp: np.ndarray | None = None,
    ) -> None:
        """Colour by numbers, one per gaussian as passed; None goes back to the splats' own colours.

        A gaussian whose number is not finite keeps its own colour, greyed and lightened.

        Args:
            values: ``[N]``, or a list of such with one per viewport.
            label: for the legend.
            value_range: numbers at the ends of the colour bar; None takes the least and greatest finite ones shown.
            ramp: RGBA bytes ``[256, 4]`` as `colormap` makes them; None takes that.

        Raises:
            ValueError: when the counts differ, nothing is finite, or the range is empty.
        """
        if values is None:
            self._indices, self.color_mode = None, "color"
            self.set_trait("_legend", None)
            return
        arrays = self._value_arrays(values)
        finite = np.concatenate(arrays)
        finite = finite[np.isfinite(finite)]
        if value_range is None and len(finite) == 0:
            raise ValueError("values must hold at least one finite number among the gaussians shown, got none")
        low, high = map(float, value_range or (finite.min(), finite.max()))
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ValueError(f"value_range must be two finite numbers, low <= high, got ({low}, {high})")
        self._indices = [color_indices(array, low, high) for array in arrays]
        table = (colormap() if ramp is None else ramp).ravel().tolist()
        self._legend = {"low": low, "high": high, "label": str(label), "colormap": table}
        self.color_mode = "value"
        self._send_values()

    def _value_arrays(self, values: Values | Sequence[Values]) -> list[np.ndarray]:
        count = len(self._splats)
        single = isinstance(values, Tensor | np.ndarray) or np.isscalar(values[0])
        parts: list[Any] = [values] if single else list(values)
        if len(parts) != count:
            raise ValueError(f"values must hold one array per viewport ({count}), got {len(parts)}")
        arrays = []
        for name, shown, part in zip(self._splats, self._shown, parts, strict=True):
            array = np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part, dtype=np.float64)
            if array.shape != (shown.total,):
                raise ValueError(f"values for {name!r} must have shape [{shown.total}], got {list(array.shape)}")
            arrays.append(array if shown.kept is None else array[shown.kept.numpy()])
        return arrays

    # ---- choosing ----------------------------------------------------------------------------------------------

    def crop_mask(self, viewport: int = 0) -> Tensor:
        """Which gaussians, as passed, lie in the crop box: ``[N]`` bool on their device; all while it is off."""
        splats = list(self._splats.values())[viewport]
        if not self.crop_on:
            return torch.ones(len(splats), dtype=torch.bool, device=splats.device)
        low, high = splats.means.new_tensor(self.crop).T
        return ((splats.means.detach() >= low) & (splats.means.detach() <= high)).all(dim=1)

    @t.validate("crop")
    def _check_crop(self, proposal: Any) -> list[list[float]]:
        for axis, (low, high) in zip("xyz", proposal["value"], strict=True):
            if not low <= high:
                raise t.TraitError(f"crop must have low <= high on each axis, got {low} > {high} on {axis}")
        return proposal["value"]

    @t.validate("selected")
    def _check_selected(self, proposal: Any) -> list[int] | None:
        value = proposal["value"]
        totals = [shown.total for shown in self._shown]
        if value is None or (len(value) == 2 and 0 <= value[0] < len(totals) and 0 <= value[1] < totals[value[0]]):
            return value
        raise t.TraitError(f"selected must be None or [viewport, row] within {totals} gaussians, got {value}")

    # ---- pictures ----------------------------------------------------------------------------------------------

    def still(self) -> bytes:
        """PNG of the present view drawn by `clipgs_lib.render`, at most 100 kB; what a saved notebook shows."""
        info = self._info
        return still_picture(
            [self._as_seen(i) for i in range(len(self._shown))],
            self.camera,
            columns=info["columns"],
            size=(info["width"], info["height"]),
            sh_degree=self.sh_degree,
            backgrounds=[self.background or paper(self.theme, shown.splats) for shown in self._shown],
        )

    def _as_seen(self, i: int) -> Splats:
        """The shown gaussians of one viewport with crop, size and value colours applied."""
        shown = self._shown[i]
        splats = replace(shown.splats, scales=shown.splats.scales * self.splat_scale)
        if self.color_mode == "value" and self._indices is not None:
            splats = recolored(splats, self._indices[i], self._legend["colormap"])
        mask = self.crop_mask(i).cpu()
        return splats[mask if shown.kept is None else mask[shown.kept]]

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self.poster = self.still()
        return with_picture(super()._repr_mimebundle_(**kwargs), self, self.poster, self.live())

    def live(self) -> dict[str, Any]:
        """What an output holds beside the picture when pages are exported, so that they can turn the view."""
        return {MIME: page_parts(self) | live_data(self)} if os.environ.get(ASKED) else {}

    def __repr__(self) -> str:
        views = ", ".join(f"{name}: {note(s)}" for name, s in zip(self._splats, self._shown, strict=True))
        return f"SplatView({views})"

    # ---- messages ----------------------------------------------------------------------------------------------

    def _receive(self, _widget: Any, content: Any, buffers: list[Any]) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "load":
            views = [block_words(shown) for shown in self._shown]
            self.send({"type": "splats", "views": views}, buffers=[pack(shown) for shown in self._shown])
        elif kind == "values":
            self._send_values()

    def _send_values(self) -> None:
        if self._indices is not None:
            self.send({"type": "values"}, buffers=[index.tobytes() for index in self._indices])


def _named(splats: Any) -> dict[str, Splats]:
    if isinstance(splats, Splats):
        splats = [splats]
    if isinstance(splats, Mapping):
        named = {str(name): one for name, one in splats.items()}
        if len(named) != len(splats):
            raise ValueError(f"names must differ, got {list(splats)}")
    elif isinstance(splats, Sequence) and not isinstance(splats, str):
        named = {}
        for i, one in enumerate(splats):
            name = getattr(one, "source", "") or f"splats {i + 1}"
            named[name if name not in named else f"{name} ({i + 1})"] = one
    else:
        raise TypeError(f"SplatView takes a Splats, a list or a dict of them, got {type(splats).__name__}")
    if not named:
        raise ValueError("SplatView needs at least one Splats, got none")
    for name, one in named.items():
        if not isinstance(one, Splats):
            raise TypeError(
                f"SplatView takes Splats, got {type(one).__name__} for {name!r}; read files with read_splats"
            )
    return named


def _checked_color(background: Sequence[float] | None) -> list[float] | None:
    if background is None:
        return None
    if len(background) != 3 or not all(0 <= float(c) <= 1 for c in background):
        raise ValueError(f"background must be three numbers in [0, 1], got {background}")
    return [float(c) for c in background]


def _check_layout(columns: int, width: int, height: int) -> None:
    for name, value, most in (("columns", columns, 12), ("width", width, 4096), ("height", height, 4096)):
        least = 1 if name == "columns" else 64
        if not least <= value <= most:
            raise ValueError(f"{name} must lie in {least}..{most}, got {value}")
