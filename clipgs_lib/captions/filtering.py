"""Which texts of an object to train on: names are freed of debris, the useless removed, each with a reason."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ..words import table
from .caption import Caption
from .clean import SeenTexts, clean_text, is_cased
from .names import EXTENSIONS, PLACEHOLDERS, has_extension, is_file_name, is_id, object_name

Kind = Literal["auto", "name", "text"]
REASONS = {
    "not-text": "it is no string",
    "empty": "nothing visible is left",
    "no-words": "digits and signs without a letter or emoji",
    "too-short": "a single letter",
    "id": "a hash, UUID or serial number",
    "placeholder": "a word that tools put where a name is missing",
    "several-objects": "names a whole set instead of one object",
    "pack-name": "names the asset pack instead of the object",
    "duplicate": "the object already has this text",
    "near-duplicate": "the object already has a text with the same words",
}
_MAX_ROUNDS = 12
_FACTS_TEXTS, _FACTS_CHARACTERS = 12, 120  # what `FilterReport.facts` keeps at most

_SEVERAL = re.compile(
    r"(?:every|all)(?: the)? ?(?:models?|objects?|assets?|items?|meshes|props|weapons|parts|variants|in one)?"
    r"|everything|all together|full (?:set|collection)|(?:models?|assets?) collection",
    re.IGNORECASE,
)
_PACK = re.compile(
    r"\b(?:asset|model|prop|texture|material|mega|ultimate|modular)s?\b.*\b(?:packs?|kits?|bundles?|collection)\b"
    r"|\b(?:packs?|kits?|bundles?|collection)\b[\W_]*(?:vol(?:ume)?\b|v?\d+(?:\.\d+)*\W*$|by\b|updated?\b|\(\d)"
    r"|\w\W*[-–—]\s*(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\W*\d{4}$"
    r"|\b(?:quaternius|kenney|kaykit|synty|poly ?haven)\b.*\b(?:packs?|kits?|assets?|bundles?)\b",
    re.IGNORECASE,
)
_THEMES = table("""
    animal animals asset assets building buildings bush car cars castle character characters city crops dungeon farm
    fantasy food forest furniture graveyard gun guns house houses interior medieval military monster monsters nature
    people pirate platformer prop props racing robot rpg rts sci-fi space starter town train tree trees vehicle vehicles
    village weapon weapons western zombie
""")
_PACK_ENDS = table("pack packs kit bundle")


class Removal(NamedTuple):
    """A text that was taken out."""

    text: str  # as it came, tidied enough to be shown (see `captions.clean`)
    reason: str  # a key of ``REASONS``
    detail: str  # of a duplicate, the text that stays; else what the reason means


class Change(NamedTuple):
    """A text that was kept in another form."""

    before: str  # as it came, tidied enough to be shown
    after: str
    steps: tuple[str, ...]  # what was done, in order: see `captions.clean.clean_text`, `captions.names.object_name`


@dataclass(frozen=True)
class FilterReport:
    """What `filter_captions` did to the texts of one object.

    Args:
        kept: the texts that remain, in order; raw ones are now ``filtered``, enriched ones stay ``enriched``.
        removed: the others, each with its reason.
        changed: the kept ones that read differently now.
    """

    kept: tuple[Caption, ...] = ()
    removed: tuple[Removal, ...] = ()
    changed: tuple[Change, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Removals by reason."""
        return dict(Counter(removal.reason for removal in self.removed))

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {n}" for reason, n in self.counts.items())
        tail = f" ({reasons})" if reasons else ""
        return f"kept {len(self.kept)}, changed {len(self.changed)}, removed {len(self.removed)}{tail}"

    def facts(self) -> dict[str, Any]:
        """The report as short plain JSON, for an object's provenance.

        Returns:
            ``{"kept": n, "changed": n, "removed": {reason: n}, "texts": [[text, reason], ...]}``; ``texts`` holds up to
            12 of what was removed, cut after 120 characters.
        """
        most = _FACTS_CHARACTERS
        texts = [[r.text[:most] + "…" * (len(r.text) > most), r.reason] for r in self.removed[:_FACTS_TEXTS]]
        return {"kept": len(self.kept), "changed": len(self.changed), "removed": self.counts, "texts": texts}


