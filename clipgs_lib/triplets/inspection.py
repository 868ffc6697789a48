"""What is in a set: a summary in words and numbers, and a contact sheet.

The sheet is one HTML file without scripts or links, pictures inside, light and dark.
"""

import base64
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..captions.filtering import REASONS
from ..pages import fill
from ..rendering import render
from ..shards.shard_set import ShardSet
from ..shards.tar import ShardError
from ..shards.triplet import Triplet, encode_view
from ..shards.writer import replacing
from ..splats import COLUMNS
from ..words import first_of, plural
from .stages import WHITE, cameras_of
from .staging import QUARANTINE, read_lost, read_quarantine

SHEET = "contact_sheet.html"
TEMPLATES = Path(__file__).parent / "templates"
_READ = 500  # objects read for the statistics of texts and sizes; a larger set is sampled
_TEXT = 220  # characters of a text that are shown
_SIDE = 192  # pixels of a picture of the splats, at most


@dataclass(frozen=True)
class FilterTotals:
    """What filtering did to the texts that objects came with."""

    objects: int = 0  # that came with texts of their own; those of the catalogue are made with theirs
    kept: int = 0
    changed: int = 0  # among the kept
    removed: dict[str, int] = field(default_factory=dict)  # reason -> texts, most frequent first
    examples: dict[str, str] = field(default_factory=dict)  # reason -> a text that was removed for it

    @property
    def total(self) -> int:
        """Texts removed."""
        return sum(self.removed.values())

    def __str__(self) -> str:
        if not self.objects:
            return "not needed, texts were made with the objects"
        reasons = f" ({_counts(self.removed)})" if self.removed else ""
        return f"kept {self.kept:,} ({self.changed:,} of them changed), removed {self.total:,}{reasons}"


class Summary:
    """Facts about a set, ready to print: its index and manifest whole, its objects up to 500 of them.

    Damaged objects are counted; `ShardSet.verify` names them.
    """

    def __init__(self, shards: ShardSet) -> None:
        rows, manifest, chosen = shards.rows, shards.manifest, spread(len(shards.rows), _READ)
        sources, parts, reports = Counter[str](), Counter[str](), list[Any]()
        for number in chosen:
            with suppress(ShardError):
                triplet = shards.read(number)
                reports.append(triplet.provenance.get("filter"))
                sources.update(caption.source for caption in triplet.texts)
                parts.update(_sizes(triplet, rows[number]["bytes"]))
        psnr = [row["psnr"] for row in rows if row["psnr"] is not None]
        self.folder = str(shards.folder)
        self.objects, self.shards = len(rows), len(manifest["shards"])
        self.bytes = sum(entry["bytes"] for entry in manifest["shards"])  # of all shards
        self.content_sha256, self.teacher = str(manifest["content_sha256"]), shards.teacher
        # name -> objects; categories and licences most frequent first
        self.splits = {name: int(entry["objects"]) for name, entry in manifest["splits"].items()}
        self.categories = dict(Counter(row["category"] or "(none)" for row in rows).most_common())
        self.licences = dict(Counter(row["licence"] or "(unknown)" for row in rows).most_common())
        # fewest, median, most per object
        self.gaussians, self.views, self.texts = (
            _three([row[name] for row in rows]) for name in ("n_gaussians", "n_views", "n_texts")
        )
        self.psnr = tuple(np.quantile(psnr, (0.05, 0.5, 0.95)).tolist()) if psnr else None  # dB
        self.measured = len(psnr)  # objects with a PSNR
        self.read = len(reports)  # objects that were read for what follows
        self.damaged = len(chosen) - self.read  # objects among them that could not be
        self.sources = dict(sources.most_common())  # texts among them: raw, filtered, enriched
        self.filter = filter_totals(reports)
        self.parts = {name: size / max(1, self.read) for name, size in parts.items()}  # mean bytes per object
        aside = Counter(entry["reason"][:160] for entry in read_quarantine(shards.folder))
        self.quarantined = tuple(aside.most_common())  # reason -> objects
        self.config = dict(manifest["build"].get("config", {}))  # how it was built
        self.lost = read_lost(shards.folder)  # mesh -> textures and materials that were missing

    def facts(self) -> dict[str, str]:
        """Name -> sentence of what `str` lists under the set's size."""
        aside = sum(count for _, count in self.quarantined)
        facts = {
            "content": self.content_sha256[:16],
            "splits": _counts(self.splits),
            "categories": f"{len(self.categories)}: {_counts(self.categories, 8)}",
            "licences": _counts(self.licences, 6),
            "per object": f"{_range(self.gaussians)} gaussians, {_range(self.views)} views, {_range(self.texts)} texts",
            "texts": f"{_counts(self.sources)} (of {plural(self.read, 'object')} read)",
            "filtering": str(self.filter),
            "bytes": ", ".join(f"{name} {size / 1e3:.1f} kB" for name, size in self.parts.items()) + " on average",
            "PSNR": "not measured",
            "teacher": str(self.teacher or "none, no embeddings"),
        }
        if self.psnr is not None:
            decibels = " / ".join(f"{value:.2f}" for value in self.psnr)
            facts["PSNR"] = f"{decibels} dB at 5 / 50 / 95 % of {plural(self.measured, 'object')}"
        if self.config:
            facts["built with"] = ", ".join(f"{name} {value}" for name, value in self.config.items())
        if self.damaged:
            facts["damaged"] = f"{self.damaged:,} of {self.read + self.damaged:,}; --verify names them"
        if self.lost:
            named = [f"{mesh} ({first_of(names, 3)})" for mesh, names in self.lost.items()]
            facts["lost"] = f"a texture or material in {plural(len(self.lost), 'object')}: {first_of(named, 5)}"
        return facts | {"set aside": f"{aside:,}" + (f" ({QUARANTINE})" if aside else "")}

    def __str__(self) -> str:
        size = f"{plural(self.objects, 'object')} in {plural(self.shards, 'shard')}, {self.bytes / 1e6:,.2f} MB"
        lines = [f"{self.folder}: {size}", *(f"  {name:<12}{text}" for name, text in self.facts().items())]
        return "\n".join([*lines, *(f"    {count:,} x {reason}" for reason, count in self.quarantined[:5])])


