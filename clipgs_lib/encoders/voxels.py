"""The voxel line: occupancy and colour of a splat in a grid, through a small 3D CNN into the teacher's space."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..geometry import quat_to_rotmat
from ..splats import Splats
from ..tokenizer import SplatBatch, collate
from .configs import VoxelConfig
from .encoder import Encoder, Inputs

# where a gaussian is felt, in its scales: at its centre, and one standard deviation from it along each axis
_SIGMA_POINTS = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)])


class VoxelEncoder(Encoder):
    """Splats -> ``[B, D]``: a grid, stages of two 3 x 3 x 3 convolutions with BN and ReLU, a linear map.

    The first convolution of a stage halves the grid and doubles the channels; the last stage has no second one.
    """

    inputs: Inputs = "voxels"
    block_parameters = r"stages\.(\d+)\."
    last_parameters = ("head.",)
    config: VoxelConfig

    def __init__(self, config: VoxelConfig) -> None:
        super().__init__(config)
        widths = [config.width * 2**stage for stage in range(config.depth)]
        self.stages = nn.ModuleList()
        for stage, (before, width) in enumerate(zip([4, *widths], widths, strict=False)):
            layers = _layers(before, width, stride=2)
            self.stages.append(nn.Sequential(*layers, *(_layers(width, width) if stage < config.depth - 1 else ())))
        self.head = nn.Linear(widths[-1] * (config.size // 2**config.depth) ** 3, config.embed_dim)

    @property
    def blocks(self) -> nn.ModuleList:
        """The stages, fine to coarse."""
        return self.stages

    def collate(self, objects: Sequence[Splats], *, normalize: bool = True) -> Tensor:
        """Grids ``[B, 4, S, S, S]`` of splats, each centred and scaled to the unit sphere, on the encoder's device."""
        batch = collate(objects, normalize=normalize, color_default=self.config.color_default)
        return voxelize(batch.to(self.device), self.config.size, self.config.color_default)

    def forward(self, batch: Tensor) -> Tensor:
        """Embed grids ``[B, 4, S, S, S]``, with gradients: ``[B, D]``, **not** normalised."""
        for stage in self.stages:
            batch = stage(batch)
        return self.head(batch.flatten(1))


def _layers(before: int, after: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv3d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU()


@torch.no_grad()
def voxelize(batch: SplatBatch, size: int, empty: float = 0.4) -> Tensor:
    """Occupancy in ``[0, 1]`` and RGB of B splats in grids ``[B, 4, size, size, size]`` float32, axes x, y, z.

    A grid is the cube ``[-1, 1]`` of each axis; what lies outside is cut off. A gaussian is felt at its centre and at
    the six points one standard deviation from it along its axes. A voxel's occupancy is the opacity of all points in
    it, one behind the other: 1 - prod (1 - o). Its colour is their mean, weighted by opacity; ``empty`` where nothing
    is.
    """
    sigma = _SIGMA_POINTS.to(batch.device)
    offsets = (batch.scales[:, :, None] * sigma) @ quat_to_rotmat(batch.quats).transpose(-1, -2)  # [B, N, 7, 3]
    cells = ((batch.means[:, :, None] + offsets + 1) * (0.5 * size)).floor().long()
    inside = ((cells >= 0) & (cells < size)).all(dim=-1) & batch.mask[:, :, None]  # [B, N, 7]
    objects = torch.arange(len(batch), device=batch.device)[:, None, None]
    x, y, z = cells.unbind(-1)
    index = (((objects * size + x) * size + y) * size + z)[inside]  # [P]
    opacities = batch.opacities[:, :, None].expand_as(inside)[inside].clamp(max=0.999)
    colors = batch.colors[:, :, None].expand(-1, -1, len(sigma), -1)[inside]
    columns = torch.cat([opacities.neg().log1p()[:, None], opacities[:, None], opacities[:, None] * colors], dim=1)
    sums = columns.new_zeros(len(batch) * size**3, 5).index_add_(0, index, columns)  # [B S^3, 5]
    mean = torch.where(sums[:, 1:2] > 0, sums[:, 2:] / sums[:, 1:2].clamp_min(1e-12), empty)
    grid = torch.cat([-sums[:, :1].expm1(), mean], dim=1)
    return grid.view(len(batch), size, size, size, 4).permute(0, 4, 1, 2, 3).contiguous()
