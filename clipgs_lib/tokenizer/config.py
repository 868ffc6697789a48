"""All switches of the tokenizer, each with how sure its default is.

[P] read in the paper, [C] in the code of Uni3D, whose patches and point branch are used, [N] told by others about the
paper, [I] our own choice where the paper says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry import ORDERS

CHANNELS = {  # name of an attribute -> its channels in the attribute branch, in this order
    "position": ("x - centre", "y - centre", "z - centre"),
    "color": ("red", "green", "blue"),
    "opacity": ("opacity",),
    "scale": ("scale 1", "scale 2", "scale 3"),
    "rotation": ("R11", "R12", "R13", "R21", "R22", "R23", "R31", "R32", "R33"),
}
_CHOICES = {
    "attributes": ("all", "points", "surface", "naive"),
    "squash": ("sigmoid", "sigmoid-linear", "none"),
    "rotation": ("matrix", "quat"),
    "combine": ("average", "cycle"),
    "pool": ("max", "mean"),
}
_COUNTS = ("groups", "group_size", "dim")


@dataclass(frozen=True)
class TokenizerConfig:
    """How splats become tokens; the defaults are the paper's where it is known, else Uni3D's.

    Raises:
        ValueError: when a field is out of range; the message says which.
    """

    # patches: farthest points and their nearest neighbours [P]; how many is not told, 512 of 64 as in Uni3D [I]
    groups: int = 512  # patches, which are the tokens, of one object
    group_size: int = 64  # gaussians in a patch; patches overlap
    # tokens
    dim: int = 512  # width of a token: pc_encoder_dim of Uni3D [C]
    # "all": both branches, summed [P]; "points": only the point branch (Uni3D's tokens) [C]; "surface": the same, of
    # points on what the gaussians cover instead of centres; "naive": only the point branch, which sees all `channels`
    attributes: str = "all"
    # "linear & norm": what the attribute branch sees of opacity, scale, rotation. 3 + 3 + 1 + 3 + 9 = 19 channels [I]
    squash: str = "sigmoid"  # [N] a sigmoid; of the stored logit-opacity o and log-scale s, so o and s / (1 + s) [I];
    # "sigmoid-linear": of the linear values, which for scales lies close to 0.5; "none": the linear values
    rotation: str = "matrix"  # [N] 3x3 of the quaternion; "quat": the quaternion with w >= 0, 4 channels
    norm_inputs: bool = True  # standardise the channels by running statistics: scales are 100 times below rotations [I]
    # "order indicator": the gaussians of a patch are sorted before the convolutions
    orders: tuple[str, ...] = ("xyz", "hilbert", "z")  # [P] which
    order_within: bool = True  # sort inside patches [I]; False: nearest to the centre first
    combine: str = "average"  # how the orders meet [I]: "average": the branch's mean over all, one set of weights;
    # "cycle": patch i uses order i modulo their number, at a third of the cost
    sort_patches: str | None = None  # order of the sequence of patches by their centres; None: as they were chosen [I]
    # refinement block [P]; the attribute branch is three convolutions of width 3, strides 1, 1, 2, each + BN + ReLU
    attribute_widths: tuple[int, int, int] = (64, 128, 256)  # output channels of the convolutions [I]
    pool: str = "max"  # global pooling after them: "max" or "mean" [I]
    zero_init: bool = True  # the attribute branch ends in a norm that starts at zero: the point model at step 0 [I]
    point_widths: tuple[int, int, int] = (128, 256, 512)  # mini-PointNet: 6 -> a -> b, (2 b) -> c -> dim [C]
    # data
    color_default: float = 0.4  # colour of a gaussian or point that has none [C]

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("orders", "attribute_widths", "point_widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists, as from JSON
        for name in _COUNTS:
            _check_count(name, getattr(self, name))
        for name in ("attribute_widths", "point_widths"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} must be three channel counts, got {getattr(self, name)}")
            for width in getattr(self, name):
                _check_count(f"every one of {name}", width)
        if not self.orders or set(self.orders) - set(ORDERS):
            raise ValueError(f"orders must be one or more of {', '.join(ORDERS)}, got {self.orders}")
        if self.sort_patches is not None and self.sort_patches not in ORDERS:
            raise ValueError(f"sort_patches must be None or one of {', '.join(ORDERS)}, got {self.sort_patches!r}")
        if not 0 <= self.color_default <= 1:
            raise ValueError(f"color_default must lie in [0, 1], got {self.color_default}")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what is seen of a gaussian where all attributes are, in order: 19, or 14 with quaternions."""
        names = [name for group in CHANNELS.values() for name in group]
        return tuple(names if self.rotation == "matrix" else [*names[:10], "w", "x", "y", "z"])


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
