"""The twin: objects of a picture are searched in a pool by Diorama's recipe, and placed; all become one splat scene."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.ndimage import binary_dilation, distance_transform_edt
from torch import Tensor

from ...encoders import Encoder, load_encoder
from ...evaluation import embed_set, load_teacher_of
from ...files import write_text
from ...formats import write_splats
from ...rendering import contact_sheet, render, save_png
from ...shards import ShardSet
from ...splats import Splats
from ...teachers import Teacher
from ...triplets import BuildConfig
from ...triplets.stages import draw_views
from ...words import first_of
from .placement import Fit, arrange, carriers, find_supports, fit_pose, overlaps
from .scenes import FLOOR, WALL, Pose, Scene, SceneObject

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
    encoder: Encoder
    clean: Tensor  # [N] bool: those that objects may be which carry others
    owners: Mapping[str, ShardSet]  # key -> its set
    teacher: Teacher  # of pictures and words

    def splats(self, key: str) -> Splats:
        """A shape, the middle of its box at the origin and within the unit sphere, as sets hold it; else ValueError."""
        if key not in self.owners:
            raise ValueError(f"a shape must be one of the pool's {len(self.keys)}, got {key!r}; {first_of(self.keys)}")
        return self.owners[key].read(key).splats

    def embed(self, shapes: Sequence[Splats]) -> Tensor:
        """Embed shapes of the unit sphere ``[B, D]`` as those of the pool were."""
        views = self.encoder.inputs == "views"
        read = [draw_views(shape, BuildConfig())[1] if views else shape for shape in shapes]
        return self.encoder.encode(read).float().cpu()


def load_pool(
    sets: Sequence[str | os.PathLike[str]],
    *,
    large: Sequence[str | os.PathLike[str]] = (),
    encoder: str = "duoduo-mini",
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
    return Pool(
        keys=tuple(row["key"] for row in rows),
        categories=tuple(row["category"] for row in rows),
        embeds=torch.cat([embed_set(model, one, cache=cache, progress=progress) for one in shards]),
        encoder=model,
        clean=torch.arange(len(rows)) < sum(len(one) for one in shards[: len(sets)]),
        owners={row["key"]: one for one in shards for row in one.rows},
        teacher=_teacher(info, device=device),
    )


def crop(scene: Scene, one: SceneObject) -> np.ndarray:
    """An object alone ``[224, 224, 3]`` uint8: what its mask's box holds, over white, 12 pixels of it around."""
    rows, columns = np.nonzero(one.mask)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    alone = Image.fromarray(np.where(one.mask[..., None], scene.image, 255)[box].astype(np.uint8))
    inside = ImageOps.pad(alone, (CROP - 2 * MARGIN, CROP - 2 * MARGIN), color="white")
    return np.array(ImageOps.expand(inside, MARGIN, "white"))


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
    texts, images = queries(scene, pool.teacher)
    if cuts := [one.cut for one in scene.objects if one.cut is not None]:
        images = pool.embed(cuts)
    by_text, by_image = texts @ pool.embeds.T, images @ pool.embeds.T  # [objects, N]
    ranked = {}
    for row, one in enumerate(scene.objects):
        mine = allowed & pool.clean if one.number in carriers else allowed
        scores = {"text": by_text[row], "image": by_image[row], "fused": by_text[row] + by_image[row]}
        score = scores["image" if not one.name else mode].masked_fill(~mine, -torch.inf)
        if mode == "fused" and one.name:
            first = by_text[row].masked_fill(~mine, -torch.inf).topk(min(BY_TEXT, len(pool.keys))).indices
            score = torch.full_like(score, -torch.inf).scatter(0, first, score[first])
        best = score.topk(min(KEEP, int(mine.sum()))).indices.tolist()
        ranked[one.number] = tuple(Match(pool.keys[i], pool.categories[i], float(score[i])) for i in best)
    return ranked


