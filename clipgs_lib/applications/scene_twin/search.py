"""Which shape of a pool each object of a picture is: the recipe of Diorama, and what remains of it without parts."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...encoders import load_encoder
from ...evaluation import embed_set, load_teacher_of
from ...shards import ShardSet
from ...splats import Splats
from ...teachers import Teacher
from ...words import first_of
from .scenes import Scene, SceneObject

Mode = Literal["fused", "text", "image"]
MODES: tuple[Mode, ...] = ("fused", "text", "image")
BY_TEXT, KEEP = 50, 5  # candidates of the text that are ranked anew, and how many stay
CROP, MARGIN = 224, 12  # pixels of a crop, and of white around what it shows

_teacher = functools.lru_cache(maxsize=2)(load_teacher_of)


class Match(NamedTuple):
    """A shape of a pool for an object."""

    key: str
    category: str
    score: float  # the higher the better; a sum of cosines


@dataclass(frozen=True, eq=False)
class Pool:
    """N shapes that are searched, see `load_pool`."""

    keys: tuple[str, ...]
    categories: tuple[str, ...]
    embeds: Tensor  # [N, D] unit rows, by the encoder
    encoder: str  # its identity
    clean: Tensor  # [N] bool: those that objects may be which carry others
    owners: Mapping[str, ShardSet]  # key -> its set
    teacher: Teacher  # of pictures and words

    def splats(self, key: str) -> Splats:
        """A shape, the middle of its box at the origin and within the unit sphere, as sets hold it; else ValueError."""
        if key not in self.owners:
            raise ValueError(f"a shape must be one of the pool's {len(self.keys)}, got {key!r}; {first_of(self.keys)}")
        return self.owners[key].read(key).splats


def load_pool(
    sets: Sequence[str | os.PathLike[str]],
    *,
    large: Sequence[str | os.PathLike[str]] = (),
    encoder: str = "clipgs-mini",
    device: str = "cpu",
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Embed finished sets of one teacher as a pool to search.

    Args:
        sets: folders of clean objects, among which every object is searched.
        large: of further ones, among which objects are searched that carry no others.
        encoder: as `load_encoder` takes it; "bag-mean" is the bag of views.
        device: where encoder and teacher run.
        cache: folder for embeddings, see `evaluation.embed_set`.
        progress: called with objects embedded, and objects of the set.

    Raises:
        ShardError: for a set that is broken, or embedded by another teacher than the first.
        ValueError: when there is no object, or one key twice.
    """
    folders = [*sets, *large]
    shards = [ShardSet(folder) for folder in folders]
    rows = [row for one in shards for row in one.rows]
    if not rows or len({row["key"] for row in rows}) < len(rows) or shards[0].teacher is None:
        got = f"{len(rows)} in {first_of(folders) or 'no set'}, embedded by {shards[0].teacher if shards else None}"
        raise ValueError(f"a pool must hold embedded objects, no key twice, got {got}; name other sets")
    info = shards[0].teacher
    for other in shards[1:]:
        other.check_teacher(info.identity, info.dim)
    model = load_encoder(encoder, teacher=info.identity, embed_dim=info.dim, device=device)
    clean = torch.zeros(len(rows), dtype=torch.bool)
    clean[: sum(len(one) for one in shards[: len(sets)])] = True
    return Pool(
        keys=tuple(row["key"] for row in rows),
        categories=tuple(row["category"] for row in rows),
        embeds=torch.cat([embed_set(model, one, cache=cache, progress=progress) for one in shards]),
        encoder=model.identity,
        clean=clean,
        owners={row["key"]: one for one in shards for row in one.rows},
        teacher=_teacher(info, device=device),
    )


def crop(scene: Scene, one: SceneObject) -> np.ndarray:
    """An object alone ``[224, 224, 3]`` uint8: what its mask's box holds, over white, 12 pixels of it around."""
    rows, columns = np.nonzero(one.mask)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    alone = Image.fromarray(np.where(one.mask[..., None], scene.image, 255)[box].astype(np.uint8))
    factor = (CROP - 2 * MARGIN) / max(alone.size)
    size = max(1, round(alone.width * factor)), max(1, round(alone.height * factor))
    canvas = Image.new("RGB", (CROP, CROP), "white")
    canvas.paste(alone.resize(size, Image.Resampling.BICUBIC), ((CROP - size[0]) // 2, (CROP - size[1]) // 2))
    return np.array(canvas)


@functools.lru_cache(maxsize=8)
def queries(scene: Scene, teacher: Teacher) -> tuple[Tensor, Tensor]:
    """What a teacher makes of the names and of the crops of a scene's objects, ``[objects, D]`` each; kept."""
    texts = teacher.encode_text([f"A photo of {one.name}" if one.name else "A photo" for one in scene.objects])
    images = teacher.encode_image(np.stack([crop(scene, one) for one in scene.objects]))
    return texts.float().cpu(), images.float().cpu()


def retrieve(
    scene: Scene,
    pool: Pool,
    mode: Mode = "fused",
    *,
    carriers: Collection[int] = (),
    exclude: Collection[str] = (),
) -> dict[int, tuple[Match, ...]]:
    """The five best shapes for each object of a scene, best first (REFERENCE §5).

    ``"fused"``: the 50 shapes nearest to "A photo of {name}" are ranked anew by image·shape + text·shape; ``"text"``
    and ``"image"`` rank by one of them alone. An object without a name is ranked by its image.

    Args:
        scene: to search for.
        pool: what is searched.
        mode: see above.
        carriers: numbers of the objects that carry others; these search the clean part of the pool only.
        exclude: keys that must not be found.

    Raises:
        ValueError: for another mode, or when nothing of the pool is left.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    allowed = torch.tensor([key not in exclude for key in pool.keys])
    if not bool((allowed & pool.clean).any()):
        raise ValueError(f"the pool must hold clean objects that are not excluded, got none of {len(pool.keys)}")
    by_text, by_image = (rows @ pool.embeds.T for rows in queries(scene, pool.teacher))  # [objects, N]
    found = {}
    for row, one in enumerate(scene.objects):
        mine = allowed & pool.clean if one.number in carriers else allowed
        scores = {"text": by_text[row], "image": by_image[row], "fused": by_text[row] + by_image[row]}
        score = scores["image" if not one.name else mode].masked_fill(~mine, -torch.inf)
        if mode == "fused" and one.name:
            first = by_text[row].masked_fill(~mine, -torch.inf).topk(min(BY_TEXT, len(pool.keys))).indices
            score = torch.full_like(score, -torch.inf).scatter(0, first, score[first])
        best = score.topk(min(KEEP, int(mine.sum()))).indices.tolist()
        found[one.number] = tuple(Match(pool.keys[i], pool.categories[i], float(score[i])) for i in best)
    return found
