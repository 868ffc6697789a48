"""Settings of encoders: frozen, with a strict way to and from plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self, cast, get_args

from ..settings import from_plain
from ..tokenizer import TokenizerConfig


class EncoderError(RuntimeError):
    """An encoder that cannot be built, loaded or saved, with the way out."""


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What settings of all kinds of encoders can do."""

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        # counts are positive integers, shares lie in [0, 1), and texts are not empty
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise EncoderError(f"{field.name} must be a positive integer, got {value!r}")
            if field.name in ("patch_dropout", "drop_path") and not (isinstance(value, int | float) and 0 <= value < 1):
                raise EncoderError(f"{field.name} must lie in [0, 1), got {value!r}")
            if field.type == "str" and not (isinstance(value, str) and value):
                raise EncoderError(f"{field.name} must be a word, got {value!r}")
        if hasattr(self, "radius") and not 0 < self.radius < float("inf"):
            raise EncoderError(f"radius must be positive, got {self.radius!r}")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with ``kind``."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings that `to_dict` wrote; EncoderError for unknown, missing or impossible ones."""
        plain = dict(values)
        if (kind := plain.pop("kind", None)) != cls.kind:
            raise EncoderError(f"{cls.__name__} must be of kind {cls.kind!r}, got {kind!r}")
        try:
            return from_plain(cls, plain)
        except ValueError as error:
            message = f"settings of {cls.__name__} do not hold: {error}; were they written by a newer clipgs_lib?"
            raise EncoderError(message) from error


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(_Config):
    """A transformer over the tokens of `GSTokenizer`: CLIP-GS, and Uni3D's point encoder where those are points'.

    The shape is Uni3D's (REFERENCE 2): linear map to the transformer's width, a CLS token, positions from patch
    centres, EVA-02 blocks without rotary embedding, LayerNorm, linear map to the teacher's dimension.
    """

    kind: ClassVar[str] = "transformer"
    name: str  # for people and for the files; "clipgs-mini", "point-base", ...
    tokenizer: TokenizerConfig  # splats -> tokens [B, G, tokenizer.dim]
    block: str  # timm model whose blocks and last LayerNorm are used
    width: int  # of the transformer; a multiple of the block's number of heads
    depth: int  # number of blocks
    embed_dim: int  # D, the teacher's
    patch_dropout: float = 0.5  # share of the patches left out, in training only [C: Uni3D]
    drop_path: float = 0.2  # stochastic depth, linearly rising over the blocks, in training only [C: Uni3D]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tokenizer, TokenizerConfig):
            raise EncoderError(f"tokenizer must be a TokenizerConfig, got {type(self.tokenizer).__name__}")


@dataclass(frozen=True, kw_only=True)
class PointBertConfig(_Config):
    """OpenShape's point transformer ("PPAT"), scale 4, which its PointBERT checkpoint has [C]."""

    kind: ClassVar[str] = "pointbert"
    name: str = "pointbert"  # for people and for the files
    attributes: str = "points"  # centres and colours; "surface": of points on what the gaussians cover instead
    groups: int = 384  # patches
    group_size: int = 64  # gaussians in a patch
    radius: float = 0.2  # of the ball around a centre, in units of the object's unit sphere
    patch_dim: int = 256  # channels of a patch before the transformer
    width: int = 512  # of the transformer
    depth: int = 12  # number of blocks
    heads: int = 8  # of 64 channels each
    mlp_dim: int = 1536  # hidden channels between attentions
    embed_dim: int = 1280  # D, the teacher's (ViT-bigG-14)
    patch_dropout: float = 0.0  # share of the patches left out, in training only
    color_default: float = 0.4  # colour of a gaussian that has none [C]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attributes not in ("points", "surface"):
            raise EncoderError(f"attributes must be points or surface, got {self.attributes!r}")