def summarize(folder: str | os.PathLike[str] | ShardSet) -> Summary:
    """Look through a set; ShardError when its manifest or index is damaged."""
    return Summary(folder if isinstance(folder, ShardSet) else ShardSet(folder))


def _sizes(triplet: Triplet, whole: int) -> dict[str, int]:
    """Bytes of an object by what they hold, of a ``whole``."""
    embeds = [e.nbytes for e in (triplet.image_embeds, triplet.text_embeds) if e is not None]
    sizes = {"splat": 2 * sum(getattr(triplet.splats, n).numel() for n in COLUMNS), "embeddings": sum(embeds)}
    sizes |= {"views": sum(map(len, triplet.views)), "texts": sum(len(c.text.encode()) for c in triplet.texts)}
    return sizes | {"meta and tar": whole - sum(sizes.values())}


def filter_totals(reports: Iterable[Any]) -> FilterTotals:
    """Add up what objects keep of their `FilterReport` in ``provenance["filter"]``; anything else counts as nothing."""
    kept, changed, objects = 0, 0, 0
    removed, examples = Counter[str](), dict[str, str]()
    for report in reports:
        try:
            counts = {str(reason): int(count) for reason, count in report["removed"].items()}
            texts = [(str(text), str(reason)) for text, reason in report["texts"]]
            numbers = int(report["kept"]), int(report["changed"])
        except (TypeError, ValueError, KeyError, AttributeError):
            continue  # a set of the catalogue, or one that others wrote
        objects, kept, changed = objects + 1, kept + numbers[0], changed + numbers[1]
        removed.update(counts)
        for text, reason in texts:
            examples.setdefault(reason, text)
    return FilterTotals(objects, kept, changed, dict(removed.most_common()), examples)


def spread(count: int, most: int) -> list[int]:
    """Up to ``most`` numbers of ``0 .. count - 1``, evenly spread, the first among them."""
    return sorted({int(place) for place in np.arange(min(count, most)) * (count / max(1, min(count, most)))})


def choose(shards: ShardSet, most: int) -> list[int]:
    """Numbers of up to ``most`` objects for a contact sheet: all splits and as many categories as go, in turn."""
    turns = Counter[tuple[str, str]]()
    ranked = []
    for number, row in enumerate(shards.rows):
        group = (row["split"], row["category"])
        ranked.append((turns[group], number))
        turns[group] += 1
    first = [number for turn, number in ranked if turn == 0]
    if len(first) > most:
        return [first[i] for i in spread(len(first), most)]
    return sorted(number for _, number in sorted(ranked)[:most])


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(values) or [0]
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _range(three: tuple[int, int, int]) -> str:
    low, middle, high = three
    return f"{low:,}" if low == high else f"{low:,} to {high:,} (median {middle:,})"


def _counts(counts: dict[str, int], most: int = 20) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:most])
    return (shown or "none") + (f", {len(counts) - most} more" if len(counts) > most else "")


# ---- contact sheet --------------------------------------------------------------------------------------------------


def write_contact_sheet(
    folder: str | os.PathLike[str] | ShardSet, path: str | os.PathLike[str] | None = None, *, objects: int = 60
) -> Path:
    """Write the contact sheet of a set, with ``objects`` of all splits and as many categories as go; returns its path.

    That is ``contact_sheet.html`` in the set's folder, where none is given. Damaged objects are shown as such;
    ShardError when the set is damaged as a whole, or the file cannot be written.
    """
    shards = folder if isinstance(folder, ShardSet) else ShardSet(folder)
    target = Path(path) if path is not None else shards.folder / SHEET
    chosen = choose(shards, objects)
    page = render_page(
        "contact_sheet.html.j2",
        name=shards.folder.resolve().name,
        summary=summarize(shards),
        shown=len(chosen),
        cards=(_card(shards, number) for number in chosen),  # one at a time: no more than one object is in memory
        longest=_TEXT,
        reasons=REASONS,
        quarantine=read_quarantine(shards.folder),
    )
    with replacing(target) as stream:
        stream.write(page)
    return target


def render_page(template: str, **values: Any) -> bytes:
    """A page by a template of this room, in UTF-8; whatever the values hold is escaped."""
    return fill(TEMPLATES / template, values).encode("utf-8", "xmlcharrefreplace")


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
