"""The branches against plain convolutions in float64, with Uni3D's names; the zero start."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clipgs_lib.tokenizer import AttributeEncoder, PointPatchEncoder


def settle(module: nn.Module) -> nn.Module:
    """Random weights, and running statistics away from their start, in float64."""
    generator = torch.Generator().manual_seed(3)
    for value in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
        value.data = torch.rand(value.shape, generator=generator) * 0.5 + 0.1 if value.ndim == 1 else value.data
    return module.double()


@pytest.mark.parametrize("training", [True, False])
def test_the_point_branch_is_unis_mini_pointnet(training):
    encoder = settle(PointPatchEncoder(24, (8, 16, 32))).train(training)
    points = torch.randn(7, 10, 6, dtype=torch.float64)
    first, second = encoder.first_conv, encoder.second_conv
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    local = first(points.transpose(1, 2))  # [P, b, M]
    pooled = local.amax(dim=2, keepdim=True).expand_as(local)
    wanted = second(torch.cat([pooled, local], dim=1)).amax(dim=2)
    encoder.load_state_dict(before)
    assert torch.allclose(encoder(points), wanted, atol=1e-10)


def test_names_and_shapes_are_unis():
    shapes = {name: tuple(value.shape) for name, value in PointPatchEncoder(512).state_dict().items()}
    weights = {name: shape for name, shape in shapes.items() if name.endswith(("weight", "bias"))}
    assert weights == {
        "first_conv.0.weight": (128, 6, 1), "first_conv.0.bias": (128,),
        "first_conv.1.weight": (128,), "first_conv.1.bias": (128,),
        "first_conv.3.weight": (256, 128, 1), "first_conv.3.bias": (256,),
        "second_conv.0.weight": (512, 512, 1), "second_conv.0.bias": (512,),
        "second_conv.1.weight": (512,), "second_conv.1.bias": (512,),
        "second_conv.3.weight": (512, 512, 1), "second_conv.3.bias": (512,),
    }  # fmt: skip


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [9, 8, 1])
def test_the_attribute_branch_is_three_convolutions(training, pool, size):
    encoder = settle(AttributeEncoder(19, 12, (6, 7, 8), pool=pool, zero_init=False)).train(training)
    features = torch.randn(5, size, 19, dtype=torch.float64)
    orders = torch.stack([torch.stack([torch.randperm(size) for _ in range(5)]) for _ in range(3)])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    standard = encoder.norm_inputs(features.transpose(1, 2))
    lines = torch.cat([standard.gather(2, order[:, None].expand(-1, 19, -1)) for order in orders])
    for conv, norm in zip(encoder.convs, encoder.norms, strict=True):
        lines = F.relu(norm(conv(lines)))
    assert lines.shape[2] == (size + 1) // 2
    pooled = lines.amax(dim=2) if pool == "max" else lines.mean(dim=2)
    wanted = encoder.out_norm(encoder.proj(pooled.view(3, 5, 8).mean(dim=0)))
    encoder.load_state_dict(before)
    assert torch.allclose(encoder(features, orders), wanted, atol=1e-10)


def test_the_attribute_branch_starts_at_zero_and_leaves_it():
    torch.manual_seed(0)
    encoder = AttributeEncoder(19, 12, (6, 7, 8))
    features, orders = torch.randn(20, 8, 19), torch.arange(8).expand(1, 20, 8)
    goal = torch.randn(20, 12)
    assert not encoder(features, orders).any()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    start = encoder.convs[0].weight.clone()
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(encoder(features, orders), goal).backward()
        optimizer.step()
    assert encoder(features, orders).any()
    assert not torch.equal(encoder.convs[0].weight, start)
