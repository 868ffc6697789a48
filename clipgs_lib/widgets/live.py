"""The viewer in an exported page: what an output holds so that a page without a kernel and a network can turn it."""

from __future__ import annotations

import base64
import copy
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..plots.shown import choose
from .wire import BASE_WORDS, SH_WORDS, block_words, note, pack

MIME = "application/vnd.clipgs.view+json"
ASKED = "CLIPGS_LIVE_PAGES"
"""Environment variable: set by who exports pages; elsewhere a saved notebook stays small."""
WORDS = 140_000
"""32-bit words of all splats of a view; beyond, fewer gaussians stand for all."""
_FOLDER = Path(__file__).parent


def page_parts(view: Any) -> dict[str, str]:
    """The ``script`` and the ``style`` that a page needs once, however many views and answers stand in it."""
    module = view._esm.replace("export default", "const widget =")
    others = [(_FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in ("panel", "answers", "live")]
    style = Path(_FOLDER, "widgets.css").read_text(encoding="utf-8")
    return {"script": "\n".join([module, *others, "return live;"]), "style": style}


def live_data(view: Any, words_in_all: int = WORDS) -> dict[str, Any]:
    """What shows a `SplatView` on a page that has the `page_parts`; some 500 kB at most.

    Numbers keep 12 bits after the first, and of more 32-bit words than ``words_in_all`` some gaussians of every part
    are shown, as the header says.
    """
    names = [name for name in view.traits(sync=True) if not name.startswith("_") or name in ("_info", "_legend")]
    skipped = ("poster", "layout", "tabbable", "tooltip", "comm")
    state = {name: copy.deepcopy(getattr(view, name)) for name in names if name not in skipped}
    words, buffers, values = [], [], []
    for i, (shown, port) in enumerate(zip(view._shown, state["_info"]["views"], strict=True)):
        most = words_in_all // len(view._shown) // (BASE_WORDS + SH_WORDS[shown.splats.sh_degree])
        few = choose(shown.splats, most, spread=True)
        if view._indices is not None:
            values.append(view._indices[i][few.rows.numpy()].tobytes())
        if len(few.rows) < len(shown.rows):
            wider = few.splats.scales * (len(shown.rows) / len(few.rows)) ** 0.2  # 0, 1/4 and 1/3 look worse on scans
            rows = shown.rows[few.rows]
            shown = shown._replace(splats=replace(few.splats, scales=wider), rows=rows, rule=few.rule)
        port["note"] = note(shown)
        words.append(block_words(shown))
        block = np.frombuffer(pack(shown), "<u4").copy()
        floats = block[: words[-1]["base_words"]].reshape(-1, BASE_WORDS)[:, :10]
        floats[:] = (floats.astype(np.uint64) + 0x400).astype(np.uint32) & 0xFFFFF800
        buffers.append(block.tobytes())
    buffers += values
    data = base64.b64encode(zlib.compress(b"".join(buffers), 9)).decode("ascii")
    sizes = [len(one) for one in buffers]
    return {"state": state, "views": words, "values": bool(values), "sizes": sizes, "data": data}
