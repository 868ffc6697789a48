"""What a build is told: the recipe of each object, the objects, and how a producer stops it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..splats import UP_AXES


@dataclass(frozen=True)
class BuildConfig:
    """What goes into each object. Equal configs, sources and library versions give equal sets."""

    views: int = 12  # pictures per object (36 in the paper)
    size: int = 224  # pixels per side of a picture
    elevations: tuple[float, float] = (-20.0, 70.0)  # belt of the cameras, degrees; (-90, 90) is the whole sphere
    gaussians: int = 1_024  # per object
    iterations: int = 600  # of fitting; 0 keeps the initialisation
    teacher: str | None = None  # name for `teachers.load_teacher`; None leaves embeddings out
    device: str = "cpu"  # where to fit and embed; on "cuda" fits repeat within tolerance, not bit for bit
    quality: int = 90  # of the WebPs, 1 to 100
    seed: int = 0
    up_axis: str | None = None  # of meshes and splats: one of `splats.UP_AXES`; None as the file says
    factors: str = "linear"  # base colour factors of glTF, see `importing.read_mesh`

    def __post_init__(self) -> None:
        limits = {
            "views": (2, 1_000),
            "size": (16, 4_096),
            "gaussians": (4, 1 << 20),
            "iterations": (0, 1_000_000),
            "quality": (1, 100),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number in {low}..{high:,}, got {value!r}")
        if not -90 <= self.elevations[0] < self.elevations[1] <= 90:
            raise ValueError(f"elevations must rise within -90..90 degrees, got {self.elevations}")
        words = {"up_axis": (None, *UP_AXES), "factors": ("linear", "srgb", "guess")}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Source:
    """One object to build."""

    key: str  # its name in the set, see `shards.tar.KEY`
    kind: str  # "catalogue", "mesh" or "splat"
    index: int = 0  # of the catalogue; of a piece of furniture in its .sh3f
    seed: int = 0  # of the catalogue
    path: str = ""  # of the file
    name: str = ""  # of the file, below the folder that was given; goes into the set, unlike `path`
    bytes: int = 0  # of the file, to notice another one when a build goes on
    copy: int = 0  # number of a copy of the mesh in other colours, see `copies`; 0 is the mesh itself
    info: Mapping[str, str] = field(default_factory=dict)  # what a table said: name, label, caption, source, licence


class StopBuild(Exception):
    """Raised by a producer when no object could work, such as for want of the teacher; ends the build."""
