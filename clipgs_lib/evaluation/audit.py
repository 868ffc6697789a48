"""What is wrong with a set: leaks between its splits, labels and captions that mislead; and what to do about it.

Everything is judged by what the set holds: the groups of its shapes, its pictures, and the teacher's embeddings. A
finding is a suspicion for a person to look at, so the page shows pictures; only the proposed split is meant to be
taken as it is.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..files import write_text
from ..shards import ShardSet
from ..triplets.inspection import render_page
from ..vectors import unit
from .evaluation_set import EvaluationSet, Progress, load_set

ORDER = ("test", "val", "unseen", "train")  # a group of near-duplicates goes to the first of its splits
SHOWN = 40  # findings of a kind on the page; all are in the JSON
MOST_OTHERS = 20  # objects that stand out for a text of others, in masks
_SIDE = 12  # pixels of the pictures that are compared
_PICTURES = 4  # of each object
_BLOCK = 1_024  # objects compared at a time


@dataclass(frozen=True)
class AuditConfig:
    """From where on something is a finding."""

    cosine: float = 0.98  # of two objects' mean embeddings: near-duplicates
    difference: float = 0.12  # of two objects' pictures, relative to what is drawn in them: near-duplicates
    neighbours: int = 8  # whose labels are asked
    agreement: float = 0.6  # share of their votes that another label needs
    behind: float = 5.0  # times the rank of the neighbours' label that an object's label must have in zero-shot
    related: float = 0.8  # cosine of two labels from which they are other words for one thing

    def __post_init__(self) -> None:
        shares = ("cosine", "difference", "agreement", "related")
        if bad := [name for name in shares if not 0 < getattr(self, name) <= 1]:
            raise ValueError(f"{bad[0]} must be in (0, 1], got {getattr(self, bad[0])}")
        if self.neighbours < 1 or self.behind < 1:
            raise ValueError(f"neighbours and behind must be at least 1, got {self.neighbours} and {self.behind}")


@dataclass(frozen=True)
class Duplicate:
    """Two objects of different splits that are nearly the same."""

    keys: tuple[str, str]
    splits: tuple[str, str]
    by: tuple[str, ...]  # of geometry, pictures, embeddings
    cosine: float  # of their mean embeddings


@dataclass(frozen=True)
class SharedCaption:
    """A text of objects with different labels."""

    text: str
    keys: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class WrongLabel:
    """An object whose neighbours say that it is something else."""

    key: str
    label: str
    rank: int  # of its label in zero-shot, from 1
    said: str  # by the neighbours
    said_rank: int
    share: float  # of the neighbours' votes
    neighbours: tuple[str, ...]


@dataclass(frozen=True)
class TrueOfSeveral:
    """A text that other objects stand out for, but not its own: no negative for them in training, and ambiguous."""

    text: str
    keys: tuple[str, ...]  # whose it is
    others: tuple[str, ...]  # at most `MOST_OTHERS`, best first
    count: int  # of all others


@dataclass(frozen=True)
class Audit:
    """All findings in a set of ``objects``, and the proposals that follow from them."""

    folder: str
    content_sha256: str
    objects: int
    config: AuditConfig
    duplicates: tuple[Duplicate, ...]
    captions: tuple[SharedCaption, ...]
    labels: tuple[WrongLabel, ...]
    texts: tuple[TrueOfSeveral, ...]
    split: dict[str, str]  # key -> split, of those objects that should move

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.duplicates or self.captions or self.labels or self.texts)

    def masks(self) -> dict[str, list[str]]:
        """Text -> keys of objects that are no negatives for it, beside those whose it is."""
        return {finding.text: list(finding.others) for finding in self.texts}

    def facts(self) -> dict[str, str]:
        """Name -> how many, ready to print."""
        return {
            "near-duplicates": f"{len(self.duplicates):,} pairs in different splits; {len(self.split):,} should move",
            "shared captions": f"{len(self.captions):,} texts of objects with different labels",
            "wrong labels": f"{len(self.labels):,} suspected",
            "several": f"{len(self.texts):,} texts fit a few others far better than their own",
        }

    def __str__(self) -> str:
        lines = [f"{self.folder}: {self.objects:,} objects"]
        return "\n".join([*lines, *(f"  {name:<16}{text}" for name, text in self.facts().items())])


def audit_set(
    folder: str | os.PathLike[str], config: AuditConfig | None = None, progress: Progress | None = None
) -> Audit:
    """Look for faults in a finished set with embeddings.

    ``progress`` is called with objects read and objects in all; each is read twice. ShardError for a set that is broken
    or has no embeddings; ValueError when it has fewer than 2 objects.
    """
    config = config or AuditConfig()
    objects = load_set([folder], progress=progress)
    [shards] = objects.shards
    groups, inks = [], []
    for number, key in enumerate(objects.names):
        triplet = shards.read(key)
        groups.append(str(triplet.provenance.get("group", "")))
        every = np.linspace(0, len(triplet.views) - 1, _PICTURES).round().astype(int).tolist()
        inks.append(_ink(triplet.images(every)))
        if progress:
            progress(number + 1, len(objects))
    splits = [row["split"] for row in shards.rows]
    bag = objects.bag()
    pairs = _near(bag, torch.stack(inks), groups, splits, config)
    names, texts = objects.names, bag @ objects.texts.T  # [N, T]
    return Audit(
        folder=str(folder),
        content_sha256=shards.manifest["content_sha256"],
        objects=len(objects),
        config=config,
        duplicates=tuple(
            Duplicate((names[i], names[j]), (splits[i], splits[j]), by, round(float(bag[i] @ bag[j]), 4))
            for (i, j), by in pairs.items()
        ),
        captions=tuple(_shared(objects)),
        labels=tuple(_wrong(objects, bag, groups, config)),
        texts=tuple(_several(objects, texts)),
        split=_cleaned(names, splits, pairs),
    )


def _ink(pictures: np.ndarray) -> Tensor:
    """What is drawn on white, small: ``[V, H, W, 3]`` uint8 -> ``[V * 12 * 12 * 3]``."""
    values = 1 - torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.adaptive_avg_pool2d(values, _SIDE).flatten()


def _near(
    bag: Tensor, inks: Tensor, groups: list[str], splits: list[str], config: AuditConfig
) -> dict[tuple[int, int], tuple[str, ...]]:
    """Pairs of near-duplicates in different splits, with what says so."""
    group = torch.tensor(np.unique(groups, return_inverse=True)[1])
    named = torch.tensor([bool(name) for name in groups])
    split = torch.tensor(np.unique(splits, return_inverse=True)[1])
    lengths = inks.norm(dim=1)
    pairs: dict[tuple[int, int], tuple[str, ...]] = {}
    for start in range(0, len(bag), _BLOCK):
        rows = slice(start, start + _BLOCK)
        apart = torch.cdist(inks[rows], inks) <= config.difference * torch.maximum(lengths[rows, None], lengths)
        kinds = {
            "geometry": (group[rows, None] == group) & named[rows, None],
            "pictures": apart,
            "embeddings": bag[rows] @ bag.T >= config.cosine,
        }
        across = split[rows, None] != split
        across &= torch.arange(len(bag)) > torch.arange(len(bag))[rows, None]
        for i, j in ((torch.stack(list(kinds.values())).any(dim=0) & across).nonzero()).tolist():
            pairs[start + i, j] = tuple(name for name, mask in kinds.items() if mask[i, j])
    return pairs


def _shared(objects: EvaluationSet) -> Iterable[SharedCaption]:
    """Texts whose objects have different labels, those of most labels first; frames about a label say it anyway."""
    findings = []
    for text, owners in zip(objects.captions, objects.owners, strict=True):
        numbers = owners.nonzero().flatten().tolist()
        labels = tuple(sorted({objects.labels[i] for i in numbers if objects.labels[i]}, key=str.casefold))
        if len({label.casefold() for label in labels}) > 1:
            findings.append(SharedCaption(text, tuple(objects.names[i] for i in numbers), labels))
    return sorted(findings, key=lambda finding: (-len(finding.labels), finding.text))


def _wrong(objects: EvaluationSet, bag: Tensor, groups: list[str], config: AuditConfig) -> Iterable[WrongLabel]:
    """Objects that neighbours of other shapes call otherwise, and so do the words, as in confident learning.

    The label's words are the caption that says just it, or else the mean of the texts of its objects.
    """
    labels = [label.strip().casefold() for label in objects.labels]
    classes = sorted(set(labels) - {""})
    if len(classes) < 2:
        return
    place = {text: row for row, text in enumerate(objects.captions)}
    rows = []
    for name in classes:
        theirs = torch.tensor([label == name for label in labels])
        whole = objects.texts[objects.owners[:, theirs].any(dim=1)].mean(dim=0)
        rows.append(objects.texts[place[name]] if name in place else whole)
    words = unit(torch.stack(rows))  # [C, D]
    scores, alike = bag @ words.T, words @ words.T
    group = torch.tensor(np.unique([name or f"#{i}" for i, name in enumerate(groups)], return_inverse=True)[1])
    silent = torch.tensor([label == "" for label in labels])
    for i, label in enumerate(labels):
        if not label:
            continue
        near = (bag @ bag[i]).masked_fill(silent | (group == group[i]), -2.0)  # twins share their error: out of fold
        close = [j for j in near.topk(min(config.neighbours, len(labels))).indices.tolist() if near[j] > -2]
        votes = [labels[j] for j in close]
        if not votes:
            continue
        said = max(sorted(set(votes)), key=votes.count)
        mine, theirs_at = classes.index(label), classes.index(said)
        rank, said_rank = (1 + int((scores[i] > scores[i, at]).sum()) for at in (mine, theirs_at))
        share = votes.count(said) / len(votes)
        related = alike[mine, theirs_at] >= config.related
        if label not in votes and share >= config.agreement and rank >= config.behind * said_rank and not related:
            keys = tuple(objects.names[j] for j in close)
            yield WrongLabel(objects.names[i], objects.labels[i], rank, said, said_rank, round(share, 3), keys)


def _several(objects: EvaluationSet, scores: Tensor) -> Iterable[TrueOfSeveral]:
    """Texts that other objects stand out for and none of their own does, by ``scores [N, T]``; of most others first.

    Others stand out where a normal distribution of the N scores would put the best of N only once in twenty texts; own
    ones do not where even the best of them fits no better than the set's mean. The rank alone says nothing: texts that
    the teacher knows little of fit hundreds of objects a little better than their own.
    """
    deviations = (scores - scores.mean(dim=0)) / scores.std(dim=0)  # [N, T]
    lost = deviations.masked_fill(~objects.owners.T, -torch.inf).amax(dim=0) < 0  # [T]
    better = (deviations > stats.norm.isf(0.05 / len(objects))) & lost
    findings = []
    for t in better.any(dim=0).nonzero().flatten().tolist():
        count, order = int(better[:, t].sum()), scores[:, t].argsort(descending=True)
        mine, best = objects.owners[t].nonzero().flatten(), order[: min(count, MOST_OTHERS)]
        keys, others = (tuple(objects.names[i] for i in part.tolist()) for part in (mine, best))
        findings.append(TrueOfSeveral(objects.captions[t], keys, others, count))
    return sorted(findings, key=lambda finding: (-finding.count, finding.text))


def _cleaned(names: tuple[str, ...], splits: list[str], pairs: Iterable[tuple[int, int]]) -> dict[str, str]:
    """Where objects should move so that no near-duplicates are in different splits; nothing moves into training."""
    edges = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(names), len(names)))
    _, together = connected_components(graph, directed=False)
    order = {split: number for number, split in enumerate([*ORDER, *sorted(set(splits) - set(ORDER))])}
    first: dict[int, str] = {}
    for one, split in zip(together.tolist(), splits, strict=True):
        first[one] = min(first.get(one, split), split, key=order.__getitem__)
    goals = [first[one] for one in together.tolist()]
    return {name: goal for name, split, goal in zip(names, splits, goals, strict=True) if goal != split}


def write_audit(audit: Audit, out: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``audit.json`` with everything, and ``audit.html`` with pictures of the first findings of each kind.

    Returns:
        The paths of both.
    """
    top, shards = Path(out), ShardSet(audit.folder)
    top.mkdir(parents=True, exist_ok=True)

    def view(key: str) -> str:
        """The first view of an object as base64; empty when it has none."""
        views = shards.read(key).views
        return base64.b64encode(views[0]).decode() if views else ""

    rows = {row["key"]: row for row in shards.rows}
    facts = {"name": shards.folder.resolve().name, "audit": audit, "most": SHOWN, "rows": rows, "view": view}
    plain = asdict(audit) | {"masks": audit.masks()}
    write_text(top / "audit.json", json.dumps(plain, indent=1, ensure_ascii=False))
    write_text(top / "audit.html", render_page("audit.html.j2", **facts).decode())
    return top / "audit.json", top / "audit.html"