def filter_captions(texts: Iterable[Caption | str | Any], *, kind: Kind = "auto") -> FilterReport:
    """Clean the texts of one object and remove those that say nothing about it.

    Filtering what was kept again changes nothing, and nothing that is fed in raises.

    Args:
        texts: captions or plain values; a plain string counts as ``raw``, anything else is removed as ``not-text``.
        kind: ``name`` treats each as an object or file name (numbers, tags and ids go, capitals are split), ``text``
            as words meant to be read (only hygiene), ``auto`` decides per text by `captions.names.is_file_name`.

    Raises:
        ValueError: when ``kind`` is another word.
    """
    if kind not in ("auto", "name", "text"):
        raise ValueError(f"kind must be auto, name or text, got {kind!r}")
    kept: list[Caption] = []
    removed: list[Removal] = []
    changed: list[Change] = []
    seen = SeenTexts()
    for item in texts:
        caption = Caption(item, "raw") if isinstance(item, str) else item
        if not isinstance(caption, Caption):
            removed.append(Removal(type(item).__name__, "not-text", REASONS["not-text"]))
            continue
        text, steps, reason = judge(caption.text, kind)
        before = clean_text(caption.text)[0]
        twin = None if reason else seen.twin(text)
        if reason:
            removed.append(Removal(before, reason, REASONS[reason]))
        elif twin:
            removed.append(Removal(before, *twin))
        else:
            seen.add(text)
            same = text == caption.text
            source = "filtered" if caption.source == "raw" else caption.source
            kept.append(replace(caption, text=text, source=source, score=caption.score if same else None))
            changed += [] if same else [Change(before, text, steps)]
    return FilterReport(tuple(kept), tuple(removed), tuple(changed))


def judge(text: str, kind: Kind = "auto") -> tuple[str, tuple[str, ...], str | None]:
    """Clean one text and say whether it is worth keeping.

    Returns:
        The cleaned text, the steps that changed it, and a key of ``REASONS`` when it should be removed, else None.
    """
    current, notes = clean_text(text)
    steps = list(notes)
    reason = None if has_extension(current) else _reason(current)  # folders of a path may be named after packs
    for _ in range(_MAX_ROUNDS):  # a step may uncover work for another one; each round shortens or splits
        if reason or not (kind == "name" or (kind == "auto" and is_file_name(current))):
            break
        name, done = object_name(current)
        name, more = clean_text(name)
        reason = _reason(name) or reason
        if not name:
            reason = "id" if "id" in done else ("placeholder" if _letters(current) else "no-words")
        if name == current:
            break
        current = name
        steps += [*done, *more]
    return current, tuple(dict.fromkeys(steps)), reason


def captions_table(report: FilterReport) -> list[dict[str, str]]:
    """Before and after as rows for ``pandas.DataFrame``: one per text, removed ones included.

    Returns:
        Rows with ``before after status why``; status is kept, changed or removed. Texts may hold markup: whoever shows
        the rows escapes them, as pandas does by default.
    """
    changes = {change.after: change for change in report.changed}
    rows = []
    for caption in report.kept:
        before, after, steps = changes.get(caption.text, (caption.text, caption.text, ()))
        status = "changed" if after in changes else "kept"
        rows.append({"before": before, "after": after, "status": status, "why": ", ".join(steps)})
    for removal in report.removed:
        why = f"{removal.reason}: {removal.detail}"
        rows.append({"before": removal.text, "after": "", "status": "removed", "why": why})
    return rows


def _letters(text: str) -> list[str]:
    return [char for char in text if unicodedata.category(char)[0] == "L"]


def _reason(text: str) -> str | None:
    """The reason to remove a clean text, judged by itself."""
    if not text:
        return "empty"
    letters = _letters(text)
    if not letters:
        is_emoji = any(unicodedata.category(char) == "So" for char in text)
        return None if is_emoji else "no-words"
    if len(letters) == 1 and len(text.split()) == 1 and is_cased(letters[0]) and len(text) == 1:
        return "too-short"
    tokens = text.split()
    if all(is_id(token) for token in tokens):
        return "id"
    bare = [token.strip(".,;:!?()[]<>\"'-_#*").casefold() for token in tokens]
    bare_suffix = text.startswith(".") and text[1:].casefold() in EXTENSIONS
    if bare_suffix or all(token in PLACEHOLDERS or token.isdigit() or not token for token in bare):
        return "placeholder"
    if _SEVERAL.fullmatch(re.sub(r"[\W_]+", " ", text).strip()):
        return "several-objects"
    themed = len(bare) > 1 and bare[-1] in _PACK_ENDS and bare[-2] in _THEMES
    return "pack-name" if len(tokens) <= 8 and (themed or _PACK.search(text)) else None
