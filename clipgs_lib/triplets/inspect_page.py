"""The contact sheet of a set: one HTML file without scripts or links, pictures inside, light and dark."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path

import torch

from ..captions.caption import Caption
from ..captions.filtering import REASONS
from ..rendering import render
from ..shards.shard_set import ShardSet
from ..shards.tar import ShardError
from ..shards.triplet import Triplet, encode_view
from ..shards.writer import replacing
from .inspect_set import Summary, choose, filter_totals, read_quarantine, spread, summarize
from .stages import WHITE, cameras_of

SHEET = "contact_sheet.html"
_TEXT = 220  # characters of a text that are shown
_SIDE = 192  # pixels of a picture of the splats, at most
_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #5b6672; --line: #dfe3e8;
  --bad: #b3261e; --raw: #8a5a00; --filtered: #2457c5; --enriched: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --ink: #e8ebee; --soft: #9aa5b1;
  --line: #30363d; --bad: #ff7b72; --raw: #e3b341; --filtered: #7aa7ff; --enriched: #56d364; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 32px max(20px, calc(50vw - 640px)); background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
header p, .soft { color: var(--soft); margin: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 20px 0 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
main { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.strip { display: grid; grid-template-columns: repeat(4, 1fr); background: #fff; border-bottom: 1px solid var(--line); }
.strip img { width: 100%; aspect-ratio: 1; object-fit: contain; display: block; }
.text { padding: 10px 14px 14px; }
h3 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
.facts { color: var(--soft); font-size: 13px; margin: 2px 0 8px; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
ul { margin: 0; padding: 0; list-style: none; font-size: 14px; }
li { padding: 2px 0 2px 10px; border-left: 3px solid var(--line); margin-top: 4px; overflow-wrap: anywhere; }
li.raw { border-color: var(--raw); } li.filtered { border-color: var(--filtered); }
li.enriched { border-color: var(--enriched); }
li small { color: var(--soft); white-space: nowrap; }
.gone { color: var(--soft); font-size: 13px; margin: 8px 0 0; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 14px; }
.legend li { margin: 0; }
.bad { color: var(--bad); font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
td, th { text-align: left; vertical-align: top; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); }
"""


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
    chosen, summary = choose(shards, objects), summarize(shards)
    cards = "\n".join(_card(shards, number) for number in chosen)
    name = html.escape(shards.folder.resolve().name)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{name}: triplets</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head>
<body><header><h1>{name}</h1><p>Triplets: splats, views and texts of {len(shards):,} objects</p>
{_facts(summary)}</header>
<h2>{len(chosen):,} of {len(shards):,} objects</h2>
<ul class="legend"><li class="raw">raw text</li><li class="filtered">filtered</li><li class="enriched">enriched</li>
<li class="soft">last picture: the splats, from the camera of the view before it</li>{_scores(shards)}</ul>
<main>
{cards}
</main>
{_filtered(summary)}
{_aside(shards.folder)}
</body></html>
"""
    with replacing(target) as stream:
        stream.write(page.encode("utf-8", "xmlcharrefreplace"))
    return target


def _scores(shards: ShardSet) -> str:
    return '<li class="soft">numbers: mean cosine of text and views by the teacher</li>' if shards.teacher else ""


def _facts(summary: Summary) -> str:
    rows = [line.strip().partition("  ") for line in str(summary).splitlines()[1:] if not line.startswith("    ")]
    items = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value.strip())}</dd>" for name, _, value in rows)
    size = f"<dt>size</dt><dd>{summary.shards} shards, {summary.bytes / 1e6:,.2f} MB</dd>"
    return f"<dl>{size}{items}</dl>"


def _card(shards: ShardSet, number: int) -> str:
    row = shards.rows[number]
    try:
        triplet = shards.read(number)
    except ShardError as error:
        words = f'<h3>{html.escape(row["key"])}</h3><p class="bad">{html.escape(str(error))}</p>'
        return f'<article><div class="text">{words}</div></article>'
    which = spread(len(triplet.views), 3)
    views = [triplet.views[i] for i in which] + _drawn(triplet, which[-1])
    strip = "".join(
        f'<img src="data:image/webp;base64,{base64.b64encode(view).decode()}" alt="" loading="lazy">' for view in views
    )
    psnr = f" · {row['psnr']:.1f} dB" if row["psnr"] is not None else ""
    facts = f"{triplet.split} · {len(triplet.splats):,} gaussians · {len(triplet.views)} views{psnr}"
    return (
        f'<article><div class="strip">{strip}</div><div class="text"><h3>{html.escape(triplet.category or triplet.key)}'
        f'</h3><p class="facts">{html.escape(facts)}<br>{html.escape(triplet.key)}</p>{_texts(triplet)}'
        f"{_removed(triplet)}</div></article>"
    )


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


def _texts(triplet: Triplet) -> str:
    return f"<ul>{''.join(map(_text, triplet.texts[:8]))}</ul>"


def _text(caption: Caption) -> str:
    shown = caption.text if len(caption.text) <= _TEXT else caption.text[:_TEXT] + "…"
    score = f" <small>{caption.score:.2f}</small>" if caption.score is not None else ""
    return f'<li class="{caption.source}" dir="auto">{html.escape(shown)}{score}</li>'


def _removed(triplet: Triplet) -> str:
    """Texts that filtering took out of this object, each with the reason."""
    totals = filter_totals([triplet.provenance.get("filter")])
    if not totals.removed:
        return ""
    told = "; ".join(f"{text} ({reason})" for reason, text in totals.examples.items())
    more = sum(totals.removed.values()) - len(totals.examples)
    return f'<p class="gone" dir="auto">removed: {html.escape(told)}{f", {more:,} more" if more else ""}</p>'


def _filtered(summary: Summary) -> str:
    """What filtering removed from the texts of the set, by reason, with an example of each."""
    totals = summary.filter
    if not totals.removed:
        return ""
    rows = "".join(
        f"<tr><td>{count:,}</td><td>{html.escape(reason)}</td><td>{html.escape(REASONS.get(reason, ''))}</td>"
        f'<td dir="auto">{html.escape(totals.examples.get(reason, ""))}</td></tr>'
        for reason, count in totals.removed.items()
    )
    head = f"<h2>{sum(totals.removed.values()):,} texts removed from {totals.objects:,} objects</h2>"
    return f"{head}<table><tr><th>texts</th><th>reason</th><th>meaning</th><th>example</th></tr>{rows}</table>"


def _aside(folder: Path) -> str:
    entries = read_quarantine(folder)
    if not entries:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(e['source'][:120])}</td><td>{html.escape(e['reason'][:300])}</td></tr>"
        for e in entries[:200]
    )
    head = f"<h2>{len(entries):,} set aside</h2>"
    return f"{head}<table><tr><th>object</th><th>reason</th></tr>{rows}</table>"