@dataclass(frozen=True, kw_only=True)
class MultiViewConfig(_Config):
    """DuoduoCLIP: a teacher's frozen image tower whose last blocks look at all views of an object together."""

    kind: ClassVar[str] = "duoduo"
    name: str = "duoduo-mini"  # for people and for the files
    # whose tower it is: a name for `load_teacher`, which brings the frozen weights; or, for weights that came from a
    # local file, open_clip's name of the model alone: then the checkpoint holds the frozen weights, too
    teacher: str = "mini"
    teacher_sha256: str = "unknown"  # digest of that teacher; "unknown" takes it as it is
    depth: int = 2  # blocks that look at all views: the last ones of a ViT, or new ones after mini's convolutions
    embed_dim: int = 384  # D, the teacher's


@dataclass(frozen=True, kw_only=True)
class VoxelConfig(_Config):
    """Occupancy and colour in a grid through a small 3D CNN (as VoxNet, IROS 2015): the voxel line."""

    kind: ClassVar[str] = "voxel"
    name: str = "voxel-mini"  # for people and for the files
    size: int = 32  # voxels a side of the cube about the unit sphere; a multiple of 2 ** depth
    width: int = 32  # channels of the first stage; each further one has twice as many
    depth: int = 4  # stages, each of which halves the grid
    embed_dim: int = 384  # D, the teacher's
    color_default: float = 0.4  # colour of a gaussian that has none, and of empty voxels

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 2**self.depth:
            raise EncoderError(f"size must be a multiple of 2 ** depth = {2**self.depth}, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class BagConfig(_Config):
    """The bag of views: no encoder at all, but the teacher's embeddings of an object's views as one."""

    kind: ClassVar[str] = "bag"
    name: str = "bag-mean"  # for people and for the files
    pool: str = "mean"  # or "max": the largest value of each dimension
    teacher: str = "mini"  # whose embeddings: a name for `load_teacher`, which is asked only for pictures
    teacher_sha256: str = "unknown"  # digest of that teacher; "unknown" takes it as it is
    embed_dim: int = 384  # D, the teacher's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool not in ("mean", "max"):
            raise EncoderError(f"pool must be mean or max, got {self.pool!r}")


AnyConfig = EncoderConfig | PointBertConfig | MultiViewConfig | VoxelConfig | BagConfig
_KINDS: dict[str, type[_Config]] = {kind.kind: kind for kind in get_args(AnyConfig)}


def config_from_dict(values: Mapping[str, Any]) -> AnyConfig:
    """The settings that any ``to_dict`` wrote, by their ``kind``; EncoderError as `from_dict`, and for another kind."""
    kind = values.get("kind")
    if kind not in _KINDS:
        raise EncoderError(f"an encoder's kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    return cast(AnyConfig, _KINDS[kind].from_dict(values))


def override(config: AnyConfig, changes: Mapping[str, Any]) -> AnyConfig:
    """``config`` with settings changed by name; those of the tokenizer are named alike, without a prefix.

    EncoderError for a name that neither the encoder nor its tokenizer has, or an impossible value.
    """
    outer = {f.name for f in fields(config)}
    tokenizer = getattr(config, "tokenizer", None)
    inner = {f.name for f in fields(TokenizerConfig)} - outer if tokenizer is not None else set()
    if unknown := sorted(set(changes) - outer - inner):
        names = ", ".join(sorted(outer | inner))
        raise EncoderError(f"{config.name} has no setting {', '.join(unknown)}; it has {names}")
    values = {name: value for name, value in changes.items() if name in outer}
    if deeper := {name: value for name, value in changes.items() if name in inner}:
        values["tokenizer"] = _made(replace, values.get("tokenizer", tokenizer), **deeper)
    return _made(replace, config, **values)


def _made(make: Any, *args: Any, **values: Any) -> Any:
    try:
        return make(*args, **values)
    except (TypeError, ValueError) as error:
        raise EncoderError(f"settings of an encoder do not hold: {error}") from error
