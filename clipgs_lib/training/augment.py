"""Random changes of splats that leave them physical: what moves a centre moves the whole gaussian.

As in the training of OpenShape and Uni3D (REFERENCE sec. 2), carried over to gaussians: a turn about the up axis
carries the quaternions, a change of size carries the scales, and colour is dropped for an object as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .. import geometry
from ..splats import Splats


@dataclass(frozen=True)
class AugmentConfig:
    """How much training splats are changed. Lengths are in units of the object's bounding sphere."""

    turn: bool = True  # by any angle about the up axis; objects whose up axis is unknown are not turned
    size: float = 1.25  # factor, drawn log-uniformly from [1/size, size]; 1 leaves the size alone
    jitter: float = 0.01  # standard deviation of a shift of every centre, cut at 3 of them; 0 for none
    drop: float = 0.4  # largest share of gaussians left out (point dropout); the share is uniform in [0, drop]
    keep: int = 64  # at least so many gaussians stay, if there are as many
    no_color: float = 0.2  # probability that all colours of an object become `color`
    color: float = 0.4  # what stands for no colour, as in OpenShape and Uni3D

    def __post_init__(self) -> None:
        rules = {
            "size >= 1": self.size >= 1 and math.isfinite(self.size),
            "jitter >= 0": self.jitter >= 0 and math.isfinite(self.jitter),
            "drop in [0, 1)": 0 <= self.drop < 1,
            "keep >= 1": self.keep >= 1,
            "no_color in [0, 1]": 0 <= self.no_color <= 1,
            "color in [0, 1]": 0 <= self.color <= 1,
        }
        for rule, holds in rules.items():
            if not holds:
                name = rule.split()[0]
                raise ValueError(f"augment: {rule} must hold, got {name} = {getattr(self, name)}")


def augment(splats: Splats, rng: np.random.Generator, config: AugmentConfig) -> Splats:
    """Change one object at random.

    Args:
        splats: SH degree 0, normalised into the unit sphere.
        rng: source of randomness; as many numbers are drawn whatever the object holds, jitter and drop excepted.
        config: how much.

    Returns:
        The changed object; not normalised again, so that size and shift are seen by the encoder.
    """
    angle, size, share, tint = rng.random(4)
    if share * config.drop > 0 and len(splats) > config.keep:
        count = max(config.keep, round(len(splats) * (1 - share * config.drop)))
        splats = splats[torch.from_numpy(np.sort(rng.permutation(len(splats))[:count]))]
    columns: dict[str, Any] = {}
    means, factor = splats.means, config.size ** (2 * float(size) - 1)
    if config.turn and splats.up_axis != "unknown":
        sign = 1.0 if splats.up_axis[0] == "+" else -1.0
        turn = geometry.rotation_about(splats.up_axis[1], sign * 360.0 * float(angle))
        means = means @ turn.T.to(means)
        columns["quats"] = geometry.quat_multiply(geometry.rotmat_to_quat(turn).to(means), splats.quats)
    if factor != 1:
        means = means * factor
        columns["scales"] = splats.scales * factor
    if config.jitter:
        noise = rng.standard_normal((len(splats), 3), dtype=np.float32).clip(-3, 3)
        means = means + config.jitter * torch.from_numpy(noise)
    if tint < config.no_color:
        columns["sh0"] = torch.full_like(splats.sh0, (config.color - 0.5) / geometry.SH_C0)
    return replace(splats, means=means, **columns)
