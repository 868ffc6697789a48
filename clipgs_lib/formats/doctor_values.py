"""Signs of trouble that a gaussian's own columns show, without looking at its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from ..geometry import SH_C0
from .base import RawSplats
from .doctor_report import Finding

INVISIBLE = 1 / 255  # Below this opacity a gaussian cannot change an 8-bit picture; rasterisers skip it
MOSTLY_INVISIBLE = 0.5
"""Share of invisible gaussians that is worth a warning: trained files prune them, the real files hold < 1 %."""
MANY_INVISIBLE = 0.05  # Share that is worth a remark: pruning would save that much
ODD_COLOR = (-1.0, 4.0)
"""Base colours of trained files leave [0, 1] a little (-0.5 to 4 in the real files), bytes stored as SH far."""
MANY_ODD_COLORS = 0.01  # Share of channels outside `ODD_COLOR` that cannot be a few bright highlights
NEEDLE_RATIO = 20.0  # Largest over middle scale. Real files hold such gaussians, but short ones
NEEDLE_LENGTH = 0.05  # Standard deviation of a needle as a share of the extent, from which it shows as a spike
MANY_NEEDLES = 0.001  # Share of needles that spoils a picture; the real files hold 0.0001
GIANT = 0.25  # Standard deviation as a share of the extent that veils the whole scene; at most 0.12 in the real files
VEIL_OPACITY = 0.02  # Giants and needles fainter than this are not seen
FAR_ORIGIN = 50.0  # Distance of the middle from the origin in extents: no viewer frames that, and float32 loses digits
COARSE = 0.1  # Step between neighbouring float32 coordinates, as a share of the median scale, that shows as a lattice
DUPLICATES = 0.01  # Share of exact copies that points to a file appended to itself
LOGIT_SPAN = 0.5
"""Spread of raw opacities inside [0, 1] that trained logits never show: they would all mean 50 to 73 % opacity."""
RGB_SPAN = 0.75
"""Spread of raw f_dc inside [0, 1] that points to RGB: as SH, all channels would lie between 0.5 and 0.78."""
RGB_CHANNEL_SPAN = 0.4  # Spread of each channel; a pale object of one hue has less
SURFEL = 0.99  # Share of gaussians with one and the same smallest scale: a third axis that was made up (2DGS)
SURFEL_RATIO = 20.0  # Largest over smallest scale of such flat gaussians, at least


@dataclass(frozen=True)
class Extent:
    """Where the bulk of the centres lies."""

    low: np.ndarray  # ``[3]`` first percentile of each axis
    high: np.ndarray  # ``[3]`` last percentile

    @classmethod
    def of(cls, means: np.ndarray) -> Extent:
        """Of finite centres ``[N, 3]``, N >= 1."""
        low, high = np.quantile(means.astype(np.float64), [0.01, 0.99], axis=0)
        return cls(low, high)

    @property
    def diagonal(self) -> float:
        return float(np.linalg.norm(self.high - self.low))


def broken_rows(raw: RawSplats) -> tuple[np.ndarray, np.ndarray]:
    """Masks ``[N], [N]``: gaussians that hold NaN or infinity; finite ones with a zero quaternion."""
    finite = np.ones(len(raw.means), bool)
    for column in raw.columns:
        finite &= np.isfinite(column).reshape(len(column), -1 if column.size else 0).all(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        zero = finite & (np.linalg.norm(raw.quats, axis=1) <= 1e-12)
    return ~finite, zero


def check_rows(non_finite: np.ndarray, zero: np.ndarray) -> Iterator[Finding]:
    """Broken rows, counted."""
    total = len(non_finite)
    why = "; find out why the training diverged"
    for code, mask, what, more in (
        ("non_finite", non_finite, "hold NaN or infinity", why),
        ("zero_quaternions", zero, "have a quaternion of length 0", ""),
    ):
        if count := int(mask.sum()):
            severity, message = "error" if count == total else "warning", f"{count:,} of {total:,} gaussians {what}"
            yield Finding(code, severity, message, f"readers drop them{more}", fixable=count < total)


def activated_opacities(opacities: np.ndarray) -> bool:
    """Whether opacities look as if the sigmoid had been applied twice.

    Then what the file stores (the logits of ``opacities [N]``) lies within [0, 1], and either spreads over much of it
    or piles up near 1 as opaque gaussians do.
    """
    stored = logit(opacities.astype(np.float64))
    if len(stored) < 10 or stored.min() < -0.02 or stored.max() > 1.02:  # 8-bit formats store no closer than that
        return False
    return bool(np.ptp(stored) > LOGIT_SPAN or (stored > 0.9).mean() > 0.05)


def undo_opacities(opacities: np.ndarray) -> np.ndarray:
    """The opacities that were passed through one sigmoid too many."""
    return np.clip(logit(opacities.astype(np.float64)), 0, 1).astype(np.float32)


def undo_scales(scales: np.ndarray) -> np.ndarray:
    """The scales that were passed through one exponential too many."""
    return np.maximum(np.log(np.maximum(scales.astype(np.float64), 1.0)), 0).astype(np.float32)


def plain_colors(sh0: np.ndarray) -> bool:
    """Whether sh0 ``[N, 1, 3]`` looks like RGB in [0, 1] that was stored as it is."""
    if len(sh0) < 10 or sh0.min() < -0.02 or sh0.max() > 1.02:
        return False
    return bool(np.ptp(sh0) > RGB_SPAN and np.ptp(sh0[:, 0], axis=0).min() > RGB_CHANNEL_SPAN)


def undo_colors(sh0: np.ndarray) -> np.ndarray:
    """The SH coefficients of RGB colours that were stored in their place."""
    return ((sh0 - 0.5) / SH_C0).astype(np.float32)


def check_opacities(opacities: np.ndarray) -> list[Finding]:
    """Gaussians that cannot be seen. Non-empty input."""
    share = float((opacities < INVISIBLE).mean())
    if share < MANY_INVISIBLE:
        return []
    severity = "warning" if share >= MOSTLY_INVISIBLE else "info"
    message = f"{share:.0%} of the gaussians are invisible (opacity below 1/255)"
    mend = "Splats.prune() removes them"
    if severity == "warning":
        mend = "check that the opacities are logits, and that the right checkpoint was exported; " + mend
    return [Finding("transparent", severity, message, mend)]


def check_colors(sh0: np.ndarray) -> list[Finding]:
    """Base colours far outside [0, 1]. Non-empty input."""
    colors = 0.5 + SH_C0 * sh0
    odd = float(((colors < ODD_COLOR[0]) | (colors > ODD_COLOR[1])).mean())
    if odd <= MANY_ODD_COLORS:
        return []
    message = f"{odd:.0%} of the base colours lie far outside [0, 1] (up to {float(np.abs(colors).max()):.3g})"
    mend = "f_dc must hold SH coefficients, (colour - 0.5) / 0.2821 with colours in [0, 1]; these look like bytes"
    return [Finding("colors_out_of_range", "warning", message, mend)]


def check_shapes(scales: np.ndarray, opacities: np.ndarray, extent: Extent) -> Iterator[Finding]:
    """Needles, giants and made-up third axes. Non-empty input."""
    ordered = np.sort(scales, axis=1)  # [N, 3] ascending
    seen, size = opacities > VEIL_OPACITY, extent.diagonal
    needles = seen & (ordered[:, 2] > NEEDLE_RATIO * ordered[:, 1]) & (ordered[:, 2] > NEEDLE_LENGTH * size)
    if size > 0 and needles.mean() > MANY_NEEDLES and needles.sum() > 1:
        message = (
            f"{int(needles.sum()):,} needles: one axis over {NEEDLE_RATIO:g} times the next, "
            f"and longer than {NEEDLE_LENGTH:.0%} of the extent"
        )
        mend = "train with a limit on the ratio of scales, or remove them: splats[mask]"
        yield Finding("needles", "warning", message, mend)
    giants = seen & (ordered[:, 2] > GIANT * size)
    if size > 0 and giants.any():
        worst = float(ordered[giants, 2].max()) / size
        message = f"{int(giants.sum()):,} giant gaussians: standard deviation up to {worst:.3g} times the extent"
        mend = (
            "they veil the scene: remove them (splats[splats.scales.amax(1) < limit]), or scale means and scales alike"
        )
        yield Finding("giants", "warning", message, mend)
    _, counts = np.unique(ordered[:, 0], return_counts=True)
    flat = np.median(ordered[:, 2]) > SURFEL_RATIO * np.median(ordered[:, 0])
    if len(scales) >= 10 and counts.max() >= SURFEL * len(scales) and flat:
        message = "the smallest scale is the same everywhere: flat surfels (2DGS) with a made-up third axis"
        yield Finding("surfels", "info", message, "render them with a 2DGS rasteriser for exact surfaces")


def check_place(means: np.ndarray, scales: np.ndarray, extent: Extent) -> Iterator[Finding]:
    """Far from the origin, or too far for float32. Non-empty input."""
    middle = (extent.low + extent.high) / 2
    away, size = float(np.linalg.norm(middle)), extent.diagonal
    if size > 0 and away > FAR_ORIGIN * size:
        text = "(" + ", ".join(f"{value:.4g}" for value in middle) + ")"
        message = f"the middle lies at {text}, {away / size:,.0f} times the extent from the origin"
        mend = "Splats.center() moves it; not done by --fix, since cameras and other files may share the frame"
        yield Finding("huge_offset", "warning", message, mend)
    step = float(np.spacing(np.float32(np.abs(means).max())))
    fine = float(np.median(scales))
    if fine > 0 and step > COARSE * fine:
        message = f"float32 steps of {step:.2g} at these coordinates are coarse against the median scale of {fine:.2g}"
        mend = "the digits are lost in this file: subtract the offset in double precision before saving as float32"
        yield Finding("precision", "warning", message, mend)


def check_duplicates(raw: RawSplats) -> list[Finding]:
    """Exact copies, found by a 64-bit hash of all stored columns."""
    random = np.random.default_rng(0)
    hashes = np.zeros(len(raw.means), np.uint64)
    for part in (raw.means, raw.quats, raw.scales, raw.opacities, raw.sh0):
        words = np.ascontiguousarray(part.reshape(len(part), -1), np.float32).view(np.uint32)
        for column in words.T:
            hashes += column * (random.integers(0, 2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1))
    hashes.sort()
    copies = int((hashes[1:] == hashes[:-1]).sum())
    if copies == 0:
        return []
    severity = "warning" if copies > DUPLICATES * len(hashes) else "info"
    message = f"{copies:,} of {len(hashes):,} gaussians are exact copies of another"
    mend = "the file was probably joined with itself; keep one of each, copies draw twice as opaque"
    return [Finding("duplicates", severity, message, mend)]
