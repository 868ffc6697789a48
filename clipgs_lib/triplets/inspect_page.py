"""The contact sheet of a set: one HTML file without scripts or links, pictures inside, light and dark."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import jinja2
import torch

from ..captions.filtering import REASONS
from ..rendering import render
from ..shards.shard_set import ShardSet
from ..shards.tar import ShardError
from ..shards.triplet import Triplet, encode_view
from ..shards.writer import replacing
from ..words import plural
from .inspect_set import choose, filter_totals, read_quarantine, spread, summarize
from .stages import WHITE, cameras_of

SHEET = "contact_sheet.html"
TEMPLATES = Path(__file__).parent / "templates"
_TEXT = 220  # characters of a text that are shown
_SIDE = 192  # pixels of a picture of the splats, at most


def write_contact_sheet(
    folder: str | os.PathLike[str] | ShardSet, path: str | os.PathLike[str] | None = None, *, objects: int = 60
) -> Path:
    """Write the contact sheet of a set.

    Args:
        path: of the HTML file; None for ``contact_sheet.html`` in the set's folder.
        objects: how many are shown at most, of all splits and as many categories as go.

    Returns:
        Where it was written. Damaged objects are shown as such.

    Raises:
        ShardError: when the set is damaged as a whole, or the file cannot be written.
    """
    shards = folder if isinstance(folder, ShardSet) else ShardSet(folder)
    target = Path(path) if path is not None else shards.folder / SHEET
    chosen = choose(shards, objects)
    loader = jinja2.FileSystemLoader(TEMPLATES)
    templates = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters["plural"] = plural
    page = templates.get_template("contact_sheet.html.j2").render(
        name=shards.folder.resolve().name,
        summary=summarize(shards),
        shown=len(chosen),
        cards=(_card(shards, number) for number in chosen),  # one at a time: no more than one object is in memory
        longest=_TEXT,
        reasons=REASONS,
        quarantine=read_quarantine(shards.folder),
    )
    with replacing(target) as stream:
        stream.write(page.encode("utf-8", "xmlcharrefreplace"))
    return target


def _card(shards: ShardSet, number: int) -> dict[str, Any]:
    """What the template shows of one object."""
    row = shards.rows[number]
    try:
        triplet = shards.read(number)
    except ShardError as error:
        return {"row": row, "error": str(error)}
    which = spread(len(triplet.views), 3)
    pictures = [triplet.views[i] for i in which] + _drawn(triplet, which[-1])
    return {
        "row": row,
        "triplet": triplet,
        "pictures": [base64.b64encode(picture).decode() for picture in pictures],
        "removed": filter_totals([triplet.provenance.get("filter")]),
    }


def _drawn(triplet: Triplet, view: int) -> list[bytes]:
    """The splats as the camera of a view sees them, as WebP; nothing for an object without cameras."""
    try:
        cameras = cameras_of(triplet)
    except ShardError:
        return []
    scale = min(1.0, _SIDE / max(cameras.width, cameras.height))
    width, height = (max(1, round(side * scale)) for side in (cameras.width, cameras.height))
    intrinsics = cameras.Ks[view : view + 1] * torch.tensor([[width / cameras.width], [height / cameras.height], [1.0]])
    with torch.no_grad():
        drawn = render(triplet.splats, cameras.viewmats[view : view + 1], intrinsics, width, height, background=WHITE)
    return [encode_view((drawn.colors[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy())]