@dataclass(frozen=True, eq=False)
class Twin:
    """What stands where, by the numbers of the scene's objects."""

    scene: Scene
    matches: Mapping[int, tuple[Match, ...]]  # what was retrieved, best first
    chosen: Mapping[int, str]  # key of the shape that stands there
    shapes: Mapping[int, Splats]  # in the unit sphere
    supports: Mapping[int, int]  # what it stands on: a number, `FLOOR` or `WALL`
    fits: Mapping[int, Fit]  # by the picture alone
    poses: Mapping[int, Pose]  # set upon each other and pushed apart

    def searched(self, pool: Pool, mode: Mode = "fused", progress: Callable[[int, int], None] | None = None) -> Twin:
        """Take for every object what is best of the pool, as `retrieve` and `changed`; others keep their fit.

        Objects that carry others search the clean part of the pool only.
        """
        carrying = {below for number in self.supports for below in carriers(number, self.supports)}
        matches = retrieve(self.scene, pool, mode, carriers=carrying)
        best = {number: candidates[0].key for number, candidates in matches.items()}
        return replace(self, matches=matches).changed(pool, best, progress=progress)

    def changed(
        self,
        pool: Pool,
        choice: Mapping[int, str] | None = None,
        moved: Mapping[int, Pose] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Twin:
        """Take other shapes for some objects, stand some elsewhere, and set all straight again; others keep their fit.

        Args:
            pool: which holds the shapes.
            choice: number -> key of a shape, which is fitted to the picture.
            moved: number -> where an object is to stand, whatever the picture shows.
            progress: called with shapes fitted, and shapes to fit.

        Raises:
            ValueError: for a number that no object has, or a key that the pool does not hold.
        """
        objects, choice, moved = {one.number: one for one in self.scene.objects}, choice or {}, moved or {}
        if unknown := [number for number in (*choice, *moved) if number not in objects]:
            raise ValueError(f"objects to change must be among {first_of(objects)}, got {first_of(unknown)}")
        new = {number: key for number, key in choice.items() if self.chosen.get(number) != key}
        shapes = {**self.shapes} | {number: pool.splats(key) for number, key in new.items()}
        fits = {**self.fits}
        for done, number in enumerate(new, 1):
            floor = self.supports[number] == FLOOR
            fits[number] = fit_pose(self.scene, objects[number], shapes[number], on_floor=floor)
            if progress:
                progress(done, len(new))
        fits |= {number: fits[number]._replace(pose=pose) for number, pose in moved.items()}
        poses = arrange({number: fit.pose for number, fit in fits.items()}, shapes, self.supports)
        return replace(self, chosen={**self.chosen} | new, shapes=shapes, fits=fits, poses=poses)

    def splats(self, poses: Mapping[int, Pose] | None = None) -> Splats:
        """All shapes as one scene in metres, +y up; at other poses when given."""
        placed = self.poses if poses is None else poses
        parts = [replace(self.shapes[n].transform(pose.matrix()), up_axis="+y") for n, pose in placed.items()]
        return replace(Splats.cat(parts), source=f"twin of {self.scene.name}")

    def draw(self, poses: Mapping[int, Pose] | None = None) -> Tensor:
        """The twin ``[H, W, 3]`` in ``[0, 1]`` through the scene's camera, before the picture without its objects."""
        objects = np.any([one.mask for one in self.scene.objects], axis=0)
        objects = binary_dilation(objects, iterations=2)  # their soft edges too
        _, (rows, columns) = distance_transform_edt(objects, return_indices=True)
        behind = self.scene.colors[rows, columns]
        with torch.no_grad():
            out = render(self.splats(poses), *self.scene.camera)
        return (out.colors[0] + (1 - out.alphas[0]) * behind).clamp(0, 1)

    def picture(self) -> Tensor:
        """The scene, the shapes at their first places and the twin side by side, with a line below each."""
        starts = {number: fit.start for number, fit in self.fits.items()}
        texts = ("picture", "shapes at the best of the yaws tried", "refined, set upon each other and pushed apart")
        return contact_sheet([self.scene.colors, self.draw(starts), self.draw()], 3, captions=texts)

    def graph(self) -> dict[str, Any]:
        """What stands where and on what, as JSON; ``overlaps`` are pairs that could not be pushed apart."""
        words = {FLOOR: "floor", WALL: "wall"}
        rows = [
            {
                "number": one.number,
                "name": one.name,
                "key": self.chosen[one.number],
                "support": words.get(self.supports[one.number], self.supports[one.number]),
                "pose": asdict(self.poses[one.number]),
                "agreement": round(self.fits[one.number].agreement, 4),
                "candidates": [match._asdict() for match in self.matches.get(one.number, ())],
            }
            for one in self.scene.objects
        ]
        return {"scene": self.scene.name, "objects": rows, "overlaps": overlaps(self.poses, self.shapes, self.supports)}

    def save(self, folder: str | os.PathLike[str], *, name: str = "twin.ply") -> Path:
        """Write the merged splats (``name`` chooses the format), ``graph.json`` and ``before_after.png``."""
        top = Path(folder)
        top.mkdir(parents=True, exist_ok=True)
        write_splats(self.splats(), top / name)
        write_text(top / "graph.json", json.dumps(self.graph(), indent=1) + "\n")
        save_png(top / "before_after.png", self.picture())
        return top


def make_twin(
    scene: Scene, pool: Pool, mode: Mode = "fused", *, progress: Callable[[int, int], None] | None = None
) -> Twin:
    """Search, place and set straight: all steps of a twin. ``progress`` hears of objects placed, and objects in all."""
    return Twin(scene, {}, {}, {}, find_supports(scene), {}, {}).searched(pool, mode, progress)
