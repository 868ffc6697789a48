"""Slow, plain forwards of the published models, straight from a state dict of published names, in float64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def uni3d_forward(state: State, patches: Tensor, centers: Tensor, heads: int) -> Tensor:
    """Uni3D's point encoder after grouping.

    Args:
        state: names as published, float64, without ``point_encoder.``.
        patches: ``[G, M, 6]`` centred xyz and rgb, of one object.
        centers: ``[G, 3]``.
        heads: of the blocks.

    Returns:
        ``[1024]``.
    """
    tokens = torch.stack([_mini_pointnet(state, patch) for patch in patches])
    tokens = _linear(state, "encoder2trans", tokens)
    places = _linear(state, "pos_embed.2", _gelu(_linear(state, "pos_embed.0", centers)))
    first = (state["cls_token"] + state["cls_pos"])[0]
    x = torch.cat([first, tokens + places])
    blocks = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("visual.blocks."))
    for i in range(blocks):
        x = _eva_block(state, f"visual.blocks.{i}", x, heads)
    return _linear(state, "trans2embed", _layer_norm(state, "visual.fc_norm", x[0], 1e-6))


def openshape_forward(state: State, patches: Tensor, centers: Tensor) -> Tensor:
    """OpenShape's point transformer after grouping: ``[G, M, 9]`` and ``[G, 3]`` -> ``[1280]``."""
    rows = []
    for patch, center in zip(patches, centers, strict=True):
        for i in range(3):
            patch = _linear(state, f"ppat.sa.mlp_convs.{i}", patch)
            patch = _batch_norm(state, f"ppat.sa.mlp_bns.{i}", patch).clamp_min(0)
        rows.append(torch.cat([center, patch.max(dim=0).values]))
    x = _layer_norm(state, "ppat.lift.2", _linear(state, "ppat.lift.0", torch.stack(rows)), 1e-5)
    x = torch.cat([state["ppat.cls_token"][None], x])
    for i in range(12):
        at = f"ppat.transformer.layers.{i}"
        y = _layer_norm(state, f"{at}.0.norm", x, 1e-5)
        q, k, v = (y @ state[f"{at}.0.fn.to_qkv.weight"].T).chunk(3, dim=-1)
        x = x + _linear(state, f"{at}.0.fn.to_out.0", _attend(q, k, v, 8))
        y = _layer_norm(state, f"{at}.1.norm", x, 1e-5)
        x = x + _linear(state, f"{at}.1.fn.net.3", _gelu(_linear(state, f"{at}.1.fn.net.0", y)))
    return _linear(state, "proj", x[0])


def _mini_pointnet(state: State, patch: Tensor) -> Tensor:
    x = _linear(state, "encoder.first_conv.0", patch)
    x = _linear(state, "encoder.first_conv.3", _batch_norm(state, "encoder.first_conv.1", x).clamp_min(0))
    whole = x.max(dim=0).values.expand_as(x)
    x = _linear(state, "encoder.second_conv.0", torch.cat([whole, x], dim=1))
    x = _linear(state, "encoder.second_conv.3", _batch_norm(state, "encoder.second_conv.1", x).clamp_min(0))
    return x.max(dim=0).values


def _eva_block(state: State, at: str, x: Tensor, heads: int) -> Tensor:
    y = _layer_norm(state, f"{at}.norm1", x, 1e-6)
    if f"{at}.attn.qkv.weight" in state:
        q, k, v = (y @ state[f"{at}.attn.qkv.weight"].T).chunk(3, dim=-1)
        q, v = q + state[f"{at}.attn.q_bias"], v + state[f"{at}.attn.v_bias"]
    else:
        q, v = (_linear(state, f"{at}.attn.{name}_proj", y) for name in "qv")
        k = y @ state[f"{at}.attn.k_proj.weight"].T
    x = x + _linear(state, f"{at}.attn.proj", _attend(q, k, v, heads))
    y = _layer_norm(state, f"{at}.norm2", x, 1e-6)
    if f"{at}.mlp.fc1_g.weight" in state:
        y = _silu(_linear(state, f"{at}.mlp.fc1_g", y)) * _linear(state, f"{at}.mlp.fc1_x", y)
        y = _layer_norm(state, f"{at}.mlp.norm", y, 1e-6)
    elif state[f"{at}.mlp.fc1.weight"].shape[0] == 2 * state[f"{at}.mlp.fc2.weight"].shape[1]:
        gate, value = _linear(state, f"{at}.mlp.fc1", y).chunk(2, dim=-1)
        y = _silu(gate) * value
    else:
        y = _gelu(_linear(state, f"{at}.mlp.fc1", y))
    return x + _linear(state, f"{at}.mlp.fc2", y)


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    parts = []
    for a, b, c in zip(*(t.chunk(heads, dim=-1) for t in (q, k, v)), strict=True):
        parts.append((a @ b.T / a.shape[1] ** 0.5).softmax(dim=-1) @ c)
    return torch.cat(parts, dim=-1)


def _linear(state: State, at: str, x: Tensor) -> Tensor:
    weight = state[f"{at}.weight"]
    return x @ weight.reshape(weight.shape[:2]).T + state[f"{at}.bias"]


def _layer_norm(state: State, at: str, x: Tensor, eps: float) -> Tensor:
    spread = (x.var(dim=-1, unbiased=False, keepdim=True) + eps).sqrt()
    return (x - x.mean(dim=-1, keepdim=True)) / spread * state[f"{at}.weight"] + state[f"{at}.bias"]


def _batch_norm(state: State, at: str, x: Tensor) -> Tensor:
    x = (x - state[f"{at}.running_mean"]) / (state[f"{at}.running_var"] + 1e-5).sqrt()
    return x * state[f"{at}.weight"] + state[f"{at}.bias"]


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))
