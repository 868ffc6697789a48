"""A set being curated: its embeddings, a text to start from, the labels so far; a manifest and a set come out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...encoders import load_encoder
from ...errors import ExplainedError
from ...evaluation import embed_set, load_teacher_of
from ...evaluation.evaluation_set import Progress
from ...files import file_sha256, write_text
from ...shards import ShardError, ShardSet, open_embedded
from ...shards.writer import write_set
from .labels import LabelFile, Stroke, contradictions, standing
from .ranking import LEAST, Ranking, Selection, ask_next, fit_ranking, select, text_features

FORMAT = "clipgs-curation/1"
MANIFEST = "curation.jsonl"


class Curation:
    """Find the objects of a set that a text means, by a few labels.

    Args:
        shards: the set, embedded by a teacher.
        positives: a text for what is looked for, the first ranking.
        labels: file of the labels; made by the first one, gone on with when it is there.
        encoder: who embeds, as `load_encoder` takes it; "bag-mean" is the mean of the set's embeddings of views.
        labeller: who labels; the user of the system when empty.
        device: of encoder and teacher.
        cache: folder in which embeddings are kept, see `embed_set`.
        seed: of folds and bootstraps.
        progress: called with objects embedded, and objects in all.

    Attributes:
        keys: N keys of the objects.
        ranking: of the last `refit`; None while there are too few labels of a kind, and the text ranks alone.
        scores: ``[N]`` by which the next objects are chosen.

    Raises:
        ShardError: when the set has no teacher, or is damaged.
        ValueError: when encoder or teacher cannot be had or do not fit.
    """

    def __init__(
        self,
        shards: ShardSet,
        positives: str,
        labels: str | os.PathLike[str],
        *,
        encoder: str = "clipgs-mini",
        labeller: str = "",
        device: str = "cpu",
        cache: str | os.PathLike[str] | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.shards, self.positives, self.encoder, self.seed = shards, positives, encoder, seed
        self.labels = LabelFile(labels, shards.manifest["content_sha256"], labeller)
        self.labels.read()  # another set's are refused before anything is embedded
        self.keys = [row["key"] for row in shards.rows]
        self._rows = {key: row for row, key in enumerate(self.keys)}
        embeds, query = embeds_of(shards, encoder, device, cache, progress), texts_of(shards, [positives], device)[0]
        self._features, self._text_scores = text_features(embeds, query)
        self._made = set[str]()  # ids of strokes by this window
        self.ranking: Ranking | None = None
        self.scores = self._text_scores
        self.refit()

    def answers(self) -> dict[str, Stroke]:
        """The stroke that holds for each labelled object, by all windows."""
        return {stroke.key: stroke for stroke in standing(self.labels.read())}

    def label(self, key: str, answer: Literal["yes", "no", "skip"]) -> Stroke:
        """Save what a person says of an object.

        Raises:
            ValueError: for an unknown key or answer.
        """
        if key not in self._rows or answer not in ("yes", "no", "skip"):
            raise ValueError(f"a label must be yes, no or skip for a key of the set, got {answer!r} for {key!r}")
        stroke = self.labels.add(key, answer)
        self._made.add(stroke.id)
        return stroke

    def undo(self) -> Stroke | None:
        """Take back this window's last stroke, or the labeller's last one of before; returns it, None without one."""
        answers = standing(self.labels.read())
        mine = [one for one in answers if one.id in self._made]
        mine = mine or [one for one in answers if one.labeller == self.labels.labeller]
        if not mine:
            return None
        self.labels.add(mine[-1].key, "undo", undoes=mine[-1].id)
        return mine[-1]

    def counts(self) -> Counter[str]:
        """How many objects are labelled yes, no and skip."""
        return Counter(stroke.answer for stroke in self.answers().values())

    def refit(self) -> Ranking | None:
        """Fit the classifier to all labels there are; None while there are too few of a kind."""
        said = {self._rows[key]: one.answer == "yes" for key, one in self.answers().items() if one.answer != "skip"}
        self.ranking, self.scores = None, self._text_scores
        if min(sum(said.values()), len(said) - sum(said.values())) >= LEAST:
            self.ranking = fit_ranking(self._features, list(said), list(said.values()), self.seed)
            self.scores = self.ranking.scores
        return self.ranking

    def ask(self, count: int) -> list[str]:
        """Keys to label next, see `ask_next`, none of them answered yet; by the text before there is a ranking."""
        free = np.ones(len(self.keys), bool)
        free[[self._rows[key] for key in self.answers()]] = False
        return [self.keys[row] for row in ask_next(self._features, self.scores, free, count)]

    def select(self, precision: float) -> Selection:
        """Fit anew and keep what meets a target precision, see `ranking.select`.

        Raises:
            ValueError: with too few labels of a kind, or a target out of range.
        """
        if self.refit() is None:
            counts = self.counts()
            got = f"{counts['yes']} yes and {counts['no']} no"
            raise ValueError(f"labels must hold at least {LEAST} yes and {LEAST} no, got {got}; label more (LabelGrid)")
        assert self.ranking is not None
        return select(self.ranking, precision, self.seed)

    def write(self, out: str | os.PathLike[str], precision: float, command: str = "") -> dict[str, Any]:
        """Write OUT/curation.jsonl, with score and reason of every object, and the kept ones as a set, OUT/set.

        The folder is made when missing; an earlier curation there is replaced. ``command`` is what makes this anew, for
        the head of the manifest, which is returned, see `read_manifest`. ValueError as `select`; ShardError when
        nothing is kept, an object is damaged or the disk is full.
        """
        selection, folder = self.select(precision), Path(out)
        assert self.ranking is not None
        strokes, by_key = standing(self.labels.read()), dict[str, list[Stroke]]()
        for stroke in strokes:
            by_key.setdefault(stroke.key, []).append(stroke)
        rows = [self._row(row, selection, by_key.get(key, [])) for row, key in enumerate(self.keys)]
        if not selection.kept.any():
            got, todo = f"no object at precision {precision}", "label more, or lower the target"
            raise ShardError(folder, "some object must be kept", got, todo)
        folder.mkdir(parents=True, exist_ok=True)
        head = {
            "format": FORMAT,
            "set": self.shards.folder.name,
            "gallery": self.labels.gallery,
            "positives": self.positives,
            "encoder": self.encoder,
            "labels_sha256": file_sha256(self.labels.path),
            "labels": dict(self.counts()),
            "contradictions": contradictions(strokes),
            "held_out_ap": asdict(self.ranking.ap),
            "target_precision": precision,
            "expected_precision": asdict(selection.precision),
            "threshold": round(selection.threshold, 6),
            "objects": len(rows),
            "kept": int(selection.kept.sum()),
            "kept_sha256": self._write_set(folder, selection.kept),
            "command": command,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        head["sha256"] = _digest(head, lines)
        write_text(folder / MANIFEST, json.dumps(head) + "\n" + lines)
        return head

    def _row(self, row: int, selection: Selection, strokes: Sequence[Stroke]) -> dict[str, Any]:
        assert self.ranking is not None
        chance, kept = float(self.ranking.probabilities[row]), bool(selection.kept[row])
        if strokes and strokes[-1].answer != "skip":
            reason = f"{strokes[-1].answer} by {strokes[-1].labeller}"
        else:
            reason = f"probability {chance:.3f} {'at least' if kept else 'below'} {selection.threshold:.3f}"
        facts = {"key": self.keys[row], "kept": kept, "probability": round(chance, 6), "reason": reason}
        return facts | {"labels": [{"answer": s.answer, "labeller": s.labeller, "time": s.time} for s in strokes]}

    def _write_set(self, folder: Path, kept: np.ndarray) -> str:
        """Write the kept objects beside OUT/set, then put them in its place; returns the hash of the content."""
        draft, place = folder / ".set.partial", folder / "set"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        build = self.shards.manifest["build"] | {"curated_from_sha256": self.labels.gallery}
        manifest = write_set(draft, (self.shards.block(int(row)) for row in np.flatnonzero(kept)), build=build)
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        return manifest["content_sha256"]


def read_manifest(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a manifest that `Curation.write` wrote: its head, and a row for each object.

    Raises:
        ExplainedError: when it is no such manifest, or was changed since.
    """
    first, _, lines = Path(path).read_text(encoding="utf-8").partition("\n")
    try:
        head, rows = json.loads(first), [json.loads(line) for line in lines.splitlines()]
        same = head["format"] == FORMAT and head.pop("sha256") == _digest(head, lines)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExplainedError(path, f"the manifest must be {FORMAT}", repr(error)[:200], "curate again") from None
    if not same:
        must, todo = "the manifest must have the sha256 in its head", "it was edited; curate again, or put the old back"
        raise ExplainedError(path, must, "another", todo)
    return head, rows


def _digest(head: dict[str, Any], lines: str) -> str:
    return hashlib.sha256((json.dumps(head) + "\n" + lines).encode()).hexdigest()


def embeds_of(
    shards: ShardSet,
    encoder: str,
    device: str = "cpu",
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Unit rows ``[N, D]`` of all objects of a set, see `Curation` for the arguments."""
    _, teacher = open_embedded([shards.folder])
    loaded = load_encoder(encoder, device, teacher=teacher.identity, embed_dim=teacher.dim)
    return embed_set(loaded, shards, cache=cache, progress=progress).numpy()


def texts_of(shards: ShardSet, texts: Sequence[str], device: str = "cpu") -> np.ndarray:
    """The embeddings ``[T, D]`` of texts by the teacher of a set."""
    if not all(text.strip() for text in texts):
        raise ValueError("a text must say what is looked for, got none")
    assert shards.teacher is not None
    return load_teacher_of(shards.teacher, device=device).encode_text(list(texts)).float().cpu().numpy()
