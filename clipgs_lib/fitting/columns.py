"""The parameters of a fit as one tensor: their meaning, their Adam step, and the relocation of dead gaussians.

Leading dimensions ``[..., N, D]`` are objects that are fitted together.
"""

import torch
from torch import Tensor

from .. import geometry
from ..rendering import Gaussians
from ..splats import Splats

MEANS, QUATS, SCALES, OPACITY, SH = slice(0, 3), slice(3, 7), slice(7, 10), 10, 11
_BETAS = (0.9, 0.999)
_APART = 0.5  # a split gaussian's halves sit this many standard deviations to either side
_LOGIT_LIMIT = 8.0  # opacities stay within 0.0003 of 0 and 1, where a sigmoid can still learn


def activate(parameters: Tensor) -> Gaussians:
    """Read ``[..., N, 11 + 3K]`` parameters: means, quats, log-scales, logit of the opacity, SH."""
    *rows, width = parameters.shape
    means, quats, scales, opacity, sh0, shN = parameters.split([3, 4, 3, 1, 3, width - 14], dim=-1)
    return Gaussians(
        means, quats, scales.exp(), opacity.sigmoid()[..., 0],
        sh0.reshape(*rows, 1, 3), shN.reshape(*rows, (width - 14) // 3, 3),
    )  # fmt: skip


def pack(splats: Splats, extent: float) -> Tensor:
    """The inverse of `activate`; scales of nothing become a 10^-5th of ``extent``."""
    n = len(splats)
    scales = splats.scales.clamp(1e-5 * extent, extent).log()
    opacity = splats.opacities.clamp(1e-4, 1 - 1e-4).logit()[:, None]
    quats = torch.nn.functional.normalize(splats.quats, dim=1)
    rows = [splats.means, quats, scales, opacity, splats.sh0.reshape(n, 3), splats.shN.reshape(n, -1)]
    return torch.cat(rows, dim=1).detach().clone()


def unpack(parameters: Tensor, like: Splats) -> Splats:
    """Splats of fitted parameters, with the frame and the name of ``like``."""
    columns = activate(parameters.detach())
    quats = torch.nn.functional.normalize(columns.quats, dim=1)
    return Splats(
        columns.means.clone(), quats, columns.scales, columns.opacities, columns.sh0.clone(), columns.shN.clone(),
        up_axis=like.up_axis, source=like.source,
    )  # fmt: skip


class Adam:
    """Adam (Kingma & Ba 2015) with one learning rate per column, and moments that can be cleared by row.

    ``parameters [..., N, D]`` is a leaf, updated in place; ``rates`` are ``[D]`` or, per object, ``[..., 1, D]``.
    """

    def __init__(self, parameters: Tensor, rates: Tensor) -> None:
        self.parameters, self.rates = parameters, rates
        self.first, self.second = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, means_factor: float) -> None:
        """Move the parameters against ``gradient [..., N, D]``; the rate of the means times ``means_factor``."""
        self.steps += 1
        self.first.lerp_(gradient, 1 - _BETAS[0])
        self.second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        first_bias, second_bias = 1 - _BETAS[0] ** self.steps, 1 - _BETAS[1] ** self.steps
        rates = self.rates / first_bias
        rates[..., MEANS] *= means_factor
        self.parameters.sub_(rates * self.first / ((self.second / second_bias).sqrt_().add_(1e-15)))

    def clear(self, *rows: int | Tensor) -> None:
        """Forget the moments of the rows at an index, such as ``rows [R]``, or an object and its ``rows [R]``."""
        self.first[rows] = 0
        self.second[rows] = 0


@torch.no_grad()
def confine(parameters: Tensor, extent: float | Tensor) -> None:
    """Keep log-scales, logits and base colours, in place, where they stay finite and can still learn.

    The largest scale is ``extent``, one number or one per object ``[..., 1, 1]``. A colour below black is drawn as
    black and gets no gradient, so it would never come back.
    """
    most = torch.as_tensor(extent, device=parameters.device)
    parameters[..., SCALES].clamp_((1e-5 * most).log(), most.log())
    parameters[..., OPACITY].clamp_(-_LOGIT_LIMIT, _LOGIT_LIMIT)
    parameters[..., SH : SH + 3].clamp_(min=-0.499 / geometry.SH_C0)


@torch.no_grad()
def relocate(
    parameters: Tensor, error: Tensor, seen: Tensor, *, dead_opacity: float, generator: torch.Generator
) -> Tensor:
    """Move gaussians that do nothing to where the error is, in place; n stays.

    A dead gaussian (opacity below ``dead_opacity``, not seen by any view, or not finite) takes one half of a living
    one, drawn with probability proportional to ``error``. The halves sit 0.5 standard deviations to either side along
    the longest axis, so shortened that the spread stays, each with the opacity that leaves what covers the old centre
    the same (or the old opacity, where two halves cannot cover as much). 3D Gaussian Splatting as MCMC (Kheradmand et
    al. 2024) relocates likewise, onto the same centre, and adds noise to part the copies.

    Args:
        parameters: ``[N, D]``.
        error: ``[N]`` how wrong the picture is about each gaussian, ``>= 0``.
        seen: ``[N]`` bool.
        generator: on the CPU; decides who is split.

    Returns:
        ``[R]`` rows that changed, the dead and the split.
    """
    finite = parameters.isfinite().all(dim=1)
    alive = finite & seen & (parameters[:, OPACITY].sigmoid() >= dead_opacity)
    weights = torch.where(alive & error.isfinite(), error, 0.0).double().cpu()
    dead = (~alive).nonzero()[:, 0]
    count = min(len(dead), int((weights > 0).sum()))
    if count == 0:
        return dead[:0]
    dead = dead[:count]
    races = -torch.rand(len(weights), generator=generator, dtype=torch.float64).clamp_min(1e-300).log() / weights
    donors = races.topk(count, largest=False).indices.to(dead.device)
    row = parameters[donors]
    scale, axis = row[:, SCALES].max(dim=1)
    rotation = geometry.quat_to_rotmat(row[:, QUATS])
    direction = rotation.gather(2, axis[:, None, None].expand(-1, 3, 1))[:, :, 0]  # [R, 3]
    shift = _APART * scale.exp()[:, None] * direction
    shorter = (1 - _APART**2) ** 0.5
    row[torch.arange(count, device=row.device), SCALES.start + axis] += torch.log(torch.tensor(shorter))
    opacity = row[:, OPACITY].sigmoid()
    at_centre = torch.exp(torch.tensor(-0.5 * (_APART / shorter) ** 2))
    half = torch.minimum((1 - (1 - opacity).sqrt()) / at_centre, opacity)
    row[:, OPACITY] = half.logit()
    parameters[dead], parameters[donors] = row, row
    parameters[dead, MEANS] += shift
    parameters[donors, MEANS] -= shift
    return torch.cat([dead, donors])
