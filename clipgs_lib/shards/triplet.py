"""One object of a shard: splat, views, texts, embeddings and where they came from; its bytes and back.

Members of object ``KEY`` in a shard, in this order:

==========================  ========================================================================================
``KEY.meta.json``           ``schema``, ``category``, ``split``, ``teacher`` (``{"identity", "dim"}`` or null),
                            ``up_axis``, ``provenance`` (source, licence, cameras, psnr, ...), ``sha256`` per member
``KEY.splat.safetensors``   ``means quats scales opacities sh0 shN`` as float16; scales and opacities linear
``KEY.texts.json``          list of ``{"text", "source", "score"}``
``KEY.embeds.safetensors``  ``image_embeds [V, D]`` and ``text_embeds [T, D]``, float16, unit rows; left out when the
                            set was built without a teacher
``KEY.view000.webp`` ...    one WebP per view, in the order of ``provenance.cameras``
==========================  ========================================================================================

Nothing here is ever unpickled: JSON, safetensors and WebP are the only decoders, each behind limits.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import safetensors
import torch
from PIL import Image
from safetensors import numpy as safe_numpy

from ..captions.caption import Caption
from ..splats import COLUMNS, UP_AXES, Splats
from ..vectors import UNIT_TOLERANCE
from ..words import plural
from .tar import KEY, ShardError, pack_members, unpack_members

SCHEMA = "clipgs-triplet/1"
MAX_TEXT = 20_000  # characters of one text
MAX_TEXTS = 1_000
MAX_VIEWS = 1_000
MAX_SIDE = 4_096  # pixels of a view
_PARTS = re.compile(r"meta\.json|splat\.safetensors|texts\.json|embeds\.safetensors|view\d{3}\.webp")
_SPLIT = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")
_EMBEDS = ("image_embeds", "text_embeds")


@dataclass(frozen=True)
class TeacherInfo:
    """Which teacher made the embeddings."""

    identity: str  # as `Teacher.identity` says it
    dim: int  # D, columns of the embeddings

    def __str__(self) -> str:
        return f"{self.identity} (D = {self.dim})"

    @classmethod
    def parse(cls, value: Any) -> TeacherInfo | None:
        """Out of JSON; None for null, TypeError for anything else than that or ``{"identity", "dim"}``."""
        if value is None:
            return None
        if isinstance(value, dict) and isinstance(value.get("identity"), str) and type(value.get("dim")) is int:
            return cls(value["identity"], value["dim"])
        raise TypeError("teacher must be null or {identity, dim}")


@dataclass(frozen=True, eq=False)
class Triplet:
    """One object as it lies in a shard: splat, views, texts, and embeddings of views and texts."""

    key: str  # unique in its set
    splats: Splats  # float16 precision after reading
    views: tuple[bytes, ...]  # one WebP per view; `images` decodes them
    texts: tuple[Caption, ...]  # at least one
    category: str  # label for zero-shot evaluation, "" when unknown
    split: str  # "train", "val", "test", ...
    provenance: dict[str, Any] = field(default_factory=dict)  # source, licence, cameras, psnr, ...; plain JSON
    teacher: TeacherInfo | None = None
    image_embeds: np.ndarray | None = None  # [V, D] float16, unit rows
    text_embeds: np.ndarray | None = None  # [T, D] float16, unit rows

    @property
    def caption(self) -> str:
        """The first text that says more than the label, or the label where there is no other."""
        return self.texts[:2][-1].text

    def images(self, which: Sequence[int] | None = None) -> np.ndarray:
        """Decode views: ``[V, H, W, 3]`` uint8, all or those at the indices ``which``.

        Raises:
            ShardError: for a view that is no intact WebP of a permitted size.
        """
        chosen = range(len(self.views)) if which is None else which
        return np.stack([decode_view(self.views[i], f"{self.key}.view{i:03d}.webp") for i in chosen])

    def __repr__(self) -> str:
        lists = ((self.splats, "gaussian"), (self.views, "view"), (self.texts, "text"))
        sizes = ", ".join(plural(len(items), noun) for items, noun in lists)
        teacher = f"embedded by {self.teacher}" if self.teacher else "without embeddings"
        return f"Triplet({self.key!r}, {self.category or 'no category'}, {self.split}: {sizes}, {teacher})"


def encode_view(image: np.ndarray, quality: int = 90) -> bytes:
    """WebP bytes of a picture ``[H, W, 3]`` uint8, the same for the same picture; ShardError for another array."""
    fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not fits or not all(1 <= side <= MAX_SIDE for side in image.shape[:2]):
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ShardError("view", f"a view must be uint8 [H, W, 3] with sides up to {MAX_SIDE}", got, "convert it")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def decode_view(data: bytes, where: str) -> np.ndarray:
    """Picture ``[H, W, 3]`` uint8 out of WebP bytes, its size checked first; ShardError naming ``where``."""
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
            frames = getattr(picture, "n_frames", 1)
            if max(picture.size) > MAX_SIDE or frames != 1:
                got = f"{picture.width} x {picture.height}, {frames} frames"
                raise ShardError(where, f"a view must be a still of at most {MAX_SIDE} pixels a side", got, "refused")
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ShardError(where, "a view must be an intact WebP", str(error)[:200], "fetch the shard again") from None


def encode_triplet(triplet: Triplet, splat: bytes | None = None) -> bytes:
    """The bytes of one object in a shard, after checking everything the reader will check; equal in, equal out.

    ``splat`` is the member of its splats where that is at hand, to go over byte for byte. ShardError, naming the
    object, when a value is not finite or outside float16, an embedding is not unit-norm, or counts and dimensions do
    not agree.
    """
    where = f"object {triplet.key}"
    _check(triplet, where)
    parts = {"splat.safetensors": _encode_splats(triplet.splats, where) if splat is None else splat}
    parts["texts.json"] = _json([{"text": c.text, "source": c.source, "score": c.score} for c in triplet.texts], where)
    if triplet.teacher is not None:
        embeds = {name: np.ascontiguousarray(getattr(triplet, name)) for name in _EMBEDS}
        parts["embeds.safetensors"] = safe_numpy.save(embeds)
    parts |= {f"view{index:03d}.webp": data for index, data in enumerate(triplet.views)}
    meta = {
        "schema": SCHEMA,
        "category": triplet.category,
        "split": triplet.split,
        "teacher": asdict(triplet.teacher) if triplet.teacher else None,
        "up_axis": triplet.splats.up_axis,
        "provenance": triplet.provenance,
        "sha256": {part: hashlib.sha256(data).hexdigest() for part, data in parts.items()},
    }
    return pack_members(triplet.key, [("meta.json", _json(meta, where)), *parts.items()])


def decode_triplet(block: bytes, where: str, *, verify: bool = True) -> Triplet:
    """One object out of its bytes in a shard, from its first header to its last byte.

    ``where`` is the shard's name; ShardError names it and the member, for whatever `encode_triplet` would not have
    written. ``verify`` compares the other members with their hashes in ``meta.json``.
    """
    key, parts = "", dict[str, memoryview]()
    for owner, part, data in unpack_members(block, where):
        if not _PARTS.fullmatch(part):
            must = "members must be the JSON, safetensors and WebP of the schema"
            todo = "refused; nothing is ever unpickled or run"
            raise ShardError(f"{where}, member {owner}.{part}", must, part, todo)
        if parts and (part in parts or owner != key):
            must, todo = f"one object must follow another, here {key}", "the index does not fit"
            raise ShardError(f"{where}, member {owner}.{part}", must, owner, todo)
        key, parts[part] = owner, data
    if not parts:
        raise ShardError(where, "an object must have members", "none", "the index does not fit the shard")
    where = f"{where}, member {key}"
    meta = _read_meta(parts, f"{where}.meta.json")
    if verify:
        for part, digest in meta["sha256"].items():
            if hashlib.sha256(parts[part]).hexdigest() != digest:
                must = "the member must have the sha256 in meta.json"
                raise ShardError(f"{where}.{part}", must, "another", "fetch the shard again")
    embeds = dict[str, np.ndarray]()
    if meta["teacher"] is not None:
        embeds = _tensors(parts["embeds.safetensors"], _EMBEDS, f"{where}.embeds.safetensors")
    triplet = Triplet(
        key=key,
        splats=_decode_splats(parts["splat.safetensors"], meta["up_axis"], f"{where}.splat.safetensors", key),
        views=tuple(bytes(parts[part]) for part in sorted(parts) if part.startswith("view")),
        texts=_captions(_load_json(parts["texts.json"], f"{where}.texts.json", list), f"{where}.texts.json"),
        category=meta["category"],
        split=meta["split"],
        provenance=meta["provenance"] if isinstance(meta.get("provenance"), dict) else {},
        teacher=meta["teacher"],
        **embeds,
    )
    _check(triplet, where)
    return triplet


def _read_meta(parts: Mapping[str, memoryview], where: str) -> dict[str, Any]:
    """What ``meta.json`` says, its teacher parsed, once it says enough and fits the members beside it."""
    if "meta.json" not in parts:
        raise ShardError(where, "an object must have this member", "none", "the shard is incomplete")
    meta = _load_json(parts["meta.json"], where, dict)
    if meta.get("schema") != SCHEMA:
        got, todo = repr(meta.get("schema"))[:60], "another version wrote it; rebuild the set, or update clipgs_lib"
        raise ShardError(where, f"schema must be {SCHEMA!r}", got, todo)
    try:
        teacher = TeacherInfo.parse(meta.get("teacher"))
    except TypeError as error:
        raise ShardError(where, str(error), repr(meta["teacher"])[:100], "rebuild the shard") from None
    for part in ("splat.safetensors", "texts.json", *(["embeds.safetensors"] if teacher else [])):
        if part not in parts:
            missing = where.removesuffix("meta.json") + part
            raise ShardError(missing, "an object must have this member", "none", "the shard is incomplete")
    there, hashes = sorted(set(parts) - {"meta.json"}), meta.get("sha256")
    if not isinstance(hashes, dict) or there != sorted(hashes):
        got = f"{there} beside hashes of {sorted(hashes) if isinstance(hashes, dict) else hashes}"[:300]
        raise ShardError(where, "the members must be those that meta.json names", got, "the object is incomplete")
    for name in ("category", "split"):
        if not isinstance(meta.get(name), str) or len(meta[name]) > 1_000:
            raise ShardError(where, f"{name} must be a short string", repr(meta.get(name))[:100], "rebuild")
    if meta.get("up_axis") not in UP_AXES:
        raise ShardError(where, f"up_axis must be one of {', '.join(UP_AXES)}", repr(meta.get("up_axis"))[:60])
    return meta | {"teacher": teacher}


def _check(triplet: Triplet, where: str) -> None:
    """Raise `ShardError` unless counts, dimensions, norms and ranges hold."""
    if not KEY.fullmatch(triplet.key) or not _SPLIT.fullmatch(triplet.split):
        got = f"key {triplet.key!r}, split {triplet.split!r}"
        raise ShardError(where, "key and split must be plain words (split: a-z 0-9 _)", got, "rename")
    if not 1 <= len(triplet.views) <= MAX_VIEWS or not 1 <= len(triplet.texts) <= MAX_TEXTS:
        got = f"{len(triplet.views)} views and {len(triplet.texts)} texts"
        raise ShardError(where, f"1..{MAX_VIEWS} views and 1..{MAX_TEXTS} texts are needed", got, "add or drop some")
    for caption in triplet.texts:
        if not caption.text.strip() or len(caption.text) > MAX_TEXT:
            got = f"{len(caption.text):,} characters, {len(caption.text.strip()):,} without space at the ends"
            raise ShardError(where, f"a text must have 1 to {MAX_TEXT:,} characters", got, "filter the captions")
    if len(triplet.splats) == 0:
        raise ShardError(where, "a splat must have at least one gaussian", "none", "leave the object out")
    for name, items in zip(_EMBEDS, (triplet.views, triplet.texts), strict=True):
        embeds = getattr(triplet, name)
        if triplet.teacher is None:
            if embeds is not None:
                raise ShardError(where, f"{name} must name their teacher", "none", "set teacher=TeacherInfo(...)")
            continue
        shape = (len(items), triplet.teacher.dim)
        if not isinstance(embeds, np.ndarray) or embeds.dtype != np.float16 or embeds.shape != shape:
            got = f"{embeds.dtype} {list(embeds.shape)}" if isinstance(embeds, np.ndarray) else type(embeds).__name__
            must = f"{name} must be float16 {list(shape)}, one row each, as {triplet.teacher} makes them"
            raise ShardError(where, must, got, "embed again with this teacher")
    if triplet.image_embeds is not None and triplet.text_embeds is not None:
        rows = torch.from_numpy(np.concatenate([triplet.image_embeds, triplet.text_embeds])).float().numpy()
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))  # NaN never is
        if len(bad):
            name, got = _EMBEDS[int(bad[0] >= len(triplet.views))], f"a norm of {norms[bad[0]]:.4g}"
            raise ShardError(where, f"rows of {name} must be finite and unit-norm", got, "divide")


# ---- members -----------------------------------------------------------------------------------------------------


def _encode_splats(splats: Splats, where: str) -> bytes:
    with torch.no_grad():
        columns = {name: getattr(splats, name).detach().cpu() for name in COLUMNS}
        columns["quats"] = torch.nn.functional.normalize(columns["quats"], dim=-1)
        halves = {name: value.half() for name, value in columns.items()}
    for name, value in halves.items():
        if not bool(value.isfinite().all()):
            todo = "prune the splats, and normalize them into the unit sphere"
            raise ShardError(where, f"{name} must be finite in float16 (up to 65,504)", "NaN or infinity", todo)
    return safe_numpy.save({name: value.contiguous().numpy() for name, value in halves.items()})


def _decode_splats(data: memoryview, up_axis: str, where: str, key: str) -> Splats:
    columns = _tensors(data, COLUMNS, where)
    # All columns at once: torch widens float16 several times as fast as numpy does, but every call of it costs.
    values = torch.from_numpy(np.concatenate([value.ravel() for value in columns.values()])).float().numpy()
    if not np.isfinite(values).all():
        broken = ", ".join(name for name, value in columns.items() if not np.isfinite(value).all())
        raise ShardError(where, f"{broken} must be finite", "NaN or infinity", "rebuild the shard")
    floats, end = dict[str, Any](), 0
    for name, value in columns.items():
        start, end = end, end + value.size
        floats[name] = torch.from_numpy(values[start:end].reshape(value.shape))
    try:
        return Splats(**floats, up_axis=up_axis, source=key)
    except (ValueError, TypeError) as error:
        raise ShardError(where, "the columns must make up gaussians", str(error), "rebuild the shard") from None


def _tensors(data: memoryview, names: Iterable[str], where: str) -> dict[str, np.ndarray]:
    """The float16 arrays of a safetensors member: exactly those named."""
    try:
        columns = safe_numpy.load(bytes(data))
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ShardError(where, "the member must be intact safetensors", str(error)[:200], "fetch it again") from None
    if set(columns) != set(names) or any(value.dtype != np.float16 for value in columns.values()):
        got = ", ".join(f"{name}: {value.dtype}" for name, value in sorted(columns.items()))[:200] or "nothing"
        raise ShardError(where, f"the member must hold {', '.join(names)} as float16", got, "rebuild the shard")
    return columns


def _captions(rows: list[Any], where: str) -> tuple[Caption, ...]:
    try:
        return tuple(Caption(row["text"], row["source"], row["score"]) for row in rows)
    except (TypeError, KeyError, ValueError) as error:
        must = "texts must be a list of {text, source, score}"
        raise ShardError(where, must, f"{type(error).__name__}: {error}"[:200], "rebuild the shard") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def _load_json(data: memoryview, where: str, kind: type) -> Any:
    try:
        value = _JSON.decode(str(data, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise ShardError(where, "the member must be JSON", str(error)[:200], "fetch the shard again") from None
    if not isinstance(value, kind):
        raise ShardError(where, f"the JSON must be a {kind.__name__}", type(value).__name__, "rebuild the shard")
    return value


def _json(value: Any, where: str) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        must = "texts and provenance must be plain JSON with finite numbers"
        raise ShardError(where, must, str(error)[:200], "convert or drop the value") from None
