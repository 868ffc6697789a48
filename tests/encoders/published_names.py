"""Names and shapes of published checkpoints, written down from their code; nothing here asks our modules."""

from __future__ import annotations

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

# Uni3D: size -> width, depth, hidden channels of the MLP, picture tokens of the stem, whether a classifier is there
UNI3D = {
    "tiny": (192, 12, 512, 257, False),
    "small": (384, 12, 1024, 257, False),
    "base": (768, 12, 2048, 1025, True),
    "large": (1024, 24, 2730, 1025, True),
    "giant": (1408, 40, 6144, 1601, True),
}


def uni3d(size: str) -> Shapes:
    """A whole Uni3D state dict: ``logit_scale`` and ``point_encoder.*``, 512 channels per patch, 1024 out."""
    width, depth, hidden, pictures, classifier = UNI3D[size]
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "cls_pos": (1, 1, width),
        **_linear("encoder.first_conv.0", 128, 6, 1),
        **_batch_norm("encoder.first_conv.1", 128),
        **_linear("encoder.first_conv.3", 256, 128, 1),
        **_linear("encoder.second_conv.0", 512, 512, 1),
        **_batch_norm("encoder.second_conv.1", 512),
        **_linear("encoder.second_conv.3", 512, 512, 1),
        **_linear("encoder2trans", width, 512),
        **_linear("trans2embed", 1024, width),
        **_linear("pos_embed.0", 128, 3),
        **_linear("pos_embed.2", width, 128),
        "visual.cls_token": (1, 1, width),
        "visual.pos_embed": (1, pictures, width),
        **_linear("visual.patch_embed.proj", width, 3, 14, 14),
        **_norm("visual.fc_norm", width),
    }
    if classifier:
        shapes |= _linear("visual.head", 1000, width)
    for block in range(depth):
        shapes |= _eva_block(f"visual.blocks.{block}", size, width, hidden)
    return {"logit_scale": (), **{f"point_encoder.{name}": shape for name, shape in shapes.items()}}


def _eva_block(at: str, size: str, width: int, hidden: int) -> Shapes:
    shapes = {**_norm(f"{at}.norm1", width), **_norm(f"{at}.norm2", width), **_linear(f"{at}.attn.proj", width, width)}
    if size in ("tiny", "small", "giant"):  # one matrix for q, k and v
        shapes |= {f"{at}.attn.qkv.weight": (3 * width, width)}
        shapes |= {f"{at}.attn.q_bias": (width,), f"{at}.attn.v_bias": (width,)}
    else:
        shapes |= {**_linear(f"{at}.attn.q_proj", width, width), **_linear(f"{at}.attn.v_proj", width, width)}
        shapes |= {f"{at}.attn.k_proj.weight": (width, width)}
    if size in ("tiny", "small"):  # gate and value in one matrix
        shapes |= {**_linear(f"{at}.mlp.fc1", 2 * hidden, width), **_linear(f"{at}.mlp.fc2", width, hidden)}
    elif size == "giant":
        shapes |= {**_linear(f"{at}.mlp.fc1", hidden, width), **_linear(f"{at}.mlp.fc2", width, hidden)}
    else:
        shapes |= {**_linear(f"{at}.mlp.fc1_g", hidden, width), **_linear(f"{at}.mlp.fc1_x", hidden, width)}
        shapes |= {**_norm(f"{at}.mlp.norm", hidden), **_linear(f"{at}.mlp.fc2", width, hidden)}
    return shapes


def openshape() -> Shapes:
    """A whole OpenShape PointBERT state dict in ViT-bigG-14's space, without DistributedDataParallel's prefix."""
    shapes: Shapes = {"ppat.cls_token": (512,)}
    for i, (entering, leaving) in enumerate([(9, 64), (64, 64), (64, 256)]):
        shapes |= _linear(f"ppat.sa.mlp_convs.{i}", leaving, entering, 1, 1)
        shapes |= _batch_norm(f"ppat.sa.mlp_bns.{i}", leaving)
    shapes |= {**_linear("ppat.lift.0", 512, 259, 1), **_norm("ppat.lift.2", 512)}
    for layer in range(12):
        at = f"ppat.transformer.layers.{layer}"
        shapes |= {**_norm(f"{at}.0.norm", 512), f"{at}.0.fn.to_qkv.weight": (1536, 512)}
        shapes |= _linear(f"{at}.0.fn.to_out.0", 512, 512)
        shapes |= {**_norm(f"{at}.1.norm", 512), **_linear(f"{at}.1.fn.net.0", 1536, 512)}
        shapes |= _linear(f"{at}.1.fn.net.3", 512, 1536)
    return {**shapes, **_linear("proj", 1280, 512)}


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random values of ordinary size for a table of shapes: norms about 1, variances positive, matrices scaled."""
    g = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(17)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=g)
        elif len(shape) < 2:
            state[name] = 0.1 * torch.randn(shape, generator=g) + float("norm" in name and name.endswith("weight"))
        else:
            fan = torch.Size(shape[1:]).numel()
            state[name] = torch.randn(shape, generator=g) / fan**0.5
    return state


def _linear(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _batch_norm(name: str, width: int) -> Shapes:
    running = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return {**_norm(name, width), **running, f"{name}.num_batches_tracked": ()}
