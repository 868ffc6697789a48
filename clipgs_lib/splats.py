"""The `Splats` container: what every other room of the library passes around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import geometry
from .words import facts_table

UP_AXES = ("+x", "-x", "+y", "-y", "+z", "-z", "unknown")
COLUMNS = ("means", "quats", "scales", "opacities", "sh0", "shN")
_SHAPES = {  # in words, and the lengths after N
    "means": ("[N, 3]", (3,)),
    "quats": ("[N, 4] (wxyz)", (4,)),
    "scales": ("[N, 3] (linear)", (3,)),
    "opacities": ("[N] in [0, 1]", ()),
    "sh0": ("[N, 1, 3]", (1, 3)),
    "shN": ("[N, K-1, 3] with K-1 in 0, 3, 8, 15", None),
}


class PruneReport(NamedTuple):
    """How many gaussians `Splats.prune` removed, and why. A gaussian is counted once, at the first reason."""

    non_finite: int
    zero_quaternion: int
    invisible: int
    kept: int

    @property
    def removed(self) -> int:
        return self.non_finite + self.zero_quaternion + self.invisible

    def __str__(self) -> str:
        return (
            f"kept {self.kept:,}, removed {self.removed:,} (non-finite {self.non_finite:,}, "
            f"zero quaternion {self.zero_quaternion:,}, invisible {self.invisible:,})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Splats:
    """A set of N gaussians in one frame, with **linear** scales and opacities.

    All tensors are float32 on one device and may carry gradients. Values may be non-finite
    (a diverged optimisation stays inspectable); `prune` removes such rows and counts them.

    Args:
        means: ``[N, 3]`` centres, scene units.
        quats: ``[N, 4]`` wxyz; normalised by whoever uses them, any non-zero length is allowed.
        scales: ``[N, 3]`` standard deviations along the local axes, scene units, ``>= 0``.
        opacities: ``[N]`` in ``[0, 1]``.
        sh0: ``[N, 1, 3]`` constant SH coefficient; base colour is ``0.5 + 0.2821 * sh0``.
        shN: ``[N, K-1, 3]`` higher SH coefficients, K-1 in 0, 3, 8, 15 (degree 0 to 3).
        up_axis: which way is up in this frame: one of ``UP_AXES``.
        source: where it came from, for people (a file name, "catalogue 12", ...).
        antialiased: trained for a rasteriser that thins opacities by the area its 2D low-pass adds (Mip-Splatting);
            kept for formats that say so (SPZ, SOG).

    Raises:
        TypeError: when a column is not a float32 tensor.
        ValueError: when shapes, devices or ranges do not hold; the message says which.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh0: Tensor
    shN: Tensor
    up_axis: str = "unknown"
    source: str = ""
    antialiased: bool = False

    def __post_init__(self) -> None:
        for name in COLUMNS:
            check_column(name, getattr(self, name), self.means)
        if self.up_axis not in UP_AXES:
            raise ValueError(f"up_axis must be one of {', '.join(UP_AXES)}, got {self.up_axis!r}")
        if len(self) == 0:
            return
        low, high = _range(self.opacities)
        if low < 0 or high > 1:
            got = f"[{low:.4g}, {high:.4g}]"
            raise ValueError(f"opacities must lie in [0, 1], got {got}; are these logits? apply a sigmoid first")
        low, _ = _range(self.scales)
        if low < 0:
            got = f"a minimum of {low:.4g}"
            raise ValueError(f"scales must be linear and >= 0, got {got}; are these log-scales? apply exp first")

    @classmethod
    def from_colors(cls, means: Tensor, colors: Tensor, **columns: Any) -> Splats:
        """Build from RGB colours in ``[0, 1]`` ``[N, 3]`` instead of SH; SH degree 0."""
        sh0 = ((colors - 0.5) / geometry.SH_C0)[:, None]
        return cls(means=means, sh0=sh0, shN=sh0.new_zeros(len(means), 0, 3), **columns)

    # ---- looking ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.means.shape[0])

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def sh_degree(self) -> int:
        """0 to 3."""
        return {0: 0, 3: 1, 8: 2, 15: 3}[self.shN.shape[1]]

    @property
    def sh(self) -> Tensor:
        """All SH coefficients ``[N, K, 3]``."""
        return torch.cat([self.sh0, self.shN], dim=1)

    @property
    def colors(self) -> Tensor:
        """View-independent base colours ``[N, 3]``; not clamped, so may leave ``[0, 1]``."""
        return 0.5 + geometry.SH_C0 * self.sh0[:, 0]

    def area(self) -> Tensor:
        """Product of the two largest scales ``[N]``: proportional to the largest visible cross-section."""
        top = self.scales.topk(2, dim=-1).values
        return top[:, 0] * top[:, 1]

    def finite_mask(self) -> Tensor:
        """``[N]`` bool: every attribute of the gaussian is finite."""
        rows = [getattr(self, name)[..., None].flatten(1) for name in COLUMNS]
        return torch.stack([row.isfinite().all(dim=1) for row in rows]).all(dim=0)

    def bounds(self, quantile: float = 0.0) -> tuple[Tensor, Tensor]:
        """Low and high corner ``[3], [3]`` of the centres, leaving out a ``quantile`` at either end of each axis.

        Raises:
            ValueError: when there is no finite centre, or ``quantile`` is outside ``[0, 0.5)``.
        """
        if not 0 <= quantile < 0.5:
            raise ValueError(f"quantile must lie in [0, 0.5), got {quantile}")
        means = self.means.detach()
        means = means[means.isfinite().all(dim=1)]
        if len(means) == 0:
            raise ValueError("bounds need at least one gaussian with a finite centre, got none")
        if quantile == 0:
            return means.amin(dim=0), means.amax(dim=0)
        ordered = means.sort(dim=0).values
        low = int(quantile * (len(means) - 1))
        return ordered[low], ordered[len(means) - 1 - low]

    def facts(self) -> dict[str, str]:
        """What a person asks first, name -> text: how many, which way is up, how large; of what is finite."""
        finite = self.finite_mask()
        good = self if bool(finite.all()) else self[finite]  # no copy of what is sound
        facts = {"gaussians": f"{len(self):,}", "SH degree": str(self.sh_degree), "up axis": self.up_axis}
        if len(good) < len(self):
            facts["left out below"] = f"{len(self) - len(good):,} not finite"
        if len(good):
            low, high = good.bounds()
            facts |= {
                "extent": _triple(high - low),
                "centre": _triple((low + high) / 2),
                "scales": f"{_quantiles(good.scales.detach().amax(dim=1))}   (largest axis, 5/50/95 %)",
                "opacities": f"{_quantiles(good.opacities.detach())}   (5/50/95 %)",
            }
        return facts | {"device": str(self.device)}

    def __repr__(self) -> str:
        facts = self.facts()
        head = f"Splats({facts.pop('gaussians')} gaussians, SH degree {facts.pop('SH degree')}, {facts.pop('device')}"
        head += f", up {facts.pop('up axis')}" + (f", from {self.source!r}" if self.source else "")
        return "\n".join([head, *(f"  {name:<10} {text}" for name, text in facts.items())]) + ")"

    def _repr_html_(self) -> str:
        return facts_table(self.source or "Gaussian splats", self.facts())

    # ---- choosing --------------------------------------------------------------------------------------------

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Splats:
        """Rows by int, slice, list, integer tensor or ``[N]`` bool mask; an int keeps the row dimension."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} gaussians")
            index = [index]
        if isinstance(index, Sequence):
            index = torch.as_tensor(list(index), device=self.device)
            index = index.long() if index.numel() == 0 else index
        if isinstance(index, Tensor) and index.dtype == torch.bool and index.shape != (len(self),):
            raise IndexError(f"a mask must have shape [{len(self)}], got {list(index.shape)}")
        return replace(self, **{name: getattr(self, name)[index] for name in COLUMNS})

    @classmethod
    def cat(cls, parts: Sequence[Splats]) -> Splats:
        """Concatenate; lower SH degrees are padded with zeros, differing up-axes become "unknown".

        Antialiased when all parts are.

        Raises:
            ValueError: when ``parts`` is empty.
        """
        if not parts:
            raise ValueError("cat needs at least one Splats, got an empty sequence")
        degree = max(part.sh_degree for part in parts)
        parts = [part.with_sh_degree(degree) for part in parts]
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS}
        up_axes, sources = {part.up_axis for part in parts}, dict.fromkeys(p.source for p in parts if p.source)
        return cls(
            **columns,
            up_axis=up_axes.pop() if len(up_axes) == 1 else "unknown",
            source=" + ".join(sources),
            antialiased=all(part.antialiased for part in parts),
        )

    def with_sh_degree(self, degree: int) -> Splats:
        """Drop higher SH bands, or pad with zeros, to exactly ``degree`` (0 to 3)."""
        if not 0 <= degree <= geometry.MAX_SH_DEGREE:
            raise ValueError(f"degree must be 0, 1, 2 or 3, got {degree}")
        want = (degree + 1) ** 2 - 1
        have = self.shN[:, :want]
        pad = have.new_zeros(len(self), want - have.shape[1], 3)
        return replace(self, shN=torch.cat([have, pad], dim=1))

    def subsample(self, n: int, *, seed: int = 0, replacement: bool = False) -> Splats:
        """Exactly ``n`` gaussians, drawn with probability proportional to opacity times visible area.

        Weights are floored at 1 % of their mean, so small opaque detail keeps a chance. Order is kept.

        Args:
            n: how many to keep, ``>= 1``.
            seed: same seed, same choice.
            replacement: allow repeats; needed when ``n`` exceeds the count.

        Raises:
            ValueError: when ``n`` is not positive, or exceeds the count without ``replacement``.
        """
        if n < 1 or len(self) == 0:
            raise ValueError(f"subsample needs n >= 1 and at least one gaussian, got n={n} of {len(self)}")
        if n > len(self) and not replacement:
            must = f"must not exceed the {len(self)} gaussians there are"
            raise ValueError(f"subsample(n={n}) {must}; pass replacement=True to repeat")
        weights = torch.nan_to_num((self.opacities * self.area()).detach(), nan=0.0, posinf=0.0).double().cpu()
        weights = weights.clamp_min(0.01 * float(weights.mean()) + 1e-30)
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(len(self), generator=generator, dtype=torch.float64)
        if replacement:
            cumulative = weights.cumsum(0)
            draws = torch.rand(n, generator=generator, dtype=torch.float64) * cumulative[-1]
            index = torch.searchsorted(cumulative, draws).clamp_max(len(self) - 1)
        else:  # exponential races (Efraimidis & Spirakis 2006): exact, and without multinomial's 2^24 limit
            index = (-uniform.clamp_min(1e-300).log() / weights).topk(n, largest=False).indices
        return self[index.sort().values.to(self.device)]

    def prune(self) -> tuple[Splats, PruneReport]:
        """Remove non-finite gaussians, zero quaternions, and those too transparent or too small to draw.

        Below an opacity of 1/255 a gaussian cannot change an 8-bit picture by itself; rasterisers skip it.
        """
        finite = self.finite_mask()
        turned = self.quats.detach().norm(dim=1) > 1e-12
        visible = (self.opacities.detach() >= 1 / 255) & (self.area().detach() > 0)
        keep = finite & turned & visible
        counts = (~finite, finite & ~turned, finite & turned & ~visible, keep)
        report = PruneReport(*(int(mask.sum()) for mask in counts))
        return (self if report.removed == 0 else self[keep]), report

    # ---- moving ----------------------------------------------------------------------------------------------

    def to(self, device: str | torch.device) -> Splats:
        """The same gaussians on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in COLUMNS})

    def detach(self) -> Splats:
        """The same gaussians without gradients."""
        return replace(self, **{name: getattr(self, name).detach() for name in COLUMNS})

    def transform(self, matrix: Tensor, *, allow_reflection: bool = False) -> Splats:
        """Apply a similarity to means, quats, scales **and** SH.

        A reflection of a gaussian is again a gaussian (flip one local axis), but swapping quaternion
        components is not the way to get it; hence reflections have to be asked for.

        Args:
            matrix: ``[4, 4]`` rotation (or reflection), uniform scale and translation.
            allow_reflection: accept determinant < 0, which mirrors the object.

        Raises:
            ValueError: when the matrix is no similarity, or mirrors without ``allow_reflection``.
        """
        scale, orthogonal, shift = geometry.split_similarity(matrix)
        mirrored = bool(torch.linalg.det(orthogonal) < 0)
        if mirrored and not allow_reflection:
            raise ValueError(
                "matrix must keep handedness (determinant > 0), got a reflection, which mirrors the object "
                "(a y/z swap is one; a turn about x by 90 degrees is not); pass allow_reflection=True if you mean it"
            )
        linear = orthogonal.to(self.means)
        if mirrored:  # M R diag(-1, 1, 1) is a rotation with the same covariance
            turned = linear @ geometry.quat_to_rotmat(self.quats)
            quats = geometry.rotmat_to_quat(turned * self.quats.new_tensor([-1.0, 1.0, 1.0]))
        else:
            quats = geometry.quat_multiply(geometry.rotmat_to_quat(orthogonal).to(self.quats), self.quats)
        return replace(
            self,
            means=scale * self.means @ linear.T + shift.to(self.means),
            quats=quats,
            scales=self.scales * scale,
            shN=geometry.rotate_sh(self.shN, orthogonal),
            up_axis=_turn_axis(self.up_axis, orthogonal),
        )

    def rotate(self, axis: str, degrees: float) -> Splats:
        """Rotate about ``"x"``, ``"y"`` or ``"z"`` through the origin, right-handed, in degrees."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3] = geometry.rotation_about(axis, degrees)
        return self.transform(matrix)

    def center(self, *, quantile: float = 0.0) -> Splats:
        """Move the middle of the bounds (see `bounds`) to the origin."""
        low, high = self.bounds(quantile)
        return replace(self, means=self.means - (low + high) / 2)

    def normalize(self, *, quantile: float = 0.0) -> Splats:
        """Centre, then scale so that the centres fit the unit sphere.

        Args:
            quantile: share of outliers to ignore, in ``[0, 0.5)``: per axis end for the centre, of all
                radii for the size. 0 puts every centre inside; 0.01 is a good robust choice for captures
                with floaters, which then lie outside.

        Raises:
            ValueError: when all centres coincide, so that there is no size to normalise.
        """
        centered = self.center(quantile=quantile)
        radii = centered.means.detach().norm(dim=1)
        radii = radii[radii.isfinite()].sort().values
        radius = float(radii[int((1 - quantile) * (len(radii) - 1))])
        if radius < 1e-12:
            raise ValueError("normalize needs at least two different centres, got all in one place")
        return replace(centered, means=centered.means / radius, scales=centered.scales / radius)


def _range(values: Tensor) -> tuple[float, float]:
    """Smallest and largest value, NaN left out. On the CPU through numpy, whose one thread beats torch's wake-ups."""
    values = values.detach()
    if values.device.type == "cpu":
        array = values.numpy()
        return float(np.fmin.reduce(array, axis=None)), float(np.fmax.reduce(array, axis=None))
    low, high = torch.aminmax(torch.nan_to_num(values, nan=0.0))
    return float(low), float(high)


def column_fits(name: str, value: Tensor) -> bool:
    """Whether a tensor has the shape of the column of that name, for any N."""
    tail = _SHAPES[name][1]
    if tail is None:
        return value.dim() == 3 and value.shape[2] == 3 and value.shape[1] in (0, 3, 8, 15)
    return value.dim() == 1 + len(tail) and tuple(value.shape[1:]) == tail


def check_column(name: str, value: Any, means: Any) -> None:
    """Raise TypeError or ValueError unless ``value`` is the column of that name beside ``means``."""
    text = _SHAPES[name][0]
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a float32 torch tensor of shape {text}, got {got}")
    shape, fits = tuple(value.shape), column_fits(name, value)
    if not fits or shape[0] != means.shape[0]:
        hint = "; is this a point-cloud PLY?" if name == "quats" and shape[-1:] == (3,) else ""
        count = f" with N = {means.shape[0]} as in means" if fits else ""
        raise ValueError(f"{name} must have shape {text}{count}, got {list(shape)}{hint}")
    if value.device != means.device:
        raise ValueError(f"{name} must be on the device of means ({means.device}), got {value.device}")


def _turn_axis(up_axis: str, rotation: Tensor) -> str:
    """The new name of ``up_axis`` after ``rotation``; "unknown" when it no longer lies on an axis."""
    if up_axis == "unknown":
        return up_axis
    vector = rotation[:, "xyz".index(up_axis[1])] * (1.0 if up_axis[0] == "+" else -1.0)
    largest = int(vector.abs().argmax())
    sign = "+" if float(vector[largest]) > 0 else "-"
    return f"{sign}{'xyz'[largest]}" if abs(float(vector[largest])) >= 1 - 1e-6 else "unknown"


def _triple(values: Tensor) -> str:
    return "(" + ", ".join(f"{float(v):.3g}" for v in values) + ")"


def _quantiles(values: Tensor) -> str:
    ordered = values.sort().values
    picks = [ordered[int(q * (len(ordered) - 1))] for q in (0.05, 0.5, 0.95)]
    return " / ".join(f"{float(v):.3g}" for v in picks)
